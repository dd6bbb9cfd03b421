// Attention over the paged cache, in splits of absolute positions. Part of kernels_impl.h, whose
// rules hold here.

namespace rocmforge::ROCMFORGE_LANES {
namespace {

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
}  // namespace rocmforge::ROCMFORGE_LANES
