// The core's own tests, for AddressSanitizer and UndefinedBehaviorSanitizer (`make sanitize`) and for
// machines that are emulated (`make test-neon`): every kernel on exactly sized heap buffers, programs
// over random steps, hostile arguments, the sampler. Arguments name ISAs that must be there.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "native_tests.h"
#include "numeric.h"
#include "program.h"

namespace rocmforge {

static int n_checks = 0;

void check(bool holds, const std::string& what) {
  ++n_checks;
  if (holds) return;
  std::fprintf(stderr, "FAILED: %s\n", what.c_str());
  std::exit(1);
}

static std::mt19937 numbers(7);

int64_t any(int64_t low, int64_t high) {
  return std::uniform_int_distribution<int64_t>(low, high)(numbers);
}

std::vector<float> reals(int64_t n) {
  std::vector<float> v(static_cast<size_t>(n));
  for (float& x : v) x = std::normal_distribution<float>()(numbers);
  return v;
}

namespace {

template <class F>
void check_refused(const std::string& what, const F& f) {
  try {
    f();
  } catch (const std::invalid_argument&) {
    ++n_checks;
    return;
  }
  check(false, what + " is not refused");
}

std::vector<uint8_t> random_bytes(int64_t n) {
  std::vector<uint8_t> v(static_cast<size_t>(n));
  for (uint8_t& byte : v) byte = static_cast<uint8_t>(any(0, 255));
  return v;
}

// Bit for bit, but a NaN is a NaN: which of its bits are set is the processor's choice.
bool agree(const std::vector<float>& a, const std::vector<float>& b) {
  for (size_t i = 0; i < a.size(); ++i) {
    const bool same = std::memcmp(&a[i], &b[i], 4) == 0;
    if (!same && !(std::isnan(a[i]) && std::isnan(b[i]))) return false;
  }
  return true;
}

void test_has_isa(const char* isa) {
  const Kernels* tables[kMaxTables];
  const int n = available_kernels(tables);
  const bool found =
      std::any_of(tables, tables + n, [isa](const Kernels* k) { return std::strcmp(k->isa, isa) == 0; });
  check(found, std::string("this machine has ") + isa);
}

void test_self_tests() {
  const Kernels* tables[kMaxTables];
  const int n = available_kernels(tables);
  for (int i = 0; i < n; ++i) {
    char names[256];
    self_test(*tables[i], names, sizeof names);
    check(names[0] == '\0', std::string(tables[i]->isa) + " differs: " + names);
  }
}

// Any bytes, not-a-number scales included, stay within their buffers.
void test_packing_reads_and_writes_in_bounds() {
  for (int t = 0; t < kNumWeightTypes; ++t) {
    const auto type = static_cast<WeightType>(t);
    const WeightLayout& layout = layout_of(type);
    for (int n_rows = 1; n_rows <= kGroupRows; ++n_rows) {
      const int64_t cols = layout.block_cols * any(1, 3);
      const auto file = random_bytes(n_rows * cols / layout.block_cols * layout.file_bytes);
      std::vector<uint8_t> group(static_cast<size_t>(group_bytes(type, cols)));
      pack_group(type, file.data(), n_rows, cols, group.data());
      std::vector<float> row(static_cast<size_t>(cols));
      for (int r = 0; r < kGroupRows; ++r) decode_row(type, group.data(), r, cols, row.data());
    }
  }
}

void test_quantizing_what_is_not_finite() {
  const Kernels* tables[kMaxTables];
  const int n = available_kernels(tables);
  for (const float bad : {NAN, INFINITY, -INFINITY}) {
    std::vector<float> x = reals(256);
    x[77] = bad;
    for (int i = 0; i < n; ++i) {
      for (const ActKind act : {ActKind::Int8x32, ActKind::Int8x256}) {
        ActView row{nullptr, act, 256, 1};
        std::vector<uint8_t> bytes(static_cast<size_t>(row.bytes()));
        row.base = bytes.data();
        tables[i]->quantize(x.data(), row, 0);
        check(std::isnan(row.d(0)[77 / scale_every(act) * 16]), "not finite, and its scale is");
      }
    }
  }
}

void test_pool_covers_every_item_once() {
  for (int n_threads = 1; n_threads <= 4; ++n_threads) {
    ThreadPool pool(n_threads);
    for (int round = 0; round < 300; ++round) {
      const int64_t n = any(0, 200), grain = any(1, 20);
      std::vector<int> seen(static_cast<size_t>(n), 0);
      pool.for_range(n, grain, [&](int64_t begin, int64_t end, int) {
        for (int64_t i = begin; i < end; ++i) ++seen[static_cast<size_t>(i)];
      });
      check(std::all_of(seen.begin(), seen.end(), [](int c) { return c == 1; }), "pool");
    }
  }
}

// Rows of a file whose floats are small: what a model computes from any bytes is NaN all over.
std::vector<uint8_t> moderate_rows(WeightType type, int64_t n_rows, int64_t cols) {
  const WeightLayout& layout = layout_of(type);
  const int64_t n_blocks = n_rows * cols / layout.block_cols;
  std::vector<uint8_t> file = random_bytes(n_blocks * layout.file_bytes);
  const std::vector<float> values = reals(2 * n_blocks);
  for (int64_t b = 0; b < n_blocks; ++b) {
    uint8_t* block = file.data() + b * layout.file_bytes;
    const float value = values[static_cast<size_t>(2 * b)];
    const uint16_t d = f32_to_f16(0.003f * value), whole = f32_to_f16(value);
    const uint16_t second = f32_to_f16(0.003f * values[static_cast<size_t>(2 * b + 1)]);
    switch (type) {
      case WeightType::F32: std::memcpy(block, &value, 4); break;
      case WeightType::F16: std::memcpy(block, &whole, 2); break;
      case WeightType::BF16: std::memcpy(block, reinterpret_cast<const uint8_t*>(&value) + 2, 2); break;
      case WeightType::MXFP4: block[0] = static_cast<uint8_t>(any(114, 121)); break;
      case WeightType::Q6_K: std::memcpy(block + 208, &d, 2); break;
      case WeightType::Q4_1:
      case WeightType::Q5_1:
      case WeightType::Q4_K:
      case WeightType::Q5_K: std::memcpy(block + 2, &second, 2); [[fallthrough]];
      default: std::memcpy(block, &d, 2);
    }
  }
  return file;
}

// A little model: embed, norm, quantised and float matmuls, rotation, attention, head.
struct LittleModel {
  static constexpr int64_t kWidth = 256, kVocab = 37;
  static constexpr int kHeads = 6, kKvHeads = 2, kDim = 40;
  static constexpr int64_t kTokens = 40, kSequences = 3, kRows = 4, kBlocks = 11;
  static constexpr int kBlockTokens = 8;

