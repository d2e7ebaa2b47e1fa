// CLUENet's soft global aggregation: every centre is a softmax-weighted mean of all points. With a gate, it is then
// mixed with the mean of its own cell.
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
    const Gates* gates;
    float *aggregated, *features;
    const std::int64_t groups = shape.groups(), size = shape.points(), count = shape.centres();
    const std::int64_t parts = blocks(size), stride = padded(shape.channels);
    Workspace memory{};
    CentreSet centres{groups, count, shape.channels, memory};
    Sums sums{groups, count, shape.channels, size, memory};
    float *pooled = nullptr, *shift = nullptr, *both = nullptr;
    const std::int64_t wide = padded(count);  // centres of a row of `both`
    Scratch scratch{};

    void allocate() {
        memory.plan(pooled, groups * count * stride);
        memory.plan(shift, groups * parts * count);
        memory.plan(both, gates ? groups * 2 * shape.channels * wide : 0);
        run.plan(memory, scratch,
                 std::max(scratch_floats(shape.channels, count),
                          shape.grid_columns * padded(shape.channels * shape.heads)));
        memory.allocate();
        std::fill_n(shift, groups * parts * count, 1.0f);
    }
    void pool(const Plot& plot, std::int64_t i, float* space) const {
        pool_plot(run.kernels, shape, plot, i, keys, centres.rows, space);
        pool_plot(run.kernels, shape, plot, i, values, pooled, space);
    }
    bool needs_peaks() const { return !(scale <= modest_scale && scale >= -modest_scale); }
    void peak(std::int64_t g, std::int64_t k, float* space) const {
        const std::int64_t first = k * block_points;
        float* top = shift + (g * parts + k) * count;
        std::fill(top, top + count, -1e30f);
        run.kernels.peak(flat(region(keys, shape, g)), first, std::min(block_points, size - first), centres.of(g), top,
                         space);
    }
    void join_peaks(std::int64_t g) const {
        float* top = shift + g * parts * count;
        for (std::int64_t k = 1; k < parts; ++k)
            for (std::int64_t m = 0; m < count; ++m) top[m] = std::max(top[m], top[k * count + m]);
    }
    void attend(std::int64_t g, std::int64_t k, float* space) const {
        const std::int64_t first = k * block_points;
        sums.clear(g, k);
        run.kernels.attend(flat(region(keys, shape, g)), flat(region(values, shape, g)), first,
                           std::min(block_points, size - first), centres.of(g), scale, shift + g * parts * count,
                           sums.of(g, k), sums.mass_of(g, k), space);
    }
    void settle(std::int64_t g) const {
        sums.join(run.kernels, g);
        const float *total = sums.of(g, 0), *weights = sums.mass_of(g, 0);
        if (gates) return mix(g, total, weights);
        for (std::int64_t c = 0; c < shape.channels; ++c)
            for (std::int64_t m = 0; m < count; ++m) {
                const std::int64_t at = (g * shape.channels + c) * count + m;
                aggregated[at] = total[m * stride + c] / weights[m];
                if (features) features[at] = pooled[(g * count + m) * stride + c];
            }
    }
    void mix(std::int64_t g, const float* total, const float* weights) const {
        const std::int64_t channels = shape.channels, head = g / shape.regions() % shape.heads;
        float* gathered = both + g * 2 * channels * wide;
        float* own = gathered + channels * wide;
        std::fill_n(gathered, 2 * channels * wide, 0.0f);
        for (std::int64_t c = 0; c < channels; ++c)
            for (std::int64_t m = 0; m < count; ++m) {
                gathered[c * wide + m] = total[m * stride + c] / weights[m];
                own[c * wide + m] = pooled[(g * count + m) * stride + c];
            }
        run.kernels.blend(gathered, wide, channels, count, gates->of(head, channels), aggregated + g * channels * count);
    }
};

}  // namespace

void aggregate(const Run& run, const Shape& shape, const Map& keys, const Map& values, float scale,
               const Gates* gates, float* aggregated, float* features) {
    Aggregation a{run, shape, keys, values, scale, gates, aggregated, features};
    a.allocate();
    const Plan plan(shape, run.threads);
    if (plan.by_plot) {
        run.each(plan.count(), a.scratch, [&](std::int64_t i, float* space) {
            const Plot plot = plan.plot(shape, i);
            for (std::int64_t row = 0; row < shape.grid_rows; ++row) a.pool(plot, row, space);
            plot.each_group(shape, [&](std::int64_t g) { a.centres.pack(run.kernels, g); });
            if (a.needs_peaks())
                plot.each_group(shape, [&](std::int64_t g) {
                    for (std::int64_t k = 0; k < a.parts; ++k) a.peak(g, k, space);
                    a.join_peaks(g);
                });
            for (std::int64_t k = 0; k < a.parts; ++k)
                plot.each_group(shape, [&](std::int64_t g) { a.attend(g, k, space); });
            plot.each_group(shape, [&](std::int64_t g) { a.settle(g); });
        });
        return;
    }
    run.each(plan.plots * shape.grid_rows, a.scratch, [&](std::int64_t i, float* space) {
        a.pool(plan.whole(shape, i / shape.grid_rows), i % shape.grid_rows, space);
    });
    run.each(a.groups, [&](std::int64_t g) { a.centres.pack(run.kernels, g); });
    if (a.needs_peaks()) {
        run.each_block(shape, a.parts, a.scratch,
                       [&](std::int64_t g, std::int64_t k, float* space) { a.peak(g, k, space); });
        run.each(a.groups, [&](std::int64_t g) { a.join_peaks(g); });
    }
    run.each_block(shape, a.parts, a.scratch,
                   [&](std::int64_t g, std::int64_t k, float* space) { a.attend(g, k, space); });
    run.each(a.groups, [&](std::int64_t g) { a.settle(g); });
}

}  // namespace cluinfer
