"""What crosses the border to the kernels: enums, structures, and the table of kernels, written once for both sides.

``setup.py`` (or ``python ticketsmith/native/abi.py FOLDER``) writes the C++ side of this file, ``abi.h``, ``table.inl`` and
``training.inl``, and the kernels are compiled with it. So both sides cannot differ: C++ checks every offset, and a library that
was built from another table is refused by its ``FINGERPRINT``. Names are the same on both sides: ``abi.Sell`` is ``abi::Sell``,
``abi.Dtype.INT8`` is ``abi::Dtype::INT8``. Only the standard library is needed.

A program is a flat array of operations. Tensors lie in planes: plane p, row r, column c of a value is the float at
``base + p * plane + r * row + c`` of its space. A channel of an image is a plane; so is a feature of a sequence, whose tokens
are the columns, and a feature of a batch, whose samples are the columns ("lanes"). A vector is a value with ``plane == 1``.

Nothing here is read from a file: :mod:`ticketsmith.runtime` writes programs and packs weights, and checks where they come from.
"""

from __future__ import annotations

import ctypes
import keyword
import re
import sys
import zlib
from enum import IntEnum
from pathlib import Path
from typing import Any

VERSION = 11
"""Raised whenever a function of ``src/program/api.h`` changes, or what a field means; the rest has its own fingerprint."""


class Isa(IntEnum):
    """Instruction sets, in the order of preference, least first."""

    PORTABLE = 0
    NEON = 1
    AVX2 = 2
    AVX512 = 3


MORE = 7
"""How many arrays a caller may have beside the first input, and beside the first output."""


class Space(IntEnum):
    """Where a value lives: the scratch of one sample, the scratch of a batch, the caller's arrays, constants of the program,
    what a session remembers; then the second to eighth arrays of a caller."""

    SAMPLE = 0
    BATCH = 1
    INPUT = 2
    OUTPUT = 3
    CONSTANT = 4
    MEMORY = 5
    MORE_INPUTS = 6
    MORE_OUTPUTS = 6 + MORE


Status = IntEnum("Status", "OK BAD_TOKEN NO_MEMORY", start=0)
"""What a call returns."""

Dtype = IntEnum("Dtype", "FLOAT32 BFLOAT16 INT8", start=0)
Activation = IntEnum(
    "Activation",
    "LINEAR RELU GELU GELU_TANH SILU SIGMOID TANH RELU6 HARD_SWISH HARD_SIGMOID EXP LOG SQRT ERF SIN COS ABS",
    start=0,
)
BinaryFunction = IntEnum("BinaryFunction", "ADD SUB MUL", start=0)
MapFunction = IntEnum(
    "MapFunction", "COPY ADD SUB MUL DIV MAXIMUM MINIMUM POWER EQUAL LESS LESS_EQUAL WHERE FMA", start=0
)
ReduceFunction = IntEnum("ReduceFunction", "SUM MAX", start=0)
NormFunction = IntEnum("NormFunction", "SOFTMAX LAYER_NORM RMS_NORM", start=0)

ENUMS: tuple[type[IntEnum], ...] = (
    Isa, Space, Status, Dtype, Activation, BinaryFunction, MapFunction, ReduceFunction, NormFunction,
)  # fmt: skip

_TYPES: dict[str, Any] = {"int32_t": ctypes.c_int32, "int64_t": ctypes.c_int64, "double": ctypes.c_double}
_NAMES = {kind: name for name, kind in _TYPES.items()}


def _fields(declarations: str) -> list[tuple[str, Any]]:
    """ctypes fields of C declarations such as ``int64_t size[6], kind; const float* bias;``. Any pointer is a ``void*`` here;
    a name that Python reserves gets a ``_``."""
    fields = []
    for declaration in declarations.split(";")[:-1]:
        c_type, names = re.fullmatch(r"\s*((?:const )?\w+\*|\w+)\s+(.*)", declaration, re.DOTALL).groups()  # type: ignore[union-attr]
        if c_type.endswith("*"):
            _TYPES.setdefault(c_type, type(c_type, (ctypes.c_void_p,), {}))
        for name in names.split(","):
            name, size = re.fullmatch(r"\s*(\w+)(?:\[(\d+)\])?\s*", name).groups()  # type: ignore[union-attr]
            kind = _TYPES[c_type]
            fields.append((name + "_" * keyword.iskeyword(name), kind * int(size) if size else kind))
    return fields


# A structure reads best as one paragraph.
# fmt: off
class Value(ctypes.Structure):
    """Planes of rows of columns; distances in floats."""
    _fields_ = _fields("int64_t base, plane, row; int32_t space, planes, rows, cols;")

