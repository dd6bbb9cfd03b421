// The operations of lanes_scalar.h in AVX-512 (F, BW, DQ, VL, VNNI): one register is sixteen lanes.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace rocmforge::ROCMFORGE_LANES {

using Floats = __m512;
struct Ints {
  __m512i v;
};
struct Bytes {
  __m512i v;
};
using Parts = Ints;
struct Pairs {
  __m512i v;
};
using Scales = Ints;

// Eight sums, eight totals, and the quads of a weight fit 32 registers.
constexpr int kTileTokens = 8;
constexpr int kSignedOffset = 128;
constexpr bool kPartsAreInts = true;

static inline Floats f_load(const float* p) { return _mm512_loadu_ps(p); }
static inline Floats f_load_half(const float* p) {
  return _mm512_zextps256_ps512(_mm256_loadu_ps(p));
}
static inline void f_store(float* p, Floats x) { _mm512_storeu_ps(p, x); }
static inline void f_store_half(float* p, Floats x) { _mm256_storeu_ps(p, _mm512_castps512_ps256(x)); }
static inline Floats f_set1(float x) { return _mm512_set1_ps(x); }
static inline Floats f_add(Floats x, Floats y) { return _mm512_add_ps(x, y); }
static inline Floats f_sub(Floats x, Floats y) { return _mm512_sub_ps(x, y); }
static inline Floats f_mul(Floats x, Floats y) { return _mm512_mul_ps(x, y); }
static inline Floats f_div(Floats x, Floats y) { return _mm512_div_ps(x, y); }
static inline Floats f_fma(Floats x, Floats y, Floats z) { return _mm512_fmadd_ps(x, y, z); }
static inline Floats f_max(Floats x, Floats y) { return _mm512_max_ps(x, y); }
static inline Floats f_min(Floats x, Floats y) { return _mm512_min_ps(x, y); }
static inline Floats f_abs(Floats x) { return _mm512_abs_ps(x); }
static inline Floats f_round(Floats x) {
  return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
static inline Floats f_exp2_int(Floats n) {
  const __m512i biased = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
  return _mm512_castsi512_ps(_mm512_slli_epi32(biased, 23));
}
static inline Floats f_zero_below(Floats x, Floats at, Floats limit) {
  return _mm512_mask_mov_ps(x, _mm512_cmp_ps_mask(at, limit, _CMP_LT_OQ), _mm512_setzero_ps());
}
static inline __m256i half(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
static inline __m128i quarter(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
static inline Floats f_from_f16(const uint8_t* p) { return _mm512_cvtph_ps(half(p)); }
static inline Floats f_from_f16_half(const uint8_t* p) {
  return _mm512_zextps256_ps512(_mm256_cvtph_ps(quarter(p)));
}
static inline Floats f_from_f16_halves(const uint8_t* low, const uint8_t* high) {
  return _mm512_cvtph_ps(_mm256_inserti128_si256(_mm256_castsi128_si256(quarter(low)), quarter(high), 1));
}
static inline Floats f_load_halves(const float* low, const float* high) {
  return _mm512_insertf32x8(_mm512_castps256_ps512(_mm256_loadu_ps(low)), _mm256_loadu_ps(high), 1);
}
static inline Floats f_from_bf16(const uint8_t* p) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half(p)), 16));
}
// As e8m0_halved_to_f32: exponents 0 and 1 are subnormal.
static inline Floats f_from_e8m0_halved(const uint8_t* p) {
  const __m512i e = _mm512_cvtepu8_epi32(quarter(p));
  const __m512i normal = _mm512_slli_epi32(_mm512_sub_epi32(e, _mm512_set1_epi32(1)), 23);
  const __m512i small = _mm512_sllv_epi32(_mm512_set1_epi32(0x00200000), e);
  const __mmask16 is_small = _mm512_cmplt_epi32_mask(e, _mm512_set1_epi32(2));
  return _mm512_castsi512_ps(_mm512_mask_mov_epi32(normal, is_small, small));
}
static inline void f_store_f16(uint8_t* p, Floats x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
static inline void f_store_s8(int8_t* p, Floats x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(x)));
}

