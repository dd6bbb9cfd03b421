#pragma once

#include <nanobind/nanobind.h>

namespace rocmforge {

void bind_limits(nanobind::module_& m);

}  // namespace rocmforge
