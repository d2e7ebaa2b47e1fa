// One vector type, `V`, of the instruction set that this translation unit is compiled for, and its mask `K`.
//
// Comparisons are ordered and quiet: false on NaN. Indices travel as bits inside a V. No operation is fused unless
// written as fma: the reference rounds alpha * cosine before it adds beta.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace {

#if defined(__AVX512F__)

constexpr int lanes = 16;
struct V { __m512 v; };
struct K { __mmask16 k; };
inline V load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline V load(const float* p, int n) {
    return {_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1), p)};
}
inline void store(float* p, V a) { _mm512_storeu_ps(p, a.v); }
inline void store(float* p, V a, int n) { _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << n) - 1), a.v); }
inline V set(float x) { return {_mm512_set1_ps(x)}; }
inline V set_bits(std::int32_t x) { return {_mm512_castsi512_ps(_mm512_set1_epi32(x))}; }
inline V operator+(V a, V b) { return {_mm512_add_ps(a.v, b.v)}; }
inline V operator-(V a, V b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline V operator*(V a, V b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline V operator/(V a, V b) { return {_mm512_div_ps(a.v, b.v)}; }
inline V fma(V a, V b, V c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline V root(V a) { return {_mm512_sqrt_ps(a.v)}; }
inline V larger(V a, V b) { return {_mm512_max_ps(a.v, b.v)}; }   // b where either is NaN
inline V smaller(V a, V b) { return {_mm512_min_ps(a.v, b.v)}; }  // b where either is NaN
inline K operator>(V a, V b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ)}; }
inline K operator==(V a, V b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ)}; }
inline K is_nan(V a) { return {_mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q)}; }
inline K operator&(K a, K b) { return {static_cast<__mmask16>(a.k & b.k)}; }
inline K operator|(K a, K b) { return {static_cast<__mmask16>(a.k | b.k)}; }
inline K operator~(K a) { return {static_cast<__mmask16>(~a.k)}; }
inline bool any(K a) { return a.k != 0; }
inline V select(K k, V a, V b) { return {_mm512_mask_blend_ps(k.k, b.v, a.v)}; }
inline V times_power(V a, V n) { return {_mm512_scalef_ps(a.v, n.v)}; }
inline V nearest(V a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }

#elif defined(__AVX2__)

constexpr int lanes = 8;
struct V { __m256 v; };
struct K { __m256 k; };
inline __m256i first_lanes(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
inline V load(const float* p) { return {_mm256_loadu_ps(p)}; }
inline V load(const float* p, int n) { return {_mm256_maskload_ps(p, first_lanes(n))}; }
inline void store(float* p, V a) { _mm256_storeu_ps(p, a.v); }
inline void store(float* p, V a, int n) { _mm256_maskstore_ps(p, first_lanes(n), a.v); }
inline V set(float x) { return {_mm256_set1_ps(x)}; }
inline V set_bits(std::int32_t x) { return {_mm256_castsi256_ps(_mm256_set1_epi32(x))}; }
inline V operator+(V a, V b) { return {_mm256_add_ps(a.v, b.v)}; }
inline V operator-(V a, V b) { return {_mm256_sub_ps(a.v, b.v)}; }
inline V operator*(V a, V b) { return {_mm256_mul_ps(a.v, b.v)}; }
inline V operator/(V a, V b) { return {_mm256_div_ps(a.v, b.v)}; }
inline V fma(V a, V b, V c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
inline V root(V a) { return {_mm256_sqrt_ps(a.v)}; }
inline V larger(V a, V b) { return {_mm256_max_ps(a.v, b.v)}; }
inline V smaller(V a, V b) { return {_mm256_min_ps(a.v, b.v)}; }
inline K operator>(V a, V b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_GT_OQ)}; }
inline K operator==(V a, V b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_EQ_OQ)}; }
inline K is_nan(V a) { return {_mm256_cmp_ps(a.v, a.v, _CMP_UNORD_Q)}; }
inline K operator&(K a, K b) { return {_mm256_and_ps(a.k, b.k)}; }
inline K operator|(K a, K b) { return {_mm256_or_ps(a.k, b.k)}; }
inline K operator~(K a) { return {_mm256_xor_ps(a.k, _mm256_castsi256_ps(_mm256_set1_epi32(-1)))}; }
inline bool any(K a) { return _mm256_movemask_ps(a.k) != 0; }
inline V select(K k, V a, V b) { return {_mm256_blendv_ps(b.v, a.v, k.k)}; }
// In two steps: 2^128 is no float, yet e^88.7 is.
inline V times_power(V a, V n) {
    const __m256i whole = _mm256_cvtps_epi32(n.v);
    const __m256i half = _mm256_srai_epi32(whole, 1);
    const __m256i bias = _mm256_set1_epi32(127);
    const __m256 p = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
    const __m256 q =
        _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(whole, half), bias), 23));
    return {_mm256_mul_ps(_mm256_mul_ps(a.v, p), q)};
}
inline V nearest(V a) { return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }

