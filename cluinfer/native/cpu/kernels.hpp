// The leaf kernels that exist once per instruction set, as one table of plain functions.
//
// Only plain types cross this boundary. The files that implement it are compiled with other machine flags than the
// rest, so they must not use inline or template functions of the standard library: the linker would keep one copy,
// perhaps the one with AVX-512 in it, for every caller.
#pragma once

#include <cstddef>
#include <cstdint>

namespace cluinfer {

// A region of a feature map: `rows` x `columns` points of `channels` values, strides counted in floats.
// Channels-last maps have channel == 1, channel-first ones column == 1; other strides work, slower.
struct Points {
    float* data;
    std::ptrdiff_t channel, row, column;
    std::int64_t rows, columns, channels;
    std::int64_t count() const { return rows * columns; }
};

// s = alpha * cosine + beta, then the sigmoid if asked.
struct Similarity {
    float alpha, beta;
    bool sigmoid;
};

// Centres, normalised and packed in panels of `panel` centres: [panel][channel][centre in panel].
struct Centres {
    const float* packed;
    const float* rows;  // the same as rows [count][padded(channels)]
    std::int64_t count, channels;
    std::int64_t first_nan;  // the first centre that holds a NaN after normalisation, or -1
    const void* coarse;      // the 8-bit copy that the screening variant reads, or null
};

// Rows of centre sums and the like are padded to this many floats, so that inner loops have no tail.
constexpr std::int64_t row_unit = 16;
constexpr std::int64_t padded(std::int64_t channels) { return (channels + row_unit - 1) / row_unit * row_unit; }

// Points that one call works on at a time; block borders are multiples of it on every instruction set, so that a
// point's place in a block never depends on threads.
constexpr std::int64_t tile_points = 48;

// Floats of scratch that a leaf kernel may use for `channels` channels and `centres` centres.
constexpr std::int64_t scratch_floats(std::int64_t channels, std::int64_t centres) {
    return tile_points * (3 * padded(channels) + padded(centres) + 2 * row_unit) + (padded(centres) + 4) * row_unit;
}

// The gate that mixes two kinds of centres, for one head: sigmoid(second . gelu(first . [gathered, own] + bias) + shift).
struct Gate {
    const float *first, *bias;  // [hidden][2 * channels], [hidden]
    const float* second;        // [hidden]
    float shift;
    std::int64_t hidden;
};

// Where the heads of a plot lie, one behind another: their indices and weights, and the rows of their centres.
struct Heads {
    std::int64_t count, index_step, rows_step;
};

struct Kernels {
    const char* name;
    std::int64_t panel;  // centres in a panel
    // Normalises centres [begin, end) of rows [count][stride] into panels; begin is a multiple of `panel`.
    // The rows become unit vectors too. Returns the first centre in the range that is NaN, or -1.
    std::int64_t (*pack)(float* rows, std::int64_t stride, std::int64_t count, std::int64_t channels,
                         std::int64_t begin, std::int64_t end, float* packed);
    // index and weight of points [first, first + count); both are written from their start.
    void (*assign)(const Points&, std::int64_t first, std::int64_t count, const Centres&, const Similarity&,
                   std::int32_t* index, float* weight, float* scratch);
    // Mean of a window of points into out[padded(channels)].
    void (*average)(const Points&, std::int64_t row, std::int64_t row_end, std::int64_t column,
                    std::int64_t column_end, float* out);
    // Adds w * v of points [first, first + count) to sums[centre][padded(channels)], and w to mass[centre].
    void (*scatter)(const Points&, std::int64_t first, std::int64_t count, const std::int32_t* index,
                    const float* weight, std::int64_t centres, float* sums, float* mass, float* scratch);
    // Writes w * centre(index) to points [first, first + count).
    void (*gather)(const Points&, std::int64_t first, std::int64_t count, const std::int32_t* index,
                   const float* weight, const float* rows, std::int64_t centres, float* scratch);
    // Adds exp(scale * (cosine - shift[centre])) * v to sums[centre][padded(channels)] and the exp to mass[centre].
    void (*attend)(const Points& keys, const Points& values, std::int64_t first, std::int64_t count, const Centres&,
                   float scale, const float* shift, float* sums, float* mass, float* scratch);
    // Raises top[centre] to the largest cosine of points [first, first + count).
    void (*peak)(const Points&, std::int64_t first, std::int64_t count, const Centres&, float* top, float* scratch);
    // into[i] += from[i] for a count that is a multiple of row_unit.
    void (*add)(float* into, const float* from, std::int64_t count);
    // out = (base + the sum of rows order[0..count) of points) / (count + 1); base and out are padded rows.
    void (*collect)(const Points&, const std::int32_t* order, std::int64_t count, const float* base, float* out);
    // out = (base + sums) / (mass + 1) for padded rows.
    void (*settle)(const float* sums, const float* mass, const float* base, std::int64_t centres,
                   std::int64_t channels, float* out);
    // out = (1 - g) * gathered + g * own, g the gate of each centre: both inputs are [channels][stride], gathered
    // first, own behind it, stride a multiple of row_unit; out is [channels][centres].
    void (*blend)(const float* both, std::int64_t stride, std::int64_t channels, std::int64_t centres, const Gate&,
                  float* out);
    // out[centre][padded(width)] = rows[centre][stride] times weight [channels][width].
    void (*project)(const float* rows, std::int64_t stride, std::int64_t centres, std::int64_t channels,
                    const float* weight, std::int64_t width, float* out);
    // Writes bias + the sum over the heads of w * centre(index) to points [first, first + count) of a channels-last
    // map; index and weight begin at the first head's first point.
    void (*dispatch)(const Points&, std::int64_t first, std::int64_t count, const Heads&, const std::int32_t* index,
                     const float* weight, const float* rows, std::int64_t centres, const float* bias);
    // Rows of channels normalised to mean 0 and variance 1 over each row. Those of `other`, if given, are added first,
    // and the sum is written too.
    void (*norm)(const float* rows, const float* other, std::int64_t count, std::int64_t channels, float epsilon,
                 float* sum, float* out);
    // The 8-bit copy of the centres for the screening variant; both null elsewhere.
    std::size_t (*coarse_bytes)(std::int64_t count, std::int64_t channels);
    void (*coarsen)(const Centres&, void* coarse);
};

const Kernels& portable_kernels();
#if defined(CLUINFER_X86)
const Kernels& avx2_kernels();
const Kernels& avx512_kernels();
const Kernels& avx512_vnni_kernels();
#endif

}  // namespace cluinfer
