// The C ABI of the kernel library, and the layout of everything that crosses it.
//
// A program is a flat array of operations. Tensors lie in planes: plane p, row r, column c of a value is the float at
//     base + p * plane + r * row + c
// of its space. A channel of an image is a plane; so is a feature of a sequence, whose tokens are the columns, and a
// feature of a batch, whose samples are the columns ("lanes"). A vector is a value with plane == 1.
//
// Nothing here is read from a file: ticketsmith/runtime/ writes programs and packs weights, and checks what it is given.
// The layouts are mirrored in ticketsmith/native/abi.py; ts_sizeof() lets it check that they agree.
#pragma once
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TS_API __attribute__((visibility("default")))
#define TS_ABI 8

enum ts_isa { TS_PORTABLE = 0, TS_NEON = 1, TS_AVX2 = 2, TS_AVX512 = 3, TS_ISAS = 4 };

// Where a value lives: the scratch of one sample, the scratch of a batch, the caller's arrays, constants of the program, what a
// session remembers; then the second to eighth arrays of a caller.
enum { TS_MORE = 7 };
enum ts_space {
  TS_SAMPLE = 0, TS_BATCH = 1, TS_INPUT = 2, TS_OUTPUT = 3, TS_CONSTANT = 4, TS_MEMORY = 5, TS_MORE_INPUTS = 6,
  TS_MORE_OUTPUTS = TS_MORE_INPUTS + TS_MORE, TS_SPACES = TS_MORE_OUTPUTS + TS_MORE
};

enum ts_kind {
  TS_COPY, TS_SPARSE_CONV, TS_DENSE_HX16, TS_SELL, TS_GEMV, TS_POOL, TS_BINARY, TS_AFFINE, TS_NORM, TS_SOFTMAX, TS_EMBED,
  TS_ATTENTION, TS_MAP, TS_REDUCE, TS_MATMUL, TS_NORMALISE, TS_ATTEND, TS_DEAL, TS_DENSE_PX32, TS_BITMASK,
  TS_WINOGRAD, TS_KINDS
};

enum ts_activation {
  TS_LINEAR, TS_RELU, TS_GELU, TS_GELU_TANH, TS_SILU, TS_SIGMOID, TS_TANH, TS_RELU6, TS_HARD_SWISH,
  TS_HARD_SIGMOID, TS_EXP, TS_LOG, TS_SQRT, TS_ERF, TS_SIN, TS_COS, TS_ABS
};

enum ts_binary { TS_ADD, TS_SUB, TS_MUL };
enum ts_map_function {
  TS_MAP_COPY, TS_MAP_ADD, TS_MAP_SUB, TS_MAP_MUL, TS_MAP_DIV, TS_MAP_MAX, TS_MAP_MIN, TS_MAP_POWER, TS_MAP_EQUAL, TS_MAP_LESS,
  TS_MAP_LESS_EQUAL, TS_MAP_WHERE, TS_MAP_FMA
};
enum ts_reduce_function { TS_REDUCE_SUM, TS_REDUCE_MAX };
enum ts_normalise_kind { TS_SOFTMAX_OVER, TS_NORM_OVER, TS_RMS_OVER };
enum ts_dtype { TS_F32, TS_BF16, TS_I8 };

// What ts_run returns.
enum ts_status { TS_OK = 0, TS_BAD_TOKEN = 1, TS_NO_MEMORY = 2 };

typedef struct { int64_t base, plane, row; int32_t space, planes, rows, cols; } ts_value;

// One side of a copy. `sample` is how far the next sample of a batch lies, where the space holds several.
typedef struct { int64_t base, plane, row, col, sample; int64_t space; } ts_strided;

typedef struct { int32_t offset; float weight; } ts_tap;

// Every operation begins with this. `batch`: runs once for all samples, not once for each.
typedef struct { int32_t kind, batch; int64_t work; } ts_op;

// out[p][r][c] = in[p][r][c]. `lanes`: of every sample in the call, `sample` floats apart.
typedef struct { ts_op op; ts_strided in, out; int64_t planes, rows, cols, lanes; } ts_copy;

// Vectors that follow each other in both input and output, from these offsets on.
typedef struct { int32_t in, out, vectors; } ts_stretch;

