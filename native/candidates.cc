#include "candidates.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "philox.h"

namespace rocmforge {
namespace {

constexpr float kLowest = std::numeric_limits<float>::lowest();

double weight_of(const RankedToken& token, double peak, double temperature) {
  return std::exp((static_cast<double>(token.logit) - peak) / temperature);
}

// In logits: p / p_max >= min_p  <=>  (logit - peak) / temperature >= log(min_p).
bool is_likely(const RankedToken& token, double log_min_p, double peak, double temperature) {
  return (static_cast<double>(token.logit) - peak) / temperature >= log_min_p;
}

}  // namespace

float weight_scale(double temperature) {
  // Below a temperature of 1e-30 every logit but the largest has weight 0 either way.
  return static_cast<float>(std::min(1.4426950408889634 / temperature, 1e30));
}

double fill_weights(const std::vector<RankedToken>& candidates, double peak, double temperature,
                    std::vector<double>& weights) {
  weights.resize(candidates.size());
  double total = 0.0;
  for (size_t i = 0; i < candidates.size(); ++i) {
    weights[i] = weight_of(candidates[i], peak, temperature);
    total += weights[i];
  }
  return total;
}

void keep_min_p(std::vector<RankedToken>& candidates, double min_p, double peak, double temperature) {
  const double floor = std::log(min_p);
  std::erase_if(candidates, [&](const RankedToken& candidate) {
    return !is_likely(candidate, floor, peak, temperature);
  });
}

Nucleus keep_nucleus(std::vector<RankedToken>& candidates, Mass wanted, double peak,
                     double temperature) {
  // In growing prefixes: the nucleus is nearly always far smaller than the list.
  double cumulative = 0.0;
  size_t sorted = 0;
  for (size_t want = 64; sorted < candidates.size(); want *= 8) {
    const size_t end = std::min(want, candidates.size());
    const auto first = candidates.begin() + static_cast<ptrdiff_t>(sorted);
    const auto last = candidates.begin() + static_cast<ptrdiff_t>(end);
    if (end < candidates.size()) std::nth_element(first, last, candidates.end(), ranks_before);
    std::sort(first, last, ranks_before);
    for (; sorted < end; ++sorted) {
      cumulative += weight_of(candidates[sorted], peak, temperature);
      if (cumulative < wanted.low) continue;
      if (cumulative < wanted.high) return Nucleus::kUndecided;
      candidates.resize(sorted + 1);
      return Nucleus::kCut;
    }
  }
  return Nucleus::kAll;
}

void collect_top_k(BlockedRow& row, int64_t top_k, std::vector<RankedToken>& candidates) {
  // Each of the k blocks with the largest maxima has a logit that is not below the k-th of them.
  row.collect(top_k <= row.n_blocks() ? row.floor_of_top(top_k) : kLowest, candidates);
  const auto n = static_cast<size_t>(top_k);
  if (n < candidates.size()) {
    std::nth_element(candidates.begin(), candidates.begin() + top_k, candidates.end(), ranks_before);
    candidates.resize(n);
  }
  std::sort(candidates.begin(), candidates.end(), ranks_before);
}

void collect_min_p(BlockedRow& row, double min_p, double temperature,
                   std::vector<RankedToken>& candidates) {
  // A little lower than the rule, which then decides in double precision.
  const double peak = row.peak();
  const double floor = peak + temperature * std::log(min_p);
  const double slack = 1e-6 * (std::fabs(peak) + std::fabs(floor)) + 1e-30;
  row.collect(static_cast<float>(std::max<double>(floor - slack, kLowest)), candidates);
  keep_min_p(candidates, min_p, peak, temperature);
}

int32_t draw_candidate(const std::vector<RankedToken>& candidates, const SampleParams& params,
                       double peak, std::vector<double>& weights) {
  const double total = fill_weights(candidates, peak, params.temperature, weights);
  const double target = total * philox_uniform(params.seed, params.choice, params.position, 0);
  double cumulative = 0.0;
  size_t last = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    if (weights[i] <= 0.0) continue;
    cumulative += weights[i];
    last = i;
    if (cumulative > target) break;
  }
  return candidates[last].id;  // the last one that has a weight, where rounding left the target at the end
}

}  // namespace rocmforge
