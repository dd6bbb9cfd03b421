// Matrix products of many rows on AMX tiles. Part of kernels_amx.cc, whose lanes are AVX-512's; the
// sums are the same integers as there, and meet the same float operations in the same order.
//
// A tile product multiplies 16 rows of activations by up to 64 columns of 16 weight rows: the codes
// become bytes first, quad by quad, which is just the order that the instruction wants ("B").
//
// Formats with a float scale per 32 columns need their sums after every 32: half of a tile's depth.
// Those with integer scales need one sum per 256 columns only: the product of scale and code (16 bits)
// is split into its signed upper and unsigned lower byte, two products of full depth.

namespace rocmforge::ROCMFORGE_LANES {
namespace {

constexpr int kTileRows = 16;

struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};

  void set(int tile, int n_rows, int n_bytes) {
    rows[tile] = static_cast<uint8_t>(n_rows), row_bytes[tile] = static_cast<uint16_t>(n_bytes);
  }
};

// Activations 0 and 1, weights 2 and 3, sums 4 to 7. Of n_rows rows of activations, tile 0 and sums 4
// and 5 take the first sixteen, tile 1 and sums 6 and 7 the others, or (is_alike) as many.
TileConfig tile_config(int64_t n_rows, int depth, bool is_alike) {
  TileConfig config;
  config.set(2, depth / 4, 64);
  config.set(3, depth / 4, 64);
  const int first = static_cast<int>(n_rows < kTileRows ? n_rows : kTileRows);
  const int second = is_alike ? first : static_cast<int>(n_rows) - first;
  const int counts[2] = {first, second};
  for (int i = 0; i < 2 && counts[i] > 0; ++i) {
    config.set(i, counts[i], depth);
    config.set(4 + 2 * i, counts[i], 64);
    config.set(5 + 2 * i, counts[i], 64);
  }
  return config;
}

// The tiles are the thread's for as long as this lives: held ones cost time at every switch of
// threads. Shaping them takes as long as several products, so that it is done when it must.
class Tiles {
 public:
  Tiles(int depth, bool is_alike) : depth_(depth), is_alike_(is_alike) {}
  ~Tiles() { _tile_release(); }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;

  void shape(int64_t n_rows) {
    if (n_rows == n_rows_) return;
    n_rows_ = n_rows;
    const TileConfig config = tile_config(n_rows, depth_, is_alike_);
    // Not _tile_loadconfig: before version 13 GCC's tells the optimizer of 8 of the 64 bytes it reads.
    __asm__ volatile("ldtilecfg %0" ::"m"(config));
  }

 private:
  int depth_;
  bool is_alike_;
  int64_t n_rows_ = 0;
};

// GCC's _tile_loadd does not say that it reads memory: what was stored before has to be there.
inline __attribute__((always_inline)) void finish_stores() { __asm__ volatile("" ::: "memory"); }

int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// A scale per 32 columns. kChunk blocks of two groups are unpacked, then all rows pass.
template <class Codes>
struct TileBlocks {
  static constexpr WeightType kType = Codes::kType;
  static constexpr WeightLayout kLayout = layout_of(kType);
  static constexpr int64_t kChunk = 16;
  static constexpr int kDepth = 32;
  // From here on the tiles are faster than the dot products of AVX-512.
  static constexpr int64_t kLeastRows = 12;

  // int8 codes lie in memory as the tiles want them.
  static constexpr bool kIsPlain = kType == WeightType::Q8_0;

  struct alignas(64) Unpacked {
    uint8_t codes[kIsPlain ? 1 : kChunk][512];
    float d[kChunk][kGroupRows];
    float m[kChunk][kGroupRows];
  };
  static_assert(2 * sizeof(Unpacked) <= kUnpackedBytes);

  static inline __attribute__((always_inline)) void put_codes(const uint8_t* codes, uint8_t* to) {
    unrolled<0, 8>([&](auto v) __attribute__((always_inline)) {
      __m512i code = Codes::template code<v>(codes).v;
      if constexpr (Codes::kOffset != 0) code = _mm512_sub_epi8(code, _mm512_set1_epi8(Codes::kOffset));
      _mm512_store_si512(to + 64 * v, code);
    });
  }

