// The distinct tokens of a prompt and an output, with how often each was generated: what penalties
// touch. Grows with the output, so that a step does not count a long text again.
#pragma once

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <unordered_map>
#include <vector>

#include "sample_params.h"

namespace rocmforge {

class TokenHistory {
 public:
  // Throws std::invalid_argument for a negative id.
  void add_prompt(const std::vector<int32_t>& ids) {
    for (const int32_t id : ids) entry(id);
  }
  void add_generated(const std::vector<int32_t>& ids) {
    for (const int32_t id : ids) ++entry(id).count;
  }

  const std::vector<HistoryToken>& tokens() const { return tokens_; }
  int32_t largest_id() const { return largest_id_; }

 private:
  HistoryToken& entry(int32_t id) {
    if (id < 0) throw std::invalid_argument("token id outside the vocabulary");
    const auto [found, is_added] = places_.try_emplace(id, tokens_.size());
    if (is_added) tokens_.push_back({id, 0});
    largest_id_ = std::max(largest_id_, id);
    return tokens_[found->second];
  }

  std::vector<HistoryToken> tokens_;  // in the order of their first occurrence
  std::unordered_map<int32_t, size_t> places_;
  int32_t largest_id_ = -1;
};

}  // namespace rocmforge
