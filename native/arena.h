// Zeroed memory that is touched only when used: large parts of a KV cache or of an arena may never
// be. Aligned to 64 bytes. With ROCMFORGE_SANITIZE it comes from the heap, whose bounds AddressSanitizer watches.
#pragma once

#include <cstddef>
#include <cstdint>

namespace rocmforge {

class Arena {
 public:
  // Throws std::bad_alloc when the address space is not to be had.
  explicit Arena(size_t bytes);
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  uint8_t* data() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  uint8_t* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace rocmforge
