// A dense matrix times one vector, both of whole numbers.
#pragma once
#include "dense/quantise.inl"

template <int BITS, class Dots>
void gemv_dot_of(const GemvDot& k, const float* range, const Epilogue& e, Range groups, Dots) {
  constexpr int ROWS = 8, BYTES = 8 * BITS, FAR = 1024 * BITS;
  const auto* x = reinterpret_cast<const uint8_t*>(range + 32);
  const F16 step = load(range);
  const I16 zero = load_ints(reinterpret_cast<const int32_t*>(range + 16));
  for (int64_t g = groups.begin; g < groups.end; g++) {
    const auto* weight = static_cast<const uint8_t*>(k.weights) + g * k.blocks * ROWS * BYTES;
    I16 sums[ROWS];
    for (int r = 0; r < ROWS; r++) sums[r] = all_ints(0);
    for (int64_t j = 0; j < k.blocks; j++) {
      const auto block = Dots::bytes(x + 64 * j);
#pragma GCC unroll 8
      for (int r = 0; r < ROWS; r++, weight += BYTES) {
        __builtin_prefetch(weight + FAR);
        if constexpr (BITS == 8) sums[r] = Dots::add(sums[r], block, Dots::weights(reinterpret_cast<const int8_t*>(weight)));
        else sums[r] = Dots::add(sums[r], block, Dots::nibbles(weight));
      }
    }
    int32_t totals[16] = {};
    for (int r = 0; r < ROWS; r++) {
      int32_t each[16];
      store_ints(each, sums[r]);
      for (const int32_t lane : each) totals[r] += lane;
    }
    const int64_t o = ROWS * g, left = smaller(ROWS, e.outputs - o);
    const I16 total = load_ints(totals) - zero * load_ints(k.totals + 16 * g);
    F16 sum = fma(to_floats(total), load(k.scales + 16 * g) * step, load_first(e.bias + o, left));
    if (e.residual) sum = sum + load_first(e.residual + o, left);
    store_first(e.out + o, activated(sum, e.activation), left);
  }
}

int gemv_dot(const GemvDot& k, const Place& place, Share share) {
  const float* range = at(k.in, place);
  const Epilogue e = epilogue(k, place);
  const Range groups = part((e.outputs + 7) / 8, share);
  with_dots([&](auto dots) {
    if (k.bits == 8) gemv_dot_of<8>(k, range, e, groups, dots);
    else gemv_dot_of<4>(k, range, e, groups, dots);
  });
  return Status::OK;
}
