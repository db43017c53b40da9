// Every kernel, written once for sixteen floats at a time. Included by one file per instruction set, inside a namespace
// of its own, after the F16 of that set. No header of the standard library with inline functions may be used here: the
// linker could keep the copy compiled for the newest instructions and run it on a machine without them.

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

inline float* at(const ts_value& value, const Place& place) { return place.space[value.space] + value.base; }

struct Range {
  int64_t begin, end;
};
inline Range part(int64_t total, Share share, int64_t step = 1) {
  const int64_t pieces = (total + step - 1) / step;
  return {pieces * share.index / share.count * step, smaller(total, pieces * (share.index + 1) / share.count * step)};
}

// ---- activations -------------------------------------------------------------------------------------------------

inline F16 exponential(F16 x) {
  x = minimum(all(88.0f), maximum(all(-87.0f), x));
  const F16 n = rounded(x * all(1.44269504f));
  F16 r = fma(n, all(-0.693359375f), x);
  r = fma(n, all(2.12194440e-4f), r);
  F16 p = all(1.9875691500e-4f);
  p = fma(p, r, all(1.3981999507e-3f));
  p = fma(p, r, all(8.3334519073e-3f));
  p = fma(p, r, all(4.1665795894e-2f));
  p = fma(p, r, all(1.6666665459e-1f));
  p = fma(p, r, all(5.0000001201e-1f));
  p = fma(p * r, r, r + all(1.0f));
  return p * power_of_two(n);
}
inline F16 sigmoid(F16 x) { return all(1.0f) / (all(1.0f) + exponential(all(0.0f) - x)); }
inline F16 tangent(F16 x) { return all(2.0f) * sigmoid(all(2.0f) * x) - all(1.0f); }
inline F16 error_function(F16 x) {  // Abramowitz and Stegun 7.1.26: 1.5e-7
  const F16 size = maximum(x, all(0.0f) - x);
  const F16 t = all(1.0f) / fma(all(0.3275911f), size, all(1.0f));
  F16 p = all(1.061405429f);
  p = fma(p, t, all(-1.453152027f));
  p = fma(p, t, all(1.421413741f));
  p = fma(p, t, all(-0.284496736f));
  p = fma(p, t, all(0.254829592f));
  const F16 value = all(1.0f) - p * t * exponential(all(0.0f) - size * size);
  // the sign, without a branch: x / |x|, and 0 at 0
  return value * (x / maximum(size, all(1e-30f)));
}

inline F16 one_by_one(F16 x, int64_t function) {  // rare ones
  float each[16];
  store(each, x);
  for (float& y : each)
    y = function == TS_LOG    ? __builtin_logf(y)
        : function == TS_SQRT ? __builtin_sqrtf(y)
        : function == TS_SIN  ? __builtin_sinf(y)
                              : __builtin_cosf(y);
  return load(each);
}

inline F16 activated(F16 x, int64_t activation) {
  const F16 half = all(0.5f), one = all(1.0f), zero = all(0.0f);
  switch (activation) {
    case TS_RELU: return maximum(zero, x);  // in this order NaN stays NaN
    case TS_RELU6: return minimum(all(6.0f), maximum(zero, x));
    case TS_GELU: return half * x * (one + error_function(x * all(0.70710678f)));
    case TS_GELU_TANH: return half * x * (one + tangent(all(0.79788456f) * fma(x * x * x, all(0.044715f), x)));
    case TS_SILU: return x * sigmoid(x);
    case TS_SIGMOID: return sigmoid(x);
    case TS_TANH: return tangent(x);
    case TS_HARD_SWISH: return x * minimum(one, maximum(zero, fma(x, all(1.0f / 6.0f), half)));
    case TS_HARD_SIGMOID: return minimum(one, maximum(zero, fma(x, all(1.0f / 6.0f), half)));
    case TS_EXP: return exponential(x);
    case TS_ERF: return error_function(x);
    case TS_ABS: return maximum(x, zero - x);
    case TS_LOG: return one_by_one(x, activation);
    case TS_SQRT: return one_by_one(x, activation);
    case TS_SIN: return one_by_one(x, activation);
    case TS_COS: return one_by_one(x, activation);
    default: return x;
  }
}

// Sums must stay in registers, so all loops over them are unrolled.
#define EACH_VECTOR _Pragma("GCC unroll 16") for (int t = 0; t < T; t++)

void activate(float* out, int64_t vectors, int64_t activation, const uint16_t* mask) {
  for (int64_t t = 0; t < vectors; t++) {
    const F16 x = activated(load(out + 16 * t), activation);
    store(out + 16 * t, mask ? keep(x, mask[t]) : x);
  }
}

// What follows every product: residual, activation, and zeros where the layout has its padding columns.
template <int T>
inline void finish(float* out, F16* sums, const float* residual, int64_t activation, const uint16_t* mask) {
  if (residual) EACH_VECTOR sums[t] = sums[t] + load(residual + 16 * t);
  const bool relu = activation == TS_RELU || activation == TS_RELU6;
  if (relu) {  // the common cases, in registers
    const F16 zero = all(0.0f), most = all(activation == TS_RELU6 ? 6.0f : __builtin_inff());
    EACH_VECTOR sums[t] = minimum(most, maximum(zero, sums[t]));
  }
  if (mask)
    EACH_VECTOR store(out + 16 * t, keep(sums[t], mask[t]));
  else
    EACH_VECTOR store(out + 16 * t, sums[t]);
  if (activation != TS_LINEAR && !relu) activate(out, T, activation, mask);
}

constexpr int AHEAD = 2048;  // weights between what is computed and what is fetched

