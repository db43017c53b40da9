// Elementwise operations on planes.
#pragma once
#include "simd/common.inl"

int binary(const Binary& k, const Place& place, Share share) {
  const Range planes = part(k.out.planes, share);
  for (int64_t p = planes.begin; p < planes.end; p++) {
    const float *left = at(k.left, place) + p * k.left.plane, *right = at(k.right, place) + p * k.right.plane;
    float* out = at(k.out, place) + p * k.out.plane;
    for (int64_t v = 0; v < k.vectors; v++) {
      const F16 a = load(left + 16 * v), b = load(right + 16 * v);
      const F16 c = k.binary == BinaryFunction::ADD ? a + b : k.binary == BinaryFunction::SUB ? a - b : a * b;
      const F16 result = activated(c, k.activation);
      store(out + 16 * v, k.mask ? keep(result, k.mask[v]) : result);
    }
  }
  return Status::OK;
}

int affine(const Affine& k, const Place& place, Share share) {
  const Range planes = part(k.out.planes, share);
  for (int64_t p = planes.begin; p < planes.end; p++) {
    const float* in = at(k.in, place) + p * k.in.plane;
    float* out = at(k.out, place) + p * k.out.plane;
    const F16 scale = all(k.scale ? k.scale[p] : 1.0f), shift = all(k.shift ? k.shift[p] : 0.0f);
    for (int64_t v = 0; v < k.vectors; v++) {
      const F16 result = activated(fma(load(in + 16 * v), scale, shift), k.activation);
      store(out + 16 * v, k.mask ? keep(result, k.mask[v]) : result);
    }
  }
  return Status::OK;
}
