// Sixteen floats in one register.
#include "training/step.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#include <stdlib.h>

namespace avx512 {

constexpr int ACCUMULATORS = 16;  // of 32 registers; sums that are moved need as many again, so that with few taps 14 are faster
constexpr int FOUR_OUTPUTS = 6;    // vectors of each of four outputs that are summed at once
constexpr int DENSE_SMALL = 6, DENSE_TALL = 3;
constexpr int PIXELS = 14, PIXEL_VECTORS = 2;
constexpr int DENSE_SUMS = 25, MOST_COLS = 5, MOST_OUTPUTS = 8;  // of a tile in training
constexpr int QUADS = 4;          // fours of weights whose gradients are summed at once

struct F16 {
  __m512 v;
};
inline F16 load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline void store(float* p, F16 a) { _mm512_storeu_ps(p, a.v); }
inline __mmask16 first(int64_t n) { return static_cast<__mmask16>(n >= 16 ? 0xffff : (1u << n) - 1); }
inline F16 load_first(const float* p, int64_t n) { return {_mm512_maskz_loadu_ps(first(n), p)}; }
inline void store_first(float* p, F16 a, int64_t n) { _mm512_mask_storeu_ps(p, first(n), a.v); }
inline F16 load_some(const float* p, uint16_t mask) { return {_mm512_maskz_loadu_ps(mask, p)}; }
inline void store_some(float* p, F16 a, uint16_t mask) { _mm512_mask_storeu_ps(p, mask, a.v); }
inline F16 all(float x) { return {_mm512_set1_ps(x)}; }
inline F16 fma(F16 a, F16 b, F16 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline F16 operator+(F16 a, F16 b) { return {_mm512_add_ps(a.v, b.v)}; }
inline F16 operator-(F16 a, F16 b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline F16 operator*(F16 a, F16 b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline F16 operator/(F16 a, F16 b) { return {_mm512_div_ps(a.v, b.v)}; }
inline F16 maximum(F16 a, F16 b) { return {_mm512_max_ps(a.v, b.v)}; }
inline F16 minimum(F16 a, F16 b) { return {_mm512_min_ps(a.v, b.v)}; }
inline F16 keep(F16 a, uint16_t mask) { return {_mm512_maskz_mov_ps(mask, a.v)}; }
inline F16 root(F16 a) { return {_mm512_sqrt_ps(a.v)}; }
// `a` where x is positive, else 0.
inline F16 where_positive(F16 x, F16 a) {
  return {_mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x.v, _mm512_setzero_ps(), _CMP_GT_OQ), a.v)};
}
inline float sum(F16 a) { return _mm512_reduce_add_ps(a.v); }
inline float largest(F16 a) { return _mm512_reduce_max_ps(a.v); }
inline F16 rounded(F16 a) { return {_mm512_roundscale_ps(a.v, 0)}; }
inline F16 power_of_two(F16 a) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(a.v), _mm512_set1_epi32(127)), 23))};
}
inline F16 widen(const float* p) { return load(p); }
inline F16 widen(const uint16_t* p) {
  const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16))};
}
inline F16 widen(const int8_t* p) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))};
}
inline F16 widen(const uint8_t* p) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))};
}
// The floats at p, one for each bit that is set, in the lanes of these bits. Whole vectors are read.
template <class Weight>
inline F16 expand(const uint16_t* bits, const Weight* p) {
  __mmask16 mask;
  __m512 lanes, packed = widen(p).v;
  // Loading the mask where it is used spares shifts. The register is cleared, since the instruction waits for what was in it
  // (Zen 5), and its operand is not memory, from which it may be slow.
  asm("kmovw %1, %0" : "=k"(mask) : "m"(*bits));
  asm("vpxord %0, %0, %0" : "=v"(lanes));
  asm("" : "+v"(packed));
  return {_mm512_mask_expand_ps(lanes, mask, packed)};
}
// 64 inputs held in four registers; a permute picks any 16 of them, where a gather would take 16 loads.
struct Block {
  __m512 a, b, c, d;
};
inline Block block(const float* p) {
  return {_mm512_loadu_ps(p), _mm512_loadu_ps(p + 16), _mm512_loadu_ps(p + 32), _mm512_loadu_ps(p + 48)};
}
inline F16 pick(const Block& x, const uint8_t* columns) {
  const __m512i index = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(columns)));
  const __mmask16 upper = _mm512_test_epi32_mask(index, _mm512_set1_epi32(32));
  return {_mm512_mask_blend_ps(upper, _mm512_permutex2var_ps(x.a, index, x.b), _mm512_permutex2var_ps(x.c, index, x.d))};
}
struct WideBlock {
  Block low, high;
};
inline WideBlock wide_block(const float* p) { return {block(p), block(p + 64)}; }
inline F16 pick(const WideBlock& x, const uint8_t* columns) {
  const __m512i index = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(columns)));
  const __mmask16 upper = _mm512_test_epi32_mask(index, _mm512_set1_epi32(64));
  return {_mm512_mask_blend_ps(upper, pick(x.low, columns).v, pick(x.high, columns).v)};
}
// Sixteen of the 32 floats of two neighbours, from the n-th on, n in 1 .. 15.
struct Move {
  __m512i lanes;
};
inline Move moving(int64_t n) {
  const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  return {_mm512_add_epi32(lane, _mm512_set1_epi32(static_cast<int>(n)))};
}
inline F16 moved(F16 a, F16 b, Move move) { return {_mm512_permutex2var_ps(a.v, move.lanes, b.v)}; }
inline F16 turned(F16 a, Move move) { return {_mm512_permutexvar_ps(move.lanes, a.v)}; }  // its own neighbour
// Even and odd lanes of 32 floats.
inline void deal(F16 a, F16 b, F16& even, F16& odd) {
  const __m512i e = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
  even.v = _mm512_permutex2var_ps(a.v, e, b.v);
  odd.v = _mm512_permutex2var_ps(a.v, _mm512_add_epi32(e, _mm512_set1_epi32(1)), b.v);
}
// The inverse: lanes of two vectors in turn.
inline void interleave(F16 even, F16 odd, F16& a, F16& b) {
  const __m512i turn = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  a.v = _mm512_permutex2var_ps(even.v, turn, odd.v);
  b.v = _mm512_permutex2var_ps(even.v, _mm512_add_epi32(turn, _mm512_set1_epi32(8)), odd.v);
}

