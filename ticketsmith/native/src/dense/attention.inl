// Attention of a sequence to itself, its features planes.
#pragma once
#include "dense/arrays.inl"

// Sums that stay in registers: so many rows (keys, or features of values) by so many vectors of queries.
constexpr int ATTENTION_ROWS = ACCUMULATORS >= 16 ? 8 : 4;
constexpr int ATTENTION_VECTORS = ACCUMULATORS >= 16 ? 3 : 1;
constexpr float LOG2_E = 1.4426950408889634f;
constexpr int64_t FEW_QUERIES = 4;  // behind the last whole vector: one by one they take less time than a vector of them

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

// Calls take(r, sums) for each of `total` rows; one by one where few are left behind the tiles, else for some of the last ones
// twice, so that tiles are whole.
template <class Products, int T, class Take>
inline void attention_rows(int64_t total, const float* rows, int64_t row, int64_t step, const float* columns, int64_t column,
                           int64_t count, Take&& take) {
  constexpr int ROWS = ATTENTION_ROWS;
  typename Products::Sum sums[ROWS][T];
  const int64_t alone = total < ROWS ? total : total % ROWS <= ROWS / 4 ? total % ROWS : 0;
  for (int64_t begin = 0; begin < total - alone; begin += ROWS) {
    const int64_t first = smaller(begin, total - ROWS);
    attention_tile<Products, ROWS, T>(rows + first * row, row, step, columns, column, count, sums);
    for (int r = 0; r < ROWS; r++) take(first + r, sums[r]);
  }
  for (int64_t r = total - alone; r < total; r++) {
    attention_tile<Products, 1, T>(rows + r * row, row, step, columns, column, count, sums);
    take(r, sums[0]);
  }
}

// Of a head, where there is one.
struct Mask {
  const float* scores;
  int64_t query, key;  // how far the next of them lies
  // To the scores, times log2(e), of 16 queries from q on for token j. A query that sees nothing must not become infinity minus
  // itself.
  inline F16 added(F16 to, int64_t q, int64_t j, int64_t tokens) const {
    const F16 each = gather(scores + q * query + j * key, query, smaller(16, tokens - q));
    return maximum(all(-1e30f), fma(each, all(LOG2_E), to));
  }
};
template <class Operation>
inline Mask mask_of(const Operation& k, const Place& place, int64_t head) {
  return {k.has_mask ? at(k.mask, place) + head * k.mask.stride[1] : nullptr, k.mask.stride[2], k.mask.stride[3]};
}

// Of the scores of 16 queries, from `begin` on, for token j: what lies in their future counts for nothing.
inline F16 past(F16 scores, int64_t j, int64_t begin) {
  const int64_t before = j - begin;  // so many of these queries must not see token j
  if (before <= 0) return scores;
  const auto future = static_cast<uint16_t>(before >= 16 ? 0xffff : (1u << before) - 1);
  return keep(scores, static_cast<uint16_t>(~future)) - keep(all(1e30f), future);
}

