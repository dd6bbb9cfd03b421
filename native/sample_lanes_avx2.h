// The operations of sample_lanes_scalar.h in AVX2.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace rocmforge::avx2 {

using F8 = __m256;

static inline F8 f8_load(const float* p) { return _mm256_loadu_ps(p); }
static inline void f8_store(float* p, F8 a) { _mm256_storeu_ps(p, a); }
static inline F8 f8_set1(float x) { return _mm256_set1_ps(x); }
static inline F8 f8_add(F8 a, F8 b) { return _mm256_add_ps(a, b); }
static inline F8 f8_sub(F8 a, F8 b) { return _mm256_sub_ps(a, b); }
static inline F8 f8_mul(F8 a, F8 b) { return _mm256_mul_ps(a, b); }
static inline F8 f8_max(F8 a, F8 b) { return _mm256_max_ps(a, b); }
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

}  // namespace rocmforge::avx2
