// All kernels, written against the lanes of one ISA. Include after lanes_<isa>.h, with
// ROCMFORGE_LANES naming its namespace. No fused multiply-add, no sum whose order depends on the
// batch: one accumulator per output, columns ascending.
#include <cmath>
#include <initializer_list>

#include "kernels.h"

namespace rocmforge::ROCMFORGE_LANES {
namespace {

// ---------------------------------------------------------------- matmul: dot products per format

struct DotF32 {
  static constexpr int kBytes = 32;
  static F8 weights(const uint8_t* w) { return f8_load(reinterpret_cast<const float*>(w)); }
};
struct DotF16 {
  static constexpr int kBytes = 16;
  static F8 weights(const uint8_t* w) { return f8_from_f16(w); }
};
struct DotBF16 {
  static constexpr int kBytes = 16;
  static F8 weights(const uint8_t* w) { return f8_from_bf16(w); }
};

template <class Format>
struct DotFloat {
  template <int NT>
  static void dot(const uint8_t* w, int64_t n_blocks, const ActRow* rows, F8* acc) {
    for (int64_t c = 0; c < n_blocks; ++c, w += Format::kBytes) {
      const F8 weights = Format::weights(w);
      for (int t = 0; t < NT; ++t) {
        acc[t] = f8_add(acc[t], f8_mul(weights, f8_set1(rows[t].x[c])));
      }
    }
  }
};

struct DotQ8_0 {
  template <int NT>
  static void dot(const uint8_t* w, int64_t n_blocks, const ActRow* rows, F8* acc) {
    for (int64_t b = 0; b < n_blocks; ++b, w += 272) {
      I8 sum[NT];
      for (int t = 0; t < NT; ++t) sum[t] = i8_zero();
      for (int v = 0; v < 8; ++v) {
        const B32 weights = b32_load(w + 16 + 32 * v);
        const B32 magnitude = b32_abs(weights);  // -128 becomes 128, as unsigned
        for (int t = 0; t < NT; ++t) {
          const B32 signed_act = b32_sign(b32_quad(rows[t].q + 32 * b + 4 * v), weights);
          sum[t] = i8_add(sum[t], i8_add_pairs(h16_mul_pairs(magnitude, signed_act)));
        }
      }
      const F8 d = f8_from_f16(w);
      for (int t = 0; t < NT; ++t) {
        acc[t] = f8_add(acc[t], f8_mul(f8_mul(d, f8_set1(rows[t].d[b])), i8_to_f8(sum[t])));
      }
    }
  }
};

// 32 columns of nibbles at w. 8 · 2 · 15 · 127 = 30480 fits int16.
template <int NT>
void dot_nibbles(const uint8_t* w, const ActRow* rows, int64_t column, I8* sum) {
  H16 part[NT];
  for (int t = 0; t < NT; ++t) part[t] = h16_zero();
  for (int v = 0; v < 4; ++v) {
    const B32 both = b32_load(w + 32 * v);
    const B32 low = b32_and(both, 15);
    const B32 high = b32_shr<4>(both);
    for (int t = 0; t < NT; ++t) {
      const int8_t* q = rows[t].q + column + 4 * v;
      part[t] = h16_add(part[t], h16_mul_pairs(low, b32_quad(q)));
      part[t] = h16_add(part[t], h16_mul_pairs(high, b32_quad(q + 16)));
    }
  }
  for (int t = 0; t < NT; ++t) sum[t] = i8_add_pairs(part[t]);
}

struct DotQ4_0 {
  template <int NT>
  static void dot(const uint8_t* w, int64_t n_blocks, const ActRow* rows, F8* acc) {
    for (int64_t b = 0; b < n_blocks; ++b, w += 144) {
      I8 sum[NT];
      dot_nibbles<NT>(w + 16, rows, 32 * b, sum);
      const F8 d = f8_from_f16(w);
      for (int t = 0; t < NT; ++t) {  // stored values are 8 too large
        const I8 centred = i8_sub(sum[t], i8_set1(8 * rows[t].sums[b]));
        acc[t] = f8_add(acc[t], f8_mul(f8_mul(d, f8_set1(rows[t].d[b])), i8_to_f8(centred)));
      }
    }
  }
};

// Bit kQuad of every byte, moved to bit 4.
template <int kQuad>
B32 fifth_bit(B32 plane) {
  const B32 bit = b32_and(plane, 1 << kQuad);
  if constexpr (kQuad < 4) return b32_shl<4 - kQuad>(bit);
  if constexpr (kQuad > 4) return b32_shr<kQuad - 4>(bit);
  return bit;
}

// Quads kQuad … kQuad + 1 … of five-bit values; four of them fit int16: 4 · 2 · 31 · 127 = 31496.
template <int NT, int kVector>
void dot_fives(const uint8_t* w, B32 plane, const ActRow* rows, int64_t column, H16* low_part,
               H16* high_part) {
  const B32 both = b32_load(w + 32 * kVector);
  const B32 low = b32_or(b32_and(both, 15), fifth_bit<kVector>(plane));
  const B32 high = b32_or(b32_shr<4>(both), fifth_bit<kVector + 4>(plane));
  for (int t = 0; t < NT; ++t) {
    const int8_t* q = rows[t].q + column + 4 * kVector;
    low_part[t] = h16_add(low_part[t], h16_mul_pairs(low, b32_quad(q)));
    high_part[t] = h16_add(high_part[t], h16_mul_pairs(high, b32_quad(q + 16)));
  }
}

template <int NT>
void dot_five_bits(const uint8_t* w, const ActRow* rows, int64_t column, I8* sum) {
  H16 low_part[NT], high_part[NT];
  for (int t = 0; t < NT; ++t) low_part[t] = high_part[t] = h16_zero();
  const B32 plane = b32_load(w + 128);
  dot_fives<NT, 0>(w, plane, rows, column, low_part, high_part);
  dot_fives<NT, 1>(w, plane, rows, column, low_part, high_part);
  dot_fives<NT, 2>(w, plane, rows, column, low_part, high_part);
  dot_fives<NT, 3>(w, plane, rows, column, low_part, high_part);
  for (int t = 0; t < NT; ++t) {
    sum[t] = i8_add(i8_add_pairs(low_part[t]), i8_add_pairs(high_part[t]));
  }
}

// Q4_K and Q5_K: Σ over blocks of d·d_a·Σ scale·dot − dmin·d_a·Σ min·(sum of activations).
template <int kSubBytes>
struct DotScaledMin {
  template <int NT>
  static void dot(const uint8_t* w, int64_t n_blocks, const ActRow* rows, F8* acc) {
    for (int64_t b = 0; b < n_blocks; ++b, w += 160 + 8 * kSubBytes) {
      I8 scaled[NT], shift[NT];
      for (int t = 0; t < NT; ++t) scaled[t] = shift[t] = i8_zero();
      for (int s = 0; s < 8; ++s) {
        I8 sum[NT];
        const uint8_t* sub = w + 160 + s * kSubBytes;
        if constexpr (kSubBytes == 128) {
          dot_nibbles<NT>(sub, rows, 256 * b + 32 * s, sum);
        } else {
          dot_five_bits<NT>(sub, rows, 256 * b + 32 * s, sum);
        }
        const I8 scale = i8_from_u8(w + 32 + 8 * s);
        const I8 low = i8_from_u8(w + 96 + 8 * s);
        for (int t = 0; t < NT; ++t) {
          const int32_t* sums = rows[t].sums + 16 * b + 2 * s;
          scaled[t] = i8_add(scaled[t], i8_mul(scale, sum[t]));
          shift[t] = i8_add(shift[t], i8_mul(low, i8_set1(sums[0] + sums[1])));
        }
      }
      const F8 d = f8_from_f16(w), dmin = f8_from_f16(w + 16);
      for (int t = 0; t < NT; ++t) {
        const F8 da = f8_set1(rows[t].d[b]);
        const F8 plus = f8_mul(f8_mul(d, da), i8_to_f8(scaled[t]));
        const F8 minus = f8_mul(f8_mul(dmin, da), i8_to_f8(shift[t]));
        acc[t] = f8_add(acc[t], f8_sub(plus, minus));
      }
    }
  }
};

// 16 columns of six-bit values; two quads fit int16: 2 · 2 · 63 · 127 = 32004.
template <int NT>
void dot_sixes(const uint8_t* w, const ActRow* rows, int64_t column, I8* sum) {
  const B32 first = b32_load(w), second = b32_load(w + 32), pairs = b32_load(w + 64);
  const B32 quad0 = b32_or(b32_and(first, 15), b32_shl<4>(b32_and(pairs, 0x03)));
  const B32 quad1 = b32_or(b32_and(second, 15), b32_shl<2>(b32_and(pairs, 0x0C)));
  const B32 quad2 = b32_or(b32_shr<4>(first), b32_and(pairs, 0x30));
  const B32 quad3 = b32_or(b32_shr<4>(second), b32_shr<2>(b32_and(pairs, 0xC0)));
  for (int t = 0; t < NT; ++t) {
    const int8_t* q = rows[t].q + column;
    const H16 even = h16_add(h16_mul_pairs(quad0, b32_quad(q)), h16_mul_pairs(quad1, b32_quad(q + 4)));
    const H16 odd =
        h16_add(h16_mul_pairs(quad2, b32_quad(q + 8)), h16_mul_pairs(quad3, b32_quad(q + 12)));
    sum[t] = i8_add(i8_add_pairs(even), i8_add_pairs(odd));
  }
}

struct DotQ6_K {
  template <int NT>
  static void dot(const uint8_t* w, int64_t n_blocks, const ActRow* rows, F8* acc) {
    for (int64_t b = 0; b < n_blocks; ++b, w += 1680) {
      I8 scaled[NT];
      for (int t = 0; t < NT; ++t) scaled[t] = i8_zero();
      for (int s = 0; s < 16; ++s) {
        I8 sum[NT];
        dot_sixes<NT>(w + 144 + 96 * s, rows, 256 * b + 16 * s, sum);
        const I8 scale = i8_from_s8(w + 16 + 8 * s);
        for (int t = 0; t < NT; ++t) {  // stored values are 32 too large
          const I8 centred = i8_sub(sum[t], i8_set1(32 * rows[t].sums[16 * b + s]));
          scaled[t] = i8_add(scaled[t], i8_mul(scale, centred));
        }
      }
      const F8 d = f8_from_f16(w);
      for (int t = 0; t < NT; ++t) {
        acc[t] = f8_add(acc[t], f8_mul(f8_mul(d, f8_set1(rows[t].d[b])), i8_to_f8(scaled[t])));
      }
    }
  }
};

template <class Format, int NT>
void matmul_tile(const uint8_t* group, int64_t n_blocks, const ActRow* rows, float* out) {
  F8 acc[NT];
  for (int t = 0; t < NT; ++t) acc[t] = f8_set1(0.0f);
  Format::template dot<NT>(group, n_blocks, rows, acc);
  for (int t = 0; t < NT; ++t) f8_store(out + 8 * t, acc[t]);
}

// Four rows at a time share the unpacking of a weight; more would not fit sixteen registers.
template <class Format>
void matmul_group(const uint8_t* group, int64_t n_blocks, const ActRow* rows, int n, float* out) {
  int t = 0;
  for (; t + 4 <= n; t += 4) matmul_tile<Format, 4>(group, n_blocks, rows + t, out + 8 * t);
  if (t + 2 <= n) {
    matmul_tile<Format, 2>(group, n_blocks, rows + t, out + 8 * t);
    t += 2;
  }
  if (t < n) matmul_tile<Format, 1>(group, n_blocks, rows + t, out + 8 * t);
}

// ---------------------------------------------------------------- elementwise

// Lanes added as ((0+4)+(2+6)) + ((1+5)+(3+7)).
float sum_lanes(F8 a) {
  float v[8];
  f8_store(v, a);
  return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
}

// Up to seven floats, the other lanes 0.
F8 load_tail(const float* x, int64_t n) {
  float v[8] = {};
  for (int64_t i = 0; i < n; ++i) v[i] = x[i];
  return f8_load(v);
}
void store_tail(float* x, F8 a, int64_t n) {
  float v[8];
  f8_store(v, a);
  for (int64_t i = 0; i < n; ++i) x[i] = v[i];
}

// Call f(lanes of each array) for n elements, the tail through padded lanes.
template <class Function>
void map_lanes(float* out, const float* a, const float* b, int64_t n, Function f) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) f8_store(out + i, f(f8_load(a + i), f8_load(b + i)));
  if (i < n) store_tail(out + i, f(load_tail(a + i, n - i), load_tail(b + i, n - i)), n - i);
}