// Sparse convolution or product, output-stationary: each output plane is a sum of shifted input planes ("taps").
// `starts` is [blocks][outputs][groups], then the end: taps are grouped by blocks of input planes that fit the first cache,
// and by the columns that they are moved by. A group's taps are summed from whole cache lines, where they lie; the sum is
// then moved by `shifts[group]` columns, and what `keeps` [groups][vectors] hides of it, beyond the ends of rows, is dropped.
// The first group is not moved. Tiles begin with rows: `row_vectors` vectors, or parts of one vector, or the whole plane where
// moves are by rows, too. What is computed of a plane are `stretches`, by at most `tile` vectors at a time. With few taps nothing
// is moved (one block, one group): each is read where it lies, and hides[tap] is the row of `keeps` that says what of it counts.
typedef struct {
  ts_op op; ts_value in, out, residual;
  const ts_tap* taps; const int32_t* starts; const float* bias; const uint16_t* mask;
  const int64_t* shifts; const uint16_t* keeps; const uint8_t* hides;
  const ts_stretch* stretches;
  int64_t stretch_count, vectors, row_vectors, tile, blocks, groups, activation, has_residual;
} ts_sparse_conv;

// The same, dense: `height` output planes at a time, all with the same taps, in `blocks` parts. weights is
// [outputs/height][taps][height].
typedef struct {
  ts_op op; ts_value in, out, residual;
  const int32_t* offsets; const float* weights; const float* bias; const uint16_t* mask;
  const ts_stretch* stretches;
  int64_t stretch_count, taps, height, blocks, activation, has_residual;
} ts_dense_hx16;

// Dense convolution or product: a few pixels of 32 output planes at a time. Pixel i reads from `from[i]` on, tap j of it from
// `offsets[j]` further on, and is written to `to[i]`: strides, padding and small images cost nothing. weights is
// [outputs/32][taps][32]; the last group has 16 where no more are left.
typedef struct {
  ts_op op; ts_value in, out, residual;
  const int32_t* offsets; const int32_t* from; const int32_t* to; const float* weights; const float* bias;
  int64_t pixels, taps, activation, has_residual;
} ts_dense_px32;

// Sparse matrix times vector. 16 rows by `width` (64 or 128) columns hold as many slots as their fullest row has weights
// there; a slot is 16 values and 16 column numbers of 8 bits. first is [slices + 1], slots is [slices][blocks]. Of 128
// columns fewer slots are in vain, but each takes twice the instructions: better where memory is what is waited for. Where rows
// of about as many weights were put together, order[16 * slices] tells which output each of them is, or none.
typedef struct {
  ts_op op; ts_value in, out, residual;
  const int64_t* first; const uint16_t* slots; const uint8_t* columns; const void* values; const float* scales;
  const float* bias; const int32_t* order; int64_t slices, blocks, width, dtype, activation, has_residual;
} ts_sell;

// The same with a bit for each weight: bits is [rows / 8][blocks of 64 columns][8 rows], the values of its ones follow each
// other in that order, and first [rows / 8 + 1] says where those of 8 rows begin. Fewer bytes than slices, but the instructions
// of a dense product: better for some 10 to 75 % of zeros where memory is what is waited for.
typedef struct {
  ts_op op; ts_value in, out, residual;
  const int64_t* first; const uint64_t* bits; const void* values; const float* scales; const float* bias;
  int64_t blocks, dtype, activation, has_residual;
} ts_bitmask;

// Dense matrix times vector; weights is [outputs / 8][inputs / 16][8][16], rounded up.
typedef struct {
  ts_op op; ts_value in, out, residual; const void* weights; const float* scales; const float* bias;
  int64_t inputs, dtype, activation, has_residual;
} ts_gemv;

// `lanes`: a column is so many floats, one for each sample; otherwise one.
typedef struct {
  ts_op op; ts_value in, out; int64_t average, height, width, step_r, step_c, pad_r, pad_c, count_padding, lanes;
} ts_pool;

// Elementwise; `vectors` of each plane, and what `mask` hides of them is set to zero.
typedef struct {
  ts_op op; ts_value left, right, out; const uint16_t* mask; int64_t binary, vectors, activation;
} ts_binary_op;

// out = in * scale[p] + shift[p] by plane; without scale and shift only the activation.
typedef struct {
  ts_op op; ts_value in, out; const float* scale; const float* shift; const uint16_t* mask; int64_t vectors, activation;
} ts_affine;

// Layer norm over the planes, for each column; `rms`: nothing is subtracted (Zhang and Sennrich 2019).
typedef struct {
  ts_op op; ts_value in, out; const float* scale; const float* shift; double epsilon; int64_t rms;
} ts_norm;
typedef struct { ts_op op; ts_value in, out; } ts_softmax;

// Tokens (int64, in `space`) to planes; table is [tokens][planes].
typedef struct { ts_op op; ts_value out; const float* table; int64_t tokens, space; } ts_embed;

