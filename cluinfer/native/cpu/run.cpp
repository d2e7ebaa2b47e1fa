#include "run.hpp"

namespace cluinfer {

void transpose_centres(const float* from, std::int64_t channels, std::int64_t count, float* rows) {
    const std::int64_t stride = padded(channels);
    for (std::int64_t m = 0; m < count; ++m)
        for (std::int64_t c = 0; c < stride; ++c) rows[m * stride + c] = c < channels ? from[c * count + m] : 0.0f;
}

CentreSet::CentreSet(std::int64_t groups, std::int64_t size, std::int64_t width, Workspace& memory)
    : count(size), channels(width), stride(padded(width)), packed_stride(padded(size) * width) {
    memory.plan(rows, groups * count * stride);
    memory.plan(packed, groups * packed_stride);
    memory.plan(first_nan, groups);
}

Sums::Sums(std::int64_t groups, std::int64_t size, std::int64_t channels, std::int64_t points, Workspace& memory)
    : count(size), stride(padded(channels)), parts(std::max<std::int64_t>(1, blocks(points))) {
    memory.plan(sums, groups * parts * count * stride);
    memory.plan(mass, groups * parts * count);
}

void Sums::clear(std::int64_t g, std::int64_t k) const {
    std::fill_n(of(g, k), count * stride, 0.0f);
    std::fill_n(mass_of(g, k), count, 0.0f);
}

void Sums::join(const Kernels& kernels, std::int64_t g) const {
    for (std::int64_t k = 1; k < parts; ++k) {
        kernels.add(of(g, 0), of(g, k), count * stride);
        for (std::int64_t m = 0; m < count; ++m) mass_of(g, 0)[m] += mass_of(g, k)[m];
    }
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

void pool_plot(const Kernels& kernels, const Shape& shape, const Plot& plot, std::int64_t i, const Map& map,
               float* rows, float* space) {
    Points points = region(map, shape, plot.group(shape, plot.first_head));
    points.channels *= plot.heads;
    pool_row(kernels, points, shape.grid_rows, shape.grid_columns, i, space);
    const std::int64_t wide = padded(points.channels), stride = padded(shape.channels);
    std::int64_t channel = 0;
    plot.each_group(shape, [&](std::int64_t g) {
        for (std::int64_t j = 0; j < shape.grid_columns; ++j) {
            float* row = rows + (g * shape.centres() + i * shape.grid_columns + j) * stride;
            std::copy_n(space + j * wide + channel, shape.channels, row);
            std::fill(row + shape.channels, row + stride, 0.0f);
        }
        channel += shape.channels;
    });
}

Projected::Projected(const Run& how, const Shape& all, const Projection* projection, std::int64_t centres,
                     Workspace& memory)
    : run(how), shape(all), is(projection), count(centres), wide(projection ? padded(projection->width) : 0) {
    memory.plan(rows, shape.groups() * count * wide);
}

void Projected::project(std::int64_t g, const float* centres) const {
    const std::int64_t head = g / shape.regions() % shape.heads;
    run.kernels.project(centres, padded(shape.channels), count, shape.channels,
                        is->weight + head * shape.channels * is->width, is->width, rows + g * count * wide);
}

void Projected::dispatch(const Plot& plot, std::int64_t first, std::int64_t end, const std::int32_t* index,
                         const float* weight, const Map& out) const {
    Shape whole = shape;
    whole.heads = 1;
    const std::int64_t size = shape.points(), g = plot.group(shape, 0);
    const Points to = flat(region(out, whole, plot.group(whole, 0), is->width, shape.rows, shape.columns));
    const Heads heads{shape.heads, shape.regions() * size, shape.regions() * count * wide};
    run.kernels.dispatch(to, first, end - first, heads, index + g * size + first,
                         weight ? weight + g * size + first : nullptr, rows + g * count * wide, count, is->bias);
}

}  // namespace cluinfer
