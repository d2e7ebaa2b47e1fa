#include "operators.hpp"

namespace cluinfer {

void norm(const Run& run, const float* rows, const float* other, std::int64_t count, std::int64_t channels,
          float epsilon, float* sum, float* out) {
    const std::int64_t step = std::max<std::int64_t>(1, 2048 / channels);  // rows at a time: they fit the first cache
    run.each((count + step - 1) / step, [&](std::int64_t i) {
        const std::int64_t first = i * step, at = first * channels;
        run.kernels.norm(rows + at, other ? other + at : nullptr, std::min(step, count - first), channels, epsilon,
                         sum ? sum + at : nullptr, out + at);
    });
}

}  // namespace cluinfer
