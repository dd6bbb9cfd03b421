// All kernels, written against the lanes of one ISA. Include after lanes_<isa>.h, with
// ROCMFORGE_LANES naming its namespace. No contraction that is not written as f_fma, no sum whose
// order depends on the batch: one accumulator per output, columns ascending.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <type_traits>

#include "kernels.h"

#include "formats.h"

#include "kernels_matmul.h"

#include "kernels_elementwise.h"

#include "kernels_attention.h"

namespace rocmforge::ROCMFORGE_LANES {

const Kernels& table(const char* isa) {
  static const Kernels kernels = {
      isa,
      {matmul<DotFloat<WeightsF32>>, matmul<DotFloat<WeightsF16>>, matmul<DotFloat<WeightsBF16>>,
       matmul<DotBlocks<CodesQ8_0>>, matmul<DotBlocks<CodesQ4_0>>, matmul<DotBlocks<CodesQ4_1>>,
       matmul<DotBlocks<CodesQ5_0>>, matmul<DotBlocks<CodesQ5_1>>, matmul<DotBlocks<CodesIQ4_NL>>,
       matmul<DotBlocks<CodesMXFP4>>, matmul<DotSuperBlocks<CodesIQ4_XS>>,
       matmul<DotSuperBlocks<CodesQ4_K>>, matmul<DotSuperBlocks<CodesQ5_K>>,
       matmul<DotSuperBlocks<CodesQ6_K>>},
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
