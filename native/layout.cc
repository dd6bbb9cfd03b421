// Packing of GGUF blocks into groups of eight rows. Block layouts: ggml's block_q8_0 … block_q6_K.
#include "layout.h"

#include <cstring>

#include "numeric.h"

namespace rocmforge {
namespace {

constexpr int kSuper = 256;

// One row's block, unpacked: unsigned values in column order and the fields beside them.
struct Fields {
  uint8_t values[kSuper];
  uint16_t d = 0;
  uint16_t dmin = 0;
  uint8_t scales[16] = {};
  uint8_t mins[8] = {};
};

// The 6-bit scales and mins of Q4_K and Q5_K, packed into 12 bytes.
void unpack_scales(const uint8_t* packed, Fields& f) {
  for (int j = 0; j < 4; ++j) {
    f.scales[j] = packed[j] & 63;
    f.mins[j] = packed[j + 4] & 63;
    f.scales[j + 4] = static_cast<uint8_t>((packed[j + 8] & 15) | ((packed[j] >> 6) << 4));
    f.mins[j + 4] = static_cast<uint8_t>((packed[j + 8] >> 4) | ((packed[j + 4] >> 6) << 4));
  }
}

void unpack_nibbles_k(const uint8_t* nibbles, Fields& f) {
  for (int i = 0; i < 128; ++i) {
    const int column = i / 32 * 64 + i % 32;
    f.values[column] = nibbles[i] & 15;
    f.values[column + 32] = nibbles[i] >> 4;
  }
}

void unpack_q6(const uint8_t* block, Fields& f) {
  const uint8_t* high = block + 128;
  for (int i = 0; i < 128; ++i) {
    const int half = i / 64, l = i % 64;
    const uint8_t pairs = high[half * 32 + l % 32];
    const int shift = l / 32 * 2;
    const int column = half * 128 + l;
    f.values[column] = static_cast<uint8_t>((block[i] & 15) | (((pairs >> shift) & 3) << 4));
    f.values[column + 64] =
        static_cast<uint8_t>((block[i] >> 4) | (((pairs >> (shift + 4)) & 3) << 4));
  }
  std::memcpy(f.scales, block + 192, 16);
}

Fields unpack(WeightType type, const uint8_t* block) {
  Fields f;
  switch (type) {
    case WeightType::Q8_0:
      f.d = load<uint16_t>(block);
      std::memcpy(f.values, block + 2, 32);
      break;
    case WeightType::Q4_0:
      f.d = load<uint16_t>(block);
      for (int i = 0; i < 16; ++i) {
        f.values[i] = block[2 + i] & 15;
        f.values[i + 16] = block[2 + i] >> 4;
      }
      break;
    case WeightType::Q4_K:
    case WeightType::Q5_K:
      f.d = load<uint16_t>(block);
      f.dmin = load<uint16_t>(block + 2);
      unpack_scales(block + 4, f);
      unpack_nibbles_k(block + (type == WeightType::Q4_K ? 16 : 48), f);
      if (type == WeightType::Q5_K) {
        for (int i = 0; i < kSuper; ++i) {
          f.values[i] = static_cast<uint8_t>(f.values[i] | (((block[16 + i % 32] >> (i / 32)) & 1) << 4));
        }
      }
      break;
    case WeightType::Q6_K:
      f.d = load<uint16_t>(block + 208);
      unpack_q6(block, f);
      break;
    default:
      break;
  }
  return f;
}

void put_half(uint8_t* at, int row, uint16_t half) { std::memcpy(at + 2 * row, &half, 2); }

// 32 columns of one row: quad v and quad v + 4 share the bytes of vector v.
void put_nibbles32(uint8_t* at, int row, const uint8_t* values) {
  for (int i = 0; i < 16; ++i) {
    at[i / 4 * 32 + row * 4 + i % 4] = static_cast<uint8_t>((values[i] & 15) | (values[i + 16] << 4));
  }
}

void put_fifth_bits(uint8_t* at, int row, const uint8_t* values) {
  for (int i = 0; i < 32; ++i) {
    at[row * 4 + i % 4] = static_cast<uint8_t>(at[row * 4 + i % 4] | ((values[i] >> 4) << (i / 4)));
  }
}

void put_sixes16(uint8_t* at, int row, const uint8_t* values) {
  for (int i = 0; i < 8; ++i) {
    at[i / 4 * 32 + row * 4 + i % 4] =
        static_cast<uint8_t>((values[i] & 15) | ((values[i + 8] & 15) << 4));
  }
  for (int i = 0; i < 16; ++i) {
    uint8_t& byte = at[64 + row * 4 + i % 4];
    byte = static_cast<uint8_t>(byte | ((values[i] >> 4) << (2 * (i / 4))));
  }
}

void put_super_block(WeightType type, const Fields& f, int row, uint8_t* at) {
  const int stride = type == WeightType::Q4_K ? 128 : 160;
  put_half(at, row, f.d);
  put_half(at + 16, row, f.dmin);
  for (int s = 0; s < 8; ++s) {
    at[32 + 8 * s + row] = f.scales[s];
    at[96 + 8 * s + row] = f.mins[s];
    uint8_t* sub = at + 160 + s * stride;
    put_nibbles32(sub, row, f.values + 32 * s);
    if (type == WeightType::Q5_K) put_fifth_bits(sub + 128, row, f.values + 32 * s);
  }
}

void put_block(WeightType type, const Fields& f, int row, uint8_t* at) {
  switch (type) {
    case WeightType::Q8_0:
      put_half(at, row, f.d);
      for (int i = 0; i < 32; ++i) at[16 + i / 4 * 32 + row * 4 + i % 4] = f.values[i];
      break;
    case WeightType::Q4_0:
      put_half(at, row, f.d);
      put_nibbles32(at + 16, row, f.values);
      break;
    case WeightType::Q6_K:
      put_half(at, row, f.d);
      for (int s = 0; s < 16; ++s) {
        at[16 + 8 * s + row] = f.scales[s];
        put_sixes16(at + 144 + 96 * s, row, f.values + 16 * s);
      }
      break;
    default:
      put_super_block(type, f, row, at);
  }
}

void decode_q4_q8(WeightType type, const uint8_t* at, int row, float* out) {
  const float d = f16_to_f32(load<uint16_t>(at + 2 * row));
  for (int i = 0; i < 32; ++i) {
    if (type == WeightType::Q8_0) {
      out[i] = d * static_cast<float>(static_cast<int8_t>(at[16 + i / 4 * 32 + row * 4 + i % 4]));
    } else {
      const uint8_t byte = at[16 + i % 16 / 4 * 32 + row * 4 + i % 4];
      out[i] = d * static_cast<float>((i < 16 ? byte & 15 : byte >> 4) - 8);
    }
  }
}

void decode_q4k_q5k(WeightType type, const uint8_t* at, int row, float* out) {
  const float d = f16_to_f32(load<uint16_t>(at + 2 * row));
  const float dmin = f16_to_f32(load<uint16_t>(at + 16 + 2 * row));
  const int stride = type == WeightType::Q4_K ? 128 : 160;
  for (int i = 0; i < kSuper; ++i) {
    const int s = i / 32, l = i % 32;
    const uint8_t* sub = at + 160 + s * stride;
    const uint8_t byte = sub[l % 16 / 4 * 32 + row * 4 + l % 4];
    int value = l < 16 ? byte & 15 : byte >> 4;
    if (type == WeightType::Q5_K) value |= ((sub[128 + row * 4 + l % 4] >> (l / 4)) & 1) << 4;
    const float scale = d * static_cast<float>(at[32 + 8 * s + row]);
    const float low = dmin * static_cast<float>(at[96 + 8 * s + row]);
    out[i] = scale * static_cast<float>(value) - low;
  }
}

void decode_q6(const uint8_t* at, int row, float* out) {
  const float d = f16_to_f32(load<uint16_t>(at + 2 * row));
  for (int i = 0; i < kSuper; ++i) {
    const int s = i / 16, l = i % 16;
    const uint8_t* sub = at + 144 + 96 * s;
    const uint8_t byte = sub[l % 8 / 4 * 32 + row * 4 + l % 4];
    const int low = l < 8 ? byte & 15 : byte >> 4;
    const int high = (sub[64 + row * 4 + l % 4] >> (2 * (l / 4))) & 3;
    const float scale = d * static_cast<float>(static_cast<int8_t>(at[16 + 8 * s + row]));
    out[i] = scale * static_cast<float>((low | (high << 4)) - 32);
  }
}

}  // namespace

void pack_group(WeightType type, const uint8_t* file_rows, int n_rows, int64_t cols,
                uint8_t* group) {
  const WeightLayout& layout = layout_of(type);
  const int64_t n_blocks = cols / layout.block_cols;
  const int64_t row_bytes = n_blocks * layout.file_block_bytes;
  std::memset(group, 0, static_cast<size_t>(group_bytes(type, cols)));
  for (int row = 0; row < n_rows; ++row) {
    for (int64_t b = 0; b < n_blocks; ++b) {
      const uint8_t* block = file_rows + row * row_bytes + b * layout.file_block_bytes;
      uint8_t* at = group + b * layout.group_block_bytes;
      if (layout.act == ActKind::Float) {
        std::memcpy(at + row * layout.file_block_bytes, block,
                    static_cast<size_t>(layout.file_block_bytes));
      } else {
        put_block(type, unpack(type, block), row, at);
      }
    }
  }
}

void decode_row(WeightType type, const uint8_t* matrix, int64_t row, int64_t cols, float* out) {
  const WeightLayout& layout = layout_of(type);
  const uint8_t* group = matrix + row / kGroupRows * group_bytes(type, cols);
  const int lane = static_cast<int>(row % kGroupRows);
  for (int64_t b = 0; b < cols / layout.block_cols; ++b) {
    const uint8_t* at = group + b * layout.group_block_bytes;
    float* to = out + b * layout.block_cols;
    switch (type) {
      case WeightType::F32: *to = load<float>(at + 4 * lane); break;
      case WeightType::F16: *to = f16_to_f32(load<uint16_t>(at + 2 * lane)); break;
      case WeightType::BF16: *to = bf16_to_f32(load<uint16_t>(at + 2 * lane)); break;
      case WeightType::Q8_0:
      case WeightType::Q4_0: decode_q4_q8(type, at, lane, to); break;
      case WeightType::Q4_K:
      case WeightType::Q5_K: decode_q4k_q5k(type, at, lane, to); break;
      case WeightType::Q6_K: decode_q6(at, lane, to); break;
    }
  }
}

}  // namespace rocmforge
