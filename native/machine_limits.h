// What this machine does at best, for benchmarks to compare with: bytes read from memory per second
// and multiply-adds per second.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace rocmforge {

using Rates = std::vector<std::pair<std::string, double>>;

// Bytes per second of each way to read n_bytes with n_threads: the best of its passes over all of them, of
// which there are at least two and as many as fit into its part of `seconds`. The largest is the limit. The
// memory is allocated and written anew. Throws std::bad_alloc, std::invalid_argument for impossible numbers.
Rates read_limits(int n_threads, size_t n_bytes, double seconds);

// Multiply-adds per second of n_threads in registers, by instruction set: the best of the slices that fit into
// its part of `seconds`. Empty where no set is known. Throws std::invalid_argument for impossible numbers.
Rates multiply_limits(int n_threads, double seconds);

// Runs f(thread) on n_threads threads of its own, the caller being one; returns when all have. f does not
// throw.
void on_threads(int n_threads, const std::function<void(int)>& f);

// Seconds of a clock that never goes back.
double now_s();

}  // namespace rocmforge
