"""``python -m bench_tests.gate study``: what is the gate worth on this machine?

1. Six functions (`functions.CASES`) are measured as the gate would, both sides from this very tree, through all
   generations: that is one recorded run. Nothing differs, so every alarm is a false one.
2. The recorded runs are judged as they are, with the gate's early stops, and once more for each function with 3, 5 and
   10 % added to its head times: a slowdown that is real in all but name, on the same noise.
3. For the tails, runs are drawn anew (bootstrap) from the recorded pairs of processes.
4. Beside it stands what ``--benchmark-compare-fail`` says of the same blocks: one process's against another's.

Recorded runs are kept as they come, and an interrupted study goes on with the next one.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate
from tqdm import tqdm

from bench_tests.gate import quiet, speed
from bench_tests.gate.compare import GENERATIONS, Comparison, Times
from bench_tests.gate.functions import CASES, SPECS
from bench_tests.gate.trees import Tree
from bench_tests.harness.case import Settings
from bench_tests.harness.statistics import wilson_interval
from models.errors import SpeedproofError
from models.weights import save_json
from optim import command
from optim.backends.cache import cache_root, check_writable

SLOWDOWNS = (0.03, 0.05, 0.10)
# Those of pytest-benchmark.
_STATISTICS: dict[str, Callable[[list[float]], Any]] = {"min": np.min, "mean": np.mean, "median": np.median}
_PLAIN_LIMIT = 0.05  # its usual threshold
_DRAWN = 1000  # bootstrap runs

Samples = dict[str, list[list[float]]]  # by case and generation, what each pair of instances says


@dataclass(frozen=True)
class Run:
    """A recorded run: by case and generation, the blocks of each pair of instances, and how long that took."""

    blocks: dict[str, list[list[Times]]]
    visits_s: dict[str, list[float]]
    starts_s: list[float]

    def samples(self) -> Samples:
        """What each pair of instances says."""
        return {
            case: [[speed.sample(times["base"], times["head"]) for times in generation] for generation in generations]
            for case, generations in self.blocks.items()
        }

    def early_s(self) -> float:
        """Seconds that the gate would have taken, with its early stops."""
        taken = replayed(self.samples())[1]
        visits = sum(sum(self.visits_s[case][:generations]) for case, generations in taken.items())
        return visits + sum(self.starts_s[: max(taken.values())])


@dataclass(frozen=True)
class Rate:
    """How often something happened."""

    happened: int
    of: int

    def words(self) -> str:
        """``0.0 % [0.0, 8.8] of 40``, with Wilson's interval."""
        if self.of == 0:
            return "-"
        low, high = wilson_interval(self.happened, self.of)
        return f"{self.happened / self.of:.1%} [{low:.1%}, {high:.1%}] of {self.of}"


def replayed(samples: Samples) -> tuple[dict[str, str], dict[str, int]]:
    """The words the gate would have given, with its early stops, and after how many generations."""
    words: dict[str, str] = {}
    taken = dict.fromkeys(samples, GENERATIONS)
    for generation in range(1, GENERATIONS + 1):
        seen = {case: [s for g in found[: min(taken[case], generation)] for s in g] for case, found in samples.items()}
        new = speed.decided(seen, words, {}, last=generation == GENERATIONS)
        words |= new
        taken |= dict.fromkeys(new, generation)
    return words, taken


def gate_alarms(runs: Sequence[Samples]) -> Rate:
    """Runs in which any case is called slower although nothing changed."""
    return Rate(sum("slower" in replayed(run)[0].values() for run in runs), len(runs))


def gate_found(runs: Sequence[Samples], case: str, slowdown: float) -> Rate:
    """Runs in which a case is called slower that was made so."""
    added = float(np.log1p(slowdown))
    found = 0
    for run in runs:
        planted = {name: [[s + added * (name == case) for s in g] for g in gs] for name, gs in run.items()}
        found += replayed(planted)[0][case] == "slower"
    return Rate(found, len(runs))


def plain_alarms(runs: Sequence[Run], statistic: str, planted: str | None = None, slowdown: float = 0.0) -> Rate:
    """What pytest-benchmark's gate says of one process after another: alarms for any case, or for the planted one."""
    value = _STATISTICS[statistic]
    processes = [
        {case: float(value(generations[index][0]["base"])) for case, generations in run.blocks.items()}
        for run in runs
        for index in range(GENERATIONS)
    ]
    happened = 0
    for before, after in pairwise(processes):
        cases = [planted] if planted else list(before)
        happened += any(after[case] * (1 + slowdown) > before[case] * (1 + _PLAIN_LIMIT) for case in cases)
    return Rate(happened, max(0, len(processes) - 1))


def drawn(runs: Sequence[Samples], seed: int) -> list[Samples]:
    """Runs made of recorded pairs of processes, drawn with replacement: all cases of a pair together."""
    dice = np.random.default_rng(seed)
    pairs = [{case: gs[index] for case, gs in run.items()} for run in runs for index in range(GENERATIONS)]
    made = []
    for _ in range(_DRAWN):
        chosen = [pairs[index] for index in dice.integers(len(pairs), size=GENERATIONS)]
        made.append({case: [pair[case] for pair in chosen] for case in runs[0]})
    return made


