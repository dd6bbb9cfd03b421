// The table of kernels that an ISA fills. Every row of results depends only on its own inputs, and
// each table gives the same bits: kernels_impl.h is compiled once per ISA.
#pragma once

#include <cstddef>
#include <cstdint>

#include "layout.h"

namespace rocmforge {

// Keys of one (token, head) are summed in splits of this many absolute positions.
constexpr int kAttentionSplit = 128;

// One row of a matmul's input: `x` for float weights, the rest for quantised ones.
struct ActRow {
  const float* x = nullptr;
  const int8_t* q = nullptr;      // [cols]
  const float* d = nullptr;       // scale per block of 32 or 256
  const int32_t* sums = nullptr;  // sums of q per 32 (Int8x32) or per 16 (Int8x256)
};

// Where one kv head of one layer finds its keys and values: base + block · block_stride bytes.
struct KvView {
  const uint8_t* keys;
  const uint8_t* values;
  int64_t block_stride;
  const int32_t* block_table;
  int block_tokens;
  bool is_f16;
};

// Attention of the `n_heads` query heads [n_heads, head_dim] that share a kv head, for one token.
// Keys first … last (inclusive) are seen. `scratch` holds attention_scratch() floats.
struct AttentionTask {
  const float* q;
  float* out;
  KvView kv;
  int n_heads;
  int head_dim;
  int64_t first;
  int64_t last;
  float scale;
  float* scratch;
};

constexpr int64_t attention_scratch(int n_heads, int head_dim) {
  return static_cast<int64_t>(n_heads) * (kAttentionSplit + head_dim + 2);
}

struct Kernels {
  const char* isa;
  // out [n][8] = dot products of n activation rows with a group of eight weight rows.
  void (*matmul[kNumWeightTypes])(const uint8_t* group, int64_t n_blocks, const ActRow* rows, int n,
                                  float* out);
  // int8 with scale max|x| / 127, rounded half to even; a block of zeros has scale 0.
  void (*quantize)(const float* x, int64_t cols, int block, int sum_every, int8_t* q, float* d,
                   int32_t* sums);
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
#endif

// Tables of this machine, best first; the scalar one is always there.
int available_kernels(const Kernels* (&tables)[2]);

// Compares a table with the scalar one on fixed inputs → names of the kernels that differ, joined
// with ", " (empty: none). `names` has room for `size` bytes.
void self_test(const Kernels& table, char* names, size_t size);

}  // namespace rocmforge
