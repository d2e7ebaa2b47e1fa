// What every operator needs: maps and their regions, a parallel loop, zeroed memory.
#pragma once

#include <algorithm>
#include <cstdlib>
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

// The same points as one row, where the strides allow it.
inline Points flat(Points points) {
    if (points.row == points.columns * points.column || points.rows == 1)
        return {points.data, points.channel, points.row, points.column, 1, points.count(), points.channels};
    return points;
}

// Centre m of a group's [channels][count] array as rows of padded channels.
void transpose_centres(const float* from, std::int64_t channels, std::int64_t count, float* rows);

using ParallelFor = void (*)(void* context, std::size_t jobs, void (*job)(void*, std::size_t), void* argument);

struct Run {
    const Kernels& kernels;
    ParallelFor parallel;
    void* context;
    std::int64_t threads;

    // body(item, scratch) for every item; each of at most `scratch_count` jobs has its own scratch. What an item
    // computes never depends on the job it falls into, hence not on the threads.
    template <class Body>
    void each(std::int64_t items, std::int64_t scratch_floats, Body&& body) const {
        if (items == 0) return;
        const std::int64_t jobs = std::min(items, threads == 1 ? 1 : 4 * threads);
        std::vector<float> scratch(static_cast<std::size_t>(jobs * scratch_floats));
        struct Call {
            Body& body;
            float* scratch;
            std::int64_t items, jobs, floats;
        } call{body, scratch.data(), items, jobs, scratch_floats};
        const auto job = [](void* argument, std::size_t number) {
            const Call& c = *static_cast<Call*>(argument);
            const auto j = static_cast<std::int64_t>(number);
            for (std::int64_t i = j * c.items / c.jobs; i < (j + 1) * c.items / c.jobs; ++i)
                c.body(i, c.scratch + j * c.floats);
        };
        if (jobs == 1)
            job(&call, 0);
        else
            parallel(context, static_cast<std::size_t>(jobs), job, &call);
    }

    // Whether one job a group keeps the threads busy, so that a group's steps need no barrier between them.
    bool by_group(std::int64_t groups, std::int64_t points) const {
        return groups % threads == 0 || groups >= 3 * threads || groups * points < 1024;
    }
};

// Points are summed in blocks of this many, whatever the threads: the same sums, the same bits.
constexpr std::int64_t block_points = 10 * tile_points;
inline std::int64_t blocks(std::int64_t points) { return (points + block_points - 1) / block_points; }

using Floats = std::vector<float>;
inline Floats floats(std::int64_t count) { return Floats(static_cast<std::size_t>(count)); }

// Pooled centres of a group and their packed form.
struct CentreSet {
    std::int64_t count, channels, stride, packed_stride;
    Floats rows, packed;
    std::vector<std::int64_t> first_nan;

    CentreSet(std::int64_t groups, std::int64_t count, std::int64_t channels);
    float* row(std::int64_t g, std::int64_t m) { return rows.data() + (g * count + m) * stride; }
    void pack(const Kernels& kernels, std::int64_t g);
    Centres of(std::int64_t g) const {
        const auto i = static_cast<std::size_t>(g);
        return {packed.data() + g * packed_stride, count, channels, first_nan[i], nullptr};
    }
};

// Row i of an adaptive average pooling of a region to a grid, as rows of padded channels.
void pool_row(const Kernels& kernels, const Points& points, std::int64_t grid_rows, std::int64_t grid_columns,
              std::int64_t i, float* out);

}  // namespace cluinfer
