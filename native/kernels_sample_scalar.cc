// The sampling kernels in portable C++.
#define ROCMFORGE_LANES scalar
#include "sample_lanes_scalar.h"

#include "kernels_sample.h"

namespace rocmforge {
const SampleKernels& scalar_sample_kernels() { return scalar::sample_table("scalar"); }
}  // namespace rocmforge
