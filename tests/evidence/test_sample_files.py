"""How the text of samples is cut into passages."""

from __future__ import annotations

from ticketsmith.evidence.sample_files import Sample


def test_passages_begin_at_their_headings() -> None:
    def passages(text: str) -> list[tuple[str, str]]:
        return Sample("dense", 0, 0, 0.0, text).passages

    assert passages("") == []
    assert passages("Once upon a time\n") == [("", "Once upon a time")]
    assert passages("=== ROMEO: ===\nAy me!\n\n=== JULIET: ===\n== no ===\n") == [
        ("ROMEO:", "Ay me!"),
        ("JULIET:", "== no ==="),
    ]
    assert passages("before\n=== a ===\nb") == [("", "before"), ("a", "b")]
