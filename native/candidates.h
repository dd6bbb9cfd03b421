// A short list of candidates, exactly: weights in double precision, summed in the list's order.
#pragma once

#include <vector>

#include "blocked_row.h"
#include "sample_params.h"

namespace rocmforge {

// A float scale for SampleKernels: log2(e) / temperature, but finite.
float weight_scale(double temperature);

// exp((logit - peak) / temperature) of every candidate → their sum.
double fill_weights(const std::vector<RankedToken>& candidates, double peak, double temperature,
                    std::vector<double>& weights);

// Drops the candidates that are less than min_p times as likely as the peak.
void keep_min_p(std::vector<RankedToken>& candidates, double min_p, double peak, double temperature);

// A mass that is known to lie between two numbers.
struct Mass {
  double low, high;
};

enum class Nucleus { kCut, kUndecided, kAll };

// Sorts the likeliest candidates to the front and drops those beyond a mass of `wanted`: kCut.
// kUndecided when it depends on the true mass which those are, kAll when all together hold less; the
// candidates are then the same in some order.
Nucleus keep_nucleus(std::vector<RankedToken>& candidates, Mass wanted, double peak,
                     double temperature);

// The `top_k` likeliest tokens of a row, sorted; top_k is at least 1 and below n_candidates().
void collect_top_k(BlockedRow& row, int64_t top_k, std::vector<RankedToken>& candidates);

// Every token that is at least min_p times as likely as the peak, by id.
void collect_min_p(BlockedRow& row, double min_p, double temperature,
                   std::vector<RankedToken>& candidates);

// Draws a candidate in proportion to its weight, by the first uniform number of params' position.
int32_t draw_candidate(const std::vector<RankedToken>& candidates, const SampleParams& params,
                       double peak, std::vector<double>& weights);

}  // namespace rocmforge
