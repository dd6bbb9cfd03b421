#include "nucleus.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "candidates.h"
#include "philox.h"

namespace rocmforge {
namespace {

constexpr float kLowest = std::numeric_limits<float>::lowest();
// A vocabulary up to this size is sorted; a larger one is searched.
constexpr int64_t kSmall = 4096;
// The first guesses at how many tokens a nucleus has.
constexpr int64_t kGuesses[] = {32, 256};

// The sum of all weights from what scratch.block_sums holds of each block.
double add_blocks(BlockedRow& row, float scale, WeightScratch& scratch) {
  scratch.block_weights.resize(static_cast<size_t>(row.n_blocks()));
  row.kernels().weights(row.maxima().data(), row.n_blocks(), row.peak(), scale,
                        scratch.block_weights.data());
  double total = 0.0;
  for (size_t b = 0; b < scratch.block_sums.size(); ++b) {
    total += static_cast<double>(scratch.block_sums[b]) * scratch.block_weights[b];
  }
  return total;
}

double total_mass(BlockedRow& row, float scale, WeightScratch& scratch) {
  row.block_sums(scale, scratch.block_sums);
  return add_blocks(row, scale, scratch);
}

// Bounds of total_mass for a third of its price: exact sums of the blocks that hold the likeliest
// tokens, coarse ones of the others. In a row with a clear peak the others hold little, and the
// nucleus is the same with either bound.
Mass bound_mass(BlockedRow& row, float scale, WeightScratch& scratch) {
  constexpr double kRounding = 1e-5;
  row.coarse_sums(scale, scratch.block_sums);
  const double coarse = add_blocks(row, scale, scratch);
  const float floor = row.floor_of_top(std::min(kGuesses[0], row.n_blocks()));
  double excess = 0.0, heavy = 0.0;
  for (size_t b = 0; b < scratch.block_sums.size(); ++b) {
    const float maximum = row.maxima()[b];
    if (maximum < floor) continue;
    float sum = 0.0f;
    const auto block = static_cast<int64_t>(b);
    row.kernels().sums(row.block(block).data(), row.block_size(block), &maximum, scale, &sum);
    heavy += static_cast<double>(sum) * scratch.block_weights[b];
    excess += (static_cast<double>(scratch.block_sums[b]) - sum) * scratch.block_weights[b];
  }
  const double high = coarse - excess;
  const double low = heavy + (high - heavy) / kCoarse;
  return {low * (1.0 - kRounding), high * (1.0 + kRounding)};
}

// Buckets of falling logits, so narrow that few tokens share one: sorting the buckets' tokens is the
// same as sorting the row. kBuckets / kPerUnit = 32 times the temperature below the peak lies the
// last one, which holds all that is left, e^-32 of the peak each.
class Buckets {
 public:
  Buckets(BlockedRow& row, double temperature, std::vector<RankedToken>& tokens,
          WeightScratch& scratch)
      : row_(row),
        scale_(weight_scale(temperature)),
        per_logit_(scale_ * static_cast<float>(kPerUnit / 1.4426950408889634)),
        tokens_(tokens),
        scratch_(scratch) {
    scratch_.masses.assign(kBuckets, 0.0);
    float weights[kSampleBlock];
    for (int64_t b = 0; b < row.n_blocks(); ++b) {
      const auto values = row.block(b);
      row.kernels().weights(values.data(), static_cast<int64_t>(values.size()), row.peak(), scale_,
                            weights);
      for (size_t i = 0; i < values.size(); ++i) scratch_.masses[bucket(values[i])] += weights[i];
    }
  }

  double total() const {
    double sum = 0.0;
    for (const double mass : scratch_.masses) sum += mass;
    return sum;
  }

  struct Cut {
    RankedToken token;
    double mass;  // of this token and all that rank before it
  };
  // The first token in ranking order with which the mass passes `wanted` or, unless `beyond`,
  // reaches it; the last that has a weight when none does.
  Cut find(double wanted, bool beyond) {
    size_t last = kBuckets - 1;
    while (scratch_.masses[last] <= 0.0) --last;
    double before = 0.0;
    size_t k = 0;
    for (; k < last; ++k) {
      const double after = before + scratch_.masses[k];
      if (beyond ? after > wanted : after >= wanted) break;
      before = after;
    }
    return find_in_bucket(k, before, wanted, beyond);
  }

 private:
  static constexpr size_t kBuckets = 4096;
  static constexpr double kPerUnit = 128.0;

  size_t bucket(float logit) const {
    return static_cast<size_t>(std::min((row_.peak() - logit) * per_logit_, kBuckets - 1.0f));
  }

