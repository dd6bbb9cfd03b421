// Eight float lanes in portable C++ for the sampler; sample_lanes_avx2.h has the same operations in
// AVX2, with the same bits.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace rocmforge::scalar {

struct F8 {
  float v[8];
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
// As maxps and minps: the second operand when either is NaN.
ROCMFORGE_F8_OP(f8_max, a.v[i] > b.v[i] ? a.v[i] : b.v[i])
#undef ROCMFORGE_F8_OP
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

}  // namespace rocmforge::scalar
