// Dense convolutions of 3 by 3 with a quarter of the multiplications: Winograd's minimal filtering F(4x4, 3x3) (Lavin and Gray
// 2016). An output tile of 4 by 4 needs an input tile of 6 by 6; both and the weights are taken to 36 "frequencies", for each of
// which the convolution is a product of matrices.
//
// Tiles lie in raster order, a lane each: tile `n` of a plane has the columns 4 n .. 4 n + 3 of "long rows", which are the rows
// of all tile rows one behind the other. Lanes beyond the last tile hold anything, and reach nothing that is kept.
#pragma once
#include "simd/common.inl"

constexpr int FREQUENCIES = 36;
constexpr int64_t MOST_TILES = 256, LONG_ROW = 4 * MOST_TILES + 16;
constexpr bool MANY_REGISTERS = ACCUMULATORS >= 12;

// The points 0, +-A, +-B and infinity, with A B = 1: their errors are a quarter of those of 1 and 2.
constexpr float WINOGRAD_A = 0.70710678f, WINOGRAD_B = 1.41421356f;

// B^T d: six numbers of a tile to six frequencies.
inline void to_frequencies(const F16* d, F16* f) {
  const F16 a = all(WINOGRAD_A), b = all(WINOGRAD_B), two = all(-2.0f), half = all(-0.5f), both = all(-2.5f);
  const F16 even_a = fma(two, d[2], d[4]), odd_a = fma(two, d[1], d[3]);
  const F16 even_b = fma(half, d[2], d[4]), odd_b = fma(half, d[1], d[3]);
  f[0] = fma(both, d[2], d[0] + d[4]);
  f[1] = fma(a, odd_a, even_a);
  f[2] = fma(all(-WINOGRAD_A), odd_a, even_a);
  f[3] = fma(b, odd_b, even_b);
  f[4] = fma(all(-WINOGRAD_B), odd_b, even_b);
  f[5] = fma(both, d[3], d[1] + d[5]);
}

// A^T m: six frequencies to four outputs.
inline void from_frequencies(const F16* m, F16* y) {
  const F16 sum_a = m[1] + m[2], difference_a = m[1] - m[2], sum_b = m[3] + m[4], difference_b = m[3] - m[4];
  y[0] = m[0] + sum_a + sum_b;
  y[1] = fma(all(WINOGRAD_A), difference_a, all(WINOGRAD_B) * difference_b);
  y[2] = fma(all(0.5f), sum_a, sum_b + sum_b);
  y[3] = fma(all(WINOGRAD_A / 2), difference_a, fma(all(2 * WINOGRAD_B), difference_b, m[5]));
}

// One plane: its columns to frequencies, written to the six long rows `to`. Only what belongs to the image is read: beside it
// there are zeros, whatever lies there.
void winograd_columns(const Winograd& k, const float* in, float* to) {
  const int64_t width = 4 * k.tile_cols;
  for (int64_t tile_row = 0; tile_row < k.tile_rows; tile_row++, to += width) {
    const int64_t first = 4 * (k.first + tile_row) - k.pad_rows;
    const bool inside = first >= 0 && first + 6 <= k.in.rows;
    for (int64_t c = 0; c < width; c += 16) {
      const float* from = in + first * k.in.row + k.left + c;
      const uint16_t mask = k.columns[c / 16];
      F16 d[6], f[6];
      if (inside && mask == 0xffff)
        for (int i = 0; i < 6; i++) d[i] = load(from + i * k.in.row);
      else
        for (int i = 0; i < 6; i++) {
          const bool there = first + i >= 0 && first + i < k.in.rows;
          d[i] = there ? load_some(from + i * k.in.row, mask) : all(0.0f);
        }
      to_frequencies(d, f);
      for (int i = 0; i < 6; i++) store(to + i * LONG_ROW + c, f[i]);
    }
  }
}

