// Sixteen 32-bit lanes in portable C++; lanes_avx2.h, lanes_avx512.h and lanes_neon.h have the same
// operations in vector instructions. A kernel written against these gives the same bits with any of
// them, because every operation is exact or rounds as IEEE says (f_fma once, as a whole).
//
//   Floats   float x 16
//   Ints     int32 x 16
//   Bytes    byte x 64: four neighbouring columns ("a quad") of sixteen rows, row 0's four first
//   Parts    sums of products on their way to Ints: as many bits as the instruction set gives
//   Pairs    int16 x 32: two values for each of sixteen rows
//   Scales   one small integer for each of sixteen rows, as p_scaled wants it
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "numeric.h"

namespace rocmforge::ROCMFORGE_LANES {

struct Floats {
  float v[16];
};
struct Ints {
  int32_t v[16];
};
struct Bytes {
  uint8_t v[64];
};
using Parts = Ints;
struct Pairs {
  int16_t v[32];
};
using Scales = Ints;

// Rows of activations that share the unpacking of a weight.
constexpr int kTileTokens = 2;
// What b_signed adds to a byte; p_dot takes unsigned bytes on some instruction sets.
constexpr int kSignedOffset = 0;
// How many products of two bytes Parts hold beyond any format's need.
constexpr bool kPartsAreInts = true;

#define ROCMFORGE_EACH(Type, n, expression)          \
  Type r;                                            \
  for (int i = 0; i < (n); ++i) r.v[i] = (expression); \
  return r

static inline Floats f_load(const float* p) {
  Floats r;
  std::memcpy(r.v, p, 64);
  return r;
}
// Eight floats; the other lanes are 0.
static inline Floats f_load_half(const float* p) {
  Floats r{};
  std::memcpy(r.v, p, 32);
  return r;
}
static inline void f_store(float* p, const Floats& a) { std::memcpy(p, a.v, 64); }
static inline void f_store_half(float* p, const Floats& a) { std::memcpy(p, a.v, 32); }
static inline Floats f_set1(float x) { ROCMFORGE_EACH(Floats, 16, x); }
static inline Floats f_add(const Floats& a, const Floats& b) {
  ROCMFORGE_EACH(Floats, 16, a.v[i] + b.v[i]);
}
static inline Floats f_sub(const Floats& a, const Floats& b) {
  ROCMFORGE_EACH(Floats, 16, a.v[i] - b.v[i]);
}
static inline Floats f_mul(const Floats& a, const Floats& b) {
  ROCMFORGE_EACH(Floats, 16, a.v[i] * b.v[i]);
}
static inline Floats f_div(const Floats& a, const Floats& b) {
  ROCMFORGE_EACH(Floats, 16, a.v[i] / b.v[i]);
}
// a · b + c, rounded once.
static inline Floats f_fma(const Floats& a, const Floats& b, const Floats& c) {
  ROCMFORGE_EACH(Floats, 16, std::fma(a.v[i], b.v[i], c.v[i]));
}
// As maxps and minps: the second operand when either is NaN.
static inline Floats f_max(const Floats& a, const Floats& b) {
  ROCMFORGE_EACH(Floats, 16, a.v[i] > b.v[i] ? a.v[i] : b.v[i]);
}
static inline Floats f_min(const Floats& a, const Floats& b) {
  ROCMFORGE_EACH(Floats, 16, a.v[i] < b.v[i] ? a.v[i] : b.v[i]);
}
static inline Floats f_abs(const Floats& a) { ROCMFORGE_EACH(Floats, 16, std::fabs(a.v[i])); }
// Nearest, ties to even.
static inline Floats f_round(const Floats& a) { ROCMFORGE_EACH(Floats, 16, std::nearbyint(a.v[i])); }
// 2^n for integral lanes n in [-126, 127].
static inline Floats f_exp2_int(const Floats& n) {
  ROCMFORGE_EACH(Floats, 16,
                 std::bit_cast<float>(static_cast<uint32_t>(static_cast<int32_t>(n.v[i]) + 127) << 23));
}
// a where x < limit is false, 0 where it is true.
static inline Floats f_zero_below(const Floats& a, const Floats& x, const Floats& limit) {
  ROCMFORGE_EACH(Floats, 16, x.v[i] < limit.v[i] ? 0.0f : a.v[i]);
}
static inline Floats f_from_f16(const uint8_t* p) {
  ROCMFORGE_EACH(Floats, 16, f16_to_f32(load<uint16_t>(p + 2 * i)));
}
static inline Floats f_from_f16_half(const uint8_t* p) {
  ROCMFORGE_EACH(Floats, 16, i < 8 ? f16_to_f32(load<uint16_t>(p + 2 * i)) : 0.0f);
}
// Lanes 0..7 from `low`, 8..15 from `high`.
static inline Floats f_from_f16_halves(const uint8_t* low, const uint8_t* high) {
  ROCMFORGE_EACH(Floats, 16, f16_to_f32(load<uint16_t>(i < 8 ? low + 2 * i : high + 2 * (i - 8))));
}
static inline Floats f_load_halves(const float* low, const float* high) {
  ROCMFORGE_EACH(Floats, 16, i < 8 ? low[i] : high[i - 8]);
}
static inline Floats f_from_bf16(const uint8_t* p) {
  ROCMFORGE_EACH(Floats, 16, bf16_to_f32(load<uint16_t>(p + 2 * i)));
}
// Powers of two with E8M0 exponents, halved: 2^(e - 128).
static inline Floats f_from_e8m0_halved(const uint8_t* p) {
  ROCMFORGE_EACH(Floats, 16, e8m0_halved_to_f32(p[i]));
}
static inline void f_store_f16(uint8_t* p, const Floats& a) {
  for (int i = 0; i < 16; ++i) {
    const uint16_t h = f32_to_f16(a.v[i]);
    std::memcpy(p + 2 * i, &h, 2);
  }
}
// Rounded lanes in [-127, 127] as bytes; anything else becomes -128 or 0.
static inline void f_store_s8(int8_t* p, const Floats& a) {
  for (int i = 0; i < 16; ++i) {
    const float x = std::nearbyint(a.v[i]);
    p[i] = static_cast<int8_t>(x >= -127.0f && x <= 127.0f ? x : -128.0f);
  }
}

// The sum of sixteen signed bytes.
static inline int32_t sum_bytes16(const int8_t* p) {
  int32_t sum = 0;
  for (int i = 0; i < 16; ++i) sum += p[i];
  return sum;
}

static inline Ints i_zero() { return Ints{}; }
static inline Ints i_set1(int32_t x) { ROCMFORGE_EACH(Ints, 16, x); }
static inline Ints i_add(const Ints& a, const Ints& b) { ROCMFORGE_EACH(Ints, 16, a.v[i] + b.v[i]); }
static inline Ints i_sub(const Ints& a, const Ints& b) { ROCMFORGE_EACH(Ints, 16, a.v[i] - b.v[i]); }
template <int kBits>
static inline Ints i_shl(const Ints& a) {
  ROCMFORGE_EACH(Ints, 16, static_cast<int32_t>(static_cast<uint32_t>(a.v[i]) << kBits));
}
static inline Floats i_to_f(const Ints& a) {
  ROCMFORGE_EACH(Floats, 16, static_cast<float>(a.v[i]));
}

static inline Bytes b_load(const uint8_t* p) {
  Bytes r;
  std::memcpy(r.v, p, 64);
  return r;
}
static inline void b_store(uint8_t* p, const Bytes& x) { std::memcpy(p, x.v, 64); }
static inline Bytes b_and(const Bytes& a, uint8_t mask) {
  ROCMFORGE_EACH(Bytes, 64, static_cast<uint8_t>(a.v[i] & mask));
}
static inline Bytes b_or(const Bytes& a, const Bytes& b) {
  ROCMFORGE_EACH(Bytes, 64, static_cast<uint8_t>(a.v[i] | b.v[i]));
}
template <int kBits>
static inline Bytes b_shr(const Bytes& a) {
  ROCMFORGE_EACH(Bytes, 64, static_cast<uint8_t>(a.v[i] >> kBits));
}
template <int kBits>
static inline Bytes b_shl(const Bytes& a) {
  ROCMFORGE_EACH(Bytes, 64, static_cast<uint8_t>(a.v[i] << kBits));
}
// table[a] for bytes a below 16.
static inline Bytes b_lookup(const uint8_t* table, const Bytes& a) {
  ROCMFORGE_EACH(Bytes, 64, table[a.v[i]]);
}
// Signed bytes as p_dot_signed wants them.
using SignedBytes = Bytes;
static inline SignedBytes b_signed(const Bytes& a) { return a; }

static inline Parts p_zero() { return Parts{}; }
// Adds the dot products of each row's four unsigned bytes with four activations.
static inline Parts p_dot(const Parts& sum, const Bytes& w, const int8_t* quad) {
  ROCMFORGE_EACH(Parts, 16, sum.v[i] + w.v[4 * i] * quad[0] + w.v[4 * i + 1] * quad[1] +
                                w.v[4 * i + 2] * quad[2] + w.v[4 * i + 3] * quad[3]);
}
// The same with signed bytes, each kSignedOffset too large.
static inline Parts p_dot_signed(const Parts& sum, const SignedBytes& w, const int8_t* quad) {
  ROCMFORGE_EACH(Parts, 16,
                 sum.v[i] + static_cast<int8_t>(w.v[4 * i]) * quad[0] +
                     static_cast<int8_t>(w.v[4 * i + 1]) * quad[1] +
                     static_cast<int8_t>(w.v[4 * i + 2]) * quad[2] +
                     static_cast<int8_t>(w.v[4 * i + 3]) * quad[3]);
}
// sum + p
static inline Ints p_added(const Ints& sum, const Parts& p) { return i_add(sum, p); }
// sum + scale · p
static inline Ints p_scaled(const Ints& sum, const Parts& p, const Scales& scale) {
  ROCMFORGE_EACH(Ints, 16, sum.v[i] + p.v[i] * scale.v[i]);
}

// 32 signed bytes, two for each row.
static inline Pairs s_load(const uint8_t* p) {
  ROCMFORGE_EACH(Pairs, 32, static_cast<int8_t>(p[i]));
}
static inline Scales s_first(const Pairs& a) { ROCMFORGE_EACH(Scales, 16, a.v[2 * i]); }
static inline Scales s_second(const Pairs& a) { ROCMFORGE_EACH(Scales, 16, a.v[2 * i + 1]); }
// Adds each row's two values, multiplied with the two of `pair`.
static inline Ints s_dot(const Ints& sum, const Pairs& a, const int16_t* pair) {
  ROCMFORGE_EACH(Ints, 16, sum.v[i] + a.v[2 * i] * pair[0] + a.v[2 * i + 1] * pair[1]);
}

#undef ROCMFORGE_EACH

}  // namespace rocmforge::ROCMFORGE_LANES
