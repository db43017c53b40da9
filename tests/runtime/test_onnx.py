"""ONNX models of other exporters, and those that cannot be read: the message says what is wrong."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.runtime.networks import ISAS
from ticketsmith.runtime.from_onnx import OnnxError, UnsupportedError, from_onnx
from ticketsmith.runtime.model import Model

onnx = pytest.importorskip("onnx")
pytestmark = pytest.mark.skipif(not ISAS, reason="the kernels are not built")


def made(nodes: list[Any], shape: list[Any], opset: int = 17, **weights: Any) -> bytes:
    """A model of one input ``x`` and one output ``y``."""
    ports = [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)]
    outs = [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)]
    kept = [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    graph = onnx.helper.make_graph(nodes, "made", ports, outs, kept)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=8)
    return bytes(model.SerializeToString())


def node(op: str, *inputs: str, **attributes: Any) -> Any:
    return onnx.helper.make_node(op, list(inputs), ["y"], name="here", **attributes)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def random(*shape: int) -> Any:
    return rng().standard_normal(shape).astype(np.float32)


CASES: dict[str, tuple[list[Any], list[Any], dict[str, Any]]] = {
    "asymmetric padding": (["Conv", {"pads": [0, 1, 2, 0], "strides": [2, 1]}], [1, 3, 9, 8], {"w": random(4, 3, 3, 2)}),
    "automatic padding": (["Conv", {"auto_pad": "SAME_LOWER"}], [1, 3, 9, 8], {"w": random(4, 3, 2, 4)}),
    "one axis": (["Conv", {"dilations": [2], "group": 2}], ["n", 4, 20], {"w": random(6, 2, 3), "b": random(6)}),
    "transposed": (
        ["ConvTranspose", {"strides": [2, 2], "pads": [1, 0, 0, 1], "output_padding": [1, 0], "group": 2}],
        [1, 4, 5, 6], {"w": random(4, 3, 3, 2), "b": random(6)},
    ),
    "ceil": (["MaxPool", {"kernel_shape": [3, 2], "strides": [2, 2], "ceil_mode": 1}], [1, 3, 10, 7], {}),
    "mean with padding": (["AveragePool", {"kernel_shape": [3], "pads": [1, 1]}], [1, 3, 10], {}),
    "global maximum": (["GlobalMaxPool", {}], [1, 3, 10, 7], {}),
    "gemm": (["Gemm", {"alpha": 0.5, "beta": 2.0}], [1, 7], {"w": random(7, 5), "b": random(1, 5)}),
    "matrices": (["MatMul", {}], [1, 4, 7], {"w": random(7, 5)}),
    "a batch of matrices": (["MatMul", {}], [1, 2, 4, 7], {"w": random(2, 7, 5)}),
    "broadcast": (["Div", {}], [1, 3, 4, 5], {"w": np.abs(random(3, 1, 5)) + 1}),
    "hard sigmoid": (["HardSigmoid", {"alpha": 0.3}], [1, 9], {}),
    "softmax over channels": (["Softmax", {"axis": 1}], [1, 3, 4, 5], {}),
    "logarithm": (["LogSoftmax", {"axis": -1}], [1, 3, 9], {}),
    "selu": (["Selu", {}], [1, 9], {}),
    "selu of another size": (["Selu", {"alpha": 1.2, "gamma": 0.7}], [1, 9], {}),
    "sums as exporters write them": (
        ["ReduceSum", {"keepdims": 0, "noop_with_empty_axes": 0}], ["n", 3, 4], {"a": np.array([1])},
    ),
    "celu": (["Celu", {"alpha": 2.5}], [1, 9], {}),
    "softplus": (["Softplus", {}], [1, 9], {}),
    "prelu": (["PRelu", {}], [1, 3, 4, 5], {"w": random(3, 1, 1)}),
    "instances": (["InstanceNormalization", {}], [1, 3, 4, 5], {"w": random(3), "b": random(3)}),
    "tile": (["Tile", {}], [1, 3, 2], {"w": np.array([1, 2, 3])}),
    "depth": (["DepthToSpace", {"blocksize": 2}], [1, 8, 3, 5], {}),
    "depth by columns": (["DepthToSpace", {"blocksize": 2, "mode": "CRD"}], [1, 8, 3, 5], {}),
    "maximum over axes": (["ReduceMax", {"axes": [1, 3], "keepdims": 0}], [1, 3, 4, 5], {}),
    "columns": (["Gather", {"axis": 2}], [1, 3, 6], {"w": np.array([4, 0, -1])}),
    "every second": (
        ["Slice", {}], [1, 3, 9],
        {"w": np.array([1, -7]), "e": np.array([3, 2**31]), "a": np.array([1, 2]), "s": np.array([1, 2])},
    ),
    "power": (["Pow", {}], [1, 9], {"w": np.float32(3)}),
    "every second backwards": (
        ["Slice", {}], [1, 3, 9],
        {"w": np.array([-1]), "e": np.array([-(2**31)]), "a": np.array([2]), "s": np.array([-2])},
    ),
    "a table of columns": (["Gather", {"axis": 2}], [1, 3, 6], {"w": np.array([[4, 0], [1, 1]])}),
    "reflected": (["Pad", {"mode": "reflect"}], [1, 2, 5, 6], {"w": np.array([0, 0, 2, 1, 0, 0, 3, 4])}),
    "continued": (["Pad", {"mode": "edge"}], [1, 2, 5, 6], {"w": np.array([0, 0, 2, 1, 0, 0, 3, 4])}),
    "ceiled means": (
        ["AveragePool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 0, 1, 1], "ceil_mode": 1}],
        [1, 3, 10, 8], {},
    ),
    "neighbours' channels": (["LRN", {"size": 5, "alpha": 0.3, "beta": 0.6, "bias": 1.5}], [1, 7, 3, 4], {}),
    "sums so far": (["CumSum", {"reverse": 1, "exclusive": 1}], [1, 3, 6], {"w": np.array(2)}),
    "lengths": (["ReduceL2", {"axes": [2]}], [1, 3, 6], {}),
    "logarithms of sums": (["ReduceLogSumExp", {"axes": [1], "keepdims": 0}], [1, 3, 6], {}),
    "minimum": (["ReduceMin", {"axes": [-1], "keepdims": 0}], [1, 3, 6], {}),
    "space": (["SpaceToDepth", {"blocksize": 2}], [1, 3, 4, 6], {}),
    **{
        f"resized, {mode}, {way}, {rounding}": (
            ["Resize", {"mode": mode, "coordinate_transformation_mode": way, "nearest_mode": rounding}], [1, 2, 5, 7],
            {"empty": np.zeros(0, np.float32), "scales": np.array([1, 1, 1.6, 0.5], np.float32)},
        )
        for mode in ("nearest", "linear", "cubic")
        for way in ("half_pixel", "asymmetric", "align_corners")
        for rounding in (("floor", "round_prefer_ceil") if mode == "nearest" else ("floor",))
    },
    "reshaped": (["Reshape", {}], [1, 4, 6], {"w": np.array([0, -1, 3, 2])}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_operators_give_what_onnxruntime_gives(name: str) -> None:
    from onnxruntime import InferenceSession

    (op, attributes), shape, weights = CASES[name]
    model = made([node(op, "x", *weights, **attributes)], shape, **weights)
    sizes = [1 if isinstance(n, str) else n for n in shape]
    inputs = random(*sizes)
    (expected,) = InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"x": inputs})
    given = Model(from_onnx(model))(inputs)
    assert given.shape == expected.shape
    np.testing.assert_allclose(given, expected, rtol=0, atol=1e-4 * max(1.0, float(np.abs(expected).max())))


@pytest.mark.parametrize(
    ("kind", "gates", "options"),
    [
        ("LSTM", 4, {"direction": "bidirectional"}),
        ("GRU", 3, {"direction": "bidirectional", "linear_before_reset": 1}),
        ("GRU", 3, {"direction": "reverse"}),
        ("RNN", 1, {"activations": ["Relu"]}),
    ],
    ids=lambda one: str(one),
)
def test_recurrent_layers_give_what_onnxruntime_gives(kind: str, gates: int, options: dict[str, Any]) -> None:
    from onnxruntime import InferenceSession

    ways = 2 if options.get("direction") == "bidirectional" else 1
    nodes = [
        onnx.helper.make_node("Transpose", ["x"], ["steps"], perm=[1, 0, 2]),
        onnx.helper.make_node(kind, ["steps", "w", "r", "b"], ["made", "last"], hidden_size=3, **options),
        onnx.helper.make_node("Add", ["made", "last"], ["sum"]),  # [steps, ways, batch, hidden]
        node("Transpose", "sum", perm=[2, 0, 1, 3]),
    ]
    shapes = {"w": (ways, 3 * gates, 5), "r": (ways, 3 * gates, 3), "b": (ways, 6 * gates)}
    model = made(nodes, ["batch", 6, 5], **{name: random(*shape) for name, shape in shapes.items()})
    inputs = random(4, 6, 5)
    (expected,) = InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"x": inputs})
    given = Model(from_onnx(model))(inputs)
    assert given.shape == expected.shape
    np.testing.assert_allclose(given, expected, atol=1e-5)


def test_whole_numbers_that_are_normalised_are_no_longer_whole() -> None:
    nodes = [
        onnx.helper.make_node("Cast", ["x"], ["cast"], to=onnx.TensorProto.FLOAT),
        onnx.helper.make_node("Softmax", ["cast"], ["soft"]),
        node("Reshape", "soft", "target"),
    ]
    model = onnx.load_model_from_string(made(nodes, ["batch", 6], target=np.array([0, 2, 3])))
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.INT64
    inputs = np.arange(12).reshape(2, 6) % 5
    powers = np.exp(inputs.astype(np.float32))
    expected = (powers / powers.sum(1, keepdims=True)).reshape(2, 2, 3)
    np.testing.assert_allclose(Model(from_onnx(model.SerializeToString()))(inputs), expected, atol=1e-6)


def test_shapes_computed_in_the_model_become_numbers() -> None:
    """Flatten as older exporters write it, for a batch of unknown size."""
    nodes = [
        onnx.helper.make_node("Shape", ["x"], ["shape"]),
        onnx.helper.make_node("Gather", ["shape", "zero"], ["batch"]),
        onnx.helper.make_node("Unsqueeze", ["batch", "axis"], ["first"]),
        onnx.helper.make_node("Concat", ["first", "rest"], ["target"], axis=0),
        node("Reshape", "x", "target"),
    ]
    model = made(nodes, ["batch", 3, 4], zero=np.array(0), axis=np.array([0]), rest=np.array([-1]))
    inputs = random(5, 3, 4)
    np.testing.assert_array_equal(Model(from_onnx(model))(inputs), inputs.reshape(5, 12))


def test_what_is_not_known_is_named_with_its_node_and_a_way_out() -> None:
    with pytest.raises(UnsupportedError, match=r"'Det' \(node 'here'\).*dense runtime.*onnxruntime"):
        from_onnx(made([node("Det", "x")], [1, 3, 3]))
    with pytest.raises(UnsupportedError, match=r"'MaxPool' \(node 'here'\).*dilation"):
        from_onnx(made([node("MaxPool", "x", kernel_shape=[2, 2], dilations=[2, 2])], [1, 3, 9, 9]))
    with pytest.raises(UnsupportedError, match="over the batch"):
        from_onnx(made([node("Softmax", "x", axis=0)], [1, 3]))


def test_axes_without_a_size_are_asked_for() -> None:
    model = made([node("Relu", "x")], ["batch", "length", 4])
    with pytest.raises(OnnxError, match=r"axis 1 of input 'x'.*sizes=\{'length': n\}"):
        from_onnx(model)
    assert from_onnx(model, {"length": 6}).shape == (6, 4)
    assert from_onnx(model, shape=(7, 4)).shape == (7, 4)


def test_sizes_below_one_are_free_and_axes_have_places() -> None:
    model = made([node("Relu", "x")], [-1, -1, 4])
    with pytest.raises(OnnxError, match=r"axis 1 of input 'x'.*sizes=\{\('x', 1\): n\}"):
        from_onnx(model)
    assert from_onnx(model, {("x", 1): 6}).shape == (6, 4)
    assert from_onnx(model, shape=(7, 4)).shape == (7, 4)


@pytest.mark.parametrize(
    ("one", "told"),
    [
        (node("Relu", "x", slope=2.0), "the attribute 'slope'"),
        (node("Relu", "x", "w"), "its input 1"),
        (node("Dropout", "x", "r", "t"), "training mode"),
        (node("CastLike", "x", "i"), "rounding"),
        (node("ReduceL2", "x", noop_with_empty_axes=1), "no axes"),
    ],
)
def test_what_would_be_ignored_is_refused(one: Any, told: str) -> None:
    weights = {"w": random(4), "r": np.array(0.5, np.float32), "t": np.array(True), "i": np.array(1)}
    with pytest.raises(UnsupportedError, match=told):
        from_onnx(made([one], [1, 4], **weights))


def test_files_that_are_no_models(tmp_path: Path) -> None:
    for content in (b"", b"\x00\xff" * 50, made([node("Relu", "x")], [1, 3])[:40]):
        with pytest.raises(OnnxError):
            from_onnx(content)
    with pytest.raises(OnnxError, match="cannot be read"):
        from_onnx(tmp_path / "missing.onnx")
    with pytest.raises(OnnxError, match="reads 'z', which is not computed"):
        from_onnx(made([node("Relu", "z")], [1, 3]))
    with pytest.raises(UnsupportedError, match="too large"):
        from_onnx(made([
            onnx.helper.make_node("ConstantOfShape", ["w"], ["huge"]), node("Add", "x", "huge"),
        ], [1, 3], w=np.array([2**40])))  # fmt: skip


@pytest.mark.parametrize(
    ("op", "constants", "attributes"),
    [
        ("MatMul", [np.ones((10**6, 1), np.float32), np.ones((1, 10**6), np.float32)], {}),
        ("Gemm", [np.ones((10**6, 1), np.float32), np.ones((1, 10**6), np.float32)], {}),
        ("Einsum", [np.ones(10**6, np.float32), np.ones(10**6, np.float32)], {"equation": "i,j->ij"}),
        ("OneHot", [np.array([1]), np.array(10**11), np.array([0.0, 1.0], np.float32)], {}),
        ("Pad", [np.ones(1, np.float32), np.array([0, 10**11])], {}),
        ("Resize", [np.ones((1, 1, 2), np.float32), None, np.array([1, 1, 1e11], np.float32)], {}),
        ("Conv", [np.ones((1, 1, 1), np.float32), np.ones((1, 1, 1), np.float32)], {"pads": [0, 10**11]}),
        ("Range", [np.array(0), np.array(10**12), np.array(1)], {}),
        ("Gather", [np.ones((1, 10**5), np.float32), np.zeros(10**5, np.int64)], {}),
        ("Tile", [None, np.array([1, 10**11])], {}),
    ],
)
def test_constants_too_large_are_refused_before_they_are_made(op: str, constants: list[Any], attributes: Any) -> None:
    """Of them a small file may hold the recipe; ``None`` first is the model's input."""
    given = {f"c{place}": one for place, one in enumerate(constants) if one is not None}
    names = [f"c{place}" if one is not None else "" for place, one in enumerate(constants)]
    if op == "Tile":
        nodes = [onnx.helper.make_node(op, ["x", names[1]], ["y"])]
    else:
        nodes = [onnx.helper.make_node(op, names, ["huge"], **attributes), node("Add", "x", "huge")]
    with pytest.raises(UnsupportedError, match="too large"):
        from_onnx(made(nodes, [1, 3], **given))


