// Attention of short sequences, whose scores fit a cache: one head of one sequence at a time, forward, and backward from its
// inputs and the logarithms of the sums of its exponentials. Rotary positions are turned on the way in, and back on the way out.

constexpr int HEAD_ROWS = ACCUMULATORS >= 16 ? 8 : 4;    // neighbours that are summed at once
constexpr int SCORE_ROWS = ACCUMULATORS >= 16 ? 4 : 1;   // the same of scores,
constexpr int SCORE_COLS = ACCUMULATORS >= 16 ? 4 : 2;   // by so many vectors of keys

// What a head works with: queries, keys and values by tokens [tokens][width], keys and values by features [width][tokens], and
// two squares; tokens and width are whole vectors.
struct Head {
  int64_t tokens, width, long_tokens, long_width;
  float *query, *key, *value, *other, *keys, *values, *scores, *slopes;

  template <class Attention>
  Head(const Attention& k, Share share)
      : tokens(k.tokens), width(k.width), long_tokens(16 * ((k.tokens + 15) / 16)), long_width(16 * ((k.width + 15) / 16)) {
    const int64_t size = long_tokens * long_width, square = long_tokens * long_tokens;
    query = k.scratch + share.index * (6 * size + 2 * square);
    key = query + size, value = key + size, other = value + size, keys = other + size, values = keys + size;
    scores = values + size, slopes = scores + square;
  }
  int64_t past(int64_t query_row, bool causal) const {  // how many keys a query may see, in whole rows of HEAD_ROWS
    return causal ? smaller(long_tokens, (query_row / HEAD_ROWS + 1) * HEAD_ROWS) : long_tokens;
  }
};

// The features of a token with its halves in each other's place, sixteen of them from f on.
inline F16 other_half(const float* x, int64_t f, int64_t width) {
  const int64_t half = width / 2;
  if (half % 16 == 0) return load(x + (f < half ? f + half : f - half));
  if (width == 16) return turned(load(x), moving(8));
  float each[16];
  for (int64_t i = 0; i < 16; i++) each[i] = f + i >= width ? 0.0f : x[f + i < half ? f + i + half : f + i - half];
  return load(each);
}

// One head, with the tokens `stride` apart, times `factor`; turned where there are cosines, by sines whose first half is negative.
// What is beyond it is zero.
inline void fetch(const Head& h, const float* in, int64_t stride, const float* cosines, const float* sines, float factor,
                  float* out) {
  for (int64_t t = 0; t < h.tokens; t++, out += h.long_width, in += stride)
    for (int64_t f = 0; f < h.width; f += 16) {
      const int64_t some = h.width - f, place = t * h.width + f;
      F16 x = load_first(in + f, some);
      if (cosines)
        x = fma(other_half(in, f, h.width), load_first(sines + place, some), x * load_first(cosines + place, some));
      store(out + f, all(factor) * x);
    }
  for (int64_t i = 0; i < (h.long_tokens - h.tokens) * h.long_width; i += 16) store(out + i, all(0.0f));
}

// The inverse: the gradient of what was fetched.
inline void release(const Head& h, const float* in, int64_t stride, const float* cosines, const float* sines, float factor,
                    float* out) {
  float product[16 * 8] = {};
  for (int64_t t = 0; t < h.tokens; t++, in += h.long_width, out += stride) {
    for (int64_t f = 0; cosines && f < h.width; f += 16)
      store(product + f, load(in + f) * load_first(sines + t * h.width + f, h.width - f));
    for (int64_t f = 0; f < h.width; f += 16) {
      const int64_t some = h.width - f;
      F16 x = load(in + f);
      if (cosines) x = fma(x, load_first(cosines + t * h.width + f, some), other_half(product, f, h.width));
      store_first(out + f, all(factor) * x, some);
    }
  }
}

inline void by_features(const Head& h, const float* rows, float* out) {
  for (int64_t t = 0; t < h.long_tokens; t += 16)
    for (int64_t f = 0; f < h.long_width; f += 16) {
      F16 x[16];
      for (int i = 0; i < 16; i++) x[i] = load(rows + (t + i) * h.long_width + f);
      transpose(x);
      for (int i = 0; i < 16; i++) store(out + (f + i) * h.long_tokens + t, x[i]);
    }
}

