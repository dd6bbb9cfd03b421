#pragma once

#include <nanobind/nanobind.h>

namespace rocmforge {
void bind_sample(nanobind::module_& m);
}
