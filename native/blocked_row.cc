#include "blocked_row.h"

#include <algorithm>
#include <functional>
#include <limits>

namespace rocmforge {
namespace {

constexpr float kNegInf = -std::numeric_limits<float>::infinity();
constexpr float kLargest = std::numeric_limits<float>::max();

// An edited logit stays finite: only suppression makes it -infinity.
float finite(double value) {
  return static_cast<float>(std::clamp<double>(value, -kLargest, kLargest));
}

float penalized(float logit, const HistoryToken& seen, const SampleParams& params) {
  double value = logit;
  value = value > 0 ? value / params.repetition_penalty : value * params.repetition_penalty;
  value -= params.frequency_penalty * seen.count;
  if (seen.count > 0) value -= params.presence_penalty;
  return finite(value);
}

}  // namespace

bool BlockedRow::reset(std::span<const float> raw, const SampleParams& params,
                       const SampleKernels& kernels) {
  raw_ = raw;
  kernels_ = &kernels;
  const auto n_blocks = static_cast<size_t>(sample_blocks(n_vocab()));
  maxima_.resize(n_blocks);
  if (!kernels.maxima(raw.data(), n_vocab(), maxima_.data())) return false;
  n_candidates_ = n_vocab();
  copy_of_.assign(n_blocks, kUnedited);
  edited_.clear();
  edit(params);
  peak_ = *std::max_element(maxima_.begin(), maxima_.end());
  return true;
}

std::span<const float> BlockedRow::block(int64_t b) const {
  const auto at = static_cast<size_t>(b);
  const auto first = static_cast<size_t>(b * kSampleBlock);
  const size_t size = std::min(static_cast<size_t>(kSampleBlock), raw_.size() - first);
  const int32_t copy = copy_of_[at];
  if (copy == kUnedited) return raw_.subspan(first, size);
  return {copies_.data() + static_cast<size_t>(copy) * kSampleBlock, size};
}

float& BlockedRow::writable(int32_t id) {
  const auto b = static_cast<size_t>(id / kSampleBlock);
  if (copy_of_[b] == kUnedited) {
    const std::span<const float> from = block(static_cast<int64_t>(b));
    const size_t at = edited_.size() * kSampleBlock;
    if (copies_.size() < at + kSampleBlock) copies_.resize(at + kSampleBlock);
    std::copy(from.begin(), from.end(), copies_.begin() + static_cast<ptrdiff_t>(at));
    copy_of_[b] = static_cast<int32_t>(edited_.size());
    edited_.push_back(static_cast<int32_t>(b));
  }
  return copies_[static_cast<size_t>(copy_of_[b]) * kSampleBlock +
                 static_cast<size_t>(id % kSampleBlock)];
}

void BlockedRow::edit(const SampleParams& params) {
  for (const HistoryToken& seen : params.history) {
    float& logit = writable(seen.id);
    logit = penalized(logit, seen, params);
  }
  for (const TokenBias& bias : params.biases) {
    float& logit = writable(bias.id);
    logit = finite(static_cast<double>(logit) + bias.bias);
  }
  for (const int32_t id : params.suppressed) {
    float& logit = writable(id);
    n_candidates_ -= logit > kNegInf ? 1 : 0;
    logit = kNegInf;
  }
  for (const int32_t b : edited_) {
    const std::span<const float> values = block(b);
    kernels_->maxima(values.data(), static_cast<int64_t>(values.size()),
                     &maxima_[static_cast<size_t>(b)]);
  }
}

int32_t BlockedRow::argmax() const {
  const int64_t b = std::max_element(maxima_.begin(), maxima_.end()) - maxima_.begin();
  int32_t places[kSampleBlock];
  const std::span<const float> values = block(b);
  kernels_->at_least(values.data(), static_cast<int64_t>(values.size()), peak_, places);
  return static_cast<int32_t>(b * kSampleBlock) + places[0];
}

float BlockedRow::ranked_maximum(int64_t n) {
  ranked_ = maxima_;
  const auto nth = ranked_.begin() + (n - 1);
  std::nth_element(ranked_.begin(), nth, ranked_.end(), std::greater<>());
  return *nth;
}

void BlockedRow::collect(float floor, std::vector<RankedToken>& candidates) const {
  floor = std::max(floor, -kLargest);  // what is suppressed is no candidate
  candidates.clear();
  int32_t places[kSampleBlock];
  for (int64_t b = 0; b < n_blocks(); ++b) {
    if (maxima_[static_cast<size_t>(b)] < floor) continue;
    const std::span<const float> values = block(b);
    const int n = kernels_->at_least(values.data(), static_cast<int64_t>(values.size()), floor, places);
    for (int i = 0; i < n; ++i) {
      const int32_t place = places[i];
      candidates.push_back({static_cast<int32_t>(b * kSampleBlock) + place,
                            values[static_cast<size_t>(place)]});
    }
  }
}

void BlockedRow::block_sums(float scale, std::vector<float>& sums) const {
  sums.resize(maxima_.size());
  const auto sum = [&](int64_t b, const float* values, int64_t n) {
    kernels_->sums(values, n, maxima_.data() + b, scale, sums.data() + b);
  };
  // Neighbours without a copy lie in one piece.
  int64_t b = 0;
  while (b < n_blocks()) {
    int64_t end = b;
    while (end < n_blocks() && copy_of_[static_cast<size_t>(end)] == kUnedited) ++end;
    if (end == b) {
      sum(b, block(b).data(), static_cast<int64_t>(block(b).size()));
      ++b;
      continue;
    }
    sum(b, block(b).data(), std::min(end * kSampleBlock, n_vocab()) - b * kSampleBlock);
    b = end;
  }
}

}  // namespace rocmforge
