// The token mixer of FEC and Context Cluster in one operator: centres, assignment, aggregation, dispatch.
//
// In a channels-last map the heads of a point share cache lines, so a large map is walked by points, all heads of a
// few points before the next: by heads it would come through the cache once a head (measured on a 56 x 56 map, one
// thread: 0.89 ms against 0.71). A small map fits the cache, and its heads can run side by side without a barrier.
#include "operators.hpp"

namespace cluinfer {
namespace {

constexpr std::int64_t small_map = 64 * 1024;  // floats

// Some heads of one region of one picture.
struct Plot {
    std::int64_t batch, region, first_head, heads;
};

struct Block {
    const Run& run;
    const Shape& shape;
    const Map &features, &values, &out;
    const Similarity& similarity;
    bool weighted;
    std::int32_t* clusters;
    const std::int64_t groups = shape.groups(), size = shape.points(), count = shape.centres();
    const std::int64_t parts = blocks(size), stride = padded(shape.channels);
    Workspace memory{};
    CentreSet centres{groups, count, shape.channels, memory};
    Sums sums{groups, count, shape.channels, size, memory};
    float *base = nullptr, *weight = nullptr;
    std::int32_t* index = nullptr;
    Scratch scratch{};

    void allocate() {
        memory.plan(base, groups * count * stride);
        memory.plan(weight, groups * size);
        memory.plan(index, groups * size);
        run.plan(memory, scratch,
                 std::max(scratch_floats(shape.channels, count),
                          shape.grid_columns * padded(shape.channels * shape.heads)));
        memory.allocate();
    }

    template <class Body>
    void each_head(const Plot& plot, Body&& body) const {
        for (std::int64_t e = plot.first_head; e < plot.first_head + plot.heads; ++e)
            body((plot.batch * shape.heads + e) * shape.regions() + plot.region);
    }
    std::int64_t group(const Plot& plot) const {
        return (plot.batch * shape.heads + plot.first_head) * shape.regions() + plot.region;
    }

    // Row i of the grid for all heads of the plot at once, then to each head's own rows.
    void pool_map(const Plot& plot, std::int64_t i, const Map& map, float* rows, float* space) const {
        Points points = region(map, shape, group(plot));
        points.channels *= plot.heads;
        pool_row(run.kernels, points, shape.grid_rows, shape.grid_columns, i, space);
        const std::int64_t wide = padded(points.channels);
        std::int64_t channel = 0;
        each_head(plot, [&](std::int64_t g) {
            for (std::int64_t j = 0; j < shape.grid_columns; ++j) {
                float* row = rows + (g * count + i * shape.grid_columns + j) * stride;
                std::copy_n(space + j * wide + channel, shape.channels, row);
                std::fill(row + shape.channels, row + stride, 0.0f);
            }
            channel += shape.channels;
        });
    }
    void pool(const Plot& plot, std::int64_t i, float* space) const {
        pool_map(plot, i, features, centres.rows, space);
        pool_map(plot, i, values, base, space);
    }
    void pack(const Plot& plot) const {
        each_head(plot, [&](std::int64_t g) { centres.pack(run.kernels, g); });
    }
    // Points of block k to their centres.
    void cluster(const Plot& plot, std::int64_t k, float* space) const {
        const std::int64_t first = k * block_points, width = std::min(block_points, size - first);
        each_head(plot, [&](std::int64_t g) {
            std::int32_t* to = index + g * size + first;
            float* w = weight + g * size + first;
            run.kernels.assign(flat(region(features, shape, g)), first, width, centres.of(g), similarity, to, w,
                               space);
            sums.clear(g, k);
            run.kernels.scatter(flat(region(values, shape, g)), first, width, to, weighted ? w : nullptr, count,
                                sums.of(g, k), sums.mass_of(g, k), space);
        });
    }
    void settle(const Plot& plot) const {
        each_head(plot, [&](std::int64_t g) {
            sums.join(run.kernels, g);
            float* rows = base + g * count * stride;
            run.kernels.settle(sums.of(g, 0), sums.mass_of(g, 0), rows, count, shape.channels, rows);
        });
    }
    void dispatch(const Plot& plot, std::int64_t k, float* space) const {
        const std::int64_t end = std::min((k + 1) * block_points, size);
        for (std::int64_t first = k * block_points; first < end; first += tile_points) {
            const std::int64_t width = std::min(tile_points, end - first);
            each_head(plot, [&](std::int64_t g) {
                const std::int32_t* from = index + g * size + first;
                run.kernels.gather(flat(region(out, shape, g)), first, width, from, weight + g * size + first,
                                   base + g * count * stride, count, space);
                if (clusters) write_clusters(shape, g, first, width, from, clusters);
            });
        }
    }
};

}  // namespace

void cluster_block(const Run& run, const Shape& shape, const Map& features, const Map& values,
                   const Similarity& similarity, bool weighted, const Map& out, std::int32_t* clusters) {
    Block b{run, shape, features, values, out, similarity, weighted, clusters};
    b.allocate();
    const std::int64_t plots = shape.batch * shape.regions();
    const bool many = plots >= 2 * run.threads || run.threads == 1;
    if (many || b.size * shape.heads * shape.channels <= small_map) {
        const std::int64_t split = many ? 1 : shape.heads;  // one plot a head
        run.each(plots * split, b.scratch, [&](std::int64_t i, float* space) {
            const Plot plot{i / split / shape.regions(), i / split % shape.regions(), i % split, shape.heads / split};
            for (std::int64_t row = 0; row < shape.grid_rows; ++row) b.pool(plot, row, space);
            b.pack(plot);
            for (std::int64_t k = 0; k < b.parts; ++k) b.cluster(plot, k, space);
            b.settle(plot);
            for (std::int64_t k = 0; k < b.parts; ++k) b.dispatch(plot, k, space);
        });
        return;
    }
    const auto plot = [&](std::int64_t i) {
        return Plot{i / shape.regions(), i % shape.regions(), 0, shape.heads};
    };
    run.each(plots * shape.grid_rows, b.scratch, [&](std::int64_t i, float* space) {
        b.pool(plot(i / shape.grid_rows), i % shape.grid_rows, space);
    });
    run.each(plots, [&](std::int64_t i) { b.pack(plot(i)); });
    run.each(plots * b.parts, b.scratch,
             [&](std::int64_t i, float* space) { b.cluster(plot(i / b.parts), i % b.parts, space); });
    run.each(plots, [&](std::int64_t i) { b.settle(plot(i)); });
    run.each(plots * b.parts, b.scratch,
             [&](std::int64_t i, float* space) { b.dispatch(plot(i / b.parts), i % b.parts, space); });
}

}  // namespace cluinfer
