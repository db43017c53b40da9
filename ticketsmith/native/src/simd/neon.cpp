// Sixteen floats in four registers of four (aarch64, where NEON is always there).
#include "training/step.h"

#if defined(__aarch64__)
#include <arm_neon.h>

namespace neon {

constexpr int ACCUMULATORS = 6;  // 24 of 32 registers
constexpr int FOUR_OUTPUTS = 1;  // vectors of each of four outputs that are summed at once
constexpr int DENSE_SMALL = 1, DENSE_TALL = 1;
constexpr int PIXELS = 6, PIXEL_VECTORS = 1;
constexpr int DENSE_SUMS = 6, MOST_COLS = 2, MOST_OUTPUTS = 4;  // of a tile in training
constexpr int QUADS = 1;         // fours of weights whose gradients are summed at once

struct F16 {
  float32x4_t v[4];
};
#define EACH(expression)                    \
  F16 r;                                    \
  for (int i = 0; i < 4; i++) r.v[i] = expression; \
  return r;
inline F16 load(const float* p) { EACH(vld1q_f32(p + 4 * i)) }
inline void store(float* p, F16 a) {
  for (int i = 0; i < 4; i++) vst1q_f32(p + 4 * i, a.v[i]);
}
inline F16 load_first(const float* p, int64_t n) {
  float t[16] = {};
  for (int64_t i = 0; i < (n < 16 ? n : 16); i++) t[i] = p[i];
  return load(t);
}
inline void store_first(float* p, F16 a, int64_t n) {
  float t[16];
  store(t, a);
  for (int64_t i = 0; i < (n < 16 ? n : 16); i++) p[i] = t[i];
}
#include "simd/memory.inl"
inline F16 all(float x) { EACH(vdupq_n_f32(x)) }
inline F16 fma(F16 a, F16 b, F16 c) { EACH(vfmaq_f32(c.v[i], a.v[i], b.v[i])) }
inline F16 operator+(F16 a, F16 b) { EACH(vaddq_f32(a.v[i], b.v[i])) }
inline F16 operator-(F16 a, F16 b) { EACH(vsubq_f32(a.v[i], b.v[i])) }
inline F16 operator*(F16 a, F16 b) { EACH(vmulq_f32(a.v[i], b.v[i])) }
inline F16 operator/(F16 a, F16 b) { EACH(vdivq_f32(a.v[i], b.v[i])) }
inline F16 maximum(F16 a, F16 b) { EACH(vmaxq_f32(a.v[i], b.v[i])) }
inline F16 minimum(F16 a, F16 b) { EACH(vminq_f32(a.v[i], b.v[i])) }
inline F16 keep(F16 a, uint16_t mask) {
  const uint32_t bits[4] = {1, 2, 4, 8};
  const uint32x4_t bit = vld1q_u32(bits);
  EACH(vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(a.v[i]), vtstq_u32(vdupq_n_u32(mask >> (4 * i)), bit))))
}
inline F16 root(F16 a) { EACH(vsqrtq_f32(a.v[i])) }
// `a` where x is positive, else 0.
inline F16 where_positive(F16 x, F16 a) {
  EACH(vreinterpretq_f32_u32(vandq_u32(vcgtzq_f32(x.v[i]), vreinterpretq_u32_f32(a.v[i]))))
}
inline float sum(F16 a) { return vaddvq_f32(vaddq_f32(vaddq_f32(a.v[0], a.v[1]), vaddq_f32(a.v[2], a.v[3]))); }
inline float largest(F16 a) { return vmaxvq_f32(vmaxq_f32(vmaxq_f32(a.v[0], a.v[1]), vmaxq_f32(a.v[2], a.v[3]))); }
inline F16 rounded(F16 a) { EACH(vrndnq_f32(a.v[i])) }
inline F16 power_of_two(F16 a) {
  EACH(vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtnq_s32_f32(a.v[i]), vdupq_n_s32(127)), 23)))
}
inline F16 widen(const float* p) { return load(p); }
inline F16 widen(const uint16_t* p) { EACH(vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p + 4 * i), 16))) }
inline F16 widen(const int8_t* p) {
  const int8x16_t bytes = vld1q_s8(p);
  const int16x8_t low = vmovl_s8(vget_low_s8(bytes)), high = vmovl_s8(vget_high_s8(bytes));
  return {vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(low))),
          vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(high)))};
}
inline F16 widen(const uint8_t* p) {
  const uint8x16_t bytes = vld1q_u8(p);
  const uint16x8_t low = vmovl_u8(vget_low_u8(bytes)), high = vmovl_u8(vget_high_u8(bytes));
  return {vcvtq_f32_u32(vmovl_u16(vget_low_u16(low))), vcvtq_f32_u32(vmovl_u16(vget_high_u16(low))),
          vcvtq_f32_u32(vmovl_u16(vget_low_u16(high))), vcvtq_f32_u32(vmovl_u16(vget_high_u16(high)))};
}
// For each four bits, which of sixteen packed bytes each byte of four lanes has; 255 for none.
struct Ranks {
  uint8_t rank[16][16];
};
constexpr Ranks ranks() {
  Ranks r{};
  for (int bits = 0; bits < 16; bits++)
    for (int i = 0, n = 0; i < 4; i++) {
      const bool set = (bits >> i) & 1;
      for (int b = 0; b < 4; b++) r.rank[bits][4 * i + b] = static_cast<uint8_t>(set ? 4 * n + b : 255);
      n += set;
    }
  return r;
}
constexpr Ranks RANKS = ranks();
// The floats at p, one for each bit that is set, in the lanes of these bits. Whole vectors are read.
template <class Weight>
inline F16 expand(const uint16_t* bits, const Weight* p) {
  F16 lanes;
  for (int i = 0; i < 4; i++) {
    const unsigned four = (*bits >> (4 * i)) & 15u;
    const uint8x16_t packed = vreinterpretq_u8_f32(widen(p).v[0]);
    lanes.v[i] = vreinterpretq_f32_u8(vqtbl1q_u8(packed, vld1q_u8(RANKS.rank[four])));
    p += __builtin_popcount(four);
  }
  return lanes;
}
struct Block {
  const float* p;
};
inline Block block(const float* p) { return {p}; }
inline F16 pick(const Block& x, const uint8_t* columns) {
  float t[16];
  for (int i = 0; i < 16; i++) t[i] = x.p[columns[i]];
  return load(t);
}
inline Block wide_block(const float* p) { return {p}; }
inline void deal(F16 a, F16 b, F16& even, F16& odd) {
  even = {vuzp1q_f32(a.v[0], a.v[1]), vuzp1q_f32(a.v[2], a.v[3]), vuzp1q_f32(b.v[0], b.v[1]), vuzp1q_f32(b.v[2], b.v[3])};
  odd = {vuzp2q_f32(a.v[0], a.v[1]), vuzp2q_f32(a.v[2], a.v[3]), vuzp2q_f32(b.v[0], b.v[1]), vuzp2q_f32(b.v[2], b.v[3])};
}
// The inverse: lanes of two vectors in turn.
inline void interleave(F16 even, F16 odd, F16& a, F16& b) {
  for (int i = 0; i < 4; i++) {
    F16& out = i < 2 ? a : b;
    out.v[i % 2 * 2] = vzip1q_f32(even.v[i], odd.v[i]), out.v[i % 2 * 2 + 1] = vzip2q_f32(even.v[i], odd.v[i]);
  }
}
#undef EACH
#include "simd/across.inl"

