// Packing of GGUF blocks into groups of sixteen rows. Block layouts: ggml-common.h's block structs.
#include <cstring>

#include "layout.h"
#include "numeric.h"

namespace rocmforge {
namespace {

// One row's block, and where its group's block has codes and fields. Row r owns dword r of each
// vector of codes, and item r of each array of fields.
struct Place {
  const uint8_t* block;
  uint8_t* codes;
  uint8_t* fields;
  int row;

  // n dwords of the block, from byte `from`, into vectors `vector`, vector + 1, …
  void words(int from, int n, int vector) const {
    for (int i = 0; i < n; ++i) {
      std::memcpy(codes + 64 * (vector + i) + 4 * row, block + from + 4 * i, 4);
    }
  }
  void half(int from, int field) const { std::memcpy(fields + field + 2 * row, block + from, 2); }
  // Value `index` of an array of pairs.
  void paired(int field, int index, int value) const {
    fields[field + index / 2 * 32 + 2 * row + index % 2] = static_cast<uint8_t>(value);
  }
  // The 32 fifth bits of a block (bit j: column j) as bit v of the byte of each column in quad v.
  void fifth_bits(int from, int vector) const {
    const uint32_t bits = load<uint32_t>(block + from);
    for (int c = 0; c < 4; ++c) {
      uint32_t byte = 0;
      for (int v = 0; v < 8; ++v) byte |= ((bits >> (4 * v + c)) & 1u) << v;
      codes[64 * vector + 4 * row + c] = static_cast<uint8_t>(byte);
    }
  }
};

// The 6-bit scales and mins of Q4_K and Q5_K, packed into 12 bytes.
void put_scales_and_mins(const Place& p) {
  const uint8_t* packed = p.block + 4;
  for (int j = 0; j < 4; ++j) {
    p.paired(64, j, packed[j] & 63);
    p.paired(64, j + 4, (packed[j + 8] & 15) | ((packed[j] >> 6) << 4));
    p.paired(192, j, packed[j + 4] & 63);
    p.paired(192, j + 4, (packed[j + 8] >> 4) | ((packed[j + 4] >> 6) << 4));
  }
}

void put_iq4_xs(const Place& p) {
  p.words(8, 32, 0);
  p.half(0, 0);
  const uint32_t high = load<uint16_t>(p.block + 2);
  for (int s = 0; s < 8; ++s) {
    const uint32_t low = (p.block[4 + s / 2] >> (4 * (s % 2))) & 15u;
    p.paired(32, s, static_cast<int>(low | (((high >> (2 * s)) & 3u) << 4)) - 32);
  }
}

void put_q6_k(const Place& p) {
  p.words(0, 32, 0);
  p.words(128, 16, 32);
  p.half(208, 0);
  for (int s = 0; s < 16; ++s) p.paired(32, s, static_cast<int8_t>(p.block[192 + s]));
}

void put_block(WeightType type, const Place& p) {
  switch (type) {
    case WeightType::Q8_0: p.half(0, 0), p.words(2, 8, 0); break;
    case WeightType::Q4_0:
    case WeightType::IQ4_NL: p.half(0, 0), p.words(2, 4, 0); break;
    case WeightType::MXFP4: p.fields[p.row] = p.block[0], p.words(1, 4, 0); break;
    case WeightType::Q4_1: p.half(0, 0), p.half(2, 32), p.words(4, 4, 0); break;
    case WeightType::Q5_0: p.half(0, 0), p.words(6, 4, 0), p.fifth_bits(2, 4); break;
    case WeightType::Q5_1:
      p.half(0, 0), p.half(2, 32), p.words(8, 4, 0), p.fifth_bits(4, 4);
      break;
    case WeightType::IQ4_XS: put_iq4_xs(p); break;
    case WeightType::Q4_K:
      p.half(0, 0), p.half(2, 32), put_scales_and_mins(p), p.words(16, 32, 0);
      break;
    case WeightType::Q5_K:
      p.half(0, 0), p.half(2, 32), put_scales_and_mins(p), p.words(48, 32, 0), p.words(16, 8, 32);
      break;
    case WeightType::Q6_K: put_q6_k(p); break;
    default:  // float types: one item per column
      std::memcpy(p.codes + p.row * layout_of(type).file_bytes, p.block,
                  static_cast<size_t>(layout_of(type).file_bytes));
  }
}

}  // namespace

void pack_group(WeightType type, const uint8_t* file_rows, int n_rows, int64_t cols,
                uint8_t* group) {
  const WeightLayout& layout = layout_of(type);
  const int64_t n_blocks = cols / layout.block_cols;
  const int64_t row_bytes = n_blocks * layout.file_bytes;
  uint8_t* fields = group + fields_offset(type, cols);
  if (n_rows < kGroupRows || n_blocks * layout.code_bytes % 64 || n_blocks * layout.field_bytes % 64) {
    std::memset(group, 0, static_cast<size_t>(group_bytes(type, cols)));
  }
  for (int64_t b = 0; b < n_blocks; ++b) {
    for (int row = 0; row < n_rows; ++row) {
      put_block(type, {file_rows + row * row_bytes + b * layout.file_bytes,
                       group + b * layout.code_bytes, fields + b * layout.field_bytes, row});
    }
  }
}

}  // namespace rocmforge
