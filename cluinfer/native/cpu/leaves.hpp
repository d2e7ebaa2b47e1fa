// The leaf kernels of one instruction set; see kernels.hpp for what each does.
#pragma once

#include "dense.hpp"
#include "nearest.hpp"

namespace {

using cluinfer::padded;
using cluinfer::tile_points;

inline int64_t pack(float* rows, int64_t stride, int64_t count, int64_t channels, int64_t begin, int64_t end,
                    float* packed) {
    int64_t first_nan = -1;
    for (int64_t m = begin; m < end; ++m) {
        float* row = rows + m * stride;  // padded with zeros
        V square = set(0);
        for (int64_t c = 0; c < stride; c += lanes) square = fma(load(row + c), load(row + c), square);
        const float norm = __builtin_sqrtf(sum(square));
        const V scale = set(1.0f / (norm > epsilon ? norm : norm != norm ? norm : epsilon));
        K nan = is_nan(set(0));
        for (int64_t c = 0; c < stride; c += lanes) {
            const V x = load(row + c) * scale;
            nan = nan | is_nan(x);
            store(row + c, x);
        }
        if (any(nan) && first_nan < 0) first_nan = m;
    }
    for (int64_t p = begin; p < end; p += panel) {
        const float* from[panel];
        for (int i = 0; i < panel; ++i) from[i] = rows + least(p + i, count - 1) * stride;
        float* to = packed + p * channels;
        for (int64_t c = 0; c < channels; ++c)
            for (int i = 0; i < panel; ++i) to[c * panel + i] = from[i][c];
    }
    return first_nan;
}

// Means of C vectors of channels; together, so that a line of the map is read once.
template <int C>
inline void average_rows(const Points& points, int64_t row, int64_t row_end, int64_t column, int64_t column_end,
                         int64_t channel, int last, V size, float* out) {
    V total[C];
    for (V& t : total) t = set(0);
    for (int64_t i = row; i < row_end; ++i) {
        const float* at = points.data + i * points.row + column * points.column + channel;
        V line[C];  // a sum of sums: the error grows with a side of the window, not with its area
        for (V& l : line) l = set(0);
        for (int64_t j = column; j < column_end; ++j, at += points.column) {
#pragma GCC unroll 4
            for (int c = 0; c < C - 1; ++c) line[c] = line[c] + load(at + c * lanes);
            const float* end = at + (C - 1) * lanes;
            line[C - 1] = line[C - 1] + (last == lanes ? load(end) : load(end, last));
        }
        for (int c = 0; c < C; ++c) total[c] = total[c] + line[c];
    }
    for (int c = 0; c < C; ++c) store(out + channel + c * lanes, total[c] / size);
}

inline void average(const Points& points, int64_t row, int64_t row_end, int64_t column, int64_t column_end,
                    float* out) {
    const int64_t channels = points.channels;
    const float size = static_cast<float>((row_end - row) * (column_end - column));
    if (points.channel == 1) {
        const auto rows = [&](auto function, int64_t c, int vectors_wide) {
            const int last = static_cast<int>(least(lanes, channels - c - (vectors_wide - 1) * lanes));
            function(points, row, row_end, column, column_end, c, last, set(size), out);
        };
        int64_t c = 0;
        for (; channels - c > 3 * lanes; c += 4 * lanes) rows(average_rows<4>, c, 4);
        for (; channels - c > lanes; c += 2 * lanes) rows(average_rows<2>, c, 2);
        for (; c < channels; c += lanes) rows(average_rows<1>, c, 1);
        // whole vectors were stored: row_unit is a multiple of every vector length
        for (c = (channels + lanes - 1) / lanes * lanes; c < padded(channels); ++c) out[c] = 0;
        return;
    }
    for (int64_t c = 0; c < padded(channels); ++c) {
        out[c] = 0;
        if (c >= channels) continue;
        V total = set(0);
        float rest = 0;
        for (int64_t i = row; i < row_end; ++i) {
            const float* line = points.data + i * points.row + c * points.channel;
            int64_t j = column;
            if (points.column == 1)
                for (; j < column_end; j += lanes) {
                    const int n = static_cast<int>(least(lanes, column_end - j));
                    total = total + (n == lanes ? load(line + j) : load(line + j, n));
                }
            for (; j < column_end; ++j) rest += line[j * points.column];
        }
        out[c] = (sum(total) + rest) / size;
    }
}

inline void scatter(const Points& values, int64_t first, int64_t count, const int32_t* index, const float* weight,
                    int64_t centres, float* sums, float* mass, float* scratch) {
    const int64_t channels = values.channels, stride = padded(channels);
    float* at[tile_points];
    for (int64_t start = 0; start < count; start += tile_points) {
        const int64_t width = least(tile_points, count - start);
        as_rows(values, first + start, width, at, scratch);
        for (int64_t p = 0; p < width; ++p) {
            const int64_t m = index[start + p];
            if (m < 0 || m >= centres) continue;
            const float w = weight ? weight[start + p] : 1.0f;
            float* to = sums + m * stride;
            int64_t c = 0;
            for (; c + lanes <= channels; c += lanes) store(to + c, fma(load(at[p] + c), set(w), load(to + c)));
            if (c < channels)
                store(to + c, fma(load(at[p] + c, static_cast<int>(channels - c)), set(w), load(to + c)));
            mass[m] += w;
        }
    }
}

inline void gather(const Points& out, int64_t first, int64_t count, const int32_t* index, const float* weight,
                   const float* rows, int64_t centres, float* scratch) {
    const int64_t channels = out.channels, stride = padded(channels);
    const bool in_place = out.channel == 1;
    float* at[tile_points];
    for (int64_t start = 0; start < count; start += tile_points) {
        const int64_t width = least(tile_points, count - start);
        locate(out, first + start, width, width, at);
        for (int64_t p = 0; p < width; ++p) {
            const int64_t m = index[start + p];
            const bool inside = m >= 0 && m < centres;
            const float* from = rows + (inside ? m : 0) * stride;
            const float w = weight ? weight[start + p] : 1.0f;
            float* to = in_place ? at[p] : scratch + p * stride;
            if (!inside) {
                std::memset(to, 0, sizeof(float) * static_cast<std::size_t>(channels));
                continue;
            }
            const V scale = set(w);
            int64_t c = 0;
            for (; c + lanes <= channels; c += lanes) store(to + c, load(from + c) * scale);
            if (c < channels) store(to + c, load(from + c) * scale, static_cast<int>(channels - c));
        }
        if (in_place) continue;
        for (int64_t p = 0; p < width; p += 8) {
            int64_t c = 0;
            if (p + 8 <= width && side_by_side(at + p, 8)) {
                const float* from[8];
                for (int i = 0; i < 8; ++i) from[i] = scratch + (p + i) * stride;
                for (; c + 8 <= channels; c += 8) transpose8(from, c, at[p] + c * out.channel, out.channel);
            }
            for (; c < channels; ++c)
                for (int64_t i = p; i < least(p + 8, width); ++i) at[i][c * out.channel] = scratch[i * stride + c];
        }
    }
}

// sums[m] += similarity[m][p] * row(p) for panels of centres from `first` on; similarity is [centre][tile].
template <int P, int C>
inline void weigh(const float* similarity, float* const* rows, int64_t width, int64_t channel, int64_t channels,
                  float* sums, int64_t stride) {
    V total[P][C];
#pragma GCC unroll 8
    for (int m = 0; m < P; ++m)
#pragma GCC unroll 4
        for (int c = 0; c < C; ++c) total[m][c] = set(0);
    const int tail = static_cast<int>(channels - channel - (C - 1) * lanes);
    for (int64_t p = 0; p < width; ++p) {
        V x[C];
#pragma GCC unroll 4
        for (int c = 0; c < C - 1; ++c) x[c] = load(rows[p] + channel + c * lanes);
        x[C - 1] = tail >= lanes ? load(rows[p] + channel + (C - 1) * lanes)
                                 : load(rows[p] + channel + (C - 1) * lanes, tail);
#pragma GCC unroll 8
        for (int m = 0; m < P; ++m) {
            const V s = set(similarity[m * tile + p]);
#pragma GCC unroll 4
            for (int c = 0; c < C; ++c) total[m][c] = fma(x[c], s, total[m][c]);
        }
    }
#pragma GCC unroll 8
    for (int m = 0; m < P; ++m)
#pragma GCC unroll 4
        for (int c = 0; c < C; ++c) {
            float* to = sums + m * stride + channel + c * lanes;
            store(to, load(to) + total[m][c]);
        }
}

#if defined(__AVX512F__)
// The same for 24 channels, a width of many heads: a vector and a half, where two vectors would idle a quarter of the
// time (measured on Zen 4, whose half vectors cost half: an aggregation takes a tenth less).
template <int P>
inline void weigh_24(const float* similarity, float* const* rows, int64_t width, float* sums, int64_t stride) {
    __m512 total[P];
    __m256 half[P];
#pragma GCC unroll 8
    for (int m = 0; m < P; ++m) total[m] = _mm512_setzero_ps(), half[m] = _mm256_setzero_ps();
    for (int64_t p = 0; p < width; ++p) {
        const __m512 x = _mm512_loadu_ps(rows[p]);
        const __m256 y = _mm256_loadu_ps(rows[p] + lanes);
#pragma GCC unroll 8
        for (int m = 0; m < P; ++m) {
            const __m512 s = _mm512_set1_ps(similarity[m * tile + p]);
            total[m] = _mm512_fmadd_ps(x, s, total[m]);
            half[m] = _mm256_fmadd_ps(y, _mm512_castps512_ps256(s), half[m]);
        }
    }
#pragma GCC unroll 8
    for (int m = 0; m < P; ++m) {
        float* to = sums + m * stride;
        _mm512_storeu_ps(to, _mm512_add_ps(_mm512_loadu_ps(to), total[m]));
        _mm256_storeu_ps(to + lanes, _mm256_add_ps(_mm256_loadu_ps(to + lanes), half[m]));
    }
}
#endif

template <int P>
inline void weigh_all(const float* similarity, float* const* rows, int64_t width, int64_t channels, float* sums) {
    const int64_t stride = padded(channels);
    constexpr int wide = lanes == 16 ? 2 : 3;
    int64_t c = 0;
#if defined(__AVX512F__)
    if (channels == 24) return weigh_24<P>(similarity, rows, width, sums, stride);
#endif
    for (; channels - c > (wide - 1) * lanes; c += wide * lanes)
        weigh<P, wide>(similarity, rows, width, c, channels, sums, stride);
    for (; c < channels; c += lanes) weigh<P, 1>(similarity, rows, width, c, channels, sums, stride);
}

template <int N>
struct Softmax {
    float scale;  // times log2(e): powers of two are cheaper
    const float* shift;
    int64_t count, centres;
    float *similarity, *mass;  // mass [centre][lanes], summed over the lanes when all tiles are done
    template <int R>
    bool operator()(const V (&sums)[R][N], int64_t centre) {
        for (int m = 0; m < R && centre + m < centres; ++m) {
            V total = load(mass + (centre + m) * lanes);
            for (int j = 0; j < N; ++j) {
                const int n = static_cast<int>(count - j * lanes);
                if (n <= 0) break;
                const V e = power_of_two(fma(sums[m][j], set(scale), set(-scale * shift[centre + m])));
                float* to = similarity + (centre + m) * tile + j * lanes;
                store(to, e);
                total = total + (n >= lanes ? e : load(to, n));
            }
            store(mass + (centre + m) * lanes, total);
        }
        return false;
    }
};

template <int N>
inline void attend_tile(const Points& keys, const Points& values, int64_t first, int64_t count, const Centres& centres,
                        float scale, const float* shift, float* sums, float* mass, float* scratch) {
    float* similarity = scratch + tile_points * padded(keys.channels);
    unit_tile<N>(keys, first, count, false, scratch);
    Softmax<N> softmax{scale, shift, count, centres.count, similarity, mass};
    scan<N>(scratch, centres, softmax);
    float* at[tile_points];
    as_rows(values, first, count, at, scratch);
    int64_t m = 0;
    const int64_t stride = padded(values.channels);
    constexpr int together = panels_at_once * panel;
    for (; m + together <= centres.count; m += together)
        weigh_all<together>(similarity + m * tile, at, count, values.channels, sums + m * stride);
    for (; m < centres.count; ++m) weigh_all<1>(similarity + m * tile, at, count, values.channels, sums + m * stride);
}

template <int N>
struct Peak {
    float* top;
    int64_t centres;
    template <int R>
    bool operator()(const V (&sums)[R][N], int64_t centre) {
        for (int m = 0; m < R && centre + m < centres; ++m) {
            V highest = set(top[centre + m]);
            for (int j = 0; j < N; ++j) highest = larger(sums[m][j], highest);
            float x[lanes];
            store(x, highest);
            for (float f : x) top[centre + m] = f > top[centre + m] ? f : top[centre + m];
        }
        return false;
    }
};

template <int N>
inline void peak_tile(const Points& points, int64_t first, int64_t count, const Centres& centres, float* top,
                      float* scratch) {
    unit_tile<N>(points, first, count, false, scratch);
    Peak<N> peak{top, centres.count};
    scan<N>(scratch, centres, peak);
}

// Calls f(first, count) for every tile; the template argument is the number of vectors the tile needs.
#define CLUINFER_TILES(COUNT, CALL)                                                 \
    for (int64_t start = 0; start < (COUNT); start += tile) {                       \
        const int64_t width = least(tile, (COUNT) - start);                         \
        if (width > 2 * lanes) { constexpr int N = 3; CALL; }                       \
        else if (width > lanes) { constexpr int N = 2; CALL; }                      \
        else { constexpr int N = 1; CALL; }                                         \
    }

inline void attend(const Points& keys, const Points& values, int64_t first, int64_t count, const Centres& centres,
                   float scale, const float* shift, float* sums, float* mass, float* scratch) {
    float* each = scratch;
    scratch += padded(centres.count) * lanes;
    for (int64_t m = 0; m < centres.count; ++m) store(each + m * lanes, set(0));
    const float binary = scale * 1.44269504088896341f;
    CLUINFER_TILES(count, (attend_tile<N>(keys, values, first + start, width, centres, binary, shift, sums, each,
                                          scratch)))
    for (int64_t m = 0; m < centres.count; ++m) mass[m] += sum(load(each + m * lanes));
}

inline void peak(const Points& points, int64_t first, int64_t count, const Centres& centres, float* top,
                 float* scratch) {
    CLUINFER_TILES(count, (peak_tile<N>(points, first + start, width, centres, top, scratch)))
}

inline void add(float* into, const float* from, int64_t count) {
    for (int64_t i = 0; i < count; i += lanes) store(into + i, load(into + i) + load(from + i));
}

inline void collect(const Points& points, const int32_t* order, int64_t count, const float* base, float* out) {
    const int64_t channels = points.channels;
    const V size = set(static_cast<float>(count) + 1.0f);
    for (int64_t c = 0; c < channels; c += lanes) {
        const int n = static_cast<int>(least(lanes, channels - c));
        V total = load(base + c);
        for (int64_t i = 0; i < count; ++i) {
            const float* at = points.data + c;
            if (points.rows == 1)
                at += order[i] * points.column;
            else
                at += order[i] / points.columns * points.row + order[i] % points.columns * points.column;
            total = total + (n == lanes ? load(at) : load(at, n));
        }
        store(out + c, total / size);
    }
}

inline void settle(const float* sums, const float* mass, const float* base, int64_t centres, int64_t channels,
                   float* out) {
    const int64_t stride = padded(channels);
    for (int64_t m = 0; m < centres; ++m) {
        const V size = set(mass[m] + 1.0f);
        for (int64_t c = m * stride; c < (m + 1) * stride; c += lanes)
            store(out + c, (load(sums + c) + load(base + c)) / size);
    }
}

#if !defined(CLUINFER_SCREEN)
inline void assign(const Points& points, int64_t first, int64_t count, const Centres& centres, const Similarity& s,
                   int32_t* index, float* weight, float* scratch) {
    CLUINFER_TILES(count, (nearest_tile<N>(points, first + start, width, centres, s, index + start,
                                           weight ? weight + start : nullptr, scratch)))
}
inline std::size_t coarse_bytes(int64_t, int64_t) { return 0; }
inline void coarsen(const Centres&, void*) {}
#endif

}  // namespace