// The sum of sixteen signed bytes.
static inline int32_t sum_bytes16(const int8_t* p) {
  const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  const __m128i sums =
      _mm_sad_epu8(_mm_xor_si128(x, _mm_set1_epi8(static_cast<char>(0x80))), _mm_setzero_si128());
  return _mm_cvtsi128_si32(sums) + _mm_extract_epi16(sums, 4) - 16 * 128;
}

static inline Ints i_zero() { return {_mm512_setzero_si512()}; }
static inline Ints i_set1(int32_t x) { return {_mm512_set1_epi32(x)}; }
static inline Ints i_add(Ints x, Ints y) { return {_mm512_add_epi32(x.v, y.v)}; }
static inline Ints i_sub(Ints x, Ints y) { return {_mm512_sub_epi32(x.v, y.v)}; }
template <int kBits>
static inline Ints i_shl(Ints x) {
  return {_mm512_slli_epi32(x.v, kBits)};
}
static inline Floats i_to_f(Ints x) { return _mm512_cvtepi32_ps(x.v); }

static inline Bytes b_load(const uint8_t* p) { return {_mm512_loadu_si512(p)}; }
static inline void b_store(uint8_t* p, Bytes x) { _mm512_storeu_si512(p, x.v); }
static inline Bytes b_and(Bytes x, uint8_t mask) {
  return {_mm512_and_si512(x.v, _mm512_set1_epi8(static_cast<char>(mask)))};
}
static inline Bytes b_or(Bytes x, Bytes y) { return {_mm512_or_si512(x.v, y.v)}; }
template <int kBits>
static inline Bytes b_shr(Bytes x) {
  return b_and({_mm512_srli_epi16(x.v, kBits)}, static_cast<uint8_t>(0xFF >> kBits));
}
template <int kBits>
static inline Bytes b_shl(Bytes x) {
  return b_and({_mm512_slli_epi16(x.v, kBits)}, static_cast<uint8_t>(0xFF << kBits));
}
static inline Bytes b_lookup(const uint8_t* table, Bytes x) {
  return {_mm512_shuffle_epi8(_mm512_broadcast_i32x4(quarter(table)), x.v)};
}
using SignedBytes = Bytes;
static inline SignedBytes b_signed(Bytes x) {
  return {_mm512_xor_si512(x.v, _mm512_set1_epi8(static_cast<char>(0x80)))};
}

static inline Parts p_zero() { return i_zero(); }
static inline Parts p_dot(Parts sum, Bytes w, const int8_t* quad) {
  int32_t q;
  std::memcpy(&q, quad, 4);
  return {_mm512_dpbusd_epi32(sum.v, w.v, _mm512_set1_epi32(q))};
}
static inline Parts p_dot_signed(Parts sum, SignedBytes w, const int8_t* quad) {
  return p_dot(sum, w, quad);
}
static inline Ints p_added(Ints sum, Parts p) { return i_add(sum, p); }
static inline Ints p_scaled(Ints sum, Parts p, Scales scale) {
  return {_mm512_add_epi32(sum.v, _mm512_mullo_epi32(p.v, scale.v))};
}

static inline Pairs s_load(const uint8_t* p) { return {_mm512_cvtepi8_epi16(half(p))}; }
static inline Scales s_first(Pairs x) {
  return {_mm512_srai_epi32(_mm512_slli_epi32(x.v, 16), 16)};
}
static inline Scales s_second(Pairs x) { return {_mm512_srai_epi32(x.v, 16)}; }
static inline Ints s_dot(Ints sum, Pairs x, const int16_t* pair) {
  int32_t p;
  std::memcpy(&p, pair, 4);
  return {_mm512_dpwssd_epi32(sum.v, x.v, _mm512_set1_epi32(p))};
}

}  // namespace rocmforge::ROCMFORGE_LANES
