// The assignment with an 8-bit screen in front: VNNI multiplies four times as many values as fma.
//
// Points and centres are rounded to 8 bits, and how far rounding can have moved a similarity is bounded
// (Cauchy-Schwarz on the rounding errors). Only centres within that bound of a point's best one, usually one to
// three, are compared in float32; so the answer is that of float32, never that of 8 bits. A point with too many
// candidates is searched in float32 as a whole. The mean centre is taken off first: it adds the same to all
// similarities of a point, and without it similar centres would drown in the rounding of what they share.
#pragma once

#if !defined(__AVX512VNNI__) && !defined(_MSC_VER)
#error "compile this file for AVX-512 VNNI"
#endif

#include "leaves.hpp"

namespace {

constexpr int coarse_panel = 8;  // 8 centres x 3 vectors of points
constexpr int most_candidates = 32;
constexpr int64_t worth_screening = 96;  // fewer centres cost less in float32 (measured: 49 of 320 channels)

struct CoarseHeader {
    float step;   // what one unit of a rounded centre stands for
    float reach;  // the largest norm of a centre less the mean
    float slip;   // the largest norm of a centre's rounding error
};

// Header, correction [count], quads [panel][channels / 4][centre in panel][4].
struct Coarse {
    CoarseHeader* header;
    int32_t* correction;  // -128 * sum: the instruction wants unsigned points, so that 128 is added to them
    signed char* quads;
    int64_t fours, panels;
    Coarse(const void* memory, int64_t count, int64_t channels)
        : fours((channels + 3) / 4), panels((count + coarse_panel - 1) / coarse_panel) {
        char* at = static_cast<char*>(const_cast<void*>(memory));
        header = reinterpret_cast<CoarseHeader*>(at);
        correction = reinterpret_cast<int32_t*>(at + 64);
        quads = reinterpret_cast<signed char*>(correction + panels * coarse_panel);
    }
    std::size_t bytes() const {
        const int64_t centres = panels * coarse_panel;
        return static_cast<std::size_t>(quads - reinterpret_cast<signed char*>(header) + centres * fours * 4);
    }
};

inline std::size_t coarse_bytes(int64_t count, int64_t channels) {
    if (count < worth_screening || channels < 16) return 0;
    alignas(64) static const char origin[64] = {};
    const Coarse layout(origin, count, channels);
    return layout.bytes();
}

inline V magnitude(V a) { return {_mm512_abs_ps(a.v)}; }

inline void coarsen(const Centres& centres, void* memory) {
    const int64_t channels = centres.channels, count = centres.count, stride = padded(channels);
    const Coarse coarse(memory, count, channels);
    constexpr int64_t most = 512;  // channels whose mean fits the stack; beyond it nothing is taken off
    float mean[most] = {};
    if (stride <= most)
        for (int64_t c = 0; c < stride; c += lanes) {
            V total = set(0);
            for (int64_t m = 0; m < count; ++m) total = total + load(centres.rows + m * stride + c);
            store(mean + c, total / set(static_cast<float>(count)));
        }
    const auto rest = [&](int64_t m, int64_t c) {
        const V x = load(centres.rows + m * stride + c);
        return stride <= most ? x - load(mean + c) : x;
    };
    V largest = set(0);
    for (int64_t m = 0; m < count; ++m)
        for (int64_t c = 0; c < stride; c += lanes) largest = larger(largest, magnitude(rest(m, c)));
    const float top = _mm512_reduce_max_ps(largest.v);
    const float step = top > 1e-30f ? top / 127.0f : 1.0f;
    const V inverse = set(1.0f / step);
    float reach = 0, slip = 0;
    for (int64_t m = 0; m < coarse.panels * coarse_panel; ++m) {
        const int64_t from = least(m, count - 1);  // as everywhere, the last panel repeats the last centre
        V norm = set(0), error = set(0);
        __m512i total = _mm512_setzero_si512();
        for (int64_t c = 0; c < stride; c += lanes) {
            const V x = rest(from, c);
            const __m512i q = _mm512_cvtps_epi32((x * inverse).v);
            const V away = x - set(step) * V{_mm512_cvtepi32_ps(q)};
            norm = fma(x, x, norm);
            error = fma(away, away, error);
            total = _mm512_add_epi32(total, q);
            alignas(16) signed char bytes[lanes];
            _mm_store_si128(reinterpret_cast<__m128i*>(bytes), _mm512_cvtepi32_epi8(q));
            for (int64_t f = c / 4; f < c / 4 + 4 && f < coarse.fours; ++f) {
                const int64_t at = (m / coarse_panel * coarse.fours + f) * coarse_panel + m % coarse_panel;
                std::memcpy(coarse.quads + at * 4, bytes + (f * 4 - c), 4);
            }
        }
        coarse.correction[m] = -128 * _mm512_reduce_add_epi32(total);
        const float size = sum(norm), wrong = sum(error);
        reach = size > reach ? size : reach;
        slip = wrong > slip ? wrong : slip;
    }
    *coarse.header = {step, __builtin_sqrtf(reach), __builtin_sqrtf(slip)};
}

// Candidates of the points of a tile, in the order of the centres.
struct Candidates {
    int32_t centre[tile][most_candidates], score[tile][most_candidates];
    int size[tile];
    bool full[tile];