  WeightType type;
  bool is_moderate;  // or of any bytes
  std::shared_ptr<Weights> weights;
  int64_t query = 0, value = 0, back = 0, head = 0, norm = 0;

  LittleModel(WeightType t, bool moderate) : type(t), is_moderate(moderate) {
    const int64_t q = add_matrix_size(kHeads * kDim, kWidth);
    const int64_t kv = add_matrix_size(kKvHeads * kDim, kWidth);
    const int64_t out = matrix_bytes(WeightType::F32, kWidth, kHeads * kDim);
    const int64_t table = add_matrix_size(kVocab, kWidth);
    query = 0;
    value = q;
    back = q + kv;
    head = back + out;
    norm = head + table;
    weights = std::make_shared<Weights>(static_cast<size_t>(norm + 4 * kWidth));
    fill(type, query, kHeads * kDim, kWidth);
    fill(type, value, kKvHeads * kDim, kWidth);
    fill(WeightType::F32, back, kWidth, kHeads * kDim);
    fill(type, head, kVocab, kWidth);
    const auto scale = reals(kWidth);
    std::memcpy(weights->data() + norm, scale.data(), 4 * kWidth);
  }

  int64_t add_matrix_size(int64_t rows, int64_t cols) const { return matrix_bytes(type, rows, cols); }

  void fill(WeightType t, int64_t offset, int64_t rows, int64_t cols) const {
    const WeightLayout& layout = layout_of(t);
    const int64_t row_bytes = cols / layout.block_cols * layout.file_bytes;
    for (int64_t g = 0; g < group_count(rows); ++g) {
      const int n = static_cast<int>(std::min<int64_t>(kGroupRows, rows - kGroupRows * g));
      const auto file = is_moderate ? moderate_rows(t, n, cols) : random_bytes(n * row_bytes);
      pack_group(t, file.data(), n, cols, weights->data() + offset + g * group_bytes(t, cols));
    }
  }