  static void unpack(const Group& g, int64_t first, int64_t n, Unpacked& to) {
    for (int64_t b = 0; b < n; ++b) {
      const uint8_t* codes = g.codes + (first + b) * kLayout.code_bytes;
      const uint8_t* fields = g.fields + (first + b) * kLayout.field_bytes;
      prefetch_ahead<kLayout.code_bytes>(codes);
      if constexpr (!kIsPlain) put_codes(codes, to.codes[b]);
      f_store(to.d[b], DotBlocks<Codes>::scales(fields));
      if constexpr (Codes::kHasMin) f_store(to.m[b], f_from_f16(fields + 32));
    }
  }

  // `da` and `activation_sums` are those of the tile's sixteen rows.
  static inline __attribute__((always_inline)) void add_block(const int32_t* sums, const Unpacked& w,
                                                              int64_t b, const float* da,
                                                              const int32_t* activation_sums,
                                                              Floats* acc) {
    const Floats d = f_load(w.d[b]);
    unrolled<0, kTileRows>([&](auto r) __attribute__((always_inline)) {
      const Floats sum = _mm512_cvtepi32_ps(_mm512_load_si512(sums + 16 * r));
      acc[r] = f_fma(f_mul(d, f_set1(da[r])), sum, acc[r]);
    });
    if constexpr (Codes::kHasMin) {
      const Floats m = f_load(w.m[b]);
      unrolled<0, kTileRows>([&](auto r) __attribute__((always_inline)) {
        const Floats sum = i_to_f(i_set1(activation_sums[r]));
        acc[r] = f_fma(f_mul(m, f_set1(da[r])), sum, acc[r]);
      });
    }
  }

  static constexpr int kLot = 4;  // products under way at once: a tile's sum takes 50 cycles to come

  // Sums of kLot blocks (fewer at the end) of one group and a tile of rows.
  static inline __attribute__((always_inline)) void multiply(const int8_t* q, int64_t stride,
                                                             const uint8_t* codes,
                                                             int32_t (*sums)[kTileRows * 16]) {
    _tile_zero(4);
    _tile_loadd(0, q, stride);
    _tile_loadd(2, codes + 0, 64);
    _tile_dpbssd(4, 0, 2);
    _tile_zero(5);
    _tile_loadd(1, q + 32, stride);
    _tile_loadd(3, codes + 512, 64);
    _tile_dpbssd(5, 1, 3);
    _tile_zero(6);
    _tile_loadd(0, q + 64, stride);
    _tile_loadd(2, codes + 1024, 64);
    _tile_dpbssd(6, 0, 2);
    _tile_zero(7);
    _tile_loadd(1, q + 96, stride);
    _tile_loadd(3, codes + 1536, 64);
    _tile_dpbssd(7, 1, 3);
    _tile_stored(4, sums[0], 64);
    _tile_stored(5, sums[1], 64);
    _tile_stored(6, sums[2], 64);
    _tile_stored(7, sums[3], 64);
  }

  static void multiply_one(const int8_t* q, int64_t stride, const uint8_t* codes, int32_t* sums) {
    _tile_zero(4);
    _tile_loadd(0, q, stride);
    _tile_loadd(2, codes, 64);
    _tile_dpbssd(4, 0, 2);
    _tile_stored(4, sums, 64);
  }

