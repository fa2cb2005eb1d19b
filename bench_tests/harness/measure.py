"""The life of a case, in the one order there is: build, warm up, parity, quality, coverage, and only then time.

A case that fails on the way raises NotMeasuredError and leaves no number anywhere. After the clock has stopped, the
outputs of the last timed call are compared too, so that the timed thing is the checked thing.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from bench_tests.harness.case import Case, NotMeasuredError
from bench_tests.harness.checks import (
    check_coverage,
    check_parity,
    check_quality,
    check_speedup,
    check_timed_outputs,
    module_outputs,
)
from bench_tests.harness.expectations import Expectation, expectation
from bench_tests.harness.methods import method_record
from bench_tests.harness.parity import check_bits
from bench_tests.harness.peaks import INT8
from bench_tests.harness.record import ORIGINAL, Record, finite
from bench_tests.harness.rehearsal import Rehearsal, rehearse_once
from bench_tests.harness.resources import Utilisation
from bench_tests.harness.session import SPLIT, Session, to_device
from bench_tests.harness.statistics import paired_ratio, paired_ratio_by_instance, summarise
from bench_tests.harness.timing import INSTANCES, SMALL_S, Pairing, Side, advance
from models.workload import Tensors
from optim.backends.base import CycleRunner, Runner, computes_in_int8

_UTILISATION_S = 2.0


class Measurement:
    """One case on its way through the harness; `run` gives its record and arrays."""

    def __init__(self, case: Case, session: Session, expected: Expectation | None = None) -> None:
        self.case, self.session = case, session
        self.expected = expected or expectation(case.id)
        self.record: Record = {}
        self.arrays: dict[str, np.ndarray] = {}
        self._spent_s = {"building": 0.0, "checking": 0.0}

    def run(self, benchmark: Any = None, *, rehearsed: bool = True) -> tuple[Record, dict[str, np.ndarray]]:
        """Take the case through all stages.

        ``benchmark`` is pytest-benchmark's fixture; None times without it, a disabled one checks without timing.
        ``rehearsed`` False leaves out the child process.
        """
        started = time.perf_counter()
        self._describe()
        with self._spending("building"):
            if self.case.recipe != ORIGINAL:  # made here, where it may take hours, and found by the child
                self.record |= method_record(self.case, self.session)
            if rehearsed:
                self._record_rehearsal(rehearse_once(self.case, self.session))
            runner = self.session.compile(self.case)
            inputs = to_device(self.session.case_inputs(self.case), runner.device)
            first = time.perf_counter()
            runner(*inputs[0])  # warm up: the first call may still compile or allocate
        self.record |= {
            "device": runner.device, "clock": runner.clock, "size_bytes": runner.size_bytes, "build_s": runner.build_s,
            "built_from_cache": runner.from_cache, "first_call_s": time.perf_counter() - first,
            "module_digest": self.session.digest(self.case),
        }  # fmt: skip
        with self._spending("checking"):
            self.record |= check_parity(self.case, self.session, runner, inputs)
            record, arrays = check_quality(self.case, self.session, runner, self.expected)
            self.record |= record | check_coverage(self.case, self.session, runner, inputs[0])
            self.arrays |= arrays
        if benchmark is None or benchmark.enabled:
            self._roofline()
            self.record["time_to_first_timed_call_s"] = time.perf_counter() - started
            if isinstance(runner, CycleRunner):
                self._count_cycles(runner, inputs, benchmark)
            else:
                self._time(runner, inputs, benchmark)
            self.record |= runner.facts()
            check_speedup(self.record, self.expected)
        self.record |= {f"spent_{name}_s": seconds for name, seconds in self._spent_s.items()}
        return finite(self.record), self.arrays

    @contextlib.contextmanager
    def _spending(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self._spent_s[name] += time.perf_counter() - started

    def _describe(self) -> None:
        case, settings = self.case, self.session.settings
        weights = self.session.weights(case)
        self.record |= {"case": case.id, **asdict(case)}
        self.record |= {"seed": settings.seed, "weights": weights.description, "weights_own": weights.own}
        self.record |= {"fingerprint": self.session.fingerprint.folder(), "split": SPLIT}

    def _record_rehearsal(self, child: Rehearsal) -> None:
        self.record |= {
            "cpu_peak_memory_bytes": child.cpu_peak_memory_bytes,
            "cpu_base_memory_bytes": child.cpu_base_memory_bytes,
            "child_build_s": child.build_s,
            "child_built_from_cache": child.from_cache,
            "child_of_an_earlier_run": child.kept,
        }
        if self.session.settings.device == "cuda":
            self.record["gpu_peak_memory_bytes"] = child.gpu_peak_memory_bytes

    def _roofline(self, exceeded: bool = False) -> None:
        precision = INT8 if computes_in_int8(self.session.module(self.case)) else self.case.precision
        ceiling = self.session.ceiling(precision, exceeded)
        self.record |= {"gflop": self.session.gflop(self.case), "peak_gflops": ceiling.peak_gflops}
        self.record["peak_precision"] = precision
        self.record |= {"copy_gb_per_s": ceiling.copy_gb_per_s, "peak_theoretical_how": ceiling.how}
        if ceiling.theoretical_gflops is not None:
            self.record["peak_theoretical_gflops"] = ceiling.theoretical_gflops

    def _time(self, runner: Runner, inputs: list[Tensors], benchmark: Any) -> None:
        with self._spending("building"):
            reference = self.session.reference(self.case)
            pairing = self._pairing([runner], [reference], inputs)
            if min(pairing.candidate.call_s, pairing.reference.call_s) < SMALL_S:
                runners = [runner, *(self.session.compile(self.case) for _ in range(INSTANCES - 1))]
                references = [reference, *(self.session.reference(self.case) for _ in range(INSTANCES - 1))]
                pairing = self._pairing(runners, references, inputs)
        started = time.perf_counter()
        if benchmark is None:
            pairing.run()
        else:
            benchmark.pedantic(pairing.pair, rounds=pairing.blocks, iterations=1)
        lasted = time.perf_counter() - started
        with self._spending("checking"):
            check_timed_outputs(self.case, self.session, pairing.candidate.last)
        timed = pairing.candidate.timed_s + pairing.reference.timed_s
        self.record |= {"spent_timed_calls_s": timed, "spent_warming_s": lasted - timed}
        if runner.device == "cuda":
            self._record_utilisation(runner, inputs)
        self._record_times(pairing)

    def _record_utilisation(self, runner: Runner, inputs: list[Tensors]) -> None:
        """A pass of its own: sampling would disturb the timed blocks, and the card averages over up to a second."""
        started = time.perf_counter()
        with Utilisation() as card:
            while time.perf_counter() - started < _UTILISATION_S:
                runner(*inputs[0])
            torch.cuda.synchronize()
        if card.utilisation_percent is not None:
            self.record["gpu_utilisation_percent"] = card.utilisation_percent
        if card.memory_peak_bytes is not None:
            self.record["gpu_memory_in_use_bytes"] = card.memory_peak_bytes

    def _pairing(self, runners: list[Runner], references: list[Runner], inputs: list[Tensors]) -> Pairing:
        settings = self.session.settings
        two = inputs[:2]  # one real and one random, in turn
        sides = [Side(instances, two, settings.device) for instances in (runners, references)]
        return Pairing(*sides, budget_s=settings.budget_s, seed=settings.seed)

    def _record_times(self, pairing: Pairing) -> None:
        candidate, reference = np.asarray(pairing.candidate.times_s), np.asarray(pairing.reference.times_s)
        instances = np.asarray(pairing.instance_of_block())
        if pairing.instances > 1:
            ratio = paired_ratio_by_instance(reference, candidate, instances)
        else:
            ratio = paired_ratio(reference, candidate)
        summary = summarise(candidate, self.case.batch)
        self.record |= {name: value for name, value in asdict(summary).items() if name != "samples"}
        other = asdict(summarise(reference, self.case.batch))
        for name in ("trimmed_mean_s", "median_s", "minimum_s", "stddev_s"):
            self.record[f"reference_{name}"] = other[name]
        self.record |= {
            "speedup": ratio.estimate, "speedup_low": ratio.low, "speedup_high": ratio.high,
            "speedup_confidence": ratio.confidence, "blocks": len(candidate), "instances": pairing.instances,
            "calls_per_block": pairing.candidate.calls,
        }  # fmt: skip
        self._record_throughput(summary.trimmed_mean_s)
        self.arrays |= {"candidate_s": candidate, "reference_s": reference, "instance": instances}

    def _record_throughput(self, call_s: float) -> None:
        if self.case.unit == "ms":
            self.record["real_time_factor"] = call_s / (self.case.batch * self.case.size * 1e-3)
        reached = float(self.record["gflop"]) / call_s
        self.record["gflops"] = reached
        if reached > float(self.record["peak_gflops"]):
            self._roofline(exceeded=True)
        self.record["share_of_peak"] = reached / float(self.record["peak_gflops"])
        if "peak_theoretical_gflops" in self.record:
            self.record["share_of_theoretical_peak"] = reached / float(self.record["peak_theoretical_gflops"])

    def _count_cycles(self, runner: CycleRunner, inputs: list[Tensors], benchmark: Any) -> None:
        """Cycles are exact: one call tells all, and a plain build of the reference backend is its comparison."""
        reference = self.session.reference(self.case, self.case.precision)
        if not isinstance(reference, CycleRunner):
            raise NotMeasuredError(
                "failed", f"clock: {self.case.backend} counts cycles, its reference backend does not"
            )
        reference(*inputs[0])

        def call() -> Tensors:
            outputs = runner(*inputs[0])
            advance(runner.cycles / runner.frequency_hz)
            return outputs

        outputs = call() if benchmark is None else benchmark.pedantic(call, rounds=1, iterations=1)
        check_bits([outputs], module_outputs(self.case, self.session)[:1])
        call_s, ratio = runner.cycles / runner.frequency_hz, reference.cycles / runner.cycles
        self.record |= {
            name: value for name, value in asdict(summarise([call_s], self.case.batch)).items() if name != "samples"
        }
        self.record |= {
            "cycles": runner.cycles,
            "reference_cycles": reference.cycles,
            "frequency_hz": runner.frequency_hz,
        }
        self.record |= {
            "speedup": ratio,
            "speedup_low": ratio,
            "speedup_high": ratio,
            "blocks": 1,
            "calls_per_block": 1,
        }
        self._record_throughput(call_s)
