// How the core keeps weights: eight rows of a matrix are interleaved ("a group"), so that one vector
// register holds the same columns of eight rows and no kernel ever adds across its lanes.
//
// A group is the concatenation of its blocks, columns ascending; row r of the group is lane r. Rows
// that pad the last group are zeros. A "quad" is four neighbouring columns: 4 bytes of every row, 32
// bytes in all (row 0's four first). Per block:
//
//   F32          1 column    8 x f32
//   F16, BF16    1 column    8 x 16 bits
//   Q8_0        32 columns   d: 8 x f16 | quads 0..7, int8
//   Q4_0        32 columns   d: 8 x f16 | 4 vectors: quad v in the low nibbles, quad v + 4 in the high
//   Q4_K       256 columns   d, dmin: 8 x f16 each | 8 x 8 scales, 8 x 8 mins, u8 | 8 sub-blocks of 32
//                            columns, each as in Q4_0
//   Q5_K       256 columns   as Q4_K, but each sub-block is followed by a vector of fifth bits: bit v
//                            of a byte belongs to quad v
//   Q6_K       256 columns   d: 8 x f16 | 16 x 8 scales, int8 | 16 sub-blocks of 16 columns: 2 vectors
//                            (quad v low, quad v + 2 high nibbles) and one of upper bit pairs (bits
//                            2v and 2v + 1 belong to quad v)
#pragma once

#include <cstddef>
#include <cstdint>

namespace rocmforge {

constexpr int kGroupRows = 8;

enum class WeightType : int { F32, F16, BF16, Q8_0, Q4_0, Q4_K, Q5_K, Q6_K };
constexpr int kNumWeightTypes = 8;

// What a kernel multiplies a weight with: floats, or int8 with a scale per 32 or 256 columns.
enum class ActKind : int { Float, Int8x32, Int8x256 };

struct WeightLayout {
  const char* name;
  int block_cols;
  int file_block_bytes;   // per row, as in the GGUF file
  int group_block_bytes;  // per eight rows, as above
  ActKind act;
};

constexpr WeightLayout kLayouts[kNumWeightTypes] = {
    {"F32", 1, 4, 32, ActKind::Float},
    {"F16", 1, 2, 16, ActKind::Float},
    {"BF16", 1, 2, 16, ActKind::Float},
    {"Q8_0", 32, 34, 16 + 8 * 32, ActKind::Int8x32},
    {"Q4_0", 32, 18, 16 + 4 * 32, ActKind::Int8x32},
    {"Q4_K", 256, 144, 32 + 128 + 8 * 4 * 32, ActKind::Int8x256},
    {"Q5_K", 256, 176, 32 + 128 + 8 * 5 * 32, ActKind::Int8x256},
    {"Q6_K", 256, 210, 16 + 128 + 16 * 3 * 32, ActKind::Int8x256},
};

constexpr const WeightLayout& layout_of(WeightType type) {
  return kLayouts[static_cast<int>(type)];
}

inline int64_t group_bytes(WeightType type, int64_t cols) {
  const WeightLayout& layout = layout_of(type);
  return cols / layout.block_cols * layout.group_block_bytes;
}
inline int64_t group_count(int64_t rows) { return (rows + kGroupRows - 1) / kGroupRows; }
inline int64_t matrix_bytes(WeightType type, int64_t rows, int64_t cols) {
  return group_count(rows) * group_bytes(type, cols);
}

// Interleave `n_rows` (1..8) rows of file blocks into one group; missing rows become zeros.
void pack_group(WeightType type, const uint8_t* file_rows, int n_rows, int64_t cols, uint8_t* group);

// Decode row `row` of a packed matrix exactly as the format's definition says.
void decode_row(WeightType type, const uint8_t* matrix, int64_t row, int64_t cols, float* out);

}  // namespace rocmforge
