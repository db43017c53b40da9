"""Text: the user's files and Python's own, by content; what cannot be read is named with its place and mend."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ticketsmith.data import catalogue, identity, load, load_text, loading, tokens, verify
from ticketsmith.errors import DataError, RecipeError


@pytest.fixture(autouse=True)
def _nothing_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "_loaded", {})


def test_files_are_read_one_after_another(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_bytes("zwölf\r\n".encode())
    (tmp_path / "a.txt").write_bytes(b"one")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "c.md").write_text("third\n")

    def content(path: Any) -> str:
        return load_text("text", {"path": path}, tmp_path).content

    assert content("a.txt") == "one\n"
    assert content("*.txt") == "one\nzwölf\r\n"
    assert content(["sub/*.md", "a.txt"]) == "third\none\n"
    assert content(str(tmp_path / "b.txt")) == "zwölf\r\n"


def test_the_key_holds_the_content_not_the_place(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{folder}.txt").write_text("same text\n")
    one = identity("text", {"path": "x.txt"}, tmp_path / "x")
    assert one == identity("text", {"path": str(tmp_path / "y" / "y.txt")}, None)
    assert "path" not in str(one)
    (tmp_path / "x" / "x.txt").write_text("same text.\n")
    assert one != identity("text", {"path": "x.txt"}, tmp_path / "x")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "bad.txt is empty"),
        (b"ab\0c" * 90, "bad.txt is no text: it has a NUL byte at 2"),
        (b"fine\nna\xefve\n", r"bad.txt is not UTF-8: byte 0xef at 7 \(line 2\). Save it as UTF-8, e.g. by `iconv"),
    ],
)
def test_files_that_are_no_text_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "bad.txt").write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_text("text", {"path": "bad.txt"}, tmp_path)


def test_a_missing_file_is_named_with_the_mend(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"add `--set task.data.path=my.txt` to the command"):
        load_text("text", {}, tmp_path)
    with pytest.raises(
        DataError, match=r"there is no file .*nowhere.txt. A relative path is looked for beside the recipe"
    ):
        load_text("text", {"path": "nowhere.txt"}, tmp_path)
    with pytest.raises(RecipeError, match=r"takes no option 'paht'. Did you mean 'path'"):
        load_text("text", {"paht": "x"}, tmp_path)


def test_pydocs_is_english_and_always_here() -> None:
    text = load_text("pydocs", {})
    assert 200_000 < len(text) < 2_000_000
    assert text.content.count(" the ") > 1_000
    assert any(entry.card.name == "pydocs" and entry.here for entry in catalogue())
    assert any("characters" in line for line in verify("pydocs", {}))


def test_another_python_has_another_text_and_so_another_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = identity("pydocs", {})
    assert before == identity("pydocs", {})
    import pydoc_data.topics as module

    monkeypatch.setattr(module, "topics", {**module.topics, "while": "Another chapter."})
    monkeypatch.setattr(loading, "_loaded", {})
    assert identity("pydocs", {}) != before


def test_a_python_without_its_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(DataError, match=r"this Python has no module pydoc_data; use a text file instead"):
        load_text("pydocs", {})


def a_poem(lines: int = 3) -> str:
    return "Rose is a rose is a rose.\n" * lines


def test_a_function_of_the_user_gives_a_text() -> None:
    name = "tests.data.test_text:a_poem"
    assert load_text(name, {"lines": 2}).content == a_poem(2)
    assert identity(name, {"lines": 2}) != identity(name, {"lines": 3})


def test_text_is_not_for_classification_nor_pictures_for_language() -> None:
    with pytest.raises(DataError, match=r"'pydocs' is text, without labels: it is for `task: {name: language, ...}`"):
        load("pydocs", {})
    with pytest.raises(DataError, match=r"'digits' holds labelled inputs, not text. Text is `pydocs`"):
        load_text("digits", {})


def test_characters_are_those_of_the_text() -> None:
    text = "naïve 🙂\n"
    tokenizer = tokens.create("characters", text, None)
    assert tokenizer.size == len(set(text))
    encoded = tokenizer.encode(text)
    assert encoded.dtype == np.int32
    assert sorted(set(encoded.tolist())) == list(range(tokenizer.size))
    assert tokenizer.decode(encoded.tolist()) == text
    assert tokenizer.decode([]) == ""
    with pytest.raises(DataError, match=r"the text of the task has no 'q'"):
        tokenizer.encode("eq")


def test_bytes_are_those_of_utf_8() -> None:
    tokenizer = tokens.create("bytes", "", None)
    assert tokenizer.size == 256
    assert tokenizer.encode("é").tolist() == [0xC3, 0xA9]
    assert tokenizer.decode([0xC3, 0xA9, 0x41, 0xC3]) == "éA�"


def word_pieces(path: Path) -> Path:
    library = pytest.importorskip("tokenizers")
    from tokenizers import models, pre_tokenizers, trainers

    tokenizer = library.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = library.decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([a_poem(20)], trainer)
    tokenizer.save(str(path))
    return path


def test_a_tokenizer_of_a_file(tmp_path: Path) -> None:
    path = word_pieces(tmp_path / "tokenizer.json")
    tokenizer = tokens.create("tokenizer.json", "", tmp_path)
    encoded = tokenizer.encode(a_poem())
    assert len(encoded) < len(a_poem()) / 2
    assert tokenizer.decode(encoded.tolist()) == a_poem()
    before = tokens.identity("tokenizer.json", tmp_path)
    moved = path.rename(tmp_path / "moved.json")
    assert tokens.identity(str(moved), None) == before
    moved.write_text(moved.read_text().replace("Rose", "Nose"))
    assert tokens.identity(str(moved), None) != before


def test_tokenizers_that_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"unknown 'charcters'\. Did you mean 'characters'\? A file ends"):
        tokens.create("charcters", "", tmp_path)
    with pytest.raises(DataError, match=r"task.tokenizer: there is no file none.json"):
        tokens.create("none.json", "", tmp_path)
    broken = tmp_path / "broken.json"
    broken.write_text('{"version": "1.0"}')
    with pytest.raises(DataError, match=r"broken.json is not the file of a tokenizer"):
        tokens.create("broken.json", "", tmp_path)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(DataError, match=r"needs tokenizers: pip install 'ticketsmith\[text\]'"):
        tokens.create("broken.json", "", tmp_path)