// Sixteen whole numbers.
struct I16 {
  int32x4_t v[4];
};
#define EACH(expression)                    \
  I16 r;                                    \
  for (int i = 0; i < 4; i++) r.v[i] = expression; \
  return r;
inline I16 load_ints(const int32_t* p) { EACH(vld1q_s32(p + 4 * i)) }
inline void store_ints(int32_t* p, I16 a) {
  for (int i = 0; i < 4; i++) vst1q_s32(p + 4 * i, a.v[i]);
}
inline I16 all_ints(int32_t x) { EACH(vdupq_n_s32(x)) }
inline I16 operator+(I16 a, I16 b) { EACH(vaddq_s32(a.v[i], b.v[i])) }
inline I16 operator-(I16 a, I16 b) { EACH(vsubq_s32(a.v[i], b.v[i])) }
inline I16 operator*(I16 a, I16 b) { EACH(vmulq_s32(a.v[i], b.v[i])) }
#undef EACH
inline F16 to_floats(I16 a) {
  F16 r;
  for (int i = 0; i < 4; i++) r.v[i] = vcvtq_f32_s32(a.v[i]);
  return r;
}
inline I16 to_ints(F16 a) {  // of numbers without a fraction
  I16 r;
  for (int i = 0; i < 4; i++) r.v[i] = vcvtq_s32_f32(a.v[i]);
  return r;
}
// Sums of four products, byte by byte: each lane's own four.
struct ByteDots {
  struct Bytes {
    uint8x16_t v[4];
  };
  struct Weights {
    int8x16_t v[4];
  };
  static inline Bytes bytes(const uint8_t* p) {
    Bytes r;
    for (int i = 0; i < 4; i++) r.v[i] = vld1q_u8(p + 16 * i);
    return r;
  }
  static inline Weights weights(const int8_t* p) {
    Weights r;
    for (int i = 0; i < 4; i++) r.v[i] = vld1q_s8(p + 16 * i);
    return r;
  }
  static inline Weights all(int32_t four) {
    Weights r;
    for (int i = 0; i < 4; i++) r.v[i] = vreinterpretq_s8_s32(vdupq_n_s32(four));
    return r;
  }
  static inline int32x4_t add(int32x4_t sum, uint8x16_t x, int8x16_t w) {
#ifdef __ARM_FEATURE_DOTPROD
    // both with a sign: x - 128, and 128 times the weights
    const int8x16_t signed_x = vreinterpretq_s8_u8(veorq_u8(x, vdupq_n_u8(128)));
    const int32x4_t weights = vdotq_s32(vdupq_n_s32(0), vdupq_n_s8(1), w);
    return vaddq_s32(vdotq_s32(sum, signed_x, w), vshlq_n_s32(weights, 7));
#else
    const int16x8_t x0 = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(x))), x1 = vreinterpretq_s16_u16(vmovl_u8(vget_high_u8(x)));
    const int16x8_t w0 = vmovl_s8(vget_low_s8(w)), w1 = vmovl_s8(vget_high_s8(w));
    const int32x4_t a = vmull_s16(vget_low_s16(x0), vget_low_s16(w0)), b = vmull_high_s16(x0, w0);
    const int32x4_t c = vmull_s16(vget_low_s16(x1), vget_low_s16(w1)), d = vmull_high_s16(x1, w1);
    return vaddq_s32(sum, vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d)));
#endif
  }
  static inline I16 add(I16 sum, const Bytes& x, const Weights& w) {
    for (int i = 0; i < 4; i++) sum.v[i] = add(sum.v[i], x.v[i], w.v[i]);
    return sum;
  }
};
#include "simd/dots.inl"

#include "table.inl"
namespace training {
#include "training/common.inl"
#include "training.inl"
}  // namespace training

}  // namespace neon
const Kernels* neon_kernels() { return &neon::TABLE; }
const StepKernels* neon_steps() { return &neon::training::TABLE; }
#else
const Kernels* neon_kernels() { return nullptr; }
const StepKernels* neon_steps() { return nullptr; }
#endif
