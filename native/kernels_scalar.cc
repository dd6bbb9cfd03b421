// The kernels in portable C++: the fallback, and what other ISAs are compared with at start-up.
#define ROCMFORGE_LANES scalar
#include "lanes_scalar.h"

#include "kernels_impl.h"

namespace rocmforge {
const Kernels& scalar_kernels() { return scalar::table("scalar"); }
}  // namespace rocmforge