// e^x for x in [-87.3, 88], 0 below: range reduction by ln 2 in two parts (Cody and Waite), then a
// Taylor polynomial of degree 7 on |r| <= ln(2)/2, whose remainder is below 1e-8.
F8 exp_lanes(F8 x) {
  const F8 lowest = f8_set1(-87.3f);
  const F8 clamped = f8_min(f8_max(x, lowest), f8_set1(88.0f));
  const F8 n = f8_round(f8_mul(clamped, f8_set1(1.44269504f)));
  F8 r = f8_sub(clamped, f8_mul(n, f8_set1(0.693359375f)));
  r = f8_add(r, f8_mul(n, f8_set1(2.12194440e-4f)));
  F8 p = f8_set1(1.0f / 5040.0f);
  for (const float c : {1.0f / 720.0f, 1.0f / 120.0f, 1.0f / 24.0f, 1.0f / 6.0f, 0.5f, 1.0f, 1.0f}) {
    p = f8_add(f8_mul(p, r), f8_set1(c));
  }
  return f8_zero_below(f8_mul(p, f8_exp2_int(n)), x, lowest);
}

// The largest magnitude of n values; NaN when one of them is not finite.
float max_abs(const float* x, int n) {
  F8 peak = f8_set1(0.0f), zero = f8_set1(0.0f);
  for (int i = 0; i < n; i += 8) {
    const F8 value = f8_load(x + i);
    peak = f8_max(f8_abs(value), peak);
    zero = f8_add(zero, f8_mul(value, f8_set1(0.0f)));
  }
  float v[8];
  f8_store(v, peak);
  float result = v[0];
  for (int i = 1; i < 8; ++i) result = v[i] > result ? v[i] : result;
  return result + sum_lanes(zero);
}