class Strided(ctypes.Structure):
    """One side of a copy. ``sample`` is how far the next sample of a batch lies, where the space holds several."""
    _fields_ = _fields("int64_t base, plane, row, col, sample, space;")

class Array(ctypes.Structure):
    """An array of up to six axes; distances in elements, which are int64 where ``integer`` says so, and otherwise floats.
    ``step`` is how much further it begins for each token that a session has seen before."""
    _fields_ = _fields("int64_t base, step, stride[6]; int32_t space, integer;")

class Tap(ctypes.Structure):
    """A weight, and how many floats from where its output lies its input lies."""
    _fields_ = [("offset", ctypes.c_int32), ("weight", ctypes.c_float)]

class Quad(ctypes.Structure):
    """Four weights of 8 bits, and how many bytes from where their output lies their inputs lie."""
    _fields_ = [("offset", ctypes.c_int32 * 4), ("weights", ctypes.c_int32)]

class Stretch(ctypes.Structure):
    """Vectors that follow each other in both input and output, from these offsets on."""
    _fields_ = [("in", ctypes.c_int32), ("out", ctypes.c_int32), ("vectors", ctypes.c_int32)]

class Op(ctypes.Structure):
    """How every operation begins. ``batch``: runs once for all samples, not once for each; ``work`` counts multiply-adds."""
    _fields_ = _fields("int32_t kind, batch; int64_t work;")

_NAMES |= {ctypes.c_float: "float"} | {kind: kind.__name__ for kind in (Value, Strided, Array, Op)}
_TYPES |= {kind.__name__: kind for kind in (Value, Strided, Array, Op)}

class Operation(ctypes.Structure):
    """What all operations have in common."""
    _fields_ = _fields("Op op;")

class Product(Operation):
    """What all products have in common; ``residual`` is added before the activation where there is one. Sparse ones also write
    ``out`` as ``QuantisePlanes`` would where ``rounds``: by four planes, or ``apart``, into ``bytes``, tile by tile."""
    _fields_ = _fields("""Value in, out, residual, bytes; const float* bias; double inverse, zero;
        int64_t activation, has_residual, rounds, apart;""")

class Copy(Operation):
    """out[p][r][c] = in[p][r][c]. ``lanes``: of every sample in the call, ``sample`` floats apart."""
    _fields_ = _fields("Strided in, out; int64_t planes, rows, cols, lanes;")

class Deal(Operation):
    """The even columns of rows, and ``distance`` behind them the odd ones (``odds`` may be 0)."""
    _fields_ = _fields("Strided in, out; int64_t planes, rows, evens, odds, distance;")

class SparseConv(Product):
    """Sparse convolution or product, output-stationary: each output plane is a sum of shifted input planes ("taps").

    ``starts`` is [blocks][outputs][groups], then the end: taps are grouped by blocks of input planes that fit the first
    cache, and by the columns that they are moved by. A group's taps are summed from whole cache lines, where they lie; the
    sum is then moved by ``shifts[group]`` columns, and what ``keeps`` [groups][vectors] hides of it, beyond the ends of rows,
    is dropped. The first group is not moved. Tiles begin with rows: ``row_vectors`` vectors, or parts of one vector, or the
    whole plane where moves are by rows, too. What is computed of a plane are ``stretches``, by at most ``tile`` vectors at a
    time. With few taps nothing is moved (one block, one group): each is read where it lies, and hides[tap] is the row of
    ``keeps`` that says what of it counts.
    """
    _fields_ = _fields("""const Tap* taps; const int32_t* starts; const uint16_t* mask; const int64_t* shifts;
        const uint16_t* keeps; const uint8_t* hides; const Stretch* stretches;
        int64_t stretch_count, vectors, row_vectors, tile, blocks, groups;""")

class SparseConvFours(Product):
    """``SparseConv`` where four neighbouring outputs have the same taps, so that an input is read once for all of them:
    ``offsets`` [taps], ``weights`` [taps][4], and ``starts`` [blocks][outputs / 4, rounded up][groups]. Nothing is moved: taps
    are read where they lie, and a group has those of which a row of ``keeps`` says what counts; of the first group all does."""
    _fields_ = _fields("""const int32_t* offsets; const float* weights; const int32_t* starts; const uint16_t* mask;
        const uint16_t* keeps; const Stretch* stretches; int64_t stretch_count, vectors, blocks, groups;""")

class DenseHx16(Product):
    """The same, dense: ``height`` output planes at a time, all with the same taps, in ``blocks`` parts. ``weights`` is
    [outputs / height][taps][height]."""
    _fields_ = _fields("""const int32_t* offsets; const float* weights; const uint16_t* mask; const Stretch* stretches;
        int64_t stretch_count, taps, height, blocks;""")

