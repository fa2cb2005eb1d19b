"""``python -m bench_tests.gate study``: what is the gate worth on this machine?

1. Six functions (`functions.CASES`) are measured as the gate would, both sides from this very tree, through all
   pairs of processes: that is one recorded run. Nothing differs, so every alarm is a false one.
2. The recorded runs are judged as they are, with the gate's early stops, and once more for each function with 3, 5 and
   10 % added to its head times: a slowdown that is real in all but name, on the same noise.
3. For the tails, runs are drawn anew (bootstrap) from the recorded pairs of processes.
4. Beside it stands what others say of the same blocks: ``--benchmark-compare-fail`` of one process against another's,
   and google/benchmark's U test of the medians of all processes.

Recorded runs are kept as they come, and an interrupted study goes on with the next one.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate
from tqdm import tqdm

from bench_tests.gate import quiet, rates, speed
from bench_tests.gate.compare import Comparison
from bench_tests.gate.functions import CASES, SPECS
from bench_tests.gate.rates import Run, Samples, rate, replayed
from bench_tests.gate.trees import Tree
from bench_tests.harness.case import Settings
from bench_tests.harness.fingerprint import fingerprint
from models.command import run as run_command
from models.errors import SpeedproofError
from models.files import cache_root, check_picture, save_figure, save_json
from optim.backends.cache import check_writable
from optim.command import check_save_path

SLOWDOWNS = (0.03, 0.05, 0.10)
_DRAWN = 1000  # bootstrap runs
# What takes a core beside: products of matrices, one thread.
_NEIGHBOUR = "import numpy; a = numpy.ones((512, 512))\nwhile True: a @ a"


def record(count: int, budget_s: float, seed: int, file: Path, *, beside: bool) -> list[Run]:
    """Measured runs, those of an earlier study with the same options included."""
    identity = {"machine": fingerprint(1, "cpu").folder(), "budget_s": budget_s, "seed": seed, "neighbour": beside}
    runs = _read(file, identity)
    tree = Tree("this tree", Path(__file__).parents[2], Path(sys.executable), cache_root() / "gate" / "study")
    # Few examples: the weights are random, so that only the outputs' parity means something.
    settings = Settings(threads=1, specs=SPECS, timeout_s=120, examples=16)
    bar = tqdm(total=count, initial=len(runs), desc="runs", disable=not sys.stderr.isatty())
    with neighbour() if beside else contextlib.nullcontext():
        while len(runs) < count:
            comparison = Comparison(
                (tree, tree), settings, CASES, budget_s=budget_s, seed=seed + len(runs), say=lambda _: None
            )
            comparison.record()
            progress = comparison.progress
            unmeasured = [found.unmeasured.note for found in progress.values() if found.unmeasured is not None]
            if unmeasured:
                raise SpeedproofError(f"the study's functions cannot be measured here: {unmeasured[0]}")
            blocks = {name: found.generations for name, found in progress.items()}
            visits_s = {name: found.visits_s for name, found in progress.items()}
            runs.append(Run(blocks, visits_s, comparison.starts_s, comparison.lost_s))
            save_json(file, {"identity": identity, "runs": [asdict(run) for run in runs]})
            bar.update()
    return runs[:count]


@contextlib.contextmanager
def neighbour() -> Iterator[None]:
    """A process that takes a core; no child of ours, or its work would count as ours."""
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    script = f"{sys.executable} -c '{_NEIGHBOUR}' > /dev/null 2>&1 & echo $!"
    started = subprocess.run(["sh", "-c", script], env=environment, stdout=subprocess.PIPE, text=True, check=True)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(started.stdout), signal.SIGKILL)


def table(runs: Sequence[Run], seed: int) -> str:
    """The study's table."""
    recorded = [run.samples() for run in runs]
    more = rates.drawn(recorded, _DRAWN, seed)
    rows = []
    for word, what in (("slower", "a false alarm for any of them"), ("unstable", "not decided, any of them")):
        rows.append([what, *_gate(recorded, more, word)])
    rows[0] += _others(runs)
    for slowdown in SLOWDOWNS:
        for case in recorded[0]:
            planted = [[rates.slowed(run, case, slowdown) for run in drawn] for drawn in (recorded, more)]
            row = [f"{slowdown:.0%} found: {case}", *_gate(planted[0], planted[1], "slower", case)]
            rows.append(row + _others(runs, case, slowdown))
    plain = [f"{name}:{rates.PLAIN_LIMIT:.0%}" for name in rates.STATISTICS]
    text = tabulate(rows, ["", "gate", "drawn anew", *plain, "U test"], "plain", disable_numparse=True)
    seconds = [run.early_s() for run in runs]
    return f"{text}\nseconds a gate: median {np.median(seconds):.0f}, longest {max(seconds):.0f}"


