// Replays a recorded forward pass. Every loop is cut by rows, heads or groups of outputs only, so
// that no result depends on the number of threads or on the other rows of the step.
#include "program.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace rocmforge {
namespace {

// A chunk of a loop: enough work that taking it costs nothing beside it (some microseconds).
constexpr int64_t kMatmulWork = 1 << 21;  // multiply-adds
constexpr int64_t kRowWork = 1 << 13;     // floats of a row-wise operation
// A row of weights costs as much as this many rows of activations, when memory is what it waits for.
constexpr int64_t kStreamedRows = 16;
// Query rows (tokens x heads) of an attention task, about.
constexpr int kTaskRows = 32;

int64_t grain_of(int64_t work_per_item, int64_t work) {
  return std::max<int64_t>(1, work / std::max<int64_t>(1, work_per_item));
}

// Operations whose row r reads and writes rows r only.
bool is_row_wise(OpKind kind) { return kind != OpKind::Matmul && kind != OpKind::Attention; }

int64_t scratch_bytes(const KvShape& kv, const Limits& limits) {
  const int64_t n_rows = std::max(limits.max_tokens, limits.max_rows);
  return padded(std::max(matmul_scratch(n_rows), 4 * attention_scratch(kv.head_dim)));
}

}  // namespace

Program::Program(std::shared_ptr<const Weights> weights, std::shared_ptr<ThreadPool> pool,
                 const Kernels& kernels, const KvShape& kv, const Limits& limits,
                 size_t arena_bytes)
    : weights_(std::move(weights)),
      pool_(std::move(pool)),
      kernels_(kernels),
      kv_(kv),
      limits_(limits),
      arena_(arena_bytes),
      cache_(static_cast<size_t>(kv.total_bytes())),
      sequence_of_(static_cast<size_t>(limits.max_tokens)),
      scratch_(static_cast<size_t>(pool_->size() * scratch_bytes(kv, limits))),
      scratch_stride_(scratch_bytes(kv, limits)) {
  tiles_.reserve(static_cast<size_t>(limits.max_tokens));
}

int Program::add_frequencies(std::vector<float> inv_freq) {
  frequencies_.push_back(std::move(inv_freq));
  return static_cast<int>(frequencies_.size()) - 1;
}

// One step: the operations with their buffers resolved.
struct Program::Run {
  Program& p;
  const Step& step;
  float* logits;

  int64_t rows(const Op& op) const { return op.of_rows ? step.n_rows : step.n_tokens; }
  uint8_t* bytes(Place place) const {
    return place == kLogits ? reinterpret_cast<uint8_t*>(logits) : p.arena_.data() + place;
  }
  float* floats(Place place) const { return reinterpret_cast<float*>(bytes(place)); }
  // Row `row` of a buffer of rows of floats.
  float* row_at(Place place, int64_t row, int64_t width) const {
    return floats(place) + row * (place == kLogits ? width : row_floats(width));
  }
  const uint8_t* weight(int64_t offset) const { return p.weights_->data() + offset; }
  const float* vector(int64_t offset) const {
    return reinterpret_cast<const float*>(weight(offset));
  }
  uint8_t* plane(int layer, int part) const {
    return p.cache_.data() + (2 * layer + part) * p.kv_.plane_bytes();
  }

  ActView activations(const Op& op, Place place) const {
    return {bytes(place), layout_of(op.type).act, op.width, rows(op)};
  }
  uint8_t* scratch(int thread) const { return p.scratch_.data() + thread * p.scratch_stride_; }

  void embed(const Op& op, int64_t t) const {
    decode_row(op.type, weight(op.weight), step.token_ids[t], op.width, row_at(op.out, t, op.width));
  }

  void head_norm(const Op& op, int64_t row) const {
    const int64_t dim = op.width / op.n_heads;
    for (int h = 0; h < op.n_heads; ++h) {
      float* head = row_at(op.x, row, op.width) + h * dim;
      p.kernels_.rms_norm(head, vector(op.weight), dim, op.factor, head);
    }
  }

  void rope_tables(const Op& op, int64_t t) const {
    const std::vector<float>& frequencies = p.frequencies_[static_cast<size_t>(op.table)];
    const int64_t half = op.rope_dim / 2;
    float* at = row_at(op.out, t, op.rope_dim);
    for (int64_t i = 0; i < half; ++i) {
      const double product = static_cast<double>(step.positions[t]) *
                             static_cast<double>(frequencies[static_cast<size_t>(i)]);
      const double angle = static_cast<double>(static_cast<float>(product));
      at[i] = static_cast<float>(std::cos(angle) * static_cast<double>(op.factor));
      at[half + i] = static_cast<float>(std::sin(angle) * static_cast<double>(op.factor));
    }
  }

