// The small dense work around the clusterings: norms over channels, and the gate that mixes two kinds of centres.
// Included once per instruction set, inside an unnamed namespace.
#pragma once

#include "tile.hpp"

namespace {

using cluinfer::Gate;

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

}  // namespace
