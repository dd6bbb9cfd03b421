// A checksum of weights: finds damage, not forgery.
#pragma once

#include <cstddef>
#include <cstdint>

#include "thread_pool.h"

namespace rocmforge {

// 64 bits over all bytes and their number; the same for any number of threads.
uint64_t checksum(const uint8_t* data, size_t bytes, ThreadPool& pool);

}  // namespace rocmforge
