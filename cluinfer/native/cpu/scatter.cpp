#include "operators.hpp"

namespace cluinfer {

void scatter(const Run& run, const Shape& shape, const Map& values, const std::int32_t* index, const float* weight,
             const float* base, std::int64_t count, float* centres) {
    const std::int64_t groups = shape.groups(), size = shape.points(), channels = shape.channels;
    const std::int64_t stride = padded(channels), parts = std::max<std::int64_t>(1, blocks(size));
    Floats sums = floats(groups * parts * count * stride), mass = floats(groups * parts * count);
    run.each(groups * parts, scratch_floats(channels, 1), [&](std::int64_t i, float* scratch) {
        const std::int64_t g = i / parts, first = i % parts * block_points;
        run.kernels.scatter(flat(region(values, shape, g)), first, std::min(block_points, size - first),
                            index + g * size + first, weight ? weight + g * size + first : nullptr, count,
                            sums.data() + i * count * stride, mass.data() + i * count, scratch);
    });
    run.each(groups, 0, [&](std::int64_t g, float*) {
        float* total = sums.data() + g * parts * count * stride;
        float* weights = mass.data() + g * parts * count;
        for (std::int64_t k = 1; k < parts; ++k) {
            run.kernels.add(total, total + k * count * stride, count * stride);
            for (std::int64_t m = 0; m < count; ++m) weights[m] += weights[k * count + m];
        }
        for (std::int64_t c = 0; c < channels; ++c)
            for (std::int64_t m = 0; m < count; ++m) {
                const std::int64_t at = (g * channels + c) * count + m;
                centres[at] = (total[m * stride + c] + base[at]) / (weights[m] + 1.0f);
            }
    });
}

}  // namespace cluinfer
