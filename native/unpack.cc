// Decoding of single rows of packed matrices, for embeddings. Formulas: ggml-quants.c.
#include "layout.h"
#include "numeric.h"

namespace rocmforge {
namespace {

// One row in a block of a group, as layout.h draws it.
struct Cell {
  const uint8_t* codes;
  const uint8_t* fields;
  int row;

  float half(int field) const { return f16_to_f32(load<uint16_t>(fields + field + 2 * row)); }
  uint32_t code(int vector, int column_in_quad) const {
    return codes[64 * vector + 4 * row + column_in_quad];
  }
  float paired(int field, int index) const {
    const uint8_t byte = fields[field + index / 2 * 32 + 2 * row + index % 2];
    return static_cast<float>(static_cast<int8_t>(byte));
  }
};

uint32_t nibble32(const Cell& cell, int first_vector, int column) {
  const uint32_t byte = cell.code(first_vector + column % 16 / 4, column % 4);
  return column < 16 ? byte & 15u : byte >> 4;
}

uint32_t five32(const Cell& cell, int column) {
  const uint32_t fifth = (cell.code(4, column % 4) >> (column / 4)) & 1u;
  return nibble32(cell, 0, column) | (fifth << 4);
}

void decode32(WeightType type, const Cell& cell, float* out) {
  const bool is_mxfp4 = type == WeightType::MXFP4;
  const float d = is_mxfp4 ? e8m0_halved_to_f32(cell.fields[cell.row]) : cell.half(0);
  const float m = layout_of(type).field_bytes == 64 ? cell.half(32) : 0.0f;
  for (int i = 0; i < 32; ++i) {
    switch (type) {
      case WeightType::Q8_0:
        out[i] = d * static_cast<float>(static_cast<int8_t>(cell.code(i / 4, i % 4)));
        break;
      case WeightType::Q4_0:
        out[i] = d * static_cast<float>(static_cast<int>(nibble32(cell, 0, i)) - 8);
        break;
      case WeightType::IQ4_NL: out[i] = d * static_cast<float>(kIq4Values[nibble32(cell, 0, i)]); break;
      case WeightType::MXFP4:
        out[i] = d * static_cast<float>(kMxfp4Codes[nibble32(cell, 0, i)] - kMxfp4Offset);
        break;
      case WeightType::Q4_1: out[i] = d * static_cast<float>(nibble32(cell, 0, i)) + m; break;
      case WeightType::Q5_0:
        out[i] = d * static_cast<float>(static_cast<int>(five32(cell, i)) - 16);
        break;
      default: out[i] = d * static_cast<float>(five32(cell, i)) + m;
    }
  }
}

void decode_iq4_xs(const Cell& cell, float* out) {
  const float d = cell.half(0);
  for (int s = 0; s < 8; ++s) {
    const float scale = d * cell.paired(32, s);
    for (int i = 0; i < 32; ++i) {
      out[32 * s + i] = scale * static_cast<float>(kIq4Values[nibble32(cell, 4 * s, i)]);
    }
  }
}

void decode_q4k_q5k(const Cell& cell, bool is_five, float* out) {
  const float d = cell.half(0), dmin = cell.half(32);
  for (int s = 0; s < 8; ++s) {
    const float scale = d * cell.paired(64, s), low = dmin * cell.paired(192, s);
    for (int i = 0; i < 32; ++i) {
      uint32_t value = (cell.code(s / 2 * 8 + i / 4, i % 4) >> (4 * (s % 2))) & 15u;
      if (is_five) value |= ((cell.code(32 + i / 4, i % 4) >> s) & 1u) << 4;
      out[32 * s + i] = scale * static_cast<float>(value) - low;
    }
  }
}

void decode_q6_k(const Cell& cell, float* out) {
  const float d = cell.half(0);
  for (int s = 0; s < 8; ++s) {
    const int half = s / 4, part = s % 4;
    for (int i = 0; i < 32; ++i) {
      const uint32_t low = cell.code(half * 16 + part % 2 * 8 + i / 4, i % 4) >> (part / 2 * 4);
      const uint32_t high = cell.code(32 + half * 8 + i / 4, i % 4) >> (2 * part);
      const int value = static_cast<int>((low & 15u) | ((high & 3u) << 4)) - 32;
      out[32 * s + i] = d * cell.paired(32, 2 * s + i / 16) * static_cast<float>(value);
    }
  }
}

void decode_block(WeightType type, const Cell& cell, float* out) {
  switch (type) {
    case WeightType::F32: *out = load<float>(cell.codes + 4 * cell.row); break;
    case WeightType::F16: *out = f16_to_f32(load<uint16_t>(cell.codes + 2 * cell.row)); break;
    case WeightType::BF16: *out = bf16_to_f32(load<uint16_t>(cell.codes + 2 * cell.row)); break;
    case WeightType::IQ4_XS: decode_iq4_xs(cell, out); break;
    case WeightType::Q4_K: decode_q4k_q5k(cell, false, out); break;
    case WeightType::Q5_K: decode_q4k_q5k(cell, true, out); break;
    case WeightType::Q6_K: decode_q6_k(cell, out); break;
    default: decode32(type, cell, out);
  }
}

}  // namespace

void decode_row(WeightType type, const uint8_t* matrix, int64_t row, int64_t cols, float* out) {
  const WeightLayout& layout = layout_of(type);
  const uint8_t* group = matrix + row / kGroupRows * group_bytes(type, cols);
  const uint8_t* fields = group + fields_offset(type, cols);
  const int lane = static_cast<int>(row % kGroupRows);
  for (int64_t b = 0; b < cols / layout.block_cols; ++b) {
    decode_block(type, {group + b * layout.code_bytes, fields + b * layout.field_bytes, lane},
                 out + b * layout.block_cols);
  }
}

}  // namespace rocmforge