  void collect_bucket(size_t k) {
    tokens_.clear();
    for (int64_t b = 0; b < row_.n_blocks(); ++b) {
      if (bucket(row_.maxima()[static_cast<size_t>(b)]) > k) continue;
      const auto values = row_.block(b);
      for (size_t i = 0; i < values.size(); ++i) {
        if (bucket(values[i]) != k || values[i] < kLowest) continue;
        tokens_.push_back({static_cast<int32_t>(b * kSampleBlock) + static_cast<int32_t>(i), values[i]});
      }
    }
    // By id so far: many equal logits are sorted already.
    std::stable_sort(tokens_.begin(), tokens_.end(),
                     [](const RankedToken& a, const RankedToken& b) { return a.logit > b.logit; });
  }

  Cut find_in_bucket(size_t k, double before, double wanted, bool beyond) {
    collect_bucket(k);
    std::vector<float>& weights = scratch_.token_weights;
    weights.resize(tokens_.size());
    for (size_t i = 0; i < tokens_.size(); ++i) weights[i] = tokens_[i].logit;
    row_.kernels().weights(weights.data(), static_cast<int64_t>(weights.size()), row_.peak(), scale_,
                           weights.data());
    Cut cut{tokens_.front(), before};
    for (size_t i = 0; i < tokens_.size() && weights[i] > 0.0f; ++i) {
      cut = {tokens_[i], cut.mass + weights[i]};
      if (beyond ? cut.mass > wanted : cut.mass >= wanted) break;
    }
    return cut;
  }

  BlockedRow& row_;
  float scale_, per_logit_;
  std::vector<RankedToken>& tokens_;
  WeightScratch& scratch_;
};

// For a flat row, whose nucleus is too large to be sorted.
int32_t draw_from_buckets(BlockedRow& row, const SampleParams& params,
                          std::vector<RankedToken>& tokens, WeightScratch& scratch) {
  Buckets buckets(row, params.temperature, tokens, scratch);
  const Buckets::Cut end = buckets.find(params.top_p * buckets.total(), false);
  const double u = philox_uniform(params.seed, params.choice, params.position, 0);
  const RankedToken token = buckets.find(u * end.mass, true).token;
  return ranks_before(end.token, token) ? end.token.id : token.id;  // rounding at the very end
}

// Fills `candidates` with the nucleus when it is small and the bounds of the mass decide it.
bool guess_nucleus(BlockedRow& row, Mass wanted, double temperature,
                   std::vector<RankedToken>& candidates) {
  for (const int64_t guess : kGuesses) {
    // With more than half of the blocks searched the guess would save nothing.
    if (guess > row.n_blocks() / 2) break;
    row.collect(row.floor_of_top(guess), candidates);
    if (candidates.size() > kSmall) break;  // many equal logits
    const Nucleus result = keep_nucleus(candidates, wanted, row.peak(), temperature);
    if (result != Nucleus::kAll) return result == Nucleus::kCut;
  }
  return false;
}

// Fills `candidates` with the nucleus, less what min_p excludes → false when it is too large.
bool collect_nucleus(BlockedRow& row, const SampleParams& params,
                     std::vector<RankedToken>& candidates, WeightScratch& scratch) {
  const double peak = row.peak(), temperature = params.temperature;
  if (row.n_vocab() <= kSmall) {
    row.collect(kLowest, candidates);
    const double total = fill_weights(candidates, peak, temperature, scratch.weights);
    keep_nucleus(candidates, {params.top_p * total, params.top_p * total}, peak, temperature);
    if (params.min_p > 0.0) keep_min_p(candidates, params.min_p, peak, temperature);
    return true;
  }
  const float scale = weight_scale(temperature);
  const Mass bounds = bound_mass(row, scale, scratch);
  const Mass wanted{params.top_p * bounds.low, params.top_p * bounds.high};
  if (params.min_p > 0.0) {
    collect_min_p(row, params.min_p, temperature, candidates);
    if (keep_nucleus(candidates, wanted, peak, temperature) != Nucleus::kUndecided) return true;
  } else if (guess_nucleus(row, wanted, temperature, candidates)) {
    return true;
  }
  const double exact = params.top_p * total_mass(row, scale, scratch);
  if (params.min_p > 0.0) {
    keep_nucleus(candidates, {exact, exact}, peak, temperature);
    return true;
  }
  return guess_nucleus(row, {exact, exact}, temperature, candidates);
}

}  // namespace

int32_t draw_nucleus(BlockedRow& row, const SampleParams& params,
                     std::vector<RankedToken>& candidates, WeightScratch& scratch) {
  if (!collect_nucleus(row, params, candidates, scratch)) {
    return draw_from_buckets(row, params, candidates, scratch);
  }
  return draw_candidate(candidates, params, row.peak(), scratch.weights);
}

}  // namespace rocmforge
