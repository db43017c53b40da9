// Sums that all have the same taps: a tile of M outputs by T columns stays in registers.

// What the first or a later part of a sum begins with, and what its last part ends with.
template <int T, class Taps>
inline __attribute__((always_inline)) void begin_sums(F16* sums, const Taps& k, const float* out, int64_t o, int64_t step, bool first) {
  const F16 bias = all(k.bias ? k.bias[o] : 0.0f);
  EACH_VECTOR sums[t] = !first || k.add ? load(out + t * step) : bias;
}
template <int T, class Taps>
inline __attribute__((always_inline)) void end_sums(const F16* sums, const Taps& k, float* out, int64_t step, bool last) {
  if (!last) {
    EACH_VECTOR store(out + t * step, sums[t]);
  } else if (k.gate) {
    const float* gate = k.gate + (out - k.out);
    EACH_VECTOR store(out + t * step, where_positive(load(gate + t * step), sums[t]));
  } else {
    const F16 zero = all(0.0f);
    EACH_VECTOR store(out + t * step, k.relu ? maximum(zero, sums[t]) : sums[t]);
  }
}

template <int T>
struct DenseTile {
  const DenseTaps& k;
  const float* in;
  float* out;
  int64_t output, begin, end;  // of taps

  template <int M>
  void operator()() const {
    F16 sums[M][T];
    const int64_t step = k.vectors.out_col, in_step = k.vectors.in_col;
    _Pragma("GCC unroll 12") for (int m = 0; m < M; m++)
        begin_sums<T>(sums[m], k, out + k.outs[output + m], output + m, step, begin == 0);
    const float* weights = k.weights + output * k.distance;
    for (int64_t i = begin; i < end; i++) {
      const float *x = in + k.offsets[i], *w = weights + k.places[i];
      F16 each[T];
      EACH_VECTOR each[t] = load(x + t * in_step);
      _Pragma("GCC unroll 12") for (int m = 0; m < M; m++) {
        const F16 weight = all(w[m * k.distance]);
        EACH_VECTOR sums[m][t] = fma(weight, each[t], sums[m][t]);
      }
    }
    _Pragma("GCC unroll 12") for (int m = 0; m < M; m++)
        end_sums<T>(sums[m], k, out + k.outs[output + m], step, end == k.taps);
  }
};

struct DenseRow {
  const DenseTaps& k;
  const float* in;
  float* out;
  Range outputs;

  template <int T>
  void operator()() const {
    constexpr int M = DENSE_SUMS / T < MOST_OUTPUTS ? DENSE_SUMS / T : MOST_OUTPUTS;
    for (int64_t begin = 0; begin < k.taps; begin += k.part) {
      const Tiles tiles(outputs.end - outputs.begin, M);
      for (int64_t i = 0; i < tiles.count; i++)
        with_constant<M>(tiles.size(i), DenseTile<T>{k, in, out, outputs.begin + tiles.begin(i), begin,
                                                     smaller(begin + k.part, k.taps)});
    }
  }
};

void dense_taps(const DenseTaps& k, const Step&, Share share) {
  const Vectors& v = k.vectors;
  const Division mine = division(v, k.outputs, share);
  const Tiles tiles(v.cols, MOST_COLS);
  for (int64_t row = mine.rows.begin; row < mine.rows.end; row++)
    for (int64_t i = 0; i < tiles.count; i++) {
      const int64_t block = row / v.rows, y = row % v.rows, x = tiles.begin(i);
      with_constant<MOST_COLS>(tiles.size(i), DenseRow{k, k.in + block * v.in_block + y * v.in_row + x * v.in_col,
                                                       k.out + block * v.out_block + y * v.out_row + x * v.out_col,
                                                       mine.outputs});
    }
}
