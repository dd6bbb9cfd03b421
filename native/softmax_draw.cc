#include "softmax_draw.h"

#include <algorithm>
#include <cmath>
#include <span>

#include "candidates.h"
#include "philox.h"

namespace rocmforge {
namespace {

// A block with more than this share of all bounds is summed: at most 1 / kHeavyShare blocks are,
// each as cheap as a few tries.
constexpr double kHeavyShare = 1.0 / 64;
// The draw index has 24 bits. That many failures in a row have a probability below 1e-28000.
constexpr uint32_t kTries = 1u << 24;

// What each block stands for, cumulated in scratch.masses; scratch.block_sums holds the true sum
// relative to the block's maximum where that is what it stands for, else 0.
void weigh_blocks(BlockedRow& row, float scale, WeightScratch& scratch) {
  const auto n_blocks = static_cast<size_t>(row.n_blocks());
  const std::vector<float>& maxima = row.maxima();
  scratch.block_weights.resize(n_blocks);
  scratch.block_sums.assign(n_blocks, 0.0f);
  scratch.masses.resize(n_blocks);
  const SampleKernels& kernels = row.kernels();
  kernels.weights(maxima.data(), row.n_blocks(), row.peak(), scale, scratch.block_weights.data());
  double bounds = 0.0;
  for (size_t b = 0; b < n_blocks; ++b) {
    const auto size = static_cast<double>(row.block_size(static_cast<int64_t>(b)));
    scratch.masses[b] = size * scratch.block_weights[b];
    bounds += scratch.masses[b];
  }
  double total = 0.0;
  for (size_t b = 0; b < n_blocks; ++b) {
    if (scratch.masses[b] > kHeavyShare * bounds) {
      const std::span<const float> values = row.block(static_cast<int64_t>(b));
      kernels.sums(values.data(), static_cast<int64_t>(values.size()), &maxima[b], scale,
                   &scratch.block_sums[b]);
      scratch.masses[b] = static_cast<double>(scratch.block_sums[b]) * scratch.block_weights[b];
    }
    total += scratch.masses[b];
    scratch.masses[b] = total;
  }
}

// The token of a block where its cumulative weights, relative to its maximum, pass `target`.
size_t find_in_block(const SampleKernels& kernels, std::span<const float> values, float maximum,
                     float scale, double target) {
  float weights[kSampleBlock];
  kernels.weights(values.data(), static_cast<int64_t>(values.size()), maximum, scale, weights);
  double cumulative = 0.0;
  size_t last = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    if (weights[i] <= 0.0f) continue;
    cumulative += weights[i];
    last = i;
    if (cumulative > target) break;
  }
  return last;
}

}  // namespace

int32_t draw_softmax(BlockedRow& row, const SampleParams& params, WeightScratch& scratch) {
  const float scale = weight_scale(params.temperature);
  weigh_blocks(row, scale, scratch);
  const std::vector<double>& cumulative = scratch.masses;
  for (uint32_t draw = 0; draw < kTries; ++draw) {
    const PhiloxBlock words = philox_words(params.seed, params.choice, params.position, draw);
    const double target = cumulative.back() * uniform(words[0], words[1]);
    const auto found = std::upper_bound(cumulative.begin(), cumulative.end() - 1, target);
    const auto b = static_cast<size_t>(found - cumulative.begin());
    const auto first = static_cast<int32_t>(b * kSampleBlock);
    const std::span<const float> values = row.block(static_cast<int64_t>(b));
    const float maximum = row.maxima()[b];
    if (scratch.block_sums[b] > 0.0f) {
      const double inside = target - (b == 0 ? 0.0 : cumulative[b - 1]);
      const double relative = inside / scratch.block_weights[b];
      return first + static_cast<int32_t>(
                         find_in_block(row.kernels(), values, maximum, scale, relative));
    }
    // The place from the upper half of the product, more random bits from the lower.
    const uint64_t product = uint64_t{words[2]} * values.size();
    const auto place = static_cast<size_t>(product >> 32);
    const double log_weight = (static_cast<double>(values[place]) - maximum) / params.temperature;
    if (uniform(words[3], static_cast<uint32_t>(product)) < std::exp(log_weight)) {
      return first + static_cast<int32_t>(place);
    }
  }
  return row.argmax();
}

}  // namespace rocmforge
