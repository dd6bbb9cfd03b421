// All kernels, written against the lanes of one ISA. Include after lanes_<isa>.h, with
// ROCMFORGE_LANES naming its namespace. No fused multiply-add, no sum whose order depends on the
// batch: one accumulator per output, columns ascending.
#include <cmath>
#include <initializer_list>

#include "kernels.h"

#include "kernels_matmul.h"

#include "kernels_elementwise.h"

#include "kernels_attention.h"

namespace rocmforge::ROCMFORGE_LANES {

const Kernels& table(const char* isa) {
  static const Kernels kernels = {
      isa,
      {matmul_group<DotFloat<DotF32>>, matmul_group<DotFloat<DotF16>>,
       matmul_group<DotFloat<DotBF16>>, matmul_group<DotQ8_0>, matmul_group<DotQ4_0>,
       matmul_group<DotScaledMin<128>>, matmul_group<DotScaledMin<160>>, matmul_group<DotQ6_K>},
      quantize,
      rms_norm,
      add,
      scale,
      swiglu,
      rope,
      to_f16,
      attention,
  };
  return kernels;
}

}  // namespace rocmforge::ROCMFORGE_LANES
