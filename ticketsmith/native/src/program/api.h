// The C interface of the kernel library. Structures that cross it stand in native/abi.py, which writes abi.h.
#pragma once
#include "abi.h"

extern "C" {

#define TS_API __attribute__((visibility("default")))

typedef struct ts_program ts_program;

TS_API int ts_abi(void);  // the fingerprint of the table that the library was built from
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
// The caller's further arrays: bytes of one sample of each input, floats of one sample of each output. At most abi::MORE.
TS_API void ts_set_more(ts_program* program, const int64_t* input_bytes, int64_t inputs, const int64_t* output_floats,
                        int64_t outputs);
TS_API int64_t ts_output_bytes(const ts_program* program);
TS_API void ts_destroy(ts_program* program);

// One inference of `samples` samples on at most `threads` threads. Any number of threads may call at once.
TS_API int ts_run(ts_program* program, const void* input, float* output, int64_t samples, int threads);

// The same with all inputs and outputs, and what a session remembers: its memory, and how many tokens it has seen.
TS_API int ts_call(ts_program* program, const void* const* inputs, float* const* outputs, int64_t samples, float* memory,
                   int64_t position, int threads);

// One kernel by itself, for tests and benchmarks: part `index` of `count` of an operation, with `spaces` base addresses.
// -1 where the ISA is not there.
TS_API int ts_kernel(const void* op, int isa, float* const* spaces, int64_t samples, int64_t position, int index, int count);

// The operations of a step of training (native/abi.py: TRAINING), for each step of a Job, on at most `threads` threads. -1 where
// the ISA is not there.
TS_API int ts_train(const void* const* ops, int64_t count, int isa, const void* job, int threads);

}  // extern "C"
