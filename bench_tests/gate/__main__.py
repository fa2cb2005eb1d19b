"""``python -m bench_tests.gate --base origin/main``: is the head slower, larger or worse than the base?"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _pytest.mark.expression import Expression

from bench_tests.gate import quiet
from bench_tests.gate.compare import Comparison
from bench_tests.gate.table import add_to_summary, lines, markdown
from bench_tests.gate.trees import both_trees
from bench_tests.gate.verdict import USAGE, exit_code
from bench_tests.harness.case import Case
from bench_tests.harness.matrix import add_options, cases, read_options
from models.errors import SpeedproofError
from models.files import save_text
from optim.command import check_save_path


class _Argparse:
    """pytest's way of declaring options, on argparse: the matrix has one declaration for both."""

    def __init__(self, parser: argparse.ArgumentParser, without: frozenset[str]) -> None:
        self._parser, self._without = parser, without

    def getgroup(self, _name: str, description: str) -> _Argparse:
        self._group = self._parser.add_argument_group(description)
        return self

    def addoption(self, name: str, **more: Any) -> None:
        if name not in self._without:
            self._group.add_argument(name, **more)


class _Words:
    """Whether a word of an expression is part of a case's id."""

    def __init__(self, case_id: str) -> None:
        self._id = case_id.lower()

    def __call__(self, word: str, /, **_: object) -> bool:
        return word.lower() in self._id


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench_tests.gate",
        description="Compare two versions of models/ and optim/ on this machine, in alternating processes.",
        epilog="exit codes: 0 nothing regressed, 1 something did, 2 bad usage, 3 something could not be measured",
    )
    add = parser.add_argument
    add("--base", required=True, metavar="COMMIT", help="a commit, branch or tag")
    add("--head", type=Path, default=Path(), metavar="FOLDER", help="the tree that is judged, as it lies there (.)")
    add("-k", dest="keyword", default="", metavar="EXPR", help="only cases whose id fits, as pytest's -k")
    add("--budget", default="12s", metavar="SECONDS", help="of measuring a case, both sides together (12s)")
    add("--markdown", type=Path, metavar="FILE", help="write the table for a pull request")
    add_options(_Argparse(parser, frozenset({"--budget"})))
    return parser


def _chosen(options: argparse.Namespace) -> tuple[Any, list[Case], list[str]]:
    """The matrix, its cases that can run here and fit the expression, and why others cannot."""
    options.file_or_dir = []
    matrix = read_options(options)
    try:
        expression = Expression.compile(options.keyword) if options.keyword else None
    except SyntaxError as error:
        raise SpeedproofError(f"-k {options.keyword!r}: {error.msg}") from None
    chosen, skipped = [], []
    for case, reason in cases(matrix):
        if expression is not None and not expression.evaluate(_Words(case.id)):
            continue
        if reason is None:
            chosen.append(case)
        else:
            skipped.append(f"skipped: {case.id}: {reason}")
    if not chosen:
        raise SpeedproofError(f"no case is left to compare: -k {options.keyword!r} and the matrix choose none")
    return matrix, chosen, skipped


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit codes are those of `verdict`, and 130 when interrupted."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["study"]:
        from bench_tests.gate.study import main as study

        return study(given[1:])
    options = _parser().parse_args(given)
    try:
        return _gate(options)
    except SpeedproofError as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        print("interrupted: nothing was written", file=sys.stderr)
        return 130


def _gate(options: argparse.Namespace) -> int:
    matrix, chosen, skipped = _chosen(options)
    if options.markdown is not None:
        check_save_path(options.markdown, "--markdown", "gate.md")
    with both_trees(options.base, options.head) as sides, quiet.alone():
        comparison = Comparison(
            sides, matrix.settings, chosen, budget_s=matrix.settings.budget_s, seed=matrix.settings.seed,
            say=lambda said: print(f"gate: {said}", file=sys.stderr, flush=True),
        )  # fmt: skip
        verdicts = comparison.run()
    print("\n".join([*lines(verdicts), *skipped]))
    _write(options.markdown, markdown(verdicts))
    return exit_code(verdicts)


def _write(file: Path | None, table: str) -> None:
    """The table for a pull request, into the file and into the summary of a GitHub job."""
    if file is not None:
        save_text(file, table)
    warning = add_to_summary(table)
    if warning:
        print(warning, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
