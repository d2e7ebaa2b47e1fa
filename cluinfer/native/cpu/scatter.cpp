#include "operators.hpp"

namespace cluinfer {

void scatter(const Run& run, const Shape& shape, const Map& values, const std::int32_t* index, const float* weight,
             const float* base, std::int64_t count, float* centres) {
    const std::int64_t groups = shape.groups(), size = shape.points(), channels = shape.channels;
    const std::int64_t stride = padded(channels);
    Workspace memory;
    Scratch scratch;
    const Sums sums(groups, count, channels, size, memory);
    run.plan(memory, scratch, scratch_floats(channels, 1));
    memory.allocate();
    run.each_block(shape, sums.parts, scratch, [&](std::int64_t g, std::int64_t k, float* space) {
        const std::int64_t first = k * block_points;
        sums.clear(g, k);
        run.kernels.scatter(flat(region(values, shape, g)), first, std::min(block_points, size - first),
                            index + g * size + first, weight ? weight + g * size + first : nullptr, count,
                            sums.of(g, k), sums.mass_of(g, k), space);
    });
    run.each(groups, [&](std::int64_t g) {
        sums.join(run.kernels, g);
        const float *total = sums.of(g, 0), *mass = sums.mass_of(g, 0);
        for (std::int64_t c = 0; c < channels; ++c)
            for (std::int64_t m = 0; m < count; ++m) {
                const std::int64_t at = (g * channels + c) * count + m;
                centres[at] = (total[m * stride + c] + base[at]) / (mass[m] + 1.0f);
            }
    });
}

}  // namespace cluinfer
