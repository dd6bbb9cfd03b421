// Which sampling kernels this machine has, and whether they say what the scalar ones say.
#include "sample_kernels.h"

#include <cstring>
#include <limits>
#include <vector>

namespace rocmforge {
namespace {

// Fixed values: most between -30 and 0, every 97th -infinity, the same on every machine.
std::vector<float> fixed_row(int64_t n) {
  std::vector<float> row(static_cast<size_t>(n));
  uint32_t state = 0x9E3779B9u;
  for (size_t i = 0; i < row.size(); ++i) {
    state = state * 1664525u + 1013904223u;
    row[i] = i % 97 == 96 ? -std::numeric_limits<float>::infinity()
                          : -30.0f * static_cast<float>(state >> 8) * 0x1.0p-24f;
  }
  return row;
}

// All that a table computes from one row.
struct Results {
  std::vector<float> floats;
  std::vector<int32_t> places;
  double sum = 0.0;
  bool finite = false;

  Results(const SampleKernels& k, const std::vector<float>& row) {
    const auto n = static_cast<int64_t>(row.size());
    const auto blocks = static_cast<size_t>(sample_blocks(n));
    floats.resize(3 * blocks + row.size());
    finite = k.maxima(row.data(), n, floats.data());
    k.sums(row.data(), n, floats.data(), 1.7f, floats.data() + blocks);
    k.coarse_sums(row.data(), n, floats.data(), 1.7f, floats.data() + 2 * blocks);
    k.weights(row.data(), n, 0.0f, 0.9f, floats.data() + 3 * blocks);
    places.resize(kSampleBlock);
    places.resize(static_cast<size_t>(k.at_least(row.data(), kSampleBlock, -5.0f, places.data())));
    sum = k.sum_exp(row.data(), 95, 0.0f);
  }

  bool operator==(const Results& other) const {
    return finite == other.finite && places == other.places &&
           std::memcmp(&sum, &other.sum, sizeof sum) == 0 &&
           std::memcmp(floats.data(), other.floats.data(), 4 * floats.size()) == 0;
  }
};

}  // namespace

const SampleKernels& sample_kernels_for(const std::string& isa) {
#ifdef ROCMFORGE_X86
  if (isa != "scalar" && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c"))
    return avx2_sample_kernels();
#else
  static_cast<void>(isa);
#endif
  return scalar_sample_kernels();
}

bool sample_kernels_agree(const SampleKernels& table) {
  // Two whole blocks and one that is not, nor a whole number of vectors.
  const std::vector<float> row = fixed_row(2 * kSampleBlock + 131);
  return Results(table, row) == Results(scalar_sample_kernels(), row);
}

}  // namespace rocmforge
