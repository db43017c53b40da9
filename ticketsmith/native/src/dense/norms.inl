// Layer norm and softmax over the planes.
#pragma once
#include "simd/common.inl"

constexpr int NORM_VECTORS = 4;  // of columns at once, so that an adder need not wait for the sum before

struct NormTile {
  const Norm& k;
  const float* in;
  float* out;

  template <int T>
  void operator()() const {
    const int64_t n = k.in.planes, step = k.in.plane;
    const F16 each = all(1.0f / static_cast<float>(n));
    F16 mean[T], scale[T];
    EACH_VECTOR mean[t] = scale[t] = all(0.0f);
    if (!k.rms)
      for (int64_t p = 0; p < n; p++) EACH_VECTOR mean[t] = mean[t] + load(in + p * step + 16 * t);
    EACH_VECTOR mean[t] = mean[t] * each;
    for (int64_t p = 0; p < n; p++) EACH_VECTOR {
        const F16 x = load(in + p * step + 16 * t) - mean[t];
        scale[t] = fma(x, x, scale[t]);
      }
    EACH_VECTOR scale[t] = all(1.0f) / root(fma(scale[t], each, all(static_cast<float>(k.epsilon))));
    for (int64_t p = 0; p < n; p++) {
      const F16 factor = all(k.scale[p]), shift = all(k.shift[p]);
      EACH_VECTOR {
        const F16 x = (load(in + p * step + 16 * t) - mean[t]) * scale[t];
        store(out + p * k.out.plane + 16 * t, fma(x, factor, shift));
      }
    }
  }
};

int norm(const Norm& k, const Place& place, Share share) {
  const float* in = at(k.in, place);
  float* out = at(k.out, place);
  const int64_t n = k.in.planes;
  const float each = 1.0f / static_cast<float>(n), epsilon = static_cast<float>(k.epsilon);
  if (k.in.plane == 1) {
    if (share.index) return Status::OK;
    F16 total = all(0.0f), squares = all(0.0f);
    for (int64_t i = 0; i < n; i += 16) total = total + load_first(in + i, n - i);
    const float mean = k.rms ? 0.0f : sum(total) * each;
    for (int64_t i = 0; i < n; i += 16) {
      const int64_t left = n - i;
      F16 x = load_first(in + i, left) - all(mean);
      if (left < 16) x = keep(x, static_cast<uint16_t>((1 << left) - 1));
      squares = fma(x, x, squares);
    }
    const float scale = 1.0f / __builtin_sqrtf(sum(squares) * each + epsilon);
    for (int64_t i = 0; i < n; i += 16) {
      const int64_t left = n - i;
      const F16 x = (load_first(in + i, left) - all(mean)) * all(scale);
      store_first(out + i, fma(x, load_first(k.scale + i, left), load_first(k.shift + i, left)), left);
    }
    return Status::OK;
  }
  const Range columns = part(k.in.cols, share, 16);
  constexpr int64_t MOST = 16 * NORM_VECTORS;
  for (int64_t c = columns.begin; c < columns.end; c += MOST)
    with_constant<NORM_VECTORS>((smaller(MOST, columns.end - c) + 15) / 16, NormTile{k, in + c, out + c});
  return Status::OK;
}

int softmax(const Softmax& k, const Place& place, Share share) {
  const float* in = at(k.in, place);
  float* out = at(k.out, place);
  const int64_t n = k.in.planes;
  if (k.in.plane == 1) {
    if (share.index) return Status::OK;
    float most = in[0], total = 0.0f;
    for (int64_t i = 1; i < n; i++) most = in[i] > most ? in[i] : most;
    for (int64_t i = 0; i < n; i += 16) {
      const int64_t left = n - i;
      F16 e = exponential(load_first(in + i, left) - all(most));
      if (left < 16) e = keep(e, static_cast<uint16_t>((1 << left) - 1));
      store_first(out + i, e, left);
      total += sum(e);
    }
    const F16 each = all(1.0f / total);
    for (int64_t i = 0; i < n; i += 16) store_first(out + i, load_first(out + i, n - i) * each, n - i);
    return Status::OK;
  }
  const Range columns = part(k.in.cols, share, 16);
  for (int64_t c = columns.begin; c < columns.end; c += 16) {
    F16 most = load(in + c), total = all(0.0f);
    for (int64_t p = 1; p < n; p++) most = maximum(most, load(in + p * k.in.plane + c));
    for (int64_t p = 0; p < n; p++) {
      const F16 e = exponential(load(in + p * k.in.plane + c) - most);
      store(out + p * k.out.plane + c, e);
      total = total + e;
    }
    const F16 each = all(1.0f) / total;
    for (int64_t p = 0; p < n; p++) store(out + p * k.out.plane + c, load(out + p * k.out.plane + c) * each);
  }
  return Status::OK;
}