    void add(int lane, int32_t centre_number, int32_t value, int32_t floor) {
        if (size[lane] == most_candidates) {
            if (!full[lane]) keep(lane, floor);
            full[lane] = full[lane] || size[lane] == most_candidates;
            if (full[lane]) return;
        }
        centre[lane][size[lane]] = centre_number;
        score[lane][size[lane]++] = value;
    }
    // Drops those that a better centre has since ruled out.
    void keep(int lane, int32_t floor) {
        int kept = 0;
        for (int i = 0; i < size[lane]; ++i)
            if (score[lane][i] > floor) {
                centre[lane][kept] = centre[lane][i];
                score[lane][kept++] = score[lane][i];
            }
        size[lane] = kept;
    }
};

using Sums = __m512i[coarse_panel][vectors];

inline void coarse_products(const Coarse& coarse, const unsigned char* points, int64_t p, Sums& result) {
    __m512i sum[coarse_panel][vectors];  // local, and every loop unrolled: else GCC keeps these in memory
#pragma GCC unroll 8
    for (int m = 0; m < coarse_panel; ++m) {
        const __m512i start = _mm512_set1_epi32(coarse.correction[p * coarse_panel + m]);
#pragma GCC unroll 4
        for (int j = 0; j < vectors; ++j) sum[m][j] = start;
    }
    const signed char* quads = coarse.quads + p * coarse.fours * coarse_panel * 4;
    for (int64_t f = 0; f < coarse.fours; ++f) {
        __m512i x[vectors];
#pragma GCC unroll 4
        for (int j = 0; j < vectors; ++j) x[j] = _mm512_loadu_si512(points + (f * vectors + j) * 64);
#pragma GCC unroll 8
        for (int m = 0; m < coarse_panel; ++m) {
            int32_t four;
            std::memcpy(&four, quads + (f * coarse_panel + m) * 4, 4);
            const __m512i centre = _mm512_set1_epi32(four);
#pragma GCC unroll 4
            for (int j = 0; j < vectors; ++j) sum[m][j] = _mm512_dpbusd_epi32(sum[m][j], x[j], centre);
        }
    }
#pragma GCC unroll 8
    for (int m = 0; m < coarse_panel; ++m)
#pragma GCC unroll 4
        for (int j = 0; j < vectors; ++j) result[m][j] = sum[m][j];
}

// Rounds a tile of unit vectors to points [four][vector][lane][4], and gives per lane how many units of score two
// centres can lie apart and yet be in the wrong order.
inline void coarse_points(const float* unit, int64_t channels, const Coarse& coarse, unsigned char* points,
                          __m512i (&doubt)[vectors]) {
    const float slack = 4e-6f + 1.2e-7f * static_cast<float>(channels);  // the rounding of float32 itself
    for (int j = 0; j < vectors; ++j) {
        V top = set(1e-30f);
        for (int64_t c = 0; c < channels; ++c) top = larger(magnitude(load(unit + c * tile + j * lanes)), top);
        const V step = top / set(127.0f), inverse = set(127.0f) / top;
        V error = set(0);
        for (int64_t f = 0; f < coarse.fours; ++f) {
            __m512i four = _mm512_setzero_si512();
            for (int i = 0; i < 4; ++i) {
                __m512i q = _mm512_setzero_si512();
                if (const int64_t c = f * 4 + i; c < channels) {
                    const V x = load(unit + c * tile + j * lanes);
                    q = _mm512_cvtps_epi32((x * inverse).v);
                    const V away = x - step * V{_mm512_cvtepi32_ps(q)};
                    error = fma(away, away, error);
                }
                q = _mm512_and_si512(_mm512_add_epi32(q, _mm512_set1_epi32(128)), _mm512_set1_epi32(255));
                four = _mm512_or_si512(four, _mm512_sllv_epi32(q, _mm512_set1_epi32(8 * i)));
            }
            _mm512_storeu_si512(points + (f * vectors + j) * 64, four);
        }
        const V lost = root(error);
        const CoarseHeader& h = *coarse.header;
        const V bound = fma(lost, set(h.reach), fma(set(1.0f) + lost, set(h.slip), set(slack)));
        const V units = smaller(set(1e9f), set(2.0f) * bound / (step * set(h.step)));
        doubt[j] = _mm512_add_epi32(_mm512_cvtps_epi32(units.v), _mm512_set1_epi32(2));
    }
}

// The most similar of a lane's candidates in float32, or -1 where the raw vector is too long or short to tell.
inline int32_t settle_lane(const Candidates& found, int lane, const Centres& centres, const float* point) {
    const int64_t channels = centres.channels;
    float best = -__builtin_inff();
    int32_t index = -1;
    for (int i = 0; i < found.size[lane]; ++i) {
        const float* row = centres.rows + found.centre[lane][i] * padded(channels);
        V total = set(0);
        int64_t c = 0;
        for (; c + lanes <= channels; c += lanes) total = fma(load(point + c), load(row + c), total);
        if (c < channels) total = fma(load(point + c, static_cast<int>(channels - c)), load(row + c), total);
        const float value = sum(total);
        if (value > best) best = value, index = found.centre[lane][i];
    }
    const float size = best < 0 ? -best : best;
    return size > 1e-15f && size < 1e15f ? index : -1;
}

inline void screened_tile(const Points& points, int64_t first, int64_t count, const Centres& centres,
                          const Similarity& s, int32_t* index, float* scratch) {
    const int64_t channels = centres.channels;
    const Coarse coarse(centres.coarse, centres.count, channels);
    unit_tile<vectors>(points, first, count, false, scratch);
    auto* quads = reinterpret_cast<unsigned char*>(scratch + tile * padded(channels));
    __m512i doubt[vectors], top[vectors];
    coarse_points(scratch, channels, coarse, quads, doubt);

    // Where the points lie in their region, the likely centres lie in the grid: begin with a good bound.
    for (__m512i& t : top) t = _mm512_set1_epi32(-(1 << 30));
    const int64_t likely = (2 * first + count) * coarse.panels / (2 * points.count());
    Sums sum;
    for (int64_t p = likely - 2 > 0 ? likely - 2 : 0; p < least(likely + 2, coarse.panels); ++p) {
        coarse_products(coarse, quads, p, sum);
        for (int m = 0; m < coarse_panel; ++m)
            for (int j = 0; j < vectors; ++j) top[j] = _mm512_max_epi32(top[j], sum[m][j]);
    }
    Candidates found;
    for (int lane = 0; lane < tile; ++lane) found.size[lane] = 0, found.full[lane] = false;
    __m512i floor[vectors];
    for (int j = 0; j < vectors; ++j) floor[j] = _mm512_sub_epi32(top[j], doubt[j]);
    for (int64_t p = 0; p < coarse.panels; ++p) {
        coarse_products(coarse, quads, p, sum);
        for (int j = 0; j < vectors; ++j) {
            __m512i highest = sum[0][j];
            for (int m = 1; m < coarse_panel; ++m) highest = _mm512_max_epi32(highest, sum[m][j]);
            if (!_mm512_cmpgt_epi32_mask(highest, floor[j])) continue;
            top[j] = _mm512_max_epi32(top[j], highest);
            floor[j] = _mm512_sub_epi32(top[j], doubt[j]);
            // The hits of all centres as two words, so that one loop runs over them: a branch for each centre, which
            // nobody can predict, took half of the time of the whole screen.
            alignas(64) int32_t floors[lanes], values[coarse_panel][lanes];
            _mm512_store_si512(floors, floor[j]);
            std::uint64_t words[2] = {0, 0};
#pragma GCC unroll 8
            for (int m = 0; m < coarse_panel; ++m) {
                _mm512_store_si512(values[m], sum[m][j]);
                const std::uint64_t hits = _mm512_cmpgt_epi32_mask(sum[m][j], floor[j]);
                words[m / 4] |= hits << (m % 4 * lanes);
            }
            for (int word = 0; word < 2; ++word)
                for (std::uint64_t hits = words[word]; hits; hits &= hits - 1) {
                    const int bit = static_cast<int>(_tzcnt_u64(hits)), lane = bit % lanes, m = word * 4 + bit / lanes;
                    const int64_t centre = p * coarse_panel + m;
                    if (centre < centres.count)
                        found.add(j * lanes + lane, static_cast<int32_t>(centre), values[m][lane], floors[lane]);
                }
        }
    }

    float* rows[tile_points];
    as_rows(points, first, count, rows, scratch + tile * 2 * padded(channels));
    bool open = false;
    for (int j = 0; j < vectors; ++j) {
        alignas(64) int32_t floors[lanes];
        _mm512_store_si512(floors, floor[j]);
        for (int i = 0; i < lanes && j * lanes + i < count; ++i) {
            const int lane = j * lanes + i;
            if (!found.full[lane]) found.keep(lane, floors[i]);
            index[lane] = found.full[lane] || found.size[lane] == 0 ? -1
                          : found.size[lane] == 1                   ? found.centre[lane][0]
                                                  : settle_lane(found, lane, centres, rows[lane]);
            open = open || index[lane] < 0;
        }
    }
    // A NaN in a point leaves its rounding error NaN: no doubt can be had, so ask float32.
    for (int j = 0; j < vectors; ++j) {
        V nan = set(0);
        for (int64_t c = 0; c < channels; ++c) nan = fma(load(scratch + c * tile + j * lanes), set(0), nan);
        const unsigned lost = is_nan(nan).k;
        for (int i = 0; i < lanes && j * lanes + i < count; ++i)
            if (lost >> i & 1) index[j * lanes + i] = -1, open = true;
    }
    if (!open) return;
    Nearest<vectors> all;
    scan<vectors>(scratch, centres, all);
    int32_t exact[tile];
    finish<vectors>(scratch, count, centres, s, false, all, exact, nullptr);
    for (int64_t lane = 0; lane < count; ++lane)
        if (index[lane] < 0) index[lane] = exact[lane];
}

inline void assign(const Points& points, int64_t first, int64_t count, const Centres& centres, const Similarity& s,
                   int32_t* index, float* weight, float* scratch) {
    const bool cosine = !s.sigmoid && s.alpha == 1.0f && s.beta == 0.0f;
    if (centres.coarse && cosine && !weight && centres.first_nan < 0) {
        for (int64_t start = 0; start < count; start += tile)
            screened_tile(points, first + start, least(tile, count - start), centres, s, index + start, scratch);
        return;
    }
    CLUINFER_TILES(count, (nearest_tile<N>(points, first + start, width, centres, s, index + start,
                                           weight ? weight + start : nullptr, scratch)))
}

}  // namespace
