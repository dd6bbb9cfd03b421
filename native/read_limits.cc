// The read limit: plain loads over memory much larger than the caches. Which way of reading is fastest depends
// on the machine (prefetchers follow a number of streams; a core has few outstanding misses), so several are
// tried.
#include <algorithm>
#include <barrier>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <stdexcept>
#include <thread>

#if defined(__linux__)
#include <sys/mman.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "machine_limits.h"

namespace rocmforge {
namespace {

constexpr size_t kHugePage = size_t{1} << 21;
constexpr size_t kLine = 64;
// A part of a thread is cut into up to this many streams of whole pages.
constexpr size_t kMaxStreams = 8;
constexpr size_t kPartUnit = kMaxStreams * 4096;
constexpr int kMinPasses = 2;

using Read = void (*)(const uint8_t* part, size_t n_bytes);

struct Reader {
  const char* name;
  Read read;
};

// Keeps a loaded value from being optimised away.
template <class T>
inline void use(const T& value) {
#if defined(__x86_64__)
  asm volatile("" ::"x"(value));
#else
  asm volatile("" ::"w"(value));
#endif
}

#if defined(__x86_64__)

// kAhead: bytes between what is loaded and what is prefetched into L2; 0 leaves it to the hardware.
template <size_t kStreams, size_t kAhead>
__attribute__((target("avx2"))) void read_avx2(const uint8_t* part, size_t n_bytes) {
  const size_t stride = n_bytes / kStreams;
  for (size_t at = 0; at < stride; at += kLine) {
    for (size_t s = 0; s < kStreams; ++s) {
      const uint8_t* p = part + s * stride + at;
      if (kAhead) _mm_prefetch(reinterpret_cast<const char*>(p + kAhead), _MM_HINT_T1);
      use(_mm256_load_si256(reinterpret_cast<const __m256i*>(p)));
      use(_mm256_load_si256(reinterpret_cast<const __m256i*>(p + 32)));
    }
  }
}

template <size_t kStreams, size_t kAhead>
__attribute__((target("avx512f"))) void read_avx512(const uint8_t* part, size_t n_bytes) {
  const size_t stride = n_bytes / kStreams;
  for (size_t at = 0; at < stride; at += kLine) {
    for (size_t s = 0; s < kStreams; ++s) {
      const uint8_t* p = part + s * stride + at;
      if (kAhead) _mm_prefetch(reinterpret_cast<const char*>(p + kAhead), _MM_HINT_T1);
      const __m512i loaded = _mm512_load_si512(p);
      asm volatile("" ::"v"(loaded));
    }
  }
}

// Rejected on a Xeon of two cores (768 MiB; the best read 37 GB/s): prefetches of single use (NTA) 16, pages
// prefetched whole 29, two streams 32 to 35, eight streams 33 to 35.
std::vector<Reader> readers() {
  std::vector<Reader> found;
  if (__builtin_cpu_supports("avx2")) {
    found.push_back({"avx2, 1 stream", read_avx2<1, 0>});
    found.push_back({"avx2, 1 stream, prefetch 2 KiB", read_avx2<1, 2048>});
    found.push_back({"avx2, 4 streams, prefetch 2 KiB", read_avx2<4, 2048>});
  }
  if (__builtin_cpu_supports("avx512f")) {
    found.push_back({"avx512, 4 streams", read_avx512<4, 0>});
    found.push_back({"avx512, 1 stream, prefetch 2 KiB", read_avx512<1, 2048>});
    found.push_back({"avx512, 1 stream, prefetch 16 KiB", read_avx512<1, 16384>});
    found.push_back({"avx512, 4 streams, prefetch 2 KiB", read_avx512<4, 2048>});
  }
  return found;
}

#else

std::vector<Reader> readers() { return {}; }

#endif

// The compiler's own vectors, for machines without one of the above.
template <size_t kStreams>
void read_words(const uint8_t* part, size_t n_bytes) {
  typedef uint64_t Pair __attribute__((vector_size(16)));
  const size_t stride = n_bytes / kStreams;
  for (size_t at = 0; at < stride; at += kLine) {
    for (size_t s = 0; s < kStreams; ++s) {
      const Pair* p = reinterpret_cast<const Pair*>(part + s * stride + at);
      for (size_t i = 0; i < kLine / sizeof(Pair); ++i) use(p[i]);
    }
  }
}

std::vector<Reader> all_readers() {
  std::vector<Reader> found = readers();
  if (found.empty()) {
    found.push_back({"plain, 1 stream", read_words<1>});
    found.push_back({"plain, 4 streams", read_words<4>});
  }
  return found;
}

struct Free {
  void operator()(uint8_t* data) const { std::free(data); }
};
using Memory = std::unique_ptr<uint8_t, Free>;

// n_bytes in huge pages where the system has them: their translations all fit into the TLB.
Memory allocate(size_t n_bytes) {
  const size_t rounded = (n_bytes + kHugePage - 1) / kHugePage * kHugePage;
  Memory memory(static_cast<uint8_t*>(std::aligned_alloc(kHugePage, rounded)));
  if (!memory) throw std::bad_alloc();
#if defined(__linux__)
  madvise(memory.get(), rounded, MADV_HUGEPAGE);
#endif
  return memory;
}

}  // namespace

double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void on_threads(int n_threads, const std::function<void(int)>& f) {
  std::vector<std::thread> threads;
  for (int i = 1; i < n_threads; ++i) threads.emplace_back([&f, i] { f(i); });
  f(0);
  for (std::thread& thread : threads) thread.join();
}

Rates read_limits(int n_threads, size_t n_bytes, double seconds) {
  if (n_threads < 1 || !(seconds > 0)) throw std::invalid_argument("threads and seconds must be positive");
  const size_t part = n_bytes / n_threads / kPartUnit * kPartUnit;
  if (part == 0) throw std::invalid_argument("too few bytes for so many threads");
  const Memory memory = allocate(part * n_threads);
  const std::vector<Reader> ways = all_readers();
  std::vector<double> best_s(ways.size(), 1e300);
  std::barrier together(n_threads);
  bool again = true;  // thread 0 writes it between two barriers
  on_threads(n_threads, [&](int thread) {
    uint8_t* const mine = memory.get() + part * thread;
    // Pages that were never written would all be one page of zeros, in the cache.
    std::memset(mine, thread + 1, part);
    for (size_t way = 0; way < ways.size(); ++way) {
      const double until = now_s() + seconds / ways.size();
      for (int pass = 0; pass == 0 || again; ++pass) {
        together.arrive_and_wait();
        const double started = now_s();
        ways[way].read(mine, part);
        together.arrive_and_wait();
        if (thread == 0) {
          const double ended = now_s();
          best_s[way] = std::min(best_s[way], ended - started);
          again = pass + 1 < kMinPasses || ended < until;
        }
        together.arrive_and_wait();
      }
    }
  });
  Rates rates;
  for (size_t way = 0; way < ways.size(); ++way)
    rates.emplace_back(ways[way].name, static_cast<double>(part * n_threads) / best_s[way]);
  return rates;
}

}  // namespace rocmforge
