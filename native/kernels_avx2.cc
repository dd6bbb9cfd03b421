// The kernels in AVX2 with FMA and F16C; this file alone is compiled for them.
#define ROCMFORGE_LANES avx2
#include "lanes_avx2.h"

#include "kernels_impl.h"

namespace rocmforge {
const Kernels& avx2_kernels() { return avx2::table("avx2"); }
}  // namespace rocmforge
