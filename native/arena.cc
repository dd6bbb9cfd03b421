#include "arena.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include <cstdlib>
#include <cstring>
#include <new>
#include <stdexcept>

namespace rocmforge {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;

void advise(void* at, size_t bytes, Pages pages) {
#ifdef MADV_HUGEPAGE
  // Only advice, so a refusal does not matter.
  if (pages == Pages::Huge && bytes >= 4 * kHugePage) madvise(at, bytes, MADV_HUGEPAGE);
#else
  static_cast<void>(at), static_cast<void>(bytes), static_cast<void>(pages);
#endif
}

}  // namespace

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
  advise(at, bytes, pages);
}

#endif

Arena::Arena(int fd, size_t offset, size_t bytes, bool writable, Pages pages)
    : bytes_(bytes), is_writable_(writable) {
  struct stat file;
  const size_t end = offset + bytes;
  if (offset % 64 != 0 || end < offset || fstat(fd, &file) != 0 ||
      static_cast<uint64_t>(file.st_size) < end)
    throw std::invalid_argument("the file does not hold the weights");
  if (end == 0) return;
  // A huge page of a file is mapped as one only at an address that is as aligned as its place in the
  // file, so the address is chosen here, out of a larger piece.
  map_bytes_ = end + kHugePage;
  map_ = mmap(nullptr, map_bytes_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (map_ == MAP_FAILED) throw std::bad_alloc();
  const uintptr_t start = reinterpret_cast<uintptr_t>(map_);
  uint8_t* aligned = static_cast<uint8_t*>(map_) + (kHugePage - start % kHugePage) % kHugePage;
  const int access = writable ? PROT_READ | PROT_WRITE : PROT_READ;
  if (mmap(aligned, end, access, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED) {
    munmap(map_, map_bytes_);
    throw std::invalid_argument("the file cannot be mapped");
  }
  advise(aligned, end, pages);
  data_ = aligned + offset;
}

Arena::~Arena() {
  if (map_ != nullptr) {
    munmap(map_, map_bytes_);
  } else {
    std::free(data_);
  }
}

}  // namespace rocmforge
