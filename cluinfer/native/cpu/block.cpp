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
    const Projection* projection;
    const std::int64_t groups = shape.groups(), size = shape.points(), count = shape.centres();
    const std::int64_t parts = blocks(size), stride = padded(shape.channels);
    Workspace memory{};
    CentreSet centres{groups, count, shape.channels, memory};
    Sums sums{groups, count, shape.channels, size, memory};
    Projected projected{run, shape, projection, count, memory};
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

    void pool(const Plot& plot, std::int64_t i, float* space) const {
        pool_plot(run.kernels, shape, plot, i, features, centres.rows, space);
        pool_plot(run.kernels, shape, plot, i, values, base, space);
    }
    void pack(const Plot& plot) const {
        plot.each_group(shape, [&](std::int64_t g) { centres.pack(run.kernels, g); });
    }
    // Points of block k to their centres.
    void cluster(const Plot& plot, std::int64_t k, float* space) const {
        const std::int64_t first = k * block_points, width = std::min(block_points, size - first);
        plot.each_group(shape, [&](std::int64_t g) {
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
        plot.each_group(shape, [&](std::int64_t g) {
            sums.join(run.kernels, g);
            float* rows = base + g * count * stride;
            run.kernels.settle(sums.of(g, 0), sums.mass_of(g, 0), rows, count, shape.channels, rows);
            if (projected) projected.project(g, rows);
        });
    }
    // Points [first, end) from their centres.
    void dispatch(const Plot& plot, std::int64_t first, std::int64_t end, float* space) const {
        for (; first < end; first += tile_points) {
            const std::int64_t width = std::min(tile_points, end - first);
            if (projected) projected.dispatch(plot, first, first + width, index, weight, out);
            plot.each_group(shape, [&](std::int64_t g) {
                const std::int32_t* from = index + g * size + first;
                if (!projected)
                    run.kernels.gather(flat(region(out, shape, g)), first, width, from, weight + g * size + first,
                                       base + g * count * stride, count, space);
                if (clusters) write_clusters(shape, g, first, width, from, clusters);
            });
        }
    }
};

}  // namespace

void cluster_block(const Run& run, const Shape& shape, const Map& features, const Map& values,
                   const Similarity& similarity, bool weighted, const Map& out, std::int32_t* clusters,
                   const Projection* projection) {
    Block b{run, shape, features, values, out, similarity, weighted, clusters, projection};
    b.allocate();
    const Plan plan(shape, run.threads);
    const auto by = [&](std::int64_t pieces, auto step) {
        run.each(plan.plots * pieces, b.scratch, [&, step](std::int64_t i, float* space) {
            step(plan.whole(shape, i / pieces), i % pieces, space);
        });
    };
    const std::int64_t step = 2 * tile_points, steps = (b.size + step - 1) / step;  // nothing is summed over points here
    const auto dispatch = [&](const Plot& plot, std::int64_t k, float* space) {
        b.dispatch(plot, k * step, std::min((k + 1) * step, b.size), space);
    };
    if (plan.by_plot) {
        const bool later = projection && plan.split > 1;  // a point needs all its heads
        run.each(plan.count(), b.scratch, [&](std::int64_t i, float* space) {
            const Plot plot = plan.plot(shape, i);
            for (std::int64_t row = 0; row < shape.grid_rows; ++row) b.pool(plot, row, space);
            b.pack(plot);
            for (std::int64_t k = 0; k < b.parts; ++k) b.cluster(plot, k, space);
            b.settle(plot);
            if (!later) b.dispatch(plot, 0, b.size, space);
        });
        if (later) by(steps, dispatch);
        return;
    }
    by(shape.grid_rows, [&](const Plot& plot, std::int64_t row, float* space) { b.pool(plot, row, space); });
    by(1, [&](const Plot& plot, std::int64_t, float*) { b.pack(plot); });
    by(b.parts, [&](const Plot& plot, std::int64_t k, float* space) { b.cluster(plot, k, space); });
    by(1, [&](const Plot& plot, std::int64_t, float*) { b.settle(plot); });
    by(steps, dispatch);
}

}  // namespace cluinfer