void quantize(const float* x, int64_t cols, int block, int sum_every, int8_t* q, float* d,
              int32_t* sums) {
  for (int64_t b = 0; b < cols / block; ++b) {
    const float peak = max_abs(x + b * block, block);
    d[b] = peak / 127.0f;
    // Below 2^-121 the inverse would overflow: such a block counts as zeros.
    const float inverse = peak > 0x1.0p-121f ? 127.0f / peak : 0.0f;
    for (int i = 0; i < block; i += 8) {
      const int64_t at = b * block + i;
      f8_store_s8(q + at, f8_round(f8_mul(f8_load(x + at), f8_set1(inverse))));
    }
  }
  for (int64_t s = 0; s < cols / sum_every; ++s) {
    int32_t sum = 0;
    for (int i = 0; i < sum_every; ++i) sum += q[s * sum_every + i];
    sums[s] = sum;
  }
}

void rms_norm(const float* x, const float* weight, int64_t n, float eps, float* out) {
  F8 squares = f8_set1(0.0f);
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) squares = f8_add(squares, f8_mul(f8_load(x + i), f8_load(x + i)));
  if (i < n) {
    const F8 tail = load_tail(x + i, n - i);
    squares = f8_add(squares, f8_mul(tail, tail));
  }
  const float mean = sum_lanes(squares) / static_cast<float>(n);
  const F8 factor = f8_set1(1.0f / std::sqrt(mean + eps));
  map_lanes(out, x, weight, n, [factor](F8 a, F8 w) { return f8_mul(f8_mul(a, factor), w); });
}

