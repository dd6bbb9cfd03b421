// Philox4x32-10: a counter-based random generator (Salmon, Moraes, Dror, Shaw: "Parallel random numbers:
// as easy as 1, 2, 3", SC 2011). A draw is a pure function of (key, counter), so a token's noise depends on
// its request's seed and its position, never on what was drawn before.
#pragma once

#include <array>
#include <cstdint>

namespace rocmforge {

using PhiloxBlock = std::array<uint32_t, 4>;

inline PhiloxBlock philox4x32_10(PhiloxBlock counter, uint32_t key0, uint32_t key1) {
  constexpr uint32_t kMul0 = 0xD2511F53u, kMul1 = 0xCD9E8D57u;
  constexpr uint32_t kWeyl0 = 0x9E3779B9u, kWeyl1 = 0xBB67AE85u;
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{kMul0} * counter[0];
    const uint64_t p1 = uint64_t{kMul1} * counter[2];
    counter = {static_cast<uint32_t>(p1 >> 32) ^ counter[1] ^ key0, static_cast<uint32_t>(p1),
               static_cast<uint32_t>(p0 >> 32) ^ counter[3] ^ key1, static_cast<uint32_t>(p0)};
    key0 += kWeyl0;
    key1 += kWeyl1;
  }
  return counter;
}

// The random words of draw `draw` at `position` of choice `choice`. 24 bits of draws per position are
// plenty; positions keep 40 bits.
inline PhiloxBlock philox_words(uint64_t seed, uint32_t choice, uint64_t position, uint32_t draw) {
  const PhiloxBlock counter = {static_cast<uint32_t>(position),
                               static_cast<uint32_t>(position >> 32) | (draw << 8), choice, 0};
  return philox4x32_10(counter, static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32));
}

// Uniform in [0, 1) with 53 random bits.
inline double uniform(uint32_t high, uint32_t low) {
  return static_cast<double>(((uint64_t{high} << 32) | low) >> 11) * 0x1.0p-53;
}

inline double philox_uniform(uint64_t seed, uint32_t choice, uint64_t position, uint32_t draw) {
  const PhiloxBlock words = philox_words(seed, choice, position, draw);
  return uniform(words[0], words[1]);
}

}  // namespace rocmforge
