"""A worker as the driver sees it: requests and answers, with a time limit, and its death in words."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import threading
from dataclasses import asdict
from types import TracebackType
from typing import Any, Self

from bench_tests.gate.trees import Tree
from bench_tests.gate.worker import described
from bench_tests.harness.case import Case, Settings

_START_S = 120.0  # to import torch on a slow disk


class WorkerError(Exception):
    """Why there is no answer: what the case raised, or how the worker died."""


class Process:
    """A worker of one side; a context, at whose end it is gone. ``cpu`` pins it to one core once it is ready."""

    def __init__(self, tree: Tree, settings: Settings, cpu: int | None) -> None:
        self.tree = tree
        self._timeout_s = settings.timeout_s
        self._answers: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._process = subprocess.Popen(
            [str(tree.python), "-m", "bench_tests.gate.worker"], cwd=tree.folder, env=tree.environment(),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1,
            errors="replace",  # what a library prints need not be UTF-8
            start_new_session=True,  # Ctrl-C is the driver's to handle
        )  # fmt: skip
        self._said: list[str] = []  # the last lines of standard error
        self._readers = [threading.Thread(target=read, daemon=True) for read in (self._read_answers, self._read_errors)]
        for reader in self._readers:
            reader.start()
        self._settings, self._cpu = settings, cpu

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def alive(self) -> bool:
        """Whether it can be asked again."""
        return self._process.poll() is None

    def start(self) -> None:
        """Wait until it is ready, and pin it. Raises WorkerError where it cannot be."""
        self._ask({"do": "start", "settings": described(self._settings)}, _START_S)
        if self._cpu is not None:  # not before: several workers import at the same time
            with contextlib.suppress(ProcessLookupError):  # its death is told by the next request
                os.sched_setaffinity(self._process.pid, {self._cpu})

    def check(self, case: Case) -> dict[str, Any]:
        """The record and the outcomes of a case. Raises WorkerError where it is wrong or cannot run."""
        return self._ask({"do": "check", "case": asdict(case)}, self._timeout_s)

    def build(self, case: Case) -> float:
        """A fresh instance; returns the seconds of a call."""
        return float(self._ask({"do": "build", "case": asdict(case)}, self._timeout_s)["call_s"])

    def block(self, calls: int, warm_calls: int, longest_s: float) -> float:
        """Seconds of one call, from a block."""
        return float(self._ask({"do": "block", "calls": calls, "warm_calls": warm_calls}, longest_s)["s"])

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()
        for reader in self._readers:
            reader.join()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):  # of a request that nobody read
                pipe.close()

    def _ask(self, request: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError, ValueError):  # it is gone, which the missing answer tells
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        try:
            line = self._answers.get(timeout=timeout_s)
        except queue.Empty:
            self.close()
            raise WorkerError(f"hung: no answer to {request['do']} within {timeout_s:.3g} s") from None
        if line is None or not line.endswith("\n"):  # killed before or in the middle of its answer
            raise WorkerError(self._death())
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer

    def _death(self) -> str:
        code = self._process.wait()
        if code == -signal.SIGKILL:
            return "the system killed the process: out of memory?"
        if code < 0:
            return f"crashed: the process died of {signal.Signals(-code).name}"
        said = next((line for line in reversed(self._said) if line.strip()), "no message")
        return f"the process ended with exit code {code} ({said.strip()[:300]})"

    def _read_answers(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put(None)

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._said = [*self._said[-20:], line]
