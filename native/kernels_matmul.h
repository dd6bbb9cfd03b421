// Matrix products of quantised or float activations with groups of sixteen weight rows. Part of
// kernels_impl.h, whose rules hold here: one accumulator per output, blocks in ascending order,
// products inside a block exact.

namespace rocmforge::ROCMFORGE_LANES {
namespace {

// One group's weights; `codes` begins with block `first`.
struct Group {
  const uint8_t* codes;
  const uint8_t* fields;
  int64_t first = 0;
};

// Calls f(std::integral_constant<int, First + i>) for i in [0, Count).
template <int kFirst, int kCount, class F>
inline __attribute__((always_inline)) void unrolled(const F& f) {
  if constexpr (kCount > 0) {
    f(std::integral_constant<int, kFirst>{});
    unrolled<kFirst + 1, kCount - 1>(f);
  }
}

// parts[t] += dot products of one quad with each row's activations at q[t].
template <class Codes, int NT>
inline __attribute__((always_inline)) void dot_quad(Parts* parts, const Bytes& code,
                                                    const int8_t* const* q, int64_t column) {
  if constexpr (Codes::kSigned) {
    const SignedBytes w = b_signed(code);
    for (int t = 0; t < NT; ++t) parts[t] = p_dot_signed(parts[t], w, q[t] + column);
  } else {
    for (int t = 0; t < NT; ++t) parts[t] = p_dot(parts[t], code, q[t] + column);
  }
}

// Sums quads [kFirst, kFirst + kCount) of a sub-block in as many Parts as are needed, handing each
// lot to `sink(parts)`. code(v) gives quad v.
template <class Codes, int NT, int kFirst, int kCount, class Code, class Sink>
inline __attribute__((always_inline)) void dot_quads(const Code& code, const int8_t* const* q,
                                                     int64_t column, const Sink& sink) {
  constexpr int kLot =
      kPartsAreInts || Codes::kQuadsPerPart > kCount ? kCount : Codes::kQuadsPerPart;
  Parts parts[NT];
  for (int t = 0; t < NT; ++t) parts[t] = p_zero();
  unrolled<kFirst, kLot>([&](auto v) __attribute__((always_inline)) {
    dot_quad<Codes, NT>(parts, code(v), q, column + 4 * v);
  });
  sink(parts);
  if constexpr (kLot < kCount) {
    dot_quads<Codes, NT, kFirst + kLot, kCount - kLot>(code, q, column, sink);
  }
}

// With few rows weights stream from memory, and hardware alone keeps too few lines on the way: far
// ahead into the second cache, nearer into the first.
constexpr int64_t kPrefetchAhead = 8192;
constexpr int64_t kPrefetchNear = 2048;

template <int kBytes>
inline __attribute__((always_inline)) void prefetch_ahead(const uint8_t* at) {
  for (int i = 0; i < kBytes; i += 64) {
    __builtin_prefetch(at + kPrefetchAhead + i, 0, 2);
    __builtin_prefetch(at + kPrefetchNear + i, 0, 3);
  }
}

// Bytes of a block's codes of sixteen rows.
template <class Codes>
constexpr int kCodeBytes =
    kIsBytewise<Codes> ? 16 * layout_of(Codes::kType).block_cols : layout_of(Codes::kType).code_bytes;

// A float scale per 32 columns: Σ d · d_a · (Σ code · q) (+ m · d_a · Σ q).
template <class Codes>
struct DotBlocks {
  static constexpr WeightType kType = Codes::kType;
  static constexpr int kTile = kTileTokens;
  static constexpr int64_t kChunkCols = 2048;
  // Q8_0's codes are bytes already.
  static constexpr bool kUnpacks = kType != WeightType::Q8_0;
  using Unpacked = DotBlocks<Bytewise<Codes>>;

  static void unpack(const uint8_t* codes, uint8_t* to) {
    prefetch_ahead<kCodeBytes<Codes>>(codes);
    unrolled<0, 8>([&](auto v) __attribute__((always_inline)) {
      b_store(to + 64 * v, Codes::template code<v>(codes));
    });
  }

  static Floats scales(const uint8_t* fields) {
    if constexpr (kType == WeightType::MXFP4) return f_from_e8m0_halved(fields);
    return f_from_f16(fields);
  }