// Calls body<n>() for a run-time n of 1..LIMIT.
template <int LIMIT, class Body>
inline void with_constant(int64_t n, Body&& body) {
  if constexpr (LIMIT > 0) {
    if (n == LIMIT)
      body.template operator()<LIMIT>();
    else
      with_constant<LIMIT - 1>(n, body);
  }
}

// ---- sparse convolutions, and products with batches ------------------------------------------------------------------

// Where taps read from, known two taps before: a processor that looks far ahead queues the loads of a tap while it waits for
// their address, and they are in the way of others. Behind the last tap there is room for two (pack.py).
struct Sources {
  const float* x;
  const float* now;
  const float* next;
  Sources(const float* from, const ts_tap* tap) : x(from), now(from + tap[0].offset), next(from + tap[1].offset) {}
  inline const float* take(const ts_tap* tap) {
    const float* source = now;
    now = next;
    next = x + tap[2].offset;
    return source;
  }
};

// Adds weight times input for each tap to T vectors of sums. Few vectors would leave the adders waiting for each other, so
// the sums are then kept in several parts.
template <int T>
inline void accumulate(F16* sums, const float* x, const ts_tap* tap, const ts_tap* end) {
  constexpr int PARTS = T >= 8 ? 1 : T >= 4 ? 2 : T >= 2 ? 4 : 6;
  Sources sources(x, tap);
  if constexpr (PARTS > 1) {
    if (tap + PARTS <= end) {
      F16 more[PARTS][T];
      for (int u = 1; u < PARTS; u++)
        EACH_VECTOR more[u][t] = all(0.0f);
      for (; tap + PARTS <= end; tap += PARTS) {
#pragma GCC unroll 8
        for (int u = 0; u < PARTS; u++) {
          const F16 weight = all(tap[u].weight);
          const float* source = sources.take(tap + u);
          F16* part = u ? more[u] : sums;
          EACH_VECTOR part[t] = fma(weight, load(source + 16 * t), part[t]);
        }
      }
      for (int u = 1; u < PARTS; u++)
        EACH_VECTOR sums[t] = sums[t] + more[u][t];
    }
  }
  for (; tap < end; tap++) {
    const F16 weight = all(tap->weight);
    const float* source = sources.take(tap);
    EACH_VECTOR sums[t] = fma(weight, load(source + 16 * t), sums[t]);
  }
}

struct TapsBody {
  const ts_sparse_conv& k;
  const float* x;
  float* out;
  const float* residual;
  const uint16_t* mask;
  const uint16_t* keeps;
  bool whole_rows;
  Range outputs;

  // T vectors of every output plane.
  template <int T>
  void operator()() const {
    for (int64_t b = 0; b < k.blocks; b++) {
      const int32_t* starts = k.starts + (b * k.out.planes + outputs.begin) * k.groups;
      const bool last = b == k.blocks - 1;
      for (int64_t o = outputs.begin; o < outputs.end; o++, starts += k.groups) {
        float* target = out + o * k.out.plane;
        if (b && starts[0] == starts[k.groups] && !last) continue;
        F16 total[T];
        const F16 begin = all(b ? 0.0f : k.bias[o]);  // what was summed before comes from the second cache: not waited for
        EACH_VECTOR total[t] = begin;
        accumulate<T>(total, x, k.taps + starts[0], k.taps + starts[1]);
        for (int64_t g = 1; g < k.groups; g++)
          if (starts[g] < starts[g + 1]) {
            const ts_tap *tap = k.taps + starts[g], *end = k.taps + starts[g + 1];
            if (!whole_rows)
              add_moved<T, true, T>(total, tap, end, g);
            else if (k.row_vectors == 1)
              add_moved<T, false, 1>(total, tap, end, g);
            else if (T % 2 == 0 && k.row_vectors == 2)
              add_moved<T, false, 2>(total, tap, end, g);
            else
              add_moved<T, false, T>(total, tap, end, g);
          }
        if (b) EACH_VECTOR total[t] = total[t] + load(target + 16 * t);
        if (last) {
          finish<T>(target, total, residual ? residual + o * k.residual.plane : nullptr, k.activation, mask);
        } else {
          EACH_VECTOR store(target + 16 * t, total[t]);
        }
      }
    }
  }

  // `NEIGHBOUR`: rows go on in other tiles, so that the vector beside this one must be known too. `ROW`: vectors of a row, where
  // all rows are alike.
  template <int T, bool NEIGHBOUR, int ROW>
  inline void add_moved(F16* total, const ts_tap* tap, const ts_tap* end, int64_t group) const {
    const F16 zero = all(0.0f);
    F16 sums[T + NEIGHBOUR];
    EACH_VECTOR sums[t] = zero;
    if (NEIGHBOUR) sums[T] = zero;
    uint16_t keeping[ROW];
    for (int t = 0; t < ROW; t++) keeping[t] = keeps[group * k.vectors + t];
    if (k.shifts[group] > 0) {
      accumulate<T + NEIGHBOUR>(sums, x, tap, end);
      const Move move = moving(k.shifts[group]);
      EACH_VECTOR {
        const F16 next = t + 1 < T + NEIGHBOUR ? sums[t + 1] : zero;
        const F16 there = ROW == 1 ? turned(sums[t], move) : moved(sums[t], next, move);
        total[t] = total[t] + keep(there, keeping[t % ROW]);
      }
    } else {
      accumulate<T + NEIGHBOUR>(sums, x - 16 * NEIGHBOUR, tap, end);
      const Move move = moving(16 + k.shifts[group]);
      EACH_VECTOR {
        const F16 previous = t + NEIGHBOUR > 0 ? sums[t + NEIGHBOUR - 1] : zero;
        const F16 there = ROW == 1 ? turned(sums[t], move) : moved(previous, sums[t + NEIGHBOUR], move);
        total[t] = total[t] + keep(there, keeping[t % ROW]);
      }
    }
  }
};

