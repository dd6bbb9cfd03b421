// Python bindings of the core: weights, thread pool, programs. Whatever comes from Python is checked
// here or in Program::add and Program::check before a kernel sees it.
#include "bind_core.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "checksum.h"
#include "program.h"
#include "sample_kernels.h"

namespace nb = nanobind;

namespace rocmforge {
namespace {

using Bytes = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Ints = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using IntTable = nb::ndarray<const int32_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Logits = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Counter = nb::ndarray<int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

WeightType type_by_name(const std::string& name) {
  for (int i = 0; i < kNumWeightTypes; ++i) {
    if (name == kLayouts[i].name) return static_cast<WeightType>(i);
  }
  throw std::invalid_argument("no kernel multiplies " + name);
}

std::vector<std::string> weight_types() {
  std::vector<std::string> names;
  for (const WeightLayout& layout : kLayouts) names.emplace_back(layout.name);
  return names;
}

const char* act_name(ActKind act) {
  switch (act) {
    case ActKind::Float: return "float";
    case ActKind::Int8x32: return "int8x32";
    default: return "int8x256";
  }
}

const Kernels& kernels_by_name(const std::string& isa) {
  const Kernels* tables[kMaxTables];
  const int n = available_kernels(tables);
  for (int i = 0; i < n; ++i) {
    if (isa == tables[i]->isa) return *tables[i];
  }
  throw std::invalid_argument("this machine has no " + isa);
}

std::vector<std::string> available_isas() {
  const Kernels* tables[kMaxTables];
  const int n = available_kernels(tables);
  std::vector<std::string> names;
  for (int i = 0; i < n; ++i) names.emplace_back(tables[i]->isa);
  return names;
}

std::string failing_kernels(const std::string& isa) {
  char names[256];
  self_test(kernels_by_name(isa), names, sizeof names);
  std::string failing = names;
  if (!sample_kernels_agree(sample_kernels_for(isa))) failing += failing.empty() ? "sample" : ", sample";
  return failing;
}

void check_range(const Weights& weights, int64_t offset, int64_t bytes) {
  if (!weights.is_writable()) throw std::invalid_argument("these weights are read-only");
  if (offset < 0 || bytes < 0 || offset + bytes > static_cast<int64_t>(weights.bytes()))
    throw std::invalid_argument("a tensor lies outside the weights");
}

// Interleaves n_rows rows, beginning with row first_row (a multiple of 16), of a matrix at offset.
void pack(Weights& weights, ThreadPool& pool, int64_t offset, const std::string& type_name,
          int64_t cols, int64_t first_row, int64_t n_rows, const Bytes& data) {
  const WeightType type = type_by_name(type_name);
  const WeightLayout& layout = layout_of(type);
  if (cols <= 0 || cols % layout.block_cols != 0 || n_rows < 0 || first_row < 0 ||
      first_row % kGroupRows != 0)
    throw std::invalid_argument("rows or columns do not fill groups and blocks");
  const int64_t row_bytes = cols / layout.block_cols * layout.file_bytes;
  if (static_cast<int64_t>(data.size()) != n_rows * row_bytes)
    throw std::invalid_argument("the tensor's data has another size than its rows");
  const int64_t stride = group_bytes(type, cols);
  const int64_t start = offset + first_row / kGroupRows * stride;
  check_range(weights, start, group_count(n_rows) * stride);
  const uint8_t* from = data.data();
  const nb::gil_scoped_release release;
  pool.for_range(group_count(n_rows), 4, [&](int64_t begin, int64_t end, int) {
    for (int64_t g = begin; g < end; ++g) {
      const int rows = static_cast<int>(std::min<int64_t>(kGroupRows, n_rows - g * kGroupRows));
      pack_group(type, from + g * kGroupRows * row_bytes, rows, cols,
                 weights.data() + start + g * stride);
    }
  });
}

void store(Weights& weights, int64_t offset, const Bytes& data) {
  check_range(weights, offset, static_cast<int64_t>(data.size()));
  std::copy_n(data.data(), data.size(), weights.data() + offset);
}

void run(Program& program, const Ints& token_ids, const Ints& positions, const Ints& query_start,
         const Ints& context_len, const IntTable& block_tables, const Ints& logits_rows,
         const IntTable& block_copies, Logits& logits, Counter& counter) {
  const Step step{token_ids.data(),
                  positions.data(),
                  query_start.data(),
                  context_len.data(),
                  block_tables.data(),
                  logits_rows.data(),
                  block_copies.data(),
                  static_cast<int64_t>(token_ids.size()),
                  static_cast<int64_t>(context_len.size()),
                  static_cast<int64_t>(block_tables.shape(1)),
                  static_cast<int64_t>(logits_rows.size()),
                  static_cast<int64_t>(block_copies.shape(0))};
  if (positions.size() != token_ids.size() || query_start.size() != context_len.size() + 1 ||
      block_tables.shape(0) != context_len.size() || block_copies.shape(1) != 2)
    throw std::invalid_argument("the step's arrays do not belong together");
  program.check(step);
  if (static_cast<int64_t>(logits.shape(0)) < step.n_rows ||
      static_cast<int64_t>(logits.shape(1)) != program.logits_width() || counter.size() != 1)
    throw std::invalid_argument("the logits or the counter have the wrong size");
  const nb::gil_scoped_release release;
  program.run(step, logits.data(), counter.data());
}

std::shared_ptr<Program> make_program(std::shared_ptr<Weights> weights,
                                      std::shared_ptr<ThreadPool> pool, const std::string& isa,
                                      int n_layers, int n_kv_heads, int head_dim, int64_t n_blocks,
                                      int block_tokens, bool is_f16, int64_t max_tokens,
                                      int64_t max_sequences, int64_t max_rows, int64_t max_blocks,
                                      int64_t logits_width, size_t arena_bytes) {
  // Half a vector of a head would need masks in the inner loops; no family has such heads.
  if (head_dim % 8 != 0) throw std::invalid_argument("head_dim is not a multiple of 8");
  if (block_tokens != 8 && block_tokens % 16 != 0)
    throw std::invalid_argument("block_tokens is neither 8 nor a multiple of 16");
  if (n_layers < 1 || n_kv_heads < 1 || head_dim < 1 || n_blocks < 1 || block_tokens < 1 ||
      max_tokens < 1 || max_sequences < 1 || max_rows < 0 || logits_width < 1)
    throw std::invalid_argument("a size of the program is not positive");
  KvShape kv;
  kv.n_layers = n_layers;
  kv.n_kv_heads = n_kv_heads;
  kv.head_dim = head_dim;
  kv.n_blocks = n_blocks;
  kv.block_tokens = block_tokens;
  kv.is_f16 = is_f16;
  return std::make_shared<Program>(std::move(weights), std::move(pool), kernels_by_name(isa), kv,
                                   Limits{max_tokens, max_sequences, max_rows, max_blocks, logits_width},
                                   arena_bytes);
}

void bind_op(nb::module_& m) {
  nb::enum_<OpKind>(m, "OpKind")
      .value("Embed", OpKind::Embed)
      .value("RmsNorm", OpKind::RmsNorm)
      .value("HeadNorm", OpKind::HeadNorm)
      .value("Quantize", OpKind::Quantize)
      .value("Matmul", OpKind::Matmul)
      .value("Add", OpKind::Add)
      .value("RopeTables", OpKind::RopeTables)
      .value("Rope", OpKind::Rope)
      .value("KvAppend", OpKind::KvAppend)
      .value("Attention", OpKind::Attention)
      .value("Swiglu", OpKind::Swiglu)
      .value("Scale", OpKind::Scale)
      .value("SelectRows", OpKind::SelectRows);
}

}  // namespace

void bind_core(nb::module_& m) {
  bind_op(m);
  m.attr("LOGITS") = kLogits;
  m.attr("NONE") = kNone;
  m.def("available_isas", &available_isas);
  m.def("failing_kernels", &failing_kernels, nb::arg("isa"));
  m.def("matrix_bytes", [](const std::string& type, int64_t rows, int64_t cols) {
    return matrix_bytes(type_by_name(type), rows, cols);
  });
  m.def("weight_types", &weight_types);
  m.def("act_kind", [](const std::string& type) { return act_name(layout_of(type_by_name(type)).act); });
  m.def("act_bytes", [](const std::string& type, int64_t cols, int64_t rows) {
    return ActView{nullptr, layout_of(type_by_name(type)).act, cols, rows}.bytes();
  });
  nb::class_<ThreadPool>(m, "ThreadPool")
      .def(nb::init<int>(), nb::arg("n_threads"))
      .def_prop_ro("size", &ThreadPool::size);
  nb::class_<Weights>(m, "Weights")
      .def(nb::new_([](size_t n_bytes) { return std::make_shared<Weights>(n_bytes, Pages::Huge); }),
           nb::arg("n_bytes"))
      .def_static(
          "of_file",
          [](int fd, size_t offset, size_t n_bytes, bool writable) {
            return std::make_shared<Weights>(fd, offset, n_bytes, writable);
          },
          nb::arg("fd"), nb::arg("offset"), nb::arg("n_bytes"), nb::arg("writable"))
      .def(
          "checksum",
          [](const Weights& weights, ThreadPool& pool) {
            const nb::gil_scoped_release release;
            return checksum(weights.data(), weights.bytes(), pool);
          },
          nb::arg("pool"))
      .def("pack", &pack, nb::arg("pool"), nb::arg("offset"), nb::arg("type"), nb::arg("cols"),
           nb::arg("first_row"), nb::arg("n_rows"), nb::arg("data"))
      .def("store", &store, nb::arg("offset"), nb::arg("data"));
  nb::class_<Program>(m, "Program")
      .def(nb::new_(&make_program), nb::arg("weights"), nb::arg("pool"), nb::arg("isa"),
           nb::kw_only(), nb::arg("n_layers"), nb::arg("n_kv_heads"), nb::arg("head_dim"),
           nb::arg("n_blocks"), nb::arg("block_tokens"), nb::arg("is_f16"), nb::arg("max_tokens"),
           nb::arg("max_sequences"), nb::arg("max_rows"), nb::arg("max_blocks"),
           nb::arg("logits_width"), nb::arg("arena_bytes"))
      .def("add_frequencies", &Program::add_frequencies)
      .def(
          "add",
          [](Program& program, OpKind kind, int stage, bool of_rows, Place x, Place y, Place out,
             int64_t width, int64_t n_out, int64_t weight, int64_t bias, const std::string& type,
             int layer, int n_heads, int head_dim, int rope_dim, int window, int table, bool neox,
             float factor) {
            program.add({kind, stage, of_rows, x, y, out, width, n_out, weight, bias, type_by_name(type),
                         layer, n_heads, head_dim, rope_dim, window, table, neox, factor});
          },
          nb::arg("kind"), nb::kw_only(), nb::arg("stage") = 0, nb::arg("of_rows") = false, nb::arg("x") = kNone,
          nb::arg("y") = kNone, nb::arg("out") = kNone, nb::arg("width") = 0, nb::arg("n_out") = 0,
          nb::arg("weight") = kNone, nb::arg("bias") = kNone, nb::arg("type") = "F32",
          nb::arg("layer") = 0, nb::arg("n_heads") = 0, nb::arg("head_dim") = 0,
          nb::arg("rope_dim") = 0, nb::arg("window") = 0, nb::arg("table") = 0,
          nb::arg("neox") = false, nb::arg("factor") = 0.0f)
      // Arrays of another type are refused: a conversion would wrap ids that do not fit.
      .def("run", &run, nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert(),
           nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert(),
           nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert());
}

}  // namespace rocmforge