// Across sixteen vectors, by shuffles within quarters, which are faster than those that know no border.
inline __m512 low2(__m512 a, __m512 b) {
  return _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
}
inline __m512 high2(__m512 a, __m512 b) {
  return _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
}
inline __attribute__((always_inline)) void transpose(F16* r) {
  __m512 s[16];
  _Pragma("GCC unroll 4") for (int i = 0; i < 16; i += 4) {  // four by four in each quarter
    const __m512 a = _mm512_unpacklo_ps(r[i].v, r[i + 1].v), b = _mm512_unpackhi_ps(r[i].v, r[i + 1].v);
    const __m512 c = _mm512_unpacklo_ps(r[i + 2].v, r[i + 3].v), d = _mm512_unpackhi_ps(r[i + 2].v, r[i + 3].v);
    s[i] = low2(a, c), s[i + 1] = high2(a, c), s[i + 2] = low2(b, d), s[i + 3] = high2(b, d);
  }
  _Pragma("GCC unroll 4") for (int i = 0; i < 4; i++) {  // and the quarters
    const __m512 a = _mm512_shuffle_f32x4(s[i], s[i + 4], 0x88), b = _mm512_shuffle_f32x4(s[i], s[i + 4], 0xdd);
    const __m512 c = _mm512_shuffle_f32x4(s[i + 8], s[i + 12], 0x88), d = _mm512_shuffle_f32x4(s[i + 8], s[i + 12], 0xdd);
    r[i].v = _mm512_shuffle_f32x4(a, c, 0x88), r[i + 8].v = _mm512_shuffle_f32x4(a, c, 0xdd);
    r[i + 4].v = _mm512_shuffle_f32x4(b, d, 0x88), r[i + 12].v = _mm512_shuffle_f32x4(b, d, 0xdd);
  }
}
// One vector of sums: lane i is that of vector i.
inline __m512 pairs(__m512 a, __m512 b) { return _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)); }
inline __m512 fours(__m512 a, __m512 b) { return _mm512_add_ps(low2(a, b), high2(a, b)); }
inline __m512 quarters(__m512 a, __m512 b) {
  return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
}
inline __attribute__((always_inline)) F16 add_up(const F16* r) {
  __m512 each[4];
  _Pragma("GCC unroll 4") for (int i = 0; i < 4; i++) {
    const F16* four = r + 4 * i;
    each[i] = fours(pairs(four[0].v, four[1].v), pairs(four[2].v, four[3].v));
  }
  return {quarters(quarters(each[0], each[1]), quarters(each[2], each[3]))};
}

