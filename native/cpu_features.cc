// Which kernels this machine can run.
#include "kernels.h"

#ifdef ROCMFORGE_X86
#include <cpuid.h>
#endif
#if defined(ROCMFORGE_ARM) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace rocmforge {

#ifdef ROCMFORGE_X86

bool amx_is_permitted();

namespace {

// Leaf 7's bits that __builtin_cpu_supports does not know in every compiler.
struct Leaf7 {
  unsigned edx = 0, eax_of_1 = 0;

  Leaf7() {
    unsigned a, b, c, d;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) edx = d;
    if (__get_cpuid_count(7, 1, &a, &b, &c, &d)) eax_of_1 = a;
  }
  bool has_amx_int8() const { return (edx >> 24 & 1) != 0 && (edx >> 25 & 1) != 0; }
  bool has_avx_vnni() const { return (eax_of_1 >> 4 & 1) != 0; }
};

bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("f16c");
}

bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vnni");
}

}  // namespace

#endif

#ifdef ROCMFORGE_ARM

namespace {

// ARMv8.2's dot products: Linux tells; elsewhere what the compiler takes for granted.
bool has_dot_products() {
#ifdef __linux__
  return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#elif defined(__ARM_FEATURE_DOTPROD)
  return true;
#else
  return false;
#endif
}

}  // namespace

#endif

int available_kernels(const Kernels* (&tables)[kMaxTables]) {
  int n = 0;
#ifdef ROCMFORGE_X86
  const Leaf7 leaf;
  if (has_avx512() && leaf.has_amx_int8() && amx_is_permitted()) tables[n++] = &amx_kernels();
  if (has_avx512()) tables[n++] = &avx512_kernels();
  if (has_avx2() && leaf.has_avx_vnni()) tables[n++] = &avxvnni_kernels();
  if (has_avx2()) tables[n++] = &avx2_kernels();
#endif
#ifdef ROCMFORGE_ARM
  if (has_dot_products()) tables[n++] = &neon_kernels();
#endif
  tables[n++] = &scalar_kernels();
  return n;
}

}  // namespace rocmforge