// The same with few taps for each output.
struct FewTapsBody {
  const ts_sparse_conv& k;
  const float* x;
  float* out;
  const float* residual;
  const uint16_t* mask;
  const uint16_t* keeps;
  Range outputs;

  template <int T>
  void operator()() const {
    for (int64_t o = outputs.begin; o < outputs.end; o++) {
      F16 total[T];
      const F16 bias = all(k.bias[o]);
      EACH_VECTOR total[t] = bias;
      for (int32_t i = k.starts[o]; i < k.starts[o + 1]; i++) {
        const F16 weight = all(k.taps[i].weight);
        const float* source = x + k.taps[i].offset;
        const uint16_t* kept = keeps + k.hides[i] * k.vectors;
        EACH_VECTOR total[t] = fma(weight, keep(load(source + 16 * t), kept[t]), total[t]);
      }
      finish<T>(out + o * k.out.plane, total, residual ? residual + o * k.residual.plane : nullptr, k.activation, mask);
    }
  }
};

int few_taps(const ts_sparse_conv& k, const Place& place, const Range& outputs) {
  constexpr int64_t MOST = ACCUMULATORS < 8 ? ACCUMULATORS : 8;
  for (int64_t s = 0; s < k.stretch_count; s++) {
    const ts_stretch& stretch = k.stretches[s];
    const int64_t chunks = (stretch.vectors + MOST - 1) / MOST;
    for (int64_t c = 0; c < chunks; c++) {
      const int64_t first = stretch.vectors * c / chunks, end = stretch.vectors * (c + 1) / chunks;
      const int64_t begin = stretch.out + 16 * first, vector = begin / 16;
      const FewTapsBody body{k, at(k.in, place) + stretch.in + 16 * first, at(k.out, place) + begin,
                             k.has_residual ? at(k.residual, place) + begin : nullptr, k.mask ? k.mask + vector : nullptr,
                             k.keeps + vector, outputs};
      with_constant<MOST>(end - first, body);
    }
  }
  return TS_OK;
}

int taps(const ts_op* op, const Place& place, Share share) {
  const auto& k = *reinterpret_cast<const ts_sparse_conv*>(op);
  const Range outputs = part(k.out.planes, share);
  if (k.hides) return few_taps(k, place, outputs);
  const int64_t tile = smaller(k.tile, ACCUMULATORS);
  const int64_t row = k.row_vectors, step = row <= tile ? row : 1;  // tiles are of whole rows, if there is room
  const int64_t most = tile / step;
  for (int64_t s = 0; s < k.stretch_count; s++) {
    const ts_stretch& stretch = k.stretches[s];
    const int64_t rows = (stretch.vectors + step - 1) / step, chunks = (rows + most - 1) / most;
    for (int64_t c = 0; c < chunks; c++) {
      const int64_t first = rows * c / chunks * step, end = smaller(stretch.vectors, rows * (c + 1) / chunks * step);
      const int64_t begin = stretch.out + 16 * first, vector = begin / 16;
      const TapsBody body{k, at(k.in, place) + stretch.in + 16 * first, at(k.out, place) + begin,
                          k.has_residual ? at(k.residual, place) + begin : nullptr, k.mask ? k.mask + vector : nullptr,
                          k.keeps ? k.keeps + vector : nullptr, row <= tile, outputs};
      with_constant<ACCUMULATORS>(end - first, body);
    }
  }
  return TS_OK;
}

// ---- the same, dense -------------------------------------------------------------------------------------------------

#define EACH_OUTPUT _Pragma("GCC unroll 8") for (int h = 0; h < HEIGHT; h++)

template <int HEIGHT>
struct TilesBody {
  const ts_dense_hx16& k;
  const float* x;
  float* out;
  const float* residual;
  const uint16_t* mask;
  Range outputs;

  template <int T>
  void operator()() const {
    for (int64_t b = 0; b < k.blocks; b++)
      for (int64_t o = outputs.begin; o < outputs.end; o += HEIGHT) block<T>(o, b);
  }

  template <int T>
  void block(int64_t o, int64_t b) const {
    const bool last = b == k.blocks - 1;
    const int64_t begin = k.taps * b / k.blocks, end = k.taps * (b + 1) / k.blocks;
    F16 sums[HEIGHT][T];
    EACH_OUTPUT {
      const F16 bias = all(k.bias[o + h]);
      const float* so_far = out + (o + h) * k.out.plane;
      EACH_VECTOR sums[h][t] = b && o + h < outputs.end ? load(so_far + 16 * t) : bias;
    }
    const float* weight = k.weights + o * k.taps + begin * HEIGHT;
    for (int64_t i = begin; i < end; i++, weight += HEIGHT) {
      F16 inputs[T];
      const float* source = x + k.offsets[i];
      __builtin_prefetch(weight + AHEAD / 4);  // weights may come from memory, where nothing else is waited for
      EACH_VECTOR inputs[t] = load(source + 16 * t);
      EACH_OUTPUT {
        const F16 w = all(weight[h]);
        EACH_VECTOR sums[h][t] = fma(w, inputs[t], sums[h][t]);
      }
    }
    EACH_OUTPUT {
      if (o + h >= outputs.end) break;
      if (!last) {
        EACH_VECTOR store(out + (o + h) * k.out.plane + 16 * t, sums[h][t]);
      } else {
        finish<T>(out + (o + h) * k.out.plane, sums[h], residual ? residual + (o + h) * k.residual.plane : nullptr,
                  k.activation, mask);
      }
    }
  }
};

