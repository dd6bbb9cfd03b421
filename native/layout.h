// How the core keeps weights: sixteen rows of a matrix are interleaved ("a group"), so that one
// 64-byte vector holds the same four columns ("a quad") of sixteen rows, row 0's four bytes first, and
// no kernel ever adds across its lanes. Rows that pad the last group are zeros.
//
// A group is its codes, block after block, and then its fields (scales), block after block; each part
// is padded to 64 bytes, so every vector is aligned. Per block and sixteen rows:
//
//                columns  codes                                       fields
//   F32             1     16 x f32
//   F16, BF16       1     16 x 16 bits
//   Q8_0           32     8 vectors: quad v, int8                     d: 16 x f16
//   Q4_0           32     4 vectors: quad v low, v + 4 high nibbles   d
//   IQ4_NL         32     as Q4_0, indices of a table                 d
//   MXFP4          32     as Q4_0, indices of a table                 e: 16 x E8M0
//   Q4_1           32     as Q4_0                                     d, m
//   Q5_0           32     as Q4_0, then a vector of fifth bits:       d
//                         bit v of a byte belongs to quad v
//   Q5_1           32     as Q5_0                                     d, m
//   IQ4_XS        256     8 sub-blocks of 32 columns, as Q4_0         d, 4 pairs of scales
//   Q4_K          256     4 x 8 vectors: quad v of sub-block 2i low,  d, dmin, 4 pairs of scales,
//                         of sub-block 2i + 1 high nibbles            4 pairs of mins
//   Q5_K          256     as Q4_K, then 8 vectors of fifth bits:      as Q4_K
//                         bit s of vector v belongs to quad v of
//                         sub-block s
//   Q6_K          256     2 halves of 128 columns, each 16 vectors    d, 8 pairs of scales
//                         (quad v of sub-blocks 0 and 1 low, of 2
//                         and 3 high nibbles), then 2 x 8 vectors of
//                         upper bit pairs (bits 2s and 2s + 1 belong
//                         to sub-block s), sub-blocks of 32 columns
//
// d, dmin and m are 16 x f16; a pair of scales or mins is 16 x 2 x int8. Dwords of codes are those of
// the file (except fifth bits of Q5_0 and Q5_1): packing is a transposition of 4-byte words.
#pragma once

#include <cstddef>
#include <cstdint>

namespace rocmforge {

constexpr int kGroupRows = 16;

enum class WeightType : int {
  F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, IQ4_NL, MXFP4, IQ4_XS, Q4_K, Q5_K, Q6_K
};
constexpr int kNumWeightTypes = 14;

// What a kernel multiplies a weight with: floats, or int8 with a scale per 32 or 256 columns.
enum class ActKind : int { Float, Int8x32, Int8x256 };

struct WeightLayout {
  const char* name;
  int block_cols;
  int file_bytes;   // of a block of one row, as in the GGUF file
  int code_bytes;   // of a block of sixteen rows, as above
  int field_bytes;  // the same
  ActKind act;
};

constexpr WeightLayout kLayouts[kNumWeightTypes] = {
    {"F32", 1, 4, 64, 0, ActKind::Float},
    {"F16", 1, 2, 32, 0, ActKind::Float},
    {"BF16", 1, 2, 32, 0, ActKind::Float},
    {"Q8_0", 32, 34, 8 * 64, 32, ActKind::Int8x32},
    {"Q4_0", 32, 18, 4 * 64, 32, ActKind::Int8x32},
    {"Q4_1", 32, 20, 4 * 64, 64, ActKind::Int8x32},
    {"Q5_0", 32, 22, 5 * 64, 32, ActKind::Int8x32},
    {"Q5_1", 32, 24, 5 * 64, 64, ActKind::Int8x32},
    {"IQ4_NL", 32, 18, 4 * 64, 32, ActKind::Int8x32},
    {"MXFP4", 32, 17, 4 * 64, 16, ActKind::Int8x32},
    {"IQ4_XS", 256, 136, 32 * 64, 32 + 4 * 32, ActKind::Int8x256},
    {"Q4_K", 256, 144, 32 * 64, 64 + 8 * 32, ActKind::Int8x256},
    {"Q5_K", 256, 176, 40 * 64, 64 + 8 * 32, ActKind::Int8x256},
    {"Q6_K", 256, 210, 48 * 64, 32 + 8 * 32, ActKind::Int8x256},
};

// Nonlinear 4-bit values of IQ4_NL and IQ4_XS, and twice the E2M1 numbers of MXFP4 plus 16.
alignas(16) constexpr int8_t kIq4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                               1,    13,   25,  38,  53,  69,  89,  113};
constexpr int kMxfp4Offset = 16;
alignas(16) constexpr uint8_t kMxfp4Codes[16] = {16, 17, 18, 19, 20, 22, 24, 28,
                                                 16, 15, 14, 13, 12, 10, 8,  4};

constexpr const WeightLayout& layout_of(WeightType type) {
  return kLayouts[static_cast<int>(type)];
}
constexpr int64_t padded(int64_t bytes) { return (bytes + 63) / 64 * 64; }

// Where a group's fields begin, and its size.
inline int64_t fields_offset(WeightType type, int64_t cols) {
  const WeightLayout& layout = layout_of(type);
  return padded(cols / layout.block_cols * layout.code_bytes);
}
inline int64_t group_bytes(WeightType type, int64_t cols) {
  const WeightLayout& layout = layout_of(type);
  return fields_offset(type, cols) + padded(cols / layout.block_cols * layout.field_bytes);
}
inline int64_t group_count(int64_t rows) { return (rows + kGroupRows - 1) / kGroupRows; }
inline int64_t matrix_bytes(WeightType type, int64_t rows, int64_t cols) {
  return group_count(rows) * group_bytes(type, cols);
}

// Interleave `n_rows` (1..16) rows of file blocks into one group, all of whose bytes are written.
void pack_group(WeightType type, const uint8_t* file_rows, int n_rows, int64_t cols, uint8_t* group);

// Decode row `row` of a packed matrix exactly as the format's definition says.
void decode_row(WeightType type, const uint8_t* matrix, int64_t row, int64_t cols, float* out);

}  // namespace rocmforge
