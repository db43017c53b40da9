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
// As they were known before: inputs may then lie beyond them.
template <class Operation>
inline Steps known_steps(const Operation& k, float step = 0.0f) {
  return {all(step), all(static_cast<float>(k.inverse)), all(static_cast<float>(k.zero))};
}
// In steps. What is too large for whole numbers is cut off as what lies beyond 255 is; NaN stays, and becomes 0.
inline F16 in_steps(const float* x, const Steps& s) { return minimum(all(255.0f), load(x) * s.inverse); }
// A vector of what one step is worth, and of the bytes that stand for 0.
inline void store_steps(float* step, float* zero, const Steps& s) {
  store(step, s.step);
  float each[16];
  store(each, s.zero);
  auto* whole = reinterpret_cast<int32_t*>(zero);
  for (int i = 0; i < 16; i++) whole[i] = each[i] > 0.0f ? static_cast<int32_t>(each[i]) : 0;
}

// Of some vectors; in four parts, since each waits for the last.
struct Extremes {
  F16 low[4], high[4], bad[4];
  Extremes() {
    for (int i = 0; i < 4; i++) low[i] = high[i] = bad[i] = all(0.0f);
  }
  inline void add(int i, F16 x) {
    low[i] = minimum(low[i], x), high[i] = maximum(high[i], x), bad[i] = fma(x, all(0.0f), bad[i]);
  }
  // The steps of each lane, or of all together.
  inline Steps steps_of(bool alike) const {
    const F16 least = minimum(minimum(low[0], low[1]), minimum(low[2], low[3]));
    const F16 most = maximum(maximum(high[0], high[1]), maximum(high[2], high[3]));
    const F16 nan = (bad[0] + bad[1]) + (bad[2] + bad[3]);
    if (!alike) return steps(least, most, nan);
    return steps(all(-largest(all(0.0f) - least)), all(largest(most)), all(sum(nan)));
  }
};

// By 64, with whatever behind the last.
inline void pack_vector(const float* x, uint8_t* bytes, int64_t inputs, const Steps& s) {
  int64_t i = 0;
  F16 each[4];
  for (; i + 64 <= inputs; i += 64) {
#pragma GCC unroll 4
    for (int part = 0; part < 4; part++) each[part] = in_steps(x + i + 16 * part, s);
    store_bytes(bytes + i, each, s.zero);
  }
  if (i == inputs) return;
  for (int64_t part = 0; part < 4; part++) {
    const int64_t left = inputs - i - 16 * part;
    each[part] = left > 0 ? minimum(all(255.0f), load_first(x + i + 16 * part, left) * s.inverse) : all(0.0f);
  }
  store_bytes(bytes + i, each, s.zero);
}

int quantise_vector(const QuantiseVector& k, const Place& place, Share share) {
  if (share.index) return Status::OK;
  const float* x = at(k.in, place);
  float* out = at(k.out, place) + k.sample * place.sample;
  const int64_t inputs = k.in.planes;
  Extremes extremes;
  int64_t i = 0;
  for (; i + 64 <= inputs && !k.known; i += 64)
#pragma GCC unroll 4
    for (int part = 0; part < 4; part++) extremes.add(part, load(x + i + 16 * part));
  for (; i < inputs && !k.known; i += 16)
    extremes.add(0, inputs - i >= 16 ? load(x + i) : load_first(x + i, inputs - i));
  const Steps s = k.known ? known_steps(k, static_cast<float>(k.step)) : extremes.steps_of(true);
  store_steps(out, out + 16, s);
  auto* bytes = reinterpret_cast<uint8_t*>(out + 32);
  pack_vector(x, bytes, inputs, s);
  for (i = (inputs + 63) / 64 * 16; i < k.out.planes - 32; i += 16) store(out + 32 + i, all(0.0f));
  return Status::OK;
}

constexpr int ROUNDED_VECTORS = ACCUMULATORS >= 16 ? 8 : 1;

// T vectors of each plane's memory, from `first` on, each with a range of its own.
struct RoundedTile {
  const QuantisePlanes& k;
  const float* memory;
  uint8_t* out;
  float* range;  // null where another thread writes it
  int64_t first;
  Range fours;