template <int HEIGHT, int LIMIT>
void tiles_of(const ts_dense_hx16& k, const Place& place, Share share) {
  const Range outputs = part(k.out.planes, share, HEIGHT);
  for (int64_t s = 0; s < k.stretch_count; s++) {
    const ts_stretch& stretch = k.stretches[s];
    const int64_t chunks = (stretch.vectors + LIMIT - 1) / LIMIT;
    for (int64_t c = 0; c < chunks; c++) {
      const int64_t first = stretch.vectors * c / chunks, end = stretch.vectors * (c + 1) / chunks;
      const int64_t begin = stretch.out + 16 * first;
      const TilesBody<HEIGHT> body{k, at(k.in, place) + stretch.in + 16 * first, at(k.out, place) + begin,
                                   k.has_residual ? at(k.residual, place) + begin : nullptr,
                                   k.mask ? k.mask + begin / 16 : nullptr, outputs};
      with_constant<LIMIT>(end - first, body);
    }
  }
}

int tiles(const ts_op* op, const Place& place, Share share) {
  const auto& k = *reinterpret_cast<const ts_dense_hx16*>(op);
  if (k.height == 8)
    tiles_of<8, DENSE_TALL>(k, place, share);
  else
    tiles_of<4, DENSE_SMALL>(k, place, share);
  return TS_OK;
}

// ---- the same, dense, without regard to rows --------------------------------------------------------------------------------

// Sixteen by sixteen: each round deals the array like a pack of cards into even and odd, which turns the eight bits of an
// element's address by one; after four rounds row and column have changed places.
inline void transpose(F16* r) {
  F16 s[16];
  for (int round = 0; round < 4; round++) {
    for (int i = 0; i < 8; i++) deal(r[2 * i], r[2 * i + 1], s[i], s[i + 8]);
    for (int i = 0; i < 16; i++) r[i] = s[i];
  }
}

// Where what belongs to a tile of pixels lies one behind the other in an output plane: pixels `mask`, the first of which would
// begin at `offset`.
struct Run {
  int64_t offset;
  uint16_t mask;
};

#define EACH_PIXEL _Pragma("GCC unroll 16") for (int p = 0; p < P; p++)
#define EACH_PART _Pragma("GCC unroll 2") for (int h = 0; h < H; h++)

// H vectors of outputs, from `first` on.
template <int H>
struct PixelsBody {
  const ts_dense_px32& k;
  const float* x;
  float* out;
  const float* residual;
  int64_t first, width, begin;  // width: floats between the weights of two taps

  template <int P>
  void operator()() const {
    const int32_t* from = k.from + begin;
    const float* weight = k.weights + first / 32 * 32 * k.taps + first % 32;
    F16 sums[P][H];
    EACH_PIXEL EACH_PART sums[p][h] = load(k.bias + first + 16 * h);
    for (int64_t i = 0; i < k.taps; i++, weight += width) {
      const float* source = x + k.offsets[i];
      __builtin_prefetch(weight + AHEAD / 4);
      F16 weights[H];
      EACH_PART weights[h] = load(weight + 16 * h);
      EACH_PIXEL {
        const F16 input = all(source[from[p]]);
        EACH_PART sums[p][h] = fma(input, weights[h], sums[p][h]);
      }
    }
    Run runs[P];
    int count = 0;
    for (int p = 0; p < P; p++) {
      const int64_t offset = k.to[begin + p] - p;
      if (!count || runs[count - 1].offset != offset) runs[count++] = {offset, 0};
      runs[count - 1].mask = static_cast<uint16_t>(runs[count - 1].mask | 1u << p);
    }
    EACH_PART {
      F16 turned[16];
      for (int p = 0; p < 16; p++) turned[p] = p < P ? sums[p][h] : all(0.0f);
      transpose(turned);
      const int64_t end = smaller(16, k.out.planes - first - 16 * h);
      for (int64_t o = 0; o < end; o++) finish_runs(turned[o], first + 16 * h + o, runs, count);
    }
  }

  inline void finish_runs(F16 sum, int64_t o, const Run* runs, int count) const {
    if (residual)
      for (int r = 0; r < count; r++) sum = sum + load_some(residual + o * k.residual.plane + runs[r].offset, runs[r].mask);
    if (k.activation == TS_RELU || k.activation == TS_RELU6)  // the common cases, without a call
      sum = minimum(all(k.activation == TS_RELU6 ? 6.0f : __builtin_inff()), maximum(all(0.0f), sum));
    else if (k.activation != TS_LINEAR)
      sum = activated(sum, k.activation);
    for (int r = 0; r < count; r++) store_some(out + o * k.out.plane + runs[r].offset, sum, runs[r].mask);
  }
};

int pixels(const ts_op* op, const Place& place, Share share) {
  const auto& k = *reinterpret_cast<const ts_dense_px32*>(op);
  const int64_t all_pixels = op->batch ? smaller(k.pixels, place.samples) : k.pixels;  // lanes without a sample cost nothing
  const int64_t groups = (k.out.planes + 31) / 32, tiles = (all_pixels + PIXELS - 1) / PIXELS;
  const float* residual = k.has_residual ? at(k.residual, place) : nullptr;
  const Range range = part(groups * tiles, share);
  for (int64_t i = range.begin; i < range.end; i++) {
    const int64_t first = i / tiles * 32, tile = i % tiles;
    const int64_t begin = all_pixels * tile / tiles, count = all_pixels * (tile + 1) / tiles - begin;
    const int64_t parts = k.out.planes - first > 16 ? 2 : 1;
    for (int64_t h = 0; h < parts; h += PIXEL_VECTORS) {
      if (parts >= PIXEL_VECTORS)
        with_constant<PIXELS>(count, PixelsBody<PIXEL_VECTORS>{k, at(k.in, place), at(k.out, place), residual,
                                                              first + 16 * h, 16 * parts, begin});
      else
        with_constant<PIXELS>(count, PixelsBody<1>{k, at(k.in, place), at(k.out, place), residual, first, 16, begin});
    }
  }
  return TS_OK;
}

