// The operations of lanes_scalar.h in NEON with the dot products of ARMv8.2, four registers for
// sixteen lanes.
#pragma once

#include <arm_neon.h>

#include <cstdint>
#include <cstring>

namespace rocmforge::ROCMFORGE_LANES {

struct Floats {
  float32x4_t a, b, c, d;
};
struct Ints {
  int32x4_t a, b, c, d;
};
struct Bytes {
  uint8x16_t a, b, c, d;
};
using Parts = Ints;
// Each row's first value and its second apart: rows 0..7, then 8..15.
struct Pairs {
  int16x8_t first[2], second[2];
};
using Scales = Ints;

// Sixteen registers of sums, four of a weight's quads and the activations fit 32.
constexpr int kTileTokens = 4;
// Codes without a sign are below 128: the signed instruction takes both.
constexpr int kSignedOffset = 0;
constexpr bool kPartsAreInts = true;

// f of each register.
template <class Out, class F, class... In>
static inline __attribute__((always_inline)) Out each(const F& f, const In&... in) {
  return {f(in.a...), f(in.b...), f(in.c...), f(in.d...)};
}
// Sixteen lanes from f(0), f(4), f(8), f(12).
template <class Out, class F>
static inline __attribute__((always_inline)) Out from_lanes(const F& f) {
  return {f(0), f(4), f(8), f(12)};
}

static inline Floats f_load(const float* p) {
  return from_lanes<Floats>([p](int i) { return vld1q_f32(p + i); });
}
static inline Floats f_load_half(const float* p) {
  return {vld1q_f32(p), vld1q_f32(p + 4), vdupq_n_f32(0), vdupq_n_f32(0)};
}
static inline void f_store_half(float* p, const Floats& x) {
  vst1q_f32(p, x.a);
  vst1q_f32(p + 4, x.b);
}
static inline void f_store(float* p, const Floats& x) {
  f_store_half(p, x);
  vst1q_f32(p + 8, x.c);
  vst1q_f32(p + 12, x.d);
}
static inline Floats f_set1(float x) {
  const float32x4_t v = vdupq_n_f32(x);
  return {v, v, v, v};
}
static inline Floats f_add(const Floats& x, const Floats& y) {
  return each<Floats>([](auto p, auto q) { return vaddq_f32(p, q); }, x, y);
}
static inline Floats f_sub(const Floats& x, const Floats& y) {
  return each<Floats>([](auto p, auto q) { return vsubq_f32(p, q); }, x, y);
}
static inline Floats f_mul(const Floats& x, const Floats& y) {
  return each<Floats>([](auto p, auto q) { return vmulq_f32(p, q); }, x, y);
}
static inline Floats f_div(const Floats& x, const Floats& y) {
  return each<Floats>([](auto p, auto q) { return vdivq_f32(p, q); }, x, y);
}
static inline Floats f_fma(const Floats& x, const Floats& y, const Floats& z) {
  return each<Floats>([](auto p, auto q, auto r) { return vfmaq_f32(r, p, q); }, x, y, z);
}
// NEON's own maximum and minimum are NaN when either operand is.
static inline Floats f_max(const Floats& x, const Floats& y) {
  return each<Floats>([](auto p, auto q) { return vbslq_f32(vcgtq_f32(p, q), p, q); }, x, y);
}
static inline Floats f_min(const Floats& x, const Floats& y) {
  return each<Floats>([](auto p, auto q) { return vbslq_f32(vcltq_f32(p, q), p, q); }, x, y);
}
static inline Floats f_abs(const Floats& x) {
  return each<Floats>([](auto p) { return vabsq_f32(p); }, x);
}
static inline Floats f_round(const Floats& x) {
  return each<Floats>([](auto p) { return vrndnq_f32(p); }, x);
}
static inline Floats f_exp2_int(const Floats& n) {
  return each<Floats>(
      [](auto p) {
        const int32x4_t biased = vaddq_s32(vcvtq_s32_f32(p), vdupq_n_s32(127));
        return vreinterpretq_f32_s32(vshlq_n_s32(biased, 23));
      },
      n);
}
static inline Floats f_zero_below(const Floats& x, const Floats& at, const Floats& limit) {
  return each<Floats>(
      [](auto p, auto q, auto r) {
        return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(p), vcltq_f32(q, r)));
      },
      x, at, limit);
}
// Four halves, at any address.
static inline float32x4_t from_f16(const uint8_t* p) {
  return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p)));
}
static inline Floats f_from_f16_halves(const uint8_t* low, const uint8_t* high) {
  return {from_f16(low), from_f16(low + 8), from_f16(high), from_f16(high + 8)};
}
static inline Floats f_from_f16(const uint8_t* p) { return f_from_f16_halves(p, p + 16); }
static inline Floats f_from_f16_half(const uint8_t* p) {
  return {from_f16(p), from_f16(p + 8), vdupq_n_f32(0), vdupq_n_f32(0)};
}
static inline Floats f_load_halves(const float* low, const float* high) {
  return {vld1q_f32(low), vld1q_f32(low + 4), vld1q_f32(high), vld1q_f32(high + 4)};
}
static inline Floats f_from_bf16(const uint8_t* p) {
  return from_lanes<Floats>([p](int i) {
    const uint32x4_t wide = vmovl_u16(vreinterpret_u16_u8(vld1_u8(p + 2 * i)));
    return vreinterpretq_f32_u32(vshlq_n_u32(wide, 16));
  });
}
// As e8m0_halved_to_f32: exponents 0 and 1 are subnormal.
static inline float32x4_t from_e8m0_halved(uint32x4_t e) {
  const uint32x4_t normal = vshlq_n_u32(vsubq_u32(e, vdupq_n_u32(1)), 23);
  const uint32x4_t small = vshlq_u32(vdupq_n_u32(0x00200000), vreinterpretq_s32_u32(e));
  return vreinterpretq_f32_u32(vbslq_u32(vcltq_u32(e, vdupq_n_u32(2)), small, normal));
}
static inline Floats f_from_e8m0_halved(const uint8_t* p) {
  const uint8x16_t e = vld1q_u8(p);
  const uint16x8_t low = vmovl_u8(vget_low_u8(e)), high = vmovl_high_u8(e);
  return {from_e8m0_halved(vmovl_u16(vget_low_u16(low))), from_e8m0_halved(vmovl_high_u16(low)),
          from_e8m0_halved(vmovl_u16(vget_low_u16(high))), from_e8m0_halved(vmovl_high_u16(high))};
}
static inline void f_store_f16(uint8_t* p, const Floats& x) {
  vst1q_u8(p, vreinterpretq_u8_f16(vcvt_high_f16_f32(vcvt_f16_f32(x.a), x.b)));
  vst1q_u8(p + 16, vreinterpretq_u8_f16(vcvt_high_f16_f32(vcvt_f16_f32(x.c), x.d)));
}
// The conversion itself would make 0 of NaN.
static inline void f_store_s8(int8_t* p, const Floats& x) {
  const Ints i = each<Ints>(
      [](auto lanes) {
        const float32x4_t rounded = vrndnq_f32(lanes);
        return vbslq_s32(vcaleq_f32(rounded, vdupq_n_f32(127)), vcvtq_s32_f32(rounded),
                         vdupq_n_s32(-128));
      },
      x);
  const int16x8_t low = vmovn_high_s32(vmovn_s32(i.a), i.b);
  const int16x8_t high = vmovn_high_s32(vmovn_s32(i.c), i.d);
  vst1q_s8(p, vmovn_high_s16(vmovn_s16(low), high));
}

