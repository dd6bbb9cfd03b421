// The sampling kernels, written against the lanes of one ISA. Include after lanes_<isa>.h, with
// ROCMFORGE_LANES naming its namespace. Sums have one order: value i of a block goes to accumulator
// i mod 32, and the 32 are added as halves: j + (j+16), then j + (j+8), then sum_lanes below.
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "sample_kernels.h"

namespace rocmforge::ROCMFORGE_LANES {
namespace {

constexpr int kAccumulators = 4;
constexpr float kLowest = std::numeric_limits<float>::lowest();
constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

// Eight floats, or the n < 8 that are left and `fill`.
F8 load_filled(const float* x, int64_t n, float fill) {
  if (n >= 8) return f8_load(x);
  float v[8];
  for (int64_t i = 0; i < 8; ++i) v[i] = i < n ? x[i] : fill;
  return f8_load(v);
}

// Lanes added as ((0+4)+(2+6)) + ((1+5)+(3+7)).
float sum_of_lanes(F8 a) {
  float v[8];
  f8_store(v, a);
  return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
}

float max_of_lanes(F8 a) {
  float v[8];
  f8_store(v, a);
  float result = v[0];
  for (int i = 1; i < 8; ++i) result = v[i] > result ? v[i] : result;
  return result;
}

// Whole blocks and the last one, f(first value, how many, block).
template <class Function>
void for_blocks(int64_t n, const Function& f) {
  for (int64_t at = 0; at < n; at += kSampleBlock) {
    f(at, n - at < kSampleBlock ? n - at : kSampleBlock, at / kSampleBlock);
  }
}

bool maxima(const float* x, int64_t n, float* out) {
  // 0 · x is 0 for finite x and NaN otherwise, and a NaN stays in a sum.
  F8 zeros[kAccumulators];
  for (F8& zero : zeros) zero = f8_set1(0.0f);
  for_blocks(n, [&](int64_t at, int64_t size, int64_t block) {
    const float* values = x + at;
    F8 peaks[kAccumulators];
    for (F8& peak : peaks) peak = f8_set1(kMinusInfinity);
    const auto take = [&](int j, F8 value) {
      peaks[j] = f8_max(value, peaks[j]);
      zeros[j] = f8_add(zeros[j], f8_mul(value, f8_set1(0.0f)));
    };
    int64_t i = 0;
    for (; i + 8 * kAccumulators <= size; i += 8 * kAccumulators) {
      for (int j = 0; j < kAccumulators; ++j) take(j, f8_load(values + i + 8 * j));
    }
    // Filled with a value of the block, which changes neither result.
    for (; i < size; i += 8) take(0, load_filled(values + i, size - i, values[i]));
    out[block] = max_of_lanes(f8_max(f8_max(peaks[0], peaks[2]), f8_max(peaks[1], peaks[3])));
  });
  const F8 all = f8_add(f8_add(zeros[0], zeros[2]), f8_add(zeros[1], zeros[3]));
  return sum_of_lanes(all) == 0.0f;
}

// 2^t for t <= 0, 0 below -126: t = n + f, n integral, |f| <= 1/2, and a polynomial for 2^f that is
// exact at 0 and elsewhere within 1.9e-7 (relative, rounding included). Degree 4 would be 15 times
// worse, degree 6 twice as good. -infinity gives 0.
F8 exp2_lanes(F8 t) {
  const F8 lowest = f8_set1(-126.0f);
  const F8 clamped = f8_max(t, lowest);
  const F8 n = f8_round(clamped);
  const F8 f = f8_sub(clamped, n);
  F8 p = f8_set1(0x1.5bba12p-10f);
  p = f8_add(f8_mul(p, f), f8_set1(0x1.3cea88p-7f));
  p = f8_add(f8_mul(p, f), f8_set1(0x1.c6b752p-5f));
  p = f8_add(f8_mul(p, f), f8_set1(0x1.ebf9bcp-3f));
  p = f8_add(f8_mul(p, f), f8_set1(0x1.62e42ap-1f));
  p = f8_add(f8_mul(p, f), f8_set1(1.0f));
  return f8_zero_below(f8_mul(p, f8_exp2_int(n)), t, lowest);
}

F8 weight_lanes(F8 x, F8 peak, F8 scale) { return exp2_lanes(f8_mul(f8_sub(x, peak), scale)); }

// exp2_lanes without its polynomial: an upper bound of it.
F8 coarse_lanes(F8 x, F8 peak, F8 scale) {
  return f8_exp2_linear(f8_max(f8_mul(f8_sub(x, peak), scale), f8_set1(-126.0f)));
}

template <class Weight>
float block_sum(const float* x, int64_t size, float peak, float scale, Weight weight) {
  const F8 p = f8_set1(peak), s = f8_set1(scale);
  F8 sums[kAccumulators];
  for (F8& sum : sums) sum = f8_set1(0.0f);
  int64_t i = 0;
  for (; i + 8 * kAccumulators <= size; i += 8 * kAccumulators) {
    for (int j = 0; j < kAccumulators; ++j) {
      sums[j] = f8_add(sums[j], weight(f8_load(x + i + 8 * j), p, s));
    }
  }
  for (int j = 0; i < size; i += 8, ++j) {
    sums[j] = f8_add(sums[j], weight(load_filled(x + i, size - i, kMinusInfinity), p, s));
  }
  return sum_of_lanes(f8_add(f8_add(sums[0], sums[2]), f8_add(sums[1], sums[3])));
}

template <class Weight>
void block_sums(const float* x, int64_t n, const float* peaks, float scale, float* out,
                Weight weight) {
  for_blocks(n, [&](int64_t at, int64_t size, int64_t block) {
    const float peak = peaks[block];
    out[block] = peak < kLowest ? 0.0f : block_sum(x + at, size, peak, scale, weight);
  });
}

void sums(const float* x, int64_t n, const float* peaks, float scale, float* out) {
  block_sums(x, n, peaks, scale, out, [](F8 v, F8 p, F8 s) { return weight_lanes(v, p, s); });
}

void coarse_sums(const float* x, int64_t n, const float* peaks, float scale, float* out) {
  block_sums(x, n, peaks, scale, out, [](F8 v, F8 p, F8 s) { return coarse_lanes(v, p, s); });
}

void weights(const float* x, int64_t n, float peak, float scale, float* out) {
  const F8 p = f8_set1(peak), s = f8_set1(scale);
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) f8_store(out + i, weight_lanes(f8_load(x + i), p, s));
  if (i == n) return;
  float v[8];
  f8_store(v, weight_lanes(load_filled(x + i, n - i, kMinusInfinity), p, s));
  for (int64_t j = 0; i + j < n; ++j) out[i + j] = v[j];
}

int at_least(const float* x, int64_t n, float floor, int32_t* places) {
  const F8 limit = f8_set1(floor);
  int count = 0;
  for (int64_t i = 0; i < n; i += 8) {
    uint32_t found = f8_at_least(load_filled(x + i, n - i, kMinusInfinity), limit);
    if (n - i < 8) found &= (1u << (n - i)) - 1;
    for (; found != 0; found &= found - 1) {
      places[count++] = static_cast<int32_t>(i) + std::countr_zero(found);
    }
  }
  return count;
}

// e^x for x <= 0, 0 below -708. Range reduction by ln 2 in two parts, then a Taylor polynomial of
// degree 12 on |r| <= ln(2)/2, whose remainder is below 2e-16. Every operation rounds as IEEE says:
// a compiler that makes vectors of a loop over it cannot change the bits.
inline double exp_double(double x) {
  constexpr double kShift = 0x1.8p52;  // adding it rounds to an integer, which the low bits hold
  const double clamped = x > -708.0 ? x : -708.0;
  const double shifted = clamped * 0x1.71547652b82fep0 + kShift;
  const double n = shifted - kShift;
  const double r = (clamped - n * 0x1.62e42feep-1) - n * 0x1.a39ef35793c76p-33;
  double p = 1.0 / 479001600.0;
  p = p * r + 1.0 / 39916800.0;
  p = p * r + 1.0 / 3628800.0;
  p = p * r + 1.0 / 362880.0;
  p = p * r + 1.0 / 40320.0;
  p = p * r + 1.0 / 5040.0;
  p = p * r + 1.0 / 720.0;
  p = p * r + 1.0 / 120.0;
  p = p * r + 1.0 / 24.0;
  p = p * r + 1.0 / 6.0;
  p = p * r + 0.5;
  p = p * r + 1.0;
  p = p * r + 1.0;
  const double power = std::bit_cast<double>((std::bit_cast<uint64_t>(shifted) + 1023) << 52);
  const double value = p * power;
  return x > -708.0 ? value : 0.0;
}

// Eight sums, over the places that are equal modulo 8.
void add_exps(const float* x, int64_t n, double peak, double* sums) {
  constexpr int kChunk = 64;
  double values[kChunk];
  int64_t at = 0;
  for (; at + kChunk <= n; at += kChunk) {
    for (int i = 0; i < kChunk; ++i) values[i] = exp_double(static_cast<double>(x[at + i]) - peak);
    for (int i = 0; i < kChunk; i += 8) {
      for (int j = 0; j < 8; ++j) sums[j] += values[i + j];
    }
  }
  for (; at < n; ++at) sums[at % 8] += exp_double(static_cast<double>(x[at]) - peak);
}

double sum_exp(const float* x, int64_t n, float peak) {
  double v[8] = {};
  add_exps(x, n, peak, v);
  return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
}

}  // namespace

const SampleKernels& sample_table(const char* isa) {
  static const SampleKernels kernels = {isa,     maxima,   sums,   coarse_sums,
                                        weights, at_least, sum_exp};
  return kernels;
}

}  // namespace rocmforge::ROCMFORGE_LANES