void add(float* x, const float* y, int64_t n) {
  map_lanes(x, x, y, n, [](F8 a, F8 b) { return f8_add(a, b); });
}

void scale(float* x, float factor, int64_t n) {
  const F8 f = f8_set1(factor);
  map_lanes(x, x, x, n, [f](F8 a, F8) { return f8_mul(a, f); });
}

void swiglu(float* gate, const float* up, int64_t n) {
  map_lanes(gate, gate, up, n, [](F8 g, F8 u) {
    const F8 one = f8_set1(1.0f);
    const F8 silu = f8_div(g, f8_add(one, exp_lanes(f8_sub(f8_set1(0.0f), g))));
    return f8_mul(silu, u);
  });
}

void rope(float* head, const float* cosines, const float* sines, int rope_dim, bool neox) {
  const int half = rope_dim / 2;
  for (int i = 0; i < half; ++i) {
    float& a = head[neox ? i : 2 * i];
    float& b = head[neox ? i + half : 2 * i + 1];
    const float x = a, y = b;
    a = x * cosines[i] - y * sines[i];
    b = x * sines[i] + y * cosines[i];
  }
}

void to_f16(const float* x, int64_t n, uint8_t* out) {
  for (int64_t i = 0; i < n; i += 8) f8_store_f16(out + 2 * i, f8_load(x + i));
}