// The rows of `vectors` times sixteen tiles to frequencies. A tile reads its own four columns, one before and one behind.
void winograd_rows(const Winograd& k, const float* from, int64_t vectors, float* to) {
  const Move before = moving(15), behind = moving(1);
  const int64_t plane = k.transformed.plane;
  for (int64_t v = 0; v < vectors; v++) {
    const uint16_t starts = k.starts[v], ends = k.ends[v];
    for (int i = 0; i < 6; i++) {
      const float* row = from + i * LONG_ROW + 64 * v;
      F16 d[6], f[6], even[2], odd[2];
      deal(load(row), load(row + 16), even[0], odd[0]);
      deal(load(row + 32), load(row + 48), even[1], odd[1]);
      deal(even[0], even[1], d[1], d[3]);
      deal(odd[0], odd[1], d[2], d[4]);
      d[0] = keep(moved(load(row - 16), d[4], before), starts);
      d[5] = keep(moved(d[1], load(row + 64), behind), ends);
      to_frequencies(d, f);
      for (int j = 0; j < 6; j++) store(to + (6 * i + j) * plane + 16 * v, f[j]);
    }
  }
}

void winograd_inputs(const Winograd& k, const float* in, float* transformed, Range planes) {
  alignas(64) float rows[16 + 6 * LONG_ROW + 16];
  for (float& x : rows) x = 0.0f;
  for (int64_t p = planes.begin; p < planes.end; p += k.together) {
    const int64_t count = smaller(k.together, planes.end - p);
    for (int64_t i = 0; i < count; i++) winograd_columns(k, in + (p + i) * k.in.plane, rows + 16 + 4 * i * k.pitch);
    winograd_rows(k, rows + 16, (count * k.pitch + 15) / 16, transformed + p * k.pitch);
  }
}

// sums[h][t] = sum over i of weights[i][h] * inputs[i][t], T vectors of tiles and H outputs at a time.
template <int T, int H>
inline void winograd_block(const float* weight, const float* x, int64_t pitch, int64_t count, float* out) {
  F16 sums[H][T];
  for (int h = 0; h < H; h++) EACH_VECTOR sums[h][t] = all(0.0f);
  for (int64_t i = 0; i < count; i++, x += pitch, weight += 16) {
    F16 inputs[T];
    __builtin_prefetch(weight + AHEAD);
    EACH_VECTOR inputs[t] = load(x + 16 * t);
#pragma GCC unroll 16
    for (int h = 0; h < H; h++) {
      const F16 w = all(weight[h]);
      EACH_VECTOR sums[h][t] = fma(w, inputs[t], sums[h][t]);
    }
  }
#pragma GCC unroll 16
  for (int h = 0; h < H; h++) EACH_VECTOR store(out + h * pitch + 16 * t, sums[h][t]);
}

struct WinogradTiles {
  const float* weight;
  const float* x;
  int64_t pitch, count;
  float* out;

  template <int T>
  void operator()() const {
    constexpr int H = MANY_REGISTERS ? (T == 1 ? 16 : 8) : 4;
    for (int h = 0; h < 16; h += H) winograd_block<T, H>(weight + h, x, pitch, count, out + h * pitch);
  }
};

// The same with lanes of outputs, for fewer tiles than lanes: P tiles, H times sixteen outputs, `between` their weights.
template <int H>
struct WinogradFewTiles {
  const float* weights;
  int64_t between;
  const float* inputs;
  int64_t pitch, count;
  float* out;

  template <int P>
  void operator()() const {
    const float *weight = weights, *x = inputs;
    F16 sums[P][H];
    EACH_PIXEL for (int h = 0; h < H; h++) sums[p][h] = all(0.0f);
    for (int64_t i = 0; i < count; i++, x += pitch, weight += 16) {
      F16 w[H];
#pragma GCC unroll 4
      for (int h = 0; h < H; h++) {
        __builtin_prefetch(weight + h * between + AHEAD);
        w[h] = load(weight + h * between);
      }
      EACH_PIXEL {
        const F16 input = all(x[p]);
#pragma GCC unroll 4
        for (int h = 0; h < H; h++) sums[p][h] = fma(input, w[h], sums[p][h]);
      }
    }
#pragma GCC unroll 4
    for (int h = 0; h < H; h++) EACH_PIXEL store(out + (p * H + h) * 16, sums[p][h]);
  }
};

