// Maxima and means over windows.
#pragma once
#include "simd/common.inl"

void pool_pairs(const Pool& k, const float* in, float* out) {  // windows of 2 by 2 that do not overlap
  for (int64_t r = 0; r < k.out.rows; r++) {
    const float *upper = in + 2 * r * k.in.row, *lower = upper + k.in.row;
    for (int64_t c = 0; c < k.out.cols; c += 16) {
      const F16 u0 = load(upper + 2 * c), u1 = load(upper + 2 * c + 16);
      const F16 l0 = load(lower + 2 * c), l1 = load(lower + 2 * c + 16);
      F16 even, odd;
      deal(k.average ? u0 + l0 : maximum(u0, l0), k.average ? u1 + l1 : maximum(u1, l1), even, odd);
      const F16 pooled = k.average ? (even + odd) * all(0.25f) : maximum(even, odd);
      store_first(out + r * k.out.row + c, pooled, k.out.cols - c);
    }
  }
}

// Up to sixteen floats that lie `step` apart; where it is 1 or 2, up to 32 floats are read.
inline F16 strided(const float* p, int64_t step, int64_t n) {
  if (step == 1) return load(p);
  F16 even, odd;
  if (step == 2) {
    deal(load(p), load(p + 16), even, odd);
    return even;
  }
  float picked[16] = {};
  for (int64_t i = 0; i < smaller(n, 16); i++) picked[i] = p[i * step];
  return load(picked);
}

float pool_all(const Pool& k, const float* in) {  // one window as large as the plane
  F16 pooled = all(k.average ? 0.0f : -__builtin_inff());
  float last = -__builtin_inff();
  for (int64_t r = 0; r < k.in.rows; r++) {
    int64_t c = 0;
    for (; c + 16 <= k.in.cols; c += 16) {
      const F16 x = load(in + r * k.in.row + c);
      pooled = k.average ? pooled + x : maximum(pooled, x);
    }
    if (k.average) pooled = c < k.in.cols ? pooled + load_first(in + r * k.in.row + c, k.in.cols - c) : pooled;
    for (; c < k.in.cols && !k.average; c++) {
      const float x = in[r * k.in.row + c];
      last = x > last ? x : last;
    }
  }
  if (k.average) return sum(pooled) / static_cast<float>(k.in.rows * k.in.cols);
  const float most = largest(pooled);
  return most > last ? most : last;
}

constexpr int64_t WIDEST = 4096;

// Any window: the rows of it into one, which has room for the padding, then its columns.
void pool_any(const Pool& k, const float* in, float* out) {
  alignas(64) float row[WIDEST];
  const float nothing = k.average ? 0.0f : -__builtin_inff();
  const int64_t wide = (k.out.cols - 1) * k.step_c + k.width, room = (wide + 15) / 16 * 16 + 32;
  for (int64_t c = 0; c < room; c++) row[c] = nothing;
  const int64_t cols = smaller(k.in.cols, wide - k.pad_c);
  for (int64_t r = 0; r < k.out.rows; r++) {
    const int64_t r0 = r * k.step_r - k.pad_r, first = larger(r0, 0), end = smaller(r0 + k.height, k.in.rows);
    for (int64_t c = 0; c < cols; c += 16) {
      F16 pooled = all(nothing);
      for (int64_t i = first; i < end; i++) {
        const F16 x = load_first(in + i * k.in.row + c, cols - c);
        pooled = k.average ? pooled + x : maximum(pooled, x);
      }
      store_first(row + k.pad_c + c, pooled, cols - c);
    }
    // what padding counts for ends with the padding, also where a window reaches beyond it
    const int64_t high = k.count_padding ? smaller(r0 + k.height, k.in.rows + k.pad_r) - r0 : end - first;
    for (int64_t c = 0; c < k.out.cols; c += 16) {
      const int64_t left = k.out.cols - c;
      const float* from = row + c * k.step_c;
      F16 pooled = all(nothing);
      for (int64_t j = 0; j < k.width; j++) {
        const F16 x = strided(from + j, k.step_c, left);
        pooled = k.average ? pooled + x : maximum(pooled, x);
      }
      if (k.average) {
        float each[16];
        for (int64_t i = 0; i < 16; i++) {
          const int64_t c0 = (c + i) * k.step_c - k.pad_c, reach = c0 + k.width;
          const int64_t count = k.count_padding ? smaller(reach, k.in.cols + k.pad_c) - c0
                                                : smaller(reach, k.in.cols) - larger(c0, 0);
          each[i] = 1.0f / static_cast<float>(larger(1, count * high));
        }
        pooled = pooled * load(each);
      }
      store_first(out + r * k.out.row + c, pooled, left);
    }
  }
}

// Columns of many samples, which are pooled alike.
void pool_lanes(const Pool& k, const float* in, float* out) {
  const int64_t in_cols = k.in.cols / k.lanes, out_cols = k.out.cols / k.lanes;
  for (int64_t r = 0; r < k.out.rows; r++) {
    const int64_t r0 = r * k.step_r - k.pad_r, r1 = larger(r0, 0), r2 = smaller(r0 + k.height, k.in.rows);
    const int64_t high = k.count_padding ? smaller(r0 + k.height, k.in.rows + k.pad_r) - r0 : r2 - r1;
    for (int64_t c = 0; c < out_cols; c++) {
      const int64_t c0 = c * k.step_c - k.pad_c, c1 = larger(c0, 0), c2 = smaller(c0 + k.width, in_cols);
      const int64_t wide = k.count_padding ? smaller(c0 + k.width, in_cols + k.pad_c) - c0 : c2 - c1;
      const F16 each = all(1.0f / static_cast<float>(larger(1, high * wide)));
      for (int64_t v = 0; v < k.lanes; v += 16) {
        F16 pooled = all(k.average ? 0.0f : -__builtin_inff());
        for (int64_t i = r1; i < r2; i++)
          for (int64_t j = c1; j < c2; j++) {
            const F16 x = load(in + i * k.in.row + j * k.lanes + v);
            pooled = k.average ? pooled + x : maximum(pooled, x);
          }
        store(out + r * k.out.row + c * k.lanes + v, k.average ? pooled * each : pooled);
      }
    }
  }
}

int pool(const Pool& k, const Place& place, Share share) {
  const bool padded = k.pad_r || k.pad_c;
  const bool pairs = !padded && k.height == 2 && k.width == 2 && k.step_r == 2 && k.step_c == 2;
  const bool whole = !padded && k.height == k.in.rows && k.width == k.in.cols && k.out.rows == 1 && k.out.cols == 1;
  const Range planes = part(k.out.planes, share);
  for (int64_t p = planes.begin; p < planes.end; p++) {
    const float* in = at(k.in, place) + p * k.in.plane;
    float* out = at(k.out, place) + p * k.out.plane;
    if (k.lanes)
      pool_lanes(k, in, out);
    else if (whole)
      *out = pool_all(k, in);
    else if (pairs)
      pool_pairs(k, in, out);
    else
      pool_any(k, in, out);
  }
  return Status::OK;
}
