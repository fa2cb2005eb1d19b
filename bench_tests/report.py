"""``python -m bench_tests.report RUN.json ... -o report/``: from stored runs to a document that answers the questions.

Runs are files of pytest-benchmark (``--benchmark-json``, or below ``.benchmarks``). Profiles (``python -m
bench_tests.profile --json``) add bottlenecks, histories of trainings (beside the weights) their curves.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bench_tests.harness.report.answers.needs import parse_need
from bench_tests.harness.report.assemble import FORMATS, assemble, write
from bench_tests.harness.report.load import read
from models.command import run
from models.errors import SpeedproofError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench_tests.report",
        description="Make a report (HTML, Markdown, PDF, CSV and JSON) from stored runs.",
    )
    add = parser.add_argument
    add("files", nargs="+", type=Path, metavar="FILE.json", help="stored runs, profiles, histories of trainings")
    add("-o", "--output", type=Path, default=Path("report"), metavar="DIR", help="folder of the report (report)")
    add(
        "--need", action="append", default=[], metavar="NEED",
        help='what a recommendation must meet, such as "latency<=10ms" or "drop<=0.5"; may be given several times',
    )  # fmt: skip
    add("--formats", default=",".join(FORMATS), metavar="LIST", help=f"some of {','.join(FORMATS)} (all)")
    return parser


def _formats(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in FORMATS:
            raise SpeedproofError(f"--formats {text}: there is no {name!r}; expected some of {', '.join(FORMATS)}")
    return list(dict.fromkeys(names))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 0 when the report is written, 2 for bad input, 130 when interrupted."""
    options = _parser().parse_args(arguments)

    def body() -> None:
        formats, needs = _formats(options.formats), [parse_need(text) for text in options.need]
        material = read(options.files)
        written = write(material, assemble(material, needs), options.output, formats)
        first, more = written[0], len(written) - 1
        print(f"{first}: written, and {more} file{'' if more == 1 else 's'} beside it" if more else f"{first}: written")

    return run(body, "interrupted: the report is not whole")


if __name__ == "__main__":
    sys.exit(main())
