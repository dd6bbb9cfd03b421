// Attention over the paged cache, in splits of absolute positions. Part of kernels_impl.h, whose
// rules hold here. Query rows (tokens x heads) of a task share the loads of keys and values; what a
// row gets depends on its own keys only.

namespace rocmforge::ROCMFORGE_LANES {
namespace {

template <bool kF16>
Floats load_halves(const uint8_t* low, const uint8_t* high) {
  if constexpr (kF16) return f_from_f16_halves(low, high);
  return f_load_halves(reinterpret_cast<const float*>(low), reinterpret_cast<const float*>(high));
}
template <bool kF16>
Floats load_values(const uint8_t* p) {
  if constexpr (kF16) return f_from_f16(p);
  return f_load(reinterpret_cast<const float*>(p));
}
template <bool kF16>
Floats load_half_values(const uint8_t* p) {
  if constexpr (kF16) return f_from_f16_half(p);
  return f_load_half(reinterpret_cast<const float*>(p));
}

// The keys that one query row sees.
struct Range {
  int64_t begin, end;
};

Range intersection(const Range& a, const Range& b) {
  return {a.begin > b.begin ? a.begin : b.begin, a.end < b.end ? a.end : b.end};
}

// Eight keys, dimension by dimension: `step` bytes apart.
template <bool kF16>
const uint8_t* keys_at(const KvView& kv, int head_dim, int64_t position) {
  constexpr int kItem = kF16 ? 2 : 4;
  const int tile = key_tile(kv.block_tokens);
  const int64_t block = kv.block_table[position / kv.block_tokens];
  const int64_t in_block = position % kv.block_tokens;
  return kv.keys + block * kv.block_stride +
         (in_block / tile * tile * head_dim + in_block % tile) * kItem;
}

// Scores of N rows for sixteen positions from `position`, a multiple of 16. Those at or behind `end`
// are of no meaning: their keys may be anything.
template <bool kF16, int N>
void score_sixteen(const AttentionTask& task, const float* const* q, int64_t position, int64_t end,
                   float* scores, int64_t row_stride) {
  const int dim = task.head_dim;
  const int step = key_tile(task.kv.block_tokens) * (kF16 ? 2 : 4);
  const uint8_t* low = keys_at<kF16>(task.kv, dim, position);
  const uint8_t* high = position + 8 < end ? keys_at<kF16>(task.kv, dim, position + 8) : low;
  Floats acc[N];
  for (int r = 0; r < N; ++r) acc[r] = f_set1(0.0f);
  for (int i = 0; i < dim; ++i, low += step, high += step) {
    const Floats keys = load_halves<kF16>(low, high);
    for (int r = 0; r < N; ++r) acc[r] = f_fma(f_set1(q[r][i]), keys, acc[r]);
  }
  const Floats scale = f_set1(task.scale);
  for (int r = 0; r < N; ++r) f_store(scores + r * row_stride, f_mul(acc[r], scale));
}

// scores [kAttentionSplit] of positions from `base` → e^(score - max) where `seen`, 0 elsewhere, up
// to the next multiple of 16; the maximum and the sum of what is seen.
void softmax_split(float* scores, int64_t base, const Range& seen, float& peak, float& sum) {
  const int64_t begin = seen.begin - base, end = seen.end - base;
  const int64_t padded_end = (end + 15) / 16 * 16;
  for (int64_t i = 0; i < begin; ++i) scores[i] = -INFINITY;
  for (int64_t i = end; i < padded_end; ++i) scores[i] = -INFINITY;
  Floats top = f_load(scores);
  for (int64_t i = 16; i < padded_end; i += 16) top = f_max(f_load(scores + i), top);
  float v[16];
  f_store(v, top);
  peak = v[0];
  for (int i = 1; i < 16; ++i) peak = v[i] > peak ? v[i] : peak;
  const Floats shift = f_set1(peak);
  Floats total = f_set1(0.0f);
  for (int64_t i = 0; i < padded_end; i += 16) {
    const Floats e = exp_lanes(f_sub(f_load(scores + i), shift));
    f_store(scores + i, e);
    total = f_add(total, e);
  }
  sum = sum_lanes(total);
}

// Adds sixteen dimensions of the values of [begin, end), weighted, to one row's sum.
template <class Load>
Floats mix_alone(const uint8_t* const* values, const float* weights, int64_t begin, int64_t end,
                 int64_t offset, const Load& load, Floats acc) {
  for (int64_t p = begin; p < end; ++p) {
    acc = f_fma(f_set1(weights[p]), load(values[p] + offset), acc);
  }
  return acc;
}

// Sixteen dimensions of N rows: positions in ascending order for each, loads shared where all see a
// position. Positions are relative to the split.
template <int N, class Load>
void mix_dimensions(const uint8_t* const* values, const float* weights, const Range* seen,
                    const Range& common, int64_t offset, const Load& load, Floats* acc) {
  for (int r = 0; r < N; ++r) {
    const int64_t until = common.begin < seen[r].end ? common.begin : seen[r].end;
    acc[r] = mix_alone(values, weights + r * kAttentionSplit, seen[r].begin, until, offset, load,
                       f_set1(0.0f));
  }
  for (int64_t p = common.begin; p < common.end; ++p) {
    const Floats v = load(values[p] + offset);
    for (int r = 0; r < N; ++r) acc[r] = f_fma(f_set1(weights[r * kAttentionSplit + p]), v, acc[r]);
  }
  for (int r = 0; r < N; ++r) {
    const int64_t from = common.end > seen[r].begin ? common.end : seen[r].begin;
    acc[r] = mix_alone(values, weights + r * kAttentionSplit, from, seen[r].end, offset, load, acc[r]);
  }
}

// Weighted sums of values → mixed [N][head_dim], rows `row_stride` apart.
template <bool kF16, int N>
void mix_rows(const AttentionTask& task, int64_t base, const float* weights, Range* seen,
              float* mixed, int64_t row_stride) {
  constexpr int kItem = kF16 ? 2 : 4;
  const int dim = task.head_dim;
  const uint8_t* values[kAttentionSplit];
  Range all{kAttentionSplit, 0}, common{0, kAttentionSplit};
  for (int r = 0; r < N; ++r) {
    seen[r].begin -= base, seen[r].end -= base;
    if (seen[r].end <= seen[r].begin) seen[r] = {0, 0};
    common = intersection(common, seen[r]);
    all = {seen[r].begin < all.begin ? seen[r].begin : all.begin,
           seen[r].end > all.end ? seen[r].end : all.end};
  }
  if (common.end < common.begin) common.end = common.begin;
  for (int64_t p = all.begin; p < all.end; ++p) {
    const int64_t position = base + p;
    values[p] = task.kv.values +
                task.kv.block_table[position / task.kv.block_tokens] * task.kv.block_stride +
                position % task.kv.block_tokens * dim * kItem;
  }
  Floats acc[N];
  int i = 0;
  for (; i + 16 <= dim; i += 16) {
    mix_dimensions<N>(values, weights, seen, common, i * kItem, load_values<kF16>, acc);
    for (int r = 0; r < N; ++r) f_store(mixed + r * row_stride + i, acc[r]);
  }
  if (i < dim) {
    mix_dimensions<N>(values, weights, seen, common, i * kItem, load_half_values<kF16>, acc);
    for (int r = 0; r < N; ++r) f_store_half(mixed + r * row_stride + i, acc[r]);
  }
}

float exp_one(float x) {
  float v[16];
  f_store(v, exp_lanes(f_set1(x)));
  return v[0];
}

// A row's result so far: its sum of weighted values, their weights' sum, and the largest score.
struct Mixture {
  float* values;
  float peak;
  float sum;
  bool is_empty;
};

// Adds a split (its maximum, sum and mixed values) to what the splits before it gave.
void combine(Mixture& row, const float* mixed, int dim, float peak, float sum) {
  if (row.is_empty) {
    std::memcpy(row.values, mixed, static_cast<size_t>(4 * dim));
    row.peak = peak, row.sum = sum, row.is_empty = false;
    return;
  }
  const float top = peak > row.peak ? peak : row.peak;
  const float keep = exp_one(row.peak - top), take = exp_one(peak - top);
  const Floats keep_all = f_set1(keep), take_all = f_set1(take);
  map_lanes(row.values, row.values, mixed, dim, [keep_all, take_all](Floats a, Floats b) {
    return f_fma(a, keep_all, f_mul(b, take_all));
  });
  row.sum = row.sum * keep + sum * take;
  row.peak = top;
}

Range keys_of(const AttentionTask& task, int row) {
  const int64_t position = task.position + row / task.n_heads;
  const int64_t first = task.window > 0 ? position - task.window + 1 : 0;
  return {first > 0 ? first : 0, position + 1};
}

// One split for N rows from `first_row`: scores, softmax, weighted values, added to what is there.
template <bool kF16, int N>
void attend_split(const AttentionTask& task, const float* const* q, const Range* keys, int64_t split,
                  Mixture* mixtures) {
  float* scores = task.scratch;  // [N][kAttentionSplit]
  float* mixed = scores + N * kAttentionSplit;
  const int64_t stride = task.head_dim + 16;
  const int64_t base = split * kAttentionSplit;
  Range seen[N], any{base + kAttentionSplit, 0};
  for (int r = 0; r < N; ++r) {
    seen[r] = intersection(keys[r], {base, base + kAttentionSplit});
    if (seen[r].end <= seen[r].begin) continue;
    any = {seen[r].begin < any.begin ? seen[r].begin : any.begin,
           seen[r].end > any.end ? seen[r].end : any.end};
  }
  for (int64_t p = any.begin / 16 * 16; p < any.end; p += 16) {
    score_sixteen<kF16, N>(task, q, p, any.end, scores + (p - base), kAttentionSplit);
  }
  float peak[N], sum[N];
  bool is_seen[N];
  for (int r = 0; r < N; ++r) {
    is_seen[r] = seen[r].begin < seen[r].end;
    if (is_seen[r]) softmax_split(scores + r * kAttentionSplit, base, seen[r], peak[r], sum[r]);
  }
  mix_rows<kF16, N>(task, base, scores, seen, mixed, stride);
  for (int r = 0; r < N; ++r) {
    if (is_seen[r]) combine(mixtures[r], mixed + r * stride, task.head_dim, peak[r], sum[r]);
  }
}

template <bool kF16, int N>
void attend(const AttentionTask& task, int first_row) {
  const int dim = task.head_dim;
  const float* q[N];
  Range keys[N];
  Mixture mixtures[N];
  int64_t first = INT64_MAX, last = 0;
  for (int r = 0; r < N; ++r) {
    const int row = first_row + r;
    const int64_t at = row / task.n_heads * task.stride + row % task.n_heads * dim;
    q[r] = task.q + at;
    keys[r] = keys_of(task, row);
    mixtures[r] = {task.out + at, 0.0f, 0.0f, true};
    first = keys[r].begin < first ? keys[r].begin : first;
    last = keys[r].end > last ? keys[r].end : last;
  }
  for (int64_t split = first / kAttentionSplit; split * kAttentionSplit < last; ++split) {
    attend_split<kF16, N>(task, q, keys, split, mixtures);
  }
  for (int r = 0; r < N; ++r) {
    const Floats total = f_set1(mixtures[r].sum);
    float* out = mixtures[r].values;
    map_lanes(out, out, out, dim, [total](Floats a, Floats) { return f_div(a, total); });
  }
}

template <bool kF16, int N>
void attend_rows(const AttentionTask& task, int row) {
  for (; row + N <= task.n_tokens * task.n_heads; row += N) attend<kF16, N>(task, row);
  if constexpr (N > 1) attend_rows<kF16, N / 2>(task, row);
}

void attention(const AttentionTask& task) {
  if (task.kv.is_f16) {
    attend_rows<true, kAttentionRows>(task, 0);
  } else {
    attend_rows<false, kAttentionRows>(task, 0);
  }
}

}  // namespace
}  // namespace rocmforge::ROCMFORGE_LANES
