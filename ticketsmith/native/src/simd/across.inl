// What goes across sixteen vectors, by dealing.

// Sixteen by sixteen: each round deals the array like a pack of cards into even and odd, which turns the eight bits of an
// element's address by one; after four rounds row and column have changed places.
inline __attribute__((always_inline)) void transpose(F16* r) {
  F16 s[16];
  for (int round = 0; round < 4; round++) {
    for (int i = 0; i < 8; i++) deal(r[2 * i], r[2 * i + 1], s[i], s[i + 8]);
    for (int i = 0; i < 16; i++) r[i] = s[i];
  }
}

// Sixteen vectors to one: lane i is the sum of vector i.
inline __attribute__((always_inline)) F16 add_up(const F16* vectors) {
  F16 r[16];
  for (int i = 0; i < 16; i++) r[i] = vectors[i];
  for (int n = 16; n > 1; n /= 2)
    for (int i = 0; i < n / 2; i++) {
      F16 even, odd;
      deal(r[2 * i], r[2 * i + 1], even, odd);
      r[i] = even + odd;
    }
  return r[0];
}
