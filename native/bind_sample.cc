// Python binding of sample.h: checks every id and shape, then samples all rows without the GIL.
#include "bind_sample.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "batch_sampler.h"
#include "philox.h"
#include "sample.h"
#include "token_history.h"

namespace nb = nanobind;

namespace rocmforge {
namespace {

using LogitsArray = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Biases = std::vector<std::tuple<int32_t, float>>;

// One row's parameters with its own copies of the lists, so that no Python object is touched without the GIL.
struct SampleRow {
  SampleParams params;
  std::shared_ptr<const TokenHistory> history;  // or null
  std::vector<TokenBias> biases;
  std::vector<int32_t> suppressed;

  SampleParams view() const {
    SampleParams p = params;
    if (history != nullptr) p.history = history->tokens();
    p.biases = biases;
    p.suppressed = suppressed;
    return p;
  }

  void check_ids(size_t n_vocab) const {
    const auto check = [n_vocab](int32_t id) {
      if (id < 0 || static_cast<size_t>(id) >= n_vocab)
        throw std::invalid_argument("token id outside the vocabulary");
    };
    if (history != nullptr && !history->tokens().empty()) check(history->largest_id());
    for (const TokenBias& bias : biases) check(bias.id);
    for (const int32_t id : suppressed) check(id);
  }
};

SampleRow make_row(double temperature, int64_t top_k, double top_p, double min_p,
                   double repetition_penalty, double presence_penalty, double frequency_penalty,
                   int32_t n_logprobs, uint64_t seed, uint32_t choice, uint64_t position,
                   std::shared_ptr<const TokenHistory> history, const Biases& biases,
                   std::vector<int32_t> suppressed) {
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
  row.history = std::move(history);
  for (const auto& [id, bias] : biases) row.biases.push_back({id, bias});
  row.suppressed = std::move(suppressed);
  return row;
}

// (status, token, logprob, top ids, top logprobs)
using Sampled = std::tuple<int32_t, int32_t, double, std::vector<int32_t>, std::vector<double>>;

std::vector<Sampled> sample_rows(BatchSampler& sampler, const LogitsArray& logits,
                                 const std::vector<const SampleRow*>& rows) {
  const size_t n_rows = logits.shape(0), n_vocab = logits.shape(1);
  if (rows.size() != n_rows) throw std::invalid_argument("one parameter row per logits row is needed");
  if (n_vocab == 0) throw std::invalid_argument("logits have no columns");
  std::vector<SampleParams> params;
  params.reserve(n_rows);
  for (const SampleRow* row : rows) {
    row->check_ids(n_vocab);
    params.push_back(row->view());
  }
  std::vector<SampledRow> sampled(n_rows);
  {
    const nb::gil_scoped_release unlocked;
    sampler.sample(logits.data(), static_cast<int64_t>(n_vocab), params, sampled);
  }
  std::vector<Sampled> results;
  results.reserve(n_rows);
  for (SampledRow& one : sampled) {
    std::vector<int32_t> ids;
    for (const RankedToken& token : one.top.tokens) ids.push_back(token.id);
    results.emplace_back(static_cast<int32_t>(one.result.status), one.result.token,
                         one.result.logprob, std::move(ids), std::move(one.top.logprobs));
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
  nb::class_<TokenHistory>(m, "TokenHistory")
      .def(nb::init<>())
      .def("add_prompt", &TokenHistory::add_prompt, nb::arg("ids"))
      .def("add_generated", &TokenHistory::add_generated, nb::arg("ids"))
      .def("items", [](const TokenHistory& history) {
        std::vector<std::tuple<int32_t, int32_t>> items;
        for (const auto& [id, count] : history.tokens()) items.emplace_back(id, count);
        return items;
      });
  nb::class_<SampleRow>(m, "SampleRow")
      .def_prop_rw(
          "position", [](const SampleRow& row) { return row.params.position; },
          [](SampleRow& row, uint64_t position) { row.params.position = position; });
  m.def("sample_row_params", &make_row, nb::arg("temperature"), nb::arg("top_k"), nb::arg("top_p"),
        nb::arg("min_p"), nb::arg("repetition_penalty"), nb::arg("presence_penalty"),
        nb::arg("frequency_penalty"), nb::arg("n_logprobs"), nb::arg("seed"), nb::arg("choice"),
        nb::arg("position"), nb::arg("history").none(), nb::arg("biases"), nb::arg("suppressed"));
  nb::class_<BatchSampler>(m, "BatchSampler")
      .def("__init__",
           [](BatchSampler* self, std::shared_ptr<ThreadPool> pool, const std::string& isa) {
             new (self) BatchSampler(std::move(pool), sample_kernels_for(isa));
           },
           nb::arg("pool"), nb::arg("isa"))
      .def_prop_ro("isa", [](const BatchSampler& sampler) { return sampler.kernels().isa; })
      .def("sample", &sample_rows, nb::arg("logits"), nb::arg("rows"));
  m.def("sample_kernels_agree",
        [](const std::string& isa) { return sample_kernels_agree(sample_kernels_for(isa)); },
        nb::arg("isa"));
  m.def("philox4x32_10", &philox_block, nb::arg("counter"), nb::arg("key0"), nb::arg("key1"));
  m.def("philox_uniform", &philox_uniform, nb::arg("seed"), nb::arg("choice"), nb::arg("position"),
        nb::arg("draw"));
}

}  // namespace rocmforge