// ---- products with one vector ----------------------------------------------------------------------------------------

// Residual and activation of 16 outputs that lie anywhere.
inline void scatter(float* out, F16 sum, const float* residual, const int32_t* order, int64_t outputs, int64_t activation) {
  float values[16] = {};
  if (residual) {
    for (int i = 0; i < 16; i++)
      if (order[i] < outputs) values[i] = residual[order[i]];
    sum = sum + load(values);
  }
  store(values, activated(sum, activation));
  for (int i = 0; i < 16; i++)
    if (order[i] < outputs) out[order[i]] = values[i];
}

template <class Weight, int WIDTH>
void slices_of(const ts_sell& k, const Place& place, Share share) {
  const float* x = at(k.in, place);
  float* out = at(k.out, place);
  const float* residual = k.has_residual ? at(k.residual, place) : nullptr;
  // the caller's array ends where its inputs end: the last block is read from a copy
  float tail[WIDTH] = {};
  const int64_t whole = k.blocks - 1;
  for (int64_t i = WIDTH * whole; i < k.in.planes; i++) tail[i - WIDTH * whole] = x[i];
  const Range slices = part(k.slices, share);
  for (int64_t s = slices.begin; s < slices.end; s++) {
    const F16 bias = load(k.bias + 16 * s), zero = all(0.0f);
    F16 a = k.scales ? zero : bias, b = zero, c = zero, d = zero;
    const uint16_t* slots = k.slots + s * k.blocks;
    const Weight* weight = static_cast<const Weight*>(k.values) + 16 * k.first[s];
    const uint8_t* column = k.columns + 16 * k.first[s];
    for (int64_t j = 0; j < k.blocks; j++) {
      const float* from = j < whole ? x + WIDTH * j : tail;
      const auto inputs = [&] {
        if constexpr (WIDTH == 64) return block(from);
        else return wide_block(from);
      }();
      int64_t i = slots[j];
      for (; i >= 4; i -= 4, weight += 64, column += 64) {
        if (WIDTH == 128) {  // memory is what is waited for: ask for it before, also beyond the end of a page
          constexpr int LINE = 64 / sizeof(Weight);
          for (int ahead = AHEAD; ahead < AHEAD + 64; ahead += LINE) __builtin_prefetch(weight + ahead);
          __builtin_prefetch(column + AHEAD);
        }
        a = fma(pick(inputs, column), widen(weight), a);
        b = fma(pick(inputs, column + 16), widen(weight + 16), b);
        c = fma(pick(inputs, column + 32), widen(weight + 32), c);
        d = fma(pick(inputs, column + 48), widen(weight + 48), d);
      }
      if (i & 2) {
        a = fma(pick(inputs, column), widen(weight), a);
        b = fma(pick(inputs, column + 16), widen(weight + 16), b);
        weight += 32, column += 32;
      }
      if (i & 1) {
        c = fma(pick(inputs, column), widen(weight), c);
        weight += 16, column += 16;
      }
    }
    F16 sum = (a + b) + (c + d);
    if (k.scales) sum = fma(sum, load(k.scales + 16 * s), bias);
    if (k.order) {
      scatter(out, sum, residual, k.order + 16 * s, k.out.planes, k.activation);
      continue;
    }
    const int64_t left = k.out.planes - 16 * s;
    if (residual) sum = sum + load_first(residual + 16 * s, left);
    store_first(out + 16 * s, activated(sum, k.activation), left);
  }
}

template <class Weight>
void slices_by_width(const ts_sell& k, const Place& place, Share share) {
  if (k.width == 64)
    slices_of<Weight, 64>(k, place, share);
  else
    slices_of<Weight, 128>(k, place, share);
}

int slices(const ts_op* op, const Place& place, Share share) {
  const auto& k = *reinterpret_cast<const ts_sell*>(op);
  if (k.dtype == TS_F32) slices_by_width<float>(k, place, share);
  if (k.dtype == TS_BF16) slices_by_width<uint16_t>(k, place, share);
  if (k.dtype == TS_I8) slices_by_width<int8_t>(k, place, share);
  return TS_OK;
}

