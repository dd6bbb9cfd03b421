// Python binding of sample.h: checks every id and shape, then samples all rows without the GIL.
#include "bind_sample.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>
#include <tuple>
#include <vector>

#include "philox.h"
#include "sample.h"

namespace nb = nanobind;

namespace rocmforge {
namespace {

using LogitsArray = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using History = std::vector<std::tuple<int32_t, int32_t>>;
using Biases = std::vector<std::tuple<int32_t, float>>;

// One row's parameters with its own copies of the lists, so that no Python object is touched without the GIL.
struct SampleRow {
  SampleParams params;
  std::vector<HistoryToken> history;
  std::vector<TokenBias> biases;
  std::vector<int32_t> suppressed;

  SampleParams view() const {
    SampleParams p = params;
    p.history = history;
    p.biases = biases;
    p.suppressed = suppressed;
    return p;
  }

  void check_ids(size_t n_vocab) const {
    const auto check = [n_vocab](int32_t id) {
      if (id < 0 || static_cast<size_t>(id) >= n_vocab)
        throw std::invalid_argument("token id outside the vocabulary");
    };
    for (const HistoryToken& token : history) check(token.id);
    for (const TokenBias& bias : biases) check(bias.id);
    for (const int32_t id : suppressed) check(id);
  }
};

SampleRow make_row(double temperature, int64_t top_k, double top_p, double min_p,
                   double repetition_penalty, double presence_penalty, double frequency_penalty,
                   int32_t n_logprobs, uint64_t seed, uint32_t choice, uint64_t position,
                   const History& history, const Biases& biases, std::vector<int32_t> suppressed) {
  SampleRow row;
  row.params.temperature = temperature;
  row.params.top_k = top_k;
  row.params.top_p = top_p;
  row.params.min_p = min_p;
  row.params.repetition_penalty = repetition_penalty;
  row.params.presence_penalty = presence_penalty;
  row.params.frequency_penalty = frequency_penalty;
  row.params.n_logprobs = n_logprobs;
  row.params.seed = seed;
  row.params.choice = choice;
  row.params.position = position;
  for (const auto& [id, count] : history) row.history.push_back({id, count});
  for (const auto& [id, bias] : biases) row.biases.push_back({id, bias});
  row.suppressed = std::move(suppressed);
  return row;
}

// (status, token, logprob, top ids, top logprobs)
using Sampled = std::tuple<int32_t, int32_t, double, std::vector<int32_t>, std::vector<double>>;

std::vector<Sampled> sample_rows(const LogitsArray& logits, const std::vector<const SampleRow*>& rows) {
  const size_t n_rows = logits.shape(0), n_vocab = logits.shape(1);
  if (rows.size() != n_rows) throw std::invalid_argument("one parameter row per logits row is needed");
  if (n_vocab == 0) throw std::invalid_argument("logits have no columns");
  for (const SampleRow* row : rows) row->check_ids(n_vocab);
  std::vector<Sampled> results;
  results.reserve(n_rows);
  const float* data = logits.data();
  nb::gil_scoped_release unlocked;
  SampleScratch scratch;
  TopLogprobs top;
  for (size_t r = 0; r < n_rows; ++r) {
    const std::span<const float> raw(data + r * n_vocab, n_vocab);
    const SampleResult one = sample_row(raw, rows[r]->view(), scratch, top);
    std::vector<int32_t> ids;
    for (const RankedToken& token : top.tokens) ids.push_back(token.id);
    results.emplace_back(static_cast<int32_t>(one.status), one.token, one.logprob, std::move(ids),
                         top.logprobs);
  }
  return results;
}

std::vector<uint32_t> philox_block(const std::vector<uint32_t>& counter, uint32_t key0, uint32_t key1) {
  if (counter.size() != 4) throw std::invalid_argument("a Philox counter has four words");
  const PhiloxBlock out = philox4x32_10({counter[0], counter[1], counter[2], counter[3]}, key0, key1);
  return {out.begin(), out.end()};
}

}  // namespace

void bind_sample(nb::module_& m) {
  nb::class_<SampleRow>(m, "SampleRow");
  m.def("sample_row_params", &make_row, nb::arg("temperature"), nb::arg("top_k"), nb::arg("top_p"),
        nb::arg("min_p"), nb::arg("repetition_penalty"), nb::arg("presence_penalty"),
        nb::arg("frequency_penalty"), nb::arg("n_logprobs"), nb::arg("seed"), nb::arg("choice"),
        nb::arg("position"), nb::arg("history"), nb::arg("biases"), nb::arg("suppressed"));
  m.def("sample_rows", &sample_rows, nb::arg("logits"), nb::arg("rows"));
  m.def("philox4x32_10", &philox_block, nb::arg("counter"), nb::arg("key0"), nb::arg("key1"));
  m.def("philox_uniform", &philox_uniform, nb::arg("seed"), nb::arg("choice"), nb::arg("position"),
        nb::arg("draw"));
}

}  // namespace rocmforge
