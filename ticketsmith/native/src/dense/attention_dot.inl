// Attention in whole numbers: queries, keys, the shares of values and values are rounded to 8 bits, and sums are exact.
#pragma once
#include "dense/attention.inl"
#include "dense/quantise.inl"

template <class Dots>
struct DotProducts {
  using Sum = I16;
  static inline I16 zero() { return all_ints(0); }
  static inline auto column(const float* p) { return Dots::bytes(reinterpret_cast<const uint8_t*>(p)); }
  static inline auto row(const float* p) {
    int32_t four;
    __builtin_memcpy(&four, p, 4);
    return Dots::all(four);
  }
  static inline I16 add(I16 sum, typename Dots::Bytes column, typename Dots::Weights row) { return Dots::add(sum, column, row); }
};

// 2 to the power of x, no more than 126, within 8e-5 of the result: enough for 8 bits.
inline F16 rough_power(F16 x) {
  x = maximum(all(-126.0f), x);
  const F16 n = rounded(x), r = x - n;
  F16 p = all(5.50886838e-2f);
  p = fma(p, r, all(2.42604051e-1f));
  p = fma(p, r, all(6.93276242e-1f));
  return fma(p, r, all(9.9992894e-1f)) * power_of_two(n);
}

constexpr float MIDDLE = 128.0f;  // the byte that stands for 0

// What a step is worth where 127 of them are the largest size; NaN where some input was not finite.
inline F16 even_step(const Extremes& extremes) {
  const F16 zero = all(0.0f);
  F16 most = zero, bad = zero;
  for (int i = 0; i < 4; i++)
    most = maximum(most, maximum(extremes.high[i], zero - extremes.low[i])), bad = bad + extremes.bad[i];
  return maximum(most * all(1.0f / 127.0f), all(1e-20f)) + bad;
}

// Columns of `width` planes, a step for each column: [width / 4][vectors][16 columns][4 planes].
inline void pack_columns(const float* in, int64_t plane, int64_t width, int64_t vectors, float* out, float* steps) {
  for (int64_t v = 0; v < vectors; v++) {
    Extremes extremes;
    for (int64_t p = 0; p < width; p += 4)
#pragma GCC unroll 4
      for (int c = 0; c < 4; c++) extremes.add(c, load(in + (p + c) * plane + 16 * v));
    const F16 step = even_step(extremes), inverse = all(1.0f) / step;
    store(steps + 16 * v, step);
    for (int64_t p = 0; p < width; p += 4) {
      F16 each[4];
#pragma GCC unroll 4
      for (int c = 0; c < 4; c++) each[c] = load(in + (p + c) * plane + 16 * v) * inverse;
      store_fours(reinterpret_cast<uint8_t*>(out + 16 * (p / 4 * vectors + v)), each, all(MIDDLE));
    }
  }
}

// The first `columns` columns of `width` planes, a step for each plane: [width][16 * vectors / 4 rounded up to 16] of four bytes.
inline void pack_rows(const float* in, int64_t plane, int64_t width, int64_t columns, float* out, float* steps) {
  const int64_t vectors = (columns + 15) / 16, row = (vectors + 3) / 4 * 16;
  const auto last = static_cast<uint16_t>((1u << (columns - 16 * (vectors - 1))) - 1);
  for (int64_t p = 0; p < width; p++, in += plane, out += row) {
    Extremes extremes;
    for (int64_t v = 0; v < vectors - 1; v++) extremes.add(static_cast<int>(v & 3), load(in + 16 * v));
    extremes.add(3, keep(load(in + 16 * (vectors - 1)), last));
    const F16 each = even_step(extremes), zero = all(0.0f);
    const F16 step = all(largest(each)) + all(sum((each - each) * zero)), inverse = all(1.0f) / step;
    store_first(steps + p, step, 1);
    for (int64_t v = 0; v < vectors; v += 4) {
      F16 four[4];
#pragma GCC unroll 4
      for (int c = 0; c < 4; c++) four[c] = v + c < vectors ? load(in + 16 * (v + c)) * inverse : zero;
      store_bytes(reinterpret_cast<uint8_t*>(out + 4 * v), four, all(MIDDLE));
    }
  }
}

// Bytes around `MIDDLE` as whole numbers with a sign.
inline void make_signed(float* bytes, int64_t floats) {
  auto* words = reinterpret_cast<unsigned char*>(bytes);
  for (int64_t i = 0; i < 4 * floats; i++) words[i] ^= 0x80;
}

template <class Dots>
struct AttentionDotTile {
  const float *query, *key, *value;                    // of a head, in bytes
  const float *query_steps, *key_steps, *value_steps;  // what those of each query, key and feature are worth
  const int32_t* offsets;                              // what the middle of the queries' bytes adds for each key
  float *out, *scores;                                 // [keys, a multiple of four][T vectors of queries]
  Mask mask;
  int64_t plane, row, out_plane, width, tokens, begin;
  bool causal;
  float scale;  // times log2(e)

