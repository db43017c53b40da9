// Softmax and norms over axes of arrays.
#pragma once
#include "dense/arrays.inl"

// Over the last three axes, for each place of the first three: softmax, or a norm with scale and shift.
int normalise(const Normalise& k, const Place& place, Share share) {
  const Range range = part(k.size[0] * k.size[1] * k.size[2], share);
  const int64_t cols = k.size[5], in_step = k.in.stride[5], out_step = k.out.stride[5];
  const float count = static_cast<float>(k.size[3] * k.size[4] * cols);
  Walk<3, 4> walk{k.size, {k.in.stride, k.out.stride, k.scale.stride, k.shift.stride}, {}, {}};
  walk.begin(range.begin);
  const auto each = [&](auto&& body) {
    for (int64_t a = 0; a < k.size[3]; a++)
      for (int64_t b = 0; b < k.size[4]; b++)
        for (int64_t c = 0; c < cols; c += 16) body(a, b, c, smaller(16, cols - c));
  };
  const auto place_of = [](const Array& array, int64_t a, int64_t b, int64_t c) {
    return a * array.stride[3] + b * array.stride[4] + c * array.stride[5];
  };
  const auto mask = [](int64_t n) { return static_cast<uint16_t>((1u << n) - 1); };
  for (int64_t i = range.begin; i < range.end; i++, walk.next()) {
    const float* in = at(k.in, place) + walk.offset[0];
    float* out = at(k.out, place) + walk.offset[1];
    const auto read = [&](int64_t a, int64_t b, int64_t c, int64_t n) {
      return gather(in + place_of(k.in, a, b, c), in_step, n);
    };
    F16 total = all(0.0f);
    if (k.kind == NormFunction::SOFTMAX) {
      float most = -__builtin_inff();
      each([&](int64_t a, int64_t b, int64_t c, int64_t n) {
        const float x = largest(keep(read(a, b, c, n), mask(n)) - keep(all(1e38f), static_cast<uint16_t>(~mask(n))));
        most = x > most ? x : most;
      });
      each([&](int64_t a, int64_t b, int64_t c, int64_t n) {
        const F16 e = keep(exponential(read(a, b, c, n) - all(most)), mask(n));
        scatter(out + place_of(k.out, a, b, c), out_step, e, n);
        total = total + e;
      });
      const F16 scale = all(1.0f / sum(total));
      each([&](int64_t a, int64_t b, int64_t c, int64_t n) {
        float* to = out + place_of(k.out, a, b, c);
        scatter(to, out_step, gather(to, out_step, n) * scale, n);
      });
      continue;
    }
    float mean = 0.0f;
    if (k.kind == NormFunction::LAYER_NORM) {
      each([&](int64_t a, int64_t b, int64_t c, int64_t n) { total = total + keep(read(a, b, c, n), mask(n)); });
      mean = sum(total) / count;
    }
    F16 squares = all(0.0f);
    each([&](int64_t a, int64_t b, int64_t c, int64_t n) {
      const F16 x = keep(read(a, b, c, n) - all(mean), mask(n));
      squares = fma(x, x, squares);
    });
    const F16 deviation = all(1.0f / __builtin_sqrtf(sum(squares) / count + static_cast<float>(k.epsilon)));
    each([&](int64_t a, int64_t b, int64_t c, int64_t n) {
      const F16 x = (read(a, b, c, n) - all(mean)) * deviation;
      const float* scale = at(k.scale, place) + walk.offset[2] + place_of(k.scale, a, b, c);
      const float* shift = at(k.shift, place) + walk.offset[3] + place_of(k.shift, a, b, c);
      scatter(out + place_of(k.out, a, b, c), out_step,
              fma(x, gather(scale, k.scale.stride[5], n), gather(shift, k.shift.stride[5], n)), n);
    });
  }
  return Status::OK;
}
