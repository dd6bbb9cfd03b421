// The kernels of AVX-512 with matrix products on AMX tiles.
#include <unistd.h>

#include <sys/syscall.h>

#define ROCMFORGE_LANES amx
#include "lanes_avx512.h"

#include "kernels_impl.h"

#include "kernels_amx.h"

namespace rocmforge {

const Kernels& amx_kernels() {
  static const Kernels kernels = [] {
    using namespace amx;
    Kernels k = table("amx");
    const auto set = [&k](WeightType type, auto kernel) { k.matmul[static_cast<int>(type)] = kernel; };
    set(WeightType::Q8_0, blocks_on_tiles<CodesQ8_0>);
    set(WeightType::Q4_0, blocks_on_tiles<CodesQ4_0>);
    set(WeightType::Q4_1, blocks_on_tiles<CodesQ4_1>);
    set(WeightType::Q5_0, blocks_on_tiles<CodesQ5_0>);
    set(WeightType::Q5_1, blocks_on_tiles<CodesQ5_1>);
    set(WeightType::IQ4_NL, blocks_on_tiles<CodesIQ4_NL>);
    set(WeightType::MXFP4, blocks_on_tiles<CodesMXFP4>);
    set(WeightType::IQ4_XS, super_blocks_on_tiles<CodesIQ4_XS>);
    set(WeightType::Q4_K, super_blocks_on_tiles<CodesQ4_K>);
    set(WeightType::Q5_K, super_blocks_on_tiles<CodesQ5_K>);
    set(WeightType::Q6_K, super_blocks_on_tiles<CodesQ6_K>);
    return k;
  }();
  return kernels;
}

// Linux gives a process the tiles' state only when it asks (arch_prctl, ARCH_REQ_XCOMP_PERM).
bool amx_is_permitted() {
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

}  // namespace rocmforge