  // `totals` [16][16] += n blocks of one group times a tile of rows.
  static void tile(const ActView& x, int64_t row, int64_t first, int64_t n, const uint8_t* codes,
                   const Unpacked& w, float* totals, int64_t n_rows) {
    alignas(64) int32_t sums[2][kLot][kTileRows * 16];
    Floats acc[kTileRows];
    for (int r = 0; r < kTileRows; ++r) {
      acc[r] = first > 0 && r < n_rows ? f_load(totals + r * kGroupRows) : f_set1(0.0f);
    }
    const int8_t* q = x.q(row) + 32 * first;
    const float* da = x.d(row) + 16 * first;
    const int32_t* activation_sums = x.sums(row) + 16 * first;
    const auto add = [&](const int32_t* of_block, int64_t b) __attribute__((always_inline)) {
      add_block(of_block, w, b, da + 16 * b, activation_sums + 16 * b, acc);
    };
    finish_stores();
    const int64_t whole = n / kLot * kLot;
    // The tiles work on the next lot while the vectors add this one.
    if (whole > 0) multiply(q, x.q_stride(), codes, sums[0]);
    for (int64_t b = 0; b < whole; b += kLot) {
      const int64_t next = b + kLot;
      if (next < whole) multiply(q + 32 * next, x.q_stride(), codes + 512 * next, sums[next / kLot % 2]);
      for (int64_t i = 0; i < kLot; ++i) add(sums[b / kLot % 2][i], b + i);
    }
    for (int64_t b = whole; b < n; ++b) {
      multiply_one(q + 32 * b, x.q_stride(), codes + 512 * b, sums[0][0]);
      add(sums[0][0], b);
    }
    for (int r = 0; r < n_rows; ++r) f_store(totals + r * kGroupRows, acc[r]);
  }

  static void chunk(const MatmulTask& m, const Group* groups, int64_t n_groups, int64_t first,
                    int64_t n, Tiles& shaped, uint8_t* scratch, float* totals) {
    auto* unpacked = reinterpret_cast<Unpacked*>(scratch);
    for (int64_t g = 0; g < n_groups; ++g) unpack(groups[g], first, n, unpacked[g]);
    for (int64_t row = 0; row < m.x.n_rows; row += kTileRows) {
      const int64_t n_rows = smaller(kTileRows, m.x.n_rows - row);
      shaped.shape(n_rows);
      for (int64_t g = 0; g < n_groups; ++g) {
        const uint8_t* codes = kIsPlain ? groups[g].codes + 512 * first : unpacked[g].codes[0];
        tile(m.x, row, first, n, codes, unpacked[g],
             totals + (g * m.x.n_rows + row) * kGroupRows, n_rows);
      }
    }
  }
};

// Integer scales below one per 256 columns. One block of two groups is unpacked, then all rows pass.
template <class Codes>
struct TileSuperBlocks {
  static constexpr WeightType kType = Codes::kType;
  static constexpr WeightLayout kLayout = layout_of(kType);
  static constexpr int64_t kChunk = 1;
  static constexpr int kDepth = 64;
  static constexpr int64_t kLeastRows = 10;

  struct alignas(64) Unpacked {
    uint8_t upper[4096];
    uint8_t lower[4096];
    float d[kGroupRows];
    float dmin[kGroupRows];
    int16_t mins[4][2 * kGroupRows];
  };
  static_assert(2 * sizeof(Unpacked) <= kUnpackedBytes);

  // Scale times code of one quad: the bytes of the 16-bit products, in column order. `first` and
  // `second` hold the scale at the even or the odd bytes; `offset` is scale times kTotalOffset.
  static inline __attribute__((always_inline)) void put_products(__m512i code, __m512i first,
                                                                 __m512i second, __m512i offset,
                                                                 uint8_t* upper, uint8_t* lower) {
    __m512i even = _mm512_maddubs_epi16(code, first), odd = _mm512_maddubs_epi16(code, second);
    if constexpr (kTotalOffset<Codes> != 0) {
      even = _mm512_sub_epi16(even, offset), odd = _mm512_sub_epi16(odd, offset);
    }
    const __mmask64 odd_bytes = 0xAAAAAAAAAAAAAAAAull;
    _mm512_store_si512(lower, _mm512_mask_blend_epi8(odd_bytes, even, _mm512_slli_epi16(odd, 8)));
    _mm512_store_si512(upper, _mm512_mask_blend_epi8(odd_bytes, _mm512_srli_epi16(even, 8), odd));
  }

