// The operations of lanes_scalar.h in AVX2, FMA and F16C, two registers for sixteen lanes. With
// AVX-VNNI (the compiler defines __AVXVNNI__) four products of bytes are one instruction; without,
// pairs of them are summed in 16 bits first, and Parts are those.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace rocmforge::ROCMFORGE_LANES {

struct Floats {
  __m256 a, b;
};
struct Ints {
  __m256i a, b;
};
struct Bytes {
  __m256i a, b;
};
struct Parts {
  __m256i a, b;
};
struct Pairs {
  __m256i a, b;
};
struct Scales {
  __m256i a, b;
};

constexpr int kTileTokens = 4;

static inline const __m256i* m256(const void* p) { return static_cast<const __m256i*>(p); }
static inline __m128i half(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }

static inline Floats f_load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
static inline Floats f_load_half(const float* p) {
  return {_mm256_loadu_ps(p), _mm256_setzero_ps()};
}
static inline void f_store(float* p, const Floats& x) {
  _mm256_storeu_ps(p, x.a);
  _mm256_storeu_ps(p + 8, x.b);
}
static inline void f_store_half(float* p, const Floats& x) { _mm256_storeu_ps(p, x.a); }
static inline Floats f_set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
#define ROCMFORGE_FLOATS(name, op)                             \
  static inline Floats name(const Floats& x, const Floats& y) { \
    return {op(x.a, y.a), op(x.b, y.b)};                       \
  }
ROCMFORGE_FLOATS(f_add, _mm256_add_ps)
ROCMFORGE_FLOATS(f_sub, _mm256_sub_ps)
ROCMFORGE_FLOATS(f_mul, _mm256_mul_ps)
ROCMFORGE_FLOATS(f_div, _mm256_div_ps)
ROCMFORGE_FLOATS(f_max, _mm256_max_ps)
ROCMFORGE_FLOATS(f_min, _mm256_min_ps)
#undef ROCMFORGE_FLOATS
static inline Floats f_fma(const Floats& x, const Floats& y, const Floats& z) {
  return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
static inline Floats f_abs(const Floats& x) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_andnot_ps(sign, x.a), _mm256_andnot_ps(sign, x.b)};
}
static inline Floats f_round(const Floats& x) {
  constexpr int kMode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(x.a, kMode), _mm256_round_ps(x.b, kMode)};
}
static inline __m256 exp2_int(__m256 n) {
  const __m256i biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
  return _mm256_castsi256_ps(_mm256_slli_epi32(biased, 23));
}
static inline Floats f_exp2_int(const Floats& n) { return {exp2_int(n.a), exp2_int(n.b)}; }
static inline Floats f_zero_below(const Floats& x, const Floats& at, const Floats& limit) {
  return {_mm256_andnot_ps(_mm256_cmp_ps(at.a, limit.a, _CMP_LT_OQ), x.a),
          _mm256_andnot_ps(_mm256_cmp_ps(at.b, limit.b, _CMP_LT_OQ), x.b)};
}
static inline Floats f_from_f16(const uint8_t* p) {
  return {_mm256_cvtph_ps(half(p)), _mm256_cvtph_ps(half(p + 16))};
}
static inline Floats f_from_f16_half(const uint8_t* p) {
  return {_mm256_cvtph_ps(half(p)), _mm256_setzero_ps()};
}
static inline Floats f_from_f16_halves(const uint8_t* low, const uint8_t* high) {
  return {_mm256_cvtph_ps(half(low)), _mm256_cvtph_ps(half(high))};
}
static inline Floats f_load_halves(const float* low, const float* high) {
  return {_mm256_loadu_ps(low), _mm256_loadu_ps(high)};
}
static inline __m256 from_bf16(__m128i x) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16));
}
static inline Floats f_from_bf16(const uint8_t* p) {
  return {from_bf16(half(p)), from_bf16(half(p + 16))};
}
// As e8m0_halved_to_f32: exponents 0 and 1 are subnormal.
static inline __m256 from_e8m0_halved(__m256i e) {
  const __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(e, _mm256_set1_epi32(1)), 23);
  const __m256i small = _mm256_sllv_epi32(_mm256_set1_epi32(0x00200000), e);
  const __m256i is_small = _mm256_cmpgt_epi32(_mm256_set1_epi32(2), e);
  return _mm256_castsi256_ps(_mm256_blendv_epi8(normal, small, is_small));
}
static inline Floats f_from_e8m0_halved(const uint8_t* p) {
  const __m128i e = half(p);
  return {from_e8m0_halved(_mm256_cvtepu8_epi32(e)),
          from_e8m0_halved(_mm256_cvtepu8_epi32(_mm_srli_si128(e, 8)))};
}
static inline void f_store_f16(uint8_t* p, const Floats& x) {
  constexpr int kMode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(x.a, kMode));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 16), _mm256_cvtps_ph(x.b, kMode));
}
static inline void f_store_s8(int8_t* p, const Floats& x) {
  const __m256i words = _mm256_packs_epi32(_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b));
  const __m256i ordered = _mm256_permute4x64_epi64(words, 0xD8);
  const __m128i bytes =
      _mm_packs_epi16(_mm256_castsi256_si128(ordered), _mm256_extracti128_si256(ordered, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), bytes);
}

