// Choosing the next token of one row of logits.
//
// Order (that of vLLM and transformers): repetition penalty, presence and frequency penalty, bias, suppression,
// temperature, top-k, top-p, min-p, draw. Temperature 0 takes the argmax after suppression. Equal logits are
// ordered by token id, so the result is a pure function of the row and its parameters.
//
// A vocabulary is large and what can be drawn is small, so a row is read once, for the maximum of every
// block (blocked_row.h); these maxima bound what has to be looked at again.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "blocked_row.h"
#include "sample_kernels.h"
#include "sample_params.h"

namespace rocmforge {

enum class SampleStatus : int32_t { kOk = 0, kNotFinite = 1, kNoCandidate = 2 };

struct SampleResult {
  SampleStatus status = SampleStatus::kOk;
  int32_t token = -1;
  double logprob = 0.0;
};

// Memory that is reused from row to row.
struct SampleScratch {
  BlockedRow row;
  std::vector<RankedToken> candidates;
  WeightScratch weights;
};

// `top` receives min(n_logprobs, n_vocab) tokens by falling raw logit, and their log-probabilities; the ids in
// `params` are below n_vocab (the binding checks).
struct TopLogprobs {
  std::vector<RankedToken> tokens;
  std::vector<double> logprobs;
};

SampleResult sample_row(std::span<const float> raw, const SampleParams& params,
                        const SampleKernels& kernels, SampleScratch& scratch, TopLogprobs& top);

}  // namespace rocmforge