// The sum of sixteen signed bytes.
static inline int32_t sum_bytes16(const int8_t* p) { return vaddlvq_s8(vld1q_s8(p)); }

static inline Ints i_set1(int32_t x) {
  const int32x4_t v = vdupq_n_s32(x);
  return {v, v, v, v};
}
static inline Ints i_zero() { return i_set1(0); }
static inline Ints i_add(const Ints& x, const Ints& y) {
  return each<Ints>([](auto p, auto q) { return vaddq_s32(p, q); }, x, y);
}
static inline Ints i_sub(const Ints& x, const Ints& y) {
  return each<Ints>([](auto p, auto q) { return vsubq_s32(p, q); }, x, y);
}
template <int kBits>
static inline Ints i_shl(const Ints& x) {
  return each<Ints>([](auto p) { return vshlq_n_s32(p, kBits); }, x);
}
static inline Floats i_to_f(const Ints& x) {
  return each<Floats>([](auto p) { return vcvtq_f32_s32(p); }, x);
}

static inline Bytes b_load(const uint8_t* p) {
  return from_lanes<Bytes>([p](int i) { return vld1q_u8(p + 4 * i); });
}
static inline void b_store(uint8_t* p, const Bytes& x) {
  vst1q_u8(p, x.a), vst1q_u8(p + 16, x.b), vst1q_u8(p + 32, x.c), vst1q_u8(p + 48, x.d);
}
static inline Bytes b_and(const Bytes& x, uint8_t mask) {
  return each<Bytes>([mask](auto p) { return vandq_u8(p, vdupq_n_u8(mask)); }, x);
}
static inline Bytes b_or(const Bytes& x, const Bytes& y) {
  return each<Bytes>([](auto p, auto q) { return vorrq_u8(p, q); }, x, y);
}
template <int kBits>
static inline Bytes b_shr(const Bytes& x) {
  return each<Bytes>([](auto p) { return vshrq_n_u8(p, kBits); }, x);
}
template <int kBits>
static inline Bytes b_shl(const Bytes& x) {
  return each<Bytes>([](auto p) { return vshlq_n_u8(p, kBits); }, x);
}
static inline Bytes b_lookup(const uint8_t* table, const Bytes& x) {
  const uint8x16_t t = vld1q_u8(table);
  return each<Bytes>([t](auto p) { return vqtbl1q_u8(t, p); }, x);
}
using SignedBytes = Bytes;
static inline SignedBytes b_signed(const Bytes& x) { return x; }

