// Sixteen floats in two registers of eight.
#include "training/step.h"

#if defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>

namespace avx2 {

constexpr int ACCUMULATORS = 5;  // of 16 registers: what is summed over all taps lies in memory meanwhile
constexpr int FOUR_OUTPUTS = 1;  // vectors of each of four outputs that are summed at once
constexpr int DENSE_SMALL = 1, DENSE_TALL = 1;
constexpr int PIXELS = 6, PIXEL_VECTORS = 1;
constexpr int DENSE_SUMS = 6, MOST_COLS = 2, MOST_OUTPUTS = 4;  // of a tile in training
constexpr int QUADS = 1;         // fours of weights whose gradients are summed at once

struct F16 {
  __m256 a, b;
};
inline F16 load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline void store(float* p, F16 x) {
  _mm256_storeu_ps(p, x.a);
  _mm256_storeu_ps(p + 8, x.b);
}
inline __m256i first(int64_t n) {
  const __m256i lane = _mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), lane);
}
inline F16 load_first(const float* p, int64_t n) {
  return {_mm256_maskload_ps(p, first(n)), _mm256_maskload_ps(p + 8, first(n - 8))};
}
inline void store_first(float* p, F16 x, int64_t n) {
  _mm256_maskstore_ps(p, first(n), x.a);
  _mm256_maskstore_ps(p + 8, first(n - 8), x.b);
}
inline F16 all(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline F16 fma(F16 x, F16 y, F16 z) { return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)}; }
inline F16 operator+(F16 x, F16 y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
inline F16 operator-(F16 x, F16 y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
inline F16 operator*(F16 x, F16 y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
inline F16 operator/(F16 x, F16 y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
inline F16 maximum(F16 x, F16 y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
inline F16 minimum(F16 x, F16 y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
inline __m256i lanes(unsigned mask) {
  const __m256i bit = _mm256_set_epi32(128, 64, 32, 16, 8, 4, 2, 1);
  return _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(static_cast<int>(mask)), bit), bit);
}
inline F16 keep(F16 x, uint16_t mask) {
  return {_mm256_and_ps(x.a, _mm256_castsi256_ps(lanes(mask & 255u))),
          _mm256_and_ps(x.b, _mm256_castsi256_ps(lanes(mask >> 8)))};
}
inline F16 load_some(const float* p, uint16_t mask) {
  return {_mm256_maskload_ps(p, lanes(mask & 255u)), _mm256_maskload_ps(p + 8, lanes(mask >> 8))};
}
inline void store_some(float* p, F16 x, uint16_t mask) {
  _mm256_maskstore_ps(p, lanes(mask & 255u), x.a);
  _mm256_maskstore_ps(p + 8, lanes(mask >> 8), x.b);
}
inline F16 root(F16 x) { return {_mm256_sqrt_ps(x.a), _mm256_sqrt_ps(x.b)}; }
// `y` where x is positive, else 0.
inline F16 where_positive(F16 x, F16 y) {
  const __m256 zero = _mm256_setzero_ps();
  return {_mm256_and_ps(_mm256_cmp_ps(x.a, zero, _CMP_GT_OQ), y.a), _mm256_and_ps(_mm256_cmp_ps(x.b, zero, _CMP_GT_OQ), y.b)};
}
inline float sum(F16 x) {
  const __m256 s = _mm256_add_ps(x.a, x.b);
  __m128 t = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
  t = _mm_add_ps(t, _mm_movehl_ps(t, t));
  return _mm_cvtss_f32(_mm_add_ss(t, _mm_shuffle_ps(t, t, 1)));
}
inline float largest(F16 x) {
  const __m256 s = _mm256_max_ps(x.a, x.b);
  __m128 t = _mm_max_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
  t = _mm_max_ps(t, _mm_movehl_ps(t, t));
  return _mm_cvtss_f32(_mm_max_ss(t, _mm_shuffle_ps(t, t, 1)));
}
inline F16 rounded(F16 x) { return {_mm256_round_ps(x.a, 8), _mm256_round_ps(x.b, 8)}; }
inline __m256 power_half(__m256 x) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(x), _mm256_set1_epi32(127)), 23));
}
inline F16 power_of_two(F16 x) { return {power_half(x.a), power_half(x.b)}; }
inline F16 widen(const float* p) { return load(p); }
inline __m256 widen_half(const uint16_t* p) {
  const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}
