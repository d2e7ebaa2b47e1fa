#include "operators.hpp"

namespace cluinfer {

void assign(const Run& run, const Shape& shape, const Map& points, const float* centres, std::int64_t count,
            const Similarity& similarity, std::int32_t* index, float* weight) {
    const std::int64_t groups = shape.groups(), size = shape.points(), parts = blocks(size);
    Workspace memory;
    Scratch scratch;
    CentreSet set(groups, count, shape.channels, memory);
    run.plan(memory, scratch, scratch_floats(shape.channels, count));
    memory.allocate();
    run.each(groups, [&](std::int64_t g) {
        transpose_centres(centres + g * shape.channels * count, shape.channels, count, set.row(g, 0));
        set.pack(run.kernels, g);
    });
    run.each_block(shape, parts, scratch, [&](std::int64_t g, std::int64_t k, float* space) {
        const std::int64_t first = k * block_points;
        run.kernels.assign(flat(region(points, shape, g)), first, std::min(block_points, size - first), set.of(g),
                           similarity, index + g * size + first, weight + g * size + first, space);
    });
}

}  // namespace cluinfer
