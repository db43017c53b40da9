// Sixteen floats that any compiler makes the best of.
#include "training/step.h"

namespace portable {

constexpr int ACCUMULATORS = 3;
constexpr int FOUR_OUTPUTS = 1;  // vectors of each of four outputs that are summed at once
constexpr int DENSE_SMALL = 1, DENSE_TALL = 1;
constexpr int PIXELS = 4, PIXEL_VECTORS = 1;
constexpr int DENSE_SUMS = 4, MOST_COLS = 2, MOST_OUTPUTS = 2;  // of a tile in training
constexpr int QUADS = 1;         // fours of weights whose gradients are summed at once

struct F16 {
  float v[16];
};
#define EACH(expression)                              \
  F16 r;                                              \
  for (int i = 0; i < 16; i++) r.v[i] = (expression); \
  return r;
inline F16 load(const float* p) { EACH(p[i]) }
inline void store(float* p, F16 a) {
  for (int i = 0; i < 16; i++) p[i] = a.v[i];
}
inline F16 load_first(const float* p, int64_t n) { EACH(i < n ? p[i] : 0.0f) }
inline void store_first(float* p, F16 a, int64_t n) {
  for (int i = 0; i < 16 && i < n; i++) p[i] = a.v[i];
}
#include "simd/memory.inl"
inline F16 all(float x) { EACH(x) }
inline F16 fma(F16 a, F16 b, F16 c) { EACH(a.v[i] * b.v[i] + c.v[i]) }
inline F16 operator+(F16 a, F16 b) { EACH(a.v[i] + b.v[i]) }
inline F16 operator-(F16 a, F16 b) { EACH(a.v[i] - b.v[i]) }
inline F16 operator*(F16 a, F16 b) { EACH(a.v[i] * b.v[i]) }
inline F16 operator/(F16 a, F16 b) { EACH(a.v[i] / b.v[i]) }
inline F16 maximum(F16 a, F16 b) { EACH(a.v[i] > b.v[i] ? a.v[i] : b.v[i]) }
inline F16 minimum(F16 a, F16 b) { EACH(a.v[i] < b.v[i] ? a.v[i] : b.v[i]) }
inline F16 keep(F16 a, uint16_t mask) { EACH((mask >> i) & 1 ? a.v[i] : 0.0f) }
inline F16 root(F16 a) { EACH(__builtin_sqrtf(a.v[i])) }
// `a` where x is positive, else 0.
inline F16 where_positive(F16 x, F16 a) { EACH(x.v[i] > 0.0f ? a.v[i] : 0.0f) }
inline float sum(F16 a) {
  float s = 0;
  for (int i = 0; i < 16; i++) s += a.v[i];
  return s;
}
inline float largest(F16 a) {
  float s = a.v[0];
  for (int i = 1; i < 16; i++) s = a.v[i] > s ? a.v[i] : s;
  return s;
}
inline F16 rounded(F16 a) { EACH(__builtin_rintf(a.v[i])) }
inline F16 power_of_two(F16 a) {
  F16 r;
  for (int i = 0; i < 16; i++) {
    const uint32_t bits = static_cast<uint32_t>(static_cast<int32_t>(a.v[i]) + 127) << 23;
    __builtin_memcpy(&r.v[i], &bits, 4);
  }
  return r;
}
inline F16 widen(const float* p) { return load(p); }
inline F16 widen(const uint16_t* p) {
  F16 r;
  for (int i = 0; i < 16; i++) {
    const uint32_t bits = static_cast<uint32_t>(p[i]) << 16;
    __builtin_memcpy(&r.v[i], &bits, 4);
  }
  return r;
}
inline F16 widen(const int8_t* p) { EACH(static_cast<float>(p[i])) }
inline F16 widen(const uint8_t* p) { EACH(static_cast<float>(p[i])) }
// The floats at p, one for each bit that is set, in the lanes of these bits. Whole vectors are read.
template <class Weight>
inline F16 expand(const uint16_t* bits, const Weight* p) {
  float packed[16], lanes[16];
  store(packed, widen(p));
  for (int i = 0, n = 0; i < 16; i++) lanes[i] = (*bits >> i) & 1 ? packed[n++] : 0.0f;
  return load(lanes);
}
struct Block {
  const float* p;
};
inline Block block(const float* p) { return {p}; }
inline F16 pick(const Block& x, const uint8_t* columns) { EACH(x.p[columns[i]]) }
inline Block wide_block(const float* p) { return {p}; }
inline void deal(F16 a, F16 b, F16& even, F16& odd) {
  for (int i = 0; i < 8; i++) {
    even.v[i] = a.v[2 * i], even.v[8 + i] = b.v[2 * i];
    odd.v[i] = a.v[2 * i + 1], odd.v[8 + i] = b.v[2 * i + 1];
  }
}
// The inverse: lanes of two vectors in turn.
inline void interleave(F16 even, F16 odd, F16& a, F16& b) {
  for (int i = 0; i < 16; i++) {
    F16& out = i < 8 ? a : b;
    out.v[i % 8 * 2] = even.v[i], out.v[i % 8 * 2 + 1] = odd.v[i];
  }
}
#undef EACH
#include "simd/across.inl"

// Sixteen whole numbers.
struct I16 {
  int32_t v[16];
};
#define EACH(expression)                              \
  I16 r;                                              \
  for (int i = 0; i < 16; i++) r.v[i] = (expression); \
  return r;
inline I16 load_ints(const int32_t* p) { EACH(p[i]) }
inline void store_ints(int32_t* p, I16 a) {
  for (int i = 0; i < 16; i++) p[i] = a.v[i];
}
inline I16 all_ints(int32_t x) { EACH(x) }
inline I16 operator+(I16 a, I16 b) { EACH(a.v[i] + b.v[i]) }
inline I16 operator-(I16 a, I16 b) { EACH(a.v[i] - b.v[i]) }
inline I16 operator*(I16 a, I16 b) { EACH(a.v[i] * b.v[i]) }
#undef EACH
inline F16 to_floats(I16 a) {
  F16 r;
  for (int i = 0; i < 16; i++) r.v[i] = static_cast<float>(a.v[i]);
  return r;
}
inline I16 to_ints(F16 a) {  // of numbers without a fraction
  I16 r;
  for (int i = 0; i < 16; i++) r.v[i] = a.v[i] > 0.0f ? static_cast<int32_t>(a.v[i]) : 0;
  return r;
}
// Sums of four products, byte by byte: each lane's own four.
struct ByteDots {
  struct Bytes {
    uint8_t v[64];
  };
  struct Weights {
    int8_t v[64];
  };
  static inline Bytes bytes(const uint8_t* p) {
    Bytes r;
    __builtin_memcpy(r.v, p, 64);
    return r;
  }
  static inline Weights weights(const int8_t* p) {
    Weights r;
    __builtin_memcpy(r.v, p, 64);
    return r;
  }
  static inline Weights all(int32_t four) {
    Weights r;
    for (int i = 0; i < 64; i += 4) __builtin_memcpy(r.v + i, &four, 4);
    return r;
  }
  static inline I16 add(I16 sum, const Bytes& x, const Weights& w) {
    for (int i = 0; i < 16; i++)
      for (int j = 0; j < 4; j++) sum.v[i] += x.v[4 * i + j] * w.v[4 * i + j];
    return sum;
  }
};
#include "simd/dots.inl"

#include "table.inl"
namespace training {
#include "training/common.inl"
#include "training.inl"
}  // namespace training

}  // namespace portable
const Kernels* portable_kernels() { return &portable::TABLE; }
const StepKernels* portable_steps() { return &portable::training::TABLE; }