// Per head of `width` planes: softmax(k q * scale) v, columns are tokens. `scratch` holds [tokens][tokens rounded to 16].
typedef struct {
  ts_op op; ts_value query, key, value, out, scratch; int64_t heads, causal; double scale;
} ts_attention;

// An array of up to six axes; distances in elements, which are int64 where `integer` says so, and otherwise floats. `step` is
// how much further it begins for each token that a session has seen before.
typedef struct { int64_t base, step, stride[6]; int32_t space, integer; } ts_array;

// out = activation(function(in...)) for every place of six axes.
typedef struct { ts_op op; ts_array in[3], out; int64_t size[6], inputs, function, activation; } ts_map;

// out = scale * sum, or the largest, over three axes of `in` for every place of the first three; maxima are not scaled.
typedef struct {
  ts_op op; ts_array in, out; int64_t size[3], over[3], over_stride[3], function; double scale;
} ts_reduce;

// Axes: three of batches, rows, columns, inner.
typedef struct { ts_op op; ts_array left, right, out; int64_t size[6]; } ts_matmul;

// Over the last three axes, for each place of the first three.
typedef struct { ts_op op; ts_array in, out, scale, shift; int64_t size[6], kind; double epsilon; } ts_normalise;

// Axes: sample, head, token, feature. `group` heads share keys and values. `cached`: keys of the session's earlier tokens lie
// before those of this call.
typedef struct {
  ts_op op; ts_array query, key, value, out, mask, scratch;
  int64_t samples, heads, group, queries, keys, width, value_width, causal, has_mask, cached; double scale;
} ts_attend;

// The even columns of rows, and `distance` behind them the odd ones (`odds` may be 0).
typedef struct {
  ts_op op; ts_strided in, out; int64_t planes, rows, evens, odds, distance;
} ts_deal;

// Dense convolution of 3 by 3 by Winograd's F(4x4, 3x3), some rows of tiles of it: `tile_rows` from `first` on, of `tile_cols`
// tiles each. Two operations: the inputs to frequencies, then (`product`) the products and the outputs. `transformed` is
// [36 frequencies][input planes][pitch tiles], planes apart by its `plane`; `pitch` is a multiple of 16, or fewer than 16 tiles.
// `together` planes make whole vectors. `sums` is for each 16 outputs. weights is [outputs / 16][36][inputs][16]. Tile 0 has the
// input columns from `left` on in its middle, and its outputs begin `skip` columns before the image. What `columns` hides of a
// row of tiles is no part of the image; `starts` and `ends` hide the tiles whose neighbour is in another row.
typedef struct {
  ts_op op; ts_value in, out, residual, transformed, sums;
  const float* weights; const float* bias; const uint16_t* columns; const uint16_t* starts; const uint16_t* ends;
  int64_t product, first, tile_rows, tile_cols, pitch, together, pad_rows, left, skip, activation, has_residual;
} ts_winograd;

typedef struct ts_program ts_program;

TS_API int ts_abi(void);
TS_API int ts_sizeof(int kind);
TS_API int ts_best_isa(void);
TS_API int ts_has_isa(int isa);

// `ops` point to `count` operations; they are copied, what they point to is not. Sizes are in floats; sample_in and
// sample_out are the elements of one sample in the caller's arrays. 0 when memory is short or the ISA is not there.
TS_API ts_program* ts_create(const void* const* ops, int64_t count, int isa, int64_t sample_floats, int64_t batch_floats,
                             int64_t sample_in, int64_t sample_out, int64_t input_bytes);
// The shape of one sample, which the Python door compares with what it is given; at most 8 numbers.
TS_API void ts_set_shape(ts_program* program, const int64_t* shape, int64_t dimensions);
// Whether an array of this shape is a batch of such samples of items of this size; how many samples, or -1.
TS_API int64_t ts_samples(const ts_program* program, const int64_t* shape, int64_t dimensions, int64_t item_bytes);
// The caller's further arrays: bytes of one sample of each input, floats of one sample of each output. At most TS_MORE.
TS_API void ts_set_more(ts_program* program, const int64_t* input_bytes, int64_t inputs, const int64_t* output_floats,
                        int64_t outputs);
TS_API int64_t ts_output_bytes(const ts_program* program);
TS_API void ts_destroy(ts_program* program);

// One inference of `samples` samples on at most `threads` threads. Any number of threads may call at once.
TS_API int ts_run(ts_program* program, const void* input, float* output, int64_t samples, int threads);

// The same with all inputs and outputs, and what a session remembers: its memory, and how many tokens it has seen.
TS_API int ts_call(ts_program* program, const void* const* inputs, float* const* outputs, int64_t samples, float* memory,
                   int64_t position, int threads);

#ifdef __cplusplus
}
#endif