  void rope(const Op& op, int64_t t) const {
    const float* table = row_at(op.y, t, op.rope_dim);
    for (int h = 0; h < op.n_heads; ++h) {
      p.kernels_.rope(row_at(op.x, t, op.width) + h * op.head_dim, table, table + op.rope_dim / 2,
                      op.rope_dim, op.neox);
    }
  }

  void kv_append(const Op& op, int64_t t) const {
    const KvShape& kv = p.kv_;
    const int64_t block = table_of(t)[step.positions[t] / kv.block_tokens] * kv.block_stride();
    const int64_t at = step.positions[t] % kv.block_tokens;
    const float* keys = row_at(op.x, t, op.width);
    const float* values = row_at(op.y, t, op.width);
    for (int64_t h = 0; h < kv.n_kv_heads; ++h) {
      const int64_t head = block + h * kv.head_bytes();
      store_key(plane(op.layer, 0) + head, at, keys + h * kv.head_dim);
      store_value(plane(op.layer, 1) + head, at, values + h * kv.head_dim);
    }
  }

  // n items, `stride` items apart.
  static void scatter(const uint8_t* from, int64_t n, int64_t item, int64_t stride, uint8_t* to) {
    for (int64_t i = 0; i < n; ++i) {
      std::memcpy(to + i * stride * item, from + i * item, static_cast<size_t>(item));
    }
  }

  void store_key(uint8_t* head, int64_t at, const float* key) const {
    const KvShape& kv = p.kv_;
    const int64_t tile = key_tile(kv.block_tokens), item = kv.item_bytes();
    uint8_t* to = head + (at / tile * tile * kv.head_dim + at % tile) * item;
    if (!kv.is_f16) return scatter(reinterpret_cast<const uint8_t*>(key), kv.head_dim, 4, tile, to);
    constexpr int64_t kPiece = 64;
    uint8_t half[2 * kPiece];
    for (int64_t i = 0; i < kv.head_dim; i += kPiece) {
      const int64_t n = std::min(kPiece, kv.head_dim - i);
      p.kernels_.to_f16(key + i, n, half);
      scatter(half, n, 2, tile, to + 2 * i * tile);
    }
  }

  void store_value(uint8_t* head, int64_t at, const float* value) const {
    const KvShape& kv = p.kv_;
    uint8_t* to = head + at * kv.head_dim * kv.item_bytes();
    if (kv.is_f16) {
      p.kernels_.to_f16(value, kv.head_dim, to);
    } else {
      std::memcpy(to, value, static_cast<size_t>(4 * kv.head_dim));
    }
  }

  const int32_t* table_of(int64_t t) const {
    return step.block_tables + p.sequence_of_[static_cast<size_t>(t)] * step.n_blocks_per_table;
  }

  void attention(const Op& op) const {
    const int64_t n_kv_heads = p.kv_.n_kv_heads;
    const int64_t n_tiles = static_cast<int64_t>(p.tiles_.size());
    p.pool_->for_range(n_tiles * n_kv_heads, 1, [&](int64_t begin, int64_t end, int thread) {
      for (int64_t item = begin; item < end; ++item) {
        // Later tokens first: they see more keys, and short tasks fill the end of the loop.
        const int64_t tile = n_tiles - 1 - item / n_kv_heads;
        attend(op, p.tiles_[static_cast<size_t>(tile)], item % n_kv_heads, scratch(thread));
      }
    });
  }

  void attend(const Op& op, const TokenTile& tile, int64_t kv_head, uint8_t* scratch) const {
    const KvShape& kv = p.kv_;
    const int group = op.n_heads / kv.n_kv_heads;
    const int64_t at = kv_head * group * kv.head_dim;
    AttentionTask task;
    task.q = row_at(op.x, tile.first, op.width) + at;
    task.out = row_at(op.out, tile.first, op.width) + at;
    task.stride = row_floats(op.width);
    task.kv = {plane(op.layer, 0) + kv_head * kv.head_bytes(),
               plane(op.layer, 1) + kv_head * kv.head_bytes(),
               kv.block_stride(),
               table_of(tile.first),
               kv.block_tokens,
               kv.is_f16};
    task.n_tokens = tile.n;
    task.n_heads = group;
    task.head_dim = kv.head_dim;
    task.position = step.positions[tile.first];
    task.window = op.window;
    task.scale = op.factor;
    task.scratch = reinterpret_cast<float*>(scratch);
    p.kernels_.attention(task);
  }

  void run_row(const Op& op, int64_t row) const {
    const int64_t w = op.width;
    const Kernels& k = p.kernels_;
    float* x = op.x == kNone ? nullptr : row_at(op.x, row, w);
    switch (op.kind) {
      case OpKind::Embed: return embed(op, row);
      case OpKind::RmsNorm: return k.rms_norm(x, vector(op.weight), w, op.factor, row_at(op.out, row, w));
      case OpKind::HeadNorm: return head_norm(op, row);
      case OpKind::Quantize: return k.quantize(x, activations(op, op.out), row);
      case OpKind::RopeTables: return rope_tables(op, row);
      case OpKind::Rope: return rope(op, row);
      case OpKind::KvAppend: return kv_append(op, row);
      case OpKind::SelectRows:
        std::memcpy(row_at(op.out, row, w), row_at(op.x, step.logits_rows[row], w),
                    static_cast<size_t>(4 * w));
        return;
      case OpKind::Add: return k.add(x, row_at(op.y, row, w), w);
      case OpKind::Swiglu: return k.swiglu(x, row_at(op.y, row, w), w);
      case OpKind::Scale: return k.scale(x, op.factor, w);
      case OpKind::Matmul:
      case OpKind::Attention: return;
    }
  }