class DensePx32(Product):
    """Dense convolution or product: a few pixels of 32 output planes at a time. Pixel i reads from ``from[i]`` on, tap j of it
    from ``offsets[j]`` further on, and is written to ``to[i]``: strides, padding and small images cost nothing. ``weights`` is
    [outputs / 32][taps][32]; the last group has 16 where no more are left."""
    _fields_ = _fields("const int32_t* offsets, from, to; const float* weights; int64_t pixels, taps;")

class DenseDotPx32(Product):
    """``DensePx32`` in whole numbers: ``in`` and ``range`` are what ``QuantisePlanes`` wrote, a tap and a weight are four.
    ``totals`` is the sum of each output's weights, ``scales`` what a step of them is worth."""
    _fields_ = _fields("""Value range; const int32_t* offsets, from, to, weights, totals; const float* scales;
        int64_t pixels, taps, period;""")

class DenseDotHx16(Product):
    """``DenseHx16`` in whole numbers, four outputs at a time: ``in`` and ``range`` are what ``QuantisePlanes`` wrote, a tap and a
    weight are four. ``totals`` is the sum of each output's weights, ``scales`` what a step of them is worth."""
    _fields_ = _fields("""Value range; const int32_t* offsets, weights, totals; const float* scales; const uint16_t* mask;
        const Stretch* stretches; int64_t stretch_count, taps, period;""")

class Winograd(Product):
    """Dense convolution of 3 by 3 by F(4x4, 3x3), some rows of tiles of it: ``tile_rows`` from ``first`` on, of ``tile_cols``
    tiles each.

    Two operations: the inputs to frequencies, then (``product``) the products and the outputs. ``transformed`` is [36
    frequencies][input planes][pitch tiles], planes apart by its ``plane``; ``pitch`` is a multiple of 16, or fewer than 16
    tiles. ``together`` planes make whole vectors. ``sums`` is for each 16 outputs. ``weights`` is
    [outputs / 16][36][inputs][16]. Tile 0 has the input columns from ``left`` on in its middle, and its outputs begin ``skip``
    columns before the image. What ``columns`` hides of a row of tiles is no part of the image; ``starts`` and ``ends`` hide
    the tiles whose neighbour is in another row.
    """
    _fields_ = _fields("""Value transformed, sums; const float* weights; const uint16_t* columns, starts, ends;
        int64_t product, first, tile_rows, tile_cols, pitch, together, pad_rows, left, skip;""")

class Sell(Product):
    """Sparse matrix times vector, sliced ELLPACK. 16 rows by ``width`` (64 or 128) columns hold as many slots as their fullest
    row has weights there; a slot is 16 values and 16 column numbers of 8 bits. ``first`` is [slices + 1], ``slots`` is
    [slices][blocks]. Of 128 columns fewer slots are in vain, but each takes twice the instructions: better where memory is
    what is waited for. Where rows of about as many weights were put together, order[16 * slices] tells which output each of
    them is, or none."""
    _fields_ = _fields("""const int64_t* first; const uint16_t* slots; const uint8_t* columns; const void* values;
        const float* scales; const int32_t* order; int64_t slices, blocks, width, dtype;""")

class Bitmask(Product):
    """The same with a bit for each weight: ``bits`` is [rows / 8][blocks of 64 columns][8 rows], the values of its ones follow
    each other in that order, and ``first`` [rows / 8 + 1] says where those of 8 rows begin. Fewer bytes than slots, but the
    instructions of a dense product: better for some 10 to 75 % of zeros where memory is what is waited for."""
    _fields_ = _fields(
        "const int64_t* first; const uint64_t* bits; const void* values; const float* scales; int64_t blocks, dtype;"
    )

class Gemv(Product):
    """Dense matrix times vector; ``weights`` is [outputs / 8][inputs / 16][8][16], rounded up."""
    _fields_ = _fields("const void* weights; const float* scales; int64_t inputs, dtype;")

class QuantiseVector(Operation):
    """A vector as whole numbers of 8 bits, of which one stands for ``step * (byte - zero)``: ``out`` is 16 times the step, 16
    times the zero (int32), then the bytes, and zeros behind the last 64. ``out.planes`` counts it in floats, a multiple of 16;
    where ``out`` holds a batch, samples are ``sample`` floats apart. ``known``: step, zero and 1 / step are those given here."""
    _fields_ = _fields("Value in, out; int64_t sample, known; double step, inverse, zero;")

