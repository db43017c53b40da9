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
    const F16 each = inputs - i >= 16 ? load(x + i) : load_first(x + i, inputs - i);
    low = minimum(low, each), high = maximum(high, each), bad = fma(each, all(0.0f), bad);
  }
  const float most = largest(high), least = largest(all(0.0f) - low), nan = sum(bad);
  const Steps s = steps(all(-least), all(most), all(nan));
  store_steps(out, s);
  auto* bytes = reinterpret_cast<uint8_t*>(out + 32);
  const int64_t vectors = k.out.planes / 4 - 8;  // in all, without the range
  int64_t i = 0;
  for (; i < inputs / 16; i++) store_bytes(bytes + 16 * i, quantised(load(x + 16 * i), s));
  if (inputs % 16) store_bytes(bytes + 16 * i, quantised(load_first(x + 16 * i, inputs % 16), s)), i++;
  for (; i < vectors; i++) store_bytes(bytes + 16 * i, all(0.0f));
  return Status::OK;
}

// Of vector `first` of each plane's memory, and of every `period`-th.
inline Steps plane_steps(const QuantisePlanes& k, const float* memory, int64_t first) {
  F16 low = all(0.0f), high = low, bad = low;
  for (int64_t p = 0; p < k.in.planes; p++)
    for (int64_t i = first; i < k.in.plane / 16; i += k.period) {
      if (!k.mask[i]) continue;
      const F16 each = keep(load(memory + p * k.in.plane + 16 * i), k.mask[i]);
      low = minimum(low, each), high = maximum(high, each), bad = fma(each, all(0.0f), bad);
    }
  if (k.alike) {
    const float most = largest(high), least = largest(all(0.0f) - low), nan = sum(bad);
    low = all(-least), high = all(most), bad = all(nan);
  }
  return steps(low, high, bad);
}

// Four planes to one of four bytes: what lies around the images, zeros, is done alike.
int quantise_planes(const QuantisePlanes& k, const Place& place, Share share) {
  const float* memory = at(k.in, place) - k.before;
  float *out = at(k.out, place) - k.before, *range = at(k.range, place);
  const Range fours = part(k.out.planes, share);
  const int64_t before = k.before / 16, all_vectors = k.in.plane / 16;
  for (int64_t v = 0; v < k.period; v++) {
    const int64_t first = (v + before) % k.period;
    const Steps s = plane_steps(k, memory, first);
    if (!share.index) store_steps(range + 32 * v, s);
    for (int64_t q = fours.begin; q < fours.end; q++) {
      const float* from = memory + 4 * q * k.in.plane;
      float* to = out + q * k.out.plane;
      const int64_t planes = smaller(4, k.in.planes - 4 * q);
      for (int64_t i = first; i < all_vectors; i += k.period) {
        F16 each[4];
        for (int c = 0; c < 4; c++) each[c] = c < planes ? quantised(load(from + c * k.in.plane + 16 * i), s) : all(0.0f);
        const I16 low = to_ints(fma(each[1], all(256.0f), each[0])), high = to_ints(fma(each[3], all(256.0f), each[2]));
        store_ints(reinterpret_cast<int32_t*>(to + 16 * i), low + high * all_ints(65536));
      }
    }
  }
  return Status::OK;
}
