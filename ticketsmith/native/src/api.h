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
#define TS_ABI 4

enum ts_isa { TS_PORTABLE = 0, TS_NEON = 1, TS_AVX2 = 2, TS_AVX512 = 3, TS_ISAS = 4 };

// Where a value lives: the scratch of one sample, the scratch of a batch, the caller's arrays, constants of the program.
enum ts_space { TS_SAMPLE = 0, TS_BATCH = 1, TS_INPUT = 2, TS_OUTPUT = 3, TS_CONSTANT = 4, TS_SPACES = 5 };

enum ts_kind {
  TS_COPY, TS_TAPS, TS_TILES, TS_SLICES, TS_ROWS, TS_POOL, TS_BINARY, TS_AFFINE, TS_NORM, TS_SOFTMAX, TS_EMBED,
  TS_ATTENTION, TS_DEAL, TS_KINDS
};

enum ts_activation {
  TS_LINEAR, TS_RELU, TS_GELU, TS_GELU_TANH, TS_SILU, TS_SIGMOID, TS_TANH, TS_RELU6
};

enum ts_binary { TS_ADD, TS_SUB, TS_MUL };
enum ts_dtype { TS_F32, TS_BF16, TS_I8 };

// What ts_run returns.
enum ts_status { TS_OK = 0, TS_BAD_TOKEN = 1, TS_NO_MEMORY = 2 };

typedef struct { int64_t base, plane, row; int32_t space, planes, rows, cols; } ts_value;

// One side of a copy. `sample` is how far the next sample of a batch lies, where the space holds several.
typedef struct { int64_t base, plane, row, col, sample; int64_t space; } ts_strided;

typedef struct { int32_t offset; float weight; } ts_tap;

// Every operation begins with this. `batch`: runs once for all samples, not once for each.
typedef struct { int32_t kind, batch; int64_t work; } ts_op;

// out[p][r][c] = in[p][r][c]. `lanes`: there are as many columns as samples in the call.
typedef struct { ts_op op; ts_strided in, out; int64_t planes, rows, cols, lanes; } ts_copy;

// Sparse convolution or product, output-stationary: each output plane is a sum of shifted input planes ("taps").
// `starts` is [blocks][outputs][groups], then the end: taps are grouped by blocks of input planes that fit the first cache,
// and by the columns that they are moved by. A group's taps are summed from whole cache lines, where they lie; the sum is
// then moved by `shifts[group]` columns, and what `keeps` [groups][vectors] hides of it, beyond the ends of rows, is dropped.
// The first group is not moved. Tiles begin with rows: `row_vectors` vectors, or parts of one vector.
typedef struct {
  ts_op op; ts_value in, out, residual;
  const ts_tap* taps; const int32_t* starts; const float* bias; const uint16_t* mask;
  const int64_t* shifts; const uint16_t* keeps;
  int64_t vectors, row_vectors, blocks, groups, activation, has_residual;
} ts_taps;

// The same, dense: `height` output planes at a time, all with the same taps, in `blocks` parts. weights is
// [outputs/height][taps][height].
typedef struct {
  ts_op op; ts_value in, out, residual;
  const int32_t* offsets; const float* weights; const float* bias; const uint16_t* mask;
  int64_t vectors, taps, height, blocks, activation, has_residual;
} ts_tiles;

// Sparse matrix times vector. 16 rows by `width` (64 or 128) columns hold as many slots as their fullest row has weights
// there; a slot is 16 values and 16 column numbers of 8 bits. first is [slices + 1], slots is [slices][blocks]. Of 128
// columns fewer slots are in vain, but each takes twice the instructions: better where memory is what is waited for.
typedef struct {
  ts_op op; ts_value in, out, residual;
  const int64_t* first; const uint16_t* slots; const uint8_t* columns; const void* values; const float* scales;
  const float* bias; int64_t slices, blocks, width, dtype, activation, has_residual;
} ts_slices;

// Dense matrix times vector; weights is [outputs rounded up to 8][inputs rounded up to 16].
typedef struct {
  ts_op op; ts_value in, out, residual; const float* weights; const float* bias;
  int64_t inputs, activation, has_residual;
} ts_rows;

typedef struct {
  ts_op op; ts_value in, out; int64_t average, height, width, step_r, step_c, pad_r, pad_c, count_padding;
} ts_pool;

// Elementwise; `vectors` of each plane, and what `mask` hides of them is set to zero.
typedef struct {
  ts_op op; ts_value left, right, out; const uint16_t* mask; int64_t binary, vectors, activation;
} ts_binary_op;

// out = in * scale[p] + shift[p] by plane; without scale and shift only the activation.
typedef struct {
  ts_op op; ts_value in, out; const float* scale; const float* shift; const uint16_t* mask; int64_t vectors, activation;
} ts_affine;

// Layer norm over the planes, for each column.
typedef struct { ts_op op; ts_value in, out; const float* scale; const float* shift; double epsilon; } ts_norm;
typedef struct { ts_op op; ts_value in, out; } ts_softmax;

// Tokens (int64) to planes; table is [tokens][planes].
typedef struct { ts_op op; ts_value out; const float* table; int64_t tokens; } ts_embed;

// Per head of `width` planes: softmax(k q * scale) v, columns are tokens. `scratch` holds [tokens][tokens rounded to 16].
typedef struct {
  ts_op op; ts_value query, key, value, out, scratch; int64_t heads, causal; double scale;
} ts_attention;

// The even columns of rows, and `distance` behind them the odd ones (`odds` may be 0).
typedef struct {
  ts_op op; ts_strided in, out; int64_t planes, rows, evens, odds, distance;
} ts_deal;

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
TS_API int64_t ts_output_bytes(const ts_program* program);
TS_API void ts_destroy(ts_program* program);

// One inference of `samples` samples on at most `threads` threads. Any number of threads may call at once.
TS_API int ts_run(ts_program* program, const void* input, float* output, int64_t samples, int threads);

#ifdef __cplusplus
}
#endif
