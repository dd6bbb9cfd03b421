// Multiply-adds in registers: what an instruction set does when nothing has to be loaded. Each kernel is compiled
// for its own set by a target attribute and chosen at run time.
//
// Inputs pass through an empty asm before each use, so that no product is computed once for all, and the
// accumulators are many enough to cover the latency (4 to 6 cycles, two a cycle; AMX: 4 tiles of 16 cycles).
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <stdexcept>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#if defined(__aarch64__)
#include <arm_neon.h>
#endif
#if defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#include "limits.h"

namespace rocmforge {
namespace {

// Long enough that reading the clock does not count, short enough that one of many is undisturbed.
constexpr double kSlice_s = 0.01;
constexpr int64_t kCallsOfClock = 2000;

struct Multiplier {
  const char* name;
  double per_round;
  void (*run)(int64_t n_rounds);
};

#if defined(__x86_64__)

constexpr int kChains = 12;

// u8 × i8 pairs to i16, pairs of these to i32, added: what a product of any two bytes takes without VNNI.
__attribute__((target("avx2"))) void maddubs(int64_t n_rounds) {
  __m256i a = _mm256_set1_epi8(1), sums[kChains] = {};
  const __m256i b = _mm256_set1_epi8(1), ones = _mm256_set1_epi16(1);
  for (int64_t i = 0; i < n_rounds; ++i) {
    for (__m256i& sum : sums) {
      asm volatile("" : "+x"(a));
      sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), ones));
    }
  }
  for (const __m256i& sum : sums) asm volatile("" ::"x"(sum));
}

// The same where eight products of 4-bit numbers fit into i16 before they are widened.
constexpr int kDeferred = 8, kDeferredChains = 6;
__attribute__((target("avx2"))) void maddubs_deferred(int64_t n_rounds) {
  __m256i a = _mm256_set1_epi8(1), sums[kDeferredChains] = {};
  const __m256i b = _mm256_set1_epi8(1), ones = _mm256_set1_epi16(1);
  for (int64_t i = 0; i < n_rounds; ++i) {
    __m256i narrow[kDeferredChains] = {};
    for (int j = 0; j < kDeferred; ++j) {
      for (__m256i& sum : narrow) {
        asm volatile("" : "+x"(a));
        sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(a, b));
      }
    }
    for (int c = 0; c < kDeferredChains; ++c)
      sums[c] = _mm256_add_epi32(sums[c], _mm256_madd_epi16(narrow[c], ones));
  }
  for (const __m256i& sum : sums) asm volatile("" ::"x"(sum));
}

__attribute__((target("avxvnni"))) void vnni_256(int64_t n_rounds) {
  __m256i a = _mm256_set1_epi8(1), sums[kChains] = {};
  const __m256i b = _mm256_set1_epi8(1);
  for (int64_t i = 0; i < n_rounds; ++i) {
    for (__m256i& sum : sums) {
      asm volatile("" : "+x"(a));
      sum = _mm256_dpbusd_avx_epi32(sum, a, b);
    }
  }
  for (const __m256i& sum : sums) asm volatile("" ::"x"(sum));
}

__attribute__((target("avx512f,avx512vnni"))) void vnni_512(int64_t n_rounds) {
  __m512i a = _mm512_set1_epi8(1), sums[kChains] = {};
  const __m512i b = _mm512_set1_epi8(1);
  for (int64_t i = 0; i < n_rounds; ++i) {
    for (__m512i& sum : sums) {
      asm volatile("" : "+v"(a));
      sum = _mm512_dpbusd_epi32(sum, a, b);
    }
  }
  for (const __m512i& sum : sums) asm volatile("" ::"v"(sum));
}

__attribute__((target("avx2,fma"))) void fma_256(int64_t n_rounds) {
  __m256 a = _mm256_setzero_ps(), sums[kChains] = {};
  const __m256 b = _mm256_setzero_ps();
  for (int64_t i = 0; i < n_rounds; ++i) {
    for (__m256& sum : sums) {
      asm volatile("" : "+x"(a));
      sum = _mm256_fmadd_ps(a, b, sum);
    }
  }
  for (const __m256& sum : sums) asm volatile("" ::"x"(sum));
}

__attribute__((target("avx512f"))) void fma_512(int64_t n_rounds) {
  __m512 a = _mm512_setzero_ps(), sums[kChains] = {};
  const __m512 b = _mm512_setzero_ps();
  for (int64_t i = 0; i < n_rounds; ++i) {
    for (__m512& sum : sums) {
      asm volatile("" : "+v"(a));
      sum = _mm512_fmadd_ps(a, b, sum);
    }
  }
  for (const __m512& sum : sums) asm volatile("" ::"v"(sum));
}

// What ldtilecfg reads. GCC's _tile_loadconfig names only 8 of these bytes as its input before version 13, and
// the stores of the others get lost.
struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};
static_assert(sizeof(TileConfig) == 64);

// Two tiles of 16 × 64 bytes times two of the same size, into four of 16 × 16 numbers of 32 bits.
constexpr double kTileProducts = 4;

__attribute__((target("amx-tile"))) inline void configure_tiles() {
  TileConfig config;
  for (int tile = 0; tile < 8; ++tile) {
    config.row_bytes[tile] = 64;
    config.rows[tile] = 16;
  }
  asm volatile("ldtilecfg %0" ::"m"(config));
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
  _tile_zero(6);
  _tile_zero(7);
}

__attribute__((target("amx-tile,amx-int8"))) void amx_int8(int64_t n_rounds) {
  configure_tiles();
  for (int64_t i = 0; i < n_rounds; ++i) {
    _tile_dpbssd(0, 4, 6);
    _tile_dpbssd(1, 4, 7);
    _tile_dpbssd(2, 5, 6);
    _tile_dpbssd(3, 5, 7);
  }
  _tile_release();
}

