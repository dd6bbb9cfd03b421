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
  overlays_.assign(n_blocks, Overlay{});
  edits_.clear();
  n_copies_ = 0;
  edit(params);
  update_maxima();
  peak_ = *std::max_element(maxima_.begin(), maxima_.end());
  return true;
}

std::span<const float> BlockedRow::block(int64_t b) {
  Overlay& overlay = overlays_[static_cast<size_t>(b)];
  const auto size = static_cast<size_t>(block_size(b));
  const std::span<const float> raw = raw_.subspan(static_cast<size_t>(b * kSampleBlock), size);
  if (overlay.edits == kNone) return raw;
  if (overlay.copy != kNone) return {&copies_[static_cast<size_t>(overlay.copy) * kSampleBlock], size};
  overlay.copy = n_copies_++;
  const size_t at = static_cast<size_t>(overlay.copy) * kSampleBlock;
  if (copies_.size() < at + kSampleBlock) copies_.resize(at + kSampleBlock);
  float* copy = &copies_[at];
  std::copy(raw.begin(), raw.end(), copy);
  for (int32_t e = overlay.edits; e != kNone; e = edits_[static_cast<size_t>(e)].next) {
    const Edit& edit = edits_[static_cast<size_t>(e)];
    copy[edit.id % kSampleBlock] = edit.logit;
  }
  return {copy, size};
}

float& BlockedRow::edited(int32_t id) {
  Overlay& overlay = overlays_[static_cast<size_t>(id / kSampleBlock)];
  for (int32_t e = overlay.edits; e != kNone; e = edits_[static_cast<size_t>(e)].next) {
    Edit& edit = edits_[static_cast<size_t>(e)];
    if (edit.id == id) return edit.logit;
  }
  edits_.push_back({id, raw_[static_cast<size_t>(id)], overlay.edits});
  overlay.edits = static_cast<int32_t>(edits_.size()) - 1;
  return edits_.back().logit;
}

void BlockedRow::edit(const SampleParams& params) {
  for (const HistoryToken& seen : params.history) {
    float& logit = edited(seen.id);
    logit = penalized(logit, seen, params);
  }
  for (const TokenBias& bias : params.biases) {
    float& logit = edited(bias.id);
    logit = finite(static_cast<double>(logit) + bias.bias);
  }
  for (const int32_t id : params.suppressed) {
    float& logit = edited(id);
    n_candidates_ -= logit > kNegInf ? 1 : 0;
    logit = kNegInf;
  }
}

void BlockedRow::update_maxima() {
  for (const Edit& edit : edits_) {
    const int64_t b = edit.id / kSampleBlock;
    float& maximum = maxima_[static_cast<size_t>(b)];
    // A block is searched again when a token at its maximum has sunk. Its maximum is then right for
    // all of its edits, and those after this one find nothing to do but search again.
    if (edit.logit < maximum && raw_[static_cast<size_t>(edit.id)] >= maximum) {
      kernels_->maxima(block(b).data(), block_size(b), &maximum);
    }
    maximum = std::max(maximum, edit.logit);
  }
}

int32_t BlockedRow::argmax() {
  const int64_t b = std::max_element(maxima_.begin(), maxima_.end()) - maxima_.begin();
  int32_t places[kSampleBlock];
  const std::span<const float> values = block(b);
  kernels_->at_least(values.data(), static_cast<int64_t>(values.size()), peak_, places);
  return static_cast<int32_t>(b * kSampleBlock) + places[0];
}

float BlockedRow::floor_of_top(int64_t n) {
  // The n-th largest maximum of groups of blocks: each of n groups has a logit that is not below it.
  // Four blocks to a group are ranked in a third of the time of single ones, and for n up to a third
  // of the groups they let hardly more logits through.
  const size_t group = 11 * n <= n_blocks() ? 4 : 1;
  ranked_.clear();
  for (size_t b = 0; b < maxima_.size(); b += group) {
    const auto first = maxima_.begin() + static_cast<ptrdiff_t>(b);
    const size_t size = std::min(group, maxima_.size() - b);
    ranked_.push_back(*std::max_element(first, first + static_cast<ptrdiff_t>(size)));
  }
  const auto nth = ranked_.begin() + (n - 1);
  std::nth_element(ranked_.begin(), nth, ranked_.end(), std::greater<>());
  return *nth;
}

void BlockedRow::collect(float floor, std::vector<RankedToken>& candidates) {
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

void BlockedRow::sum_blocks(decltype(SampleKernels::sums) kernel, float scale,
                            std::vector<float>& sums) {
  sums.resize(maxima_.size());
  const auto sum = [&](int64_t b, const float* values, int64_t n) {
    kernel(values, n, maxima_.data() + b, scale, sums.data() + b);
  };
  // Neighbours without edits lie in one piece.
  int64_t b = 0;
  while (b < n_blocks()) {
    int64_t end = b;
    while (end < n_blocks() && overlays_[static_cast<size_t>(end)].edits == kNone) ++end;
    if (end == b) {
      sum(b, block(b).data(), block_size(b));
      ++b;
      continue;
    }
    sum(b, block(b).data(), std::min(end * kSampleBlock, n_vocab()) - b * kSampleBlock);
    b = end;
  }
}

}  // namespace rocmforge
