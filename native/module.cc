// The Python module of the native core.
#include <nanobind/nanobind.h>

#include "bind_core.h"
#include "bind_limits.h"
#include "bind_sample.h"

NB_MODULE(_native, m) {
  m.doc() = "ROCmForge's native CPU core";
  rocmforge::bind_core(m);
  rocmforge::bind_limits(m);
  rocmforge::bind_sample(m);
}
