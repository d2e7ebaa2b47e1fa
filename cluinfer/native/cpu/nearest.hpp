// The assignment of one tile: which centre is the first maximum of s.
//
// s is a monotone function of the cosine, so the search needs no sigmoid: it looks for the largest cosine (the
// smallest if alpha < 0, by flipping the points' sign). But s in float32 has plateaus, where many cosines give the
// same s (a saturated sigmoid, an alpha lost beside beta), and there the first centre wins, not the most similar.
// Whether a winner stands on a plateau shows by one more evaluation of s a little below its cosine; only then the
// tile is scanned again, comparing s itself.
#pragma once

#include "tile.hpp"

namespace {

using cluinfer::Similarity;

constexpr float within_rounding = 2e-6f;  // cosines closer than this may be ordered either way

inline V similarity(const Similarity& s, V cosine) {
    const V t = set(s.alpha) * cosine + set(s.beta);
    return s.sigmoid ? set(1.0f) / (set(1.0f) + exponential(set(0) - t)) : t;
}

// The largest value and the first centre that has it. NaN never wins, so `best` stays -inf for a NaN point.
template <int N>
struct Nearest {
    V best[N], index[N];
    Nearest() {
        for (int j = 0; j < N; ++j) best[j] = set(-__builtin_inff()), index[j] = set_bits(0);
    }
    template <int R>
    bool operator()(const V (&sum)[R][N], int64_t centre) {
        for (int j = 0; j < N; ++j) {
            V top = sum[0][j];
            for (int m = 1; m < R; ++m) top = larger(sum[m][j], top);
            const K better = top > best[j];
            if (!any(better)) continue;
            V first = set_bits(0);
            for (int m = R - 1; m >= 0; --m)
                first = select(sum[m][j] == top, set_bits(static_cast<int32_t>(centre) + m), first);
            index[j] = select(better, first, index[j]);
            best[j] = select(better, top, best[j]);
        }
        return false;
    }
};

// The definition itself: the first maximum of s, NaN counting as the largest. Stops once every lane has reached
// `target`, the value that the maximum is known to have; a NaN target means not known.
template <int N>
struct Exact {
    const Similarity& s;
    float sign;
    int64_t centres;
    V best[N], index[N], target[N];
    K done[N];
    template <int R>
    bool operator()(const V (&sum)[R][N], int64_t centre) {
        bool open = false;
        for (int j = 0; j < N; ++j) {
            for (int m = 0; m < R && centre + m < centres; ++m) {
                const V value = similarity(s, set(sign) * sum[m][j]);
                const K nan = is_nan(value);
                const K better = ~done[j] & (nan | (value > best[j]));
                best[j] = select(better, value, best[j]);
                index[j] = select(better, set_bits(static_cast<int32_t>(centre) + m), index[j]);
                done[j] = done[j] | nan | (best[j] == target[j]);
            }
            open = open || any(~done[j]);
        }
        return !open;
    }
};

// Turns the best signed cosines of a tile into index and weight; `count` points of them are real.
template <int N>
inline void finish(const float* points, int64_t count, const Centres& centres, const Similarity& s, bool flip,
                   Nearest<N>& found, int32_t* index, float* weight) {
    const float sign = flip ? -1.0f : 1.0f;
    const float infinity = __builtin_inff();
    const bool identity = !s.sigmoid && s.alpha == 1.0f && s.beta == 0.0f;
    // A NaN centre, or an alpha or beta that makes NaN of a finite cosine: the order of cosines says nothing.
    const bool unordered = centres.first_nan >= 0 || !(s.alpha - s.alpha == 0.0f) || s.beta != s.beta;
    V value[N];
    Exact<N> exact{s, sign, centres.count, {}, {}, {}, {}};
    bool again = false;
    for (int j = 0; j < N; ++j) {
        const K nan = found.best[j] == set(-infinity);
        const V cosine = set(sign) * found.best[j];
        value[j] = identity ? cosine : similarity(s, cosine);
        K plateau = nan & ~nan;
        if (unordered) plateau = ~plateau;
        else if (!identity) {
            const V below = cosine - set(sign * within_rounding);
            // Points shorter than epsilon have cosines so small that s may not tell any of them apart.
            const K minute = (set(within_rounding) > cosine) & (cosine > set(-within_rounding));
            plateau = ~nan & (minute | (similarity(s, below) == value[j]));
        }
        again = again || any(plateau);
        exact.best[j] = set(-infinity);
        exact.index[j] = set_bits(0);
        exact.target[j] = unordered ? set(__builtin_nanf("")) : value[j];
        exact.done[j] = ~plateau;
        value[j] = select(nan, set(__builtin_nanf("")), value[j]);
    }
    if (again) {
        K settled[N];
        for (int j = 0; j < N; ++j) settled[j] = exact.done[j];
        scan<N>(points, centres, exact);
        for (int j = 0; j < N; ++j) {
            found.index[j] = select(settled[j], found.index[j], exact.index[j]);
            value[j] = select(settled[j], value[j], exact.best[j]);
        }
    }
    for (int j = 0; j < N; ++j) {
        const int n = static_cast<int>(least(lanes, count - j * lanes));
        if (n <= 0) break;
        float bits[lanes];
        store(bits, found.index[j]);
        std::memcpy(index + j * lanes, bits, sizeof(float) * static_cast<unsigned>(n));
        if (weight) store(weight + j * lanes, value[j], n);
    }
}

template <int N>
inline void nearest_tile(const Points& points, int64_t first, int64_t count, const Centres& centres,
                         const Similarity& s, int32_t* index, float* weight, float* scratch) {
    const bool flip = s.alpha < 0;
    unit_tile<N>(points, first, count, flip, scratch);
    Nearest<N> found;
    if (centres.first_nan < 0) scan<N>(scratch, centres, found);
    finish<N>(scratch, count, centres, s, flip, found, index, weight);
}

}  // namespace
