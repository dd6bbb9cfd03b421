// Included before every file when `make bench-peer` builds llama.cpp: before version 13, GCC's
// _tile_loadconfig tells the optimizer of 8 of the 64 bytes that it reads, so the stores of the
// others are dropped, and llama.cpp ends with a fault at its first product on AMX.
#pragma once
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ < 13
#include <immintrin.h>
#define _tile_loadconfig(config) \
  __asm__ volatile("ldtilecfg %0" ::"m"(*(const char(*)[64])(config)))
#endif