template <class Weight>
void bitmap_of(const ts_bitmask& k, const Place& place, Share share) {
  constexpr int WIDTH = 64, ROWS = 8, FAR = 8192 / sizeof(Weight), LINE = 64 / sizeof(Weight);
  const float* x = at(k.in, place);
  float* out = at(k.out, place);
  const float* residual = k.has_residual ? at(k.residual, place) : nullptr;
  float tail[WIDTH] = {};  // the caller's array ends where its inputs end
  const int64_t whole = k.blocks - 1;
  for (int64_t i = WIDTH * whole; i < k.in.planes; i++) tail[i - WIDTH * whole] = x[i];
  const Range groups = part((k.out.planes + ROWS - 1) / ROWS, share);
  for (int64_t g = groups.begin; g < groups.end; g++) {
    const uint64_t* bits = k.bits + g * k.blocks * ROWS;
    const Weight* weight = static_cast<const Weight*>(k.values) + k.first[g];
    F16 sums[ROWS];
    for (int r = 0; r < ROWS; r++) sums[r] = all(0.0f);
    for (int64_t j = 0; j < k.blocks; j++) {
      const float* from = j < whole ? x + WIDTH * j : tail;
      const F16 inputs[4] = {load(from), load(from + 16), load(from + 32), load(from + 48)};
#pragma GCC unroll 8
      for (int r = 0; r < ROWS; r++, bits++) {
        const auto* quarter = reinterpret_cast<const uint16_t*>(bits);
        for (int ahead = FAR; ahead < FAR + 32; ahead += LINE) __builtin_prefetch(weight + ahead);
        F16 sum = sums[r];
        sum = fma(expand(quarter, weight), inputs[0], sum);
        sum = fma(expand(quarter + 1, weight + __builtin_popcountll(*bits & 0xffff)), inputs[1], sum);
        sum = fma(expand(quarter + 2, weight + __builtin_popcountll(*bits & 0xffffffff)), inputs[2], sum);
        sums[r] = fma(expand(quarter + 3, weight + __builtin_popcountll(*bits << 16)), inputs[3], sum);
        weight += __builtin_popcountll(*bits);
      }
    }
    float totals[16] = {};
    for (int r = 0; r < ROWS; r++) totals[r] = sum(sums[r]);
    const int64_t o = ROWS * g, left = smaller(ROWS, k.out.planes - o);
    const F16 bias = load_first(k.bias + o, left);
    F16 total = k.scales ? fma(load(totals), load_first(k.scales + o, left), bias) : load(totals) + bias;
    if (residual) total = total + load_first(residual + o, left);
    store_first(out + o, activated(total, k.activation), left);
  }
}

int bitmap(const ts_op* op, const Place& place, Share share) {
  const auto& k = *reinterpret_cast<const ts_bitmask*>(op);
  if (k.dtype == TS_F32) bitmap_of<float>(k, place, share);
  if (k.dtype == TS_BF16) bitmap_of<uint16_t>(k, place, share);
  if (k.dtype == TS_I8) bitmap_of<int8_t>(k, place, share);
  return TS_OK;
}

// `FETCH`: the weights come from memory, and are asked for before.
template <class Weight, bool FETCH>
void rows_of(const ts_gemv& k, const Place& place, Share share) {
  constexpr int GROUP = 8, AT_ONCE = ACCUMULATORS >= 12 ? GROUP : 4;
  constexpr int FAR = 8192 / sizeof(Weight), LINE = 64 / sizeof(Weight);
  const float* x = at(k.in, place);
  float* out = at(k.out, place);
  const float* residual = k.has_residual ? at(k.residual, place) : nullptr;
  const int64_t blocks = (k.inputs + 15) / 16;
  const Range outputs = part(k.out.planes, share, AT_ONCE);
  for (int64_t o = outputs.begin; o < outputs.end; o += AT_ONCE) {
    const Weight* weight = static_cast<const Weight*>(k.weights) + (o / GROUP * blocks * GROUP + o % GROUP) * 16;
    F16 sums[AT_ONCE];
    for (int h = 0; h < AT_ONCE; h++) sums[h] = all(0.0f);
    for (int64_t j = 0; j < blocks; j++, weight += 16 * GROUP) {
      const F16 inputs = j < blocks - 1 ? load(x + 16 * j) : load_first(x + 16 * j, k.inputs - 16 * j);
      if (FETCH)
        for (int ahead = FAR; ahead < FAR + 16 * AT_ONCE; ahead += LINE) __builtin_prefetch(weight + ahead);
#pragma GCC unroll 8
      for (int h = 0; h < AT_ONCE; h++) sums[h] = fma(widen(weight + 16 * h), inputs, sums[h]);
    }
    float totals[16] = {};
    for (int h = 0; h < AT_ONCE; h++) totals[h] = k.bias[o + h] + sum(sums[h]) * (k.scales ? k.scales[o + h] : 1.0f);
    const int64_t left = smaller(AT_ONCE, k.out.planes - o);
    F16 total = load(totals);
    if (residual) total = total + load_first(residual + o, left);
    store_first(out + o, activated(total, k.activation), left);
  }
}

template <class Weight>
void rows_by_size(const ts_gemv& k, const Place& place, Share share) {
  constexpr int64_t IN_CACHE = 1 << 20;
  if (k.inputs * k.out.planes * static_cast<int64_t>(sizeof(Weight)) > IN_CACHE)
    rows_of<Weight, true>(k, place, share);
  else
    rows_of<Weight, false>(k, place, share);
}

int rows(const ts_op* op, const Place& place, Share share) {
  const auto& k = *reinterpret_cast<const ts_gemv*>(op);
  if (k.dtype == TS_F32) rows_by_size<float>(k, place, share);
  if (k.dtype == TS_BF16) rows_by_size<uint16_t>(k, place, share);
  if (k.dtype == TS_I8) rows_by_size<int8_t>(k, place, share);
  return TS_OK;
}

// ---- pooling -----------------------------------------------------------------------------------------------------------