// Sixteen whole numbers.
struct I16 {
  __m512i v;
};
inline I16 load_ints(const int32_t* p) { return {_mm512_loadu_si512(p)}; }
inline void store_ints(int32_t* p, I16 a) { _mm512_storeu_si512(p, a.v); }
inline I16 all_ints(int32_t x) { return {_mm512_set1_epi32(x)}; }
inline I16 operator+(I16 a, I16 b) { return {_mm512_add_epi32(a.v, b.v)}; }
inline I16 operator-(I16 a, I16 b) { return {_mm512_sub_epi32(a.v, b.v)}; }
inline I16 operator*(I16 a, I16 b) { return {_mm512_mullo_epi32(a.v, b.v)}; }
inline F16 to_floats(I16 a) { return {_mm512_cvtepi32_ps(a.v)}; }
inline I16 to_ints(F16 a) { return {_mm512_cvtps_epi32(a.v)}; }
// 64 numbers, rounded, plus `zero`, and cut off at 0 and 255, as bytes: within quarters four of each vector.
inline __m512i to_bytes(const F16* vectors, F16 zero) {
  const __m512i low = _mm512_packs_epi32(to_ints(vectors[0]).v, to_ints(vectors[1]).v);
  const __m512i high = _mm512_packs_epi32(to_ints(vectors[2]).v, to_ints(vectors[3]).v);
  const __m512i more = _mm512_packs_epi32(to_ints(zero).v, to_ints(zero).v);
  return _mm512_packus_epi16(_mm512_adds_epi16(low, more), _mm512_adds_epi16(high, more));
}
inline __m512i by_vectors(__m512i bytes) {
  return _mm512_permutexvar_epi32(_mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0), bytes);
}
inline void store_bytes(uint8_t* p, const F16* vectors, F16 zero) {  // one vector behind the other
  _mm512_storeu_si512(p, by_vectors(to_bytes(vectors, zero)));
}
inline void store_apart(uint8_t* p, int64_t distance, int64_t count, const F16* vectors, F16 zero) {  // the first `count` alone
  const __m512i bytes = by_vectors(to_bytes(vectors, zero));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_castsi512_si128(bytes));
  if (count > 1) _mm_storeu_si128(reinterpret_cast<__m128i*>(p + distance), _mm512_extracti32x4_epi32(bytes, 1));
  if (count > 2) _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 2 * distance), _mm512_extracti32x4_epi32(bytes, 2));
  if (count > 3) _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 3 * distance), _mm512_extracti32x4_epi32(bytes, 3));
}
inline __m512i turned_fours(__m512i bytes) {  // four by four in each quarter
  const __m512i turn = _mm512_broadcast_i32x4(_mm_set_epi8(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0));
  return _mm512_shuffle_epi8(bytes, turn);
}
inline void store_fours(uint8_t* p, const F16* vectors, F16 zero) {  // side by side
  _mm512_storeu_si512(p, turned_fours(to_bytes(vectors, zero)));
}
inline void split_bytes(uint8_t* p, int64_t columns) {
  const __m512i a = by_vectors(turned_fours(_mm512_loadu_si512(p)));
  if (columns == 16) {
    _mm512_storeu_si512(p, a);
    return;
  }
  const __m512i b = by_vectors(turned_fours(_mm512_loadu_si512(p + 64))), first = _mm512_set_epi64(11, 10, 3, 2, 9, 8, 1, 0);
  _mm512_storeu_si512(p, _mm512_permutex2var_epi64(a, first, b));
  _mm512_storeu_si512(p + 64, _mm512_permutex2var_epi64(a, _mm512_add_epi64(first, _mm512_set1_epi64(4)), b));
}
inline F16 as_floats(I16 a) { return {_mm512_castsi512_ps(a.v)}; }
inline I16 as_ints(F16 a) { return {_mm512_castps_si512(a.v)}; }
// Sums of four products, each lane's own four, by halves of 16 bits.
struct ByteDots {
  using Bytes = __m512i;
  struct Weights {
    __m512i even, odd;
  };
  static inline Bytes bytes(const uint8_t* p) { return _mm512_loadu_si512(p); }
  static inline Weights halves(__m512i w) {
    return {_mm512_srai_epi16(_mm512_slli_epi16(w, 8), 8), _mm512_srai_epi16(w, 8)};
  }
  static inline Weights weights(const int8_t* p) { return halves(_mm512_loadu_si512(p)); }
  static inline Weights all(int32_t four) { return halves(_mm512_set1_epi32(four)); }
  static inline I16 add(I16 sum, Bytes x, Weights w) {
    const __m512i low = _mm512_and_si512(x, _mm512_set1_epi16(255)), high = _mm512_srli_epi16(x, 8);
    return {_mm512_add_epi32(sum.v, _mm512_add_epi32(_mm512_madd_epi16(low, w.even), _mm512_madd_epi16(high, w.odd)))};
  }
};
#define HAS_FAST_DOTS
#include "simd/dots.inl"
// By VNNI and VBMI, which not all have that have AVX-512. Not intrinsics, since the file is compiled for all of them.
struct FastDots {
  using Bytes = __m512i;
  using Weights = __m512i;
  template <int WIDTH>
  struct Block {
    __m512i part[WIDTH / 64];
  };
  static inline Bytes bytes(const uint8_t* p) { return _mm512_loadu_si512(p); }
  static inline Weights weights(const int8_t* p) { return _mm512_loadu_si512(p); }
  static inline Weights all(int32_t four) { return _mm512_set1_epi32(four); }
  static inline I16 add(I16 sum, Bytes x, Weights w) {
    asm("vpdpbusd %2, %1, %0" : "+v"(sum.v) : "v"(x), "v"(w));
    return sum;
  }
  template <int WIDTH>
  static inline Block<WIDTH> block(const uint8_t* p) {
    Block<WIDTH> r;
    for (int i = 0; i < WIDTH / 64; i++) r.part[i] = _mm512_loadu_si512(p + 64 * i);
    return r;
  }
  static inline Bytes pick(const __m512i* part, __m512i index) {
    asm("vpermi2b %2, %1, %0" : "+v"(index) : "v"(part[0]), "v"(part[1]));
    return index;
  }
  template <int WIDTH>
  static inline Bytes pick(const Block<WIDTH>& block, const uint8_t* columns) {
    const __m512i index = _mm512_loadu_si512(columns), low = pick(block.part, index);
    if constexpr (WIDTH == 128) return low;
    else return _mm512_mask_blend_epi8(_mm512_movepi8_mask(index), low, pick(block.part + 2, index));
  }
  static inline Bytes every(const uint8_t* p) {
    int32_t four;
    __builtin_memcpy(&four, p, 4);
    return _mm512_set1_epi32(four);
  }
  static inline void gather(const uint8_t* p, const int32_t* offset, Bytes& low, Bytes& high) {
    const auto pair = [&](int c) {
      const auto at = [&](int i) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + offset[c + i])); };
      return _mm512_inserti64x4(_mm512_castsi256_si512(at(0)), at(1), 1);
    };
    const __m512i step = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    const __m512i first = _mm512_add_epi32(_mm512_mullo_epi32(step, _mm512_set1_epi32(0x01010101)), _mm512_set1_epi32(0x60402000));
    const __m512i second = _mm512_add_epi32(first, _mm512_set1_epi32(0x10101010)), b = pair(2);
    low = high = pair(0);
    asm("vpermt2b %2, %1, %0" : "+v"(low) : "v"(first), "v"(b));
    asm("vpermt2b %2, %1, %0" : "+v"(high) : "v"(second), "v"(b));
  }
  // Byte i of each eight takes the bits 4i - 4 .. 4i + 4, of which the upper four are the weight.
  static inline Weights nibbles(const uint8_t* p) {
    const __m512i from = _mm512_set1_epi64(0x1814100c0804003c);
    __m512i wide = _mm512_cvtepu32_epi64(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    asm("vpmultishiftqb %1, %2, %0" : "=v"(wide) : "v"(wide), "v"(from));
    return _mm512_and_si512(wide, _mm512_set1_epi8(static_cast<char>(0xf0)));
  }
};
inline bool has_fast_dots() {
  const char* asked = getenv("TICKETSMITH_VNNI");
  return !(asked && asked[0] == '0') && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi");
}
const bool FAST_DOTS = has_fast_dots();
template <class Body>
inline void with_dots(Body&& body) {
  if (FAST_DOTS) body(FastDots{});
  else body(PlainDots{});
}

#include "table.inl"
namespace training {
#include "training/common.inl"
#include "training.inl"
}  // namespace training

}  // namespace avx512
const Kernels* avx512_kernels() { return &avx512::TABLE; }
const StepKernels* avx512_steps() { return &avx512::training::TABLE; }
#else
const Kernels* avx512_kernels() { return nullptr; }
const StepKernels* avx512_steps() { return nullptr; }
#endif