class QuantisePlanes(Operation):
    """Planes as whole numbers of 8 bits: a plane of ``out`` has four of ``in``, a byte each, in every column. Both are laid out
    alike; ``before`` floats of a plane lie before its first row, and all of it is written. What ``mask`` [plane / 16] keeps of
    a plane's memory decides the range, for every ``period``-th vector together, and lane by lane, or of all lanes where they
    are ``alike``. ``range`` is [step, zero][period][16], the first for the vector that the first row begins with. ``apart``: a
    plane of ``out`` has one of ``in``, byte by byte. ``known``: zero and 1 / step are those given here; no range is
    written."""
    _fields_ = _fields("""Value in, out, range; const uint16_t* mask; int64_t before, period, alike, apart, known;
        double inverse, zero;""")

class SplitFours(Operation):
    """Planes of four bytes in each of 16 or 32 columns, to four of one byte each, where they lie."""
    _fields_ = _fields("Value in;")

class SparseConvDot(Product):
    """``SparseConv`` in whole numbers: ``in`` and ``range`` are what ``QuantisePlanes`` wrote. The weight of a tap is four of 8
    bits, of four input channels; ``totals`` is their sum for each of what ``starts`` begins. ``scales`` is what a step of each
    output's weights is worth."""
    _fields_ = _fields("""Value range; const Tap* taps; const int32_t* starts; const int32_t* totals; const float* scales;
        const uint16_t* mask; const int64_t* shifts; const uint16_t* keeps; const Stretch* stretches;
        int64_t stretch_count, vectors, row_vectors, tile, blocks, groups, period;""")

class SparseConvBytes(Product):
    """``SparseConv`` in whole numbers, with any mask: ``in`` is what ``QuantisePlanes`` wrote ``apart``. A quad is four weights
    of an output; ``starts`` is [blocks][outputs], then the end, by blocks of input planes that fit the first cache.
    ``totals`` is the sum of each output's weights, ``scales`` what a step of them is worth. Nothing is moved."""
    _fields_ = _fields("""Value range; const Quad* quads; const int32_t* starts; const int32_t* totals; const float* scales;
        const uint16_t* mask; const Stretch* stretches; int64_t stretch_count, blocks, period;""")

class SellDot(Product):
    """``Sell`` in whole numbers: ``in`` is what ``QuantiseVector`` wrote. A slot is four weights of each of 16 rows, the four of
    a row side by side, of 8 or 4 ``bits``; ``width`` is 128 or 256. ``scales`` is what a step of each row is worth, ``totals``
    the sum of its weights; of 4 bits, both are for weights that are 16 times what they are, as the kernels have them."""
    _fields_ = _fields("""const int64_t* first; const uint16_t* slots; const uint8_t* columns; const void* values;
        const float* scales; const int32_t* totals; const int32_t* order; int64_t slices, blocks, width, bits;""")

class GemvDot(Product):
    """``Gemv`` in whole numbers; ``weights`` is [outputs / 8][inputs / 64][8][64], rounded up; ``scales`` and ``totals`` are
    [outputs / 8][16]."""
    _fields_ = _fields("const void* weights; const float* scales; const int32_t* totals; int64_t blocks, bits;")

class Pool(Operation):
    """A maximum or mean over windows. ``lanes``: a column is so many floats, one for each sample; otherwise one."""
    _fields_ = _fields(
        "Value in, out; int64_t average, height, width, step_r, step_c, pad_r, pad_c, count_padding, lanes;"
    )

class Binary(Operation):
    """Elementwise; ``vectors`` of each plane, and what ``mask`` hides of them is set to zero."""
    _fields_ = _fields("Value left, right, out; const uint16_t* mask; int64_t binary, vectors, activation;")

class Affine(Operation):
    """out = in * scale[p] + shift[p] by plane; without scale and shift only the activation."""
    _fields_ = _fields("Value in, out; const float* scale, shift; const uint16_t* mask; int64_t vectors, activation;")

class Norm(Operation):
    """Layer norm over the planes, for each column; ``rms``: nothing is subtracted (Zhang and Sennrich 2019)."""
    _fields_ = _fields("Value in, out; const float* scale, shift; double epsilon; int64_t rms;")

class Softmax(Operation):
    """Softmax over the planes, for each column."""
    _fields_ = _fields("Value in, out;")

class Embed(Operation):
    """Tokens (int64, in ``space``) to planes; ``table`` is [tokens][planes]."""
    _fields_ = _fields("Value out; const float* table; int64_t tokens, space;")

class Attention(Operation):
    """Per head of ``width`` planes: softmax(k q * scale) v, columns are the tokens of ``sequences``, one behind the other, each
    of which attends to itself. ``mask`` [one sequence, head, query, key] is added to the scores. ``scratch`` has a plane for
    each of their heads: the scores and the queries of three vectors of these."""
    _fields_ = _fields("""Value query, key, value, out, scratch; Array mask;
        int64_t sequences, heads, causal, has_mask; double scale;""")