// The sum of sixteen signed bytes.
static inline int32_t sum_bytes16(const int8_t* p) {
  const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  const __m128i sums =
      _mm_sad_epu8(_mm_xor_si128(x, _mm_set1_epi8(static_cast<char>(0x80))), _mm_setzero_si128());
  return _mm_cvtsi128_si32(sums) + _mm_extract_epi16(sums, 4) - 16 * 128;
}

static inline Ints i_zero() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
static inline Ints i_set1(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
static inline Ints i_add(const Ints& x, const Ints& y) {
  return {_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)};
}
static inline Ints i_sub(const Ints& x, const Ints& y) {
  return {_mm256_sub_epi32(x.a, y.a), _mm256_sub_epi32(x.b, y.b)};
}
template <int kBits>
static inline Ints i_shl(const Ints& x) {
  return {_mm256_slli_epi32(x.a, kBits), _mm256_slli_epi32(x.b, kBits)};
}
static inline Floats i_to_f(const Ints& x) {
  return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)};
}

static inline Bytes b_load(const uint8_t* p) {
  return {_mm256_loadu_si256(m256(p)), _mm256_loadu_si256(m256(p + 32))};
}
static inline void b_store(uint8_t* p, const Bytes& x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x.a);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 32), x.b);
}
static inline Bytes b_and(const Bytes& x, uint8_t mask) {
  const __m256i m = _mm256_set1_epi8(static_cast<char>(mask));
  return {_mm256_and_si256(x.a, m), _mm256_and_si256(x.b, m)};
}
static inline Bytes b_or(const Bytes& x, const Bytes& y) {
  return {_mm256_or_si256(x.a, y.a), _mm256_or_si256(x.b, y.b)};
}
template <int kBits>
static inline Bytes b_shr(const Bytes& x) {
  return b_and({_mm256_srli_epi16(x.a, kBits), _mm256_srli_epi16(x.b, kBits)},
               static_cast<uint8_t>(0xFF >> kBits));
}
template <int kBits>
static inline Bytes b_shl(const Bytes& x) {
  return b_and({_mm256_slli_epi16(x.a, kBits), _mm256_slli_epi16(x.b, kBits)},
               static_cast<uint8_t>(0xFF << kBits));
}
static inline Bytes b_lookup(const uint8_t* table, const Bytes& x) {
  const __m256i t = _mm256_broadcastsi128_si256(half(table));
  return {_mm256_shuffle_epi8(t, x.a), _mm256_shuffle_epi8(t, x.b)};
}
static inline __m256i quad_of(const int8_t* p) {
  int32_t quad;
  std::memcpy(&quad, p, 4);
  return _mm256_set1_epi32(quad);
}

static inline Parts p_zero() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }

// Two values per row as int16: the first in the low half of each 32 bits.
static inline Pairs s_load(const uint8_t* p) {
  return {_mm256_cvtepi8_epi16(half(p)), _mm256_cvtepi8_epi16(half(p + 16))};
}
static inline __m256i pair_of(const int16_t* p) {
  int32_t pair;
  std::memcpy(&pair, p, 4);
  return _mm256_set1_epi32(pair);
}

#ifdef __AVXVNNI__

constexpr int kSignedOffset = 128;
constexpr bool kPartsAreInts = true;

