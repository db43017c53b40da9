// A matrix with a bit for each weight times one vector: the values of those that are not zero lie one behind the other.
#pragma once
#include "simd/common.inl"

template <class Weight>
void bitmask_of(const uint64_t* all_bits, const int64_t* first, int64_t blocks, const Weight* values, const float* x,
                int64_t inputs, const Epilogue& e, Share share) {
  constexpr int WIDTH = 64, ROWS = 8, FAR = 8192 / sizeof(Weight), LINE = 64 / sizeof(Weight);
  const int64_t whole = blocks - 1;
  const Tail<WIDTH> tail(x, WIDTH * whole, inputs);
  const Range groups = part((e.outputs + ROWS - 1) / ROWS, share);
  for (int64_t g = groups.begin; g < groups.end; g++) {
    const uint64_t* bits = all_bits + g * blocks * ROWS;
    const Weight* weight = values + first[g];
    F16 sums[ROWS];
    for (int r = 0; r < ROWS; r++) sums[r] = all(0.0f);
    for (int64_t j = 0; j < blocks; j++) {
      const float* from = j < whole ? x + WIDTH * j : tail.x;
      const F16 block[4] = {load(from), load(from + 16), load(from + 32), load(from + 48)};
#pragma GCC unroll 8
      for (int r = 0; r < ROWS; r++, bits++) {
        const auto* quarter = reinterpret_cast<const uint16_t*>(bits);
        for (int ahead = FAR; ahead < FAR + 32; ahead += LINE) __builtin_prefetch(weight + ahead);
        F16 sum = sums[r];
        sum = fma(expand(quarter, weight), block[0], sum);
        sum = fma(expand(quarter + 1, weight + __builtin_popcountll(*bits & 0xffff)), block[1], sum);
        sum = fma(expand(quarter + 2, weight + __builtin_popcountll(*bits & 0xffffffff)), block[2], sum);
        sums[r] = fma(expand(quarter + 3, weight + __builtin_popcountll(*bits << 16)), block[3], sum);
        weight += __builtin_popcountll(*bits);
      }
    }
    float totals[16] = {};
    for (int r = 0; r < ROWS; r++) totals[r] = sum(sums[r]);
    const int64_t o = ROWS * g, left = smaller(ROWS, e.outputs - o);
    const F16 bias = load_first(e.bias + o, left);
    F16 total = e.scales ? fma(load(totals), load_first(e.scales + o, left), bias) : load(totals) + bias;
    if (e.residual) total = total + load_first(e.residual + o, left);
    store_first(e.out + o, activated(total, e.activation), left);
  }
}

int bitmask(const Bitmask& k, const Place& place, Share share) {
  with_weights(k.values, k.dtype, [&](const auto* values) {
    bitmask_of(k.bits, k.first, k.blocks, values, at(k.in, place), k.in.planes, epilogue(k, place), share);
  });
  return Status::OK;
}