def table(runs: Sequence[Run], seed: int) -> str:
    """The study's table."""
    samples = [run.samples() for run in runs]
    more = drawn(samples, seed)
    cases = list(samples[0])
    rows = [["a false alarm in a run, any case", gate_alarms(samples).words(), gate_alarms(more).words()]]
    rows[0] += [plain_alarms(runs, name).words() for name in _STATISTICS]
    for slowdown in SLOWDOWNS:
        for case in cases:
            row = [f"{slowdown:.0%} found: {case}", gate_found(samples, case, slowdown).words()]
            row.append(gate_found(more[:200], case, slowdown).words())
            rows.append(row + [plain_alarms(runs, name, case, slowdown).words() for name in _STATISTICS])
    headers = ["", "gate", "gate, drawn anew", *(f"pytest-benchmark {name}:5%" for name in _STATISTICS)]
    seconds = [run.early_s() for run in runs]
    text = tabulate(rows, headers, "plain", disable_numparse=True)
    return f"{text}\nseconds a run: median {np.median(seconds):.0f}, longest {max(seconds):.0f}"


def picture(runs: Sequence[Run], file: Path) -> None:
    """The samples of each case, one dot a pair of instances, and the margin."""
    from matplotlib.figure import Figure

    samples = [run.samples() for run in runs]
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.add_subplot()
    dice = np.random.default_rng(0)
    cases = list(samples[0])
    for place, case in enumerate(cases):
        singles = [100 * np.expm1(s) for run in samples for g in run[case] for s in g]
        means = [100 * np.expm1(np.mean([s for g in run[case] for s in g])) for run in samples]
        axes.plot(singles, place + dice.uniform(-0.3, 0.3, len(singles)), ".", color="0.7", markersize=3)
        axes.plot(means, place + dice.uniform(-0.1, 0.1, len(means)), "o", color="tab:blue", markersize=4)
    for limit in (-speed.MARGIN, speed.MARGIN):
        axes.axvline(100 * limit, color="tab:red", linewidth=1)
    axes.set_yticks(range(len(cases)), cases)
    axes.invert_yaxis()
    axes.set_xlabel("head against base, nothing changed, %: pairs of instances (grey), runs (blue), margin (red)")
    figure.savefig(file, dpi=120)


def record(count: int, budget_s: float, seed: int, file: Path) -> list[Run]:
    """Measured runs, those of an earlier study with the same budget and seed included."""
    identity = {"budget_s": budget_s, "seed": seed, "cases": [case.id for case in CASES]}
    kept = _read(file)
    runs = [Run(**run) for run in kept["runs"]] if kept.get("identity") == identity else []
    tree = Tree("this tree", Path(__file__).parents[2], Path(sys.executable), cache_root() / "gate" / "study")
    settings = Settings(threads=1, specs=SPECS, timeout_s=120)
    bar = tqdm(total=count, initial=len(runs), desc="runs", disable=not sys.stderr.isatty())
    while len(runs) < count:
        comparison = Comparison(
            (tree, tree), settings, CASES, budget_s=budget_s, seed=seed + len(runs), say=lambda _: None
        )
        foreign = comparison.record()
        progress = comparison.progress
        unmeasured = [found.unmeasured.note for found in progress.values() if found.unmeasured is not None]
        if unmeasured:
            raise SpeedproofError(f"the study's functions cannot be measured here: {unmeasured[0]}")
        if foreign > quiet.BUSY:
            raise SpeedproofError(
                f"other processes took {foreign:.0%} of the core that was measured on: stop them and start the study "
                f"again, which goes on after {len(runs)} runs"
            )
        blocks = {name: found.generations for name, found in progress.items()}
        runs.append(Run(blocks, {name: found.visits_s for name, found in progress.items()}, comparison.starts_s))
        save_json(file, {"identity": identity, "runs": [asdict(run) for run in runs]})
        bar.update()
    return runs[:count]


def _read(file: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    except (OSError, ValueError) as error:
        raise SpeedproofError(f"--runs-file {file} cannot be read ({error}): give another, or remove it") from error
    return content


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench_tests.gate study", description="False alarms and detection of the gate on this machine."
    )
    add = parser.add_argument
    add("--runs", type=int, default=40, metavar="N", help="gates to record, about two minutes each (40)")
    add("--budget", type=float, default=15.0, metavar="SECONDS", help="of measuring a case (15)")
    add("--seed", type=int, default=0, metavar="N", help="of the order of blocks (0)")
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
        check_writable()
        with quiet.alone():
            runs = record(options.runs, options.budget, options.seed, options.runs_file)
        print(table(runs, options.seed))
        picture(runs, options.picture)
        print(f"{options.picture}: written")

    return command.run(body)
