// The reduction of FEC and CLUENet: as many centres as output positions, each the mean of its points and itself.
//
// Points are counted into their centres (a stable sort), so that each centre sums its own rows, in the order of the
// points, without partial sums of the size of all centres.
#include "operators.hpp"

namespace cluinfer {
namespace {

constexpr std::int64_t centres_at_once = 64;  // a multiple of every panel

// Values as rows: where they are, or copied (channel-first maps), by gathering nothing but the points themselves.
void copy_rows(const Points& from, std::int64_t first, std::int64_t count, float* to) {
    const std::int64_t stride = padded(from.channels);
    for (std::int64_t c = 0; c < from.channels; ++c)
        for (std::int64_t p = first; p < first + count; ++p)
            to[p * stride + c] =
                from.data[c * from.channel + p / from.columns * from.row + p % from.columns * from.column];
}

}  // namespace

void cluster_pool(const Run& run, const Shape& shape, const Map& features, const Map& values,
                  std::int64_t value_channels, const Map& out, std::int32_t* clusters) {
    const Kernels& kernels = run.kernels;
    const std::int64_t groups = shape.groups(), size = shape.points(), count = shape.centres();
    const std::int64_t stride = padded(value_channels), parts = blocks(size);
    const std::int64_t wide = shape.fold_columns * shape.grid_columns, high = shape.fold_rows * shape.grid_rows;
    const auto value_region = [&](std::int64_t g) {
        return region(values, shape, g, value_channels, shape.rows, shape.columns);
    };
    const std::int64_t packs = (count + centres_at_once - 1) / centres_at_once;
    const std::size_t coarse_bytes = kernels.coarse_bytes(count, shape.channels);
    const bool copied = values.channel != 1;
    const bool shared = features.data == values.data && features.channel == values.channel &&
                        shape.channels == value_channels;  // CLUENet: one map is both

    Workspace memory;
    const CentreSet centres(groups, count, shape.channels, memory);
    float *base = nullptr, *rows = nullptr;
    std::int32_t *index = nullptr, *order = nullptr, *starts = nullptr;
    std::int64_t* nans = nullptr;
    unsigned char* coarse = nullptr;
    Scratch scratch;
    memory.plan(base, groups * count * stride);
    memory.plan(rows, copied ? groups * size * stride : 0);
    memory.plan(index, groups * size);
    memory.plan(order, groups * size);
    memory.plan(starts, groups * (count + 1));
    memory.plan(nans, groups * packs);
    memory.plan(coarse, groups * static_cast<std::int64_t>(coarse_bytes));
    run.plan(memory, scratch, scratch_floats(std::max(shape.channels, value_channels), 1));
    memory.allocate();

    run.each(groups * shape.grid_rows, [&](std::int64_t i) {
        const std::int64_t g = i / shape.grid_rows, row = i % shape.grid_rows, m = row * shape.grid_columns;
        pool_row(kernels, region(features, shape, g), shape.grid_rows, shape.grid_columns, row, centres.row(g, m));
        float* to = base + (g * count + m) * stride;
        if (shared)
            std::copy_n(centres.row(g, m), shape.grid_columns * stride, to);
        else
            pool_row(kernels, value_region(g), shape.grid_rows, shape.grid_columns, row, to);
    });
    run.each(groups * packs, [&](std::int64_t i) {
        const std::int64_t g = i / packs, first = i % packs * centres_at_once;
        nans[i] = kernels.pack(centres.row(g, 0), centres.stride, count, shape.channels, first,
                               std::min(count, first + centres_at_once), centres.packed + g * centres.packed_stride);
    });
    run.each(groups, [&](std::int64_t g) {
        centres.first_nan[g] = -1;
        for (std::int64_t i = (g + 1) * packs - 1; i >= g * packs; --i)
            if (nans[i] >= 0) centres.first_nan[g] = nans[i];
        if (coarse_bytes && centres.first_nan[g] < 0)
            kernels.coarsen(centres.of(g), coarse + coarse_bytes * static_cast<std::size_t>(g));
    });
    // Smaller steps than blocks: nothing is summed here, and the assignment is nearly all of the work.
    const std::int64_t step = 2 * tile_points, steps = (size + step - 1) / step;
    const Similarity cosine{1.0f, 0.0f, false};
    run.each(groups * steps, scratch, [&](std::int64_t i, float* space) {
        const std::int64_t g = i / steps, first = i % steps * step, width = std::min(step, size - first);
        std::int32_t* to = index + g * size + first;
        Centres of = centres.of(g);
        if (coarse_bytes) of.coarse = coarse + coarse_bytes * static_cast<std::size_t>(g);
        kernels.assign(flat(region(features, shape, g)), first, width, of, cosine, to, nullptr, space);
        if (clusters) write_clusters(shape, g, first, width, to, clusters);
    });
    run.each(groups, [&](std::int64_t g) {
        std::int32_t* start = starts + g * (count + 1);
        std::fill_n(start, count + 1, 0);
        const std::int32_t* from = index + g * size;
        for (std::int64_t p = 0; p < size; ++p) ++start[from[p]];
        for (std::int64_t m = 1; m <= count; ++m) start[m] += start[m - 1];
        for (std::int64_t p = size - 1; p >= 0; --p) order[g * size + --start[from[p]]] = static_cast<std::int32_t>(p);
    });
    if (copied)
        run.each(groups * parts, [&](std::int64_t i) {
            const std::int64_t g = i / parts, first = i % parts * block_points;
            copy_rows(value_region(g), first, std::min(block_points, size - first), rows + g * size * stride);
        });
    run.each(groups * shape.grid_rows, scratch, [&](std::int64_t i, float* space) {
        const std::int64_t g = i / shape.grid_rows, row = i % shape.grid_rows;
        Points from = flat(value_region(g));
        if (copied) from = {rows + g * size * stride, 1, 0, stride, 1, size, value_channels};
        const std::int32_t* start = starts + g * (count + 1);
        for (std::int64_t j = 0; j < shape.grid_columns; ++j) {
            const std::int64_t m = row * shape.grid_columns + j;
            float* centre = base + (g * count + m) * stride;
            kernels.collect(from, order + g * size + start[m], start[m + 1] - start[m], centre, centre);
        }
        const Points to = region(out, shape, g, value_channels, high, wide);
        std::int32_t place[tile_points];
        for (std::int64_t j = 0; j < shape.grid_columns; j += tile_points) {
            const std::int64_t width = std::min(tile_points, shape.grid_columns - j);
            for (std::int64_t q = 0; q < width; ++q)
                place[q] = static_cast<std::int32_t>(row * shape.grid_columns + j + q);
            kernels.gather(to, row * shape.grid_columns + j, width, place, nullptr, base + g * count * stride,
                           count, space);
        }
    });
}

}  // namespace cluinfer
