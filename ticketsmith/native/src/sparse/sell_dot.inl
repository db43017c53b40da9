// A sparse matrix in sliced ELLPACK times one vector, both of whole numbers: a slot has four weights of each of 16 rows, whose
// products with the inputs are summed by one instruction where there is one.
#pragma once
#include "dense/quantise.inl"
#include "sparse/sell.inl"

template <int WIDTH, int BITS, class Dots>
void sell_dot_of(const SellDot& k, const float* range, const Epilogue& e, Range slices, Dots) {
  constexpr int BYTES = 8 * BITS, FAR = 512 * BITS;
  const auto* x = reinterpret_cast<const uint8_t*>(range + 32);
  const F16 step = load(range);
  const I16 zero = load_ints(reinterpret_cast<const int32_t*>(range + 16));
  for (int64_t s = slices.begin; s < slices.end; s++) {
    const uint16_t* slots = k.slots + s * k.blocks;
    const auto* weight = static_cast<const uint8_t*>(k.values) + BYTES * k.first[s];
    const uint8_t* column = k.columns + 64 * k.first[s];
    I16 a = all_ints(0), b = a;
    const auto add = [&](I16& sum, const auto& block) {
      __builtin_prefetch(column + 4096);
      __builtin_prefetch(weight + FAR);
      const auto weights = [&] {
        if constexpr (BITS == 8) return Dots::weights(reinterpret_cast<const int8_t*>(weight));
        else return Dots::nibbles(weight);
      }();
      sum = Dots::add(sum, Dots::pick(block, column), weights);
      weight += BYTES, column += 64;
    };
    for (int64_t j = 0; j < k.blocks; j++) {
      const auto block = Dots::template block<WIDTH>(x + WIDTH * j);
      int64_t i = slots[j];
      for (; i >= 2; i -= 2) add(a, block), add(b, block);
      if (i) add(a, block);
    }
    const I16 total = a + b - zero * load_ints(k.totals + 16 * s);
    const F16 sum = fma(to_floats(total), load(k.scales + 16 * s) * step, load(e.bias + 16 * s));
    finish_slice(e, sum, k.order, s);
  }
}

int sell_dot(const SellDot& k, const Place& place, Share share) {
  const float* range = at(k.in, place);
  const Epilogue e = epilogue(k, place);
  const Range slices = part(k.slices, share);
  with_dots([&](auto dots) {
    if (k.width == 128) {
      if (k.bits == 8) sell_dot_of<128, 8>(k, range, e, slices, dots);
      else sell_dot_of<128, 4>(k, range, e, slices, dots);
    } else {
      if (k.bits == 8) sell_dot_of<256, 8>(k, range, e, slices, dots);
      else sell_dot_of<256, 4>(k, range, e, slices, dots);
    }
  });
  return Status::OK;
}
