// One row of logits in blocks, with the request's edits (penalties, biases, suppression) laid over it.
// A block that is edited is copied when it is read: few are, and the rest of the row stays untouched.
#pragma once

#include <algorithm>
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

  int64_t block_size(int64_t b) const { return std::min(kSampleBlock, n_vocab() - b * kSampleBlock); }
  // Valid until the next call: a copy may move.
  std::span<const float> block(int64_t b);
  // The largest logit of each block; -infinity where all are suppressed.
  const std::vector<float>& maxima() const { return maxima_; }
  float peak() const { return peak_; }
  // The lowest id of the largest logit.
  int32_t argmax();

  // A logit that at least n logits are not below, and not many more; n is from 1 to n_blocks.
  float floor_of_top(int64_t n);
  // All candidates whose logit is at least `floor`, by id.
  void collect(float floor, std::vector<RankedToken>& candidates);
  // Each block's sum of weights relative to its own maximum, or an upper bound (SampleKernels::sums
  // and coarse_sums).
  void block_sums(float scale, std::vector<float>& sums) { sum_blocks(kernels_->sums, scale, sums); }
  void coarse_sums(float scale, std::vector<float>& sums) {
    sum_blocks(kernels_->coarse_sums, scale, sums);
  }

 private:
  struct Edit {
    int32_t id;
    float logit;
    int32_t next;  // another edit of the same block, or kNone
  };
  // What is known of the edits of a block.
  struct Overlay {
    int32_t edits = kNone;  // the first
    int32_t copy = kNone;   // its place in copies_
  };

  void sum_blocks(decltype(SampleKernels::sums) kernel, float scale, std::vector<float>& sums);
  void edit(const SampleParams& params);
  float& edited(int32_t id);
  void update_maxima();

  std::span<const float> raw_;
  const SampleKernels* kernels_ = nullptr;
  int64_t n_candidates_ = 0;
  float peak_ = 0.0f;
  std::vector<float> maxima_;
  std::vector<float> ranked_;  // room for floor_of_top
  std::vector<Overlay> overlays_;  // per block
  std::vector<Edit> edits_;
  std::vector<float> copies_;  // kSampleBlock floats each
  int32_t n_copies_ = 0;

  static constexpr int32_t kNone = -1;
};

}  // namespace rocmforge
