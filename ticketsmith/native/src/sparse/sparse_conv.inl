// Sparse convolutions, and sparse products with planes: an output plane is a sum of shifted input planes.
#pragma once
#include "dense/quantise.inl"

// Where taps read from, known two taps before: a processor that looks far ahead queues the loads of a tap while it waits for
// their address, and they are in the way of others. Behind the last tap there is room for two (ticketsmith/sparse).
struct Sources {
  const float* x;
  const float* now;
  const float* next;
  Sources(const float* from, const Tap* tap) : x(from), now(from + tap[0].offset), next(from + tap[1].offset) {}
  inline const float* take(const Tap* tap) {
    const float* source = now;
    now = next;
    next = x + tap[2].offset;
    return source;
  }
};

// Adds weight times input for each tap to T vectors of sums. Few vectors would leave the adders waiting for each other, so
// the sums are then kept in several parts.
template <int T>
inline __attribute__((always_inline)) void accumulate(F16* sums, const float* x, const Tap* tap, const Tap* end) {
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

// Taps between what is computed and what is fetched: a row of a product with tokens has few in a block, and what lies between
// reads of its inputs hides from the processor that taps are read in order.
constexpr int64_t TAPS_AHEAD = 64;

struct SparseConvTile {
  const SparseConv& k;
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
        __builtin_prefetch(k.taps + starts[0] + TAPS_AHEAD);
        __builtin_prefetch(k.taps + starts[0] + TAPS_AHEAD + 8);
        accumulate<T>(total, x, k.taps + starts[0], k.taps + starts[1]);
        for (int64_t g = 1; g < k.groups; g++)
          if (starts[g] < starts[g + 1]) {
            const Tap *tap = k.taps + starts[g], *end = k.taps + starts[g + 1];
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
  inline __attribute__((always_inline)) void add_moved(F16* total, const Tap* tap, const Tap* end, int64_t group) const {
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

// T vectors of every output plane, with few taps for each.
struct FewTapsTile {
  const SparseConv& k;
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

int few_taps(const SparseConv& k, const Place& place, const Range& outputs) {
  constexpr int64_t MOST = ACCUMULATORS < 8 ? ACCUMULATORS : 8;
  for (int64_t s = 0; s < k.stretch_count; s++) {
    const Stretch& stretch = k.stretches[s];
    const int64_t chunks = (stretch.vectors + MOST - 1) / MOST;
    for (int64_t c = 0; c < chunks; c++) {
      const int64_t first = stretch.vectors * c / chunks, end = stretch.vectors * (c + 1) / chunks;
      const int64_t begin = stretch.out + 16 * first, vector = begin / 16;
      const FewTapsTile body{k, at(k.in, place) + stretch.in + 16 * first, at(k.out, place) + begin,
                             k.has_residual ? at(k.residual, place) + begin : nullptr, k.mask ? k.mask + vector : nullptr,
                             k.keeps + vector, outputs};
      with_constant<MOST>(end - first, body);
      if (k.rounds) round_tile(k, place, outputs, begin, end - first);
    }
  }
  return Status::OK;
}

// The loop over tiles stands in the operation's own function: in one that is given addresses, GCC 12 inlines otherwise for AVX2,
// and convolutions took 5 % longer.
int sparse_conv(const SparseConv& k, const Place& place, Share share) {
  const Range outputs = output_part(k, share);
  if (k.hides) return few_taps(k, place, outputs);
  const int64_t tile = smaller(k.tile, ACCUMULATORS);
  const int64_t row = k.row_vectors, step = row <= tile ? row : 1;  // tiles are of whole rows, if there is room
  const int64_t most = tile / step;
  for (int64_t s = 0; s < k.stretch_count; s++) {
    const Stretch& stretch = k.stretches[s];
    const int64_t rows = (stretch.vectors + step - 1) / step, chunks = (rows + most - 1) / most;
    for (int64_t c = 0; c < chunks; c++) {
      const int64_t first = rows * c / chunks * step, end = smaller(stretch.vectors, rows * (c + 1) / chunks * step);
      const int64_t begin = stretch.out + 16 * first, vector = begin / 16;
      const SparseConvTile body{k, at(k.in, place) + stretch.in + 16 * first, at(k.out, place) + begin,
                                k.has_residual ? at(k.residual, place) + begin : nullptr, k.mask ? k.mask + vector : nullptr,
                                k.keeps ? k.keeps + vector : nullptr, row <= tile, outputs};
      with_constant<ACCUMULATORS>(end - first, body);
      if (k.rounds) round_tile(k, place, outputs, begin, end - first);
    }
  }
  return Status::OK;
}

// T vectors of four output planes at a time, which have the same taps: an input is read once for all four, so that it may lie
// anywhere, and nothing is moved.
struct FourOutputsTile {
  const SparseConvFours& k;
  const float* x;
  float* out;
  const float* residual;
  const uint16_t* mask;
  const uint16_t* keeps;
  Range fours;

  template <int T>
  void operator()() const {
    for (int64_t b = 0; b < k.blocks; b++) {
      const int32_t* starts = k.starts + (b * ((k.out.planes + 3) / 4) + fours.begin) * k.groups;
      const bool last = b == k.blocks - 1;
      for (int64_t f = fours.begin; f < fours.end; f++, starts += k.groups) {
        if (b && starts[0] == starts[k.groups] && !last) continue;
        F16 total[4 * T];
        _Pragma("GCC unroll 4") for (int r = 0; r < 4; r++) {
          const F16 begin = all(b ? 0.0f : k.bias[4 * f + r]);
          EACH_VECTOR total[T * r + t] = begin;
        }
        add<T, false>(total, starts[0], starts[1], nullptr);
        for (int64_t g = 1; g < k.groups; g++) add<T, true>(total, starts[g], starts[g + 1], keeps + g * k.vectors);
        for (int64_t o = 4 * f; o < smaller(4 * f + 4, k.out.planes); o++) {
          float* target = out + o * k.out.plane;
          F16* sums = total + T * (o - 4 * f);
          if (b) EACH_VECTOR sums[t] = sums[t] + load(target + 16 * t);
          if (last) {
            finish<T>(target, sums, residual ? residual + o * k.residual.plane : nullptr, k.activation, mask);
          } else {
            EACH_VECTOR store(target + 16 * t, sums[t]);
          }
        }
      }
    }
  }

  // Adds taps that are moved alike. `HIDES`: `kept` hides what lies beyond the ends of rows.
  template <int T, bool HIDES>
  inline __attribute__((always_inline)) void add(F16* total, int64_t begin, int64_t end, const uint16_t* kept) const {
    const float* weights = k.weights + 4 * begin;
    for (int64_t tap = begin; tap < end; tap++, weights += 4) {
      const float* source = x + k.offsets[tap];
      F16 weight[4];
      _Pragma("GCC unroll 4") for (int r = 0; r < 4; r++) weight[r] = all(weights[r]);
      EACH_VECTOR {
        const F16 input = HIDES ? keep(load(source + 16 * t), kept[t]) : load(source + 16 * t);
        _Pragma("GCC unroll 4") for (int r = 0; r < 4; r++) total[T * r + t] = fma(weight[r], input, total[T * r + t]);
      }
    }
  }
};

int sparse_conv_fours(const SparseConvFours& k, const Place& place, Share share) {
  const Range fours = part((k.out.planes + 3) / 4, share);
  for (int64_t s = 0; s < k.stretch_count; s++) {
    const Stretch& stretch = k.stretches[s];
    const int64_t chunks = (stretch.vectors + FOUR_OUTPUTS - 1) / FOUR_OUTPUTS;
    for (int64_t c = 0; c < chunks; c++) {
      const int64_t first = stretch.vectors * c / chunks, end = stretch.vectors * (c + 1) / chunks;
      const int64_t begin = stretch.out + 16 * first, vector = begin / 16;
      const FourOutputsTile body{k, at(k.in, place) + stretch.in + 16 * first, at(k.out, place) + begin,
                                 k.has_residual ? at(k.residual, place) + begin : nullptr, k.mask ? k.mask + vector : nullptr,
                                 k.keeps + vector, fours};
      with_constant<FOUR_OUTPUTS>(end - first, body);
      if (k.rounds) round_tile(k, place, {4 * fours.begin, smaller(k.out.planes, 4 * fours.end)}, begin, end - first);
    }
  }
  return Status::OK;
}
