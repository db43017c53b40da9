// Sums of the taps that survive: one weight for up to ACCUMULATORS columns.

struct SparseTile {
  const SparseTaps& k;
  const float* in;
  float* out;
  Range outputs;

  // What the next output is written over lies far away where values are large.
  template <int T>
  void fetch(const float* next, int64_t step) const {
    EACH_VECTOR __builtin_prefetch(next + t * step, 1);
    if (k.gate) EACH_VECTOR __builtin_prefetch(k.gate + (next - k.out) + t * step);
  }

  template <int T>
  void operator()() const {
    constexpr int CHAINS = T * 2 <= ACCUMULATORS ? 2 : 1;  // so that a sum need not wait for the one before
    const int64_t step = k.vectors.out_col, in_step = k.vectors.in_col;
    for (int64_t part = 0; part < k.parts; part++) {
      const int32_t* starts = k.starts + part * k.outputs;
      for (int64_t o = outputs.begin; o < outputs.end; o++) {
        F16 sums[CHAINS][T];
        float* to = out + k.outs[o];
        if (o + 1 < outputs.end) fetch<T>(out + k.outs[o + 1], step);
        begin_sums<T>(sums[0], k, to, o, step, part == 0);
        if (CHAINS > 1) EACH_VECTOR sums[CHAINS - 1][t] = all(0.0f);
        const int32_t *tap = k.taps + 2 * int64_t{starts[o]}, *end = k.taps + 2 * int64_t{starts[o + 1]};
        for (; tap + 2 * (CHAINS - 1) < end; tap += 2 * CHAINS)
          for (int c = 0; c < CHAINS; c++) {
            const float* x = in + tap[2 * c];
            const F16 weight = all(k.weights[tap[2 * c + 1]]);
            EACH_VECTOR sums[c][t] = fma(weight, load(x + t * in_step), sums[c][t]);
          }
        if (CHAINS > 1) {
          if (tap < end) {
            const float* x = in + tap[0];
            const F16 weight = all(k.weights[tap[1]]);
            EACH_VECTOR sums[0][t] = fma(weight, load(x + t * in_step), sums[0][t]);
          }
          EACH_VECTOR sums[0][t] = sums[0][t] + sums[CHAINS - 1][t];
        }
        end_sums<T>(sums[0], k, to, step, part == k.parts - 1);
      }
    }
  }
};

void sparse_taps(const SparseTaps& k, const Step&, Share share) {
  const Vectors& v = k.vectors;
  const Division mine = division(v, k.outputs, share);
  // With many taps, a narrow tile: what it reads stays in the first cache.
  const bool narrow = ACCUMULATORS > 8 && k.starts[k.parts * k.outputs] >= 32 * k.outputs;
  const Tiles tiles(v.cols, narrow ? 8 : ACCUMULATORS);
  for (int64_t row = mine.rows.begin; row < mine.rows.end; row++)
    for (int64_t i = 0; i < tiles.count; i++) {
      const int64_t block = row / v.rows, y = row % v.rows, x = tiles.begin(i);
      with_constant<ACCUMULATORS>(tiles.size(i), SparseTile{k, k.in + block * v.in_block + y * v.in_row + x * v.in_col,
                                                            k.out + block * v.out_block + y * v.out_row + x * v.out_col,
                                                            mine.outputs});
    }
}
