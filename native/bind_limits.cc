// Python binding of machine_limits.h.
#include "bind_limits.h"

#include "machine_limits.h"

namespace nb = nanobind;

namespace rocmforge {
namespace {

nb::dict dict_of(const Rates& rates) {
  nb::dict found;
  for (const auto& [name, rate] : rates) found[name.c_str()] = rate;
  return found;
}

Rates without_gil(auto&& measure) {
  nb::gil_scoped_release unlocked;
  return measure();
}

}  // namespace

void bind_limits(nb::module_& m) {
  m.def(
      "read_limits",
      [](int n_threads, size_t n_bytes, double seconds) {
        return dict_of(without_gil([=] { return read_limits(n_threads, n_bytes, seconds); }));
      },
      nb::arg("n_threads"), nb::arg("n_bytes"), nb::arg("seconds"));
  m.def(
      "multiply_limits",
      [](int n_threads, double seconds) {
        return dict_of(without_gil([=] { return multiply_limits(n_threads, seconds); }));
      },
      nb::arg("n_threads"), nb::arg("seconds"));
}

}  // namespace rocmforge
