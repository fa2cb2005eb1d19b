"""``pytest --report DIR``: the report of the run that has just ended, and the run itself beside it as ``run.json``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from models.errors import SpeedproofError
from models.files import check_writable, save_json


def add_options(parser: pytest.Parser) -> None:
    """Declare where the report goes, and what its recommendation must meet."""
    add = parser.getgroup("speedproof").addoption
    add("--report", type=Path, metavar="DIR", help="write a report of this run: HTML, Markdown, PDF, CSV and JSON")
    add(
        "--need", action="append", default=[], metavar="NEED",
        help='with --report: what its recommendation must meet, such as "latency<=10ms"; may be given several times',
    )  # fmt: skip


def check_options(option: argparse.Namespace) -> None:
    """Raise SpeedproofError for a report that could not be made, before hours are spent on what it tells."""
    if option.report is None:
        if option.need:
            raise SpeedproofError("--need: it is for a recommendation in a report; add --report DIR")
        return
    off = option.benchmark_disable and not option.benchmark_enable
    if off or option.benchmark_skip or getattr(option, "dist", "no") != "no":
        raise SpeedproofError(
            "--report: nothing is timed in this run, so there is nothing to report; leave out --benchmark-disable, "
            "--benchmark-skip and -n"
        )
    from bench_tests.harness.report.answers.needs import parse_need

    for text in option.need:
        parse_need(text)
    if option.report.exists() and not option.report.is_dir():
        raise SpeedproofError(f"--report {option.report}: is a file, expected a folder")
    check_writable(option.report)


def report_run(config: pytest.Config) -> str:
    """Write the report, and return what to say of it."""
    # Here, so that a run of pytest without a report does not pay for loading what draws and sets one.
    from bench_tests.harness.report.answers.needs import parse_need
    from bench_tests.harness.report.assemble import assemble, write
    from bench_tests.harness.report.load import read

    option, benchmarks = config.option, config._benchmarksession  # type: ignore[attr-defined]
    content = stored(config, benchmarks)
    if not content["benchmarks"] and not content["not_measured"]:
        return "report: not written, no case ran"
    file = option.report / "run.json"
    try:
        save_json(file, content)
        material = read([file])
        written = write(material, assemble(material, [parse_need(text) for text in option.need]), option.report)
    except SpeedproofError as error:
        return f"report: not written: {error}"
    return f"report: {written[0]}, and {len(written)} files beside it"


def stored(config: pytest.Config, benchmarks: Any) -> dict[str, Any]:
    """What pytest-benchmark would store of this run, made by its own hooks."""
    hook = config.hook
    commit = hook.pytest_benchmark_generate_commit_info(config=config)
    hook.pytest_benchmark_update_commit_info(config=config, commit_info=commit)
    content: dict[str, Any] = hook.pytest_benchmark_generate_json(
        config=config,
        benchmarks=benchmarks.benchmarks,
        include_data=False,
        machine_info=benchmarks.get_machine_info(),
        commit_info=commit,
    )
    hook.pytest_benchmark_update_json(config=config, benchmarks=benchmarks.benchmarks, output_json=content)
    return content
