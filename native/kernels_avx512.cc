// The kernels in AVX-512 with the dot products of VNNI.
#define ROCMFORGE_LANES avx512
#include "lanes_avx512.h"

#include "kernels_impl.h"

namespace rocmforge {
const Kernels& avx512_kernels() { return avx512::table("avx512"); }
}  // namespace rocmforge
