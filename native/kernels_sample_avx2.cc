// The sampling kernels in AVX2; compiled with -mavx2 -mf16c, as kernels_avx2.cc is.
#define ROCMFORGE_LANES avx2
#include "sample_lanes_avx2.h"

#include "kernels_sample.h"

namespace rocmforge {
const SampleKernels& avx2_sample_kernels() { return avx2::sample_table("avx2"); }
}  // namespace rocmforge
