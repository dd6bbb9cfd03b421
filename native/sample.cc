#include "sample.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "philox.h"

namespace rocmforge {
namespace {

constexpr float kNegInf = -std::numeric_limits<float>::infinity();

bool ranks_before(const RankedToken& a, const RankedToken& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

// Exponent bits all set: infinity or NaN. Summed as integers so that the loop vectorises.
bool all_finite(std::span<const float> row) {
  uint32_t bad = 0;
  for (const float value : row) bad |= static_cast<uint32_t>(!(std::fabs(value) < INFINITY));
  return bad == 0;
}

size_t argmax(std::span<const float> row) {
  size_t best = 0;
  for (size_t i = 1; i < row.size(); ++i) {
    if (row[i] > row[best]) best = i;
  }
  return best;
}

double log_sum_exp(std::span<const float> row) {
  const double peak = row[argmax(row)];
  double sum = 0.0;
  for (const float value : row) sum += std::exp(static_cast<double>(value) - peak);
  return peak + std::log(sum);
}

void edit_logits(const SampleParams& params, std::span<float> logits) {
  for (const HistoryToken& seen : params.history) {
    double value = logits[seen.id];
    value = value > 0 ? value / params.repetition_penalty : value * params.repetition_penalty;
    value -= params.frequency_penalty * seen.count;
    if (seen.count > 0) value -= params.presence_penalty;
    logits[seen.id] = static_cast<float>(value);
  }
  for (const TokenBias& bias : params.biases) logits[bias.id] += bias.bias;
  for (const int32_t id : params.suppressed) logits[id] = kNegInf;
}

bool has_edits(const SampleParams& params) {
  return !params.history.empty() || !params.biases.empty() || !params.suppressed.empty();
}

// Draws an index in proportion to `weights`; `total` is their sum in the same order.
size_t draw(std::span<const double> weights, double total, const SampleParams& params) {
  const double target = total * philox_uniform(params.seed, params.choice, params.position, 0);
  double cumulative = 0.0;
  size_t last = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    if (weights[i] <= 0.0) continue;
    cumulative += weights[i];
    last = i;
    if (cumulative > target) return i;
  }
  return last;  // rounding left the target at the very end
}

// exp((logit - peak) / temperature) of every candidate; returns their sum in order.
double fill_weights(std::span<const RankedToken> candidates, double peak, double temperature,
                    std::vector<double>& weights) {
  weights.resize(candidates.size());
  double total = 0.0;
  for (size_t i = 0; i < candidates.size(); ++i) {
    weights[i] = std::exp((static_cast<double>(candidates[i].logit) - peak) / temperature);
    total += weights[i];
  }
  return total;
}

// Brings the likeliest candidates to the front in order, just as many as hold `share` of `total`, and returns
// how many. Sorts in growing prefixes: the nucleus is nearly always far smaller than the vocabulary.
size_t nucleus(std::vector<RankedToken>& candidates, double share, double total, double peak,
               double temperature) {
  double cumulative = 0.0;
  size_t sorted = 0;
  for (size_t want = 64; sorted < candidates.size(); want *= 8) {
    const size_t end = std::min(want, candidates.size());
    const auto first = candidates.begin();
    if (end < candidates.size()) {
      std::nth_element(first + static_cast<ptrdiff_t>(sorted), first + static_cast<ptrdiff_t>(end),
                       candidates.end(), ranks_before);
    }
    std::sort(first + static_cast<ptrdiff_t>(sorted), first + static_cast<ptrdiff_t>(end),
              ranks_before);
    for (; sorted < end; ++sorted) {
      cumulative += std::exp((static_cast<double>(candidates[sorted].logit) - peak) / temperature);
      if (cumulative >= share * total) return sorted + 1;
    }
  }
  return candidates.size();
}

// Candidates in id order: everything that is not suppressed.
void collect(std::span<const float> logits, std::vector<RankedToken>& candidates) {
  candidates.clear();
  candidates.reserve(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] > kNegInf) candidates.push_back({static_cast<int32_t>(i), logits[i]});
  }
}

void keep_top_k(std::vector<RankedToken>& candidates, int64_t top_k) {
  if (top_k <= 0 || static_cast<size_t>(top_k) >= candidates.size()) return;
  std::nth_element(candidates.begin(), candidates.begin() + top_k, candidates.end(), ranks_before);
  candidates.resize(static_cast<size_t>(top_k));
  std::sort(candidates.begin(), candidates.end(), ranks_before);
}

int32_t sample_candidates(std::span<const float> logits, const SampleParams& params,
                          SampleScratch& scratch) {
  auto& candidates = scratch.candidates;
  const double peak = logits[argmax(logits)];
  const double temperature = params.temperature;
  collect(logits, candidates);
  keep_top_k(candidates, params.top_k);
  if (params.top_p < 1.0) {
    const double total = fill_weights(candidates, peak, temperature, scratch.weights);
    candidates.resize(nucleus(candidates, params.top_p, total, peak, temperature));
  }
  if (params.min_p > 0.0) {
    // In logits: p / p_max >= min_p  <=>  (logit - peak) / temperature >= log(min_p).
    const double floor = std::log(params.min_p);
    std::erase_if(candidates, [&](const RankedToken& c) {
      return (static_cast<double>(c.logit) - peak) / temperature < floor;
    });
  }
  const double total = fill_weights(candidates, peak, temperature, scratch.weights);
  return candidates[draw(scratch.weights, total, params)].id;
}

void rank_top(std::span<const float> raw, size_t n, double log_total, SampleScratch& scratch,
              TopLogprobs& top) {
  auto& all = scratch.candidates;
  collect(raw, all);
  n = std::min(n, all.size());
  std::partial_sort(all.begin(), all.begin() + static_cast<ptrdiff_t>(n), all.end(), ranks_before);
  top.tokens.assign(all.begin(), all.begin() + static_cast<ptrdiff_t>(n));
  top.logprobs.clear();
  for (const RankedToken& token : top.tokens) {
    top.logprobs.push_back(static_cast<double>(token.logit) - log_total);
  }
}

}  // namespace

SampleResult sample_row(std::span<const float> raw, const SampleParams& params,
                        SampleScratch& scratch, TopLogprobs& top) {
  SampleResult result;
  top.tokens.clear();
  top.logprobs.clear();
  if (!all_finite(raw)) {
    result.status = SampleStatus::kNotFinite;
    return result;
  }
  std::span<const float> logits = raw;
  if (has_edits(params)) {
    scratch.logits.assign(raw.begin(), raw.end());
    edit_logits(params, scratch.logits);
    logits = scratch.logits;
  }
  const size_t best = argmax(logits);
  if (logits[best] == kNegInf) {
    result.status = SampleStatus::kNoCandidate;
    return result;
  }
  result.token = params.temperature == 0.0 ? static_cast<int32_t>(best)
                                           : sample_candidates(logits, params, scratch);
  if (params.n_logprobs >= 0) {
    const double log_total = log_sum_exp(raw);
    result.logprob = static_cast<double>(raw[result.token]) - log_total;
    rank_top(raw, static_cast<size_t>(params.n_logprobs), log_total, scratch, top);
  }
  return result;
}

}  // namespace rocmforge