class AttentionDot(Attention):
    """The same in whole numbers. A head has a multiple of four planes; ``scratch`` has a plane for each, of queries, keys and
    values in bytes, what their steps are worth, and the scores of three vectors of queries."""

class Map(Operation):
    """out = activation(function(in...)) for every place of six axes."""
    _fields_ = _fields("Array in[3], out; int64_t size[6], inputs, function, activation;")

class Reduce(Operation):
    """out = scale * sum, or the largest, over three axes of ``in`` for every place of the first three; maxima are not
    scaled."""
    _fields_ = _fields("Array in, out; int64_t size[3], over[3], over_stride[3], function; double scale;")

class Matmul(Operation):
    """A product of two values. Axes: three of batches, rows, columns, inner."""
    _fields_ = _fields("Array left, right, out; int64_t size[6];")

class Normalise(Operation):
    """Softmax or a norm over the last three axes, for each place of the first three."""
    _fields_ = _fields("Array in, out, scale, shift; int64_t size[6], kind; double epsilon;")

class Attend(Operation):
    """Attention of arrays. Axes: sample, head, token, feature. ``group`` heads share keys and values. ``cached``: keys of the
    session's earlier tokens lie before those of this call."""
    _fields_ = _fields("""Array query, key, value, out, mask, scratch;
        int64_t samples, heads, group, queries, keys, width, value_width, causal, has_mask, cached; double scale;""")

class Vectors(ctypes.Structure):
    """The vectors of sixteen examples that a value has for a channel: ``blocks`` x ``rows`` x ``cols`` of them, and how far
    apart they lie in what is read and in what is written."""
    _fields_ = _fields("int64_t blocks, rows, cols, in_block, in_row, in_col, out_block, out_row, out_col;")

class Parameter(ctypes.Structure):
    """Weights, and what the optimizer remembers of each; null where it remembers nothing or no average is asked for."""
    _fields_ = _fields("float* values; float* first; float* second; float* average;")

_NAMES |= {kind: kind.__name__ for kind in (Vectors, Parameter)}
_TYPES |= {kind.__name__: kind for kind in (Vectors, Parameter)}

class Job(ctypes.Structure):
    """Steps of training, or one evaluation: the examples and which of them, [steps][samples]; ``before`` are the steps that
    the optimizer has made already. ``item`` is the size of a number of ``data``: 1 or 4 bytes. ``seconds``: where they are to be
    measured, of each operation, onto which its time on the processor is added."""
    _fields_ = _fields("""const void* data; const void* targets; const int64_t* indices; const double* rates;
        const int64_t* seeds; double* losses; float* outputs; double* seconds;
        int64_t item, samples, steps, before, optimizer, nesterov; double momentum, decay, average;""")

class Gather(Operation):
    """Examples into lanes: out[offsets[f]] of lane b is data[index[b]][f] * scale[f] + shift[f]; lanes without an example are
    zero. ``rows`` [samples][row]: the same by examples, where it is wanted; else scratch for 16 of them."""
    _fields_ = _fields("""const int32_t* offsets; const float* scale; const float* shift; float* rows; float* out;
        int64_t features, row, keep, lanes, blocks, block;""")

class Rows(Operation):
    """A value by examples: rows[b][f] is in[offsets[f]] of lane b."""
    _fields_ = _fields("""const float* in; const int32_t* offsets; float* rows;
        int64_t features, row, lanes, blocks, block;""")

class Outputs(Operation):
    """The last value, by examples, where the job wants it."""
    _fields_ = _fields("const float* in; const int32_t* offsets; int64_t features, lanes, block;")

class Taps(Operation):
    """What sums of taps have in common: out[outs[o]] is bias[o] and the sum of weight * in[offset] over the taps of o. With
    ``gate`` an output is kept where the gate, which lies as ``out`` does, is positive; ``add``: onto what is there."""
    _fields_ = _fields("""Vectors vectors; const float* in; const float* weights; const int32_t* outs; const float* bias;
        const float* gate; float* out; int64_t outputs, relu, add;""")

class DenseTaps(Taps):
    """All outputs have the same taps: tap i reads in[offsets[i]] and weights[o * distance + places[i]]. ``part`` taps at a time,
    so that what they read stays in the first cache."""
    _fields_ = _fields("const int32_t* offsets; const int32_t* places; int64_t taps, part, distance;")

class SparseTaps(Taps):
    """``starts`` is [parts][outputs], then the end; ``taps`` are pairs of an offset and a place in ``weights``."""
    _fields_ = _fields("const int32_t* starts; const int32_t* taps; int64_t parts;")