static inline Parts p_zero() { return i_zero(); }
static inline Parts p_dot(const Parts& sum, const Bytes& w, const int8_t* quad) {
  int32_t four;
  std::memcpy(&four, quad, 4);
  const int8x16_t q = vreinterpretq_s8_s32(vdupq_n_s32(four));
  return each<Parts>(
      [q](auto s, auto p) { return vdotq_s32(s, vreinterpretq_s8_u8(p), q); }, sum, w);
}
static inline Parts p_dot_signed(const Parts& sum, const SignedBytes& w, const int8_t* quad) {
  return p_dot(sum, w, quad);
}
static inline Ints p_added(const Ints& sum, const Parts& p) { return i_add(sum, p); }
static inline Ints p_scaled(const Ints& sum, const Parts& p, const Scales& scale) {
  return each<Ints>([](auto s, auto x, auto y) { return vmlaq_s32(s, x, y); }, sum, p, scale);
}

static inline Pairs s_load(const uint8_t* p) {
  const int8x16x2_t x = vld2q_s8(reinterpret_cast<const int8_t*>(p));
  return {{vmovl_s8(vget_low_s8(x.val[0])), vmovl_high_s8(x.val[0])},
          {vmovl_s8(vget_low_s8(x.val[1])), vmovl_high_s8(x.val[1])}};
}
static inline Scales widened(const int16x8_t (&x)[2]) {
  return {vmovl_s16(vget_low_s16(x[0])), vmovl_high_s16(x[0]), vmovl_s16(vget_low_s16(x[1])),
          vmovl_high_s16(x[1])};
}
static inline Scales s_first(const Pairs& x) { return widened(x.first); }
static inline Scales s_second(const Pairs& x) { return widened(x.second); }
// sum + x · factor for sixteen int16.
static inline Ints s_added(const Ints& sum, const int16x8_t (&x)[2], int16_t factor) {
  return {vmlal_n_s16(sum.a, vget_low_s16(x[0]), factor), vmlal_high_n_s16(sum.b, x[0], factor),
          vmlal_n_s16(sum.c, vget_low_s16(x[1]), factor), vmlal_high_n_s16(sum.d, x[1], factor)};
}
static inline Ints s_dot(const Ints& sum, const Pairs& x, const int16_t* pair) {
  return s_added(s_added(sum, x.first, pair[0]), x.second, pair[1]);
}

}  // namespace rocmforge::ROCMFORGE_LANES
