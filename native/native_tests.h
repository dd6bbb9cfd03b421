// What the files of native_tests share.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace rocmforge {

// Ends the program, naming `what`, when something does not hold.
void check(bool holds, const std::string& what);

// Random numbers that are the same in every run: an integer from low to high, n normal floats.
int64_t any(int64_t low, int64_t high);
std::vector<float> reals(int64_t n);

void test_sampling();
void test_shared_arena();

}  // namespace rocmforge
