#include "arena.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include <cstdlib>
#include <cstring>
#include <new>
#include <stdexcept>

namespace rocmforge {

#ifdef ROCMFORGE_SANITIZE

Arena::Arena(size_t bytes, Pages) : bytes_(bytes) {
  const size_t whole = (bytes + 64) / 64 * 64;  // as aligned_alloc wants it, and never nothing
  data_ = static_cast<uint8_t*>(std::aligned_alloc(64, whole));
  if (data_ == nullptr) throw std::bad_alloc();
  std::memset(data_, 0, whole);
}

#else

Arena::Arena(size_t bytes, Pages pages) : bytes_(bytes) {
  if (bytes == 0) return;
  void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED) throw std::bad_alloc();
  map_ = at;
  map_bytes_ = bytes;
  data_ = static_cast<uint8_t*>(at);
#ifdef MADV_HUGEPAGE
  // Only advice, so a refusal does not matter.
  if (pages == Pages::Huge && bytes >= size_t{8} << 20) madvise(at, bytes, MADV_HUGEPAGE);
#else
  static_cast<void>(pages);
#endif
}

#endif

Arena::Arena(int fd, size_t offset, size_t bytes, bool writable)
    : bytes_(bytes), is_writable_(writable), map_bytes_(offset + bytes) {
  struct stat file;
  if (offset % 64 != 0 || map_bytes_ < offset || fstat(fd, &file) != 0 ||
      static_cast<uint64_t>(file.st_size) < map_bytes_)
    throw std::invalid_argument("the file does not hold the weights");
  if (map_bytes_ == 0) return;
  const int access = writable ? PROT_READ | PROT_WRITE : PROT_READ;
  void* at = mmap(nullptr, map_bytes_, access, MAP_SHARED, fd, 0);
  if (at == MAP_FAILED) throw std::invalid_argument("the file cannot be mapped");
  map_ = at;
  data_ = static_cast<uint8_t*>(at) + offset;
}

Arena::~Arena() {
  if (map_ != nullptr) {
    munmap(map_, map_bytes_);
  } else {
    std::free(data_);
  }
}

}  // namespace rocmforge
