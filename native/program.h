// A recorded forward pass: the operations of a model in order, over buffers whose places were planned
// when it was recorded, replayed for any step within the limits.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "arena.h"
#include "kernels.h"
#include "thread_pool.h"

namespace rocmforge {

// Weights of one backend: bytes, packed as layout.h says or plain floats (vectors).
using Weights = Arena;

// Rows of activations as ActView has them: bytes from the arena's start, or the logits [R, V].
using Place = int64_t;
constexpr Place kLogits = -1;
constexpr int64_t kNone = -2;

struct KvShape {
  int n_layers = 0;
  int n_kv_heads = 0;
  int head_dim = 0;
  int64_t n_blocks = 0;
  int block_tokens = 0;
  bool is_f16 = true;

  int64_t item_bytes() const { return is_f16 ? 2 : 4; }
  // One head in one block; how keys and values lie in it: KvView.
  int64_t head_bytes() const { return int64_t{block_tokens} * head_dim * item_bytes(); }
  int64_t block_stride() const { return n_kv_heads * head_bytes(); }
  int64_t plane_bytes() const { return n_blocks * block_stride(); }   // keys or values of a layer
  int64_t total_bytes() const { return 2 * n_layers * plane_bytes(); }
};

struct Limits {
  int64_t max_tokens = 0;
  int64_t max_sequences = 0;
  int64_t max_rows = 0;
  int64_t max_blocks = 0;  // per sequence
  int64_t logits_width = 0;
};

// Arrays of engine/step_plan.py, int32, contiguous.
struct Step {
  const int32_t* token_ids;
  const int32_t* positions;
  const int32_t* query_start;
  const int32_t* context_len;
  const int32_t* block_tables;
  const int32_t* logits_rows;
  const int32_t* block_copies;
  int64_t n_tokens, n_sequences, n_blocks_per_table, n_rows, n_copies;
};

enum class OpKind : int {
  Embed,       // out [rows, width] from the table at weight
  RmsNorm,     // x → out, weight floats [width]
  HeadNorm,    // x in place, n_heads heads of width / n_heads; weight floats
  Quantize,    // x → out (int8 rows as act says)
  Matmul,      // x (float or int8 rows) → out [rows, n_out], weight packed, bias floats or kNone
  Add,         // x += y
  RopeTables,  // cosines and sines → out [T, rope_dim]; table is the index of the frequencies
  Rope,        // x in place; y are the tables
  KvAppend,    // x keys, y values → layer
  Attention,   // x queries → out
  Swiglu,      // x = silu(x) · y
  Scale,       // x *= factor
  SelectRows,  // x [T] → out [R]
};

struct Op {
  OpKind kind;
  // Operations in a row with the same stage run in one loop: row by row, so that a row stays in the
  // first cache, or (matmuls) as one list of groups. They must not need other rows of each other.
  int stage = 0;
  bool of_rows = false;  // R rows instead of T
  Place x = kNone, y = kNone, out = kNone;
  int64_t width = 0;
  int64_t n_out = 0;
  int64_t weight = kNone, bias = kNone;  // byte offsets in the weights
  WeightType type = WeightType::F32;
  int layer = 0, n_heads = 0, head_dim = 0, rope_dim = 0, window = 0, table = 0;
  bool neox = false;
  float factor = 0.0f;  // epsilon, scale or magnitude
};

class Program {
 public:
  Program(std::shared_ptr<const Weights> weights, std::shared_ptr<ThreadPool> pool,
          const Kernels& kernels, const KvShape& kv, const Limits& limits, size_t arena_bytes);

  // Appends an operation. Throws std::invalid_argument when a buffer or a weight lies outside.
  void add(const Op& op);
  int add_frequencies(std::vector<float> inv_freq);

  // Throws std::invalid_argument naming the array that is not what StepPlan promises.
  void check(const Step& step) const;
  // Runs all operations; logits [R, V]. `counter` grows by one per operation.
  void run(const Step& step, float* logits, int64_t* counter);
  int64_t logits_width() const { return limits_.logits_width; }

 private:
  struct Run;
  friend struct Run;

  void check_place(Place place, int64_t width, bool of_rows) const;
  void check_activations(const Op& op, Place place) const;
  void check_floats(int64_t offset, int64_t n) const;
  void copy_blocks(const Step& step);
  void plan_attention(const Step& step);
  static const Op* stage_end(const Op* first, const Op* end);

  std::shared_ptr<const Weights> weights_;
  std::shared_ptr<ThreadPool> pool_;
  const Kernels& kernels_;
  KvShape kv_;
  Limits limits_;
  Arena arena_;
  Arena cache_;
  std::vector<Op> ops_;
  std::vector<std::vector<float>> frequencies_;
  // Neighbouring tokens of one sequence, which attention takes together.
  struct TokenTile {
    int32_t first;
    int32_t n;
  };
  std::vector<int32_t> sequence_of_;  // [max_tokens]
  std::vector<TokenTile> tiles_;      // of the step
  int tile_heads_ = 1;                // query heads per kv head
  Arena scratch_;                     // a part for each thread
  int64_t scratch_stride_;
};

}  // namespace rocmforge