class Gradient(Operation):
    """The gradient of weights, and the step of the optimizer with it: of the input of a layer, and of its output's gradient."""
    _fields_ = _fields("Vectors vectors; const float* in; const float* out; Parameter parameter; int64_t outputs;")

class SparseGradient(Gradient):
    """Of surviving weights: ``offsets`` of their inputs, [16 * groups]; ``rows`` of their outputs, [4 * groups]: four
    neighbours have the same output. In ``vectors``, in is the input and out is the output's gradient. ``band`` rows of all
    blocks at a time; ``scratch`` [groups][16][16] is for the sums of more than one."""
    _fields_ = _fields("const int32_t* offsets; const int32_t* rows; float* scratch; int64_t groups, band;")

class LinearGradient(Gradient):
    """Of all weights of a linear layer, [outputs][distance]; ``in`` lies by examples, [samples][distance]. ``mask`` has a bit for
    each weight, or is null."""
    _fields_ = _fields("const int32_t* outs; const uint16_t* mask; int64_t features, distance, lanes;")

class ConvGradient(Gradient):
    """Of all weights of a convolution, [outputs][distance], of which ``taps`` are there; ``scratch`` holds as many."""
    _fields_ = _fields("""const int32_t* outs; const int32_t* offsets; const uint16_t* mask; float* scratch;
        int64_t taps, distance;""")

class ExampleTaps(Operation):
    """Sums of ``count`` kinds of ``taps`` between arrays by examples, ``in`` [examples][in_features] and ``out``, ``lanes``
    examples at a time: number f of an example lies at in_places[f] of ``in_lanes``, and around them, at ``edge_places``, are
    zeros. Addresses in ``taps`` count from where a block begins, which ``keep`` keeps for each, or else there is one a thread;
    weights and bias are those that are here. Without ``out`` nothing is summed."""
    _fields_ = _fields("""const float* in; float* out; const float* weights; const float* bias; const SparseTaps* taps;
        const int32_t* in_places; const int32_t* out_places; const int32_t* edge_places; float* in_lanes; float* out_lanes;
        int64_t examples, lanes, blocks, in_features, out_features, in_block, out_block, count, edges, keep;""")

class Gelu(Operation):
    """out = in * the normal distribution up to ``in``, or what ``tanh`` makes of it."""
    _fields_ = _fields("const float* in; float* out; int64_t count, tanh;")

class GeluGradient(Gelu):
    """Of ``in``."""
    _fields_ = _fields("const float* out_gradient; float* gradient;")

class SelfAttention(Operation):
    """softmax(scale * q k) v of ``heads`` of ``batch`` sequences of ``tokens``; a head's features, ``width`` of them, are
    neighbours. Strides, of sequence, head and token, are alike for queries, keys and values. ``cosines`` and ``sines``
    [tokens][width] turn queries and keys, where there are any; the first half of sines is negative, and ``width`` at most 128.
    ``sums`` [batch * heads][tokens] are remembered. With tokens and width rounded up to 16, ``scratch`` holds
    6 * tokens * width + 2 * tokens * tokens for each thread."""
    _fields_ = _fields("""const float* query; const float* key; const float* value; const float* cosines; const float* sines;
        float* out; float* sums; float* scratch;
        int64_t batch, heads, tokens, width, in_stride[3], out_stride[3], causal; double scale;""")

class SelfAttentionGradient(SelfAttention):
    """Of queries, keys and values, which lie as they do; the output's lies as the output does."""
    _fields_ = _fields("""const float* out_gradient; float* query_gradient; float* key_gradient; float* value_gradient;""")

class PlaneSums(Operation):
    """The gradient of biases: sums[o] is the sum of all of in[outs[o]]."""
    _fields_ = _fields("Vectors vectors; const float* in; const int32_t* outs; float* sums; int64_t outputs;")

class Update(Operation):
    """A step of the optimizer for ``count`` weights, a multiple of 16, whose gradient is known."""
    _fields_ = _fields("Parameter parameter; const float* gradient; int64_t count;")

class CrossEntropy(Operation):
    """The mean over the examples of the cross entropy of ``in`` with a label (int64), and its gradient."""
    _fields_ = _fields("const float* in; float* gradient; const int32_t* offsets; int64_t classes, lanes, blocks, block;")

class SquaredError(Operation):
    """The mean over examples and numbers of the squared difference to targets (float32), and its gradient."""
    _fields_ = _fields("const float* in; float* gradient; const int32_t* offsets; int64_t features, lanes, blocks, block;")