inline F16 widen(const uint16_t* p) { return {widen_half(p), widen_half(p + 8)}; }
inline __m256 widen_half(const int8_t* p) {
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}
inline F16 widen(const int8_t* p) { return {widen_half(p), widen_half(p + 8)}; }
inline __m256 widen_half(const uint8_t* p) {
  return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}
inline F16 widen(const uint8_t* p) { return {widen_half(p), widen_half(p + 8)}; }
// For each byte, which of eight packed floats each of eight lanes has; 128 for none.
struct Ranks {
  uint8_t rank[256][8];
};
constexpr Ranks ranks() {
  Ranks r{};
  for (int byte = 0; byte < 256; byte++)
    for (int i = 0, n = 0; i < 8; i++) r.rank[byte][i] = static_cast<uint8_t>((byte >> i) & 1 ? n++ : 128);
  return r;
}
constexpr Ranks RANKS = ranks();
inline __m256 expand_half(uint8_t bits, __m256 packed) {
  const __m256i rank = _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(RANKS.rank[bits])));
  const __m256 lanes = _mm256_permutevar8x32_ps(packed, rank);
  return _mm256_andnot_ps(_mm256_castsi256_ps(_mm256_srai_epi32(rank, 31)), lanes);
}
// The floats at p, one for each bit that is set, in the lanes of these bits. Whole vectors are read.
template <class Weight>
inline F16 expand(const uint16_t* bits, const Weight* p) {
  const auto low = static_cast<uint8_t>(*bits), high = static_cast<uint8_t>(*bits >> 8);
  return {expand_half(low, widen(p).a), expand_half(high, widen(p + __builtin_popcount(low)).a)};
}
struct Block {
  const float* p;
};
inline Block block(const float* p) { return {p}; }
inline __m256 pick_half(const float* p, const uint8_t* columns) {
  const __m256i index = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(columns)));
  return _mm256_i32gather_ps(p, index, 4);
}
inline F16 pick(const Block& x, const uint8_t* columns) {
  return {pick_half(x.p, columns), pick_half(x.p, columns + 8)};
}
inline Block wide_block(const float* p) { return {p}; }
// Sixteen of the 32 floats of two neighbours, from the n-th on, n in 1 .. 15.
struct Move {
  int64_t n;
};
inline Move moving(int64_t n) { return {n}; }
inline __m256 behind(__m256 previous, __m256 x) {
  const __m256i across = _mm256_castps_si256(_mm256_permute2f128_ps(previous, x, 0x21));
  return _mm256_castsi256_ps(_mm256_alignr_epi8(_mm256_castps_si256(x), across, 12));
}
inline __m256 ahead(__m256 x, __m256 next) {
  const __m256i across = _mm256_castps_si256(_mm256_permute2f128_ps(x, next, 0x21));
  return _mm256_castsi256_ps(_mm256_alignr_epi8(across, _mm256_castps_si256(x), 4));
}
inline F16 moved(F16 a, F16 b, Move move) {
  if (move.n == 1) return {ahead(a.a, a.b), ahead(a.b, b.a)};  // the most usual two, in registers
  if (move.n == 15) return {behind(a.b, b.a), behind(b.a, b.b)};
  float both[32];
  store(both, a), store(both + 16, b);
  return load(both + move.n);
}
inline F16 turned(F16 a, Move move) { return moved(a, a, move); }
inline void deal(F16 x, F16 y, F16& even, F16& odd) {
  const __m256i order = _mm256_set_epi32(7, 6, 3, 2, 5, 4, 1, 0);
  const auto join = [&](__m256 s) { return _mm256_permutevar8x32_ps(s, order); };
  even = {join(_mm256_shuffle_ps(x.a, x.b, 0x88)), join(_mm256_shuffle_ps(y.a, y.b, 0x88))};
  odd = {join(_mm256_shuffle_ps(x.a, x.b, 0xdd)), join(_mm256_shuffle_ps(y.a, y.b, 0xdd))};
}
// The inverse: lanes of two vectors in turn.
inline void interleave(F16 even, F16 odd, F16& x, F16& y) {
  const auto join = [](__m256 e, __m256 o) {
    const __m256 low = _mm256_unpacklo_ps(e, o), high = _mm256_unpackhi_ps(e, o);
    return F16{_mm256_permute2f128_ps(low, high, 0x20), _mm256_permute2f128_ps(low, high, 0x31)};
  };
  x = join(even.a, odd.a), y = join(even.b, odd.b);
}

