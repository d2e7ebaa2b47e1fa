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
    const std::int64_t scratch = scratch_floats(shape.channels, count);
    CentreSet centres{groups, count, shape.channels};
    Floats base = floats(groups * count * stride);
    Floats sums = floats(groups * parts * count * stride), mass = floats(groups * parts * count);
    Floats weight = floats(groups * size);
    std::vector<std::int32_t> index = std::vector<std::int32_t>(static_cast<std::size_t>(groups * size));

    void pool(std::int64_t g, std::int64_t i) {
        const std::int64_t m = i * shape.grid_columns;
        pool_row(run.kernels, region(features, shape, g), shape.grid_rows, shape.grid_columns, i, centres.row(g, m));
        pool_row(run.kernels, region(values, shape, g), shape.grid_rows, shape.grid_columns, i,
                    base.data() + (g * count + m) * stride);
    }
    void gather_points(std::int64_t g, std::int64_t k, float* space) {
        const std::int64_t first = k * block_points, width = std::min(block_points, size - first);
        std::int32_t* to = index.data() + g * size + first;
        float* w = weight.data() + g * size + first;
        run.kernels.assign(flat(region(features, shape, g)), first, width, centres.of(g), similarity, to, w, space);
        const std::int64_t at = (g * parts + k) * count;
        run.kernels.scatter(flat(region(values, shape, g)), first, width, to, weighted ? w : nullptr, count,
                            sums.data() + at * stride, mass.data() + at, space);
    }
    void settle(std::int64_t g) {
        float* total = sums.data() + g * parts * count * stride;
        float* weights = mass.data() + g * parts * count;
        for (std::int64_t k = 1; k < parts; ++k) {
            run.kernels.add(total, total + k * count * stride, count * stride);
            for (std::int64_t m = 0; m < count; ++m) weights[m] += weights[k * count + m];
        }
        float* centre_values = base.data() + g * count * stride;
        run.kernels.settle(total, weights, centre_values, count, shape.channels, centre_values);
    }
    void dispatch(std::int64_t g, std::int64_t k, float* space) {
        const std::int64_t first = k * block_points, width = std::min(block_points, size - first);
        const std::int32_t* from = index.data() + g * size + first;
        run.kernels.gather(flat(region(out, shape, g)), first, width, from, weight.data() + g * size + first,
                           base.data() + g * count * stride, count, space);
        if (clusters) write_clusters(shape, g, first, width, from, clusters);
    }
};

}  // namespace

void cluster_block(const Run& run, const Shape& shape, const Map& features, const Map& values,
                   const Similarity& similarity, bool weighted, const Map& out, std::int32_t* clusters) {
    Block b{run, shape, features, values, out, similarity, weighted, clusters};
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
    run.each(b.groups * shape.grid_rows, 0,
             [&](std::int64_t i, float*) { b.pool(i / shape.grid_rows, i % shape.grid_rows); });
    run.each(b.groups, 0, [&](std::int64_t g, float*) { b.centres.pack(run.kernels, g); });
    run.each(b.groups * b.parts, b.scratch,
             [&](std::int64_t i, float* space) { b.gather_points(i / b.parts, i % b.parts, space); });
    run.each(b.groups, 0, [&](std::int64_t g, float*) { b.settle(g); });
    run.each(b.groups * b.parts, b.scratch,
             [&](std::int64_t i, float* space) { b.dispatch(i / b.parts, i % b.parts, space); });
}

}  // namespace cluinfer
