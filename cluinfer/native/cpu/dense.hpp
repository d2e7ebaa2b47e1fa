// The small dense work around the clusterings: norms over channels, the gate that mixes two kinds of centres, and
// the convolution behind a mixer, applied to the centres instead of the points.
// Included once per instruction set, inside an unnamed namespace.
#pragma once

#include "tile.hpp"

namespace {

using cluinfer::Gate;
using cluinfer::Heads;

// The first n lanes of a; zero in the others, whatever they held.
inline V first_of(V a, int n) {
    float number[lanes];
    for (int i = 0; i < lanes; ++i) number[i] = static_cast<float>(i);
    return select(set(static_cast<float>(n)) > load(number), a, set(0));
}

// Two passes over a row that the first one has brought into the cache: the sum of squares less the square of the sum
// would lose the variance of rows whose mean is large.
inline void norm(const float* rows, const float* other, int64_t count, int64_t channels, float epsilon, float* added,
                 float* out) {
    const int64_t whole = channels / lanes * lanes;
    const int tail = static_cast<int>(channels - whole);
    const float share = 1.0f / static_cast<float>(channels);
    for (int64_t r = 0; r < count; ++r, rows += channels, out += channels) {
        V total = set(0);
        const float* row = rows;
        if (other) {
            for (int64_t c = 0; c < whole; c += lanes) {
                const V x = load(rows + c) + load(other + c);
                store(added + c, x);
                total = total + x;
            }
            if (tail) {
                const V x = load(rows + whole, tail) + load(other + whole, tail);
                store(added + whole, x, tail);
                total = total + x;
            }
            row = added, other += channels, added += channels;
        } else {
            for (int64_t c = 0; c < whole; c += lanes) total = total + load(rows + c);
            if (tail) total = total + load(rows + whole, tail);
        }
        const V mean = set(sum(total) * share);
        V square = set(0);
        for (int64_t c = 0; c < whole; c += lanes) {
            const V away = load(row + c) - mean;
            square = fma(away, away, square);
        }
        if (tail) {
            const V away = first_of(load(row + whole, tail) - mean, tail);
            square = fma(away, away, square);
        }
        const V scale = set(1.0f / __builtin_sqrtf(sum(square) * share + epsilon));
        for (int64_t c = 0; c < whole; c += lanes) store(out + c, (load(row + c) - mean) * scale);
        if (tail) store(out + whole, (load(row + whole, tail) - mean) * scale, tail);
    }
}

// x * (1 + erf(x / sqrt 2)) / 2; erf by Abramowitz and Stegun 7.1.26, within 1.5e-7.
inline V gelu(V x) {
    const V z = smaller(larger(x, set(0) - x), set(1e18f)) * set(0.70710678118654752f);
    const V t = set(1.0f) / fma(z, set(0.3275911f), set(1.0f));
    V p = fma(t, set(1.061405429f), set(-1.453152027f));
    p = fma(p, t, set(1.421413741f));
    p = fma(p, t, set(-0.284496736f));
    p = fma(p, t, set(0.254829592f));
    const V rest = p * t * exponential(set(0) - z * z);  // 1 - erf |z|
    return set(0.5f) * x * select(x > set(0), set(2.0f) - rest, rest);
}

// Centres in the lanes; four hidden values at a time, so that their sums do not wait for each other.
inline void blend(const float* both, int64_t stride, int64_t channels, int64_t centres, const Gate& gate, float* out) {
    constexpr int together = 4;
    for (int64_t m = 0; m < centres; m += lanes) {
        const float* column = both + m;
        V mixed = set(gate.shift);
        for (int64_t h = 0; h < gate.hidden; h += together) {
            const int64_t wide = least(together, gate.hidden - h);
            const float* weight[together];
            V total[together];
            for (int64_t i = 0; i < together; ++i) {
                const int64_t at = h + least(i, wide - 1);
                weight[i] = gate.first + at * 2 * channels;
                total[i] = set(gate.bias[at]);
            }
            for (int64_t c = 0; c < 2 * channels; ++c) {
                const V x = load(column + c * stride);
#pragma GCC unroll 4
                for (int i = 0; i < together; ++i) total[i] = fma(x, set(weight[i][c]), total[i]);
            }
            for (int64_t i = 0; i < wide; ++i) mixed = fma(gelu(total[i]), set(gate.second[h + i]), mixed);
        }
        const V g = set(1.0f) / (set(1.0f) + exponential(set(0) - mixed));
        const int n = static_cast<int>(least(lanes, centres - m));
        for (int64_t c = 0; c < channels; ++c) {
            const V gathered = load(column + c * stride), own = load(column + (channels + c) * stride);
            const V value = fma(g, own, (set(1.0f) - g) * gathered);
            if (n == lanes)
                store(out + c * centres + m, value);
            else
                store(out + c * centres + m, value, n);
        }
    }
}

// P centres and C vectors of the result at a time; the last vector may be cut.
template <int P, int C>
inline void project_panel(const float* rows, int64_t stride, int64_t channels, const float* weight, int64_t width,
                          int last, float* out, int64_t wide) {
    V total[P][C];
#pragma GCC unroll 4
    for (int m = 0; m < P; ++m)
#pragma GCC unroll 4
        for (int j = 0; j < C; ++j) total[m][j] = set(0);
    for (int64_t c = 0; c < channels; ++c) {
        const float* line = weight + c * width;
        V w[C];
#pragma GCC unroll 4
        for (int j = 0; j < C - 1; ++j) w[j] = load(line + j * lanes);
        w[C - 1] = last == lanes ? load(line + (C - 1) * lanes) : load(line + (C - 1) * lanes, last);
#pragma GCC unroll 4
        for (int m = 0; m < P; ++m) {
            const V x = set(rows[m * stride + c]);
#pragma GCC unroll 4
            for (int j = 0; j < C; ++j) total[m][j] = fma(w[j], x, total[m][j]);
        }
    }
    for (int m = 0; m < P; ++m)
        for (int j = 0; j < C; ++j) store(out + m * wide + j * lanes, total[m][j]);
}

template <int P>
inline void project_rows(const float* rows, int64_t stride, int64_t channels, const float* weight, int64_t width,
                         float* out) {
    const int64_t wide = cluinfer::padded(width);
    int64_t c = 0;
    for (; width - c > 3 * lanes; c += 4 * lanes)
        project_panel<P, 4>(rows, stride, channels, weight + c, width,
                            static_cast<int>(least(lanes, width - c - 3 * lanes)), out + c, wide);
    for (; c < width; c += lanes)
        project_panel<P, 1>(rows, stride, channels, weight + c, width, static_cast<int>(least(lanes, width - c)),
                            out + c, wide);
    for (int m = 0; m < P; ++m)  // whole vectors were stored; what is left of a padded row is zero
        for (int64_t i = (width + lanes - 1) / lanes * lanes; i < wide; ++i) out[m * wide + i] = 0;
}

inline void project(const float* rows, int64_t stride, int64_t centres, int64_t channels, const float* weight,
                    int64_t width, float* out) {
    const int64_t wide = cluinfer::padded(width);
    int64_t m = 0;
    for (; m + 4 <= centres; m += 4)
        project_rows<4>(rows + m * stride, stride, channels, weight, width, out + m * wide);
    for (; m < centres; ++m) project_rows<1>(rows + m * stride, stride, channels, weight, width, out + m * wide);
}

// C vectors of one point, the sums in registers while the heads go by.
template <int C>
inline void dispatch_vectors(const Heads& heads, const int32_t* index, const float* weight, const float* rows,
                             int64_t centres, int64_t wide, const float* bias, int last, float* to) {
    V total[C];
#pragma GCC unroll 4
    for (int j = 0; j < C; ++j) total[j] = set(0);
    if (bias) {
#pragma GCC unroll 4
        for (int j = 0; j < C - 1; ++j) total[j] = load(bias + j * lanes);
        total[C - 1] = last == lanes ? load(bias + (C - 1) * lanes) : load(bias + (C - 1) * lanes, last);
    }
    for (int64_t e = 0; e < heads.count; ++e) {
        const int64_t m = index[e * heads.index_step];
        if (m < 0 || m >= centres) continue;
        const V w = set(weight ? weight[e * heads.index_step] : 1.0f);
        const float* row = rows + e * heads.rows_step + m * wide;
#pragma GCC unroll 4
        for (int j = 0; j < C; ++j) total[j] = fma(load(row + j * lanes), w, total[j]);
    }
#pragma GCC unroll 4
    for (int j = 0; j < C - 1; ++j) store(to + j * lanes, total[j]);
    if (last == lanes)
        store(to + (C - 1) * lanes, total[C - 1]);
    else
        store(to + (C - 1) * lanes, total[C - 1], last);
}

inline void dispatch(const Points& out, int64_t first, int64_t count, const Heads& heads, const int32_t* index,
                     const float* weight, const float* rows, int64_t centres, const float* bias) {
    const int64_t width = out.channels, wide = cluinfer::padded(width);
    float* at[cluinfer::tile_points];
    for (int64_t start = 0; start < count; start += cluinfer::tile_points) {
        const int64_t points = least(cluinfer::tile_points, count - start);
        locate(out, first + start, points, points, at);
        for (int64_t p = 0; p < points; ++p, ++index, weight += weight ? 1 : 0) {
            int64_t c = 0;
            const auto last = [&](int vectors_wide) {
                return static_cast<int>(least(lanes, width - c - (vectors_wide - 1) * lanes));
            };
            const auto shift = [&] { return bias ? bias + c : nullptr; };
            for (; width - c > 3 * lanes; c += 4 * lanes)
                dispatch_vectors<4>(heads, index, weight, rows + c, centres, wide, shift(), last(4), at[p] + c);
            for (; width - c > lanes; c += 2 * lanes)
                dispatch_vectors<2>(heads, index, weight, rows + c, centres, wide, shift(), last(2), at[p] + c);
            for (; c < width; c += lanes)
                dispatch_vectors<1>(heads, index, weight, rows + c, centres, wide, shift(), last(1), at[p] + c);
        }
    }
}

}  // namespace
