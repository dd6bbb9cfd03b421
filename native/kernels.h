// The table of kernels that an ISA fills. Every row of results depends only on its own inputs, and
// each table gives the same bits: kernels_impl.h is compiled once per ISA.
#pragma once

#include <cstddef>
#include <cstdint>

#include "layout.h"

namespace rocmforge {

// Keys of one (token, head) are summed in splits of this many absolute positions.
constexpr int kAttentionSplit = 128;

constexpr int scale_every(ActKind act) { return act == ActKind::Int8x32 ? 32 : 256; }

// How far apart rows of floats lie: an odd number of cache lines, so that many rows of one column do
// not meet in one set of the caches.
constexpr int64_t row_floats(int64_t width) { return (width + 15) / 32 * 32 + 16; }

// Rows of activations of one width: floats [n_rows, cols], rows row_floats(cols) apart, or (n16 is n_rows, rounded up to 16)
//
//   int8 [n16, cols], rows a little more than cols apart
//   f32 scales [n16 / 16][blocks][16]: those of sixteen rows side by side, for each block of columns
//   Int8x32    int32 sums of 32 columns each, as the scales
//   Int8x256   int16 sums [n16, cols / 16] of 16 columns each | int16 sums [n16, cols / 32] of 32
struct ActView {
  uint8_t* base;
  ActKind act;
  int64_t cols;
  int64_t n_rows;

  int64_t n16() const { return (n_rows + 15) / 16 * 16; }
  // Not a multiple of 128: neighbouring rows must not meet in the same sets of the first cache.
  int64_t q_stride() const { return (cols + 127) / 128 * 128 + 64; }
  int64_t n_blocks() const { return cols / scale_every(act); }
  int64_t bytes() const {
    if (act == ActKind::Float) return 4 * n_rows * row_floats(cols);
    const int64_t fields =
        act == ActKind::Int8x32 ? 8 * n_blocks() : 4 * n_blocks() + 2 * (cols / 16) + 2 * (cols / 32);
    return n16() * (q_stride() + fields);
  }

  float* x(int64_t t) const { return reinterpret_cast<float*>(base) + t * row_floats(cols); }
  int8_t* q(int64_t t) const { return reinterpret_cast<int8_t*>(base) + t * q_stride(); }
  // Of block b: d(t)[16 * b], sums(t)[16 * b].
  float* d(int64_t t) const { return reinterpret_cast<float*>(base + n16() * q_stride()) + tiled(t); }
  int32_t* sums(int64_t t) const {
    return reinterpret_cast<int32_t*>(base + n16() * (q_stride() + 4 * n_blocks())) + tiled(t);
  }
  int16_t* sums16(int64_t t) const {
    return reinterpret_cast<int16_t*>(base + n16() * (q_stride() + 4 * n_blocks())) + t * (cols / 16);
  }
  int16_t* sums32(int64_t t) const { return sums16(n16()) + t * (cols / 32); }

 private:
  int64_t tiled(int64_t t) const { return t / 16 * 16 * n_blocks() + t % 16; }
};

// out [n_rows, n_out] = x [n_rows, cols] · weightsᵀ (+ bias [n_out])
struct MatmulTask {
  const uint8_t* weights;
  int64_t n_out;
  const float* bias;  // nullptr: none
  ActView x;
  float* out;
  int64_t out_stride;  // floats from row to row
};

// Bytes that a matmul over n_rows rows needs beside its buffers: the totals of two groups while the
// columns go by in chunks, and room for unpacked weights.
constexpr int64_t kUnpackedBytes = int64_t{64} << 10;
constexpr int64_t matmul_scratch(int64_t n_rows) {
  return kUnpackedBytes + n_rows * 2 * kGroupRows * 4;
}

// Where one kv head of one layer finds its keys and values: base + block · block_stride bytes. Keys
// lie [P / W][D][W] in a block (W positions, 16 or 8, side by side), values [P][D].
struct KvView {
  const uint8_t* keys;
  const uint8_t* values;
  int64_t block_stride;
  const int32_t* block_table;
  int block_tokens;
  bool is_f16;
};

// Positions of a block that lie side by side in its keys.
constexpr int key_tile(int block_tokens) { return block_tokens < 16 ? 8 : 16; }

// Attention of the `n_heads` query heads that share a kv head, for `n_tokens` tokens in a row, the
// first at `position`. Token t's heads begin at q + t · stride, its results at out + t · stride. It
// sees the keys up to itself, the last `window` of them when window > 0. `scratch` holds
// attention_scratch() floats.
struct AttentionTask {
  const float* q;
  float* out;
  int64_t stride;
  KvView kv;
  int n_tokens;
  int n_heads;
  int head_dim;
  int64_t position;
  int64_t window;
  float scale;
  float* scratch;
};

// Query rows (tokens x heads) that share the loads of keys and values.
constexpr int kAttentionRows = 8;
constexpr int64_t attention_scratch(int head_dim) {
  return int64_t{kAttentionRows} * (kAttentionSplit + 2 * (head_dim + 16));
}

struct Kernels {
  const char* isa;
  // The outputs of groups [begin, end); scratch holds matmul_scratch(n_rows) bytes, aligned to 64.
  void (*matmul[kNumWeightTypes])(const MatmulTask& task, int64_t begin, int64_t end,
                                  uint8_t* scratch);
  // A row of floats → int8 with scale max|x| / 127, rounded half to even; a block of zeros has
  // scale 0.
  void (*quantize)(const float* x, const ActView& to, int64_t row);
  void (*rms_norm)(const float* x, const float* weight, int64_t n, float eps, float* out);
  void (*add)(float* x, const float* y, int64_t n);
  void (*scale)(float* x, float factor, int64_t n);
  void (*swiglu)(float* gate, const float* up, int64_t n);
  void (*rope)(float* head, const float* cosines, const float* sines, int rope_dim, bool neox);
  void (*to_f16)(const float* x, int64_t n, uint8_t* out);
  void (*attention)(const AttentionTask& task);
};

const Kernels& scalar_kernels();
#ifdef ROCMFORGE_X86
const Kernels& avx2_kernels();
const Kernels& avxvnni_kernels();
const Kernels& avx512_kernels();
const Kernels& amx_kernels();
#endif
#ifdef ROCMFORGE_ARM
const Kernels& neon_kernels();
#endif

// Tables of this machine, best first; the scalar one is always there. Returns how many.
constexpr int kMaxTables = 5;
int available_kernels(const Kernels* (&tables)[kMaxTables]);

// Compares a table with the scalar one on fixed inputs → names of the kernels that differ, joined
// with ", " (empty: none). `names` has room for `size` bytes.
void self_test(const Kernels& table, char* names, size_t size);

}  // namespace rocmforge