#include "simd/across.inl"

// Sixteen whole numbers.
struct I16 {
  __m256i a, b;
};
inline const __m256i* ints(const void* p) { return static_cast<const __m256i*>(p); }
inline I16 load_ints(const int32_t* p) { return {_mm256_loadu_si256(ints(p)), _mm256_loadu_si256(ints(p) + 1)}; }
inline void store_ints(int32_t* p, I16 x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x.a);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p) + 1, x.b);
}
inline I16 all_ints(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
inline I16 operator+(I16 x, I16 y) { return {_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)}; }
inline I16 operator-(I16 x, I16 y) { return {_mm256_sub_epi32(x.a, y.a), _mm256_sub_epi32(x.b, y.b)}; }
inline I16 operator*(I16 x, I16 y) { return {_mm256_mullo_epi32(x.a, y.a), _mm256_mullo_epi32(x.b, y.b)}; }
inline F16 to_floats(I16 x) { return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }
inline I16 to_ints(F16 x) { return {_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b)}; }
// Sums of four products, each lane's own four. By halves of 16 bits: an instruction for bytes would cut sums off.
struct ByteDots {
  struct Bytes {
    __m256i a, b;
  };
  struct Weights {
    __m256i even_a, odd_a, even_b, odd_b;
  };
  static inline Bytes bytes(const uint8_t* p) { return {_mm256_loadu_si256(ints(p)), _mm256_loadu_si256(ints(p) + 1)}; }
  static inline __m256i even(__m256i w) { return _mm256_srai_epi16(_mm256_slli_epi16(w, 8), 8); }
  static inline __m256i odd(__m256i w) { return _mm256_srai_epi16(w, 8); }
  static inline Weights weights(const int8_t* p) {
    const __m256i a = _mm256_loadu_si256(ints(p)), b = _mm256_loadu_si256(ints(p) + 1);
    return {even(a), odd(a), even(b), odd(b)};
  }
  static inline Weights all(int32_t four) {
    const __m256i a = _mm256_set1_epi32(four), e = even(a), o = odd(a);
    return {e, o, e, o};
  }
  static inline __m256i add(__m256i sum, __m256i x, __m256i even, __m256i odd) {
    const __m256i low = _mm256_and_si256(x, _mm256_set1_epi16(255)), high = _mm256_srli_epi16(x, 8);
    return _mm256_add_epi32(sum, _mm256_add_epi32(_mm256_madd_epi16(low, even), _mm256_madd_epi16(high, odd)));
  }
  static inline I16 add(I16 sum, const Bytes& x, const Weights& w) {
    return {add(sum.a, x.a, w.even_a, w.odd_a), add(sum.b, x.b, w.even_b, w.odd_b)};
  }
};
#include "simd/dots.inl"

#include "table.inl"
namespace training {
#include "training/common.inl"
#include "training.inl"
}  // namespace training

}  // namespace avx2
const Kernels* avx2_kernels() { return &avx2::TABLE; }
const StepKernels* avx2_steps() { return &avx2::training::TABLE; }
#else
const Kernels* avx2_kernels() { return nullptr; }
const StepKernels* avx2_steps() { return nullptr; }
#endif