// ---------------------------------------------------------------- attention

template <bool kF16>
F8 load_kv(const uint8_t* p, int i) {
  if constexpr (kF16) return f8_from_f16(p + 2 * i);
  return f8_load(reinterpret_cast<const float*>(p) + i);
}

const uint8_t* kv_row(const uint8_t* base, const KvView& kv, int64_t position, int row_bytes) {
  const int64_t block = kv.block_table[position / kv.block_tokens];
  return base + block * kv.block_stride + position % kv.block_tokens * row_bytes;
}

// Scores of `N` heads for positions [begin, end), into scores [head][kAttentionSplit].
template <bool kF16, int N>
void score_heads(const AttentionTask& task, const float* q, int64_t begin, int64_t end,
                 float* scores) {
  const int dim = task.head_dim, row_bytes = dim * (kF16 ? 2 : 4);
  for (int64_t p = begin; p < end; ++p) {
    const uint8_t* key = kv_row(task.kv.keys, task.kv, p, row_bytes);
    F8 acc[N];
    for (int h = 0; h < N; ++h) acc[h] = f8_set1(0.0f);
    for (int i = 0; i < dim; i += 8) {
      const F8 k = load_kv<kF16>(key, i);
      for (int h = 0; h < N; ++h) acc[h] = f8_add(acc[h], f8_mul(f8_load(q + h * dim + i), k));
    }
    for (int h = 0; h < N; ++h) {
      scores[h * kAttentionSplit + (p - begin)] = sum_lanes(acc[h]) * task.scale;
    }
  }
}

// Adds the values of [begin, end), weighted, to out [N][head_dim], which the split starts with 0.
template <bool kF16, int N>
void mix_heads(const AttentionTask& task, const float* weights, int64_t begin, int64_t end,
               float* out) {
  const int dim = task.head_dim, row_bytes = dim * (kF16 ? 2 : 4);
  for (int i = 0; i < dim; i += 8) {
    F8 acc[N];
    for (int h = 0; h < N; ++h) acc[h] = f8_set1(0.0f);
    for (int64_t p = begin; p < end; ++p) {
      const F8 v = load_kv<kF16>(kv_row(task.kv.values, task.kv, p, row_bytes), i);
      for (int h = 0; h < N; ++h) {
        acc[h] = f8_add(acc[h], f8_mul(f8_set1(weights[h * kAttentionSplit + (p - begin)]), v));
      }
    }
    for (int h = 0; h < N; ++h) f8_store(out + h * dim + i, acc[h]);
  }
}

