// Arrays of up to six axes with any strides: what networks do between products. Nothing here knows planes or padding.
#pragma once
#include "simd/common.inl"

inline float* at(const Array& array, const Place& place) {
  return place.space[array.space] + array.base + array.step * place.position;
}

// Sixteen floats that lie `stride` apart, of which `n` are there.
inline F16 gather(const float* p, int64_t stride, int64_t n) {
  if (stride == 1) return n >= 16 ? load(p) : load_first(p, n);
  if (stride == 0) return all(*p);
  float buffer[16] = {};
  for (int64_t i = 0; i < 16 && i < n; i++) buffer[i] = p[i * stride];
  return load(buffer);
}
inline void scatter(float* p, int64_t stride, F16 a, int64_t n) {
  if (stride == 1) {
    n >= 16 ? store(p, a) : store_first(p, a, n);
    return;
  }
  float buffer[16];
  store(buffer, a);
  for (int64_t i = 0; i < 16 && i < n; i++) p[i * stride] = buffer[i];
}
inline F16 whole_numbers(const float* base, int64_t offset, int64_t stride, int64_t n) {
  const auto* p = reinterpret_cast<const int64_t*>(base) + offset;
  float buffer[16] = {};
  for (int64_t i = 0; i < 16 && i < n; i++) buffer[i] = static_cast<float>(p[i * stride]);
  return load(buffer);
}

// Walks over the first AXES axes in row-major order, from place `index` on; `offset` follows for each array.
template <int AXES, int ARRAYS>
struct Walk {
  const int64_t* size;
  const int64_t* stride[ARRAYS];
  int64_t counter[AXES], offset[ARRAYS];

  void begin(int64_t index) {
    for (int a = 0; a < ARRAYS; a++) offset[a] = 0;
    for (int axis = AXES - 1; axis >= 0; axis--) {
      counter[axis] = index % size[axis];
      index /= size[axis];
      for (int a = 0; a < ARRAYS; a++) offset[a] += counter[axis] * stride[a][axis];
    }
  }
  void next() {
    for (int axis = AXES - 1; axis >= 0; axis--) {
      for (int a = 0; a < ARRAYS; a++) offset[a] += stride[a][axis];
      if (++counter[axis] < size[axis]) return;
      for (int a = 0; a < ARRAYS; a++) offset[a] -= stride[a][axis] * size[axis];
      counter[axis] = 0;
    }
  }
};

inline float compared(int64_t function, float a, float b, float c) {
  switch (function) {
    case MapFunction::POWER: return __builtin_powf(a, b);
    case MapFunction::EQUAL: return a == b ? 1.0f : 0.0f;
    case MapFunction::LESS: return a < b ? 1.0f : 0.0f;
    case MapFunction::LESS_EQUAL: return a <= b ? 1.0f : 0.0f;
    default: return a != 0.0f ? b : c;
  }
}
inline F16 mapped(int64_t function, F16 a, F16 b, F16 c) {
  switch (function) {
    case MapFunction::COPY: return a;
    case MapFunction::ADD: return a + b;
    case MapFunction::SUB: return a - b;
    case MapFunction::MUL: return a * b;
    case MapFunction::DIV: return a / b;
    case MapFunction::MAXIMUM: return maximum(b, a);  // in this order NaN of the first stays NaN
    case MapFunction::MINIMUM: return minimum(b, a);
    case MapFunction::FMA: return fma(a, b, c);
    default: break;
  }
  float x[16], y[16], z[16];
  store(x, a), store(y, b), store(z, c);
  for (int i = 0; i < 16; i++) x[i] = compared(function, x[i], y[i], z[i]);
  return load(x);
}

