#include "thread_pool.h"

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace rocmforge {
namespace {

// About 20 µs: the gap between two operations of a step is shorter, the gap between steps longer.
constexpr int kSpins = 2000;

void relax() {
#if defined(__x86_64__) || defined(_M_X64)
  _mm_pause();
#else
  std::this_thread::yield();
#endif
}

}  // namespace

ThreadPool::ThreadPool(int n_threads) {
  for (int i = 1; i < n_threads; ++i) workers_.emplace_back([this, i] { live(i); });
}

ThreadPool::~ThreadPool() {
  stopping_.store(true);
  epoch_.fetch_add(1);
  epoch_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::run(int64_t n, int64_t grain, Function function, const void* f) {
  if (n <= 0) return;
  const int64_t n_chunks = (n + grain - 1) / grain;
  if (n_chunks == 1 || workers_.empty()) {
    function(f, 0, n, 0);
    return;
  }
  // Closed since the last loop ended: nobody reads what changes here and then takes a chunk by it.
  n_.store(n, std::memory_order_relaxed);
  grain_.store(grain, std::memory_order_relaxed);
  n_chunks_.store(n_chunks, std::memory_order_relaxed);
  function_.store(function, std::memory_order_relaxed);
  argument_.store(f, std::memory_order_relaxed);
  n_done_.store(0, std::memory_order_relaxed);
  const uint32_t epoch = epoch_.load(std::memory_order_relaxed) + 1;
  next_.store(uint64_t{epoch} << 32, std::memory_order_release);
  epoch_.store(epoch, std::memory_order_release);
  epoch_.notify_all();
  work(epoch, 0);
  while (n_done_.load(std::memory_order_acquire) < n_chunks) relax();
  next_.store((uint64_t{epoch} << 32) | kClosed, std::memory_order_release);
}

void ThreadPool::work(uint32_t epoch, int thread) {
  uint64_t next = next_.load(std::memory_order_acquire);
  while (static_cast<uint32_t>(next >> 32) == epoch) {
    const int64_t chunk = static_cast<int64_t>(next & kClosed);
    const int64_t n = n_.load(std::memory_order_relaxed);
    const int64_t grain = grain_.load(std::memory_order_relaxed);
    if (chunk >= n_chunks_.load(std::memory_order_relaxed)) return;
    // A success says that the loop has not ended, so what was read above belongs to it.
    if (!next_.compare_exchange_weak(next, next + 1, std::memory_order_acq_rel,
                                     std::memory_order_acquire)) {
      continue;
    }
    const int64_t begin = chunk * grain;
    const int64_t end = begin + grain < n ? begin + grain : n;
    function_.load(std::memory_order_relaxed)(argument_.load(std::memory_order_relaxed), begin, end,
                                              thread);
    n_done_.fetch_add(1, std::memory_order_acq_rel);
    next = next_.load(std::memory_order_acquire);
  }
}

void ThreadPool::live(int thread) {
  uint32_t seen = 0;
  while (true) {
    for (int i = 0; i < kSpins && epoch_.load(std::memory_order_acquire) == seen; ++i) relax();
    epoch_.wait(seen, std::memory_order_acquire);
    seen = epoch_.load(std::memory_order_acquire);
    if (stopping_.load()) return;
    work(seen, thread);
  }
}

}  // namespace rocmforge
