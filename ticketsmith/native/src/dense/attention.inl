// Attention of a sequence to itself, its features planes.
#pragma once
#include "simd/common.inl"

// Sums that stay in registers: so many rows (keys, or features of values) by so many vectors of queries.
constexpr int ATTENTION_ROWS = ACCUMULATORS >= 16 ? 8 : 4;
constexpr int ATTENTION_VECTORS = ACCUMULATORS >= 16 ? 3 : 1;

// What attention multiplies and sums: floats, or, as `DotProducts`, four bytes where there would be a float.
struct FloatProducts {
  using Sum = F16;
  static inline F16 zero() { return all(0.0f); }
  static inline F16 column(const float* p) { return load(p); }
  static inline F16 row(const float* p) { return all(*p); }
  static inline F16 add(F16 sum, F16 column, F16 row) { return fma(row, column, sum); }
};

// sums[r][t] = sum over i < count of rows[r * row + i * step] * columns[i * column + 16 * t]
template <class Products, int ROWS, int T>
inline void attention_tile(const float* rows, int64_t row, int64_t step, const float* columns, int64_t column, int64_t count,
                           typename Products::Sum (*sums)[T]) {
  typename Products::Sum each[ROWS][T];
  _Pragma("GCC unroll 8") for (int r = 0; r < ROWS; r++) EACH_VECTOR each[r][t] = Products::zero();
  for (int64_t i = 0; i < count; i++) {
    decltype(Products::column(columns)) x[T];
    EACH_VECTOR x[t] = Products::column(columns + i * column + 16 * t);
    _Pragma("GCC unroll 8") for (int r = 0; r < ROWS; r++) {
      const auto weight = Products::row(rows + r * row + i * step);
      EACH_VECTOR each[r][t] = Products::add(each[r][t], x[t], weight);
    }
  }
  _Pragma("GCC unroll 8") for (int r = 0; r < ROWS; r++) EACH_VECTOR sums[r][t] = each[r][t];
}

// Calls take(r, sums) for each of `total` rows; for some of the last ones twice, so that tiles are whole.
template <class Products, int T, class Take>
inline void attention_rows(int64_t total, const float* rows, int64_t row, int64_t step, const float* columns, int64_t column,
                           int64_t count, Take&& take) {
  constexpr int ROWS = ATTENTION_ROWS;
  typename Products::Sum sums[ROWS][T];
  if (total < ROWS)
    for (int64_t r = 0; r < total; r++) {
      attention_tile<Products, 1, T>(rows + r * row, row, step, columns, column, count, sums);
      take(r, sums[0]);
    }
  else
    for (int64_t begin = 0; begin < total; begin += ROWS) {
      const int64_t first = smaller(begin, total - ROWS);
      attention_tile<Products, ROWS, T>(rows + first * row, row, step, columns, column, count, sums);
      for (int r = 0; r < ROWS; r++) take(first + r, sums[r]);
    }
}

// Of the scores of 16 queries, from `begin` on, for token j: what lies in their future counts for nothing.
inline F16 past(F16 scores, int64_t j, int64_t begin) {
  const int64_t before = j - begin;  // so many of these queries must not see token j
  if (before <= 0) return scores;
  const auto future = static_cast<uint16_t>(before >= 16 ? 0xffff : (1u << before) - 1);
  return keep(scores, static_cast<uint16_t>(~future)) - keep(all(1e30f), future);
}

// Calls tile<T>() for chunks of the queries, as even as can be, `begin` being where they begin.
template <class Tile>
inline void attention_chunks(int64_t vectors, Tile tile) {
  const int64_t chunks = (vectors + ATTENTION_VECTORS - 1) / ATTENTION_VECTORS;
  for (int64_t c = 0; c < chunks; c++) {
    const int64_t first = vectors * c / chunks;
    tile.begin = 16 * first;
    with_constant<ATTENTION_VECTORS>(vectors * (c + 1) / chunks - first, tile);
  }
}

struct AttentionTile {
  const float *query, *key, *value;  // of a head
  float *out, *scores;               // [keys][T vectors of queries]
  int64_t query_plane, key_plane, value_plane, out_plane, width, tokens, begin;
  bool causal;
  float scale;  // times log2(e): powers of 2 are faster

  // T vectors of queries, from `begin` on. A vector holds one score of sixteen queries: nothing is summed across lanes.
  template <int T>
  void operator()() const {
    const int64_t seen = causal ? smaller(tokens, begin + 16 * T) : tokens;
    F16 most[T], total[T];
    EACH_VECTOR most[t] = all(-__builtin_inff()), total[t] = all(0.0f);
    attention_rows<FloatProducts, T>(seen, key, 1, key_plane, query + begin, query_plane, width, [&](int64_t j, const F16* sums) {
      EACH_VECTOR {
        F16 score = sums[t] * all(scale);
        if (causal) score = past(score, j, begin + 16 * t);
        store(scores + 16 * (j * T + t), score);
        most[t] = maximum(most[t], score);
      }
    });
    for (int64_t j = 0; j < seen; j++) EACH_VECTOR {
        const F16 e = power(load(scores + 16 * (j * T + t)) - most[t]);
        store(scores + 16 * (j * T + t), e);
        total[t] = total[t] + e;
      }
    EACH_VECTOR total[t] = all(1.0f) / total[t];
    attention_rows<FloatProducts, T>(width, value, value_plane, 1, scores, 16 * T, seen, [&](int64_t d, const F16* sums) {
      EACH_VECTOR store(out + d * out_plane + begin + 16 * t, sums[t] * total[t]);
    });
  }
};

int attention(const Attention& k, const Place& place, Share share) {
  const int64_t tokens = k.out.cols, width = k.out.planes / k.heads, vectors = (tokens + 15) / 16;
  const Range heads = part(k.heads, share);
  float* scratch = at(k.scratch, place) + heads.begin * tokens * 16 * vectors;  // for one head after the other
  for (int64_t h = heads.begin; h < heads.end; h++) {
    const float* value = at(k.value, place) + h * width * k.value.plane;
    float* out = at(k.out, place) + h * width * k.out.plane;
    if (k.out.plane == 1) {  // one token attends to itself
      for (int64_t d = 0; d < width; d++) out[d] = value[d];
      continue;
    }
    const AttentionTile tile{at(k.query, place) + h * width * k.query.plane, at(k.key, place) + h * width * k.key.plane, value,
                             out, scratch, k.query.plane, k.key.plane, k.value.plane, k.out.plane, width, tokens, 0,
                             k.causal != 0, static_cast<float>(k.scale * 1.4426950408889634)};
    attention_chunks(vectors, tile);
  }
  return Status::OK;
}
