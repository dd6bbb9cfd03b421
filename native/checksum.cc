#include "checksum.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "numeric.h"

namespace rocmforge {
namespace {

constexpr size_t kPiece = size_t{4} << 20;
// Odd, so that multiplying loses no bit; the fractional part of the golden ratio.
constexpr uint64_t kFactor = UINT64_C(0x9E3779B97F4A7C15);

uint64_t mix(uint64_t state, uint64_t word) {
  state = (state ^ word) * kFactor;
  return state ^ (state >> 29);
}

// Four chains, because each multiplication waits for the one before it.
uint64_t of_piece(const uint8_t* data, size_t bytes) {
  uint64_t chains[4] = {1, 2, 3, bytes};
  size_t i = 0;
  for (; i + 32 <= bytes; i += 32) {
    for (int c = 0; c < 4; ++c) chains[c] = mix(chains[c], load<uint64_t>(data + i + 8 * c));
  }
  for (; i < bytes; ++i) chains[0] = mix(chains[0], data[i]);
  return mix(mix(mix(chains[0], chains[1]), chains[2]), chains[3]);
}

}  // namespace

uint64_t checksum(const uint8_t* data, size_t bytes, ThreadPool& pool) {
  const size_t n_pieces = (bytes + kPiece - 1) / kPiece;
  std::vector<uint64_t> pieces(n_pieces);
  pool.for_range(static_cast<int64_t>(n_pieces), 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t p = begin; p < end; ++p) {
      const size_t first = static_cast<size_t>(p) * kPiece;
      pieces[static_cast<size_t>(p)] = of_piece(data + first, std::min(kPiece, bytes - first));
    }
  });
  uint64_t all = mix(0, bytes);
  for (const uint64_t piece : pieces) all = mix(all, piece);
  return all;
}

}  // namespace rocmforge
