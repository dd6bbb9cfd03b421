// Multiply-adds in registers: what an instruction set does when nothing has to be loaded. Sets are chosen at run
// time.
//
// Each kernel is a loop in assembly, because compilers spill: GCC 12 keeps some of twelve accumulators of
// intrinsics in memory, and the limit comes out a fifth too low. Accumulators are many enough to cover the
// latency (4 to 6 cycles, two instructions a cycle; AMX: 4 tiles of 16 cycles). All numbers are zero, which
// takes the least power: a limit may be a little above what other numbers reach, never below.
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <stdexcept>

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#if defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#include "machine_limits.h"

namespace rocmforge {
namespace {

// Long enough that reading the clock does not count, short enough that one of many is undisturbed.
constexpr double kSlice_s = 0.01;
constexpr double kMacsPerCall = 8e6;

struct Multiplier {
  const char* name;
  double per_round;
  void (*run)(int64_t n_rounds);
};

#if defined(__x86_64__)

// The instruction I once for each of twelve accumulators.
#define TWELVE(I) \
  I("0") I("1") I("2") I("3") I("4") I("5") I("6") I("7") I("8") I("9") I("10") I("11")
#define CLEAR(r) "vpxor %%xmm" r ", %%xmm" r ", %%xmm" r "\n\t"
#define LOOP(body)                                                                                           \
  asm volatile(TWELVE(CLEAR) CLEAR("12") CLEAR("13") CLEAR("14") CLEAR("15") ".p2align 5\n1:\n\t" body      \
               "dec %0\n\tjnz 1b\n\tvzeroupper"                                                              \
               : "+r"(n_rounds)                                                                              \
               :                                                                                             \
               : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",      \
                 "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15")

constexpr double kTwelve = 12, kBytes256 = 32, kBytes512 = 64;

// u8 × i8 pairs to i16, pairs of these to i32, added: what a product of any two bytes takes without VNNI.
#define MADDUBS(sum, t)                            \
  "vpmaddubsw %%ymm15, %%ymm14, %%ymm" t "\n\t"    \
  "vpmaddwd %%ymm13, %%ymm" t ", %%ymm" t "\n\t"   \
  "vpaddd %%ymm" t ", %%ymm" sum ", %%ymm" sum "\n\t"
constexpr double kMaddubs = 6;
void maddubs(int64_t n_rounds) {
  LOOP(MADDUBS("0", "6") MADDUBS("1", "7") MADDUBS("2", "8") MADDUBS("3", "9") MADDUBS("4", "10")
           MADDUBS("5", "11"));
}

// The same where eight products of 4-bit numbers fit into i16 before they are widened.
#define FIRST(narrow) "vpmaddubsw %%ymm15, %%ymm14, %%ymm" narrow "\n\t"
#define NEXT(narrow, t) FIRST(t) "vpaddw %%ymm" t ", %%ymm" narrow ", %%ymm" narrow "\n\t"
#define FOUR(I) I("0", "8") I("1", "9") I("2", "10") I("3", "11")
#define WIDEN(narrow, sum)                                      \
  "vpmaddwd %%ymm13, %%ymm" narrow ", %%ymm" narrow "\n\t"       \
  "vpaddd %%ymm" narrow ", %%ymm" sum ", %%ymm" sum "\n\t"
constexpr double kDeferred = 8 * 4;
void maddubs_deferred(int64_t n_rounds) {
  LOOP(FIRST("0") FIRST("1") FIRST("2") FIRST("3")
       FOUR(NEXT) FOUR(NEXT) FOUR(NEXT) FOUR(NEXT) FOUR(NEXT) FOUR(NEXT) FOUR(NEXT)
       WIDEN("0", "4") WIDEN("1", "5") WIDEN("2", "6") WIDEN("3", "7"));
}

#define VNNI_256(sum) "%{vex%} vpdpbusd %%ymm15, %%ymm14, %%ymm" sum "\n\t"
void vnni_256(int64_t n_rounds) { LOOP(TWELVE(VNNI_256)); }

#define VNNI_512(sum) "vpdpbusd %%zmm15, %%zmm14, %%zmm" sum "\n\t"
void vnni_512(int64_t n_rounds) { LOOP(TWELVE(VNNI_512)); }

#define FMA_256(sum) "vfmadd231ps %%ymm15, %%ymm14, %%ymm" sum "\n\t"
void fma_256(int64_t n_rounds) { LOOP(TWELVE(FMA_256)); }

#define FMA_512(sum) "vfmadd231ps %%zmm15, %%zmm14, %%zmm" sum "\n\t"
void fma_512(int64_t n_rounds) { LOOP(TWELVE(FMA_512)); }

// What ldtilecfg reads: eight tiles of 16 rows of 64 bytes.
struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(TileConfig) == 64);

// Two tiles of 16 × 64 bytes times two of the same size, into four of 16 × 16 numbers of 32 bits. The whole
// configuration is an operand: GCC's _tile_loadconfig names 8 bytes of it before version 13, and the stores of
// the others get lost.
#define TILES(instruction)                                                                              \
  const TileConfig config;                                                                              \
  asm volatile(                                                                                         \
      "ldtilecfg %1\n\ttilezero %%tmm0\n\ttilezero %%tmm1\n\ttilezero %%tmm2\n\ttilezero %%tmm3\n\t"        \
      "tilezero %%tmm4\n\ttilezero %%tmm5\n\ttilezero %%tmm6\n\ttilezero %%tmm7\n1:\n\t" instruction        \
      " %%tmm6, %%tmm4, %%tmm0\n\t" instruction " %%tmm7, %%tmm4, %%tmm1\n\t" instruction               \
      " %%tmm6, %%tmm5, %%tmm2\n\t" instruction                                                         \
      " %%tmm7, %%tmm5, %%tmm3\n\tdec %0\n\tjnz 1b\n\ttilerelease"                                        \
      : "+r"(n_rounds)                                                                                  \
      : "m"(config)                                                                                     \
      : "cc")
constexpr double kTileMacs = 4.0 * 16 * 16 * 64;

void amx_int8(int64_t n_rounds) { TILES("tdpbssd"); }

void amx_bf16(int64_t n_rounds) { TILES("tdpbf16ps"); }

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
  const bool has_avx2 = __builtin_cpu_supports("avx2"), has_avx512 = __builtin_cpu_supports("avx512f");
  std::vector<Multiplier> found;
  if (has_avx2) {
    found.push_back({"avx2", kBytes256 * kMaddubs, maddubs});
    found.push_back({"avx2", kBytes256 * kDeferred, maddubs_deferred});
  }
  if (has_avx_vnni()) found.push_back({"avx_vnni", kBytes256 * kTwelve, vnni_256});
  if (__builtin_cpu_supports("avx512vnni")) found.push_back({"avx512_vnni", kBytes512 * kTwelve, vnni_512});
  if (has_amx(25)) found.push_back({"amx_int8", kTileMacs, amx_int8});
  if (has_avx2 && __builtin_cpu_supports("fma")) found.push_back({"avx2_f32", kBytes256 / 4 * kTwelve, fma_256});
  if (has_avx512) found.push_back({"avx512_f32", kBytes512 / 4 * kTwelve, fma_512});
  if (has_amx(22)) found.push_back({"amx_bf16", kTileMacs / 2, amx_bf16});
  return found;
}

#elif defined(__aarch64__)

// The instruction I once for each of sixteen accumulators.
#define SIXTEEN(I) \
  I("0") I("1") I("2") I("3") I("4") I("5") I("6") I("7") I("16") I("17") I("18") I("19") I("20") I("21") \
  I("22") I("23")
#define CLEAR(r) "movi v" r ".4s, #0\n\t"
#define LOOP(prefix, I)                                                                                   \
  asm volatile(prefix SIXTEEN(CLEAR) CLEAR("30") CLEAR("31") "1:\n\t" SIXTEEN(I)                          \
               "subs %0, %0, #1\n\tb.ne 1b"                                                               \
               : "+r"(n_rounds)                                                                           \
               :                                                                                          \
               : "cc", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v16", "v17", "v18", "v19", "v20", \
                 "v21", "v22", "v23", "v30", "v31")

constexpr double kSixteen = 16;

#define SDOT(sum) "sdot v" sum ".4s, v30.16b, v31.16b\n\t"
void dotprod(int64_t n_rounds) { LOOP(".arch armv8.2-a+dotprod\n\t", SDOT); }

#define SMMLA(sum) "smmla v" sum ".4s, v30.16b, v31.16b\n\t"
void i8mm(int64_t n_rounds) { LOOP(".arch armv8.2-a+i8mm\n\t", SMMLA); }

#define FMLA(sum) "fmla v" sum ".4s, v30.4s, v31.4s\n\t"
void fma_128(int64_t n_rounds) { LOOP("", FMLA); }

std::vector<Multiplier> multipliers() {
  std::vector<Multiplier> found;
#if defined(__linux__)
  if (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) found.push_back({"neon_dotprod", 16 * kSixteen, dotprod});
  if (getauxval(AT_HWCAP2) & HWCAP2_I8MM) found.push_back({"neon_i8mm", 32 * kSixteen, i8mm});
#endif
  found.push_back({"neon_f32", 4 * kSixteen, fma_128});
  return found;
}

#else

std::vector<Multiplier> multipliers() { return {}; }

#endif

// Multiply-adds per second of this thread's best slice until a time, never less than one slice.
double best_rate(const Multiplier& multiplier, double until) {
  const auto n_rounds = static_cast<int64_t>(kMacsPerCall / multiplier.per_round) + 1;
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