  std::unique_ptr<Program> program(const std::shared_ptr<ThreadPool>& pool, const Kernels& k,
                                   bool is_f16) const {
    KvShape kv;
    kv.n_layers = 1;
    kv.n_kv_heads = kKvHeads;
    kv.head_dim = kDim;
    kv.n_blocks = kBlocks;
    kv.block_tokens = kBlockTokens;
    kv.is_f16 = is_f16;
    // Every buffer in a place of its own, exactly large enough.
    int64_t end = 0;
    const auto place = [&end](int64_t bytes) { return std::exchange(end, end + (bytes + 63) / 64 * 64); };
    const ActKind act = layout_of(type).act;
    const auto q_bytes = [act](int64_t n) { return ActView{nullptr, act, kWidth, n}.bytes(); };
    const Place x = place(kTokens * row_floats(kWidth) * 4), normed = place(kTokens * row_floats(kWidth) * 4),
                packed = place(q_bytes(kTokens)), q = place(kTokens * row_floats(kHeads * kDim) * 4),
                v = place(kTokens * row_floats(kKvHeads * kDim) * 4), tables = place(kTokens * row_floats(kDim) * 4),
                mixed = place(kTokens * row_floats(kHeads * kDim) * 4), added = place(kTokens * row_floats(kWidth) * 4),
                rows = place(kRows * row_floats(kWidth) * 4), packed_rows = place(q_bytes(kRows));
    auto p = std::make_unique<Program>(weights, pool, k, kv, Limits{kTokens, kSequences, kRows, 5, kVocab},
                                       static_cast<size_t>(end));
    p->add_frequencies(std::vector<float>(kDim / 2, 0.1f));
    const bool quantized = act != ActKind::Float;
    p->add({.kind = OpKind::Embed, .out = x, .width = kWidth, .n_out = kVocab, .weight = head, .type = type});
    p->add({.kind = OpKind::RmsNorm, .x = x, .out = normed, .width = kWidth, .weight = norm, .factor = 1e-5f});
    if (quantized) p->add({.kind = OpKind::Quantize, .x = normed, .out = packed, .width = kWidth, .type = type});
    const Place in = quantized ? packed : normed;
    p->add({.kind = OpKind::Matmul, .x = in, .out = q, .width = kWidth, .n_out = kHeads * kDim, .weight = query, .type = type});
    p->add({.kind = OpKind::Matmul, .x = in, .out = v, .width = kWidth, .n_out = kKvHeads * kDim, .weight = value, .bias = norm, .type = type});
    p->add({.kind = OpKind::RopeTables, .out = tables, .rope_dim = kDim, .factor = 1.0f});
    p->add({.kind = OpKind::Rope, .x = q, .y = tables, .width = kHeads * kDim, .n_heads = kHeads, .head_dim = kDim, .rope_dim = kDim, .neox = is_f16});
    p->add({.kind = OpKind::KvAppend, .x = v, .y = v, .width = kKvHeads * kDim});
    p->add({.kind = OpKind::Attention, .x = q, .out = mixed, .width = kHeads * kDim, .n_heads = kHeads, .window = is_f16 ? 3 : 0, .factor = 0.2f});
    p->add({.kind = OpKind::Matmul, .x = mixed, .out = added, .width = kHeads * kDim, .n_out = kWidth, .weight = back});
    p->add({.kind = OpKind::Swiglu, .x = added, .y = x, .width = kWidth});
    p->add({.kind = OpKind::Add, .x = x, .y = added, .width = kWidth});
    p->add({.kind = OpKind::SelectRows, .of_rows = true, .x = x, .out = rows, .width = kWidth});
    if (quantized) p->add({.kind = OpKind::Quantize, .of_rows = true, .x = rows, .out = packed_rows, .width = kWidth, .type = type});
    p->add({.kind = OpKind::Matmul, .of_rows = true, .x = quantized ? packed_rows : rows, .out = kLogits, .width = kWidth, .n_out = kVocab, .weight = head, .type = type});
    return p;
  }
};

struct RandomStep {
  std::vector<int32_t> ids, positions, start{0}, context, tables, rows, copies;
  int64_t width = 3;

  RandomStep() {
    std::vector<int32_t> blocks(LittleModel::kBlocks);
    for (size_t i = 0; i < blocks.size(); ++i) blocks[i] = static_cast<int32_t>(i);
    std::shuffle(blocks.begin(), blocks.end(), numbers);
    for (int s = 0; s < LittleModel::kSequences; ++s) {
      const auto n = any(1, 13), length = n + any(0, 24 - n);
      for (int64_t i = 0; i < n; ++i) {
        ids.push_back(static_cast<int32_t>(any(0, LittleModel::kVocab - 1)));
        positions.push_back(static_cast<int32_t>(length - n + i));
      }
      start.push_back(static_cast<int32_t>(ids.size()));
      context.push_back(static_cast<int32_t>(length));
      for (int64_t b = 0; b < width; ++b) {
        const bool used = b * LittleModel::kBlockTokens < length;
        tables.push_back(used ? blocks[static_cast<size_t>(s * width + b)] : -1);
      }
    }
    for (int32_t t = 0; t < static_cast<int32_t>(ids.size()); ++t) {
      if (any(0, 1) == 1 && rows.size() < LittleModel::kRows) rows.push_back(t);
    }
    copies = {blocks[9], blocks[10]};
  }

