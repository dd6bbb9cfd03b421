// Dot products of activation rows with a group of eight weight rows, one struct per format. Part of
// kernels_impl.h, whose rules hold here.

namespace rocmforge::ROCMFORGE_LANES {
namespace {

struct DotF32 {
  static constexpr int kBytes = 32;
  static F8 weights(const uint8_t* w) { return f8_load(reinterpret_cast<const float*>(w)); }
};
struct DotF16 {
  static constexpr int kBytes = 16;
  static F8 weights(const uint8_t* w) { return f8_from_f16(w); }
};
struct DotBF16 {
  static constexpr int kBytes = 16;
  static F8 weights(const uint8_t* w) { return f8_from_bf16(w); }
};

template <class Format>
struct DotFloat {
  template <int NT>
  static void dot(const uint8_t* w, int64_t n_blocks, const ActRow* rows, F8* acc) {
    for (int64_t c = 0; c < n_blocks; ++c, w += Format::kBytes) {
      const F8 weights = Format::weights(w);
      for (int t = 0; t < NT; ++t) {
        acc[t] = f8_add(acc[t], f8_mul(weights, f8_set1(rows[t].x[c])));
      }
    }
  }
};

struct DotQ8_0 {
  template <int NT>
  static void dot(const uint8_t* w, int64_t n_blocks, const ActRow* rows, F8* acc) {
    for (int64_t b = 0; b < n_blocks; ++b, w += 272) {
      I8 sum[NT];
      for (int t = 0; t < NT; ++t) sum[t] = i8_zero();
      for (int v = 0; v < 8; ++v) {
        const B32 weights = b32_load(w + 16 + 32 * v);
        const B32 magnitude = b32_abs(weights);  // -128 becomes 128, as unsigned
        for (int t = 0; t < NT; ++t) {
          const B32 signed_act = b32_sign(b32_quad(rows[t].q + 32 * b + 4 * v), weights);
          sum[t] = i8_add(sum[t], i8_add_pairs(h16_mul_pairs(magnitude, signed_act)));
        }
      }
      const F8 d = f8_from_f16(w);
      for (int t = 0; t < NT; ++t) {
        acc[t] = f8_add(acc[t], f8_mul(f8_mul(d, f8_set1(rows[t].d[b])), i8_to_f8(sum[t])));
      }
    }
  }
};

// 32 columns of nibbles at w. 8 · 2 · 15 · 127 = 30480 fits int16.
template <int NT>
void dot_nibbles(const uint8_t* w, const ActRow* rows, int64_t column, I8* sum) {
  H16 part[NT];
  for (int t = 0; t < NT; ++t) part[t] = h16_zero();
  for (int v = 0; v < 4; ++v) {
    const B32 both = b32_load(w + 32 * v);
    const B32 low = b32_and(both, 15);
    const B32 high = b32_shr<4>(both);
    for (int t = 0; t < NT; ++t) {
      const int8_t* q = rows[t].q + column + 4 * v;
      part[t] = h16_add(part[t], h16_mul_pairs(low, b32_quad(q)));
      part[t] = h16_add(part[t], h16_mul_pairs(high, b32_quad(q + 16)));
    }
  }
  for (int t = 0; t < NT; ++t) sum[t] = i8_add_pairs(part[t]);
}

struct DotQ4_0 {
  template <int NT>
  static void dot(const uint8_t* w, int64_t n_blocks, const ActRow* rows, F8* acc) {
    for (int64_t b = 0; b < n_blocks; ++b, w += 144) {
      I8 sum[NT];
      dot_nibbles<NT>(w + 16, rows, 32 * b, sum);
      const F8 d = f8_from_f16(w);
      for (int t = 0; t < NT; ++t) {  // stored values are 8 too large
        const I8 centred = i8_sub(sum[t], i8_set1(8 * rows[t].sums[b]));
        acc[t] = f8_add(acc[t], f8_mul(f8_mul(d, f8_set1(rows[t].d[b])), i8_to_f8(centred)));
      }
    }
  }
};

// Bit kQuad of every byte, moved to bit 4.
template <int kQuad>
B32 fifth_bit(B32 plane) {
  const B32 bit = b32_and(plane, 1 << kQuad);
  if constexpr (kQuad < 4) return b32_shl<4 - kQuad>(bit);
  if constexpr (kQuad > 4) return b32_shr<kQuad - 4>(bit);
  return bit;
}

// Quads kQuad … kQuad + 1 … of five-bit values; four of them fit int16: 4 · 2 · 31 · 127 = 31496.
template <int NT, int kVector>
void dot_fives(const uint8_t* w, B32 plane, const ActRow* rows, int64_t column, H16* low_part,
               H16* high_part) {
  const B32 both = b32_load(w + 32 * kVector);
  const B32 low = b32_or(b32_and(both, 15), fifth_bit<kVector>(plane));
  const B32 high = b32_or(b32_shr<4>(both), fifth_bit<kVector + 4>(plane));
  for (int t = 0; t < NT; ++t) {
    const int8_t* q = rows[t].q + column + 4 * kVector;
    low_part[t] = h16_add(low_part[t], h16_mul_pairs(low, b32_quad(q)));
    high_part[t] = h16_add(high_part[t], h16_mul_pairs(high, b32_quad(q + 16)));
  }
}

template <int NT>
void dot_five_bits(const uint8_t* w, const ActRow* rows, int64_t column, I8* sum) {
  H16 low_part[NT], high_part[NT];
  for (int t = 0; t < NT; ++t) low_part[t] = high_part[t] = h16_zero();
  const B32 plane = b32_load(w + 128);
  dot_fives<NT, 0>(w, plane, rows, column, low_part, high_part);
  dot_fives<NT, 1>(w, plane, rows, column, low_part, high_part);
  dot_fives<NT, 2>(w, plane, rows, column, low_part, high_part);
  dot_fives<NT, 3>(w, plane, rows, column, low_part, high_part);
  for (int t = 0; t < NT; ++t) {
    sum[t] = i8_add(i8_add_pairs(low_part[t]), i8_add_pairs(high_part[t]));
  }
}

// Q4_K and Q5_K: Σ over blocks of d·d_a·Σ scale·dot − dmin·d_a·Σ min·(sum of activations).
template <int kSubBytes>
struct DotScaledMin {
  template <int NT>
  static void dot(const uint8_t* w, int64_t n_blocks, const ActRow* rows, F8* acc) {
    for (int64_t b = 0; b < n_blocks; ++b, w += 160 + 8 * kSubBytes) {
      I8 scaled[NT], shift[NT];
      for (int t = 0; t < NT; ++t) scaled[t] = shift[t] = i8_zero();
      for (int s = 0; s < 8; ++s) {
        I8 sum[NT];
        const uint8_t* sub = w + 160 + s * kSubBytes;
        if constexpr (kSubBytes == 128) {
          dot_nibbles<NT>(sub, rows, 256 * b + 32 * s, sum);
        } else {
          dot_five_bits<NT>(sub, rows, 256 * b + 32 * s, sum);
        }
        const I8 scale = i8_from_u8(w + 32 + 8 * s);
        const I8 low = i8_from_u8(w + 96 + 8 * s);
        for (int t = 0; t < NT; ++t) {
          const int32_t* sums = rows[t].sums + 16 * b + 2 * s;
          scaled[t] = i8_add(scaled[t], i8_mul(scale, sum[t]));
          shift[t] = i8_add(shift[t], i8_mul(low, i8_set1(sums[0] + sums[1])));
        }
      }
      const F8 d = f8_from_f16(w), dmin = f8_from_f16(w + 16);
      for (int t = 0; t < NT; ++t) {
        const F8 da = f8_set1(rows[t].d[b]);
        const F8 plus = f8_mul(f8_mul(d, da), i8_to_f8(scaled[t]));
        const F8 minus = f8_mul(f8_mul(dmin, da), i8_to_f8(shift[t]));
        acc[t] = f8_add(acc[t], f8_sub(plus, minus));
      }
    }
  }
};

// 16 columns of six-bit values; two quads fit int16: 2 · 2 · 63 · 127 = 32004.
template <int NT>
void dot_sixes(const uint8_t* w, const ActRow* rows, int64_t column, I8* sum) {
  const B32 first = b32_load(w), second = b32_load(w + 32), pairs = b32_load(w + 64);
  const B32 quad0 = b32_or(b32_and(first, 15), b32_shl<4>(b32_and(pairs, 0x03)));
  const B32 quad1 = b32_or(b32_and(second, 15), b32_shl<2>(b32_and(pairs, 0x0C)));
  const B32 quad2 = b32_or(b32_shr<4>(first), b32_and(pairs, 0x30));
  const B32 quad3 = b32_or(b32_shr<4>(second), b32_shr<2>(b32_and(pairs, 0xC0)));
  for (int t = 0; t < NT; ++t) {
    const int8_t* q = rows[t].q + column;
    const H16 even = h16_add(h16_mul_pairs(quad0, b32_quad(q)), h16_mul_pairs(quad1, b32_quad(q + 4)));
    const H16 odd =
        h16_add(h16_mul_pairs(quad2, b32_quad(q + 8)), h16_mul_pairs(quad3, b32_quad(q + 12)));
    sum[t] = i8_add(i8_add_pairs(even), i8_add_pairs(odd));
  }
}

struct DotQ6_K {
  template <int NT>
  static void dot(const uint8_t* w, int64_t n_blocks, const ActRow* rows, F8* acc) {
    for (int64_t b = 0; b < n_blocks; ++b, w += 1680) {
      I8 scaled[NT];
      for (int t = 0; t < NT; ++t) scaled[t] = i8_zero();
      for (int s = 0; s < 16; ++s) {
        I8 sum[NT];
        dot_sixes<NT>(w + 144 + 96 * s, rows, 256 * b + 16 * s, sum);
        const I8 scale = i8_from_s8(w + 16 + 8 * s);
        for (int t = 0; t < NT; ++t) {  // stored values are 32 too large
          const I8 centred = i8_sub(sum[t], i8_set1(32 * rows[t].sums[16 * b + s]));
          scaled[t] = i8_add(scaled[t], i8_mul(scale, centred));
        }
      }
      const F8 d = f8_from_f16(w);
      for (int t = 0; t < NT; ++t) {
        acc[t] = f8_add(acc[t], f8_mul(f8_mul(d, f8_set1(rows[t].d[b])), i8_to_f8(scaled[t])));
      }
    }
  }
};

template <class Format, int NT>
void matmul_tile(const uint8_t* group, int64_t n_blocks, const ActRow* rows, float* out) {
  F8 acc[NT];
  for (int t = 0; t < NT; ++t) acc[t] = f8_set1(0.0f);
  Format::template dot<NT>(group, n_blocks, rows, acc);
  for (int t = 0; t < NT; ++t) f8_store(out + 8 * t, acc[t]);
}

// Four rows at a time share the unpacking of a weight; more would not fit sixteen registers.
template <class Format>
void matmul_group(const uint8_t* group, int64_t n_blocks, const ActRow* rows, int n, float* out) {
  int t = 0;
  for (; t + 4 <= n; t += 4) matmul_tile<Format, 4>(group, n_blocks, rows + t, out + 8 * t);
  if (t + 2 <= n) {
    matmul_tile<Format, 2>(group, n_blocks, rows + t, out + 8 * t);
    t += 2;
  }
  if (t < n) matmul_tile<Format, 1>(group, n_blocks, rows + t, out + 8 * t);
}

}  // namespace
}  // namespace rocmforge::ROCMFORGE_LANES