  template <int T>
  void operator()() const {
    using Products = DotProducts<Dots>;
    const int64_t seen = causal ? smaller(tokens, begin + 16 * T) : tokens, fours = (seen + 3) / 4;
    F16 most[T], step[T], factor[T], base[T];  // scores are multiplied by the steps of their queries with a mask, else later
    EACH_VECTOR {
      most[t] = all(-__builtin_inff());
      step[t] = load(query_steps + begin + 16 * t) * all(scale);
      factor[t] = mask.scores ? all(1.0f) : step[t];
    }
    attention_rows<Products, T>(seen, key, 1, plane, query + begin, plane, width / 4, [&](int64_t j, const I16* sums) {
      const I16 offset = all_ints(offsets[j]);
      const F16 worth = all(key_steps[j]);
      EACH_VECTOR {
        F16 score = to_floats(sums[t] + offset) * worth;
        if (mask.scores) score = mask.added(score * step[t], begin + 16 * t, j, tokens);
        if (causal) score = past(score, j, begin + 16 * t);
        store(scores + 16 * (j * T + t), score);
        most[t] = maximum(most[t], score);
      }
    });
    for (int64_t j = seen; j < 4 * fours; j++) EACH_VECTOR store(scores + 16 * (j * T + t), all(-1e30f));
    I16 total[T];
    const auto ones = Dots::all(0x01010101);
    EACH_VECTOR {
      base[t] = all(7.99435344f) - most[t] * factor[t];  // log2(255): the largest share becomes the largest byte
      total[t] = all_ints(0);
    }
    for (int64_t j = 0; j < fours; j++) EACH_VECTOR {  // bytes go where scores were read
        F16 each[4];
#pragma GCC unroll 4
        for (int c = 0; c < 4; c++)
          each[c] = rough_power(fma(load(scores + 16 * ((4 * j + c) * T + t)), factor[t], base[t]));
        auto* bytes = reinterpret_cast<uint8_t*>(scores + 16 * (j * T + t));
        store_fours(bytes, each, all(0.0f));
        total[t] = Dots::add(total[t], Dots::bytes(bytes), ones);
      }
    F16 share[T];
    EACH_VECTOR share[t] = all(1.0f) / to_floats(total[t]) + (step[t] - step[t]);
    attention_rows<Products, T>(width, value, row, 1, scores, 16 * T, fours, [&](int64_t d, const I16* sums) {
      F16 values[T];
      EACH_VECTOR values[t] = to_floats(sums[t]) * (all(value_steps[d]) * share[t]);
      store_columns<T>(out + d * out_plane + begin, values, tokens - begin);
    });
  }
};

template <class Dots>
void attention_dot_of(const AttentionDot& k, const Place& place, Range heads) {
  const int64_t tokens = k.out.cols / k.sequences, width = k.out.planes / k.heads;
  const int64_t vectors = (tokens + 15) / 16, plane = 16 * vectors;
  const int64_t row = (vectors + 3) / 4 * 16, packed = width / 4 * plane;
  float* query = at(k.scratch, place) + heads.begin * k.scratch.plane;  // for one head after the other
  float *key = query + packed, *value = key + packed, *query_steps = value + width * row, *key_steps = query_steps + plane;
  float *value_steps = key_steps + plane, *offsets = value_steps + (width + 15) / 16 * 16, *scores = offsets + plane;
  for (int64_t h = heads.begin; h < heads.end; h++) {
    pack_columns(head_of(k, k.query, place, h), k.query.plane, width, vectors, query, query_steps);
    pack_columns(head_of(k, k.key, place, h), k.key.plane, width, vectors, key, key_steps);
    pack_rows(head_of(k, k.value, place, h), k.value.plane, width, tokens, value, value_steps);
    make_signed(key, packed + width * row);
    float bad = 0.0f;  // NaN where some key is not finite
    for (int64_t j = 0; j < tokens; j++) bad += key_steps[j] * 0.0f;
    for (int64_t v = 0; v < vectors; v++) {
      I16 sum = all_ints(0);
      uint8_t ones[64];
      __builtin_memset(ones, 1, 64);
      for (int64_t p = 0; p < width / 4; p++)
        sum = Dots::add(sum, Dots::bytes(ones), Dots::weights(reinterpret_cast<int8_t*>(key + p * plane + 16 * v)));
      store_ints(reinterpret_cast<int32_t*>(offsets) + 16 * v, sum * all_ints(-static_cast<int32_t>(MIDDLE)));
    }
    const AttentionDotTile<Dots> tile{query, key, value, query_steps, key_steps, value_steps,
                                      reinterpret_cast<const int32_t*>(offsets), head_of(k, k.out, place, h), scores,
                                      mask_of(k, place, h), plane, row, k.out.plane, width, tokens, 0, k.causal != 0,
                                      static_cast<float>(k.scale) * LOG2_E + bad};
    attention_chunks(vectors, tile);
  }
}

int attention_dot(const AttentionDot& k, const Place& place, Share share) {
  const Range heads = part(k.sequences * k.heads, share);
  with_dots([&](auto dots) { attention_dot_of<decltype(dots)>(k, place, heads); });
  return Status::OK;
}