  template <int S, int kFirst, int kCount>
  static inline __attribute__((always_inline)) void put_quads(const uint8_t* codes, int unit,
                                                              __m512i scale, Unpacked& to) {
    const int s = unit * Codes::kSubs + S;
    const __m512i low_byte = _mm512_and_si512(scale, _mm512_set1_epi16(0xFF));
    const __m512i high_byte = _mm512_slli_epi16(scale, 8);
    const __m512i offset = _mm512_mullo_epi16(scale, _mm512_set1_epi16(kTotalOffset<Codes>));
    unrolled<kFirst, kCount>([&](auto v) __attribute__((always_inline)) {
      Bytes code = Codes::template code<S, v>(codes, unit);
      if constexpr (Codes::kSigned) code = b_signed(code);
      const int at = 512 * s + 64 * v;
      put_products(code.v, low_byte, high_byte, offset, to.upper + at, to.lower + at);
    });
  }

  // The first or second value of every pair, in both 16-bit halves of its lane.
  static __m512i doubled(const Pairs& pair, bool is_first) {
    const __m512i low = is_first ? _mm512_and_si512(pair.v, _mm512_set1_epi32(0xFFFF))
                                 : _mm512_srli_epi32(pair.v, 16);
    return _mm512_or_si512(low, _mm512_slli_epi32(low, 16));
  }

  static void unpack(const Group& g, int64_t block, Unpacked& to) {
    const uint8_t* codes = g.codes + block * kLayout.code_bytes;
    const uint8_t* fields = g.fields + block * kLayout.field_bytes;
    prefetch_ahead<kLayout.code_bytes>(codes);
    for (int unit = 0; unit < Codes::kUnits; ++unit) {
      unrolled<0, Codes::kSubs>([&](auto sub) __attribute__((always_inline)) {
        const int s = unit * Codes::kSubs + sub;
        if constexpr (Codes::kScaleCols == 16) {
          const Pairs pair = s_load(fields + Codes::kScaleField + 32 * s);
          put_quads<sub, 0, 4>(codes, unit, doubled(pair, true), to);
          put_quads<sub, 4, 4>(codes, unit, doubled(pair, false), to);
        } else {
          const Pairs pair = s_load(fields + Codes::kScaleField + 32 * (s / 2));
          put_quads<sub, 0, 8>(codes, unit, doubled(pair, sub % 2 == 0), to);
        }
      });
    }
    f_store(to.d, f_from_f16(fields));
    if constexpr (Codes::kHasMin) {
      f_store(to.dmin, f_from_f16(fields + 32));
      for (int i = 0; i < 4; ++i) _mm512_store_si512(to.mins[i], s_load(fields + 192 + 32 * i).v);
    }
  }

  // Sixteen rows (or n_rows) of two tiles' sums → totals.
  static void add_rows(const int32_t* upper, const int32_t* lower, const ActView& x, int64_t row,
                       int64_t n_rows, int64_t block, const Unpacked& w, float* totals) {
    const Floats d = f_load(w.d), dmin = f_load(w.dmin);
    const float* da = x.d(row) + 16 * block;
    const int16_t* sums32 = x.sums32(row) + 8 * block;
    const int64_t sums_stride = x.cols / 32;
    Pairs mins[4];
    for (int i = 0; i < 4; ++i) mins[i] = Pairs{_mm512_load_si512(w.mins[i])};
    for (int64_t r = 0; r < n_rows; ++r, sums32 += sums_stride) {
      const __m512i high = _mm512_slli_epi32(_mm512_load_si512(upper + 16 * r), 8);
      const Ints sum{_mm512_add_epi32(high, _mm512_load_si512(lower + 16 * r))};
      Floats acc = block > 0 ? f_load(totals + r * kGroupRows) : f_set1(0.0f);
      acc = f_fma(f_mul(d, f_set1(da[r])), i_to_f(sum), acc);
      if constexpr (Codes::kHasMin) {
        Ints shift = s_dot(i_zero(), mins[0], sums32);
        Ints other = s_dot(i_zero(), mins[1], sums32 + 2);
        shift = s_dot(shift, mins[2], sums32 + 4);
        other = s_dot(other, mins[3], sums32 + 6);
        acc = f_fma(f_mul(dmin, f_set1(-da[r])), i_to_f(i_add(shift, other)), acc);
      }
      f_store(totals + r * kGroupRows, acc);
    }
  }