  template <int T>
  void operator()() const {
    F16 low[T], high[T], bad[T], inverse[T], zero[T];
    EACH_VECTOR low[t] = high[t] = bad[t] = all(0.0f);
    for (int64_t p = 0; p < k.in.planes; p++) {
      const float* from = memory + p * k.in.plane + 16 * first;
      EACH_VECTOR {
        const F16 x = keep(load(from + 16 * t), k.mask[first + t]);
        low[t] = minimum(low[t], x), high[t] = maximum(high[t], x), bad[t] = fma(x, all(0.0f), bad[t]);
      }
    }
    EACH_VECTOR {
      const Steps s = steps(low[t], high[t], bad[t]);
      const int64_t v = (first + t + k.period - k.before / 16 % k.period) % k.period;
      if (range) store_steps(range + 16 * v, range + 16 * (k.period + v), s);
      inverse[t] = s.inverse, zero[t] = s.zero;
    }
    for (int64_t q = fours.begin; q < fours.end; q++)
      EACH_VECTOR pack(4 * q, first + t, inverse[t], zero[t]);
  }

  // Four planes to one of four bytes, or to four of bytes, in vector i of their memory: what lies around the images, zeros, is
  // done alike.
  inline void pack(int64_t plane, int64_t i, F16 inverse, F16 zero) const {
    const float* from = memory + plane * k.in.plane + 16 * i;
    const int64_t planes = smaller(4, k.in.planes - plane);
    F16 each[4];
#pragma GCC unroll 4
    for (int c = 0; c < 4; c++) each[c] = c < planes ? load(from + c * k.in.plane) * inverse : all(0.0f);
    if (k.apart) store_apart(out + 4 * plane * k.out.plane + 16 * i, 4 * k.out.plane, planes, each, zero);
    else store_fours(out + plane * k.out.plane + 64 * i, each, zero);
  }
};

// Of vector `first` of each plane's memory, and of every `period`-th.
inline Steps plane_steps(const QuantisePlanes& k, const float* memory, int64_t first) {
  Extremes extremes;
  for (int64_t p = 0; p < k.in.planes; p += 4) {
    const int64_t planes = smaller(4, k.in.planes - p);
    const float* from = memory + p * k.in.plane;
    for (int64_t i = first; i < k.in.plane / 16; i += k.period) {
      if (k.mask[i] == 0xffff && planes == 4) {
#pragma GCC unroll 4
        for (int c = 0; c < 4; c++) extremes.add(c, load(from + c * k.in.plane + 16 * i));
      } else if (k.mask[i]) {
        for (int c = 0; c < planes; c++) extremes.add(c, keep(load(from + c * k.in.plane + 16 * i), k.mask[i]));
      }
    }
  }
  return extremes.steps_of(k.alike);
}

// Less what the zeros of the inputs add to sums of T vectors whose weights are `total`.
template <int T>
inline __attribute__((always_inline)) void begin_sums(I16* sums, const float* range, int64_t period, int64_t vector, int32_t total) {
  const auto* zeros = reinterpret_cast<const int32_t*>(range + 16 * period);
  const auto begin = [&](int64_t place) { return all_ints(0) - load_ints(zeros + 16 * place) * all_ints(total); };
  if (period == 1) {
    const I16 one = begin(0);
    EACH_VECTOR sums[t] = one;
  } else {
    EACH_VECTOR sums[t] = begin((vector + t) % period);
  }
}
// Sums of T vectors, the first of which is number `vector` of a plane, as what they stand for; `range` has a step for each of
// `period` vectors.
template <int T>
inline __attribute__((always_inline)) void scale_sums(const I16* sums, F16* values, F16 scale, F16 bias, const float* range,
                                                      int64_t period, int64_t vector) {
  if (period == 1) {
    const F16 step = scale * load(range);
    EACH_VECTOR values[t] = fma(to_floats(sums[t]), step, bias);
  } else {
    EACH_VECTOR values[t] = fma(to_floats(sums[t]), scale * load(range + 16 * ((vector + t) % period)), bias);
  }
}

