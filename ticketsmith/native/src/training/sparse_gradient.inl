// Gradients of surviving weights alone: a product of the output's gradient with the input, summed over lanes and pixels.
// Sixteen weights are neighbours in memory; each four of them have one output, whose gradient they share.

// The sums of 4 * Q weights; `same`: all have one output.
template <int Q, bool SAME>
inline void correlate(const SparseGradient& k, const int32_t* offsets, const int32_t* rows, F16* sums) {
  const Vectors& v = k.vectors;
  F16 each[4 * Q];
  _Pragma("GCC unroll 16") for (int i = 0; i < 4 * Q; i++) each[i] = all(0.0f);
  for (int64_t block = 0; block < v.blocks; block++)
    for (int64_t y = 0; y < v.rows; y++) {
      const float* x = k.in + block * v.in_block + y * v.in_row;
      const float* d = k.out + block * v.out_block + y * v.out_row;
      for (int64_t col = 0; col < v.cols; col++, x += v.in_col, d += v.out_col)
        _Pragma("GCC unroll 4") for (int q = 0; q < Q; q++) {
          const F16 gradient = load(d + rows[SAME ? 0 : q]);
          _Pragma("GCC unroll 4") for (int i = 4 * q; i < 4 * q + 4; i++)
              each[i] = fma(gradient, load(x + offsets[i]), each[i]);
        }
    }
  _Pragma("GCC unroll 16") for (int i = 0; i < 4 * Q; i++) sums[i] = each[i];
}

void sparse_gradient(const SparseGradient& k, const Step& s, Share share) {
  const Improve improve = improver(s);
  const Range groups = part(k.groups, share);
  for (int64_t group = groups.begin; group < groups.end; group++) {
    const int32_t *offsets = k.offsets + 16 * group, *rows = k.rows + 4 * group;
    F16 each[16];
    const bool same = rows[0] == rows[3];  // rows ascend
    for (int q = 0; q < 4; q += QUADS)
      same ? correlate<QUADS, true>(k, offsets + 4 * q, rows + q, each + 4 * q)
           : correlate<QUADS, false>(k, offsets + 4 * q, rows + q, each + 4 * q);
    const F16 gradient = sums(each);
    improve(k.parameter, 16 * group, &gradient, 1, nullptr, s);
  }
}
