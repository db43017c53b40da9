// What is done by way of memory where there are no instructions for it.
inline F16 load_some(const float* p, uint16_t mask) {
  float each[16];
  for (int i = 0; i < 16; i++) each[i] = (mask >> i) & 1 ? p[i] : 0.0f;
  return load(each);
}
inline void store_some(float* p, F16 x, uint16_t mask) {
  float each[16];
  store(each, x);
  for (int i = 0; i < 16; i++)
    if ((mask >> i) & 1) p[i] = each[i];
}
// Sixteen of the 32 floats of two neighbours, from the n-th on, n in 1 .. 15.
struct Move {
  int64_t n;
};
inline Move moving(int64_t n) { return {n}; }
inline F16 moved(F16 a, F16 b, Move move) {
  float both[32];
  store(both, a), store(both + 16, b);
  return load(both + move.n);
}
inline F16 turned(F16 a, Move move) { return moved(a, a, move); }
