#include "sample.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "candidates.h"
#include "nucleus.h"
#include "softmax_draw.h"

namespace rocmforge {
namespace {

int32_t draw_token(const SampleParams& params, SampleScratch& scratch) {
  BlockedRow& row = scratch.row;
  auto& candidates = scratch.candidates;
  const double peak = row.peak();
  if (params.top_k > 0 && params.top_k < row.n_candidates()) {
    collect_top_k(row, params.top_k, candidates);
    if (params.top_p < 1.0) {
      const double total =
          fill_weights(candidates, peak, params.temperature, scratch.weights.weights);
      const double wanted = params.top_p * total;
      keep_nucleus(candidates, {wanted, wanted}, peak, params.temperature);
    }
    if (params.min_p > 0.0) keep_min_p(candidates, params.min_p, peak, params.temperature);
  } else if (params.top_p < 1.0) {
    return draw_nucleus(row, params, candidates, scratch.weights);
  } else if (params.min_p > 0.0) {
    collect_min_p(row, params.min_p, params.temperature, candidates);
  } else {
    return draw_softmax(row, params, scratch.weights);
  }
  return draw_candidate(candidates, params, peak, scratch.weights.weights);
}

// The log-probabilities of the raw row, which is laid out anew without the edits.
void rank_raw(std::span<const float> raw, const SampleParams& params, const SampleKernels& kernels,
              SampleScratch& scratch, SampleResult& result, TopLogprobs& top) {
  BlockedRow& row = scratch.row;
  row.reset(raw, SampleParams{}, kernels);
  const double peak = row.peak();
  const double log_total =
      peak + std::log(kernels.sum_exp(raw.data(), static_cast<int64_t>(raw.size()), row.peak()));
  result.logprob = static_cast<double>(raw[static_cast<size_t>(result.token)]) - log_total;
  const int64_t n = std::min<int64_t>(params.n_logprobs, row.n_vocab());
  if (n == 0) return;
  collect_top_k(row, n, top.tokens);
  for (const RankedToken& token : top.tokens) {
    top.logprobs.push_back(static_cast<double>(token.logit) - log_total);
  }
}

}  // namespace

SampleResult sample_row(std::span<const float> raw, const SampleParams& params,
                        const SampleKernels& kernels, SampleScratch& scratch, TopLogprobs& top) {
  SampleResult result;
  top.tokens.clear();
  top.logprobs.clear();
  BlockedRow& row = scratch.row;
  if (!row.reset(raw, params, kernels)) {
    result.status = SampleStatus::kNotFinite;
    return result;
  }
  if (row.n_candidates() == 0) {
    result.status = SampleStatus::kNoCandidate;
    return result;
  }
  result.token = params.temperature == 0.0 ? row.argmax() : draw_token(params, scratch);
  if (params.n_logprobs >= 0) rank_raw(raw, params, kernels, scratch, result, top);
  return result;
}

}  // namespace rocmforge