void pool_pairs(const ts_pool& k, const float* in, float* out) {  // windows of 2 by 2 that do not overlap
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

float pool_all(const ts_pool& k, const float* in) {  // one window as large as the plane
  F16 pooled = all(k.average ? 0.0f : -__builtin_inff());
  float last = k.average ? 0.0f : -__builtin_inff();
  for (int64_t r = 0; r < k.in.rows; r++) {
    int64_t c = 0;
    for (; c + 16 <= k.in.cols; c += 16) {
      const F16 x = load(in + r * k.in.row + c);
      pooled = k.average ? pooled + x : maximum(pooled, x);
    }
    for (; c < k.in.cols; c++) {
      const float x = in[r * k.in.row + c];
      last = k.average ? last + x : x > last ? x : last;
    }
  }
  if (k.average) return (sum(pooled) + last) / static_cast<float>(k.in.rows * k.in.cols);
  const float most = largest(pooled);
  return most > last ? most : last;
}

constexpr int64_t WIDEST = 4096;

// Any window: the rows of it into one, which has room for the padding, then its columns.
void pool_any(const ts_pool& k, const float* in, float* out) {
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
void pool_lanes(const ts_pool& k, const float* in, float* out) {
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

int pool(const ts_op* op, const Place& place, Share share) {
  const auto& k = *reinterpret_cast<const ts_pool*>(op);
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
  return TS_OK;
}

// ---- elementwise, and what normalises ----------------------------------------------------------------------------------

int binary(const ts_op* op, const Place& place, Share share) {
  const auto& k = *reinterpret_cast<const ts_binary_op*>(op);
  const Range planes = part(k.out.planes, share);
  for (int64_t p = planes.begin; p < planes.end; p++) {
    const float *left = at(k.left, place) + p * k.left.plane, *right = at(k.right, place) + p * k.right.plane;
    float* out = at(k.out, place) + p * k.out.plane;
    for (int64_t v = 0; v < k.vectors; v++) {
      const F16 a = load(left + 16 * v), b = load(right + 16 * v);
      const F16 c = k.binary == TS_ADD ? a + b : k.binary == TS_SUB ? a - b : a * b;
      const F16 result = activated(c, k.activation);
      store(out + 16 * v, k.mask ? keep(result, k.mask[v]) : result);
    }
  }
  return TS_OK;
}

int affine(const ts_op* op, const Place& place, Share share) {
  const auto& k = *reinterpret_cast<const ts_affine*>(op);
  const Range planes = part(k.out.planes, share);
  for (int64_t p = planes.begin; p < planes.end; p++) {
    const float* in = at(k.in, place) + p * k.in.plane;
    float* out = at(k.out, place) + p * k.out.plane;
    const F16 scale = all(k.scale ? k.scale[p] : 1.0f), shift = all(k.shift ? k.shift[p] : 0.0f);
    for (int64_t v = 0; v < k.vectors; v++) {
      const F16 result = activated(fma(load(in + 16 * v), scale, shift), k.activation);
      store(out + 16 * v, k.mask ? keep(result, k.mask[v]) : result);
    }
  }
  return TS_OK;
}

int norm(const ts_op* op, const Place& place, Share share) {
  const auto& k = *reinterpret_cast<const ts_norm*>(op);
  const float* in = at(k.in, place);
  float* out = at(k.out, place);
  const int64_t n = k.in.planes;
  const float each = 1.0f / static_cast<float>(n), epsilon = static_cast<float>(k.epsilon);
  if (k.in.plane == 1) {
    if (share.index) return TS_OK;
    F16 total = all(0.0f), squares = all(0.0f);
    for (int64_t i = 0; i < n; i += 16) total = total + load_first(in + i, n - i);
    const float mean = k.rms ? 0.0f : sum(total) * each;
    for (int64_t i = 0; i < n; i += 16) {
      const int64_t left = n - i;
      F16 x = load_first(in + i, left) - all(mean);
      if (left < 16) x = keep(x, static_cast<uint16_t>((1 << left) - 1));
      squares = fma(x, x, squares);
    }
    const float scale = 1.0f / __builtin_sqrtf(sum(squares) * each + epsilon);
    for (int64_t i = 0; i < n; i += 16) {
      const int64_t left = n - i;
      const F16 x = (load_first(in + i, left) - all(mean)) * all(scale);
      store_first(out + i, fma(x, load_first(k.scale + i, left), load_first(k.shift + i, left)), left);
    }
    return TS_OK;
  }
  const Range columns = part(k.in.cols, share, 16);
  for (int64_t c = columns.begin; c < columns.end; c += 16) {
    F16 total = all(0.0f), squares = all(0.0f);
    for (int64_t p = 0; p < n; p++) total = total + load(in + p * k.in.plane + c);
    const F16 mean = k.rms ? all(0.0f) : total * all(each);
    for (int64_t p = 0; p < n; p++) {
      const F16 x = load(in + p * k.in.plane + c) - mean;
      squares = fma(x, x, squares);
    }
    float deviation[16];
    store(deviation, fma(squares, all(each), all(epsilon)));
    for (float& d : deviation) d = 1.0f / __builtin_sqrtf(d);
    const F16 scale = load(deviation);
    for (int64_t p = 0; p < n; p++) {
      const F16 x = (load(in + p * k.in.plane + c) - mean) * scale;
      store(out + p * k.out.plane + c, fma(x, all(k.scale[p]), all(k.shift[p])));
    }
  }
  return TS_OK;
}

int softmax(const ts_op* op, const Place& place, Share share) {
  const auto& k = *reinterpret_cast<const ts_softmax*>(op);
  const float* in = at(k.in, place);
  float* out = at(k.out, place);
  const int64_t n = k.in.planes;
  if (k.in.plane == 1) {
    if (share.index) return TS_OK;
    float most = in[0], total = 0.0f;
    for (int64_t i = 1; i < n; i++) most = in[i] > most ? in[i] : most;
    for (int64_t i = 0; i < n; i += 16) {
      const int64_t left = n - i;
      F16 e = exponential(load_first(in + i, left) - all(most));
      if (left < 16) e = keep(e, static_cast<uint16_t>((1 << left) - 1));
      store_first(out + i, e, left);
      total += sum(e);
    }
    const F16 each = all(1.0f / total);
    for (int64_t i = 0; i < n; i += 16) store_first(out + i, load_first(out + i, n - i) * each, n - i);
    return TS_OK;
  }
  const Range columns = part(k.in.cols, share, 16);
  for (int64_t c = columns.begin; c < columns.end; c += 16) {
    F16 most = load(in + c), total = all(0.0f);
    for (int64_t p = 1; p < n; p++) most = maximum(most, load(in + p * k.in.plane + c));
    for (int64_t p = 0; p < n; p++) {
      const F16 e = exponential(load(in + p * k.in.plane + c) - most);
      store(out + p * k.out.plane + c, e);
      total = total + e;
    }
    const F16 each = all(1.0f) / total;
    for (int64_t p = 0; p < n; p++) store(out + p * k.out.plane + c, load(out + p * k.out.plane + c) * each);
  }
  return TS_OK;
}

// ---- sequences ---------------------------------------------------------------------------------------------------------

int embed(const ts_op* op, const Place& place, Share share) {
  const auto& k = *reinterpret_cast<const ts_embed*>(op);
  const auto* token = reinterpret_cast<const int64_t*>(place.space[k.space]);
  float* out = at(k.out, place);
  for (int64_t c = 0; c < k.out.cols; c++)
    if (token[c] < 0 || token[c] >= k.tokens) return TS_BAD_TOKEN;
  const Range planes = part(k.out.planes, share);
  for (int64_t c = 0; c < k.out.cols; c++) {
    const float* row = k.table + token[c] * k.out.planes;
    for (int64_t p = planes.begin; p < planes.end; p++) out[p * k.out.plane + c] = row[p];
  }
  return TS_OK;
}

// Columns are queries: a vector holds one score of sixteen queries, and nothing is ever summed across lanes.
int attention(const ts_op* op, const Place& place, Share share) {
  const auto& k = *reinterpret_cast<const ts_attention*>(op);
  const int64_t tokens = k.out.cols, width = k.out.planes / k.heads, stride = (tokens + 15) / 16 * 16;
  const Range heads = part(k.heads, share);
  for (int64_t h = heads.begin; h < heads.end; h++) {
    const float* query = at(k.query, place) + h * width * k.query.plane;
    const float* key = at(k.key, place) + h * width * k.key.plane;
    const float* value = at(k.value, place) + h * width * k.value.plane;
    float* out = at(k.out, place) + h * width * k.out.plane;
    if (k.out.plane == 1) {  // one token attends to itself
      for (int64_t d = 0; d < width; d++) out[d] = value[d];
      continue;
    }
    float* scores = at(k.scratch, place) + h * tokens * stride;
    for (int64_t c = 0; c < tokens; c += 16) {
      const int64_t seen = k.causal ? smaller(tokens, c + 16) : tokens;
      F16 most = all(-__builtin_inff());
      for (int64_t j = 0; j < seen; j++) {
        F16 even = all(0.0f), odd = all(0.0f);
        int64_t d = 0;
        for (; d + 2 <= width; d += 2) {
          even = fma(all(key[d * k.key.plane + j]), load(query + d * k.query.plane + c), even);
          odd = fma(all(key[(d + 1) * k.key.plane + j]), load(query + (d + 1) * k.query.plane + c), odd);
        }
        if (d < width) even = fma(all(key[d * k.key.plane + j]), load(query + d * k.query.plane + c), even);
        F16 score = (even + odd) * all(static_cast<float>(k.scale));
        if (k.causal && j > c) {  // queries c .. j-1 must not see token j
          const uint16_t future = static_cast<uint16_t>((1u << (j - c)) - 1);
          score = keep(score, static_cast<uint16_t>(~future)) - keep(all(1e30f), future);
        }
        store(scores + j * stride + c, score);
        most = maximum(most, score);
      }
      F16 total = all(0.0f);
      for (int64_t j = 0; j < seen; j++) {
        const F16 e = exponential(load(scores + j * stride + c) - most);
        store(scores + j * stride + c, e);
        total = total + e;
      }
      const F16 each = all(1.0f) / total;
      for (int64_t d = 0; d < width; d++) {
        const float* v = value + d * k.value.plane;
        F16 even = all(0.0f), odd = all(0.0f);
        int64_t j = 0;
        for (; j + 2 <= seen; j += 2) {
          even = fma(all(v[j]), load(scores + j * stride + c), even);
          odd = fma(all(v[j + 1]), load(scores + (j + 1) * stride + c), odd);
        }
        if (j < seen) even = fma(all(v[j]), load(scores + j * stride + c), even);
        store(out + d * k.out.plane + c, (even + odd) * each);
      }
    }
  }
  return TS_OK;
}

// ---- copies between layouts ----------------------------------------------------------------------------------------------

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

void copy_lanes(const ts_copy& k, const float* in, float* out, int64_t samples) {
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

int copy(const ts_op* op, const Place& place, Share share) {
  const auto& k = *reinterpret_cast<const ts_copy*>(op);
  const float* in = place.space[k.in.space] + k.in.base + k.in.sample * place.sample;
  float* out = place.space[k.out.space] + k.out.base + k.out.sample * place.sample;
  const int64_t cols = k.cols;
  const Range planes = part(k.planes, share, 16);
  const int64_t n = planes.end - planes.begin;
  if (n <= 0) return TS_OK;
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
  return TS_OK;
}

// All reads are within scratch memory.
int deal_columns(const ts_op* op, const Place& place, Share share) {
  const auto& k = *reinterpret_cast<const ts_deal*>(op);
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
  return TS_OK;
}

#include "arrays.inl"
#include "winograd.inl"

// In the order of ts_kind.
const Kernels TABLE = {{copy, taps, tiles, slices, rows, pool, binary, affine, norm, softmax, embed, attention, map, reduce,
                        matmul, normalise, attend, deal_columns, pixels, bitmap, winograd}};