// out[row][column] = the product of row `row` of `rows` with column `column` of `columns`.
struct Scores {
  const Head& h;
  const float *rows, *columns;
  float* out;

  template <int T>
  void operator()() const {
    F16 sums[SCORE_ROWS][T];
    for (int r = 0; r < SCORE_ROWS; r++) EACH_VECTOR sums[r][t] = all(0.0f);
    for (int64_t f = 0; f < h.width; f++) {
      F16 x[T];
      EACH_VECTOR x[t] = load(columns + f * h.long_tokens + 16 * t);
      _Pragma("GCC unroll 4") for (int r = 0; r < SCORE_ROWS; r++) {
        const F16 each = all(rows[r * h.long_width + f]);
        EACH_VECTOR sums[r][t] = fma(each, x[t], sums[r][t]);
      }
    }
    _Pragma("GCC unroll 4") for (int r = 0; r < SCORE_ROWS; r++)
        EACH_VECTOR store(out + r * h.long_tokens + 16 * t, sums[r][t]);
  }
};
inline void score(const Head& h, const float* rows, const float* columns, bool causal, float* out) {
  for (int64_t row = 0; row < h.tokens; row += SCORE_ROWS) {
    const int64_t vectors = (h.past(row, causal) + 15) / 16;
    for (int64_t v = 0; v < vectors; v += SCORE_COLS)
      with_constant<SCORE_COLS>(smaller(SCORE_COLS, vectors - v),
                                Scores{h, rows + row * h.long_width, columns + 16 * v, out + row * h.long_tokens + 16 * v});
  }
}

// out[a] = the sum over b of weights[a * near + b * far] * x[b], for HEAD_ROWS neighbours a.
template <int T>
inline void combine(const float* weights, int64_t near, int64_t far, const float* x, int64_t distance, Range range, float* out) {
  F16 sums[HEAD_ROWS][T];
  _Pragma("GCC unroll 8") for (int r = 0; r < HEAD_ROWS; r++) EACH_VECTOR sums[r][t] = all(0.0f);
  for (int64_t b = range.begin; b < range.end; b++) {
    F16 each[T];
    EACH_VECTOR each[t] = load(x + b * distance + 16 * t);
    _Pragma("GCC unroll 8") for (int r = 0; r < HEAD_ROWS; r++) {
      const F16 weight = all(weights[r * near + b * far]);
      EACH_VECTOR sums[r][t] = fma(weight, each[t], sums[r][t]);
    }
  }
  _Pragma("GCC unroll 8") for (int r = 0; r < HEAD_ROWS; r++) EACH_VECTOR store(out + r * distance + 16 * t, sums[r][t]);
}
// Rows of queries from keys; or, `turned`, rows of keys from queries. Weights of keys that a query may not see are zero.
inline void combine(const Head& h, const float* weights, bool turned, const float* x, bool causal, float* out) {
  for (int64_t a = 0; a < h.tokens; a += HEAD_ROWS) {
    const Range range = turned ? Range{causal ? a : 0, h.tokens} : Range{0, smaller(h.tokens, h.past(a, causal))};
    const int64_t near = turned ? 1 : h.long_tokens, far = turned ? h.long_tokens : 1;
    for (int64_t f = 0; f < h.long_width; f += 16)
      combine<1>(weights + a * near, near, far, x + f, h.long_width, range, out + a * h.long_width + f);
  }
}

