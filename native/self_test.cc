// Which kernels this machine has, and whether they say what the scalar ones say.
#include <cstring>
#include <vector>

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
    const int size = layout.file_block_bytes;
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
      case WeightType::F16:
      case WeightType::BF16:
      case WeightType::Q8_0:
      case WeightType::Q4_0: block[1] &= 0xBF; break;
      case WeightType::Q4_K:
      case WeightType::Q5_K: block[1] &= 0xBF; block[3] &= 0xBF; break;
      case WeightType::Q6_K: block[209] &= 0xBF; break;
    }
  }

  uint32_t state_ = 0x9E3779B9u;
};

bool same(const std::vector<float>& a, const std::vector<float>& b) {
  return std::memcmp(a.data(), b.data(), 4 * a.size()) == 0;
}

struct Quantized {
  std::vector<int8_t> q;
  std::vector<float> d;
  std::vector<int32_t> sums;

  Quantized(const Kernels& k, const std::vector<float>& x, ActKind act)
      : q(x.size()), d(x.size() / 32), sums(x.size() / 16) {
    const bool fine = act == ActKind::Int8x32;
    k.quantize(x.data(), static_cast<int64_t>(x.size()), fine ? 32 : 256, fine ? 32 : 16, q.data(),
               d.data(), sums.data());
  }
};

constexpr int kRows = 7;  // tiles of four, two and one
constexpr int64_t kCols = 512;

std::vector<float> matmul(const Kernels& k, WeightType type) {
  Numbers numbers;
  const WeightLayout& layout = layout_of(type);
  std::vector<uint8_t> group(static_cast<size_t>(group_bytes(type, kCols)));
  pack_group(type, numbers.blocks(type, 8, kCols).data(), 8, kCols, group.data());
  std::vector<std::vector<float>> floats;
  std::vector<Quantized> quantized;
  std::vector<ActRow> rows(kRows);
  for (int i = 0; i < kRows; ++i) {
    floats.push_back(numbers.reals(kCols));
    quantized.emplace_back(k, floats.back(), layout.act == ActKind::Float ? ActKind::Int8x32 : layout.act);
  }
  for (size_t i = 0; i < kRows; ++i) {
    rows[i] = {floats[i].data(), quantized[i].q.data(), quantized[i].d.data(),
               quantized[i].sums.data()};
  }
  std::vector<float> out(8 * kRows);
  k.matmul[static_cast<int>(type)](group.data(), kCols / layout.block_cols, rows.data(), kRows,
                                   out.data());
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
  constexpr int heads = 7, dim = 40, tokens = 16, n_blocks = 20;
  constexpr int64_t stride = int64_t{tokens} * dim * 4;
  std::vector<uint8_t> cache(2 * n_blocks * stride);
  for (int64_t at = 0; at < static_cast<int64_t>(cache.size()); at += 4 * dim) {
    const std::vector<float> row = numbers.reals(dim);
    if (is_f16) {
      k.to_f16(row.data(), dim, &cache[static_cast<size_t>(at / 2)]);
    } else {
      std::memcpy(&cache[static_cast<size_t>(at)], row.data(), 4 * dim);
    }
  }
  std::vector<int32_t> table(n_blocks);
  for (int i = 0; i < n_blocks; ++i) table[static_cast<size_t>(i)] = n_blocks - 1 - i;
  const std::vector<float> q = numbers.reals(heads * dim);
  std::vector<float> out(heads * dim), scratch(static_cast<size_t>(attention_scratch(heads, dim)));
  const int64_t block = is_f16 ? stride / 2 : stride;
  const KvView kv{cache.data(), cache.data() + n_blocks * block, block, table.data(), tokens, is_f16};
  k.attention({q.data(), out.data(), kv, heads, dim, 5, 300, 0.7f, scratch.data()});
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

int available_kernels(const Kernels* (&tables)[2]) {
  int n = 0;
#ifdef ROCMFORGE_X86
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c")) tables[n++] = &avx2_kernels();
#endif
  tables[n++] = &scalar_kernels();
  return n;
}

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
