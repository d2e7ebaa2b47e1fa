// Tiles of points: a few vectors of points, normalised, channel by channel, so that a similarity is a chain of fma
// with the points in the lanes. Included once per instruction set, inside an unnamed namespace.
#pragma once

#include "kernels.hpp"
#include "vec.hpp"

namespace {

using cluinfer::Centres;
using cluinfer::Points;
using std::int32_t;
using std::int64_t;
using std::ptrdiff_t;

constexpr float epsilon = 1e-12f;  // the cosine divides by max(norm, epsilon)
constexpr int panel = 4;           // centres in a packed panel
constexpr int vectors = 3;         // vectors of points in a full tile: 4 x 3 sums fit 16 registers, 8 x 3 fit 32
constexpr int tile = vectors * lanes;
#if defined(__AVX512F__)
constexpr int panels_at_once = 2;
#else
constexpr int panels_at_once = 1;
#endif
static_assert(cluinfer::tile_points % tile == 0 || tile % cluinfer::tile_points == 0, "tiles must nest");

inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// Addresses of points [first, first + count) of a region; the last one again up to `wanted`.
inline void locate(const Points& points, int64_t first, int64_t count, int64_t wanted, float** at) {
    int64_t row = first / points.columns, column = first % points.columns;
    float* address = points.data + row * points.row + column * points.column;
    for (int64_t i = 0; i < wanted; ++i) {
        at[i] = address;
        if (i + 1 >= count) continue;
        if (++column == points.columns) {
            column = 0;
            address = points.data + ++row * points.row;
        } else {
            address += points.column;
        }
    }
}

// Whether `width` points from at[0] on lie side by side.
inline bool side_by_side(float* const* at, int64_t width) {
    for (int64_t i = 1; i < width; ++i)
        if (at[i] != at[0] + i) return false;
    return true;
}

// Copies `width` (a multiple of eight, or less than eight) points into to[channel][stride].
inline void channels_first(const Points& points, float* const* at, int width, float* to, ptrdiff_t stride) {
    const int64_t channels = points.channels;
    if (points.channel == 1 && channels >= 8 && width % 8 == 0) {
        for (int p = 0; p < width; p += 8)
            for (int64_t c = 0; c < channels; c += 8) {
                const int64_t start = least(c, channels - 8);  // the last block overlaps rather than being cut
                transpose8(at + p, start, to + start * stride + p, stride);
            }
        return;
    }
    for (int p = 0; p < width; p += lanes) {
        const int n = static_cast<int>(least(lanes, width - p));
        if (n == lanes && side_by_side(at + p, n)) {
            for (int64_t c = 0; c < channels; ++c) store(to + c * stride + p, load(at[p] + c * points.channel));
        } else {
            for (int64_t c = 0; c < channels; ++c)
                for (int i = 0; i < n; ++i) to[c * stride + p + i] = at[p + i][c * points.channel];
        }
    }
}

// Points as rows of channels: where they lie if they are rows already, else copied into scratch, zero-padded.
// Returns in at[] the row of each of `count` points.
inline void as_rows(const Points& points, int64_t first, int64_t count, float** at, float* scratch) {
    const int64_t channels = points.channels, stride = cluinfer::padded(channels);
    if (points.channel == 1) return locate(points, first, count, count, at);
    const int64_t wide = (count + 7) / 8 * 8;
    float* from[cluinfer::tile_points];
    locate(points, first, count, wide, from);
    for (int64_t p = 0; p < count; p += 8) {
        int64_t c = 0;
        if (p + 8 <= count && side_by_side(from + p, 8))
            for (; c + 8 <= channels; c += 8) {
                const float* rows[8];
                for (int i = 0; i < 8; ++i) rows[i] = from[p] + (c + i) * points.channel;
                transpose8(rows, 0, scratch + p * stride + c, stride);
            }
        for (; c < channels; ++c)
            for (int i = 0; i < 8; ++i) scratch[(p + i) * stride + c] = from[p + i][c * points.channel];
    }
    for (int64_t p = 0; p < count; ++p) at[p] = scratch + p * stride;
}

// A tile of N vectors of unit vectors, sign-flipped if asked: to[channel][N * lanes].
template <int N>
inline void unit_tile(const Points& points, int64_t first, int64_t count, bool flip, float* to) {
    float* at[N * lanes];
    locate(points, first, count, N * lanes, at);
    channels_first(points, at, N * lanes, to, N * lanes);
    V square[N];
    for (V& s : square) s = set(0);
    for (int64_t c = 0; c < points.channels; ++c)
        for (int j = 0; j < N; ++j) {
            const V x = load(to + (c * N + j) * lanes);
            square[j] = fma(x, x, square[j]);
        }
    for (int j = 0; j < N; ++j) square[j] = set(flip ? -1.0f : 1.0f) / larger(set(epsilon), root(square[j]));
    for (int64_t c = 0; c < points.channels; ++c)
        for (int j = 0; j < N; ++j) {
            float* x = to + (c * N + j) * lanes;
            store(x, load(x) * square[j]);
        }
}

// Cosines of a tile with P panels of centres.
template <int N, int P>
inline void cosines(const float* points, const float* packed, int64_t channels, V (&result)[P * panel][N]) {
    V sum[P * panel][N];  // local, and every loop unrolled: else GCC keeps these in memory
#pragma GCC unroll 8
    for (int m = 0; m < P * panel; ++m)
#pragma GCC unroll 4
        for (int j = 0; j < N; ++j) sum[m][j] = set(0);
    const int64_t step = channels * panel;
    for (int64_t c = 0; c < channels; ++c) {
        V x[N];
#pragma GCC unroll 4
        for (int j = 0; j < N; ++j) x[j] = load(points + (c * N + j) * lanes);
#pragma GCC unroll 8
        for (int m = 0; m < P * panel; ++m) {
            const V centre = set(packed[(m / panel) * step + c * panel + m % panel]);
#pragma GCC unroll 4
            for (int j = 0; j < N; ++j) sum[m][j] = fma(x[j], centre, sum[m][j]);
        }
    }
#pragma GCC unroll 8
    for (int m = 0; m < P * panel; ++m)
#pragma GCC unroll 4
        for (int j = 0; j < N; ++j) result[m][j] = sum[m][j];
}

// Shows all cosines of a tile to `reader(sums, first centre)`, in the order of the centres, until it returns true.
// The last panel repeats the last centre, which can therefore never be a first maximum.
template <int N, class Reader>
inline void scan(const float* points, const Centres& centres, Reader& reader) {
    const int64_t step = centres.channels * panel, panels = (centres.count + panel - 1) / panel;
    int64_t p = 0;
    for (; p + panels_at_once <= panels; p += panels_at_once) {
        V sum[panels_at_once * panel][N];
        cosines<N, panels_at_once>(points, centres.packed + p * step, centres.channels, sum);
        if (reader(sum, p * panel)) return;
    }
    for (; p < panels; ++p) {
        V sum[panel][N];
        cosines<N, 1>(points, centres.packed + p * step, centres.channels, sum);
        if (reader(sum, p * panel)) return;
    }
}

}  // namespace
