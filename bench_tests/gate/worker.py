"""One side of the comparison, a process of its own: builds cases of its tree and runs the blocks it is told to.

Requests and answers are one JSON object a line, on standard input and output. A request is ``check`` (is the case
right? its record and outcomes), ``build`` (a fresh instance of the case's runner, and the seconds of a call), ``block``
(seconds of one call, from a block of ``calls`` of them after ``warm_calls``) or ``end``. An answer with ``error`` says
why there is none; the worker goes on. It ends with its standard input, so that it never outlives the driver.

``bench_tests`` is always the head's, ``models``, ``optim`` and all else are those of the side: see `trees`.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from bench_tests.harness.case import Case, Settings, explained
from bench_tests.harness.expectations import Expectation
from bench_tests.harness.measure import Measurement
from bench_tests.harness.session import Session, to_device
from bench_tests.harness.timing import Side
from models.workload import DataChoice
from optim.prune import parameters


class Worker:
    """Holds one built case at a time."""

    def __init__(self, settings: Settings) -> None:
        self.session = Session(settings)
        self._side: Side | None = None

    def check(self, case: Case) -> dict[str, Any]:
        """All checks of the harness but those against a bound, and nothing timed: the record, and the outcomes."""
        anything = Expectation(case.id, drop_max=float("inf"))
        record, arrays = Measurement(case, self.session, anything).run(_Untimed(), rehearsed=False)
        record.setdefault("macs", round(self.session.gflop(case) * 5e8))
        record.setdefault("parameters", parameters(self.session.module(case)))
        outcomes = {name: array.tolist() for name, array in arrays.items() if name == "outcomes"}
        return {"record": record, **outcomes}

    def build(self, case: Case) -> dict[str, Any]:
        """A fresh instance, warm, in place of the one before."""
        self._side = None
        gc.collect()
        runner = self.session.compile(case)
        inputs = to_device(self.session.case_inputs(case), runner.device)[:2]
        side = Side([runner], inputs, self.session.settings.device)
        side.prepare()
        self._side = side
        return {"call_s": side.call_s}

    def block(self, calls: int, warm_calls: int) -> dict[str, Any]:
        """Seconds of one call, the mean over a block."""
        if self._side is None:
            raise RuntimeError("a block was asked for before a build")
        self._side.calls, self._side.warm_calls = calls, warm_calls
        return {"s": self._side.block(0)}


class _Untimed:
    """A benchmark fixture that is switched off."""

    enabled = False


def described(settings: Settings) -> dict[str, Any]:
    """Settings as JSON."""
    directory, weights = settings.data.directory, settings.weights
    data = asdict(settings.data) | {"directory": directory and str(directory.resolve())}
    # A side runs in a folder of its own, where files have to be found all the same.
    recipes = {name: str(Path(spec).resolve()) if Path(spec).is_file() else spec
               for name, spec in settings.recipes.items()}  # fmt: skip
    return asdict(settings) | {"data": data, "weights": weights and str(weights.resolve()), "recipes": recipes}


def settings_of(content: dict[str, Any]) -> Settings:
    """What `described` made of settings."""
    directory, weights = content["data"]["directory"], content["weights"]
    data = DataChoice(**(content["data"] | {"directory": directory and Path(directory)}))
    return Settings(**(content | {"data": data, "weights": weights and Path(weights)}))


def main() -> None:
    """Answer requests until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print must not be taken for an answer
    worker, case = None, None
    gc.disable()  # collected between two builds, never inside of a block
    for line in sys.stdin:
        request = json.loads(line)
        try:
            match request.pop("do"):
                case "start":
                    settings = settings_of(request["settings"])
                    torch.set_num_threads(settings.threads)
                    worker = Worker(settings)
                    answer: dict[str, Any] = {"pid": os.getpid()}
                case _ if worker is None:
                    raise RuntimeError("the worker was not started")
                case "check":
                    case = Case(**request["case"])
                    answer = worker.check(case)
                case "build":
                    case = Case(**request["case"])
                    answer = worker.build(case)
                case "block":
                    answer = worker.block(request["calls"], request["warm_calls"])
                case "end":
                    return
                case other:
                    raise RuntimeError(f"unknown request {other!r}")
        except Exception as error:  # whatever a case raises is its answer, not the end of the others
            reason = explained(case, error).reason if case is not None else f"{type(error).__name__}: {error}"
            answer = {"error": reason}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