def _gate(recorded: Sequence[Samples], more: Sequence[Samples], word: str, case: str | None = None) -> list[str]:
    """How often the gate gives a word to a case, or to any."""

    def found(run: Samples) -> bool:
        words = replayed(run)[0]
        return word in ([words[case]] if case else words.values())

    return [rate([found(run) for run in recorded]).words(), rate([found(run) for run in more]).share()]


def _others(runs: Sequence[Run], case: str | None = None, slowdown: float = 0.0) -> list[str]:
    plain = [rates.plain_alarms(runs, name, case, slowdown).share() for name in rates.STATISTICS]
    return [*plain, rates.u_test_alarms(runs, case, slowdown).share()]


def picture(runs: Sequence[Run], file: Path) -> None:
    """What each pair of processes says, the mean of each run, and the margin."""
    from matplotlib.figure import Figure

    samples = [run.samples() for run in runs]
    figure = Figure(figsize=(10, 5), layout="constrained")
    axes = figure.add_subplot()
    dice = np.random.default_rng(0)
    cases, beyond, count = list(samples[0]), 0, 0
    for place, case in enumerate(cases):
        found = [[100 * np.expm1(s) for s in run[case]] for run in samples if run[case]]
        singles, means = [s for run in found for s in run], [float(np.mean(run)) for run in found]
        names = ("a pair of processes", "mean of a run") if place == 0 else (None, None)
        axes.plot(
            singles, place + dice.uniform(-0.3, 0.3, len(singles)), ".", color="0.7", markersize=3, label=names[0]
        )
        axes.plot(
            means, place + dice.uniform(-0.1, 0.1, len(means)), "o", color="#0072b2", markersize=4, label=names[1]
        )
        beyond, count = beyond + sum(abs(mean) > 100 * speed.MARGIN for mean in means), count + len(means)
    for limit in (-speed.MARGIN, speed.MARGIN):
        axes.axvline(100 * limit, color="#d55e00", linewidth=1, label="margin" if limit > 0 else None)
    axes.set_yticks(range(len(cases)), cases)
    axes.invert_yaxis()
    axes.set_xlabel("head's time over base's, change in %")
    axes.legend(loc="upper right", fontsize=8)
    figure.suptitle(f"Nothing changed: the means of {beyond} of {count} measurements are beyond the margin")
    save_figure(file, figure)


def _read(file: Path, identity: dict[str, Any]) -> list[Run]:
    """The runs of an earlier study. Raises SpeedproofError where they are of another one."""
    if not file.exists():
        return []
    try:
        content = json.loads(file.read_text())
        kept, runs = content["identity"], [Run(**run) for run in content["runs"]]
        replayed(runs[0].samples() if runs else {})
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise SpeedproofError(
            f"--runs-file {file}: these are no runs of a study; give another, or remove it"
        ) from error
    if kept != identity:
        other = ", ".join(name for name in identity if kept.get(name) != identity[name])
        raise SpeedproofError(f"--runs-file {file}: its runs differ in {other}; give another, or remove it")
    return runs


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench_tests.gate study", description="False alarms and detection of the gate on this machine."
    )
    add = parser.add_argument
    add("--runs", type=int, default=40, metavar="N", help="gates to record, two to three minutes each (40)")
    add("--budget", type=float, default=12.0, metavar="SECONDS", help="of measuring a case (12)")
    add("--seed", type=int, default=0, metavar="N", help="of the order of blocks (0)")
    add("--neighbour", action="store_true", help="with another process that takes one core all the time")
    add("--runs-file", type=Path, default=Path("gate_study.json"), metavar="FILE",
        help="where runs are kept, and gone on from (gate_study.json)")  # fmt: skip
    add("--picture", type=Path, default=Path("gate_study.png"), metavar="FILE", help="(gate_study.png)")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the command line; 0 when the study is done, 2 for bad input, 130 when interrupted."""
    options = _parser().parse_args(arguments)

    def body() -> None:
        if options.runs < 1 or options.seed < 0 or not 0 < options.budget < float("inf"):
            raise SpeedproofError("--runs, --budget and --seed: expected at least 1, more than 0 and at least 0")
        check_save_path(options.runs_file, "--runs-file", "runs.json")
        check_picture(options.picture, "--picture")
        check_writable()
        with quiet.alone():
            runs = record(options.runs, options.budget, options.seed, options.runs_file, beside=options.neighbour)
        print(table(runs, options.seed))
        picture(runs, options.picture)
        print(f"{options.picture}: written")

    return run_command(body, "interrupted: the same command goes on after the last whole run")
