// Gradients of surviving weights alone: a product of the output's gradient with the input, summed over lanes and pixels.
// Sixteen weights are neighbours in memory; each four of them have one output, whose gradient they share. Images are passed in
// bands of so many rows as stay in the second cache for all weights; sums wait in memory meanwhile.

// Onto the sums of 4 * Q weights; `SAME`: all have one output. Rows are those of all blocks.
template <int Q, bool SAME>
inline void correlate(const SparseGradient& k, const int32_t* offsets, const int32_t* rows, Range band, F16* sums) {
  const Vectors& v = k.vectors;
  F16 each[4 * Q];
  _Pragma("GCC unroll 16") for (int i = 0; i < 4 * Q; i++) each[i] = sums[i];
  for (int64_t row = band.begin; row < band.end; row++) {
    const float* x = k.in + row / v.rows * v.in_block + row % v.rows * v.in_row;
    const float* d = k.out + row / v.rows * v.out_block + row % v.rows * v.out_row;
    for (int64_t col = 0; col < v.cols; col++, x += v.in_col, d += v.out_col)
      _Pragma("GCC unroll 4") for (int q = 0; q < Q; q++) {
        const F16 gradient = load(d + rows[SAME ? 0 : q]);
        _Pragma("GCC unroll 4") for (int i = 4 * q; i < 4 * q + 4; i++) each[i] = fma(gradient, load(x + offsets[i]), each[i]);
      }
  }
  _Pragma("GCC unroll 16") for (int i = 0; i < 4 * Q; i++) sums[i] = each[i];
}

template <int OPTIMIZER>
inline void sparse_gradient_of(const SparseGradient& k, const Step& s, Share share) {
  const Range groups = part(k.groups, share);
  const int64_t all_rows = k.vectors.blocks * k.vectors.rows;
  for (int64_t first = 0; first < all_rows; first += k.band) {
    const Range band = {first, smaller(first + k.band, all_rows)};
    F16 gradient = all(0.0f);  // of the group before: its root and quotient are waited for while this one is summed
    for (int64_t group = groups.begin; group < groups.end; group++) {
      const int32_t *offsets = k.offsets + 16 * group, *rows = k.rows + 4 * group;
      float* scratch = k.scratch + 256 * group;
      F16 each[16];
      _Pragma("GCC unroll 16") for (int i = 0; i < 16; i++) each[i] = first ? load(scratch + 16 * i) : all(0.0f);
      const bool same = rows[0] == rows[1] && rows[0] == rows[2] && rows[0] == rows[3];
      for (int q = 0; q < 4; q += QUADS)
        same ? correlate<QUADS, true>(k, offsets + 4 * q, rows + q, band, each + 4 * q)
             : correlate<QUADS, false>(k, offsets + 4 * q, rows + q, band, each + 4 * q);
      if (band.end == all_rows) {
        if (group > groups.begin) improve_vector<OPTIMIZER>(k.parameter, 16 * (group - 1), gradient, nullptr, s);
        gradient = add_up(each);
      } else {
        for (int i = 0; i < 16; i++) store(scratch + 16 * i, each[i]);
      }
    }
    if (band.end == all_rows && groups.begin < groups.end)
      improve_vector<OPTIMIZER>(k.parameter, 16 * (groups.end - 1), gradient, nullptr, s);
  }
}
void sparse_gradient(const SparseGradient& k, const Step& s, Share share) {
  if (s.optimizer == Optimizer::ADAM) return sparse_gradient_of<Optimizer::ADAM>(k, s, share);
  if (s.optimizer == Optimizer::MOMENTUM) return sparse_gradient_of<Optimizer::MOMENTUM>(k, s, share);
  sparse_gradient_of<Optimizer::SGD>(k, s, share);
}
