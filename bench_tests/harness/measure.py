"""The life of a case, in the one order there is: build, warm up, parity, quality, coverage, and only then time.

A case that fails on the way raises NotMeasuredError and leaves no number anywhere. After the clock has stopped, the
outputs of the last timed call are compared too, so that the timed thing is the checked thing.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from bench_tests.harness.case import Case, NotMeasuredError
from bench_tests.harness.expectations import Expectation, expectation
from bench_tests.harness.parity import check_bits, check_deviations, deviations, run_alternating
from bench_tests.harness.record import Record, finite
from bench_tests.harness.rehearsal import Rehearsal, rehearse
from bench_tests.harness.resources import Utilisation
from bench_tests.harness.session import SPLIT, Session, predictor, to_device
from bench_tests.harness.statistics import paired_ratio, paired_ratio_by_instance, summarise, wilson_interval
from bench_tests.harness.timing import INSTANCES, SMALL_S, Pairing, Side, advance
from models.workload import Quality, Tensors
from optim.backends.base import CycleRunner, Runner, as_tuple

Arrays = dict[str, np.ndarray]


class Measurement:
    """One case on its way through the harness; `run` gives its record and arrays."""

    def __init__(self, case: Case, session: Session, expected: Expectation | None = None) -> None:
        self.case, self.session = case, session
        self.expected = expected or expectation(case.id)
        self.record: Record = {}
        self.arrays: Arrays = {}
        self._spent_s = {"building": 0.0, "checking": 0.0}

    def run(self, benchmark: Any = None, *, rehearsed: bool = True) -> tuple[Record, Arrays]:
        """Take the case through all stages.

        ``benchmark`` is pytest-benchmark's fixture; None times without it, a disabled one checks without timing.
        ``rehearsed`` False leaves out the child process.
        """
        started = time.perf_counter()
        self._describe()
        with self._spending("building"):
            if rehearsed:
                self._record_rehearsal(rehearse(self.case, self.session.settings))
            runner = self.session.compile(self.case)
            inputs = to_device(self.session.case_inputs(self.case), runner.device)
            first = time.perf_counter()
            runner(*inputs[0])  # warm up: the first call may still compile or allocate
        self.record |= {
            "device": runner.device, "clock": runner.clock, "size_bytes": runner.size_bytes, "build_s": runner.build_s,
            "built_from_cache": runner.from_cache, "first_call_s": time.perf_counter() - first,
        }  # fmt: skip
        with self._spending("checking"):
            self._check(runner, inputs)
        if benchmark is None or benchmark.enabled:
            self._roofline()
            self.record["time_to_first_timed_call_s"] = time.perf_counter() - started
            if isinstance(runner, CycleRunner):
                self._count_cycles(runner, inputs, benchmark)
            else:
                self._time(runner, inputs, benchmark)
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
        self.record |= {
            "case": case.id, "workload": case.workload, "data": case.data, "recipe": case.recipe, "backend": case.backend,
            "precision": case.precision, "size": case.size, "batch": case.batch, "threads": case.threads,
            "seed": settings.seed, "weights": weights.description, "weights_own": weights.own,
            "fingerprint": self.session.fingerprint.folder(), "split": SPLIT,
        }  # fmt: skip

    def _record_rehearsal(self, child: Rehearsal) -> None:
        self.record |= {
            "cpu_peak_memory_bytes": child.cpu_peak_memory_bytes,
            "cpu_base_memory_bytes": child.cpu_base_memory_bytes,
            "child_build_s": child.build_s,
            "child_built_from_cache": child.from_cache,
        }
        if self.session.settings.device == "cuda":
            self.record["gpu_peak_memory_bytes"] = child.gpu_peak_memory_bytes

    # Correct before fast

    def _check(self, runner: Runner, inputs: list[Tensors]) -> None:
        self._check_parity(runner, inputs)
        self._check_quality(runner)
        coverage = runner.coverage(inputs[0])
        self.record["coverage"] = json.dumps(dict(coverage.operators))
        if coverage.fallbacks or not coverage.operators:
            named = ", ".join(coverage.fallbacks[:3]) or "no operator was seen to run"
            raise NotMeasuredError(
                "failed",
                f"coverage: {len(coverage.fallbacks)} operators did not run on {self.case.backend} in "
                f"{self.case.precision} (first: {named})",
            )

    def _check_parity(self, runner: Runner, inputs: list[Tensors]) -> None:
        outputs = run_alternating(runner, inputs)
        if runner.clock == "cycles":
            check_bits(outputs, self._module_outputs())
            self.record["parity_bits_equal"] = True
            return
        eager = self.session.eager_deviations(self.case)
        found = deviations(outputs, self.session.oracle(self.case))
        check_deviations(found, eager, self.case.precision)
        for prefix, rows in (("parity", found), ("parity_eager", eager)):
            for respect in ("largest", "rms", "gain"):
                worst = max((abs(getattr(row, respect)) for row in rows), default=0.0)
                self.record[f"{prefix}_{respect}_error"] = worst

    def _module_outputs(self) -> list[Tensors]:
        with torch.inference_mode():
            module = self.session.module(self.case)
            return [as_tuple(module(*tensors)) for tensors in self.session.case_inputs(self.case)]

    def _check_quality(self, runner: Runner) -> None:
        case, workload = self.case, self.session.workload(self.case.workload)
        originals = self.session.original_quality(case)
        if not originals:
            self.record["quality"] = f"not judged: {workload.name} has no examples with labels in {case.data}"
            return
        found = workload.quality(predictor(runner), SPLIT, case.size, case.batch, self.session.settings.examples)
        for quality, original in zip(found, originals, strict=True):
            self._record_quality(quality, original)
        quality, original = found[0], originals[0]
        drop = (original.value - quality.value) * (1 if quality.higher_is_better else -1)
        agreement = float(np.mean(quality.answers == original.answers))
        self.record |= {"quality": quality.name, "quality_drop": drop, "agreement": agreement}
        allowed = workload.tolerated_drop if self.expected.drop_max is None else self.expected.drop_max
        if drop > allowed + 1e-12:
            raise NotMeasuredError(
                "failed",
                f"quality: {quality.name} is {quality.value:.4f} against the original's {original.value:.4f} on "
                f"{quality.examples} examples, allowed is a drop of {allowed:g}",
            )
        if self.expected.agreement_min is not None and agreement < self.expected.agreement_min:
            raise NotMeasuredError(
                "failed",
                f"quality: agrees with the original on {agreement:.2%} of {quality.examples} examples, "
                f"expected at least {self.expected.agreement_min:.0%}",
            )
        self.arrays |= {"outcomes": quality.outcomes, "answers": quality.answers, "outcomes_original": original.outcomes}

    def _record_quality(self, quality: Quality, original: Quality) -> None:
        self.record |= {
            f"quality_{quality.name}": quality.value,
            f"quality_{quality.name}_original": original.value,
            "quality_examples": quality.examples,
        }
        if set(np.unique(quality.outcomes)) <= {0.0, 1.0}:
            low, high = wilson_interval(int(quality.outcomes.sum()), quality.examples)
            self.record |= {f"quality_{quality.name}_low": low, f"quality_{quality.name}_high": high}

    # Then fast

    def _roofline(self) -> None:
        ceiling = self.session.ceiling(self.case.precision)
        self.record |= {"gflop": self.session.gflop(self.case), "peak_gflops": ceiling.matmul_gflops}
        self.record |= {"copy_gb_per_s": ceiling.copy_gb_per_s, "peak_theoretical_how": ceiling.how}
        if ceiling.theoretical_gflops is not None:
            self.record["peak_theoretical_gflops"] = ceiling.theoretical_gflops

    def _time(self, runner: Runner, inputs: list[Tensors], benchmark: Any) -> None:
        with self._spending("building"):
            reference = self.session.reference(self.case)
            pairing = self._pairing([runner], [reference], inputs)
            if min(side.estimate_s() for side in (pairing.candidate, pairing.reference)) < SMALL_S:
                runners = [runner, *(self.session.compile(self.case) for _ in range(INSTANCES - 1))]
                references = [reference, *(self.session.reference(self.case) for _ in range(INSTANCES - 1))]
                pairing = self._pairing(runners, references, inputs)
        started = time.perf_counter()
        with Utilisation() if runner.device == "cuda" else contextlib.nullcontext() as card:
            if benchmark is None:
                pairing.run()
            else:
                benchmark.pedantic(pairing.pair, rounds=pairing.blocks, iterations=1)
        lasted = time.perf_counter() - started
        with self._spending("checking"):
            self._check_timed_outputs(pairing.candidate)
        timed = pairing.candidate.timed_s + pairing.reference.timed_s
        self.record |= {"spent_timed_calls_s": timed, "spent_warming_s": lasted - timed}
        if card is not None:
            self.record |= card.record()
        self._record_times(pairing)

    def _pairing(self, runners: list[Runner], references: list[Runner], inputs: list[Tensors]) -> Pairing:
        settings = self.session.settings
        two = inputs[:2]  # one real and one random, in turn
        sides = [Side(instances, two, settings.device) for instances in (runners, references)]
        return Pairing(*sides, budget_s=settings.budget_s, seed=settings.seed)

    def _check_timed_outputs(self, side: Side) -> None:
        if side.last is None:
            raise NotMeasuredError("failed", "timed outputs: no call was timed")
        index, outputs = side.last
        expected = self.session.oracle(self.case)[index]
        try:
            check_deviations(
                deviations([outputs], [expected]),
                # One input instead of all: its own error may be a few times that of the whole.
                [type(row)(*(4 * abs(v) for v in asdict(row).values())) for row in self.session.eager_deviations(self.case)],
                self.case.precision,
            )
        except NotMeasuredError as error:
            raise NotMeasuredError("failed", f"timed outputs: {error.reason}") from None

    def _record_times(self, pairing: Pairing) -> None:
        candidate, reference = np.asarray(pairing.candidate.times_s), np.asarray(pairing.reference.times_s)
        instances = np.asarray(pairing.instance_of_block())
        if pairing.instances > 1:
            ratio = paired_ratio_by_instance(reference, candidate, instances)
        else:
            ratio = paired_ratio(reference, candidate)
        summary = summarise(candidate, self.case.batch)
        self.record |= {name: value for name, value in asdict(summary).items() if name != "samples"}
        self.record |= {f"reference_{name}": value for name, value in asdict(summarise(reference, self.case.batch)).items()
                        if name in ("trimmed_mean_s", "median_s", "minimum_s", "stddev_s")}  # fmt: skip
        self.record |= {
            "speedup": ratio.estimate, "speedup_low": ratio.low, "speedup_high": ratio.high,
            "speedup_confidence": ratio.confidence, "blocks": len(candidate), "calls_per_block": pairing.candidate.calls,
            "instances": pairing.instances,
        }  # fmt: skip
        self._record_throughput(summary.trimmed_mean_s)
        self.arrays |= {"candidate_s": candidate, "reference_s": reference, "instance": instances}

    def _record_throughput(self, call_s: float) -> None:
        reached = float(self.record["gflop"]) / call_s
        self.record |= {"gflops": reached, "share_of_peak": reached / float(self.record["peak_gflops"])}
        if "peak_theoretical_gflops" in self.record:
            self.record["share_of_theoretical_peak"] = reached / float(self.record["peak_theoretical_gflops"])

    def _count_cycles(self, runner: CycleRunner, inputs: list[Tensors], benchmark: Any) -> None:
        """Cycles are exact: one call tells all, and a plain build of the reference backend is its comparison."""
        reference = self.session.reference(self.case, self.case.precision)
        if not isinstance(reference, CycleRunner):
            raise NotMeasuredError("failed", f"clock: {self.case.backend} counts cycles, its reference backend does not")
        reference(*inputs[0])

        def call() -> Tensors:
            outputs = runner(*inputs[0])
            advance(runner.cycles / runner.frequency_hz)
            return outputs

        outputs = call() if benchmark is None else benchmark.pedantic(call, rounds=1, iterations=1)
        check_bits([outputs], self._module_outputs()[:1])
        call_s, ratio = runner.cycles / runner.frequency_hz, reference.cycles / runner.cycles
        self.record |= {name: value for name, value in asdict(summarise([call_s], self.case.batch)).items() if name != "samples"}
        self.record |= {"cycles": runner.cycles, "reference_cycles": reference.cycles, "frequency_hz": runner.frequency_hz}
        self.record |= {"speedup": ratio, "speedup_low": ratio, "speedup_high": ratio, "blocks": 1, "calls_per_block": 1}
        self._record_throughput(call_s)
