// Attention of arrays, those of sessions among them.
#pragma once
#include "dense/arrays.inl"

// sum of a[i] * b[i]
inline float dot(const float* a, int64_t a_stride, const float* b, int64_t b_stride, int64_t n) {
  F16 even = all(0.0f), odd = all(0.0f);
  int64_t i = 0;
  for (; i + 32 <= n; i += 32) {
    even = fma(gather(a + i * a_stride, a_stride, 16), gather(b + i * b_stride, b_stride, 16), even);
    odd = fma(gather(a + (i + 16) * a_stride, a_stride, 16), gather(b + (i + 16) * b_stride, b_stride, 16), odd);
  }
  for (; i < n; i += 16) {
    const int64_t left = smaller(16, n - i);
    const auto mask = static_cast<uint16_t>((1u << left) - 1);
    even = fma(keep(gather(a + i * a_stride, a_stride, left), mask), keep(gather(b + i * b_stride, b_stride, left), mask), even);
  }
  return sum(even + odd);
}

// Vectors of sixteen keys or features, four at a time so that the adders need not wait for each other.
template <int T>
inline void weighted(const float* weights, int64_t weight_stride, const float* rows, int64_t row_stride, int64_t count,
                     int64_t last, F16* sums) {
  for (int t = 0; t < T; t++) sums[t] = all(0.0f);
  for (int64_t i = 0; i < count; i++) {
    const F16 w = all(weights[i * weight_stride]);
    const float* row = rows + i * row_stride;
    for (int t = 0; t < T - 1; t++) sums[t] = fma(w, load(row + 16 * t), sums[t]);
    const F16 tail = last >= 16 ? load(row + 16 * (T - 1)) : load_first(row + 16 * (T - 1), last);
    sums[T - 1] = fma(w, tail, sums[T - 1]);
  }
}
// out[j] = sum over i of weights[i] * rows[i][j]; the elements of a row lie side by side.
inline void combination(const float* weights, int64_t weight_stride, const float* rows, int64_t row_stride, int64_t count,
                        float* out, int64_t out_stride, int64_t n, float scale) {
  for (int64_t j = 0; j < n; j += 64) {
    F16 sums[4];
    const int64_t left = smaller(64, n - j), vectors = (left + 15) / 16, last = left - 16 * (vectors - 1);
    const float* from = rows + j;
    switch (vectors) {
      case 4: weighted<4>(weights, weight_stride, from, row_stride, count, last, sums); break;
      case 3: weighted<3>(weights, weight_stride, from, row_stride, count, last, sums); break;
      case 2: weighted<2>(weights, weight_stride, from, row_stride, count, last, sums); break;
      default: weighted<1>(weights, weight_stride, from, row_stride, count, last, sums);
    }
    for (int64_t t = 0; t < vectors; t++)
      scatter(out + (j + 16 * t) * out_stride, out_stride, sums[t] * all(scale), smaller(16, left - 16 * t));
  }
}

// Axes of the arrays: [sample, head, token, feature]. One query at a time.
int attend(const Attend& k, const Place& place, Share share) {
  const int64_t before = k.cached ? place.position : 0;
  const int64_t longest = k.cached ? before + k.queries : k.keys;
  const Range range = part(k.samples * k.heads, share);
  for (int64_t i = range.begin; i < range.end; i++) {
    const int64_t s = i / k.heads, h = i % k.heads, g = h / k.group;
    const float* query = at(k.query, place) + s * k.query.stride[0] + h * k.query.stride[1];
    const float* key = at(k.key, place) + s * k.key.stride[0] + g * k.key.stride[1];
    const float* value = at(k.value, place) + s * k.value.stride[0] + g * k.value.stride[1];
    float* out = at(k.out, place) + s * k.out.stride[0] + h * k.out.stride[1];
    float* scores = at(k.scratch, place) + i * k.scratch.stride[1];
    const int64_t dk = k.key.stride[3], tk = k.key.stride[2], dv = k.value.stride[3], tv = k.value.stride[2];
    for (int64_t q = 0; q < k.queries; q++) {
      const float* x = query + q * k.query.stride[2];
      const int64_t seen = k.causal ? smaller(longest, before + q + 1) : longest;
      const float scale = static_cast<float>(k.scale);
      if (tk == 1)
        combination(x, k.query.stride[3], key, dk, k.width, scores, 1, seen, scale);
      else
        for (int64_t j = 0; j < seen; j++) scores[j] = scale * dot(x, k.query.stride[3], key + j * tk, dk, k.width);
      if (k.has_mask) {
        const float* mask = at(k.mask, place) + h * k.mask.stride[1] + q * k.mask.stride[2];
        for (int64_t j = 0; j < seen; j++) {
          const float masked = scores[j] + mask[j * k.mask.stride[3]];
          scores[j] = masked > -1e30f ? masked : -1e30f;  // a row that is masked whole must not be infinity minus itself
        }
      }
      float most = -__builtin_inff(), total = 0.0f;
      for (int64_t j = 0; j < seen; j += 16) {
        const int64_t n = smaller(16, seen - j);
        const auto mask = static_cast<uint16_t>((1u << n) - 1);
        const float x16 = largest(keep(load_first(scores + j, n), mask) - keep(all(1e38f), static_cast<uint16_t>(~mask)));
        most = x16 > most ? x16 : most;
      }
      for (int64_t j = 0; j < seen; j += 16) {
        const int64_t n = smaller(16, seen - j);
        const F16 e = keep(exponential(load_first(scores + j, n) - all(most)), static_cast<uint16_t>((1u << n) - 1));
        store_first(scores + j, e, n);
        total += sum(e);
      }
      float* to = out + q * k.out.stride[2];
      const float each = 1.0f / total;
      if (dv == 1)
        combination(scores, 1, value, tv, seen, to, k.out.stride[3], k.value_width, each);
      else
        for (int64_t d = 0; d < k.value_width; d++)
          to[d * k.out.stride[3]] = each * dot(scores, 1, value + d * dv, tv, seen);
    }
  }
  return Status::OK;
}
