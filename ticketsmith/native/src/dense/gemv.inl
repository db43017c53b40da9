// A dense matrix times one vector.
#pragma once
#include "simd/common.inl"

// `FETCH`: the weights come from memory, and are asked for before.
template <bool FETCH, class Weight>
void gemv_of(const Weight* weights, const float* x, int64_t inputs, const Epilogue& e, Share share) {
  constexpr int GROUP = 8, AT_ONCE = ACCUMULATORS >= 12 ? GROUP : 4;
  constexpr int FAR = 8192 / sizeof(Weight), LINE = 64 / sizeof(Weight);
  const int64_t blocks = (inputs + 15) / 16;
  const Range outputs = part(e.outputs, share, AT_ONCE);
  for (int64_t o = outputs.begin; o < outputs.end; o += AT_ONCE) {
    const Weight* weight = weights + (o / GROUP * blocks * GROUP + o % GROUP) * 16;
    F16 sums[AT_ONCE];
    for (int h = 0; h < AT_ONCE; h++) sums[h] = all(0.0f);
    for (int64_t j = 0; j < blocks; j++, weight += 16 * GROUP) {
      const F16 block = j < blocks - 1 ? load(x + 16 * j) : load_first(x + 16 * j, inputs - 16 * j);
      if (FETCH)
        for (int ahead = FAR; ahead < FAR + 16 * AT_ONCE; ahead += LINE) __builtin_prefetch(weight + ahead);
#pragma GCC unroll 8
      for (int h = 0; h < AT_ONCE; h++) sums[h] = fma(widen(weight + 16 * h), block, sums[h]);
    }
    float totals[16] = {};
    for (int h = 0; h < AT_ONCE; h++) totals[h] = e.bias[o + h] + sum(sums[h]) * (e.scales ? e.scales[o + h] : 1.0f);
    const int64_t left = smaller(AT_ONCE, e.outputs - o);
    F16 total = load(totals);
    if (e.residual) total = total + load_first(e.residual + o, left);
    store_first(e.out + o, activated(total, e.activation), left);
  }
}

int gemv(const Gemv& k, const Place& place, Share share) {
  constexpr int64_t IN_CACHE = 1 << 20;
  const float* x = at(k.in, place);
  const Epilogue e = epilogue(k, place);
  with_weights(k.weights, k.dtype, [&](const auto* weights) {
    if (k.inputs * e.outputs * static_cast<int64_t>(sizeof *weights) > IN_CACHE)
      gemv_of<true>(weights, x, k.inputs, e, share);
    else
      gemv_of<false>(weights, x, k.inputs, e, share);
  });
  return Status::OK;
}