  template <int NT>
  static void dot(const Group& g, int64_t begin, int64_t end, const ActView& x, int64_t row,
                  Floats* acc) {
    constexpr WeightLayout kLayout = layout_of(kType);
    const int8_t* q[NT];
    const float* da[NT];
    const int32_t* sums[NT];
    for (int t = 0; t < NT; ++t) {
      q[t] = x.q(row + t), da[t] = x.d(row + t), sums[t] = x.sums(row + t);
    }
    for (int64_t b = begin; b < end; ++b) {
      const uint8_t* codes = g.codes + (b - g.first) * kCodeBytes<Codes>;
      if constexpr (!kIsBytewise<Codes>) prefetch_ahead<kCodeBytes<Codes>>(codes);
      Ints sum[NT];
      for (int t = 0; t < NT; ++t) sum[t] = i_zero();
      dot_quads<Codes, NT, 0, 8>(
          [&](auto v) __attribute__((always_inline)) { return Codes::template code<v>(codes); }, q,
          32 * b, [&](const Parts* parts) __attribute__((always_inline)) {
            for (int t = 0; t < NT; ++t) sum[t] = p_added(sum[t], parts[t]);
          });
      const uint8_t* fields = g.fields + b * kLayout.field_bytes;
      const Floats d = scales(fields);
      for (int t = 0; t < NT; ++t) {
        if constexpr (kTotalOffset<Codes> != 0) {
          sum[t] = i_sub(sum[t], i_shl<log2_of(kTotalOffset<Codes>)>(i_set1(sums[t][16 * b])));
        }
        acc[t] = f_fma(f_mul(d, f_set1(da[t][16 * b])), i_to_f(sum[t]), acc[t]);
      }
      if constexpr (Codes::kHasMin) {
        const Floats m = f_from_f16(fields + 32);
        for (int t = 0; t < NT; ++t) {
          const float total = static_cast<float>(sums[t][16 * b]);
          acc[t] = f_fma(f_mul(m, f_set1(da[t][16 * b])), f_set1(total), acc[t]);
        }
      }
    }
  }
};

// Integer scales below a float scale per 256 columns: Σ d · d_a · (Σ scale · (Σ code · q))
// (- dmin · d_a · Σ min · Σ q).
template <class Codes>
struct DotSuperBlocks {
  static constexpr WeightType kType = Codes::kType;
  static constexpr int kTile = kTileTokens;
  static constexpr int64_t kChunkCols = 2048;
  static constexpr bool kHasShift = Codes::kHasMin || kTotalOffset<Codes> != 0;
  static constexpr bool kUnpacks = true;
  using Unpacked = DotSuperBlocks<Bytewise<Codes>>;

  static void unpack(const uint8_t* codes, uint8_t* to) {
    prefetch_ahead<kCodeBytes<Codes>>(codes);
    for (int unit = 0; unit < Codes::kUnits; ++unit) {
      unrolled<0, Codes::kSubs>([&](auto s) __attribute__((always_inline)) {
        unrolled<0, 8>([&](auto v) __attribute__((always_inline)) {
          b_store(to + 512 * (unit * Codes::kSubs + s) + 64 * v,
                  Codes::template code<s, v>(codes, unit));
        });
      });
    }
  }

  // Sub-block `s` of 32 columns, the S-th of its unit: scaled += scale · code · q, and what the
  // minima or the offset take away is summed in shift.
  template <int NT, int S>
  static inline __attribute__((always_inline)) void sub_block(
      const uint8_t* codes, const uint8_t* fields, int unit, const int8_t* const* q,
      const int16_t* const* sums16, const int16_t* const* sums32, int64_t b, Ints* scaled,
      Ints* shift) {
    const int s = unit * Codes::kSubs + S;
    const int64_t column = 256 * b + 32 * s;
    const auto code = [&](auto v) __attribute__((always_inline)) {
      return Codes::template code<S, v>(codes, unit);
    };
    const auto add = [&](const Scales& scale) __attribute__((always_inline)) {
      return [&, scale](const Parts* parts) __attribute__((always_inline)) {
        for (int t = 0; t < NT; ++t) scaled[t] = p_scaled(scaled[t], parts[t], scale);
      };
    };
    if constexpr (Codes::kScaleCols == 16) {
      const Pairs pair = s_load(fields + Codes::kScaleField + 32 * s);
      dot_quads<Codes, NT, 0, 4>(code, q, column, add(s_first(pair)));
      dot_quads<Codes, NT, 4, 4>(code, q, column, add(s_second(pair)));
      for (int t = 0; t < NT; ++t) {
        shift[t] = s_dot(shift[t], pair, sums16[t] + 16 * b + 2 * s);
      }
    } else {
      const Pairs pair = s_load(fields + Codes::kScaleField + 32 * (s / 2));
      dot_quads<Codes, NT, 0, 8>(code, q, column, add(S % 2 == 0 ? s_first(pair) : s_second(pair)));
      if constexpr (kHasShift && S % 2 == 1) {
        const Pairs factors = Codes::kHasMin ? s_load(fields + 192 + 32 * (s / 2)) : pair;
        for (int t = 0; t < NT; ++t) {
          shift[t] = s_dot(shift[t], factors, sums32[t] + 8 * b + s - 1);
        }
      }
    }
  }

