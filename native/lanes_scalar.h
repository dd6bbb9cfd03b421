// Eight 32-bit lanes in portable C++; lanes_avx2.h has the same operations in AVX2. A kernel written
// against these gives the same bits with either, because every operation is exact or rounds as IEEE
// says.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "numeric.h"

namespace rocmforge::scalar {

struct F8 {  // float x 8
  float v[8];
};
struct I8 {  // int32 x 8
  int32_t v[8];
};
struct H16 {  // int16 x 16
  int16_t v[16];
};
struct B32 {  // byte x 32
  uint8_t v[32];
};

static inline F8 f8_load(const float* p) {
  F8 r;
  std::memcpy(r.v, p, 32);
  return r;
}
static inline void f8_store(float* p, const F8& a) { std::memcpy(p, a.v, 32); }
static inline F8 f8_set1(float x) {
  F8 r;
  for (float& lane : r.v) lane = x;
  return r;
}
#define ROCMFORGE_F8_OP(name, expression)                      \
  static inline F8 name(const F8& a, const F8& b) {                   \
    F8 r;                                                      \
    for (int i = 0; i < 8; ++i) r.v[i] = (expression);         \
    return r;                                                  \
  }
ROCMFORGE_F8_OP(f8_add, a.v[i] + b.v[i])
ROCMFORGE_F8_OP(f8_sub, a.v[i] - b.v[i])
ROCMFORGE_F8_OP(f8_mul, a.v[i] * b.v[i])
ROCMFORGE_F8_OP(f8_div, a.v[i] / b.v[i])
// As maxps and minps: the second operand when either is NaN.
ROCMFORGE_F8_OP(f8_max, a.v[i] > b.v[i] ? a.v[i] : b.v[i])
ROCMFORGE_F8_OP(f8_min, a.v[i] < b.v[i] ? a.v[i] : b.v[i])
#undef ROCMFORGE_F8_OP
static inline F8 f8_abs(const F8& a) {
  F8 r;
  for (int i = 0; i < 8; ++i) r.v[i] = std::fabs(a.v[i]);
  return r;
}
static inline F8 f8_round(const F8& a) {  // nearest, ties to even
  F8 r;
  for (int i = 0; i < 8; ++i) r.v[i] = std::nearbyint(a.v[i]);
  return r;
}
// 2^n for integral lanes n in [-126, 127].
static inline F8 f8_exp2_int(const F8& n) {
  F8 r;
  for (int i = 0; i < 8; ++i) {
    r.v[i] = std::bit_cast<float>(static_cast<uint32_t>(static_cast<int32_t>(n.v[i]) + 127) << 23);
  }
  return r;
}
// 2^n · (1 + f) for t = n + f in [-126, 0], n integral, f in [0, 1): from 2^t to 1.0615 · 2^t.
static inline F8 f8_exp2_linear(const F8& t) {
  F8 r;
  for (int i = 0; i < 8; ++i) {
    const int32_t units = static_cast<int32_t>(std::nearbyint(t.v[i] * 0x1.0p23f));
    r.v[i] = std::bit_cast<float>(units + (127 << 23));
  }
  return r;
}
// a where x < limit is false, 0 where it is true.
static inline F8 f8_zero_below(const F8& a, const F8& x, const F8& limit) {
  F8 r;
  for (int i = 0; i < 8; ++i) r.v[i] = x.v[i] < limit.v[i] ? 0.0f : a.v[i];
  return r;
}
// Bit i is set where a[i] >= limit[i].
static inline uint32_t f8_at_least(const F8& a, const F8& limit) {
  uint32_t mask = 0;
  for (int i = 0; i < 8; ++i) mask |= static_cast<uint32_t>(a.v[i] >= limit.v[i]) << i;
  return mask;
}
static inline F8 f8_from_f16(const uint8_t* p) {
  F8 r;
  for (int i = 0; i < 8; ++i) r.v[i] = f16_to_f32(load<uint16_t>(p + 2 * i));
  return r;
}
static inline F8 f8_from_bf16(const uint8_t* p) {
  F8 r;
  for (int i = 0; i < 8; ++i) r.v[i] = bf16_to_f32(load<uint16_t>(p + 2 * i));
  return r;
}
static inline void f8_store_f16(uint8_t* p, const F8& a) {
  for (int i = 0; i < 8; ++i) {
    const uint16_t h = f32_to_f16(a.v[i]);
    std::memcpy(p + 2 * i, &h, 2);
  }
}

static inline I8 i8_zero() { return I8{}; }
static inline I8 i8_set1(int32_t x) {
  I8 r;
  for (int32_t& lane : r.v) lane = x;
  return r;
}
static inline I8 i8_add(const I8& a, const I8& b) {
  I8 r;
  for (int i = 0; i < 8; ++i) r.v[i] = a.v[i] + b.v[i];
  return r;
}
static inline I8 i8_sub(const I8& a, const I8& b) {
  I8 r;
  for (int i = 0; i < 8; ++i) r.v[i] = a.v[i] - b.v[i];
  return r;
}
static inline I8 i8_mul(const I8& a, const I8& b) {
  I8 r;
  for (int i = 0; i < 8; ++i) r.v[i] = a.v[i] * b.v[i];
  return r;
}
static inline F8 i8_to_f8(const I8& a) {
  F8 r;
  for (int i = 0; i < 8; ++i) r.v[i] = static_cast<float>(a.v[i]);
  return r;
}
static inline I8 i8_from_u8(const uint8_t* p) {
  I8 r;
  for (int i = 0; i < 8; ++i) r.v[i] = p[i];
  return r;
}
static inline I8 i8_from_s8(const uint8_t* p) {
  I8 r;
  for (int i = 0; i < 8; ++i) r.v[i] = static_cast<int8_t>(p[i]);
  return r;
}
// Rounded lanes in [-127, 127] as bytes.
static inline void f8_store_s8(int8_t* p, const F8& a) {
  for (int i = 0; i < 8; ++i) {
    const float x = std::nearbyint(a.v[i]);
    p[i] = static_cast<int8_t>(x >= -127.0f && x <= 127.0f ? x : -128.0f);
  }
}

static inline B32 b32_load(const uint8_t* p) {
  B32 r;
  std::memcpy(r.v, p, 32);
  return r;
}
// Four activation bytes, repeated for all eight rows.
static inline B32 b32_quad(const int8_t* p) {
  B32 r;
  for (int i = 0; i < 32; i += 4) std::memcpy(r.v + i, p, 4);
  return r;
}
static inline B32 b32_and(const B32& a, uint8_t mask) {
  B32 r;
  for (int i = 0; i < 32; ++i) r.v[i] = a.v[i] & mask;
  return r;
}
static inline B32 b32_or(const B32& a, const B32& b) {
  B32 r;
  for (int i = 0; i < 32; ++i) r.v[i] = a.v[i] | b.v[i];
  return r;
}
template <int kBits>
static inline B32 b32_shr(const B32& a) {
  B32 r;
  for (int i = 0; i < 32; ++i) r.v[i] = static_cast<uint8_t>(a.v[i] >> kBits);
  return r;
}
template <int kBits>
static inline B32 b32_shl(const B32& a) {
  B32 r;
  for (int i = 0; i < 32; ++i) r.v[i] = static_cast<uint8_t>(a.v[i] << kBits);
  return r;
}
static inline B32 b32_abs(const B32& a) {
  B32 r;
  for (int i = 0; i < 32; ++i) r.v[i] = static_cast<uint8_t>(std::abs(static_cast<int8_t>(a.v[i])));
  return r;
}
// a with the sign of b (0 where b is 0).
static inline B32 b32_sign(const B32& a, const B32& b) {
  B32 r;
  for (int i = 0; i < 32; ++i) {
    const int s = static_cast<int8_t>(b.v[i]);
    const int x = static_cast<int8_t>(a.v[i]);
    r.v[i] = static_cast<uint8_t>(s > 0 ? x : s < 0 ? -x : 0);
  }
  return r;
}

static inline H16 h16_zero() { return H16{}; }
static inline H16 h16_add(const H16& a, const H16& b) {
  H16 r;
  for (int i = 0; i < 16; ++i) r.v[i] = static_cast<int16_t>(a.v[i] + b.v[i]);
  return r;
}
// Unsigned times signed bytes, neighbouring products added; callers keep the sums within int16.
static inline H16 h16_mul_pairs(const B32& u, const B32& s) {
  H16 r;
  for (int i = 0; i < 16; ++i) {
    r.v[i] = static_cast<int16_t>(u.v[2 * i] * static_cast<int8_t>(s.v[2 * i]) +
                                  u.v[2 * i + 1] * static_cast<int8_t>(s.v[2 * i + 1]));
  }
  return r;
}
static inline I8 i8_add_pairs(const H16& a) {
  I8 r;
  for (int i = 0; i < 8; ++i) r.v[i] = a.v[2 * i] + a.v[2 * i + 1];
  return r;
}

}  // namespace rocmforge::scalar