class Elementwise(Operation):
    """What passes over the inside of ``outputs`` channels of a value have in common."""
    _fields_ = _fields("""Vectors vectors; const int32_t* ins; const int32_t* outs; const float* in; float* out;
        int64_t outputs, add;""")

class Relu(Elementwise):
    """out = max(0, in)."""

class Bfloat16(Elementwise):
    """out = in, rounded to the nearest bfloat16, ties to even."""

class Gate(Elementwise):
    """out = in where ``gate``, which lies as ``out`` does, is positive, else 0."""
    _fields_ = _fields("const float* gate;")

class Add(Elementwise):
    """out = in + other, where there is another, which lies as ``out`` does."""
    _fields_ = _fields("const float* other; int64_t relu;")

class Drop(Elementwise):
    """out = in / (1 - rate) or 0, by a draw for each example and number from the seed of the step and ``stream``; the same in
    both directions."""
    _fields_ = _fields("double rate; int64_t stream, lanes;")

class Windows(Operation):
    """What poolings have in common: ``in`` [height][width] is read by windows, of which ``vectors`` says how many. ``mean``, or
    the maximum."""
    _fields_ = _fields("""Vectors vectors; const int32_t* ins; const int32_t* outs; const float* in; float* out;
        int64_t outputs, height, width, kernel[2], stride[2], padding[2], mean;""")

class Pooling(Windows):
    """out = the maximum or mean of each window of ``in``."""

class PoolingGradient(Windows):
    """Of the input, from that of the output. ``apart``: every pixel is in one window; ``relu``: only then, and the gradient is
    kept where ``in`` is positive."""
    _fields_ = _fields("const float* out_gradient; float* gradient; int64_t apart, relu, add;")

class Moments(Operation):
    """What batch norms have in common: the mean of each channel, and 1 / the deviation, in ``means`` and ``scales``."""
    _fields_ = _fields("""Vectors vectors; const int32_t* ins; const int32_t* outs; const float* in; const float* weight;
        float* means; float* scales; int64_t outputs, pixels, lanes, relu;""")

class BatchNorm(Moments):
    """Of a batch, which the running ones follow, or by these. The sum with ``other``, where there is another, which lies as
    ``out`` does."""
    _fields_ = _fields("""const float* bias; float* running_mean; float* running_variance; float* out; const float* other;
        double momentum, epsilon; int64_t training;""")

class BatchNormGradient(Moments):
    """Of weight and bias, and of the input; with ``relu`` where that is positive."""
    _fields_ = _fields("""const float* out_gradient; float* gradient; float* weight_gradient; float* bias_gradient;
        int64_t add;""")

# fmt: on

KERNELS: dict[type[Operation], str] = {
    Copy: "dense/copies.inl",
    Deal: "dense/copies.inl",
    SparseConv: "sparse/sparse_conv.inl",
    SparseConvFours: "sparse/sparse_conv.inl",
    Sell: "sparse/sell.inl",
    Bitmask: "sparse/bitmask.inl",
    Gemv: "dense/gemv.inl",
    QuantiseVector: "dense/quantise.inl",
    QuantisePlanes: "dense/quantise.inl",
    SparseConvDot: "sparse/sparse_conv_dot.inl",
    SparseConvBytes: "sparse/sparse_conv_bytes.inl",
    SplitFours: "sparse/sparse_conv_bytes.inl",
    SellDot: "sparse/sell_dot.inl",
    GemvDot: "dense/gemv_dot.inl",
    DenseHx16: "dense/hx16.inl",
    DensePx32: "dense/px32.inl",
    DenseDotPx32: "dense/px32.inl",
    DenseDotHx16: "dense/hx16.inl",
    Winograd: "dense/winograd.inl",
    Pool: "dense/pool.inl",
    Binary: "dense/elementwise.inl",
    Affine: "dense/elementwise.inl",
    Norm: "dense/norms.inl",
    Softmax: "dense/norms.inl",
    Embed: "dense/copies.inl",
    Attention: "dense/attention.inl",
    AttentionDot: "dense/attention_dot.inl",
    Map: "dense/arrays.inl",
    Reduce: "dense/arrays.inl",
    Matmul: "dense/arrays.inl",
    Normalise: "dense/normalise.inl",
    Attend: "dense/attend.inl",
}
"""The table of kernels: each operation, and the file of ``src`` with the function that computes it, of the same name in lower
case. Its number (``Op.kind``) is its place here."""

OPERATIONS = tuple(KERNELS)

