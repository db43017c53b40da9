"""Sizes that cannot be had are refused before anything is allocated, wherever they stand."""

from __future__ import annotations

import functools
import gzip
import hashlib
import io
import json
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from ticketsmith import memory, models
from ticketsmith.data import idx, npz, pictures, places, sizes
from ticketsmith.errors import DataError, RecipeError, TaskError, TicketSmithError
from ticketsmith.export import masked_bytes, ticket
from ticketsmith.inference import sources
from ticketsmith.inference.measuring.memory import check
from ticketsmith.models.size import bounded_by
from ticketsmith.runtime import artifact, from_onnx
from ticketsmith.runtime.graph import Graph, Node
from ticketsmith.tasks import task
from ticketsmith.tasks.build import check_batch
from ticketsmith.tasks.flops import forward_flops

TIB = 2**40


def system(root: Path, group: str, mounts: str, files: dict[str, str], free: int = 8 * 2**20) -> Path:
    """``/proc`` and ``/sys`` of a machine with 8 GiB free, below ``root``."""
    for name, text in {
        "proc/meminfo": f"MemTotal: 99999999 kB\nMemAvailable: {free} kB\n",
        "proc/self/cgroup": group,
        "proc/self/mountinfo": mounts,
        **files,
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


V2 = "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "35 31 0:32 {top} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"


class TestAvailable:
    def test_of_the_machine_where_no_group_says_less(self, tmp_path: Path) -> None:
        files = {"sys/fs/cgroup/memory.max": "max\n", "sys/fs/cgroup/memory.current": "5\n"}
        assert memory.available(system(tmp_path, "0::/\n", V2, files)) == 8 * 2**30

    def test_of_the_tightest_group_up_to_the_top(self, tmp_path: Path) -> None:
        top = "sys/fs/cgroup/kubepods.slice"
        files = {
            f"{top}/memory.max": str(3 * 2**30),
            f"{top}/memory.current": str(2 * 2**30),
            f"{top}/memory.stat": f"active_file 7\ninactive_file {2**29}\n",
            f"{top}/pod/memory.max": str(6 * 2**30),
            f"{top}/pod/memory.current": str(2**30),
            f"{top}/pod/box/memory.max": "max",
            f"{top}/pod/box/memory.current": str(2**30),
        }
        root = system(tmp_path, "0::/kubepods.slice/pod/box\n", V2, files)
        assert memory.available(root) == 3 * 2**29, "1 GiB of the limit, and half of cached files"

    def test_inside_of_a_container_with_version_1(self, tmp_path: Path) -> None:
        group = "9:pids:/docker/abc\n4:memory:/docker/abc\n0::/\n"
        place = "sys/fs/cgroup/memory"
        files = {
            f"{place}/memory.limit_in_bytes": str(2**30),
            f"{place}/memory.usage_in_bytes": str(2**29),
            f"{place}/memory.stat": f"total_inactive_file {2**28}\n",
        }
        expected = 2**29 + 2**28
        assert memory.available(system(tmp_path / "own", group, V1.format(top="/docker/abc"), files)) == expected
        assert memory.available(system(tmp_path / "root", group, V1.format(top="/"), files)) == expected

    def test_a_group_that_is_full_leaves_nothing(self, tmp_path: Path) -> None:
        files = {"sys/fs/cgroup/memory.max": "100\n", "sys/fs/cgroup/memory.current": "120\n"}
        assert memory.available(system(tmp_path, "0::/\n", V2, files)) == 0

    def test_nothing_is_claimed_where_the_system_does_not_tell(self, tmp_path: Path) -> None:
        assert memory.available(tmp_path) is None

    def test_of_this_machine(self) -> None:
        free = memory.available()
        assert free is None or 2**20 < free < 2**46


def test_a_refusal_names_what_there_is_and_the_mend() -> None:
    with pytest.raises(
        DataError, match=r"the thing would take about 1,024\.0 GiB of memory, and .* is free .* Mend it\."
    ):
        memory.require(TIB, "the thing", "Mend it.", DataError)


def sparse_file(path: Path) -> Path:
    """A file of 8 TiB that takes no room."""
    with path.open("wb") as file:
        file.truncate(8 * TIB)
    return path


@pytest.mark.parametrize(
    "read",
    [
        artifact.open_artifact,
        from_onnx.from_onnx,
        ticket.read,
        places.read_maybe_gz,
        lambda path: sources.of_onnx(str(path), None),
        lambda path: sources.of_module("torch.nn:Flatten", (4,), str(path)),
    ],
)
def test_a_file_larger_than_memory_is_not_read(tmp_path: Path, read: Callable[[Path], Any]) -> None:
    with pytest.raises(TicketSmithError, match=r"model: the file would take about 8,192\.0 GiB"):
        read(sparse_file(tmp_path / "model"))


@pytest.mark.parametrize("read", [artifact.open_artifact, from_onnx.from_onnx, ticket.read])
def test_what_never_ends_is_not_read(read: Callable[[Path], Any]) -> None:
    with pytest.raises(TicketSmithError, match="/dev/zero: cannot be read: it is no regular file"):
        read(Path("/dev/zero"))


# --- models ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "options"), [("mlp", {"widths": [10**9]}), ("mnist_cnn", {"width": 10**7})])
def test_a_model_too_large_is_not_made(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(TaskError, match=r"task\.model: a tensor of shape \(.*\) would take about .* GiB"):
        models.create(name, options, (1, 28, 28), 10)


def test_attention_over_too_many_tokens_is_not_computed() -> None:
    class Attention(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.softmax(x @ x.transpose(-1, -2), -1) @ x

    example = torch.zeros(1, 900_000, 2)
    with (
        pytest.raises(
            TaskError, match=r"shape \(1, 900000, 2\) leads to a value .*\(1, 900000, 900000\) would take about"
        ),
        bounded_by(example, mend="Take fewer."),
    ):
        Attention()(example)
    with bounded_by(example, mend="Take fewer."):
        torch.nn.Linear(2, 3)(example)


@functools.lru_cache
def table(width: int) -> torch.Tensor:
    return torch.ones(width)


class Remembering(torch.nn.Module):
    """Makes a table when it is first called, looks at its values, and holds a part of itself in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(3)
        self.own: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.own is None:
            self.own = torch.ones(x.shape[-1])
        return self.norm(x) * table(x.shape[-1]) * self.own * float(self.own.max())


def test_asking_for_memory_leaves_a_model_as_it_is() -> None:
    model, x = Remembering(), torch.ones(1, 3, 224, 224)
    model.norm.eval()
    holder: Any = SimpleNamespace(build_model=lambda: model, example=lambda count: x)
    forward_flops(holder)
    assert type(table(224)) is torch.Tensor
    assert type(model.own) is torch.Tensor
    assert float(model(x).detach().max()) == pytest.approx(1, abs=1e-3)

    model.train()
    model.norm.eval()
    check(model, lambda count: x.expand(count, -1, -1, -1), [1], torch.device("cpu"))
    assert not model.norm.training


@pytest.mark.parametrize(
    "grow",
    [
        lambda x: x.repeat(1, 10**6, 10**6),
        lambda x: torch.nn.functional.pad(x, (10**6, 10**6, 10**6, 10**6)),
        lambda x: x.expand(10**12, 2, 3).clone(),
        lambda x: x.new_zeros(10**6, 10**6),
        lambda x: torch.nn.functional.interpolate(x[None], scale_factor=1e6),
        lambda x: torch.nn.functional.conv1d(x, torch.ones(3, 2, 1), padding=10**12),
        lambda x: torch.arange(10**6)[:, None] == torch.arange(10**7),
    ],
)
def test_values_that_grow_are_refused_before_they_are_made(grow: Callable[[torch.Tensor], torch.Tensor]) -> None:
    x = torch.ones(1, 2, 3)
    with pytest.raises(TaskError, match=r"leads to a value .* would take about"), bounded_by(x, mend="Take fewer."):
        grow(x)


def test_inputs_of_a_batch_too_large_are_not_drawn() -> None:
    _, inputs = sources.of_module("torch.nn:Flatten", (1000, 1000))
    with pytest.raises(
        RecipeError, match=r"9,000,000 inputs of that size would take about .* Give a smaller --batch-size\."
    ):
        inputs(9_000_000)


def test_a_batch_of_training_that_cannot_be_held_is_not_begun(tmp_path: Path) -> None:
    digits = task.create({"name": "classification", "data": "digits", "model": "mlp", "validation": 200}, tmp_path)
    with pytest.raises(TaskError, match=r"training\.batch_size: a batch of 100,000,000,000 would take about"):
        check_batch(digits, 10**11)
    check_batch(digits, 10**5)


def tampered(path: Path, shape: list[int]) -> Path:
    """A ``.tsk`` file whose first tensor claims another shape, its checksum mended."""
    weight = np.zeros((4, 4), np.float32)
    weight[0, 0] = 1.0
    graph = Graph("x", (4,), "float32", (Node("linear", ("x",), "y", {"weight": "w"}),), "y", {"w": weight})
    artifact.save(path, graph)
    content = path.read_bytes()
    magic, version, zero, size, _ = struct.unpack_from("<8sIIQ32s", content)
    document = json.loads(content[56 : 56 + size])
    document["tensors"]["w"]["shape"] = shape
    header = json.dumps(document).encode()
    prefix = struct.pack("<8sIIQ32s", magic, version, zero, len(header), hashlib.sha256(header).digest())
    path.write_bytes(prefix + header + content[56 + size :])
    return path


def test_headers_of_our_own_files_are_not_believed(tmp_path: Path) -> None:
    with pytest.raises(artifact.ArtifactError, match="its tensors would take about"):
        artifact.open_artifact(tampered(tmp_path / "m.tsk", [2**20, 2**20]))
    entry = {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 4 * 2**40]}
    with pytest.raises(masked_bytes.TicketFileError, match="its tensors would take about"):
        masked_bytes.parts_of(json.dumps({"w": entry}))


def onnx_model(path: Path, nodes: list[Any], initializers: list[Any]) -> Path:
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 4]) for name in "xy")
    graph = onnx.helper.make_graph(nodes, "g", [x], [y], initializers)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_onnx_files_of_absurd_size_are_not_loaded(tmp_path: Path) -> None:
    shape = onnx.numpy_helper.from_array(np.array([900_000, 900_000]), "shape")
    node = onnx.helper.make_node
    filled = [
        node("ConstantOfShape", ["shape"], ["c"]),
        node("ReduceSum", ["c"], ["s"]),
        node("Add", ["x", "s"], ["y"]),
    ]
    counted = [
        node("Abs", ["to"], ["far"]),
        node("Range", ["from", "far", "by"], ["c"]),
        node("ReduceSum", ["c"], ["s"]),
        node("Add", ["x", "s"], ["y"]),
    ]
    given = {"from": 0, "to": 405 * 10**9, "by": 1}
    numbers = [onnx.numpy_helper.from_array(np.array(one, np.float32), name) for name, one in given.items()]
    claims = onnx.TensorProto(name="w", data_type=1, dims=[900_000, 900_000])
    for name, nodes, initializers in (
        ("filled", filled, [shape]),
        ("claims", [node("Add", ["x", "w"], ["y"])], [claims]),
        ("range", counted, numbers),
    ):
        path = onnx_model(tmp_path / f"{name}.onnx", nodes, initializers)
        with pytest.raises(RecipeError, match=rf"{name}\.onnx: .* would take about 3,017\.5 GiB"):
            sources.of_onnx(str(path), None)
        with pytest.raises(TicketSmithError, match=r"too large|impossible shape"):
            from_onnx.from_onnx(path)


def test_attention_of_an_onnx_file_over_too_many_tokens(tmp_path: Path) -> None:
    node = onnx.helper.make_node
    nodes = [node("Transpose", ["x"], ["t"], perm=[0, 2, 1]), node("MatMul", ["x", "t"], ["y"])]
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", "tokens", 2])
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", "tokens", "others"])
    graph = onnx.helper.make_graph(nodes, "g", [x], [y])
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "a.onnx")
    with pytest.raises(RecipeError, match=r"a\.onnx: the value 'y' would take about 3,017\.5 GiB"):
        sources.of_onnx(str(tmp_path / "a.onnx"), (900_000, 2))
    assert sources.of_onnx(str(tmp_path / "a.onnx"), (9, 2))[1](3).shape == (3, 9, 2)


def test_weights_beside_an_onnx_file_end_where_their_file_ends(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(16))
    tensor = onnx.TensorProto(name="w", data_type=1, dims=[4], data_location=onnx.TensorProto.EXTERNAL)
    for key, value in (("location", "w.bin"), ("length", str(2**42))):
        tensor.external_data.add(key=key, value=value)
    path = onnx_model(tmp_path / "m.onnx", [onnx.helper.make_node("Add", ["x", "w"], ["y"])], [tensor])
    with pytest.raises(RecipeError, match=r"beyond the end of 'w\.bin', which has 16 bytes"):
        sources.of_onnx(str(path), None)
    del tensor.external_data[1]
    path = onnx_model(tmp_path / "m.onnx", [onnx.helper.make_node("Add", ["x", "w"], ["y"])], [tensor])
    assert sources.of_onnx(str(path), None)[1](2).shape == (2, 4)


# --- data -----------------------------------------------------------------------------------------------------------------


def png(width: int, height: int) -> bytes:
    """A grey picture of any size, of which only the header is whole."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    )


@pytest.mark.filterwarnings("ignore:Image size")  # Pillow's own, which is no error from 90 to 179 million pixels
@pytest.mark.parametrize("side", [60_000, 12_000])
def test_pictures_that_unpack_to_more_than_pillow_allows(side: int) -> None:
    with pytest.raises(DataError, match=r"p\.png .*pixels"):
        pictures.decode(io.BytesIO(png(side, side)), "p.png")


def test_pictures_are_not_resized_to_what_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="1,000,000 x 1,000,000 pixels"):
        pictures.decode(io.BytesIO(png(8, 8)), "p.png", size=1_000_000)


def test_arrays_that_promise_more_than_they_hold(tmp_path: Path) -> None:
    array = io.BytesIO()
    np.lib.format.write_array_header_1_0(array, {"descr": "<f8", "fortran_order": False, "shape": (2**40, 3)})
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for name in ("x_train", "y_train"):
            archive.writestr(f"{name}.npy", array.getvalue() + bytes(24))
    with pytest.raises(DataError, match=r"x_train has 24 bytes for an array of shape \(1099511627776, 3\)"):
        npz.load(str(tmp_path / "a.npz"), test_fraction=0.5)
    with pytest.raises(DataError, match="cut short or too long"):
        idx.read(b"\0\0\x08\x04" + struct.pack(">4I", 2**31, 2**31, 2, 2) + bytes(4), "labels")  # 2**64 is 0 in 64 bits


def test_what_unpacks_to_more_than_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine with 100 MiB free: a gzip file, a tar archive and a table of values that repeat."""
    import pyarrow
    import pyarrow.parquet

    packed = gzip.compress(bytes(120 * 2**20), 1)
    assert sizes.gunzip(gzip.compress(b"a") + gzip.compress(b"b"), "two") == b"ab"
    for damaged in (b"", b"text", gzip.compress(b"abc")[:-9]):
        (tmp_path / "d.gz").write_bytes(damaged)
        if damaged:
            with pytest.raises(DataError, match="cannot be read"):
                places.read_maybe_gz(tmp_path / "d.gz")
    member = tarfile.TarInfo("batch")
    member.size = 2 * TIB
    (tmp_path / "a.tar").write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    value = pyarrow.array([b"x" * 2**20]).dictionary_encode()
    column = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 400, pyarrow.int32()), value.dictionary).cast(
        "binary"
    )
    pyarrow.parquet.write_table(pyarrow.table({"image": column}), tmp_path / "t.parquet")
    assert (tmp_path / "t.parquet").stat().st_size < 2**21
    del column, value
    assert sizes.read_table(tmp_path / "t.parquet").num_rows == 400

    monkeypatch.setattr(memory, "available", lambda: 100 * 2**20)
    with pytest.raises(DataError, match=r"big: more than [\d,]+ bytes would take about"):
        sizes.gunzip(packed, "big")
    with pytest.raises(DataError, match=r"a\.tar: batch would take about 2,048\.0 GiB"):
        places.read_members(tmp_path / "a.tar", ("batch",))
    with pytest.raises(DataError, match=r"t\.parquet: .* rows would take about"):
        sizes.read_table(tmp_path / "t.parquet")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell a process's peak")
def test_the_command_ends_before_it_takes_anything() -> None:
    """The whole way of a user, with the peak of the process that had been 3.2 TB."""
    script = (
        "import sys\nfrom ticketsmith.cli.main import main\n"
        "sys.argv[1:] = ['benchmark', '--model', 'torch.nn:Flatten', '--shape', '900000,900000']\ntry: main()\n"
        "finally: print(*(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 2
    assert "--shape 900000,900000: an input of that size would take about 3,017.5 GiB" in done.stderr
    assert "Give a smaller --shape." in done.stderr
    assert int(done.stdout) < 2**20, "KiB: less than 1 GiB"
