"""``python -m tests.undrawn <command> ...``: the command line, whose reports are whole, but with empty pictures.

To draw them takes longer than to train a small recipe. See also ``tests.plain``, which writes no report at all.
"""

from __future__ import annotations

from unittest import mock

if __name__ == "__main__":
    import altair.utils.schemapi
    import vl_convert

    with (
        mock.patch.object(altair.utils.schemapi, "DEBUG_MODE", False),
        mock.patch.object(vl_convert, "vegalite_to_svg", return_value="<svg/>"),
        mock.patch.object(vl_convert, "svg_to_png", return_value=b"\x89PNG"),
    ):
        from ticketsmith.cli.main import main

        main()
