// Choosing the next token of one row of logits.
//
// Order (that of vLLM and transformers): repetition penalty, presence and frequency penalty, bias, suppression,
// temperature, top-k, top-p, min-p, draw. Temperature 0 takes the argmax after suppression. Equal logits are
// ordered by token id, so the result is a pure function of the row and its parameters.
#pragma once

#include <cstddef>
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

enum class SampleStatus : int32_t { kOk = 0, kNotFinite = 1, kNoCandidate = 2 };

struct RankedToken {
  int32_t id;
  float logit;
};

struct SampleResult {
  SampleStatus status = SampleStatus::kOk;
  int32_t token = -1;
  double logprob = 0.0;
};

// Memory that is reused from row to row.
class SampleScratch {
 public:
  std::vector<float> logits;
  std::vector<RankedToken> candidates;
  std::vector<double> weights;
};

// `top` receives min(n_logprobs, n_vocab) tokens by falling raw logit, and their log-probabilities; the ids in
// `params` are below n_vocab (the binding checks).
struct TopLogprobs {
  std::vector<RankedToken> tokens;
  std::vector<double> logprobs;
};

SampleResult sample_row(std::span<const float> raw, const SampleParams& params,
                        SampleScratch& scratch, TopLogprobs& top);

}  // namespace rocmforge
