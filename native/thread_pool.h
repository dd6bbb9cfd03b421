// Threads that share loops. The caller works too and never waits for a thread that has not begun:
// on a busy machine a sleeping worker costs its help, not a delay.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace rocmforge {

class ThreadPool {
 public:
  // n_threads counts the caller: n_threads - 1 threads are started.
  explicit ThreadPool(int n_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls f(begin, end, thread) until [0, n) is covered, in chunks of at most `grain`, from any
  // thread (0 is the caller). f must not throw. One caller at a time.
  template <class F>
  void for_range(int64_t n, int64_t grain, const F& f) {
    run(n, grain, &invoke<F>, &f);
  }

 private:
  using Function = void (*)(const void* f, int64_t begin, int64_t end, int thread);

  template <class F>
  static void invoke(const void* f, int64_t begin, int64_t end, int thread) {
    (*static_cast<const F*>(f))(begin, end, thread);
  }

  void run(int64_t n, int64_t grain, Function function, const void* f);
  void work(uint32_t epoch, int thread);
  void live(int thread);

  // Upper 32 bits: the loop's number. Lower 32: its next chunk, or kClosed between loops. A thread
  // takes a chunk by compare-and-swap, so none can be taken from a loop that is over.
  std::atomic<uint64_t> next_{kClosed};
  std::atomic<int64_t> n_chunks_{0};
  std::atomic<int64_t> n_{0};
  std::atomic<int64_t> grain_{1};
  std::atomic<Function> function_{nullptr};
  std::atomic<const void*> argument_{nullptr};
  std::atomic<int64_t> n_done_{0};
  std::atomic<uint32_t> epoch_{0};  // what sleeping workers wait on
  std::atomic<bool> stopping_{false};
  std::vector<std::thread> workers_;

  static constexpr uint64_t kClosed = 0xFFFFFFFFu;
};

}  // namespace rocmforge
