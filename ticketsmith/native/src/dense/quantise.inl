// Activations as whole numbers of 8 bits: x is about step * (byte - zero), 0 exactly so. Where there are no negative ones, zero
// is 0.
#pragma once
#include "simd/common.inl"

struct Steps {
  F16 step, inverse, zero;
};
// Of what lies between `low` <= 0 and `high` >= 0. `bad` is zero, or NaN where some input was not finite: all outputs are NaN then.
inline Steps steps(F16 low, F16 high, F16 bad) {
  const F16 tiny = all(1e-30f), most = all(255.0f);
  const F16 step = maximum((high - low) / most, tiny) + bad, inverse = all(1.0f) / step;
  return {step, inverse, minimum(most, maximum(all(0.0f), rounded((all(0.0f) - low) * inverse)))};
}
inline F16 quantised(F16 x, const Steps& s) {
  return minimum(all(255.0f), maximum(all(0.0f), rounded(x * s.inverse) + s.zero));
}
inline void store_steps(float* range, const Steps& s) {
  store(range, s.step);
  float zero[16];
  store(zero, s.zero);
  auto* whole = reinterpret_cast<int32_t*>(range + 16);
  for (int i = 0; i < 16; i++) whole[i] = zero[i] > 0.0f ? static_cast<int32_t>(zero[i]) : 0;
}

int quantise_vector(const QuantiseVector& k, const Place& place, Share share) {
  if (share.index) return Status::OK;
  const float* x = at(k.in, place);
  float* out = at(k.out, place);
  const int64_t inputs = k.in.planes;
  F16 low = all(0.0f), high = low, bad = low;
  for (int64_t i = 0; i < inputs; i += 16) {
    const F16 each = load_first(x + i, inputs - i);
    low = minimum(low, each), high = maximum(high, each), bad = fma(each, all(0.0f), bad);
  }
  const float most = largest(high), least = largest(all(0.0f) - low), nan = sum(bad);
  const Steps s = steps(all(-least), all(most), all(nan));
  store_steps(out, s);
  auto* bytes = reinterpret_cast<uint8_t*>(out + 32);
  const int64_t vectors = k.out.planes / 4 - 8;  // in all, without the range
  for (int64_t i = 0; i < vectors; i++) {
    if (16 * i < inputs) store_bytes(bytes + 16 * i, quantised(load_first(x + 16 * i, inputs - 16 * i), s));
    else store_bytes(bytes + 16 * i, all(0.0f));
  }
  return Status::OK;
}