  // Row-wise operations [first, last): all of them on a row before the next row.
  void run_rows(const Op* first, const Op* last) const {
    int64_t work = 0;
    for (const Op* op = first; op < last; ++op) work += op->width;
    p.pool_->for_range(rows(*first), grain_of(work, kRowWork),
                       [&](int64_t begin, int64_t end, int) {
                         for (int64_t row = begin; row < end; ++row) {
                           for (const Op* op = first; op < last; ++op) run_row(*op, row);
                         }
                       });
  }

  // Matmuls [first, last): their groups make one list.
  void run_matmuls(const Op* first, const Op* last) const {
    const int64_t n = rows(*first);
    if (n == 0) return;
    int64_t n_groups = 0, work = 0;
    for (const Op* op = first; op < last; ++op) {
      n_groups += group_count(op->n_out);
      work = std::max(work, kGroupRows * op->width * std::max(n, kStreamedRows));
    }
    // Even: kernels may take groups in twos.
    const int64_t grain = (grain_of(work, kMatmulWork) + 1) / 2 * 2;
    p.pool_->for_range(n_groups, grain, [&](int64_t begin, int64_t end, int thread) {
      for (const Op* op = first; op < last && begin < end; ++op) {
        const int64_t count = group_count(op->n_out);
        if (begin < count) matmul(*op, begin, std::min(end, count), scratch(thread));
        begin = std::max<int64_t>(0, begin - count);
        end -= count;
      }
    });
  }

  void matmul(const Op& op, int64_t begin, int64_t end, uint8_t* scratch) const {
    const MatmulTask task{weight(op.weight), op.n_out,
                          op.bias == kNone ? nullptr : vector(op.bias), activations(op, op.x),
                          floats(op.out),
                          op.out == kLogits ? op.n_out : row_floats(op.n_out)};
    p.kernels_.matmul[static_cast<int>(op.type)](task, begin, end, scratch);
  }

  void run_stage(const Op* first, const Op* last) const {
    if (first->kind == OpKind::Matmul) return run_matmuls(first, last);
    if (first->kind == OpKind::Attention) return attention(*first);
    run_rows(first, last);
  }
};

// The end of the loop that begins with `first`.
const Op* Program::stage_end(const Op* first, const Op* end) {
  const Op* op = first + 1;
  while (op < end && op->stage == first->stage && op->of_rows == first->of_rows &&
         first->kind != OpKind::Attention &&
         (first->kind == OpKind::Matmul ? op->kind == OpKind::Matmul : is_row_wise(op->kind))) {
    ++op;
  }
  return op;
}

void Program::plan_attention(const Step& step) {
  tiles_.clear();
  const int32_t most = std::max(1, kTaskRows / tile_heads_);
  for (int64_t s = 0; s < step.n_sequences; ++s) {
    for (int32_t t = step.query_start[s]; t < step.query_start[s + 1]; t += most) {
      tiles_.push_back({t, std::min(most, step.query_start[s + 1] - t)});
    }
  }
}

void Program::copy_blocks(const Step& step) {
  const size_t bytes = static_cast<size_t>(kv_.block_stride());
  for (int64_t plane = 0; plane < 2 * kv_.n_layers; ++plane) {
    uint8_t* base = cache_.data() + plane * kv_.plane_bytes();
    for (int64_t c = 0; c < step.n_copies; ++c) {
      const int32_t from = step.block_copies[2 * c], to = step.block_copies[2 * c + 1];
      std::memmove(base + to * kv_.block_stride(), base + from * kv_.block_stride(), bytes);
    }
  }
}

void Program::run(const Step& step, float* logits, int64_t* counter) {
  for (int64_t s = 0; s < step.n_sequences; ++s) {
    std::fill(sequence_of_.begin() + step.query_start[s],
              sequence_of_.begin() + step.query_start[s + 1], static_cast<int32_t>(s));
  }
  copy_blocks(step);
  plan_attention(step);
  const Run run{*this, step, logits};
  const Op* end = ops_.data() + ops_.size();
  for (const Op* op = ops_.data(); op < end;) {
    const Op* last = stage_end(op, end);
    run.run_stage(op, last);
    std::atomic_ref<int64_t>(*counter).fetch_add(last - op, std::memory_order_relaxed);
    op = last;
  }
}

}  // namespace rocmforge
