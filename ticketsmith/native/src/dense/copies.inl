// Copies between layouts, and rows of tables.
#pragma once
#include "simd/common.inl"

// out[j * out_row + i] = in[i * in_row + j] for i < height, j < width.
void transposed(const float* in, int64_t in_row, float* out, int64_t out_row, int64_t height, int64_t width) {
  for (int64_t i = 0; i < height; i += 16)
    for (int64_t j = 0; j < width; j += 16) {
      const int64_t high = smaller(16, height - i), wide = smaller(16, width - j);
      F16 r[16];
      for (int64_t a = 0; a < 16; a++) r[a] = a < high ? load_first(in + (i + a) * in_row + j, wide) : all(0.0f);
      transpose(r);
      for (int64_t b = 0; b < wide; b++) store_first(out + (j + b) * out_row + i, r[b], high);
    }
}

inline void copy_row(const float* in, int64_t in_step, float* out, int64_t out_step, int64_t n) {
  int64_t i = 0;
  if (in_step == 1 && out_step == 1) {
    for (; i + 16 <= n; i += 16) store(out + i, load(in + i));
    store_first(out + i, load_first(in + i, n - i), n - i);
    return;
  }
  for (; i < n; i++) out[i * out_step] = in[i * in_step];
}

void copy_lanes(const Copy& k, const float* in, float* out, int64_t samples) {
  for (int64_t r = 0; r < k.rows; r++) {
    const float* from = in + r * k.in.row;
    float* to = out + r * k.out.row;
    if (k.in.sample == 1 && k.out.sample == 1)
      for (int64_t c = 0; c < k.cols; c++) copy_row(from + c * k.in.col, 1, to + c * k.out.col, 1, samples);
    else if (k.in.sample == 1)
      transposed(from, k.in.col, to, k.out.sample, k.cols, samples);
    else
      transposed(from, k.in.sample, to, k.out.col, samples, k.cols);
  }
}

int copy(const Copy& k, const Place& place, Share share) {
  const float* in = place.space[k.in.space] + k.in.base + k.in.sample * place.sample;
  float* out = place.space[k.out.space] + k.out.base + k.out.sample * place.sample;
  const int64_t cols = k.cols;
  const Range planes = part(k.planes, share, 16);
  const int64_t n = planes.end - planes.begin;
  if (n <= 0) return Status::OK;
  in += planes.begin * k.in.plane, out += planes.begin * k.out.plane;
  if (k.lanes) {
    for (int64_t p = 0; p < n; p++) copy_lanes(k, in + p * k.in.plane, out + p * k.out.plane, place.samples);
  } else if (k.rows == 1 && cols > 1 && k.in.plane == 1 && k.out.col == 1) {
    transposed(in, k.in.col, out, k.out.plane, cols, n);
  } else if (k.rows == 1 && cols > 1 && k.in.col == 1 && k.out.plane == 1) {
    transposed(in, k.in.plane, out, k.out.col, n, cols);
  } else if (k.rows == 1 && cols == 1) {
    copy_row(in, k.in.plane, out, k.out.plane, n);
  } else {
    for (int64_t p = 0; p < n; p++)
      for (int64_t r = 0; r < k.rows; r++)
        copy_row(in + p * k.in.plane + r * k.in.row, k.in.col, out + p * k.out.plane + r * k.out.row, k.out.col, cols);
  }
  return Status::OK;
}

// All reads are within scratch memory.
int deal(const Deal& k, const Place& place, Share share) {
  const Range planes = part(k.planes, share);
  for (int64_t p = planes.begin; p < planes.end; p++) {
    const float* from = place.space[k.in.space] + k.in.base + p * k.in.plane;
    float* to = place.space[k.out.space] + k.out.base + p * k.out.plane;
    for (int64_t r = 0; r < k.rows; r++, from += k.in.row, to += k.out.row)
      for (int64_t c = 0; c < k.evens; c += 16) {
        F16 even, odd;
        deal(load(from + 2 * c), load(from + 2 * c + 16), even, odd);
        store_first(to + c, even, k.evens - c);
        if (k.odds > c) store_first(to + k.distance + c, odd, k.odds - c);
      }
  }
  return Status::OK;
}

int embed(const Embed& k, const Place& place, Share share) {
  const auto* token = reinterpret_cast<const int64_t*>(place.space[k.space]);
  float* out = at(k.out, place);
  for (int64_t c = 0; c < k.out.cols; c++)
    if (token[c] < 0 || token[c] >= k.tokens) return Status::BAD_TOKEN;
  const Range planes = part(k.out.planes, share);
  for (int64_t c = 0; c < k.out.cols; c++) {
    const float* row = k.table + token[c] * k.out.planes;
    for (int64_t p = planes.begin; p < planes.end; p++) out[p * k.out.plane + c] = row[p];
  }
  return Status::OK;
}
