// A sparse matrix in sliced ELLPACK times one vector. Indices are apart from values, which may be of 32, 16 or 8 bits.
#pragma once
#include "simd/common.inl"

// Residual and activation of 16 outputs that lie anywhere.
inline void scatter(const Epilogue& e, F16 sum, const int32_t* order) {
  float values[16] = {};
  if (e.residual) {
    for (int i = 0; i < 16; i++)
      if (order[i] < e.outputs) values[i] = e.residual[order[i]];
    sum = sum + load(values);
  }
  store(values, activated(sum, e.activation));
  for (int i = 0; i < 16; i++)
    if (order[i] < e.outputs) e.out[order[i]] = values[i];
}

// The end of slice s: its sums to outputs.
inline void finish_slice(const Epilogue& e, F16 sum, const int32_t* order, int64_t s) {
  if (order) {
    scatter(e, sum, order + 16 * s);
    return;
  }
  const int64_t left = e.outputs - 16 * s;
  if (e.residual) sum = sum + load_first(e.residual + 16 * s, left);
  store_first(e.out + 16 * s, activated(sum, e.activation), left);
}

struct SellIndices {
  const int64_t* first;
  const uint16_t* slots;
  const uint8_t* columns;
  const int32_t* order;
  int64_t blocks;
};

template <int WIDTH, class Weight>
void sell_of(const SellIndices& indices, const Weight* values, const float* x, int64_t inputs, const Epilogue& e, Range slices) {
  const int64_t whole = indices.blocks - 1;
  const Tail<WIDTH> tail(x, WIDTH * whole, inputs);
  for (int64_t s = slices.begin; s < slices.end; s++) {
    const F16 bias = load(e.bias + 16 * s), zero = all(0.0f);
    F16 a = e.scales ? zero : bias, b = zero, c = zero, d = zero;
    const uint16_t* slots = indices.slots + s * indices.blocks;
    const Weight* weight = values + 16 * indices.first[s];
    const uint8_t* column = indices.columns + 16 * indices.first[s];
    for (int64_t j = 0; j < indices.blocks; j++) {
      const float* from = j < whole ? x + WIDTH * j : tail.x;
      const auto block_of = [&] {
        if constexpr (WIDTH == 64) return block(from);
        else return wide_block(from);
      }();
      int64_t i = slots[j];
      for (; i >= 4; i -= 4, weight += 64, column += 64) {
        if (WIDTH == 128) {  // memory is what is waited for: ask for it before, also beyond the end of a page
          constexpr int LINE = 64 / sizeof(Weight);
          for (int ahead = AHEAD; ahead < AHEAD + 64; ahead += LINE) __builtin_prefetch(weight + ahead);
          __builtin_prefetch(column + AHEAD);
        }
        a = fma(pick(block_of, column), widen(weight), a);
        b = fma(pick(block_of, column + 16), widen(weight + 16), b);
        c = fma(pick(block_of, column + 32), widen(weight + 32), c);
        d = fma(pick(block_of, column + 48), widen(weight + 48), d);
      }
      if (i & 2) {
        a = fma(pick(block_of, column), widen(weight), a);
        b = fma(pick(block_of, column + 16), widen(weight + 16), b);
        weight += 32, column += 32;
      }
      if (i & 1) {
        c = fma(pick(block_of, column), widen(weight), c);
        weight += 16, column += 16;
      }
    }
    F16 sum = (a + b) + (c + d);
    if (e.scales) sum = fma(sum, load(e.scales + 16 * s), bias);
    finish_slice(e, sum, indices.order, s);
  }
}

int sell(const Sell& k, const Place& place, Share share) {
  const SellIndices indices{k.first, k.slots, k.columns, k.order, k.blocks};
  const float* x = at(k.in, place);
  const Epilogue e = epilogue(k, place);
  const Range slices = part(k.slices, share);
  with_weights(k.values, k.dtype, [&](const auto* values) {
    if (k.width == 64)
      sell_of<64>(indices, values, x, k.in.planes, e, slices);
    else
      sell_of<128>(indices, values, x, k.in.planes, e, slices);
  });
  return Status::OK;
}
