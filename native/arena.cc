#include "arena.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <new>

namespace rocmforge {

#ifdef ROCMFORGE_SANITIZE

Arena::Arena(size_t bytes, Pages) : bytes_(bytes) {
  const size_t whole = (bytes + 64) / 64 * 64;  // as aligned_alloc wants it, and never nothing
  data_ = static_cast<uint8_t*>(std::aligned_alloc(64, whole));
  if (data_ == nullptr) throw std::bad_alloc();
  std::memset(data_, 0, whole);
}

Arena::~Arena() { std::free(data_); }

#else

Arena::Arena(size_t bytes, Pages pages) : bytes_(bytes) {
  if (bytes == 0) return;
  void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED) throw std::bad_alloc();
  data_ = static_cast<uint8_t*>(at);
#ifdef MADV_HUGEPAGE
  // Only advice, so a refusal does not matter.
  if (pages == Pages::Huge && bytes >= size_t{8} << 20) madvise(at, bytes, MADV_HUGEPAGE);
#else
  static_cast<void>(pages);
#endif
}

Arena::~Arena() {
  if (data_ != nullptr) munmap(data_, bytes_);
}

#endif

}  // namespace rocmforge
