#include "operators.hpp"

namespace cluinfer {

void assign(const Run& run, const Shape& shape, const Map& points, const float* centres, std::int64_t count,
            const Similarity& similarity, std::int32_t* index, float* weight) {
    const std::int64_t groups = shape.groups(), size = shape.points(), parts = blocks(size);
    CentreSet set(groups, count, shape.channels);
    run.each(groups, 0, [&](std::int64_t g, float*) {
        transpose_centres(centres + g * shape.channels * count, shape.channels, count, set.row(g, 0));
        set.pack(run.kernels, g);
    });
    run.each(groups * parts, scratch_floats(shape.channels, count), [&](std::int64_t i, float* scratch) {
        const std::int64_t g = i / parts, first = i % parts * block_points;
        run.kernels.assign(flat(region(points, shape, g)), first, std::min(block_points, size - first), set.of(g),
                           similarity, index + g * size + first, weight + g * size + first, scratch);
    });
}

}  // namespace cluinfer
