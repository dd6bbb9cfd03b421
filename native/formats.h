// How each format's codes become bytes to multiply: sub-blocks of 32 columns are eight quads, and
// code<…>() gives one of them for sixteen rows. layout.h draws the blocks. Part of kernels_impl.h.
//
// kQuadsPerPart is how many products of quads fit 16 bits, where Parts are that narrow: 2 · 2 · 127 ·
// (largest code) · kQuadsPerPart / 2 <= 32767. Codes are kOffset too large.

namespace rocmforge::ROCMFORGE_LANES {
namespace {

template <int kVector>
Bytes nibbles32(const uint8_t* codes) {
  if constexpr (kVector < 4) return b_and(b_load(codes + 64 * kVector), 15);
  return b_shr<4>(b_load(codes + 64 * (kVector - 4)));
}

// Bit kFrom of every byte, moved to bit kTo.
template <int kFrom, int kTo>
Bytes moved_bit(const Bytes& plane) {
  const Bytes bit = b_and(plane, 1 << kFrom);
  if constexpr (kFrom < kTo) return b_shl<kTo - kFrom>(bit);
  if constexpr (kFrom > kTo) return b_shr<kFrom - kTo>(bit);
  return bit;
}

// Formats with a float scale per 32 columns.
struct CodesQ8_0 {
  static constexpr WeightType kType = WeightType::Q8_0;
  static constexpr bool kSigned = true, kHasMin = false;
  static constexpr int kOffset = 0, kQuadsPerPart = 1;
  template <int V>
  static Bytes code(const uint8_t* codes) { return b_load(codes + 64 * V); }
};
struct CodesQ4_0 {
  static constexpr WeightType kType = WeightType::Q4_0;
  static constexpr bool kSigned = false, kHasMin = false;
  static constexpr int kOffset = 8, kQuadsPerPart = 8;
  template <int V>
  static Bytes code(const uint8_t* codes) { return nibbles32<V>(codes); }
};
struct CodesQ4_1 : CodesQ4_0 {
  static constexpr WeightType kType = WeightType::Q4_1;
  static constexpr bool kHasMin = true;
  static constexpr int kOffset = 0;
};
struct CodesQ5_0 {
  static constexpr WeightType kType = WeightType::Q5_0;
  static constexpr bool kSigned = false, kHasMin = false;
  static constexpr int kOffset = 16, kQuadsPerPart = 4;
  template <int V>
  static Bytes code(const uint8_t* codes) {
    return b_or(nibbles32<V>(codes), moved_bit<V, 4>(b_load(codes + 256)));
  }
};
struct CodesQ5_1 : CodesQ5_0 {
  static constexpr WeightType kType = WeightType::Q5_1;
  static constexpr bool kHasMin = true;
  static constexpr int kOffset = 0;
};
struct CodesIQ4_NL {
  static constexpr WeightType kType = WeightType::IQ4_NL;
  static constexpr bool kSigned = true, kHasMin = false;
  static constexpr int kOffset = 0, kQuadsPerPart = 1;
  template <int V>
  static Bytes code(const uint8_t* codes) {
    return b_lookup(reinterpret_cast<const uint8_t*>(kIq4Values), nibbles32<V>(codes));
  }
};
struct CodesMXFP4 {
  static constexpr WeightType kType = WeightType::MXFP4;
  static constexpr bool kSigned = false, kHasMin = false;
  static constexpr int kOffset = kMxfp4Offset, kQuadsPerPart = 4;
  template <int V>
  static Bytes code(const uint8_t* codes) { return b_lookup(kMxfp4Codes, nibbles32<V>(codes)); }
};

// Formats with a float scale per 256 columns and integer scales below it: kUnits times kSubs
// sub-blocks. kScaleField is where the pairs of scales begin; the scales are per 16 columns or 32.
struct CodesQ4_K {
  static constexpr WeightType kType = WeightType::Q4_K;
  static constexpr bool kSigned = false, kHasMin = true;
  static constexpr int kOffset = 0, kQuadsPerPart = 8, kUnits = 4, kSubs = 2;
  static constexpr int kScaleField = 64, kScaleCols = 32;
  template <int S, int V>
  static Bytes code(const uint8_t* codes, int unit) {
    const Bytes both = b_load(codes + 512 * unit + 64 * V);
    if constexpr (S == 0) return b_and(both, 15);
    return b_shr<4>(both);
  }
};
struct CodesQ5_K : CodesQ4_K {
  static constexpr WeightType kType = WeightType::Q5_K;
  static constexpr int kQuadsPerPart = 4, kUnits = 1, kSubs = 8;
  template <int S, int V>
  static Bytes code(const uint8_t* codes, int) {
    return b_or(CodesQ4_K::code<S % 2, V>(codes, S / 2),
                moved_bit<S, 4>(b_load(codes + 2048 + 64 * V)));
  }
};
struct CodesQ6_K {
  static constexpr WeightType kType = WeightType::Q6_K;
  static constexpr bool kSigned = false, kHasMin = false;
  static constexpr int kOffset = 32, kQuadsPerPart = 2, kUnits = 2, kSubs = 4;
  static constexpr int kScaleField = 32, kScaleCols = 16;
  template <int S, int V>
  static Bytes code(const uint8_t* codes, int unit) {
    const Bytes both = b_load(codes + 1024 * unit + 512 * (S % 2) + 64 * V);
    const Bytes pairs = b_and(b_load(codes + 2048 + 512 * unit + 64 * V), 3 << (2 * S));
    const Bytes low = S < 2 ? b_and(both, 15) : b_shr<4>(both);
    if constexpr (S < 2) return b_or(low, b_shl<4 - 2 * S>(pairs));
    if constexpr (S == 2) return b_or(low, pairs);
    return b_or(low, b_shr<2>(pairs));
  }
};
struct CodesIQ4_XS {
  static constexpr WeightType kType = WeightType::IQ4_XS;
  static constexpr bool kSigned = true, kHasMin = false;
  static constexpr int kOffset = 0, kQuadsPerPart = 1, kUnits = 4, kSubs = 2;
  static constexpr int kScaleField = 32, kScaleCols = 32;
  template <int S, int V>
  static Bytes code(const uint8_t* codes, int unit) {
    return CodesIQ4_NL::code<V>(codes + 512 * unit + 256 * S);
  }
};

// The same codes, unpacked once for many rows of activations: a byte each, quad after quad.
template <class Codes>
struct Bytewise : Codes {
  static constexpr bool kIsBytewise = true;
  template <int V>
  static Bytes code(const uint8_t* codes) { return b_load(codes + 64 * V); }
  template <int S, int V>
  static Bytes code(const uint8_t* codes, int unit) {
    return b_load(codes + 512 * (unit * Codes::kSubs + S) + 64 * V);
  }
};
template <class Codes>
constexpr bool kIsBytewise = requires { Codes::kIsBytewise; };

// Float weights, one column at a time.
struct WeightsF32 {
  static constexpr WeightType kType = WeightType::F32;
  static Floats at(const uint8_t* codes) { return f_load(reinterpret_cast<const float*>(codes)); }
};
struct WeightsF16 {
  static constexpr WeightType kType = WeightType::F16;
  static Floats at(const uint8_t* codes) { return f_from_f16(codes); }
};
struct WeightsBF16 {
  static constexpr WeightType kType = WeightType::BF16;
  static Floats at(const uint8_t* codes) { return f_from_bf16(codes); }
};

// What p_dot's operand is too large by: the format's own offset, or that of signed bytes.
template <class Codes>
constexpr int kTotalOffset = Codes::kSigned ? kSignedOffset : Codes::kOffset;
constexpr int log2_of(int power) { return power <= 1 ? 0 : 1 + log2_of(power / 2); }

}  // namespace
}  // namespace rocmforge::ROCMFORGE_LANES
