#pragma once

#include <nanobind/nanobind.h>

namespace rocmforge {

void bind_core(nanobind::module_& m);

}  // namespace rocmforge
