// CLUENet's soft global aggregation: every centre is a softmax-weighted mean of all points.
//
// The softmax needs a shift so that exp neither overflows nor loses every term. Cosines are at most 1, so for a
// modest scale the shift 1 will do: exp(scale * (cos - 1)) >= exp(-2 * scale). Above that the largest cosine of
// each centre is found first, by one more pass.
#include "operators.hpp"

namespace cluinfer {
namespace {

constexpr float modest_scale = 20.0f;

struct Aggregation {
    const Run& run;
    const Shape& shape;
    const Map &keys, &values;
    float scale;
    float *aggregated, *features;
    const std::int64_t groups = shape.groups(), size = shape.points(), count = shape.centres();
    const std::int64_t parts = blocks(size), stride = padded(shape.channels);
    Workspace memory{};
    CentreSet centres{groups, count, shape.channels, memory};
    Sums sums{groups, count, shape.channels, size, memory};
    float *pooled = nullptr, *shift = nullptr;
    Scratch scratch{};

    void allocate() {
        memory.plan(pooled, groups * count * stride);
        memory.plan(shift, groups * parts * count);
        run.plan(memory, scratch, scratch_floats(shape.channels, count));
        memory.allocate();
        std::fill_n(shift, groups * parts * count, 1.0f);
    }
    void pool(std::int64_t g, std::int64_t i) {
        const std::int64_t m = i * shape.grid_columns;
        pool_row(run.kernels, region(keys, shape, g), shape.grid_rows, shape.grid_columns, i, centres.row(g, m));
        pool_row(run.kernels, region(values, shape, g), shape.grid_rows, shape.grid_columns, i,
                    pooled + (g * count + m) * stride);
    }
    bool needs_peaks() const { return !(scale <= modest_scale && scale >= -modest_scale); }
    void peak(std::int64_t g, std::int64_t k, float* space) {
        const std::int64_t first = k * block_points;
        float* top = shift + (g * parts + k) * count;
        std::fill(top, top + count, -1e30f);
        run.kernels.peak(flat(region(keys, shape, g)), first, std::min(block_points, size - first), centres.of(g), top,
                         space);
    }
    void join_peaks(std::int64_t g) {
        float* top = shift + g * parts * count;
        for (std::int64_t k = 1; k < parts; ++k)
            for (std::int64_t m = 0; m < count; ++m) top[m] = std::max(top[m], top[k * count + m]);
    }
    void attend(std::int64_t g, std::int64_t k, float* space) {
        const std::int64_t first = k * block_points;
        sums.clear(g, k);
        run.kernels.attend(flat(region(keys, shape, g)), flat(region(values, shape, g)), first,
                           std::min(block_points, size - first), centres.of(g), scale, shift + g * parts * count,
                           sums.of(g, k), sums.mass_of(g, k), space);
    }
    void settle(std::int64_t g) {
        sums.join(run.kernels, g);
        const float *total = sums.of(g, 0), *weights = sums.mass_of(g, 0);
        for (std::int64_t c = 0; c < shape.channels; ++c)
            for (std::int64_t m = 0; m < count; ++m) {
                const std::int64_t at = (g * shape.channels + c) * count + m;
                aggregated[at] = total[m * stride + c] / weights[m];
                if (features) features[at] = pooled[(g * count + m) * stride + c];
            }
    }
};

}  // namespace

void aggregate(const Run& run, const Shape& shape, const Map& keys, const Map& values, float scale, float* aggregated,
               float* features) {
    Aggregation a{run, shape, keys, values, scale, aggregated, features};
    a.allocate();
    if (run.by_group(a.groups, a.size)) {
        run.each(a.groups, a.scratch, [&](std::int64_t g, float* space) {
            for (std::int64_t i = 0; i < shape.grid_rows; ++i) a.pool(g, i);
            a.centres.pack(run.kernels, g);
            for (std::int64_t k = 0; a.needs_peaks() && k < a.parts; ++k) a.peak(g, k, space);
            if (a.needs_peaks()) a.join_peaks(g);
            for (std::int64_t k = 0; k < a.parts; ++k) a.attend(g, k, space);
            a.settle(g);
        });
        return;
    }
    const auto by_part = [&](auto step) {
        run.each(a.groups * a.parts, a.scratch,
                 [&](std::int64_t i, float* space) { step(i / a.parts, i % a.parts, space); });
    };
    run.each(a.groups * shape.grid_rows,
             [&](std::int64_t i) { a.pool(i / shape.grid_rows, i % shape.grid_rows); });
    run.each(a.groups, [&](std::int64_t g) { a.centres.pack(run.kernels, g); });
    if (a.needs_peaks()) {
        by_part([&](std::int64_t g, std::int64_t k, float* space) { a.peak(g, k, space); });
        run.each(a.groups, [&](std::int64_t g) { a.join_peaks(g); });
    }
    by_part([&](std::int64_t g, std::int64_t k, float* space) { a.attend(g, k, space); });
    run.each(a.groups, [&](std::int64_t g) { a.settle(g); });
}

}  // namespace cluinfer
