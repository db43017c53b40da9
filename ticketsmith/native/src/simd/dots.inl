// What products of bytes do by way of memory where there are no instructions for it; and sums of whole numbers as bits.
#ifndef HAS_FAST_DOTS
inline F16 as_floats(I16 a) {
  F16 r;
  __builtin_memcpy(&r, &a, 64);
  return r;
}
inline I16 as_ints(F16 a) {
  I16 r;
  __builtin_memcpy(&r, &a, 64);
  return r;
}
// 64 numbers, rounded, plus `zero`, and cut off at 0 and 255 (NaN at 0), as bytes: one vector behind the other, and side by side.
inline F16 cut_off(F16 x, F16 zero) { return minimum(all(255.0f), maximum(rounded(x) + zero, all(0.0f))); }
inline void store_bytes(uint8_t* p, const F16* vectors, F16 zero) {
  for (int c = 0; c < 4; c++) {
    float each[16];
    store(each, cut_off(vectors[c], zero));
    for (int i = 0; i < 16; i++) p[16 * c + i] = each[i] > 0.0f ? static_cast<uint8_t>(static_cast<int32_t>(each[i])) : 0;
  }
}
inline void store_fours(uint8_t* p, const F16* vectors, F16 zero) {
  F16 each[4];
  for (int c = 0; c < 4; c++) each[c] = cut_off(vectors[c], zero);
  const I16 low = to_ints(fma(each[1], all(256.0f), each[0])), high = to_ints(fma(each[3], all(256.0f), each[2]));
  store_ints(reinterpret_cast<int32_t*>(p), low + high * all_ints(65536));
}
// The inverse of `store_fours` for 16 or 32 columns, where they lie: four rows of bytes.
inline void split_bytes(uint8_t* p, int64_t columns) {
  if (columns > 32) __builtin_unreachable();
  uint8_t split[128];
  for (int64_t i = 0; i < columns; i++)
    for (int64_t c = 0; c < 4; c++) split[columns * c + i] = p[4 * i + c];
  __builtin_memcpy(p, split, static_cast<size_t>(4 * columns));
}
// 16 bytes each, `distance` apart; of the first `count` alone.
inline void store_apart(uint8_t* p, int64_t distance, int64_t count, const F16* vectors, F16 zero) {
  uint8_t bytes[64];
  store_bytes(bytes, vectors, zero);
  for (int64_t c = 0; c < count; c++) __builtin_memcpy(p + c * distance, bytes + 16 * c, 16);
}
#endif

// `Core` multiplies; here is what it multiplies.
template <class Core>
struct ByMemory : Core {
  using typename Core::Bytes;
  using typename Core::Weights;
  // So many inputs, from which any 64 are picked.
  template <int WIDTH>
  struct Block {
    const uint8_t* p;
  };
  template <int WIDTH>
  static inline Block<WIDTH> block(const uint8_t* p) {
    return {p};
  }
  template <int WIDTH>
  static inline Bytes pick(Block<WIDTH> block, const uint8_t* columns) {
    uint8_t picked[64];
    for (int i = 0; i < 64; i++) picked[i] = block.p[columns[i]];
    return Core::bytes(picked);
  }
  // The same four bytes in each lane.
  static inline Bytes every(const uint8_t* p) {
    uint8_t each[64];
    for (int i = 0; i < 64; i += 4) __builtin_memcpy(each + i, p, 4);
    return Core::bytes(each);
  }
  // Bytes of 32 columns from four places, side by side.
  static inline void gather(const uint8_t* p, const int32_t* offset, Bytes& low, Bytes& high) {
    uint8_t each[128];
    for (int c = 0; c < 4; c++)
      for (int i = 0; i < 32; i++) each[4 * i + c] = p[offset[c] + i];
    low = Core::bytes(each), high = Core::bytes(each + 64);
  }
  // 64 weights of 4 bits, each 16 times what it is.
  static inline Weights nibbles(const uint8_t* p) {
    int8_t wide[64];
    for (int i = 0; i < 32; i++) {
      wide[2 * i] = static_cast<int8_t>(p[i] << 4);
      wide[2 * i + 1] = static_cast<int8_t>(p[i] & 0xf0);
    }
    return Core::weights(wide);
  }
};
using PlainDots = ByMemory<ByteDots>;
#ifndef HAS_FAST_DOTS
// Calls body(dots) with the fastest way to multiply bytes that this machine has.
template <class Body>
inline void with_dots(Body&& body) {
  body(PlainDots{});
}
#endif