  // One block of a group times up to 32 rows.
  static void tiles(const ActView& x, int64_t row, int64_t n_rows, int64_t block, const Unpacked& w,
                    float* totals) {
    alignas(64) int32_t sums[4][kTileRows * 16];
    const bool has_second = n_rows > kTileRows;
    const int8_t* q = x.q(row) + 256 * block;
    finish_stores();
    _tile_zero(4);
    _tile_zero(5);
    if (has_second) {
      _tile_zero(6);
      _tile_zero(7);
    }
    for (int k = 0; k < 4; ++k) {
      _tile_loadd(0, q + 64 * k, x.q_stride());
      _tile_loadd(2, w.upper + 1024 * k, 64);
      _tile_loadd(3, w.lower + 1024 * k, 64);
      _tile_dpbssd(4, 0, 2);
      _tile_dpbsud(5, 0, 3);
      if (!has_second) continue;
      _tile_loadd(1, q + 64 * k + kTileRows * x.q_stride(), x.q_stride());
      _tile_dpbssd(6, 1, 2);
      _tile_dpbsud(7, 1, 3);
    }
    _tile_stored(4, sums[0], 64);
    _tile_stored(5, sums[1], 64);
    add_rows(sums[0], sums[1], x, row, smaller(n_rows, kTileRows), block, w, totals);
    if (!has_second) return;
    _tile_stored(6, sums[2], 64);
    _tile_stored(7, sums[3], 64);
    add_rows(sums[2], sums[3], x, row + kTileRows, n_rows - kTileRows, block, w,
             totals + kTileRows * kGroupRows);
  }

  static void chunk(const MatmulTask& m, const Group* groups, int64_t n_groups, int64_t first,
                    int64_t, Tiles& shaped, uint8_t* scratch, float* totals) {
    auto* unpacked = reinterpret_cast<Unpacked*>(scratch);
    for (int64_t g = 0; g < n_groups; ++g) unpack(groups[g], first, unpacked[g]);
    for (int64_t row = 0; row < m.x.n_rows; row += 2 * kTileRows) {
      const int64_t n_rows = smaller(2 * kTileRows, m.x.n_rows - row);
      shaped.shape(n_rows);
      for (int64_t g = 0; g < n_groups; ++g) {
        tiles(m.x, row, n_rows, first, unpacked[g], totals + (g * m.x.n_rows + row) * kGroupRows);
      }
    }
  }
};

// Two groups at a time, a chunk of columns at a time; few rows go to the dot products instead.
template <class Tile, class Dot>
void matmul_tiled(const MatmulTask& m, int64_t begin, int64_t end, uint8_t* scratch) {
  if (m.x.n_rows < Tile::kLeastRows) return matmul<Dot>(m, begin, end, scratch);
  const int64_t n_blocks = m.x.cols / layout_of(Tile::kType).block_cols;
  float* totals = reinterpret_cast<float*>(scratch + kUnpackedBytes);  // [2][n_rows][16]
  Tiles shaped(Tile::kDepth, Tile::kDepth == 32);
  for (int64_t g = begin; g < end; g += 2) {
    const int64_t n_groups = smaller(2, end - g);
    const Group groups[2] = {group_at(m, Tile::kType, g),
                             group_at(m, Tile::kType, g + n_groups - 1)};
    for (int64_t first = 0; first < n_blocks; first += Tile::kChunk) {
      Tile::chunk(m, groups, n_groups, first, smaller(Tile::kChunk, n_blocks - first), shaped,
                  scratch, totals);
    }
    for (int64_t t = 0; t < m.x.n_rows; ++t) {
      for (int64_t i = 0; i < n_groups; ++i) {
        store_totals(m, g + i, t, f_load(totals + (i * m.x.n_rows + t) * kGroupRows));
      }
    }
  }
}

template <class Codes>
constexpr auto blocks_on_tiles = matmul_tiled<TileBlocks<Codes>, DotBlocks<Codes>>;
template <class Codes>
constexpr auto super_blocks_on_tiles = matmul_tiled<TileSuperBlocks<Codes>, DotSuperBlocks<Codes>>;

}  // namespace
}  // namespace rocmforge::ROCMFORGE_LANES
