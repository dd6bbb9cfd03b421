// A draw from the softmax of a whole row, without the exponentials of the whole row.
#pragma once

#include <cstdint>

#include "blocked_row.h"
#include "sample_params.h"

namespace rocmforge {

// Draws a token in proportion to exp(logit / temperature); the row has a candidate.
//
// By rejection: a block stands for its largest weight times its size, which is at least its sum. A
// block is drawn in proportion to that, then one of its tokens, evenly, which is accepted with its
// weight over the largest; else all is drawn again. The few blocks that would be rejected most, those
// with a large share of the bounds, stand for their true sum, and a token is taken from their
// cumulative weights. No try fails more often than 255 times in 256, and typically a handful is
// needed. Try t uses the random words of draw t.
int32_t draw_softmax(BlockedRow& row, const SampleParams& params, WeightScratch& scratch);

}  // namespace rocmforge
