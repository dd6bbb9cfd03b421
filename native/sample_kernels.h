// The table of sampling kernels that an ISA fills. Rows of logits are cut into blocks; every table
// gives the same bits: kernels_sample.h is compiled once per ISA.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace rocmforge {

// Logits per block. 256 is 1 KiB: a vocabulary of 152 000 has 594 maxima, which are quickly ranked,
// and the 40 or so blocks that hold the likeliest tokens are quickly searched.
constexpr int64_t kSampleBlock = 256;

// The largest of (1 + f) / 2^f for f in [0, 1].
constexpr double kCoarse = 1.0614757;

constexpr int64_t sample_blocks(int64_t n) { return (n + kSampleBlock - 1) / kSampleBlock; }

// A weight is 2^((x - peak) · scale) for x <= peak, and 0 where that is below 2^-126 or x is
// -infinity. Its relative error is below 1e-6 · (1 + |log2 weight| / 10): float arithmetic.
struct SampleKernels {
  const char* isa;
  // The largest value of each block → whether all n values are finite. -infinity is a valid value
  // for the maxima; with a NaN they mean nothing.
  bool (*maxima)(const float* x, int64_t n, float* maxima);
  // The sum of each block's weights relative to its own maximum; 0 where that is -infinity.
  void (*sums)(const float* x, int64_t n, const float* maxima, float scale, float* sums);
  // Cheap upper bounds of these sums: 1 to kCoarse times as large, but for rounding (below 1e-5).
  void (*coarse_sums)(const float* x, int64_t n, const float* maxima, float scale, float* sums);
  // n weights relative to `peak`, a finite number; `out` may be x.
  void (*weights)(const float* x, int64_t n, float peak, float scale, float* out);
  // Places of the values that are at least `floor` in one block of n, ascending → how many.
  int (*at_least)(const float* x, int64_t n, float floor, int32_t* places);
  // Σ e^(x - peak) in double precision, x and peak finite; the relative error is below 1e-14.
  double (*sum_exp)(const float* x, int64_t n, float peak);
};

const SampleKernels& scalar_sample_kernels();
#ifdef ROCMFORGE_X86
const SampleKernels& avx2_sample_kernels();
#endif

// The table for an ISA's name; for an ISA without one of its own, the best that this machine has.
const SampleKernels& sample_kernels_for(const std::string& isa);

// Whether a table agrees with the scalar one, bit for bit, on fixed inputs.
bool sample_kernels_agree(const SampleKernels& table);

}  // namespace rocmforge