using SignedBytes = Bytes;
static inline SignedBytes b_signed(const Bytes& x) {
  const __m256i flip = _mm256_set1_epi8(static_cast<char>(0x80));
  return {_mm256_xor_si256(x.a, flip), _mm256_xor_si256(x.b, flip)};
}
static inline Parts p_dot(const Parts& sum, const Bytes& w, const int8_t* quad) {
  const __m256i q = quad_of(quad);
  return {_mm256_dpbusd_avx_epi32(sum.a, w.a, q), _mm256_dpbusd_avx_epi32(sum.b, w.b, q)};
}
static inline Parts p_dot_signed(const Parts& sum, const SignedBytes& w, const int8_t* quad) {
  return p_dot(sum, w, quad);
}
static inline Ints p_added(const Ints& sum, const Parts& p) {
  return {_mm256_add_epi32(sum.a, p.a), _mm256_add_epi32(sum.b, p.b)};
}
static inline Ints p_scaled(const Ints& sum, const Parts& p, const Scales& scale) {
  return {_mm256_add_epi32(sum.a, _mm256_mullo_epi32(p.a, scale.a)),
          _mm256_add_epi32(sum.b, _mm256_mullo_epi32(p.b, scale.b))};
}
static inline __m256i low_words(__m256i x) { return _mm256_srai_epi32(_mm256_slli_epi32(x, 16), 16); }
static inline Scales s_first(const Pairs& x) { return {low_words(x.a), low_words(x.b)}; }
static inline Scales s_second(const Pairs& x) {
  return {_mm256_srai_epi32(x.a, 16), _mm256_srai_epi32(x.b, 16)};
}
static inline Ints s_dot(const Ints& sum, const Pairs& x, const int16_t* pair) {
  const __m256i p = pair_of(pair);
  return {_mm256_dpwssd_avx_epi32(sum.a, x.a, p), _mm256_dpwssd_avx_epi32(sum.b, x.b, p)};
}

#else

constexpr int kSignedOffset = 0;
constexpr bool kPartsAreInts = false;

// maddubs takes unsigned times signed bytes: the magnitude, and the sign to give the activations.
struct SignedBytes {
  Bytes magnitude, sign;
};
static inline SignedBytes b_signed(const Bytes& x) {
  return {{_mm256_abs_epi8(x.a), _mm256_abs_epi8(x.b)}, x};
}
static inline Parts p_dot(const Parts& sum, const Bytes& w, const int8_t* quad) {
  const __m256i q = quad_of(quad);
  return {_mm256_add_epi16(sum.a, _mm256_maddubs_epi16(w.a, q)),
          _mm256_add_epi16(sum.b, _mm256_maddubs_epi16(w.b, q))};
}
static inline Parts p_dot_signed(const Parts& sum, const SignedBytes& w, const int8_t* quad) {
  const __m256i q = quad_of(quad);
  return {_mm256_add_epi16(sum.a, _mm256_maddubs_epi16(w.magnitude.a, _mm256_sign_epi8(q, w.sign.a))),
          _mm256_add_epi16(sum.b, _mm256_maddubs_epi16(w.magnitude.b, _mm256_sign_epi8(q, w.sign.b)))};
}
static inline Ints p_added(const Ints& sum, const Parts& p) {
  const __m256i ones = _mm256_set1_epi16(1);
  return {_mm256_add_epi32(sum.a, _mm256_madd_epi16(p.a, ones)),
          _mm256_add_epi32(sum.b, _mm256_madd_epi16(p.b, ones))};
}
// The scale stands in both halves of 32 bits, so that madd scales and adds in one go.
static inline Ints p_scaled(const Ints& sum, const Parts& p, const Scales& scale) {
  return {_mm256_add_epi32(sum.a, _mm256_madd_epi16(p.a, scale.a)),
          _mm256_add_epi32(sum.b, _mm256_madd_epi16(p.b, scale.b))};
}
static inline __m256i doubled(__m256i x, int first) {
  const int low = first == 0 ? 0x01000100 : 0x03020302;
  const __m256i order = _mm256_add_epi8(
      _mm256_set1_epi32(low), _mm256_set_epi32(0x0C0C0C0C, 0x08080808, 0x04040404, 0, 0x0C0C0C0C,
                                               0x08080808, 0x04040404, 0));
  return _mm256_shuffle_epi8(x, order);
}
static inline Scales s_first(const Pairs& x) { return {doubled(x.a, 0), doubled(x.b, 0)}; }
static inline Scales s_second(const Pairs& x) { return {doubled(x.a, 1), doubled(x.b, 1)}; }
static inline Ints s_dot(const Ints& sum, const Pairs& x, const int16_t* pair) {
  const __m256i p = pair_of(pair);
  return {_mm256_add_epi32(sum.a, _mm256_madd_epi16(x.a, p)),
          _mm256_add_epi32(sum.b, _mm256_madd_epi16(x.b, p))};
}

#endif

}  // namespace rocmforge::ROCMFORGE_LANES