// From frequencies `plane` apart to 16 pixels of 4 rows.
inline void winograd_tile(const float* sums, int64_t plane, F16* pixels) {
  F16 rows[6][4];
#pragma GCC unroll 6
  for (int i = 0; i < 6; i++) {
    F16 m[6];
#pragma GCC unroll 6
    for (int j = 0; j < 6; j++) m[j] = load(sums + (6 * i + j) * plane);
    from_frequencies(m, rows[i]);
  }
#pragma GCC unroll 4
  for (int c = 0; c < 4; c++) {
    F16 m[6], y[4];
#pragma GCC unroll 6
    for (int i = 0; i < 6; i++) m[i] = rows[i][c];
    from_frequencies(m, y);
#pragma GCC unroll 4
    for (int r = 0; r < 4; r++) pixels[4 * r + c] = y[r];
  }
}

// An output plane from four long rows, `between` apart.
void winograd_store(const Winograd& k, const Ends& ends, int64_t o, const float* rows, int64_t between) {
  const F16 bias = all(k.bias[o]), zero = all(0.0f), most = all(k.activation == Activation::RELU6 ? 6.0f : __builtin_inff());
  const int64_t activation = k.activation, cols = k.out.cols, out_row = k.out.row, residual_row = k.residual.row;
  const bool relu = activation == Activation::RELU || activation == Activation::RELU6, linear = activation == Activation::LINEAR;
  const int64_t begin = 4 * k.first, end = smaller(4 * (k.first + k.tile_rows), k.out.rows), width = 4 * k.tile_cols;
  float* to = ends.out + o * k.out.plane + begin * out_row;
  const float* residual = nullptr;
  if (ends.residual) residual = ends.residual + o * k.residual.plane + begin * residual_row;
  rows += k.skip;
  for (int64_t row = begin; row < end; row += 4, rows += width)
    for (int64_t r = 0; r < smaller(4, end - row); r++, to += out_row) {
      const float* from = rows + r * between;
      const auto finished = [&](F16 x, F16 other) {
        x = x + bias + other;
        return relu ? minimum(most, maximum(zero, x)) : linear ? x : activated(x, activation);
      };
      int64_t c = 0;
      for (; c + 16 <= cols; c += 16) store(to + c, finished(load(from + c), residual ? load(residual + c) : zero));
      if (c < cols) {
        const F16 other = residual ? load_first(residual + c, cols - c) : zero;
        store_first(to + c, finished(load(from + c), other), cols - c);
      }
      if (residual) residual += residual_row;
    }
}

// Sixteen outputs from `first` on, lanes of tiles.
void winograd_many(const Winograd& k, const Ends& ends, const float* x, int64_t first, float* sums) {
  constexpr int MOST = MANY_REGISTERS ? 3 : 1;
  const int64_t vectors = k.pitch / 16, chunks = (vectors + MOST - 1) / MOST, plane = 16 * k.pitch + 16;
  const float* weight = k.weights + first * FREQUENCIES * k.in.planes;
  for (int f = 0; f < FREQUENCIES; f++, weight += 16 * k.in.planes)
    for (int64_t c = 0; c < chunks; c++) {
      const int64_t begin = vectors * c / chunks, end = vectors * (c + 1) / chunks;
      const WinogradTiles body{weight, x + f * k.transformed.plane + 16 * begin, k.pitch, k.in.planes,
                               sums + f * plane + 16 * begin};
      with_constant<MOST>(end - begin, body);
    }
  alignas(64) float rows[4 * LONG_ROW];
  const int64_t outputs = smaller(16, k.out.planes - first);
  for (int64_t o = 0; o < outputs; o++) {
    for (int64_t v = 0; v < vectors; v++) {
      F16 pixels[16];
      winograd_tile(sums + o * k.pitch + 16 * v, plane, pixels);
#pragma GCC unroll 4
      for (int r = 0; r < 4; r++) {  // the columns in their order again
        F16 even[2], odd[2], row[4];
        interleave(pixels[4 * r], pixels[4 * r + 2], even[0], even[1]);
        interleave(pixels[4 * r + 1], pixels[4 * r + 3], odd[0], odd[1]);
        interleave(even[0], odd[0], row[0], row[1]);
        interleave(even[1], odd[1], row[2], row[3]);
        for (int i = 0; i < 4; i++) store(rows + r * LONG_ROW + 64 * v + 16 * i, row[i]);
      }
    }
    winograd_store(k, ends, first + o, rows, LONG_ROW);
  }
}