// Vectors of four planes, each `plane` floats behind the last, to one plane of four bytes, or to four of bytes that are as many
// bytes apart; of every `period`-th from `vectors.begin` on.
struct Packing {
  int64_t plane, apart, period;
  Steps steps;
};
template <bool KNOWN>
inline void pack_planes(const Packing& k, const float* from, uint8_t* to, int64_t planes, Range vectors) {
  const auto at = [&](const float* x) { return KNOWN ? in_steps(x, k.steps) : load(x) * k.steps.inverse; };
  if (k.apart && k.period == 1) {  // plane by plane, four vectors of each at once
    for (int64_t c = 0; c < planes; c++, from += k.plane, to += k.plane)
      for (int64_t i = vectors.begin; i < vectors.end; i += 4) {
        const int64_t count = smaller(4, vectors.end - i);
        F16 each[4];
#pragma GCC unroll 4
        for (int v = 0; v < 4; v++) each[v] = v < count ? at(from + 16 * (i + v)) : all(0.0f);
        if (count == 4) store_bytes(to + 16 * i, each, k.steps.zero);
        else store_apart(to + 16 * i, 16, count, each, k.steps.zero);
      }
    return;
  }
  for (int64_t i = vectors.begin; i < vectors.end; i += k.period) {
    const auto one = [&](int c) { return at(from + c * k.plane + 16 * i); };
    F16 each[4];
#pragma GCC unroll 4
    for (int c = 0; c < 4; c++) each[c] = c < planes ? one(c) : all(0.0f);
    if (k.apart) store_apart(to + 16 * i, k.plane, planes, each, k.steps.zero);
    else store_fours(to + 64 * i, each, k.steps.zero);
  }
}

// What lies around the images, zeros, is done alike.
int quantise_planes(const QuantisePlanes& k, const Place& place, Share share) {
  const float* memory = at(k.in, place) - k.before;
  auto* out = reinterpret_cast<uint8_t*>(at(k.out, place)) - (k.apart ? 1 : 4) * k.before;
  float* range = at(k.range, place);
  const Range fours = part((k.in.planes + 3) / 4, share);
  const int64_t before = k.before / 16, vectors = k.in.plane / 16;
  RoundedTile tile{k, memory, out, share.index ? nullptr : range, 0, fours};
  if (k.period == vectors && !k.alike && !k.known) {
    for (; tile.first < vectors; tile.first += ROUNDED_VECTORS)
      with_constant<ROUNDED_VECTORS>(smaller(ROUNDED_VECTORS, vectors - tile.first), tile);
    return Status::OK;
  }
  for (int64_t v = 0; v < k.period; v++) {
    const int64_t first = (v + before) % k.period;
    const Packing packing{k.in.plane, k.apart, k.period, k.known ? known_steps(k) : plane_steps(k, memory, first)};
    if (!share.index && !k.known) store_steps(range + 16 * v, range + 16 * (k.period + v), packing.steps);
    for (int64_t q = fours.begin; q < fours.end; q++) {
      const float* from = memory + 4 * q * k.in.plane;
      uint8_t* to = out + 4 * q * k.in.plane;
      const int64_t planes = smaller(4, k.in.planes - 4 * q);
      if (k.known) pack_planes<true>(packing, from, to, planes, {first, vectors});
      else pack_planes<false>(packing, from, to, planes, {first, vectors});
    }
  }
  return Status::OK;
}

// The same of planes that a product has just written, `outputs` of them, `vectors` from `begin` on, while they are in the first
// cache. Zeros around images stay: they are zeros in bytes, too.
template <class Product>
__attribute__((noinline)) void round_tile(const Product& k, const Place& place, Range outputs, int64_t begin, int64_t vectors) {
  const Packing packing{k.out.plane, k.apart, 1, known_steps(k)};
  const float* from = at(k.out, place) + begin;
  auto* to = reinterpret_cast<uint8_t*>(at(k.bytes, place)) + (k.apart ? 1 : 4) * begin;
  for (int64_t o = outputs.begin; o < outputs.end; o += 4)
    pack_planes<true>(packing, from + o * k.out.plane, to + o * k.out.plane, smaller(4, outputs.end - o), {0, vectors});
}
// Outputs of a share: whole fours where they are rounded together.
template <class Product>
inline Range output_part(const Product& k, Share share) {
  return part(k.out.planes, share, k.rounds ? 4 : 1);
}
