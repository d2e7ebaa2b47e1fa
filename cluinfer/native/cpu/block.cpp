// The token mixer of FEC and Context Cluster in one operator: centres, assignment, aggregation, dispatch.
#include "operators.hpp"

namespace cluinfer {
namespace {

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
        run.plan(memory, scratch, scratch_floats(shape.channels, count));
        memory.allocate();
    }
    void pool(std::int64_t g, std::int64_t i) {
        const std::int64_t m = i * shape.grid_columns;
        pool_row(run.kernels, region(features, shape, g), shape.grid_rows, shape.grid_columns, i, centres.row(g, m));
        pool_row(run.kernels, region(values, shape, g), shape.grid_rows, shape.grid_columns, i,
                    base + (g * count + m) * stride);
    }
    void gather_points(std::int64_t g, std::int64_t k, float* space) {
        const std::int64_t first = k * block_points, width = std::min(block_points, size - first);
        std::int32_t* to = index + g * size + first;
        float* w = weight + g * size + first;
        run.kernels.assign(flat(region(features, shape, g)), first, width, centres.of(g), similarity, to, w, space);
        sums.clear(g, k);
        run.kernels.scatter(flat(region(values, shape, g)), first, width, to, weighted ? w : nullptr, count,
                            sums.of(g, k), sums.mass_of(g, k), space);
    }
    void settle(std::int64_t g) {
        sums.join(run.kernels, g);
        float* rows = base + g * count * stride;
        run.kernels.settle(sums.of(g, 0), sums.mass_of(g, 0), rows, count, shape.channels, rows);
    }
    void dispatch(std::int64_t g, std::int64_t k, float* space) {
        const std::int64_t first = k * block_points, width = std::min(block_points, size - first);
        const std::int32_t* from = index + g * size + first;
        run.kernels.gather(flat(region(out, shape, g)), first, width, from, weight + g * size + first,
                           base + g * count * stride, count, space);
        if (clusters) write_clusters(shape, g, first, width, from, clusters);
    }
};

}  // namespace

void cluster_block(const Run& run, const Shape& shape, const Map& features, const Map& values,
                   const Similarity& similarity, bool weighted, const Map& out, std::int32_t* clusters) {
    Block b{run, shape, features, values, out, similarity, weighted, clusters};
    b.allocate();
    if (run.by_group(b.groups, b.size)) {
        run.each(b.groups, b.scratch, [&](std::int64_t g, float* space) {
            for (std::int64_t i = 0; i < shape.grid_rows; ++i) b.pool(g, i);
            b.centres.pack(run.kernels, g);
            for (std::int64_t k = 0; k < b.parts; ++k) b.gather_points(g, k, space);
            b.settle(g);
            for (std::int64_t k = 0; k < b.parts; ++k) b.dispatch(g, k, space);
        });
        return;
    }
    run.each(b.groups * shape.grid_rows,
             [&](std::int64_t i) { b.pool(i / shape.grid_rows, i % shape.grid_rows); });
    run.each(b.groups, [&](std::int64_t g) { b.centres.pack(run.kernels, g); });
    run.each(b.groups * b.parts, b.scratch,
             [&](std::int64_t i, float* space) { b.gather_points(i / b.parts, i % b.parts, space); });
    run.each(b.groups, [&](std::int64_t g) { b.settle(g); });
    run.each(b.groups * b.parts, b.scratch,
             [&](std::int64_t i, float* space) { b.dispatch(i / b.parts, i % b.parts, space); });
}

}  // namespace cluinfer