  template <int NT>
  static void dot(const Group& g, int64_t begin, int64_t end, const ActView& x, int64_t row,
                  Floats* acc) {
    constexpr WeightLayout kLayout = layout_of(kType);
    const int8_t* q[NT];
    const float* da[NT];
    const int16_t *sums16[NT], *sums32[NT];
    for (int t = 0; t < NT; ++t) {
      q[t] = x.q(row + t), da[t] = x.d(row + t);
      sums16[t] = x.sums16(row + t), sums32[t] = x.sums32(row + t);
    }
    for (int64_t b = begin; b < end; ++b) {
      const uint8_t* codes = g.codes + (b - g.first) * kCodeBytes<Codes>;
      const uint8_t* fields = g.fields + b * kLayout.field_bytes;
      Ints scaled[NT], shift[NT];
      for (int t = 0; t < NT; ++t) scaled[t] = shift[t] = i_zero();
      for (int unit = 0; unit < Codes::kUnits; ++unit) {
        unrolled<0, Codes::kSubs>([&](auto s) __attribute__((always_inline)) {
          if constexpr (!kIsBytewise<Codes>) {
            constexpr int kShare = kLayout.code_bytes / Codes::kUnits / Codes::kSubs;
            prefetch_ahead<kShare>(codes + (unit * Codes::kSubs + s) * kShare);
          }
          sub_block<NT, s>(codes, fields, unit, q, sums16, sums32, b, scaled, shift);
        });
      }
      const Floats d = f_from_f16(fields);
      for (int t = 0; t < NT; ++t) {
        if constexpr (!Codes::kHasMin && kHasShift) {
          scaled[t] = i_sub(scaled[t], i_shl<log2_of(kTotalOffset<Codes>)>(shift[t]));
        }
        acc[t] = f_fma(f_mul(d, f_set1(da[t][16 * b])), i_to_f(scaled[t]), acc[t]);
      }
      if constexpr (Codes::kHasMin) {
        const Floats dmin = f_from_f16(fields + 32);
        for (int t = 0; t < NT; ++t) {
          acc[t] = f_fma(f_mul(dmin, f_set1(-da[t][16 * b])), i_to_f(shift[t]), acc[t]);
        }
      }
    }
  }
};

template <class Weights>
struct DotFloat {
  static constexpr WeightType kType = Weights::kType;
  static constexpr bool kUnpacks = false;
  static constexpr int kTile = kTileTokens;
  static constexpr int64_t kChunkCols = 512;