#else

// Plain arrays of four: compilers turn these loops into NEON or SSE.
constexpr int lanes = 4;
struct V { float v[lanes]; };
struct K { std::uint32_t k[lanes]; };  // all ones or zero, so that a selection is a bitwise one
inline V load(const float* p) { V r; std::memcpy(r.v, p, sizeof r.v); return r; }
inline V load(const float* p, int n) {
    V r = {};
    std::memcpy(r.v, p, sizeof(float) * static_cast<unsigned>(n));
    return r;
}
inline void store(float* p, V a) { std::memcpy(p, a.v, sizeof a.v); }
inline void store(float* p, V a, int n) { std::memcpy(p, a.v, sizeof(float) * static_cast<unsigned>(n)); }
#define CLUINFER_LANES(TYPE, FIELD, EXPRESSION) \
    TYPE r; for (int i = 0; i < lanes; ++i) r.FIELD[i] = (EXPRESSION); return r
inline V set(float x) { CLUINFER_LANES(V, v, x); }
inline V set_bits(std::int32_t x) {
    V r;
    for (float& lane : r.v) std::memcpy(&lane, &x, sizeof lane);
    return r;
}
inline V operator+(V a, V b) { CLUINFER_LANES(V, v, a.v[i] + b.v[i]); }
inline V operator-(V a, V b) { CLUINFER_LANES(V, v, a.v[i] - b.v[i]); }
inline V operator*(V a, V b) { CLUINFER_LANES(V, v, a.v[i] * b.v[i]); }
inline V operator/(V a, V b) { CLUINFER_LANES(V, v, a.v[i] / b.v[i]); }
inline V fma(V a, V b, V c) { CLUINFER_LANES(V, v, a.v[i] * b.v[i] + c.v[i]); }
inline V root(V a) { CLUINFER_LANES(V, v, __builtin_sqrtf(a.v[i])); }
inline V larger(V a, V b) { CLUINFER_LANES(V, v, a.v[i] > b.v[i] ? a.v[i] : b.v[i]); }
inline V smaller(V a, V b) { CLUINFER_LANES(V, v, a.v[i] < b.v[i] ? a.v[i] : b.v[i]); }
inline K operator>(V a, V b) { CLUINFER_LANES(K, k, a.v[i] > b.v[i] ? ~0u : 0u); }
inline K operator==(V a, V b) { CLUINFER_LANES(K, k, a.v[i] == b.v[i] ? ~0u : 0u); }
inline K is_nan(V a) { CLUINFER_LANES(K, k, a.v[i] != a.v[i] ? ~0u : 0u); }
inline K operator&(K a, K b) { CLUINFER_LANES(K, k, a.k[i] & b.k[i]); }
inline K operator|(K a, K b) { CLUINFER_LANES(K, k, a.k[i] | b.k[i]); }
inline K operator~(K a) { CLUINFER_LANES(K, k, ~a.k[i]); }
inline bool any(K a) { std::uint32_t r = 0; for (std::uint32_t k : a.k) r |= k; return r != 0; }
inline V select(K k, V a, V b) {
    std::uint32_t x[lanes], y[lanes];
    std::memcpy(x, a.v, sizeof x);
    std::memcpy(y, b.v, sizeof y);
    for (int i = 0; i < lanes; ++i) x[i] = (x[i] & k.k[i]) | (y[i] & ~k.k[i]);
    V r;
    std::memcpy(r.v, x, sizeof x);
    return r;
}
inline float power(std::int32_t n) {
    const std::int32_t bits = (n + 127) * (1 << 23);
    float f;
    std::memcpy(&f, &bits, sizeof f);
    return f;
}
inline V times_power(V a, V n) {
    V r;
    for (int i = 0; i < lanes; ++i) {
        const std::int32_t whole = n.v[i] == n.v[i] ? static_cast<std::int32_t>(n.v[i]) : 0;
        const std::int32_t half = whole >> 1;
        r.v[i] = a.v[i] * power(half) * power(whole - half);
    }
    return r;
}
// Adding and taking away 1.5 * 2^23 rounds to the nearest whole number; enough for exponents.
inline V nearest(V a) { CLUINFER_LANES(V, v, (a.v[i] + 12582912.0f) - 12582912.0f); }
#undef CLUINFER_LANES

