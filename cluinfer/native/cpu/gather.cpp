#include "operators.hpp"

namespace cluinfer {

void gather(const Run& run, const Shape& shape, const float* centres, std::int64_t count, const std::int32_t* index,
            const float* weight, const Map& out, const Projection* projection) {
    const std::int64_t groups = shape.groups(), size = shape.points();
    const std::int64_t channels = shape.channels, stride = padded(channels);
    Workspace memory;
    Scratch scratch;
    float* rows = nullptr;
    memory.plan(rows, groups * count * stride);
    Projected projected(run, shape, projection, count, memory);
    run.plan(memory, scratch, scratch_floats(channels, 1));
    memory.allocate();
    run.each(groups, [&](std::int64_t g) {
        transpose_centres(centres + g * channels * count, channels, count, rows + g * count * stride);
        if (projected) projected.project(g, rows + g * count * stride);
    });
    if (projected) {
        const std::int64_t step = 2 * tile_points, steps = (size + step - 1) / step, regions = shape.regions();
        run.each(shape.batch * regions * steps, [&](std::int64_t i) {
            const Plot plot{i / steps / regions, i / steps % regions, 0, shape.heads};
            projected.dispatch(plot, i % steps * step, std::min((i % steps + 1) * step, size), index, weight, out);
        });
        return;
    }
    run.each_block(shape, blocks(size), scratch, [&](std::int64_t g, std::int64_t k, float* space) {
        const std::int64_t first = k * block_points;
        run.kernels.gather(flat(region(out, shape, g)), first, std::min(block_points, size - first),
                           index + g * size + first, weight ? weight + g * size + first : nullptr,
                           rows + g * count * stride, count, space);
    });
}

void write_clusters(const Shape& shape, std::int64_t g, std::int64_t first, std::int64_t count,
                    const std::int32_t* index, std::int32_t* clusters) {
    const std::int64_t r = g % shape.regions(), plane = g / shape.regions();
    const std::int64_t high = shape.rows / shape.fold_rows, wide = shape.columns / shape.fold_columns;
    const auto base = static_cast<std::int32_t>(r * shape.centres());
    std::int32_t* corner = clusters + plane * shape.rows * shape.columns +
                           r / shape.fold_columns * high * shape.columns + r % shape.fold_columns * wide;
    std::int64_t row = first / wide, column = first % wide;
    for (std::int64_t i = 0; i < count; ++i) {
        corner[row * shape.columns + column] = base + index[i];
        if (++column == wide) column = 0, ++row;
    }
}

}  // namespace cluinfer
