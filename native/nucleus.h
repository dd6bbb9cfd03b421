// top_p of a whole row: the likeliest tokens that hold a share of its mass.
#pragma once

#include <cstdint>
#include <vector>

#include "blocked_row.h"
#include "sample_params.h"

namespace rocmforge {

// Draws from the nucleus of top_p, less what min_p excludes; `candidates` is working memory. The
// row's total mass is summed from float weights when the vocabulary is large (the share is then
// exact to about 1e-6), the rest is exact.
int32_t draw_nucleus(BlockedRow& row, const SampleParams& params,
                     std::vector<RankedToken>& candidates, WeightScratch& scratch);

}  // namespace rocmforge
