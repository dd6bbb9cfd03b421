// Replays a recorded forward pass. Every loop is cut by rows, heads or groups of outputs only, so
// that no result depends on the number of threads or on the other rows of the step.
#include "program.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace rocmforge {
namespace {

// A chunk of a matmul: enough work that taking it costs nothing beside it (about 20 µs).
constexpr int64_t kMatmulWork = 1 << 18;  // multiply-adds
constexpr int64_t kRowWork = 1 << 13;     // floats of a row-wise operation

int64_t grain_of(int64_t work_per_item, int64_t work) {
  return std::max<int64_t>(1, work / std::max<int64_t>(1, work_per_item));
}

int sum_every(ActKind act) { return act == ActKind::Int8x32 ? 32 : 16; }
int scale_every(ActKind act) { return act == ActKind::Int8x32 ? 32 : 256; }

ActRow act_row(ActKind act, const uint8_t* at, int64_t cols) {
  ActRow row;
  if (act == ActKind::Float) {
    row.x = reinterpret_cast<const float*>(at);
    return row;
  }
  row.q = reinterpret_cast<const int8_t*>(at);
  row.d = reinterpret_cast<const float*>(at + cols);
  row.sums = reinterpret_cast<const int32_t*>(at + cols + 4 * (cols / scale_every(act)));
  return row;
}

}  // namespace