def test_constants_that_fit_are_still_computed() -> None:
    nodes = [
        onnx.helper.make_node("Expand", ["w", "sizes"], ["wide"]),
        onnx.helper.make_node("Pad", ["wide", "pads"], ["padded"]),
        onnx.helper.make_node("MatMul", ["padded", "padded"], ["m"]),
        onnx.helper.make_node("Einsum", ["m", "m"], ["e"], equation="ij,ij->j"),
        node("Add", "x", "e"),
    ]
    made_of = from_onnx(made(nodes, [1, 3], w=np.ones((2, 3), np.float32), sizes=np.array([2, 3]),
                             pads=np.array([1, 0, 0, 0])))  # fmt: skip
    assert made_of.nodes


@pytest.mark.parametrize(
    ("location", "offset", "message"),
    [
        ("../secret.bin", 0, "no file in the model's folder"),
        ("/etc/hostname", 0, "no file in the model's folder"),
        ("link.bin", 0, "no file in the model's folder"),
        ("missing.bin", 0, "no file in the model's folder"),
        ("weights.bin", 2**40, "beyond the end"),
        ("weights.bin", -8, "beyond the end"),
        ("weights.bin", 16, "damaged"),
    ],
)
def test_weights_in_other_files_are_read_from_the_models_folder_alone(
    location: str, offset: int, message: str, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    weights = random(3, 3)
    for place in (tmp_path / "secret.bin", folder / "weights.bin"):
        place.write_bytes(weights.tobytes())
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    model = onnx.load_model_from_string(made([node("MatMul", "x", "w")], [1, 3], w=weights))

    def outside(location: str, offset: int) -> None:
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        del tensor.external_data[:]
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", str(offset))):
            tensor.external_data.add(key=key, value=value)
        (folder / "model.onnx").write_bytes(model.SerializeToString())

    outside("weights.bin", 0)
    np.testing.assert_allclose(Model(from_onnx(folder / "model.onnx"))(random(1, 3)), random(1, 3) @ weights, atol=1e-6)
    with pytest.raises(OnnxError, match="another file"):
        from_onnx((folder / "model.onnx").read_bytes())
    outside(location, offset)
    with pytest.raises(OnnxError, match=message):
        from_onnx(folder / "model.onnx")


def test_without_onnx_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(OnnxError, match=r'pip install "ticketsmith\[serve\]"'):
        from_onnx(b"")
