// What decides a token besides the logits, and what sampling passes around.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace rocmforge {

// A token of prompt or output; count is how often it was generated (0: only in the prompt).
struct HistoryToken {
  int32_t id;
  int32_t count;
};

struct TokenBias {
  int32_t id;
  float bias;
};

struct SampleParams {
  double temperature = 1.0;
  double top_p = 1.0;
  double min_p = 0.0;
  double repetition_penalty = 1.0;
  double presence_penalty = 0.0;
  double frequency_penalty = 0.0;
  int64_t top_k = 0;
  int32_t n_logprobs = -1;  // -1: none; k: the sampled token's and the k likeliest
  uint64_t seed = 0;
  uint32_t choice = 0;
  uint64_t position = 0;
  std::span<const HistoryToken> history;
  std::span<const TokenBias> biases;
  std::span<const int32_t> suppressed;
};

struct RankedToken {
  int32_t id;
  float logit;
};

// Likelier tokens first; equal ones by id.
inline bool ranks_before(const RankedToken& a, const RankedToken& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

// Memory for the weights of candidates, blocks and buckets, reused from row to row.
struct WeightScratch {
  std::vector<double> weights;
  std::vector<float> block_weights;
  std::vector<float> block_sums;
  std::vector<float> token_weights;
  std::vector<double> masses;
};

}  // namespace rocmforge
