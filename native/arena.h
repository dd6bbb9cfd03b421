// Zeroed memory that is touched only when used: large parts of a KV cache or of an arena may never
// be. Aligned to 64 bytes. With ROCMFORGE_SANITIZE it comes from the heap, whose bounds AddressSanitizer watches.
#pragma once

#include <cstddef>
#include <cstdint>

namespace rocmforge {

// Huge: fewer TLB misses where all of it streams by, as weights do. Small: what is touched here and
// there costs no more than it needs. A KV cache has a plane per layer for keys and one for values;
// with huge pages its first token took 2 MB of each, which is 96 MB in a model of 24 layers, and a
// virtual machine whose host takes free memory back needed 0.28 s for that instead of 0.02.
enum class Pages { Small, Huge };

class Arena {
 public:
  // Throws std::bad_alloc when the address space is not to be had.
  explicit Arena(size_t bytes, Pages pages = Pages::Small);
  // Bytes offset … offset + bytes of a file that other processes map too; the arena begins at
  // `offset`, a multiple of 64. Throws std::invalid_argument when the file is shorter or may not be
  // mapped like that. Its pages are small: see "Weights outlive their engine" in docs/decisions.md.
  Arena(int fd, size_t offset, size_t bytes, bool writable);
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  uint8_t* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  bool is_writable() const { return is_writable_; }

 private:
  uint8_t* data_ = nullptr;
  size_t bytes_ = 0;
  bool is_writable_ = true;
  // The part of the address space to be given back; null when data_ came from the heap.
  void* map_ = nullptr;
  size_t map_bytes_ = 0;
};

}  // namespace rocmforge
