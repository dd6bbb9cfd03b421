// Samples the rows of a step, a row at a time on any thread of a pool.
#pragma once

#include <exception>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "sample.h"
#include "thread_pool.h"

namespace rocmforge {

struct SampledRow {
  SampleResult result;
  TopLogprobs top;
};

class BatchSampler {
 public:
  BatchSampler(std::shared_ptr<ThreadPool> pool, const SampleKernels& kernels)
      : pool_(std::move(pool)), kernels_(kernels), scratch_(static_cast<size_t>(pool_->size())) {}

  const SampleKernels& kernels() const { return kernels_; }

  // Rows [params.size(), n_vocab] of logits → `out`, one entry a row. One caller at a time works;
  // others wait. The pool must not be running anything else. Throws std::bad_alloc.
  void sample(const float* logits, int64_t n_vocab, std::span<const SampleParams> params,
              std::span<SampledRow> out) {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::vector<std::exception_ptr> failures(scratch_.size());
    pool_->for_range(static_cast<int64_t>(params.size()), 1, [&](int64_t begin, int64_t end, int thread) {
      const auto t = static_cast<size_t>(thread);
      try {
        for (int64_t r = begin; r < end; ++r) {
          const auto i = static_cast<size_t>(r);
          const std::span<const float> row(logits + r * n_vocab, static_cast<size_t>(n_vocab));
          out[i].result = sample_row(row, params[i], kernels_, scratch_[t], out[i].top);
        }
      } catch (...) {  // the pool's threads cannot pass it on
        failures[t] = std::current_exception();
      }
    });
    for (const std::exception_ptr& failure : failures) {
      if (failure != nullptr) std::rethrow_exception(failure);
    }
  }

 private:
  std::shared_ptr<ThreadPool> pool_;
  const SampleKernels& kernels_;
  std::vector<SampleScratch> scratch_;  // one a thread
  std::mutex mutex_;
};

}  // namespace rocmforge
