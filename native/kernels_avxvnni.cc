// The kernels in AVX2 with the dot products of AVX-VNNI.
#define ROCMFORGE_LANES avxvnni
#include "lanes_avx2.h"

#include "kernels_impl.h"

namespace rocmforge {
const Kernels& avxvnni_kernels() { return avxvnni::table("avxvnni"); }
}  // namespace rocmforge