__attribute__((target("amx-tile,amx-bf16"))) void amx_bf16(int64_t n_rounds) {
  configure_tiles();
  for (int64_t i = 0; i < n_rounds; ++i) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_release();
}

bool has_avx_vnni() {
  unsigned a, b, c, d;
  return __builtin_cpu_supports("avx2") && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
}

bool has_amx(int bit) {
#if defined(__linux__)
  // The kernel keeps the tiles of a process only after it has asked for them.
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  unsigned a, b, c, d;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d >> 24 & 1) && (d >> bit & 1) &&
         syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  (void)bit;
  return false;
#endif
}

std::vector<Multiplier> multipliers() {
  constexpr double kTileBytes = 16 * 16 * 64;
  std::vector<Multiplier> found;
  if (__builtin_cpu_supports("avx2")) {
    found.push_back({"avx2", 32.0 * kChains, maddubs});
    found.push_back({"avx2", 32.0 * kDeferred * kDeferredChains, maddubs_deferred});
  }
  if (has_avx_vnni()) found.push_back({"avx_vnni", 32.0 * kChains, vnni_256});
  if (__builtin_cpu_supports("avx512vnni")) found.push_back({"avx512_vnni", 64.0 * kChains, vnni_512});
  if (has_amx(25)) found.push_back({"amx_int8", kTileBytes * kTileProducts, amx_int8});
  if (__builtin_cpu_supports("fma")) found.push_back({"avx2_f32", 8.0 * kChains, fma_256});
  if (__builtin_cpu_supports("avx512f")) found.push_back({"avx512_f32", 16.0 * kChains, fma_512});
  if (has_amx(22)) found.push_back({"amx_bf16", kTileBytes / 2 * kTileProducts, amx_bf16});
  return found;
}

#elif defined(__aarch64__)

constexpr int kChains = 16;

__attribute__((target("arch=armv8.2-a+dotprod"))) void dotprod(int64_t n_rounds) {
  int8x16_t a = vdupq_n_s8(1);
  const int8x16_t b = vdupq_n_s8(1);
  int32x4_t sums[kChains] = {};
  for (int64_t i = 0; i < n_rounds; ++i) {
    for (int32x4_t& sum : sums) {
      asm volatile("" : "+w"(a));
      sum = vdotq_s32(sum, a, b);
    }
  }
  for (const int32x4_t& sum : sums) asm volatile("" ::"w"(sum));
}

__attribute__((target("arch=armv8.2-a+i8mm"))) void i8mm(int64_t n_rounds) {
  int8x16_t a = vdupq_n_s8(1);
  const int8x16_t b = vdupq_n_s8(1);
  int32x4_t sums[kChains] = {};
  for (int64_t i = 0; i < n_rounds; ++i) {
    for (int32x4_t& sum : sums) {
      asm volatile("" : "+w"(a));
      sum = vmmlaq_s32(sum, a, b);
    }
  }
  for (const int32x4_t& sum : sums) asm volatile("" ::"w"(sum));
}

void fma_128(int64_t n_rounds) {
  float32x4_t a = vdupq_n_f32(0), sums[kChains] = {};
  const float32x4_t b = vdupq_n_f32(0);
  for (int64_t i = 0; i < n_rounds; ++i) {
    for (float32x4_t& sum : sums) {
      asm volatile("" : "+w"(a));
      sum = vfmaq_f32(sum, a, b);
    }
  }
  for (const float32x4_t& sum : sums) asm volatile("" ::"w"(sum));
}

std::vector<Multiplier> multipliers() {
  std::vector<Multiplier> found;
#if defined(__linux__)
  if (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) found.push_back({"neon_dotprod", 16.0 * kChains, dotprod});
  if (getauxval(AT_HWCAP2) & HWCAP2_I8MM) found.push_back({"neon_i8mm", 32.0 * kChains, i8mm});
#endif
  found.push_back({"neon_f32", 4.0 * kChains, fma_128});
  return found;
}

#else

std::vector<Multiplier> multipliers() { return {}; }

#endif

// Multiply-adds per second of this thread's best slice until a time, never less than one slice.
double best_rate(const Multiplier& multiplier, double until) {
  const auto n_rounds = static_cast<int64_t>(kCallsOfClock * 4096 / multiplier.per_round) + 1;
  double best = 0, ended = now_s();
  do {
    const double started = ended;
    double n_done = 0;
    do {
      multiplier.run(n_rounds);
      n_done += multiplier.per_round * static_cast<double>(n_rounds);
      ended = now_s();
    } while (ended - started < kSlice_s);
    best = std::max(best, n_done / (ended - started));
  } while (ended < until);
  return best;
}

}  // namespace

Rates multiply_limits(int n_threads, double seconds) {
  if (n_threads < 1 || !(seconds > 0)) throw std::invalid_argument("threads and seconds must be positive");
  const std::vector<Multiplier> all = multipliers();
  Rates rates;
  for (const Multiplier& multiplier : all) {
    std::atomic<double> total = 0;
    const double until = now_s() + seconds / static_cast<double>(all.size());
    on_threads(n_threads, [&](int) { total += best_rate(multiplier, until); });
    // Two kernels of one set: the faster counts.
    const auto same = std::find_if(rates.begin(), rates.end(),
                                   [&](const auto& rate) { return rate.first == multiplier.name; });
    if (same == rates.end()) {
      rates.emplace_back(multiplier.name, total.load());
    } else {
      same->second = std::max(same->second, total.load());
    }
  }
  return rates;
}

}  // namespace rocmforge
