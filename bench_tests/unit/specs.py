"""Whether a figure's spec can be drawn, with its rows and with other ones; for the tests of figures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import vl_convert

from bench_tests.harness.report.document import Figure
from bench_tests.harness.report.forms.pictures import framed


def compiled(figure: Figure, capfd: Any, rows: Sequence[Any] | None = None) -> dict[str, Any]:
    """The Vega spec, drawn once; Vega-Lite had nothing to warn of. ``rows`` stand for the rows a page has left."""
    spec = json.loads(json.dumps(framed(figure), allow_nan=False))
    if rows is not None:
        spec["datasets"]["rows"] = rows
    vega = vl_convert.vegalite_to_vega(spec, show_warnings=True)
    vl_convert.vega_to_svg(vega)
    assert capfd.readouterr().err == ""
    return vega
