// The sampler: any row and any parameters stay within their buffers, and every table of kernels and
// any number of threads choose the same tokens.
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>

#include "batch_sampler.h"
#include "native_tests.h"

namespace rocmforge {
namespace {

std::vector<const SampleKernels*> tables() {
  return {&sample_kernels_for("scalar"), &sample_kernels_for("auto")};
}

// A row with what it is sampled by, in exactly sized buffers of its own.
struct Case {
  std::vector<float> logits;
  std::vector<HistoryToken> history;
  std::vector<TokenBias> biases;
  std::vector<int32_t> suppressed;
  SampleParams params;

  explicit Case(int64_t n_vocab) : logits(reals(n_vocab)) {
    // Flat or peaked, and with many equal logits.
    const auto stretch = static_cast<float>(any(0, 6));
    for (float& logit : logits) logit = std::round(logit * stretch * 4.0f) / 4.0f;
    const auto id = [&] { return static_cast<int32_t>(any(0, n_vocab - 1)); };
    for (int64_t i = any(0, 5); i > 0; --i) history.push_back({id(), static_cast<int32_t>(any(0, 3))});
    for (int64_t i = any(0, 2); i > 0; --i) biases.push_back({id(), static_cast<float>(any(-9, 9))});
    for (int64_t i = any(0, 3); i > 0 && n_vocab > 3; --i) suppressed.push_back(id());
    params.temperature = static_cast<double>(any(0, 8)) / 4.0;
    params.top_k = any(0, 1) * any(0, n_vocab + 3);
    params.top_p = static_cast<double>(any(1, 20)) / 10.0;
    params.min_p = static_cast<double>(any(0, 1) * any(0, 10)) / 10.0;
    params.repetition_penalty = 1.5;
    params.presence_penalty = 0.5;
    params.n_logprobs = static_cast<int32_t>(any(-1, 20));
    params.position = static_cast<uint64_t>(any(0, 1 << 20));
  }

  SampleParams view() const {
    SampleParams p = params;
    p.history = history;
    p.biases = biases;
    p.suppressed = suppressed;
    return p;
  }
};

bool same(const SampledRow& a, const SampledRow& b) {
  return a.result.status == b.result.status && a.result.token == b.result.token &&
         a.result.logprob == b.result.logprob && a.top.logprobs == b.top.logprobs;
}

SampledRow sample(const Case& row, const SampleKernels& kernels) {
  SampleScratch scratch;
  SampledRow one;
  one.result = sample_row(row.logits, row.view(), kernels, scratch, one.top);
  return one;
}

void test_any_row_is_sampled_alike() {
  for (const int64_t size : {1, 7, 255, 256, 257, 700, 4096, 5003, 33000}) {
    for (int round = 0; round < 40; ++round) {
      const Case row(size);
      const SampledRow first = sample(row, *tables()[0]);
      check(first.result.status == SampleStatus::kOk, "a row of plain numbers is sampled");
      check(first.result.token >= 0 && first.result.token < size, "a token of the vocabulary");
      for (const int32_t id : row.suppressed) check(id != first.result.token, "a suppressed token");
      check(same(first, sample(row, *tables()[1])), "tables choose the same token");
    }
  }
}

void test_rows_are_sampled_alike_in_a_batch() {
  constexpr int64_t kVocab = 611, kRows = 37;
  std::vector<Case> rows;
  std::vector<float> logits;
  std::vector<SampleParams> params;
  for (int r = 0; r < kRows; ++r) rows.emplace_back(kVocab);
  for (const Case& row : rows) {
    logits.insert(logits.end(), row.logits.begin(), row.logits.end());
    params.push_back(row.view());
  }
  for (int n_threads = 1; n_threads <= 3; ++n_threads) {
    BatchSampler sampler(std::make_shared<ThreadPool>(n_threads), *tables()[1]);
    std::vector<SampledRow> out(kRows);
    sampler.sample(logits.data(), kVocab, params, out);
    for (size_t r = 0; r < kRows; ++r) {
      check(same(out[r], sample(rows[r], *tables()[1])), "a row does not depend on its batch");
    }
  }
}

void test_rows_without_a_token() {
  for (const float bad : {NAN, INFINITY, -INFINITY}) {
    for (const int64_t size : {1, 300, 512}) {
      Case row(size);
      row.logits[static_cast<size_t>(any(0, size - 1))] = bad;
      for (const SampleKernels* kernels : tables()) {
        check(sample(row, *kernels).result.status == SampleStatus::kNotFinite, "not finite");
      }
    }
  }
  Case row(300);
  for (int32_t id = 0; id < 300; ++id) row.suppressed.push_back(id);
  check(sample(row, *tables()[1]).result.status == SampleStatus::kNoCandidate, "all suppressed");
}

// Logits and parameters at the ends of their ranges: no conversion overflows, no loop is endless.
void test_extreme_numbers() {
  constexpr float kLargest = std::numeric_limits<float>::max();
  for (const float high : {kLargest, 1e-45f, 0.0f}) {
    for (const double temperature : {100.0, 1e-3, 5e-324}) {
      Case row(5000);
      for (size_t i = 0; i < row.logits.size(); ++i) row.logits[i] = i % 3 == 0 ? high : -kLargest;
      row.suppressed.clear();
      row.params.temperature = temperature;
      row.params.repetition_penalty = 1e-3;
      const SampledRow first = sample(row, *tables()[0]);
      check(first.result.status == SampleStatus::kOk, "an extreme row is sampled");
      check(same(first, sample(row, *tables()[1])), "tables agree on an extreme row");
    }
  }
}

}  // namespace

void test_sampling() {
  for (const SampleKernels* kernels : tables()) {
    check(sample_kernels_agree(*kernels), std::string(kernels->isa) + " sampling kernels differ");
  }
  test_any_row_is_sampled_alike();
  test_rows_are_sampled_alike_in_a_batch();
  test_rows_without_a_token();
  test_extreme_numbers();
}

}  // namespace rocmforge