int map(const Map& k, const Place& place, Share share) {
  int64_t total = 1;
  for (int axis = 0; axis < 5; axis++) total *= k.size[axis];
  const Range range = part(total, share);
  const float* in[3];
  for (int a = 0; a < 3; a++) in[a] = a < k.inputs ? at(k.in[a], place) : nullptr;
  float* out = at(k.out, place);
  Walk<5, 4> walk{k.size, {k.in[0].stride, k.in[1].stride, k.in[2].stride, k.out.stride}, {}, {}};
  walk.begin(range.begin);
  const int64_t cols = k.size[5], out_stride = k.out.stride[5];
  for (int64_t i = range.begin; i < range.end; i++, walk.next()) {
    float* to = out + walk.offset[3];
    if (k.function == MapFunction::COPY && k.activation == Activation::LINEAR && !k.in[0].integer) {
      const float* from = in[0] + walk.offset[0];
      const int64_t step = k.in[0].stride[5];
      int64_t c = 0;
      if (step == 1 && out_stride == 1)
        for (; c + 16 <= cols; c += 16) store(to + c, load(from + c));
      for (; c < cols; c++) to[c * out_stride] = from[c * step];
      continue;
    }
    for (int64_t c = 0; c < cols; c += 16) {
      const int64_t n = cols - c;
      F16 x[3] = {all(0.0f), all(0.0f), all(0.0f)};
      for (int a = 0; a < k.inputs; a++) {
        const int64_t stride = k.in[a].stride[5];
        x[a] = k.in[a].integer ? whole_numbers(place.space[k.in[a].space], k.in[a].base + walk.offset[a] + c * stride, stride, n)
                               : gather(in[a] + walk.offset[a] + c * stride, stride, n);
      }
      scatter(to + c * out_stride, out_stride, activated(mapped(k.function, x[0], x[1], x[2]), k.activation), n);
    }
  }
  return Status::OK;
}

// A sum or the largest over three axes, for each place of three others.
inline float reduced(const Reduce& k, const float* in) {
  const bool most = k.function == ReduceFunction::MAX;
  const F16 none = all(most ? -__builtin_inff() : 0.0f);
  F16 many = none;
  float one = most ? -__builtin_inff() : 0.0f;
  const int64_t cols = k.over[2], stride = k.over_stride[2];
  for (int64_t a = 0; a < k.over[0]; a++)
    for (int64_t b = 0; b < k.over[1]; b++) {
      const float* row = in + a * k.over_stride[0] + b * k.over_stride[1];
      int64_t c = 0;
      if (stride == 1)
        for (; c + 16 <= cols; c += 16) many = most ? maximum(many, load(row + c)) : many + load(row + c);
      for (; c < cols; c++) {
        const float x = row[c * stride];
        one = most ? (x > one ? x : one) : one + x;
      }
    }
  if (most) {
    const float other = largest(many);
    return other > one ? other : one;
  }
  return (sum(many) + one) * static_cast<float>(k.scale);
}

int reduce(const Reduce& k, const Place& place, Share share) {
  const Range range = part(k.size[0] * k.size[1] * k.size[2], share);
  const float* in = at(k.in, place);
  float* out = at(k.out, place);
  Walk<3, 2> walk{k.size, {k.in.stride, k.out.stride}, {}, {}};
  walk.begin(range.begin);
  for (int64_t i = range.begin; i < range.end; i++, walk.next()) out[walk.offset[1]] = reduced(k, in + walk.offset[0]);
  return Status::OK;
}

// Axes: three of batches, rows, columns, inner.
int matmul(const Matmul& k, const Place& place, Share share) {
  const float *left = at(k.left, place), *right = at(k.right, place);
  float* out = at(k.out, place);
  const int64_t rows = k.size[3], cols = k.size[4], inner = k.size[5];
  const int64_t row_step = k.left.stride[3], left_step = k.left.stride[5];
  const int64_t col_step = k.right.stride[4], right_step = k.right.stride[5];
  const Range range = part(k.size[0] * k.size[1] * k.size[2] * ((rows + 3) / 4), share);
  Walk<3, 3> walk{k.size, {k.left.stride, k.right.stride, k.out.stride}, {}, {}};
  for (int64_t i = range.begin; i < range.end; i++) {
    const int64_t r = i % ((rows + 3) / 4) * 4, high = smaller(4, rows - r);
    walk.begin(i / ((rows + 3) / 4));
    const float* a = left + walk.offset[0] + r * row_step;
    for (int64_t c = 0; c < cols; c += 16) {
      const float* b = right + walk.offset[1] + c * col_step;
      const int64_t n = cols - c;
      F16 sums[4] = {all(0.0f), all(0.0f), all(0.0f), all(0.0f)};
      for (int64_t d = 0; d < inner; d++) {
        const F16 x = gather(b + d * right_step, col_step, n);
        for (int64_t h = 0; h < 4; h++) sums[h] = fma(all(a[smaller(h, high - 1) * row_step + d * left_step]), x, sums[h]);
      }
      for (int64_t h = 0; h < high; h++)
        scatter(out + walk.offset[2] + (r + h) * k.out.stride[3] + c * k.out.stride[4], k.out.stride[4], sums[h], n);
    }
  }
  return Status::OK;
}
