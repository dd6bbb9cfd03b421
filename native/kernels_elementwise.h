// Operations on single rows: norms, quantisation, rotation, SwiGLU. Part of kernels_impl.h, whose
// rules hold here.

namespace rocmforge::ROCMFORGE_LANES {
namespace {

// Lanes added as ((0+4)+(2+6)) + ((1+5)+(3+7)).
float sum_lanes(F8 a) {
  float v[8];
  f8_store(v, a);
  return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
}

// Up to seven floats, the other lanes 0.
F8 load_tail(const float* x, int64_t n) {
  float v[8] = {};
  for (int64_t i = 0; i < n; ++i) v[i] = x[i];
  return f8_load(v);
}
void store_tail(float* x, F8 a, int64_t n) {
  float v[8];
  f8_store(v, a);
  for (int64_t i = 0; i < n; ++i) x[i] = v[i];
}

// Call f(lanes of each array) for n elements, the tail through padded lanes.
template <class Function>
void map_lanes(float* out, const float* a, const float* b, int64_t n, Function f) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) f8_store(out + i, f(f8_load(a + i), f8_load(b + i)));
  if (i < n) store_tail(out + i, f(load_tail(a + i, n - i), load_tail(b + i, n - i)), n - i);
}

// e^x for x in [-87.3, 88], 0 below: range reduction by ln 2 in two parts (Cody and Waite), then a
// Taylor polynomial of degree 7 on |r| <= ln(2)/2, whose remainder is below 1e-8. NaN stays NaN: a
// softmax must not make a plain number of a broken score. f8_max and f8_min give their second operand
// when either is NaN, hence their order; n has to be a number.
F8 exp_lanes(F8 x) {
  const F8 lowest = f8_set1(-87.3f);
  const F8 clamped = f8_min(f8_set1(88.0f), f8_max(lowest, x));
  const F8 n = f8_max(f8_round(f8_mul(clamped, f8_set1(1.44269504f))), f8_set1(-126.0f));
  F8 r = f8_sub(clamped, f8_mul(n, f8_set1(0.693359375f)));
  r = f8_add(r, f8_mul(n, f8_set1(2.12194440e-4f)));
  F8 p = f8_set1(1.0f / 5040.0f);
  for (const float c : {1.0f / 720.0f, 1.0f / 120.0f, 1.0f / 24.0f, 1.0f / 6.0f, 0.5f, 1.0f, 1.0f}) {
    p = f8_add(f8_mul(p, r), f8_set1(c));
  }
  return f8_zero_below(f8_mul(p, f8_exp2_int(n)), x, lowest);
}

// The largest magnitude of n values; NaN when one of them is not finite.
float max_abs(const float* x, int n) {
  F8 peak = f8_set1(0.0f), zero = f8_set1(0.0f);
  for (int i = 0; i < n; i += 8) {
    const F8 value = f8_load(x + i);
    peak = f8_max(f8_abs(value), peak);
    zero = f8_add(zero, f8_mul(value, f8_set1(0.0f)));
  }
  float v[8];
  f8_store(v, peak);
  float result = v[0];
  for (int i = 1; i < 8; ++i) result = v[i] > result ? v[i] : result;
  return result + sum_lanes(zero);
}

void quantize(const float* x, int64_t cols, int block, int sum_every, int8_t* q, float* d,
              int32_t* sums) {
  for (int64_t b = 0; b < cols / block; ++b) {
    const float peak = max_abs(x + b * block, block);
    d[b] = peak / 127.0f;
    // Below 2^-121 the inverse would overflow: such a block counts as zeros.
    const float inverse = peak > 0x1.0p-121f ? 127.0f / peak : 0.0f;
    for (int i = 0; i < block; i += 8) {
      const int64_t at = b * block + i;
      f8_store_s8(q + at, f8_round(f8_mul(f8_load(x + at), f8_set1(inverse))));
    }
  }
  for (int64_t s = 0; s < cols / sum_every; ++s) {
    int32_t sum = 0;
    for (int i = 0; i < sum_every; ++i) sum += q[s * sum_every + i];
    sums[s] = sum;
  }
}

void rms_norm(const float* x, const float* weight, int64_t n, float eps, float* out) {
  F8 squares = f8_set1(0.0f);
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) squares = f8_add(squares, f8_mul(f8_load(x + i), f8_load(x + i)));
  if (i < n) {
    const F8 tail = load_tail(x + i, n - i);
    squares = f8_add(squares, f8_mul(tail, tail));
  }
  const float mean = sum_lanes(squares) / static_cast<float>(n);
  const F8 factor = f8_set1(1.0f / std::sqrt(mean + eps));
  map_lanes(out, x, weight, n, [factor](F8 a, F8 w) { return f8_mul(f8_mul(a, factor), w); });
}

void add(float* x, const float* y, int64_t n) {
  map_lanes(x, x, y, n, [](F8 a, F8 b) { return f8_add(a, b); });
}

void scale(float* x, float factor, int64_t n) {
  const F8 f = f8_set1(factor);
  map_lanes(x, x, x, n, [f](F8 a, F8) { return f8_mul(a, f); });
}

void swiglu(float* gate, const float* up, int64_t n) {
  map_lanes(gate, gate, up, n, [](F8 g, F8 u) {
    const F8 one = f8_set1(1.0f);
    const F8 silu = f8_div(g, f8_add(one, exp_lanes(f8_sub(f8_set1(0.0f), g))));
    return f8_mul(silu, u);
  });
}

void rope(float* head, const float* cosines, const float* sines, int rope_dim, bool neox) {
  const int half = rope_dim / 2;
  for (int i = 0; i < half; ++i) {
    float& a = head[neox ? i : 2 * i];
    float& b = head[neox ? i + half : 2 * i + 1];
    const float x = a, y = b;
    a = x * cosines[i] - y * sines[i];
    b = x * sines[i] + y * cosines[i];
  }
}

void to_f16(const float* x, int64_t n, uint8_t* out) {
  for (int64_t i = 0; i < n; i += 8) f8_store_f16(out + 2 * i, f8_load(x + i));
}

}  // namespace
}  // namespace rocmforge::ROCMFORGE_LANES