int64_t quantized_row_bytes(ActKind act, int64_t cols) {
  const int64_t bytes = cols + 4 * (cols / scale_every(act)) + 4 * (cols / sum_every(act));
  return (bytes + 63) / 64 * 64;
}

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
      sequence_of_(static_cast<size_t>(limits.max_tokens)) {}

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
  const uint8_t* weight(int64_t offset) const { return p.weights_->data() + offset; }
  const float* vector(int64_t offset) const {
    return reinterpret_cast<const float*>(weight(offset));
  }
  uint8_t* plane(int layer, int part) const {
    return p.cache_.data() + (2 * layer + part) * p.kv_.plane_bytes();
  }

  // f(row) for every row of the operation, `work` floats each.
  template <class F>
  void each_row(const Op& op, int64_t work, const F& f) const {
    p.pool_->for_range(rows(op), grain_of(work, kRowWork), [&f](int64_t begin, int64_t end, int) {
      for (int64_t row = begin; row < end; ++row) f(row);
    });
  }

  void embed(const Op& op) const {
    each_row(op, op.width, [&](int64_t t) {
      decode_row(op.type, weight(op.weight), step.token_ids[t], op.width,
                 floats(op.out) + t * op.width);
    });
  }

  void rms_norm(const Op& op) const {
    each_row(op, op.width, [&](int64_t row) {
      p.kernels_.rms_norm(floats(op.x) + row * op.width, vector(op.weight), op.width, op.factor,
                          floats(op.out) + row * op.width);
    });
  }

  void head_norm(const Op& op) const {
    const int64_t dim = op.width / op.n_heads;
    each_row(op, op.width, [&](int64_t row) {
      for (int h = 0; h < op.n_heads; ++h) {
        float* head = floats(op.x) + row * op.width + h * dim;
        p.kernels_.rms_norm(head, vector(op.weight), dim, op.factor, head);
      }
    });
  }

  void quantize(const Op& op) const {
    const ActKind act = layout_of(op.type).act;
    const int64_t stride = quantized_row_bytes(act, op.width);
    each_row(op, op.width, [&](int64_t row) {
      uint8_t* at = bytes(op.out) + row * stride;
      auto* d = reinterpret_cast<float*>(at + op.width);
      auto* sums = reinterpret_cast<int32_t*>(d + op.width / scale_every(act));
      p.kernels_.quantize(floats(op.x) + row * op.width, op.width, scale_every(act), sum_every(act),
                          reinterpret_cast<int8_t*>(at), d, sums);
    });
  }

  void matmul(const Op& op) const {
    const int64_t n = rows(op);
    const int64_t stride = group_bytes(op.type, op.width);
    if (n == 0) return;
    p.pool_->for_range(group_count(op.n_out), grain_of(8 * op.width * n, kMatmulWork),
                       [&](int64_t begin, int64_t end, int) {
                         for (int64_t g = begin; g < end; ++g) {
                           matmul_group(op, weight(op.weight) + g * stride, g, n);
                         }
                       });
  }

  // All rows of the step times one group of eight outputs, 16 rows at a time.
  void matmul_group(const Op& op, const uint8_t* group, int64_t g, int64_t n) const {
    constexpr int64_t kRows = 16;
    const WeightLayout& layout = layout_of(op.type);
    const int64_t stride =
        layout.act == ActKind::Float ? 4 * op.width : quantized_row_bytes(layout.act, op.width);
    const int n_lanes = static_cast<int>(std::min<int64_t>(kGroupRows, op.n_out - kGroupRows * g));
    ActRow rows[kRows];
    float out[kRows * kGroupRows];
    for (int64_t t = 0; t < n; t += kRows) {
      const int count = static_cast<int>(std::min(kRows, n - t));
      for (int i = 0; i < count; ++i) {
        rows[i] = act_row(layout.act, bytes(op.x) + (t + i) * stride, op.width);
      }
      p.kernels_.matmul[static_cast<int>(op.type)](group, op.width / layout.block_cols, rows, count,
                                                   out);
      for (int i = 0; i < count; ++i) {
        float* to = floats(op.out) + (t + i) * op.n_out + kGroupRows * g;
        for (int lane = 0; lane < n_lanes; ++lane) {
          const float sum = out[i * kGroupRows + lane];
          to[lane] = op.bias == kNone ? sum : sum + vector(op.bias)[kGroupRows * g + lane];
        }
      }
    }
  }

  void rope_tables(const Op& op) const {
    const std::vector<float>& frequencies = p.frequencies_[static_cast<size_t>(op.table)];
    const int64_t half = op.rope_dim / 2;
    each_row(op, 16 * op.rope_dim, [&](int64_t t) {
      float* at = floats(op.out) + t * op.rope_dim;
      for (int64_t i = 0; i < half; ++i) {
        const double product = static_cast<double>(step.positions[t]) *
                               static_cast<double>(frequencies[static_cast<size_t>(i)]);
        const double angle = static_cast<double>(static_cast<float>(product));
        at[i] = static_cast<float>(std::cos(angle) * static_cast<double>(op.factor));
        at[half + i] = static_cast<float>(std::sin(angle) * static_cast<double>(op.factor));
      }
    });
  }

  void rope(const Op& op) const {
    each_row(op, op.width, [&](int64_t t) {
      const float* table = floats(op.y) + t * op.rope_dim;
      for (int h = 0; h < op.n_heads; ++h) {
        p.kernels_.rope(floats(op.x) + t * op.width + h * op.head_dim, table,
                        table + op.rope_dim / 2, op.rope_dim, op.neox);
      }
    });
  }

  void kv_append(const Op& op) const {
    each_row(op, 2 * op.width, [&](int64_t t) {
      store_kv(plane(op.layer, 0), floats(op.x) + t * op.width, t);
      store_kv(plane(op.layer, 1), floats(op.y) + t * op.width, t);
    });
  }

  void store_kv(uint8_t* to, const float* row, int64_t t) const {
    const KvShape& kv = p.kv_;
    const int64_t item = kv.is_f16 ? 2 : 4;
    const int64_t block = table_of(t)[step.positions[t] / kv.block_tokens];
    uint8_t* at = to + block * kv.block_stride() +
                  step.positions[t] % kv.block_tokens * kv.head_dim * item;
    for (int h = 0; h < kv.n_kv_heads; ++h, at += kv.head_bytes(), row += kv.head_dim) {
      if (kv.is_f16) {
        p.kernels_.to_f16(row, kv.head_dim, at);
      } else {
        std::memcpy(at, row, static_cast<size_t>(4 * kv.head_dim));
      }
    }
  }

  const int32_t* table_of(int64_t t) const {
    return step.block_tables + p.sequence_of_[static_cast<size_t>(t)] * step.n_blocks_per_table;
  }

  void attention(const Op& op) const {
    const KvShape& kv = p.kv_;
    const int group = op.n_heads / kv.n_kv_heads;
    p.pool_->for_range(rows(op) * kv.n_kv_heads, 1, [&](int64_t begin, int64_t end, int thread) {
      for (int64_t item = begin; item < end; ++item) {
        // Later tokens first: they see more keys, and short tasks fill the end of the loop.
        const int64_t t = rows(op) - 1 - item / kv.n_kv_heads;
        const int64_t h = item % kv.n_kv_heads;
        attend(op, t, h, group,
               p.scratch_.data() + thread * attention_scratch(group, kv.head_dim));
      }
    });
  }

  void attend(const Op& op, int64_t t, int64_t kv_head, int group, float* scratch) const {
    const KvShape& kv = p.kv_;
    const int64_t head = t * op.n_heads + kv_head * group;
    AttentionTask task;
    task.q = floats(op.x) + head * kv.head_dim;
    task.out = floats(op.out) + head * kv.head_dim;
    task.kv = {plane(op.layer, 0) + kv_head * kv.head_bytes(),
               plane(op.layer, 1) + kv_head * kv.head_bytes(),
               kv.block_stride(),
               table_of(t),
               kv.block_tokens,
               kv.is_f16};
    task.n_heads = group;
    task.head_dim = kv.head_dim;
    task.last = step.positions[t];
    task.first = op.window > 0 ? std::max<int64_t>(0, task.last - op.window + 1) : 0;
    task.scale = op.factor;
    task.scratch = scratch;
    p.kernels_.attention(task);
  }

  void select_rows(const Op& op) const {
    for (int64_t r = 0; r < step.n_rows; ++r) {
      std::memcpy(floats(op.out) + r * op.width, floats(op.x) + step.logits_rows[r] * op.width,
                  static_cast<size_t>(4 * op.width));
    }
  }

  void run(const Op& op) const {
    const int64_t w = op.width;
    switch (op.kind) {
      case OpKind::Embed: return embed(op);
      case OpKind::RmsNorm: return rms_norm(op);
      case OpKind::HeadNorm: return head_norm(op);
      case OpKind::Quantize: return quantize(op);
      case OpKind::Matmul: return matmul(op);
      case OpKind::RopeTables: return rope_tables(op);
      case OpKind::Rope: return rope(op);
      case OpKind::KvAppend: return kv_append(op);
      case OpKind::Attention: return attention(op);
      case OpKind::SelectRows: return select_rows(op);
      case OpKind::Add:
        return each_row(
            op, w, [&](int64_t r) { p.kernels_.add(floats(op.x) + r * w, floats(op.y) + r * w, w); });
      case OpKind::Swiglu:
        return each_row(op, 4 * w, [&](int64_t r) {
          p.kernels_.swiglu(floats(op.x) + r * w, floats(op.y) + r * w, w);
        });
      case OpKind::Scale:
        return each_row(
            op, w, [&](int64_t r) { p.kernels_.scale(floats(op.x) + r * w, op.factor, w); });
    }
  }
};

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
  const Run run{*this, step, logits};
  for (const Op& op : ops_) {
    run.run(op);
    std::atomic_ref<int64_t>(*counter).fetch_add(1, std::memory_order_relaxed);
  }
}

}  // namespace rocmforge