// Stores the first `left` columns of T vectors.
template <int T>
inline void store_columns(float* out, const F16* values, int64_t left) {
  if (left >= 16 * T) {
    EACH_VECTOR store(out + 16 * t, values[t]);
  } else {
    EACH_VECTOR if (left > 16 * t) store_first(out + 16 * t, values[t], left - 16 * t);
  }
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
  float *out, *scores, *copies;      // [keys][T vectors of queries], and the queries [width][T vectors]
  Mask mask;
  int64_t query_plane, key_plane, value_plane, out_plane, width, tokens, begin;
  bool causal;
  float scale;  // times log2(e): powers of 2 are faster

  // T vectors of queries, from `begin` on. A vector holds one score of sixteen queries: nothing is summed across lanes.
  template <int T>
  void operator()() const {
    const int64_t seen = causal ? smaller(tokens, begin + 16 * T) : tokens;
    const float* queries = query + begin;
    int64_t distance = query_plane;
    if (reinterpret_cast<uintptr_t>(queries) % 64) {  // read for every few keys: from whole cache lines
      distance = 16 * T;
      for (int64_t d = 0; d < width; d++) EACH_VECTOR store(copies + d * distance + 16 * t, load(queries + d * query_plane + 16 * t));
      queries = copies;
    }
    F16 most[T], total[T];
    EACH_VECTOR most[t] = all(-__builtin_inff()), total[t] = all(0.0f);
    attention_rows<FloatProducts, T>(seen, key, 1, key_plane, queries, distance, width, [&](int64_t j, const F16* sums) {
      EACH_VECTOR {
        F16 score = sums[t] * all(scale);
        if (mask.scores) score = mask.added(score, begin + 16 * t, j, tokens);
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
      F16 values[T];
      EACH_VECTOR values[t] = sums[t] * total[t];
      store_columns<T>(out + d * out_plane + begin, values, tokens - begin);
    });
  }

  // Query q by itself: a vector holds its scores for sixteen keys.
  void alone(int64_t q) const {
    const int64_t seen = causal ? q + 1 : tokens, vectors = (seen + 15) / 16;
    const auto last = static_cast<uint16_t>((1u << (seen - 16 * (vectors - 1))) - 1);
    F16 most = all(-__builtin_inff()), total = all(0.0f);
    for (int64_t v = 0; v < vectors; v += 4) {
      F16 sums[4];
      const float* keys[4];
      for (int t = 0; t < 4; t++) sums[t] = all(0.0f), keys[t] = key + 16 * smaller(v + t, vectors - 1);
      for (int64_t i = 0; i < width; i++) {
        const F16 weight = all(query[i * query_plane + q]);
        for (int t = 0; t < 4; t++) sums[t] = fma(weight, load(keys[t] + i * key_plane), sums[t]);
      }
      for (int64_t t = 0; t < smaller(4, vectors - v); t++) {
        F16 score = sums[t] * all(scale);
        if (v + t == vectors - 1) score = keep(score, last) - keep(all(1e30f), static_cast<uint16_t>(~last));
        store(scores + 16 * (v + t), score);
        most = maximum(most, score);
      }
    }
    most = all(largest(most));
    for (int64_t v = 0; v < vectors; v++) {
      const F16 e = keep(power(load(scores + 16 * v) - most), v == vectors - 1 ? last : 0xffff);
      store(scores + 16 * v, e);
      total = total + e;
    }
    const F16 each = all(1.0f / sum(total));
    for (int64_t d = 0; d < width; d += 16) {
      F16 sums[16];
      for (int64_t i = 0; i < 16; i++) {
        const float* row = value + smaller(d + i, width - 1) * value_plane;
        sums[i] = load(scores + 16 * (vectors - 1)) * keep(load(row + 16 * (vectors - 1)), last);
        for (int64_t v = 0; v < vectors - 1; v++) sums[i] = fma(load(scores + 16 * v), load(row + 16 * v), sums[i]);
      }
      scatter(out + d * out_plane + q, out_plane, add_up(sums) * each, smaller(16, width - d));
    }
  }
};

// The planes of a head, from the first column of a sequence on.
template <class Operation>
inline float* head_of(const Operation& k, const Value& value, const Place& place, int64_t index) {
  const int64_t width = k.out.planes / k.heads, tokens = k.out.cols / k.sequences;
  return at(value, place) + index % k.heads * width * value.plane + index / k.heads * tokens;
}

int attention(const Attention& k, const Place& place, Share share) {
  const int64_t tokens = k.out.cols / k.sequences, width = k.out.planes / k.heads, vectors = (tokens + 15) / 16;
  const int64_t rest = tokens % 16, few = tokens > 16 && rest <= FEW_QUERIES && !k.has_mask ? rest : 0;
  const Range heads = part(k.sequences * k.heads, share);
  float* scratch = at(k.scratch, place) + heads.begin * k.scratch.plane;  // for one head after the other
  for (int64_t h = heads.begin; h < heads.end; h++) {
    const float* value = head_of(k, k.value, place, h);
    float* out = head_of(k, k.out, place, h);
    if (k.out.plane == 1) {  // one token attends to itself
      for (int64_t d = 0; d < width; d++) out[d] = value[d];
      continue;
    }
    const AttentionTile tile{head_of(k, k.query, place, h), head_of(k, k.key, place, h), value, out, scratch,
                             scratch + k.scratch.plane - 16 * ATTENTION_VECTORS * width,
                             mask_of(k, place, h), k.query.plane, k.key.plane, k.value.plane, k.out.plane, width, tokens, 0,
                             k.causal != 0, static_cast<float>(k.scale) * LOG2_E};
    attention_chunks(few ? vectors - 1 : vectors, tile);
    for (int64_t q = tokens - few; q < tokens; q++) tile.alone(q);
  }
  return Status::OK;
}
