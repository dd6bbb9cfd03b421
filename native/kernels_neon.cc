// The kernels in NEON with the dot products of ARMv8.2.
#define ROCMFORGE_LANES neon
#include "lanes_neon.h"

#include "kernels_impl.h"

namespace rocmforge {
const Kernels& neon_kernels() { return neon::table("neon"); }
}  // namespace rocmforge
