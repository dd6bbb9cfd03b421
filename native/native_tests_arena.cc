// Arenas over a file that two processes map, and the checksum of what is in them.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <stdexcept>

#include "arena.h"
#include "checksum.h"
#include "native_tests.h"

namespace rocmforge {
namespace {

bool is_refused(int fd, size_t offset, size_t bytes) {
  try {
    const Arena arena(fd, offset, bytes, false);
  } catch (const std::invalid_argument&) {
    return true;
  }
  return false;
}

void test_two_maps(int fd, size_t bytes) {
  check(ftruncate(fd, static_cast<off_t>(4096 + bytes)) == 0, "ftruncate");
  const Arena written(fd, 4096, bytes, true);
  const Arena read(fd, 4096, bytes, false);
  check(written.is_writable() && !read.is_writable(), "is_writable");
  check(reinterpret_cast<uintptr_t>(read.data()) % 64 == 0, "alignment of a shared arena");
  for (size_t i = 0; i < bytes; ++i) written.data()[i] = static_cast<uint8_t>(any(0, 255));
  check(std::equal(read.data(), read.data() + bytes, written.data()), "shared bytes");
  check(is_refused(fd, 4096, bytes + 1), "an arena beyond the file's end");
  check(is_refused(fd, 1, 8), "an arena that is not aligned");
  check(is_refused(fd, 64, ~size_t{0}), "an arena around the address space");
  check(is_refused(-1, 0, 8), "an arena of no file");
}

void test_checksum() {
  const size_t bytes = (size_t{9} << 20) + 5;
  Arena arena(bytes);
  for (size_t i = 0; i < bytes; i += 97) arena.data()[i] = static_cast<uint8_t>(any(0, 255));
  ThreadPool one(1), three(3);
  const uint64_t sum = checksum(arena.data(), bytes, one);
  check(checksum(arena.data(), bytes, three) == sum, "a checksum of three threads");
  check(checksum(arena.data(), bytes - 1, one) != sum, "a checksum knows the length");
  for (const size_t at : {size_t{0}, size_t{31}, size_t{4} << 20, bytes - 1}) {
    arena.data()[at] ^= 4;
    check(checksum(arena.data(), bytes, one) != sum, "a flipped bit changes the checksum");
    arena.data()[at] ^= 4;
  }
  std::swap_ranges(arena.data(), arena.data() + 64, arena.data() + (size_t{4} << 20));
  check(checksum(arena.data(), bytes, one) != sum, "pieces have an order");
}

}  // namespace

void test_shared_arena() {
  std::FILE* file = std::tmpfile();
  check(file != nullptr, "tmpfile");
  test_two_maps(fileno(file), 100000);
  std::fclose(file);
  test_checksum();
}

}  // namespace rocmforge
