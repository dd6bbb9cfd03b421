// The operations of lanes_scalar.h in AVX2 and F16C.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace rocmforge::avx2 {

using F8 = __m256;
struct I8 {
  __m256i v;
};
struct H16 {
  __m256i v;
};
struct B32 {
  __m256i v;
};

static inline F8 f8_load(const float* p) { return _mm256_loadu_ps(p); }
static inline void f8_store(float* p, F8 a) { _mm256_storeu_ps(p, a); }
static inline F8 f8_set1(float x) { return _mm256_set1_ps(x); }
static inline F8 f8_add(F8 a, F8 b) { return _mm256_add_ps(a, b); }
static inline F8 f8_sub(F8 a, F8 b) { return _mm256_sub_ps(a, b); }
static inline F8 f8_mul(F8 a, F8 b) { return _mm256_mul_ps(a, b); }
static inline F8 f8_div(F8 a, F8 b) { return _mm256_div_ps(a, b); }
static inline F8 f8_max(F8 a, F8 b) { return _mm256_max_ps(a, b); }
static inline F8 f8_min(F8 a, F8 b) { return _mm256_min_ps(a, b); }
static inline F8 f8_abs(F8 a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
static inline F8 f8_round(F8 a) {
  return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
static inline F8 f8_exp2_int(F8 n) {
  const __m256i biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
  return _mm256_castsi256_ps(_mm256_slli_epi32(biased, 23));
}
static inline F8 f8_exp2_linear(F8 t) {
  const __m256i units = _mm256_cvtps_epi32(_mm256_mul_ps(t, _mm256_set1_ps(0x1.0p23f)));
  return _mm256_castsi256_ps(_mm256_add_epi32(units, _mm256_set1_epi32(127 << 23)));
}
static inline F8 f8_zero_below(F8 a, F8 x, F8 limit) {
  return _mm256_andnot_ps(_mm256_cmp_ps(x, limit, _CMP_LT_OQ), a);
}
static inline uint32_t f8_at_least(F8 a, F8 limit) {
  return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(a, limit, _CMP_GE_OQ)));
}
static inline F8 f8_from_f16(const uint8_t* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
static inline F8 f8_from_bf16(const uint8_t* p) {
  const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}
static inline void f8_store_f16(uint8_t* p, F8 a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                   _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

static inline I8 i8_zero() { return {_mm256_setzero_si256()}; }
static inline I8 i8_set1(int32_t x) { return {_mm256_set1_epi32(x)}; }
static inline I8 i8_add(I8 a, I8 b) { return {_mm256_add_epi32(a.v, b.v)}; }
static inline I8 i8_sub(I8 a, I8 b) { return {_mm256_sub_epi32(a.v, b.v)}; }
static inline I8 i8_mul(I8 a, I8 b) { return {_mm256_mullo_epi32(a.v, b.v)}; }
static inline F8 i8_to_f8(I8 a) { return _mm256_cvtepi32_ps(a.v); }
static inline I8 i8_from_u8(const uint8_t* p) {
  return {_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)))};
}
static inline I8 i8_from_s8(const uint8_t* p) {
  return {_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)))};
}
static inline void f8_store_s8(int8_t* p, F8 a) {
  const __m256i wide = _mm256_cvtps_epi32(a);
  const __m128i half =
      _mm_packs_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packs_epi16(half, half));
}

static inline B32 b32_load(const uint8_t* p) {
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))};
}
static inline B32 b32_quad(const int8_t* p) {
  int32_t quad;
  std::memcpy(&quad, p, 4);
  return {_mm256_set1_epi32(quad)};
}
static inline B32 b32_and(B32 a, uint8_t mask) {
  return {_mm256_and_si256(a.v, _mm256_set1_epi8(static_cast<char>(mask)))};
}
static inline B32 b32_or(B32 a, B32 b) { return {_mm256_or_si256(a.v, b.v)}; }
template <int kBits>
static inline B32 b32_shr(B32 a) {
  return b32_and({_mm256_srli_epi16(a.v, kBits)}, static_cast<uint8_t>(0xFF >> kBits));
}
template <int kBits>
static inline B32 b32_shl(B32 a) {
  return b32_and({_mm256_slli_epi16(a.v, kBits)}, static_cast<uint8_t>(0xFF << kBits));
}
static inline B32 b32_abs(B32 a) { return {_mm256_abs_epi8(a.v)}; }
static inline B32 b32_sign(B32 a, B32 b) { return {_mm256_sign_epi8(a.v, b.v)}; }

static inline H16 h16_zero() { return {_mm256_setzero_si256()}; }
static inline H16 h16_add(H16 a, H16 b) { return {_mm256_add_epi16(a.v, b.v)}; }
static inline H16 h16_mul_pairs(B32 u, B32 s) { return {_mm256_maddubs_epi16(u.v, s.v)}; }
static inline I8 i8_add_pairs(H16 a) { return {_mm256_madd_epi16(a.v, _mm256_set1_epi16(1))}; }

}  // namespace rocmforge::avx2
