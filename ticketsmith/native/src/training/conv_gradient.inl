// The gradient of all weights of a convolution: products of the output's gradient with the input, summed over lanes and pixels in
// registers for a tile of M outputs by N taps, and across the lanes at its end.

template <int N>
struct ConvTile {
  const ConvGradient& k;
  int64_t output, tap;

  template <int M>
  void operator()() const {
    const Vectors& v = k.vectors;
    F16 each[(M * N + 15) / 16 * 16];
    F16 sums[M][N];
    _Pragma("GCC unroll 12") for (int m = 0; m < M; m++)
        _Pragma("GCC unroll 5") for (int n = 0; n < N; n++) sums[m][n] = all(0.0f);
    const int32_t *outs = k.outs + output, *offsets = k.offsets + tap;
    for (int64_t block = 0; block < v.blocks; block++)
      for (int64_t y = 0; y < v.rows; y++) {
        const float* x = k.in + block * v.in_block + y * v.in_row;
        const float* d = k.out + block * v.out_block + y * v.out_row;
        for (int64_t col = 0; col < v.cols; col++, x += v.in_col, d += v.out_col) {
          F16 in[N];
          _Pragma("GCC unroll 5") for (int n = 0; n < N; n++) in[n] = load(x + offsets[n]);
          _Pragma("GCC unroll 12") for (int m = 0; m < M; m++) {
            const F16 gradient = load(d + outs[m]);
            _Pragma("GCC unroll 5") for (int n = 0; n < N; n++) sums[m][n] = fma(gradient, in[n], sums[m][n]);
          }
        }
      }
    for (int i = 0; i < (M * N + 15) / 16 * 16; i++) each[i] = i < M * N ? sums[i / N][i % N] : all(0.0f);
    for (int i = 0; i < M * N; i += 16) {
      float numbers[16];
      store(numbers, training::sums(each + i));
      for (int j = 0; j < 16 && i + j < M * N; j++)
        k.scratch[(output + (i + j) / N) * k.distance + tap + (i + j) % N] = numbers[j];
    }
  }
};

struct ConvPanel {
  const ConvGradient& k;
  int64_t tap;
  Range outputs;

  template <int N>
  void operator()() const {
    constexpr int M = DENSE_SUMS / N < MOST_OUTPUTS ? DENSE_SUMS / N : MOST_OUTPUTS;
    const Tiles tiles(outputs.end - outputs.begin, M);
    for (int64_t i = 0; i < tiles.count; i++)
      with_constant<M>(tiles.size(i), ConvTile<N>{k, outputs.begin + tiles.begin(i), tap});
  }
};

void conv_gradient(const ConvGradient& k, const Step& s, Share share) {
  const Range outputs = part(k.outputs, share);
  for (int64_t o = outputs.begin; o < outputs.end; o++)
    for (int64_t i = k.taps; i < k.distance; i++) k.scratch[o * k.distance + i] = 0.0f;
  const Tiles tiles(k.taps, MOST_COLS);
  for (int64_t i = 0; i < tiles.count; i++) with_constant<MOST_COLS>(tiles.size(i), ConvPanel{k, tiles.begin(i), outputs});
  for (int64_t at = outputs.begin * k.distance; at < outputs.end * k.distance; at += 16) {
    const F16 gradient = load(k.scratch + at);
    improver(s)(k.parameter, at, &gradient, 1, k.mask, s);
  }
}
