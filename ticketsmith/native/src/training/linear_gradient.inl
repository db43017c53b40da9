// The gradient of a dense linear layer, and the optimizer with it: a tile of M outputs by N vectors of inputs stays in registers
// while examples pass, and its weights and what the optimizer knows of them are fetched meanwhile.

template <int N>
struct LinearTile {
  const LinearGradient& k;
  const Step& s;
  Improve improve;
  int64_t output, column, next;  // next: the place of the first weight of the next tile

  void fetch(int64_t at) const {
    __builtin_prefetch(k.parameter.values + at, 1);
    if (k.parameter.first) __builtin_prefetch(k.parameter.first + at, 1);
    if (k.parameter.second) __builtin_prefetch(k.parameter.second + at, 1);
  }

  template <int M>
  void operator()() const {
    const int64_t place = output * k.distance + column;
    F16 sums[M][N];
    const float* d[M];
    for (int m = 0; m < M; m++) d[m] = k.out + k.outs[output + m];
    _Pragma("GCC unroll 12") for (int m = 0; m < M; m++)
        _Pragma("GCC unroll 5") for (int n = 0; n < N; n++) sums[m][n] = all(0.0f);
    const float* x = k.in + column;
    for (int64_t first = 0; first < s.samples; first += k.lanes) {
      const int64_t offset = first / k.lanes * k.vectors.out_block, count = smaller(k.lanes, s.samples - first);
      for (int64_t b = 0; b < count; b++, x += k.distance) {
        if (first + b < M * N) fetch(next + (first + b) / N * k.distance + 16 * ((first + b) % N));
        F16 each[N];
        _Pragma("GCC unroll 5") for (int n = 0; n < N; n++) each[n] = load(x + 16 * n);
        _Pragma("GCC unroll 12") for (int m = 0; m < M; m++) {
          const F16 gradient = all(d[m][offset + b]);
          _Pragma("GCC unroll 5") for (int n = 0; n < N; n++) sums[m][n] = fma(gradient, each[n], sums[m][n]);
        }
      }
    }
    F16 gradients[M][N];  // in memory; the sums' address must not be taken, or they would be there all along
    _Pragma("GCC unroll 12") for (int m = 0; m < M; m++)
        _Pragma("GCC unroll 5") for (int n = 0; n < N; n++) gradients[m][n] = sums[m][n];
    for (int m = 0; m < M; m++) improve(k.parameter, place + m * k.distance, gradients[m], N, k.mask, s);
  }
};

struct LinearPanel {
  const LinearGradient& k;
  const Step& s;
  int64_t column;
  Range outputs;

  template <int N>
  void operator()() const {
    constexpr int M = DENSE_SUMS / N < MOST_OUTPUTS ? DENSE_SUMS / N : MOST_OUTPUTS;
    const Tiles tiles(outputs.end - outputs.begin, M);
    for (int64_t i = 0; i < tiles.count; i++)
    {
      const int64_t output = outputs.begin + tiles.begin(i);
      const int64_t next = i + 1 < tiles.count ? (output + tiles.size(i)) * k.distance + column
                                               : outputs.begin * k.distance + column + 16 * N;
      with_constant<M>(tiles.size(i), LinearTile<N>{k, s, improver(s), output, column, next});
    }
  }
};

void linear_gradient(const LinearGradient& k, const Step& s, Share share) {
  constexpr int N = DENSE_SUMS >= 24 ? 4 : MOST_COLS;
  const Tiles tiles((k.features + 15) / 16, N);
  for (int64_t i = 0; i < tiles.count; i++)
    with_constant<N>(tiles.size(i), LinearPanel{k, s, 16 * tiles.begin(i), part(k.outputs, share)});
}
