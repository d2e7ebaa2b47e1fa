#include "run.hpp"

namespace cluinfer {

void transpose_centres(const float* from, std::int64_t channels, std::int64_t count, float* rows) {
    const std::int64_t stride = padded(channels);
    for (std::int64_t m = 0; m < count; ++m)
        for (std::int64_t c = 0; c < stride; ++c) rows[m * stride + c] = c < channels ? from[c * count + m] : 0.0f;
}

CentreSet::CentreSet(std::int64_t groups, std::int64_t size, std::int64_t width)
    : count(size),
      channels(width),
      stride(padded(width)),
      packed_stride(padded(size) * width),
      rows(floats(groups * size * stride)),
      packed(floats(groups * packed_stride)),
      first_nan(static_cast<std::size_t>(groups), -1) {}

void CentreSet::pack(const Kernels& kernels, std::int64_t g) {
    first_nan[static_cast<std::size_t>(g)] =
        kernels.pack(row(g, 0), stride, count, channels, 0, count, packed.data() + g * packed_stride);
}

void pool_row(const Kernels& kernels, const Points& points, std::int64_t grid_rows, std::int64_t grid_columns,
              std::int64_t i, float* out) {
    const std::int64_t top = i * points.rows / grid_rows;
    const std::int64_t bottom = ((i + 1) * points.rows + grid_rows - 1) / grid_rows;
    const std::int64_t stride = padded(points.channels);
    for (std::int64_t j = 0; j < grid_columns; ++j)
        kernels.average(points, top, bottom, j * points.columns / grid_columns,
                        ((j + 1) * points.columns + grid_columns - 1) / grid_columns, out + j * stride);
}

}  // namespace cluinfer
