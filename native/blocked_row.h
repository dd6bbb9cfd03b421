// One row of logits in blocks, with the request's edits (penalties, biases, suppression) laid over it:
// an edited block is a copy, the others are the caller's memory.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "sample_kernels.h"
#include "sample_params.h"

namespace rocmforge {

class BlockedRow {
 public:
  // Reads the row and applies the edits of `params` → whether all of its logits are finite. `raw`
  // has to outlive the use of this object. The first call for a size allocates.
  bool reset(std::span<const float> raw, const SampleParams& params, const SampleKernels& kernels);

  int64_t n_vocab() const { return static_cast<int64_t>(raw_.size()); }
  int64_t n_blocks() const { return static_cast<int64_t>(maxima_.size()); }
  // Logits that are not suppressed.
  int64_t n_candidates() const { return n_candidates_; }
  const SampleKernels& kernels() const { return *kernels_; }

  std::span<const float> block(int64_t b) const;
  // The largest logit of each block; -infinity where all are suppressed.
  const std::vector<float>& maxima() const { return maxima_; }
  float peak() const { return peak_; }
  // The lowest id of the largest logit.
  int32_t argmax() const;

  // The n-th largest of the maxima (n from 1 to n_blocks): at least n logits are not below it.
  float ranked_maximum(int64_t n);
  // All candidates whose logit is at least `floor`, by id.
  void collect(float floor, std::vector<RankedToken>& candidates) const;
  // Each block's sum of weights relative to its own maximum (SampleKernels::sums).
  void block_sums(float scale, std::vector<float>& sums) const;

 private:
  void edit(const SampleParams& params);
  float& writable(int32_t id);

  std::span<const float> raw_;
  const SampleKernels* kernels_ = nullptr;
  int64_t n_candidates_ = 0;
  float peak_ = 0.0f;
  std::vector<float> maxima_;
  std::vector<float> ranked_;      // room for ranked_maximum
  std::vector<int32_t> copy_of_;   // per block: its place in copies_, or kUnedited
  std::vector<int32_t> edited_;    // blocks that have a copy
  std::vector<float> copies_;      // kSampleBlock floats each

  static constexpr int32_t kUnedited = -1;
};

}  // namespace rocmforge
