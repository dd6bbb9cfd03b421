// Whether the kernels of an ISA say what the scalar ones say.
#include <cstring>
#include <initializer_list>
#include <vector>

#include "arena.h"
#include "kernels.h"

namespace rocmforge {
namespace {

// Xorshift: fixed inputs, the same on every machine.
class Numbers {
 public:
  uint32_t next() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 17;
    state_ ^= state_ << 5;
    return state_;
  }
  float real() { return static_cast<float>(static_cast<int32_t>(next())) * 0x1.0p-31f; }
  std::vector<float> reals(size_t n) {
    std::vector<float> v(n);
    for (float& x : v) x = real();
    return v;
  }
  // File blocks of random bytes whose half-precision fields are finite.
  std::vector<uint8_t> blocks(WeightType type, int64_t rows, int64_t cols) {
    const WeightLayout& layout = layout_of(type);
    const int size = layout.file_bytes;
    std::vector<uint8_t> bytes(static_cast<size_t>(rows * (cols / layout.block_cols) * size));
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(next() >> 11);
    for (size_t at = 0; at < bytes.size(); at += static_cast<size_t>(size)) tame(type, &bytes[at]);
    return bytes;
  }

 private:
  // Clears the top exponent bit, so that halves and floats stay finite and moderate.
  static void tame(WeightType type, uint8_t* block) {
    switch (type) {
      case WeightType::F32: block[3] &= 0xBF; break;
      case WeightType::Q6_K: block[209] &= 0xBF; break;
      case WeightType::MXFP4: block[0] = static_cast<uint8_t>(block[0] % 16 + 120); break;
      case WeightType::Q4_1:
      case WeightType::Q5_1:
      case WeightType::Q4_K:
      case WeightType::Q5_K: block[1] &= 0xBF; block[3] &= 0xBF; break;
      default: block[1] &= 0xBF;
    }
  }

  uint32_t state_ = 0x9E3779B9u;
};

bool same(const std::vector<float>& a, const std::vector<float>& b) {
  return std::memcmp(a.data(), b.data(), 4 * a.size()) == 0;
}

constexpr int kRows = 39;  // as many as take the path of many rows: whole and broken tiles of every size
constexpr int kFewRows = 9;
constexpr int64_t kCols = 512;

std::vector<float> matmul(const Kernels& k, WeightType type) {
  Numbers numbers;
  const WeightLayout& layout = layout_of(type);
  const int64_t n_out = 3 * kGroupRows - 5;
  const int64_t file_row = kCols / layout.block_cols * layout.file_bytes;
  const std::vector<uint8_t> blocks = numbers.blocks(type, n_out, kCols);
  Arena weights(static_cast<size_t>(matrix_bytes(type, n_out, kCols)));
  for (int64_t g = 0; g < group_count(n_out); ++g) {
    const int64_t n = n_out - g * kGroupRows;
    pack_group(type, blocks.data() + g * kGroupRows * file_row,
               static_cast<int>(n < kGroupRows ? n : kGroupRows), kCols,
               weights.data() + g * group_bytes(type, kCols));
  }
  ActView x{nullptr, layout.act, kCols, kRows};
  Arena activations(static_cast<size_t>(x.bytes())), scratch(static_cast<size_t>(matmul_scratch(kRows)));
  x.base = activations.data();
  for (int i = 0; i < kRows; ++i) {
    const std::vector<float> row = numbers.reals(kCols);
    if (layout.act == ActKind::Float) {
      std::memcpy(x.x(i), row.data(), 4 * kCols);
    } else {
      k.quantize(row.data(), x, i);
    }
  }
  std::vector<float> out(static_cast<size_t>(n_out * kRows));
  const auto run = [&](const ActView& rows) {
    k.matmul[static_cast<int>(type)]({weights.data(), n_out, nullptr, rows, out.data(), n_out}, 0,
                                     group_count(n_out), scratch.data());
  };
  run(x);
  // A few rows may take another path; 16 rows share a tile of scales, so these are laid out alike.
  if (layout.act != ActKind::Float) {
    ActView few{activations.data(), layout.act, kCols, kFewRows};
    for (int i = 0; i < kFewRows; ++i) k.quantize(numbers.reals(kCols).data(), few, i);
    run(few);
  }
  return out;
}

std::vector<float> elementwise(const Kernels& k) {
  Numbers numbers;
  constexpr int64_t n = 77;
  const std::vector<float> x = numbers.reals(n), weight = numbers.reals(n);
  std::vector<float> normed(n), gate = numbers.reals(n);
  k.rms_norm(x.data(), weight.data(), n, 1e-5f, normed.data());
  k.scale(gate.data(), 40.0f, n);
  k.swiglu(gate.data(), x.data(), n);
  k.add(normed.data(), gate.data(), n);
  k.rope(normed.data(), weight.data(), x.data(), 32, true);
  k.rope(normed.data() + 32, weight.data(), x.data(), 32, false);
  return normed;
}

std::vector<float> attention(const Kernels& k, bool is_f16) {
  Numbers numbers;
  constexpr int tokens = 3, heads = 5, dim = 40, block_tokens = 16, n_blocks = 20;
  constexpr int64_t block = int64_t{block_tokens} * dim;
  const int64_t item = is_f16 ? 2 : 4;
  std::vector<uint8_t> cache(static_cast<size_t>(2 * n_blocks * block * item));
  const std::vector<float> numbers_of_cache = numbers.reals(2 * n_blocks * block);
  if (is_f16) {
    k.to_f16(numbers_of_cache.data(), 2 * n_blocks * block, cache.data());
  } else {
    std::memcpy(cache.data(), numbers_of_cache.data(), cache.size());
  }
  std::vector<int32_t> table(n_blocks);
  for (int i = 0; i < n_blocks; ++i) table[static_cast<size_t>(i)] = n_blocks - 1 - i;
  const std::vector<float> q = numbers.reals(tokens * heads * dim);
  std::vector<float> out(q.size()), scratch(static_cast<size_t>(attention_scratch(dim)));
  const KvView kv{cache.data(), cache.data() + n_blocks * block * item, block * item,
                  table.data(), block_tokens, is_f16};
  k.attention({q.data(), out.data(), heads * dim, kv, tokens, heads, dim, 298, 294, 0.7f,
               scratch.data()});
  return out;
}

void note(char* names, size_t size, const char* name, bool is_same) {
  if (is_same) return;
  const size_t used = std::strlen(names);
  if (used + std::strlen(name) + 3 > size) return;
  if (used > 0) std::strcat(names, ", ");
  std::strcat(names, name);
}

}  // namespace

void self_test(const Kernels& table, char* names, size_t size) {
  const Kernels& reference = scalar_kernels();
  names[0] = '\0';
  for (int i = 0; i < kNumWeightTypes; ++i) {
    const auto type = static_cast<WeightType>(i);
    note(names, size, kLayouts[i].name, same(matmul(table, type), matmul(reference, type)));
  }
  note(names, size, "elementwise", same(elementwise(table), elementwise(reference)));
  note(names, size, "attention f16", same(attention(table, true), attention(reference, true)));
  note(names, size, "attention f32", same(attention(table, false), attention(reference, false)));
}

}  // namespace rocmforge
