// Sparse convolutions, and products with planes, of whole numbers: a column of a plane is four bytes, of four input channels, and
// a tap has the four weights of an output for them. All else is as in `sparse_conv`.
#pragma once
#include "dense/quantise.inl"

// Adds the products of each tap to T vectors of sums; of few vectors in several parts, since an addition waits for the last.
template <int T, class Dots>
inline void accumulate_dots(I16* sums, const float* x, const Tap* tap, const Tap* end) {
  constexpr int PARTS = T >= 8 ? 1 : T >= 4 ? 2 : 4;
  const auto add = [&](I16* to, const Tap* one) {
    int32_t four;
    __builtin_memcpy(&four, &one->weight, 4);
    const auto weights = Dots::all(four);
    const auto* source = reinterpret_cast<const uint8_t*>(x + one->offset);
    EACH_VECTOR to[t] = Dots::add(to[t], Dots::bytes(source + 64 * t), weights);
  };
  if constexpr (PARTS > 1) {
    if (tap + PARTS <= end) {
      I16 more[PARTS][T];
      for (int u = 1; u < PARTS; u++)
        EACH_VECTOR more[u][t] = all_ints(0);
      for (; tap + PARTS <= end; tap += PARTS) {
#pragma GCC unroll 4
        for (int u = 0; u < PARTS; u++) add(u ? more[u] : sums, tap + u);
      }
      for (int u = 1; u < PARTS; u++)
        EACH_VECTOR sums[t] = sums[t] + more[u][t];
    }
  }
  for (; tap < end; tap++) add(sums, tap);
}

template <class Dots>
struct SparseConvDotTile {
  const SparseConvDot& k;
  const float* x;
  float* out;
  const float *residual, *range;
  const uint16_t* mask;
  const uint16_t* keeps;
  int64_t vector;
  bool whole_rows;
  Range outputs;

  template <int T>
  void operator()() const {
    for (int64_t b = 0; b < k.blocks; b++) {
      const int64_t first = (b * k.out.planes + outputs.begin) * k.groups;
      const int32_t *starts = k.starts + first, *totals = k.totals + first;
      const bool last = b == k.blocks - 1;
      for (int64_t o = outputs.begin; o < outputs.end; o++, starts += k.groups, totals += k.groups) {
        float* target = out + o * k.out.plane;
        if (b && starts[0] == starts[k.groups] && !last) continue;
        I16 total[T];
        begin_sums<T>(total, range, k.period, vector, totals[0]);
        accumulate_dots<T, Dots>(total, x, k.taps + starts[0], k.taps + starts[1]);
        for (int64_t g = 1; g < k.groups; g++)
          if (starts[g] < starts[g + 1]) {
            const Tap *tap = k.taps + starts[g], *end = k.taps + starts[g + 1];
            if (!whole_rows) add_moved<T, true, false>(total, tap, end, g, totals[g]);
            else if (k.row_vectors == 1) add_moved<T, false, true>(total, tap, end, g, totals[g]);
            else add_moved<T, false, false>(total, tap, end, g, totals[g]);
          }
        auto* whole = reinterpret_cast<int32_t*>(target);
        if (b) EACH_VECTOR total[t] = total[t] + load_ints(whole + 16 * t);
        if (!last) {
          EACH_VECTOR store_ints(whole + 16 * t, total[t]);
          continue;
        }
        F16 sums[T];
        const F16 bias = all(k.bias[o]), scale = all(k.scales[o]);
        scale_sums<T>(total, sums, scale, bias, range, k.period, vector);
        finish<T>(target, sums, residual ? residual + o * k.residual.plane : nullptr, k.activation, mask);
      }
    }
  }

  // `NEIGHBOUR`: rows go on in other tiles, so that the vector beside this one must be known too. `ONE`: a row is one vector.
  template <int T, bool NEIGHBOUR, bool ONE>
  inline void add_moved(I16* total, const Tap* tap, const Tap* end, int64_t group, int32_t weights) const {
    I16 sums[T + NEIGHBOUR];
    begin_sums<T + NEIGHBOUR>(sums, range, k.period, vector, weights);
    const uint16_t* kept = keeps + group * k.vectors;
    const bool ahead = k.shifts[group] > 0;
    accumulate_dots<T + NEIGHBOUR, Dots>(sums, ahead ? x : x - 16 * NEIGHBOUR, tap, end);
    const Move move = moving(ahead ? k.shifts[group] : 16 + k.shifts[group]);
    const F16 zero = all(0.0f);
    EACH_VECTOR {
      F16 there;
      if (ONE) {
        there = turned(as_floats(sums[t]), move);
      } else if (ahead) {
        there = moved(as_floats(sums[t]), t + 1 < T + NEIGHBOUR ? as_floats(sums[t + 1]) : zero, move);
      } else {
        there = moved(t + NEIGHBOUR > 0 ? as_floats(sums[t + NEIGHBOUR - 1]) : zero, as_floats(sums[t + NEIGHBOUR]), move);
      }
      total[t] = total[t] + as_ints(keep(there, kept[t]));
    }
  }
};

template <class Dots>
void sparse_conv_dot_of(const SparseConvDot& k, const Place& place, Range outputs) {
  const int64_t tile = smaller(k.tile, ACCUMULATORS);
  const int64_t row = k.row_vectors, step = row <= tile ? row : 1;  // tiles are of whole rows, if there is room
  const int64_t most = tile / step;
  for (int64_t s = 0; s < k.stretch_count; s++) {
    const Stretch& stretch = k.stretches[s];
    const int64_t rows = (stretch.vectors + step - 1) / step, chunks = (rows + most - 1) / most;
    for (int64_t c = 0; c < chunks; c++) {
      const int64_t first = rows * c / chunks * step, end = smaller(stretch.vectors, rows * (c + 1) / chunks * step);
      const int64_t begin = stretch.out + 16 * first, vector = begin / 16;
      const SparseConvDotTile<Dots> body{k, at(k.in, place) + stretch.in + 16 * first, at(k.out, place) + begin,
                                         k.has_residual ? at(k.residual, place) + begin : nullptr, at(k.range, place),
                                         k.mask ? k.mask + vector : nullptr, k.keeps ? k.keeps + vector : nullptr, vector,
                                         row <= tile, outputs};
      with_constant<ACCUMULATORS>(end - first, body);
      if (k.rounds) round_tile(k, place, outputs, begin, end - first);
    }
  }
}

int sparse_conv_dot(const SparseConvDot& k, const Place& place, Share share) {
  const Range outputs = output_part(k, share);
  with_dots([&](auto dots) { sparse_conv_dot_of<decltype(dots)>(k, place, outputs); });
  return Status::OK;
}