// Scores to weights, from the logarithms of the sums of their exponentials, which are computed first where `sums` has none.
inline void weigh(const Head& h, bool causal, bool first, float* sums) {
  for (int64_t row = 0; row < h.tokens; row++) {
    float* scores = h.scores + row * h.long_tokens;
    const int64_t keys = causal ? row + 1 : h.tokens, end = 16 * ((h.past(row, causal) + 15) / 16);
    if (first) {
      F16 most = all(-3e38f);
      for (int64_t j = 0; j < keys; j += 16) {
        const uint16_t mask = seen(keys - j);
        most = maximum(most, keep(load(scores + j), mask) + keep(all(-3e38f), static_cast<uint16_t>(~mask)));
      }
      const float top = largest(most);
      F16 total = all(0.0f);
      for (int64_t j = 0; j < keys; j += 16) {
        const F16 each = keep(exponential(load(scores + j) - all(top)), seen(keys - j));
        total = total + each;
        store(scores + j, each);
      }
      const float whole = sum(total);
      sums[row] = top + __builtin_logf(whole);
      for (int64_t j = 0; j < keys; j += 16) store(scores + j, load(scores + j) * all(1.0f / whole));
    } else {
      for (int64_t j = 0; j < keys; j += 16)
        store(scores + j, keep(exponential(load(scores + j) - all(sums[row])), seen(keys - j)));
    }
    for (int64_t j = 16 * ((keys + 15) / 16); j < end; j += 16) store(scores + j, all(0.0f));
  }
}

struct HeadPlace {
  int64_t in, out, sums;
};
template <class Attention>
inline HeadPlace head_place(const Attention& k, int64_t index) {
  const int64_t b = index / k.heads, head = index % k.heads;
  return {b * k.in_stride[0] + head * k.in_stride[1], b * k.out_stride[0] + head * k.out_stride[1], index * k.tokens};
}

// The weights of a head, in its scores.
template <class Attention>
inline void attend(const Attention& k, const Head& h, const HeadPlace& at, bool first) {
  const int64_t stride = k.in_stride[2];
  fetch(h, k.query + at.in, stride, k.cosines, k.sines, static_cast<float>(k.scale), h.query);
  fetch(h, k.key + at.in, stride, k.cosines, k.sines, 1.0f, h.key);
  fetch(h, k.value + at.in, stride, nullptr, nullptr, 1.0f, h.value);
  by_features(h, h.key, h.keys);
  score(h, h.query, h.keys, k.causal, h.scores);
  weigh(h, k.causal, first, k.sums + at.sums);
}

void self_attention(const SelfAttention& k, const Step&, Share share) {
  const Head h(k, share);
  const Range heads = part(k.batch * k.heads, share);
  for (int64_t index = heads.begin; index < heads.end; index++) {
    const HeadPlace at = head_place(k, index);
    attend(k, h, at, true);
    combine(h, h.scores, false, h.value, k.causal, h.other);
    release(h, h.other, k.out_stride[2], nullptr, nullptr, 1.0f, k.out + at.out);
  }
}

void self_attention_gradient(const SelfAttentionGradient& k, const Step&, Share share) {
  const Head h(k, share);
  const Range heads = part(k.batch * k.heads, share);
  const int64_t stride = k.in_stride[2];
  for (int64_t index = heads.begin; index < heads.end; index++) {
    const HeadPlace at = head_place(k, index);
    attend(k, h, at, false);
    fetch(h, k.out_gradient + at.out, k.out_stride[2], nullptr, nullptr, 1.0f, h.other);
    by_features(h, h.value, h.values);
    score(h, h.other, h.values, k.causal, h.slopes);
    combine(h, h.scores, true, h.other, k.causal, h.value);  // the values are not needed any more
    release(h, h.value, stride, nullptr, nullptr, 1.0f, k.value_gradient + at.in);
    for (int64_t row = 0; row < h.tokens; row++) {  // the slopes of scores, from those of weights
      const float* weights = h.scores + row * h.long_tokens;
      float* slopes = h.slopes + row * h.long_tokens;
      const int64_t end = 16 * ((h.past(row, k.causal) + 15) / 16);
      F16 total = all(0.0f);
      for (int64_t j = 0; j < end; j += 16) total = fma(load(weights + j), load(slopes + j), total);
      const F16 mean = all(sum(total));
      for (int64_t j = 0; j < end; j += 16) store(slopes + j, load(weights + j) * (load(slopes + j) - mean));
    }
    combine(h, h.slopes, false, h.key, k.causal, h.value);
    release(h, h.value, stride, k.cosines, k.sines, static_cast<float>(k.scale), k.query_gradient + at.in);
    combine(h, h.slopes, true, h.query, k.causal, h.value);
    release(h, h.value, stride, k.cosines, k.sines, 1.0f, k.key_gradient + at.in);
  }
}
