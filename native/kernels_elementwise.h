// Operations on single rows: norms, quantisation, rotation, SwiGLU. Part of kernels_impl.h, whose
// rules hold here.

namespace rocmforge::ROCMFORGE_LANES {
namespace {

// Lanes added in pairs that are eight, four, two and one apart.
float sum_lanes(Floats a) {
  float v[16];
  f_store(v, a);
  for (int n = 8; n > 0; n /= 2) {
    for (int i = 0; i < n; ++i) v[i] = v[i] + v[i + n];
  }
  return v[0];
}

// Up to fifteen floats, the other lanes 0.
Floats load_tail(const float* x, int64_t n) {
  float v[16] = {};
  for (int64_t i = 0; i < n; ++i) v[i] = x[i];
  return f_load(v);
}
void store_tail(float* x, Floats a, int64_t n) {
  float v[16];
  f_store(v, a);
  for (int64_t i = 0; i < n; ++i) x[i] = v[i];
}

// Call f(lanes of each array) for n elements, the tail through padded lanes.
template <class Function>
void map_lanes(float* out, const float* a, const float* b, int64_t n, Function f) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) f_store(out + i, f(f_load(a + i), f_load(b + i)));
  if (i < n) store_tail(out + i, f(load_tail(a + i, n - i), load_tail(b + i, n - i)), n - i);
}

// e^x for x in [-87.3, 88], 0 below: range reduction by ln 2 in two parts (Cody and Waite), then a
// Taylor polynomial of degree 7 on |r| <= ln(2)/2, whose remainder is below 1e-8. NaN stays NaN: a
// softmax must not make a plain number of a broken score. f_max and f_min give their second operand
// when either is NaN, hence their order; n has to be a number.
Floats exp_lanes(Floats x) {
  const Floats lowest = f_set1(-87.3f);
  const Floats clamped = f_min(f_set1(88.0f), f_max(lowest, x));
  const Floats n = f_max(f_round(f_mul(clamped, f_set1(1.44269504f))), f_set1(-126.0f));
  Floats r = f_fma(n, f_set1(-0.693359375f), clamped);
  r = f_fma(n, f_set1(2.12194440e-4f), r);
  Floats p = f_set1(1.0f / 5040.0f);
  for (const float c : {1.0f / 720.0f, 1.0f / 120.0f, 1.0f / 24.0f, 1.0f / 6.0f, 0.5f, 1.0f, 1.0f}) {
    p = f_fma(p, r, f_set1(c));
  }
  return f_zero_below(f_mul(p, f_exp2_int(n)), x, lowest);
}

// The largest magnitude of n values; NaN when one of them is not finite.
float max_abs(const float* x, int n) {
  Floats peak = f_set1(0.0f), zero = f_set1(0.0f);
  for (int i = 0; i < n; i += 16) {
    const Floats value = f_load(x + i);
    peak = f_max(f_abs(value), peak);
    zero = f_fma(value, f_set1(0.0f), zero);
  }
  float v[16], w[16];
  f_store(v, peak);
  f_store(w, zero);
  float result = v[0], sum = w[0];
  for (int i = 1; i < 16; ++i) {
    result = v[i] > result ? v[i] : result;
    sum += w[i];
  }
  return result + sum;
}

// Scale and values of one block.
float quantize_block(const float* x, int n, int8_t* q) {
  const float peak = max_abs(x, n);
  // Below 2^-121 the inverse would overflow: such a block counts as zeros.
  const Floats inverse = f_set1(peak > 0x1.0p-121f ? 127.0f / peak : 0.0f);
  for (int i = 0; i < n; i += 16) f_store_s8(q + i, f_round(f_mul(f_load(x + i), inverse)));
  return peak / 127.0f;
}

void quantize(const float* x, const ActView& to, int64_t row) {
  int8_t* q = to.q(row);
  float* d = to.d(row);
  const int block = scale_every(to.act);
  for (int64_t b = 0; b < to.n_blocks(); ++b) {
    d[16 * b] = quantize_block(x + b * block, block, q + b * block);
  }
  if (to.act == ActKind::Int8x32) {
    int32_t* sums = to.sums(row);
    for (int64_t b = 0; b < to.n_blocks(); ++b, q += 32) {
      sums[16 * b] = sum_bytes16(q) + sum_bytes16(q + 16);
    }
    return;
  }
  int16_t *sums16 = to.sums16(row), *sums32 = to.sums32(row);
  for (int64_t s = 0; s < to.cols / 16; ++s) sums16[s] = static_cast<int16_t>(sum_bytes16(q + 16 * s));
  for (int64_t s = 0; s < to.cols / 32; ++s) {
    sums32[s] = static_cast<int16_t>(sums16[2 * s] + sums16[2 * s + 1]);
  }
}

void rms_norm(const float* x, const float* weight, int64_t n, float eps, float* out) {
  Floats squares = f_set1(0.0f);
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    const Floats v = f_load(x + i);
    squares = f_fma(v, v, squares);
  }
  if (i < n) {
    const Floats tail = load_tail(x + i, n - i);
    squares = f_fma(tail, tail, squares);
  }
  const float mean = sum_lanes(squares) / static_cast<float>(n);
  const Floats factor = f_set1(1.0f / std::sqrt(mean + eps));
  map_lanes(out, x, weight, n, [factor](Floats a, Floats w) { return f_mul(f_mul(a, factor), w); });
}

void add(float* x, const float* y, int64_t n) {
  map_lanes(x, x, y, n, [](Floats a, Floats b) { return f_add(a, b); });
}

void scale(float* x, float factor, int64_t n) {
  const Floats f = f_set1(factor);
  map_lanes(x, x, x, n, [f](Floats a, Floats) { return f_mul(a, f); });
}

void swiglu(float* gate, const float* up, int64_t n) {
  map_lanes(gate, gate, up, n, [](Floats g, Floats u) {
    const Floats one = f_set1(1.0f);
    const Floats silu = f_div(g, f_add(one, exp_lanes(f_sub(f_set1(0.0f), g))));
    return f_mul(silu, u);
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
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) f_store_f16(out + 2 * i, f_load(x + i));
  if (i == n) return;
  uint8_t last[32];
  f_store_f16(last, load_tail(x + i, n - i));
  std::memcpy(out + 2 * i, last, static_cast<size_t>(2 * (n - i)));
}

}  // namespace
}  // namespace rocmforge::ROCMFORGE_LANES
