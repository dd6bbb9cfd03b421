// Half-precision conversions, exact and without hardware support; the AVX2 lanes use F16C for the
// same. Everything here has internal linkage: files compiled for different ISAs include it, and the
// linker must not pick one's code for another.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

namespace rocmforge {

// IEEE binary16 → binary32, subnormals, infinities and NaN included.
static inline float f16_to_f32(uint16_t h) {
  const uint32_t sign = uint32_t{h & 0x8000u} << 16;
  const uint32_t magnitude = h & 0x7FFFu;
  if (magnitude < 0x0400u) {  // zero or subnormal: magnitude · 2^-24 is exact
    const float value = static_cast<float>(magnitude) * 0x1.0p-24f;
    return std::bit_cast<float>(std::bit_cast<uint32_t>(value) | sign);
  }
  if (magnitude >= 0x7C00u) {  // infinity or NaN; NaN made quiet, as the hardware does
    const uint32_t quiet = magnitude > 0x7C00u ? 0x00400000u : 0u;
    return std::bit_cast<float>(sign | 0x7F800000u | (magnitude << 13) | quiet);
  }
  return std::bit_cast<float>(sign | ((magnitude << 13) + (112u << 23)));
}

// binary32 → binary16, round to nearest even.
static inline uint16_t f32_to_f16(float f) {
  const uint32_t bits = std::bit_cast<uint32_t>(f);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) {
    return sign | 0x7E00u | static_cast<uint16_t>((magnitude >> 13) & 0x1FFu);
  }
  if (magnitude >= 0x477FF000u) return sign | 0x7C00u;  // rounds to infinity
  if (magnitude < 0x38800000u) {  // subnormal: adding 0.5 leaves the rounded value in the low bits
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return sign | static_cast<uint16_t>(std::bit_cast<uint32_t>(shifted) - 0x3F000000u);
  }
  const uint32_t odd = (magnitude >> 13) & 1u;
  return sign | static_cast<uint16_t>((magnitude - (112u << 23) + 0x0FFFu + odd) >> 13);
}

static inline float bf16_to_f32(uint16_t h) { return std::bit_cast<float>(uint32_t{h} << 16); }

// MXFP4's scale: an E8M0 exponent, halved because its table holds twice the values: 2^(e - 128).
static inline float e8m0_halved_to_f32(uint8_t e) {
  return std::bit_cast<float>(e < 2 ? 0x00200000u << e : (uint32_t{e} - 1u) << 23);
}

// Unaligned loads of a packed format's fields.
template <typename T>
static inline T load(const uint8_t* p) {
  T value;
  std::memcpy(&value, p, sizeof(T));
  return value;
}

}  // namespace rocmforge
