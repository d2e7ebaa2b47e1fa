// What every operator needs: maps and their regions, a parallel loop, zeroed memory.
#pragma once

#include <algorithm>
#include <memory>
#include <new>
#include <vector>

#include "kernels.hpp"

namespace cluinfer {

// A [batch, heads * channels, rows, columns] map; strides in floats, a head's channels side by side.
struct Map {
    float* data;
    std::ptrdiff_t batch, channel, row, column;
};

struct Shape {
    std::int64_t batch, heads, channels, rows, columns;
    std::int64_t fold_rows, fold_columns;  // regions along each side
    std::int64_t grid_rows, grid_columns;  // centres along each side of a region

    std::int64_t regions() const { return fold_rows * fold_columns; }
    std::int64_t groups() const { return batch * heads * regions(); }
    std::int64_t points() const { return rows / fold_rows * (columns / fold_columns); }
    std::int64_t centres() const { return grid_rows * grid_columns; }
};

// Region g of a map of `rows` x `columns` points, `channels` channels a head; groups are batch, head, region.
inline Points region(const Map& map, const Shape& shape, std::int64_t g, std::int64_t channels, std::int64_t rows,
                     std::int64_t columns) {
    const std::int64_t r = g % shape.regions(), head = g / shape.regions() % shape.heads;
    const std::int64_t high = rows / shape.fold_rows, wide = columns / shape.fold_columns;
    float* data = map.data;
    if (data)
        data += g / shape.regions() / shape.heads * map.batch + head * channels * map.channel +
                r / shape.fold_columns * high * map.row + r % shape.fold_columns * wide * map.column;
    return {data, map.channel, map.row, map.column, high, wide, channels};
}

inline Points region(const Map& map, const Shape& shape, std::int64_t g) {
    return region(map, shape, g, shape.channels, shape.rows, shape.columns);
}

// The 1x1 convolution behind a mixer, weight [heads * channels][width] and bias [width] or null: it is applied to the
// centres, of which there are few, and each point sums over its heads what they have become.
struct Projection {
    std::int64_t width;
    const float *weight, *bias;
};

// Some heads of one region of one picture. In a channels-last map the heads of a point share cache lines, so a large
// map is walked by points, all heads of a few points before the next: by heads it would come through the cache once a
// head. A small map fits the cache, and its heads can run side by side without a barrier.
struct Plot {
    std::int64_t batch, region, first_head, heads;

    std::int64_t group(const Shape& shape, std::int64_t head) const {
        return (batch * shape.heads + head) * shape.regions() + region;
    }
    template <class Body>
    void each_group(const Shape& shape, Body&& body) const {
        for (std::int64_t e = first_head; e < first_head + heads; ++e) body(group(shape, e));
    }
};

// How the work on a whole map is cut: into plots that run by themselves, if these keep the threads busy or the map is
// small, else into blocks of points, with barriers between the steps.
struct Plan {
    std::int64_t regions, plots, split;  // plots: pictures and regions; split: of each into heads
    bool by_plot;

    Plan(const Shape& shape, std::int64_t threads)
        : regions(shape.regions()), plots(shape.batch * regions), split(1), by_plot(true) {
        constexpr std::int64_t small_map = 128 * 1024, tiny_map = 12 * 1024;  // floats; measured on two threads
        const std::int64_t floats = shape.points() * shape.heads * shape.channels;
        if (threads == 1 || plots >= 2 * threads || floats * plots <= tiny_map) return;
        by_plot = floats <= small_map;
        if (by_plot) split = shape.heads;
    }
    std::int64_t count() const { return plots * split; }
    // Piece i of count(), and plot i as a whole.
    Plot whole(const Shape& shape, std::int64_t i) const { return {i / regions, i % regions, 0, shape.heads}; }
    Plot plot(const Shape& shape, std::int64_t i) const {
        return {i / split / regions, i / split % regions, i % split, shape.heads / split};
    }
};

// The same points as one row, where the strides allow it.
inline Points flat(Points points) {
    if (points.row == points.columns * points.column || points.rows == 1)
        return {points.data, points.channel, points.row, points.column, 1, points.count(), points.channels};
    return points;
}

// Row i of the grid for all heads of the plot at once, then to each head's own rows [group][centre][padded(channels)];
// space is for grid_columns * padded(channels of all heads) floats.
void pool_plot(const Kernels&, const Shape&, const Plot&, std::int64_t i, const Map&, float* rows, float* space);

// Centre m of a group's [channels][count] array as rows of padded channels.
void transpose_centres(const float* from, std::int64_t channels, std::int64_t count, float* rows);

// All memory of one call, in one piece: the heap keeps one piece for the next call, where it would hand several back
// to the system and fault their pages in again (a fifth of a pool's time). Not initialised.
class Workspace {
public:
    template <class T>
    void plan(T*& pointer, std::int64_t count) {
        const auto set = [](void* slot, char* at) { *static_cast<T**>(slot) = reinterpret_cast<T*>(at); };
        slots_.push_back({set, &pointer, size_});
        size_ += (static_cast<std::size_t>(count) * sizeof(T) + 63) / 64 * 64;
    }
    void allocate() {
        memory_.reset(new char[size_ + 64]);
        void* start = memory_.get();
        std::size_t space = size_ + 64;
        char* aligned = static_cast<char*>(std::align(64, size_, start, space));
        for (const Slot& slot : slots_) slot.set(slot.pointer, aligned + slot.offset);
    }

private:
    struct Slot {
        void (*set)(void*, char*);
        void* pointer;
        std::size_t offset;
    };
    std::vector<Slot> slots_;
    std::size_t size_ = 0;
    std::unique_ptr<char[]> memory_;
};

using ParallelFor = void (*)(void* context, std::size_t jobs, void (*job)(void*, std::size_t), void* argument);

// Memory for each job of a loop.
struct Scratch {
    float* data = nullptr;
    std::int64_t floats = 0;
};

struct Run {
    const Kernels& kernels;
    ParallelFor parallel;
    void* context;
    std::int64_t threads;