#endif

// e^x to about one unit in the last place, with inf above 88.72 and NaN for NaN.
inline V exponential(V x) {
    x = smaller(set(89.0f), larger(set(-104.0f), x));
    const V n = nearest(x * set(1.44269504088896341f));
    V r = fma(n, set(-0.693359375f), x);
    r = fma(n, set(2.12194440e-4f), r);
    V p = set(1.9875691500e-4f);
    p = fma(p, r, set(1.3981999507e-3f));
    p = fma(p, r, set(8.3334519073e-3f));
    p = fma(p, r, set(4.1665795894e-2f));
    p = fma(p, r, set(1.6666665459e-1f));
    p = fma(p, r, set(5.0000001201e-1f));
    return times_power(fma(p, r * r, r) + set(1.0f), n);
}

// 2^y to about two units in the last place; 0 far below, NaN for NaN; y at most 127.
inline V power_of_two(V y) {
#if !defined(__AVX512F__)
    y = larger(set(-200.0f), y);  // the other sets put the exponent together by hand
#endif
    const V n = nearest(y);
    const V r = y - n;
    V p = set(1.535336188319500e-4f);
    p = fma(p, r, set(1.339887440266574e-3f));
    p = fma(p, r, set(9.618437357674640e-3f));
    p = fma(p, r, set(5.550332471162809e-2f));
    p = fma(p, r, set(2.402264791363012e-1f));
    p = fma(p, r, set(6.931472028550421e-1f));
    return times_power(fma(p, r, set(1.0f)), n);
}

#if defined(__AVX512F__)
inline float sum(V a) { return _mm512_reduce_add_ps(a.v); }
#else
inline float sum(V a) {
    float x[lanes];
    store(x, a);
    float total = 0;
    for (float f : x) total += f;
    return total;
}
#endif

// Eight rows of eight floats, transposed.
inline void transpose8(const float* const* from, std::ptrdiff_t offset, float* to, std::ptrdiff_t stride) {
#if defined(__AVX2__)
    __m256 r[8], s[8];
    for (int i = 0; i < 4; ++i) {
        r[i] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(from[i] + offset)),
                                    _mm_loadu_ps(from[i + 4] + offset), 1);
        r[i + 4] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(from[i] + offset + 4)),
                                        _mm_loadu_ps(from[i + 4] + offset + 4), 1);
    }
    for (int h = 0; h < 8; h += 4) {
        const __m256 a = _mm256_unpacklo_ps(r[h], r[h + 1]), b = _mm256_unpackhi_ps(r[h], r[h + 1]);
        const __m256 c = _mm256_unpacklo_ps(r[h + 2], r[h + 3]), d = _mm256_unpackhi_ps(r[h + 2], r[h + 3]);
        s[h] = _mm256_shuffle_ps(a, c, 0x44);
        s[h + 1] = _mm256_shuffle_ps(a, c, 0xee);
        s[h + 2] = _mm256_shuffle_ps(b, d, 0x44);
        s[h + 3] = _mm256_shuffle_ps(b, d, 0xee);
    }
    for (int i = 0; i < 8; ++i) _mm256_storeu_ps(to + i * stride, s[i]);
#else
    for (int i = 0; i < 8; ++i)
        for (int j = 0; j < 8; ++j) to[i * stride + j] = from[j][offset + i];
#endif
}

}  // namespace