  template <int NT>
  static void dot(const Group& g, int64_t begin, int64_t end, const ActView& x, int64_t row,
                  Floats* acc) {
    const float* values[NT];
    Floats sum[NT];
    for (int t = 0; t < NT; ++t) values[t] = x.x(row + t), sum[t] = acc[t];
    const uint8_t* codes = g.codes + begin * layout_of(kType).code_bytes;
    for (int64_t c = begin; c < end; ++c, codes += layout_of(kType).code_bytes) {
      __builtin_prefetch(codes + kPrefetchAhead, 0, 2);
      const Floats weights = Weights::at(codes);
      for (int t = 0; t < NT; ++t) sum[t] = f_fma(weights, f_set1(values[t][c]), sum[t]);
    }
    for (int t = 0; t < NT; ++t) acc[t] = sum[t];
  }
};

Group group_at(const MatmulTask& m, WeightType type, int64_t g) {
  const uint8_t* at = m.weights + g * group_bytes(type, m.x.cols);
  return {at, at + fields_offset(type, m.x.cols), 0};
}

// The totals of one row and group go to the output, whose last group may be narrow.
void store_totals(const MatmulTask& m, int64_t g, int64_t row, Floats total) {
  float* out = m.out + row * m.out_stride + kGroupRows * g;
  const int64_t n = m.n_out - kGroupRows * g;
  if (n >= kGroupRows) {
    if (m.bias != nullptr) total = f_add(total, f_load(m.bias + kGroupRows * g));
    f_store(out, total);
    return;
  }
  float v[kGroupRows];
  f_store(v, total);
  for (int64_t i = 0; i < n; ++i) {
    out[i] = m.bias == nullptr ? v[i] : v[i] + m.bias[kGroupRows * g + i];
  }
}

// What all rows pass over: blocks [begin, end) of a group. Totals are kept in `totals` until
// `is_last`.
struct Chunk {
  Group group;
  int64_t g;
  int64_t begin;
  int64_t end;
  bool is_last;
  float* totals;
};

template <class Dot, int NT>
void matmul_tile(const MatmulTask& m, const Chunk& c, int64_t row) {
  Floats acc[NT];
  for (int t = 0; t < NT; ++t) {
    acc[t] = c.begin == 0 ? f_set1(0.0f) : f_load(c.totals + (row + t) * kGroupRows);
  }
  Dot::template dot<NT>(c.group, c.begin, c.end, m.x, row, acc);
  for (int t = 0; t < NT; ++t) {
    if (c.is_last) {
      store_totals(m, c.g, row + t, acc[t]);
    } else {
      f_store(c.totals + (row + t) * kGroupRows, acc[t]);
    }
  }
}

// NT rows at a time while there are as many, then half of that.
template <class Dot, int NT>
void matmul_tiles(const MatmulTask& m, const Chunk& c, int64_t row) {
  for (; row + NT <= m.x.n_rows; row += NT) matmul_tile<Dot, NT>(m, c, row);
  if constexpr (NT > 1) matmul_tiles<Dot, NT / 2>(m, c, row);
}

// From here on unpacking the codes once is cheaper than for every tile of rows.
constexpr int64_t kUnpackRows = 32;
constexpr int64_t kUnpackCols = 1024;

// Blocks [begin, end), unpacked into `scratch` for all rows.
template <class Dot>
void matmul_unpacked(const MatmulTask& m, Chunk c, uint8_t* scratch) {
  constexpr int kBytes = layout_of(Dot::kType).code_bytes;
  const uint8_t* codes = c.group.codes + c.begin * kBytes;
  const int64_t n = c.end - c.begin;
  for (int64_t b = 0; b < n; ++b) {
    Dot::unpack(codes + b * kBytes, scratch + b * 16 * layout_of(Dot::kType).block_cols);
  }
  c.group.codes = scratch, c.group.first = c.begin;
  matmul_tiles<typename Dot::Unpacked, Dot::kTile>(m, c, 0);
}

// Many rows: a chunk of columns at a time, so that it stays in the first cache while all rows pass.
template <class Dot>
void matmul(const MatmulTask& m, int64_t begin, int64_t end, uint8_t* scratch) {
  constexpr int64_t kBlockCols = layout_of(Dot::kType).block_cols;
  static_assert(kGroupRows * kUnpackCols <= kUnpackedBytes);
  const int64_t n_blocks = m.x.cols / kBlockCols;
  const int64_t cols = Dot::kUnpacks && m.x.n_rows >= kUnpackRows ? kUnpackCols : Dot::kChunkCols;
  const int64_t chunk = m.x.n_rows > Dot::kTile ? cols / kBlockCols : n_blocks;
  for (int64_t g = begin; g < end; ++g) {
    for (int64_t first = 0; first < n_blocks; first += chunk) {
      const int64_t last = first + chunk < n_blocks ? first + chunk : n_blocks;
      const Chunk c{group_at(m, Dot::kType, g), g, first, last, last == n_blocks,
              reinterpret_cast<float*>(scratch + kUnpackedBytes)};
      if constexpr (Dot::kUnpacks) {
        if (m.x.n_rows >= kUnpackRows) {
          matmul_unpacked<Dot>(m, c, scratch);
          continue;
        }
      }
      matmul_tiles<Dot, Dot::kTile>(m, c, 0);
    }
  }
}

}  // namespace
}  // namespace rocmforge::ROCMFORGE_LANES