  Step view() const {
    return {ids.data(),    positions.data(), start.data(),
            context.data(), tables.data(),   rows.data(),
            copies.data(),  static_cast<int64_t>(ids.size()), static_cast<int64_t>(context.size()),
            width,          static_cast<int64_t>(rows.size()), static_cast<int64_t>(copies.size() / 2)};
  }
};

void test_programs_agree(WeightType type, bool is_f16, bool is_moderate) {
  const LittleModel model(type, is_moderate);
  const Kernels* tables[kMaxTables];
  const int n = available_kernels(tables);
  std::vector<std::unique_ptr<Program>> programs;
  for (int threads = 1; threads <= 3; threads += 2) {
    const auto pool = std::make_shared<ThreadPool>(threads);
    for (int i = 0; i < n; ++i) programs.push_back(model.program(pool, *tables[i], is_f16));
  }
  for (int round = 0; round < 10; ++round) {
    const RandomStep step;
    std::vector<float> first;
    for (const auto& program : programs) {
      std::vector<float> logits(step.rows.size() * LittleModel::kVocab);
      int64_t counter = 0;
      program->check(step.view());
      program->run(step.view(), logits.data(), &counter);
      check(counter >= 12, "operations are counted");
      if (first.empty()) first = logits;
      check(!is_moderate || std::isfinite(std::accumulate(logits.begin(), logits.end(), 0.0)),
            std::string("results are finite of ") + layout_of(type).name);
      check(agree(first, logits), std::string("threads and ISAs agree on ") + layout_of(type).name);
    }
  }
}

void test_hostile_steps_are_refused() {
  const LittleModel model(WeightType::Q8_0, true);
  const auto program = model.program(std::make_shared<ThreadPool>(1), scalar_kernels(), true);
  const auto refuse = [&program](const char* what, const auto& spoil) {
    RandomStep step;
    spoil(step);
    check_refused(what, [&] { program->check(step.view()); });
  };
  refuse("a token id past the vocabulary", [](RandomStep& s) { s.ids[0] = LittleModel::kVocab; });
  refuse("a negative token id", [](RandomStep& s) { s.ids[0] = -1; });
  refuse("a block past the cache", [](RandomStep& s) { s.tables[0] = LittleModel::kBlocks; });
  refuse("a missing block", [](RandomStep& s) { s.tables[0] = -1; });
  refuse("a position that jumps", [](RandomStep& s) { s.positions[0] += 1; });
  refuse("a context past the table", [](RandomStep& s) { s.context[0] = 1 << 30; });
  refuse("starts that fall", [](RandomStep& s) { s.start[1] = 0; });
  refuse("starts past the tokens", [](RandomStep& s) { s.start[1] = 1000; });
  refuse("a row past the tokens", [](RandomStep& s) { s.rows.assign(1, 99); });
  refuse("a copy past the cache", [](RandomStep& s) { s.copies[1] = 99; });
}

void test_hostile_operations_are_refused() {
  const LittleModel model(WeightType::Q8_0, true);
  const auto p = model.program(std::make_shared<ThreadPool>(1), scalar_kernels(), true);
  const auto refuse = [&p](const char* what, const Op& op) {
    check_refused(what, [&] { p->add(op); });
  };
  refuse("a buffer past the arena", {.kind = OpKind::Scale, .x = 1 << 20, .width = 256});
  refuse("a buffer before the arena", {.kind = OpKind::Scale, .x = -64, .width = 256});
  refuse("a matrix past the weights",
         {.kind = OpKind::Matmul, .x = 0, .out = 0, .width = 256, .n_out = 1 << 20, .weight = 0});
  refuse("half a block", {.kind = OpKind::Matmul, .x = 0, .out = 0, .width = 40, .n_out = 8, .weight = 0, .type = WeightType::Q8_0});
  refuse("a layer past the cache", {.kind = OpKind::KvAppend, .x = 0, .y = 0, .width = 80, .layer = 1});
  refuse("a rotation wider than its head", {.kind = OpKind::Rope, .x = 0, .y = 0, .width = 80, .n_heads = 2, .head_dim = 40, .rope_dim = 42});
}

int run_all() {
  test_self_tests();
  test_packing_reads_and_writes_in_bounds();
  test_quantizing_what_is_not_finite();
  test_pool_covers_every_item_once();
  for (int t = 0; t < kNumWeightTypes; ++t) {
    test_programs_agree(static_cast<WeightType>(t), true, true);
    test_programs_agree(static_cast<WeightType>(t), false, true);
    test_programs_agree(static_cast<WeightType>(t), true, false);
  }
  test_hostile_steps_are_refused();
  test_hostile_operations_are_refused();
  test_sampling();
  test_shared_arena();
  std::printf("%d checks hold\n", n_checks);
  return 0;
}

}  // namespace
}  // namespace rocmforge

int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) rocmforge::test_has_isa(argv[i]);
  return rocmforge::run_all();
}