TRAINING: dict[type[Operation], str] = {
    Gather: "training/rows.inl",
    Rows: "training/rows.inl",
    Outputs: "training/rows.inl",
    DenseTaps: "training/dense_taps.inl",
    SparseTaps: "training/sparse_taps.inl",
    SparseGradient: "training/sparse_gradient.inl",
    LinearGradient: "training/linear_gradient.inl",
    ConvGradient: "training/conv_gradient.inl",
    PlaneSums: "training/optimizer.inl",
    Update: "training/optimizer.inl",
    CrossEntropy: "training/losses.inl",
    SquaredError: "training/losses.inl",
    Relu: "training/elementwise.inl",
    Bfloat16: "training/elementwise.inl",
    Gate: "training/elementwise.inl",
    Add: "training/elementwise.inl",
    Drop: "training/elementwise.inl",
    Pooling: "training/pooling.inl",
    PoolingGradient: "training/pooling.inl",
    BatchNorm: "training/batch_norm.inl",
    BatchNormGradient: "training/batch_norm.inl",
    ExampleTaps: "training/examples.inl",
    Gelu: "training/gelu.inl",
    GeluGradient: "training/gelu.inl",
    SelfAttention: "training/attention.inl",
    SelfAttentionGradient: "training/attention.inl",
}
"""The same for operations of a step of training, whose kernels are told of the step instead of a call: pointers in them are
addresses, since a trainer owns all that it works on."""

STEPS = tuple(TRAINING)


_PARTS: tuple[type[ctypes.Structure], ...] = (
    Value,
    Strided,
    Array,
    Tap,
    Quad,
    Stretch,
    Op,
    Vectors,
    Parameter,
    Job,
)


def _declaration(name: str, kind: Any) -> str:
    if issubclass(kind, ctypes.Array):
        return f"{_declaration(name, kind._type_)}[{kind._length_}]"
    return f"{_NAMES.get(kind, kind.__name__)} {name.rstrip('_')}"


def _structure(kind: type[ctypes.Structure]) -> str:
    fields = [field for base in reversed(kind.__mro__) for field in vars(base).get("_fields_", ())]
    name, lines = kind.__name__, [f"  {_declaration(*field)};" for field in fields]
    checks = [
        f'static_assert(offsetof({name}, {field.rstrip("_")}) == {getattr(kind, field).offset}, "{name}");'
        for field, _ in fields
    ]
    return "\n".join([f"struct {name} {{", *lines, "};", *checks])


def header(operations: tuple[type[ctypes.Structure], ...] = OPERATIONS) -> str:
    """``abi.h``."""
    constants = {
        "MORE": MORE,
        "SPACES": Space.MORE_OUTPUTS + MORE,
        "KINDS": len(operations),
        "STEP_KINDS": len(STEPS),
        "VERSION": VERSION,
    }
    enums = (
        f"namespace {enum.__name__} {{ enum : int {{ {', '.join(f'{m.name} = {int(m)}' for m in enum)} }}; }}"
        for enum in ENUMS
    )
    return "\n".join([
        "// Written by native/abi.py, where every structure is explained.",
        "#pragma once", "#include <stddef.h>", "#include <stdint.h>", "namespace abi {",
        *(f"constexpr int {name} = {int(number)};" for name, number in constants.items()),
        *enums,
        *(_structure(kind) for kind in (*_PARTS, *operations, *STEPS)),
        f"constexpr size_t SIZES[] = {{{', '.join(f'sizeof({kind.__name__})' for kind in operations)}}};",
        "}\n",
    ])  # fmt: skip


def fingerprint(operations: tuple[type[ctypes.Structure], ...] = OPERATIONS) -> int:
    """A number that changes with every name, type, offset and value of ``header``."""
    return zlib.crc32(header(operations).encode()) & 0x7FFFFFFF


FINGERPRINT = fingerprint()
"""What ``ts_abi`` of a library must give that was built from this table."""


def table(kernels: dict[type[Operation], str] = KERNELS, name: str = "Kernels") -> str:
    """``table.inl``, or ``training.inl``: all kernel files, and the function of each operation in order."""
    names = [(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind.__name__).lower(), kind.__name__) for kind in kernels]
    calls = ",\n".join(f"    call<abi::{kind}, {function}>" for function, kind in names)
    return "\n".join([*(f'#include "{file}"' for file in dict.fromkeys(kernels.values())),
                      f"const {name} TABLE = {{{{\n{calls},\n}}}};\n"])  # fmt: skip


def write(folder: Path) -> None:
    """Writes both headers, for the compiler."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "abi.h").write_text(f"{header()}#define ABI_FINGERPRINT {FINGERPRINT}\n", encoding="utf-8")
    (folder / "table.inl").write_text(table(), encoding="utf-8")
    (folder / "training.inl").write_text(table(TRAINING, "StepKernels"), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