// scores [n] → e^(score - max) in place; the maximum and the sum. Lane j takes positions j mod 8.
void softmax_split(float* scores, int64_t n, float& peak, float& sum) {
  peak = scores[0];
  for (int64_t i = 1; i < n; ++i) peak = scores[i] > peak ? scores[i] : peak;
  const F8 shift = f8_set1(peak);
  F8 total = f8_set1(0.0f);
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const F8 e = exp_lanes(f8_sub(f8_load(scores + i), shift));
    f8_store(scores + i, e);
    total = f8_add(total, e);
  }
  if (i < n) {
    const F8 e = exp_lanes(f8_sub(load_tail(scores + i, n - i), shift));
    store_tail(scores + i, e, n - i);
    total = f8_add(total, load_tail(scores + i, n - i));
  }
  sum = sum_lanes(total);
}

float exp_one(float x) {
  float v[8];
  f8_store(v, exp_lanes(f8_set1(x)));
  return v[0];
}

// Adds a split (its maximum, sum and mixed values) to what the splits before it gave.
void combine(float* out, const float* mixed, int dim, float& peak, float& sum, float split_peak,
             float split_sum) {
  const float top = split_peak > peak ? split_peak : peak;
  const float keep = exp_one(peak - top), take = exp_one(split_peak - top);
  const F8 keep8 = f8_set1(keep), take8 = f8_set1(take);
  map_lanes(out, out, mixed, dim, [keep8, take8](F8 a, F8 b) {
    return f8_add(f8_mul(a, keep8), f8_mul(b, take8));
  });
  sum = sum * keep + split_sum * take;
  peak = top;
}

template <bool kF16, int N>
void attend(const AttentionTask& task, int head) {
  const int dim = task.head_dim;
  const float* q = task.q + head * dim;
  float* out = task.out + head * dim;
  float* scores = task.scratch;
  float* mixed = scores + N * kAttentionSplit;
  float peak[N], sum[N];
  bool is_first = true;
  for (int64_t split = task.first / kAttentionSplit; split <= task.last / kAttentionSplit; ++split) {
    const int64_t begin = split == task.first / kAttentionSplit ? task.first : split * kAttentionSplit;
    const int64_t limit = (split + 1) * kAttentionSplit;
    const int64_t end = limit < task.last + 1 ? limit : task.last + 1;
    score_heads<kF16, N>(task, q, begin, end, scores);
    float split_peak[N], split_sum[N];
    for (int h = 0; h < N; ++h) {
      softmax_split(scores + h * kAttentionSplit, end - begin, split_peak[h], split_sum[h]);
    }
    mix_heads<kF16, N>(task, scores, begin, end, is_first ? out : mixed);
    for (int h = 0; h < N; ++h) {
      if (is_first) {
        peak[h] = split_peak[h];
        sum[h] = split_sum[h];
      } else {
        combine(out + h * dim, mixed + h * dim, dim, peak[h], sum[h], split_peak[h], split_sum[h]);
      }
    }
    is_first = false;
  }
  for (int h = 0; h < N; ++h) {
    const F8 total = f8_set1(sum[h]);
    map_lanes(out + h * dim, out + h * dim, out + h * dim, dim,
              [total](F8 a, F8) { return f8_div(a, total); });
  }
}

template <bool kF16>
void attend_all(const AttentionTask& task) {
  int head = 0;
  for (; head + 4 <= task.n_heads; head += 4) attend<kF16, 4>(task, head);
  if (head + 2 <= task.n_heads) {
    attend<kF16, 2>(task, head);
    head += 2;
  }
  if (head < task.n_heads) attend<kF16, 1>(task, head);
}

void attention(const AttentionTask& task) {
  if (task.kv.is_f16) {
    attend_all<true>(task);
  } else {
    attend_all<false>(task);
  }
}

}  // namespace

const Kernels& table(const char* isa) {
  static const Kernels kernels = {
      isa,
      {matmul_group<DotFloat<DotF32>>, matmul_group<DotFloat<DotF16>>,
       matmul_group<DotFloat<DotBF16>>, matmul_group<DotQ8_0>, matmul_group<DotQ4_0>,
       matmul_group<DotScaledMin<128>>, matmul_group<DotScaledMin<160>>, matmul_group<DotQ6_K>},
      quantize,
      rms_norm,
      add,
      scale,
      swiglu,
      rope,
      to_f16,
      attention,
  };
  return kernels;
}

}  // namespace rocmforge::ROCMFORGE_LANES