// H times sixteen outputs from `first` on, lanes of outputs.
struct WinogradFew {
  const Winograd& k;
  const Ends& ends;
  const float* x;
  int64_t first;
  float* sums;

  template <int H>
  void operator()() const {
    constexpr int MOST = MANY_REGISTERS ? 6 : 4, ROW = 4 * 16 + 16;
    const int64_t tiles = k.pitch, chunks = (tiles + MOST - 1) / MOST, plane = 16 * H * tiles + 16;
    const int64_t between = 16 * FREQUENCIES * k.in.planes;
    const float* weight = k.weights + first * FREQUENCIES * k.in.planes;
    for (int f = 0; f < FREQUENCIES; f++, weight += 16 * k.in.planes)
      for (int64_t c = 0; c < chunks; c++) {
        const int64_t begin = tiles * c / chunks, end = tiles * (c + 1) / chunks;
        const WinogradFewTiles<H> body{weight, between, x + f * k.transformed.plane + begin, k.pitch, k.in.planes,
                                  sums + f * plane + 16 * H * begin};
        with_constant<MOST>(end - begin, body);
      }
    alignas(64) float rows[16][4][ROW];
    for (int64_t h = 0; h < H; h++) {
      const int64_t outputs = smaller(16, k.out.planes - first - 16 * h);
      for (int64_t t = 0; t < tiles; t++) {
        F16 pixels[16];
        winograd_tile(sums + (t * H + h) * 16, plane, pixels);
        transpose(pixels);
        for (int64_t o = 0; o < outputs; o++) {
          float each[16];
          store(each, pixels[o]);
          for (int r = 0; r < 4; r++) __builtin_memcpy(rows[o][r] + 4 * t, each + 4 * r, 4 * sizeof(float));
        }
      }
      for (int64_t o = 0; o < outputs; o++) winograd_store(k, ends, first + 16 * h + o, rows[o][0], ROW);
    }
  }
};

// `x`: the transformed inputs.
void winograd_outputs(const Winograd& k, const Ends& ends, const float* x, float* sums, Range outputs) {
  constexpr int64_t AT_ONCE = MANY_REGISTERS ? 4 : 1;
  sums += outputs.begin / 16 * k.sums.plane;  // each thread has its own
  if (k.pitch >= 16)
    for (int64_t o = outputs.begin; o < outputs.end; o += 16) winograd_many(k, ends, x, o, sums);
  else
    for (int64_t o = outputs.begin; o < outputs.end; o += 16 * AT_ONCE)
      with_constant<AT_ONCE>(smaller(AT_ONCE, (outputs.end - o + 15) / 16), WinogradFew{k, ends, x, o, sums});
}

int winograd(const Winograd& k, const Place& place, Share share) {
  if (k.product)
    winograd_outputs(k, ends(k, place), at(k.transformed, place), at(k.sums, place), part(k.out.planes, share, 16));
  else
    winograd_inputs(k, at(k.in, place), at(k.transformed, place), part(k.in.planes, share, k.together));
  return Status::OK;
}