    std::int64_t most_jobs() const { return threads == 1 ? 1 : 4 * threads; }

    void plan(Workspace& memory, Scratch& scratch, std::int64_t floats) const {
        scratch.floats = (floats + 15) / 16 * 16;
        memory.plan(scratch.data, most_jobs() * scratch.floats);
    }

    // body(item, scratch of its job) for every item. What an item computes never depends on the job it falls into,
    // hence not on the threads.
    template <class Body>
    void each(std::int64_t items, const Scratch& scratch, Body&& body) const {
        if (items == 0) return;
        struct Call {
            Body& body;
            Scratch scratch;
            std::int64_t items, jobs;
        } call{body, scratch, items, std::min(items, most_jobs())};
        const auto job = [](void* argument, std::size_t number) {
            const Call& c = *static_cast<Call*>(argument);
            const auto j = static_cast<std::int64_t>(number);
            for (std::int64_t i = j * c.items / c.jobs; i < (j + 1) * c.items / c.jobs; ++i)
                c.body(i, c.scratch.data + j * c.scratch.floats);
        };
        if (call.jobs == 1)
            job(&call, 0);
        else
            parallel(context, static_cast<std::size_t>(call.jobs), job, &call);
    }
    template <class Body>
    void each(std::int64_t items, Body&& body) const {
        each(items, Scratch{}, [&](std::int64_t i, float*) { body(i); });
    }

    // body(group, block of its points, scratch) for every block of points of every group, all heads of a block first.
    template <class Body>
    void each_block(const Shape& shape, std::int64_t blocks, const Scratch& scratch, Body&& body) const {
        each(shape.groups() * blocks, scratch, [&](std::int64_t i, float* space) {
            const std::int64_t plot = i / shape.heads / blocks;
            const Plot here{plot / shape.regions(), plot % shape.regions(), 0, shape.heads};
            body(here.group(shape, i % shape.heads), i / shape.heads % blocks, space);
        });
    }
};

// Points are summed in blocks of this many, whatever the threads: the same sums, the same bits.
constexpr std::int64_t block_points = 5 * tile_points;
inline std::int64_t blocks(std::int64_t points) { return (points + block_points - 1) / block_points; }

// Centres of all groups, and their packed form. Packing leaves unit vectors in the rows.
struct CentreSet {
    std::int64_t count, channels, stride, packed_stride;
    float *rows = nullptr, *packed = nullptr;
    std::int64_t* first_nan = nullptr;

    CentreSet(std::int64_t groups, std::int64_t count, std::int64_t channels, Workspace& memory);
    float* row(std::int64_t g, std::int64_t m) const { return rows + (g * count + m) * stride; }
    void pack(const Kernels& kernels, std::int64_t g) const {
        first_nan[g] = kernels.pack(row(g, 0), stride, count, channels, 0, count, packed + g * packed_stride);
    }
    Centres of(std::int64_t g) const {
        return {packed + g * packed_stride, row(g, 0), count, channels, first_nan[g], nullptr};
    }
};

// Sums of points over centres, block by block, then joined in the order of the blocks.
struct Sums {
    std::int64_t count, stride, parts;
    float *sums = nullptr, *mass = nullptr;

    Sums(std::int64_t groups, std::int64_t count, std::int64_t channels, std::int64_t points, Workspace& memory);
    float* of(std::int64_t g, std::int64_t k) const { return sums + (g * parts + k) * count * stride; }
    float* mass_of(std::int64_t g, std::int64_t k) const { return mass + (g * parts + k) * count; }
    void clear(std::int64_t g, std::int64_t k) const;
    void join(const Kernels& kernels, std::int64_t g) const;  // into block 0
};

// Row i of an adaptive average pooling of a region to a grid, as rows of padded channels.
void pool_row(const Kernels& kernels, const Points& points, std::int64_t grid_rows, std::int64_t grid_columns,
              std::int64_t i, float* out);

// The centres of all groups as the convolution behind a mixer leaves them, and the points that sum over them.
struct Projected {
    const Run& run;
    const Shape& shape;
    const Projection* is;  // null: there is none
    std::int64_t count, wide;
    float* rows = nullptr;

    Projected(const Run&, const Shape&, const Projection*, std::int64_t centres, Workspace&);
    explicit operator bool() const { return is != nullptr; }
    // The centres of group g, from rows of padded channels.
    void project(std::int64_t g, const float* centres) const;
    // Points [first, end) of the plot with all its heads.
    void dispatch(const Plot&, std::int64_t first, std::int64_t end, const std::int32_t* index, const float* weight,
                  const Map& out) const;
};

}  // namespace cluinfer
