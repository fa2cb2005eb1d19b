"""The harness measured by itself: what it says of a runner against a bare loop over it, and of a model against itself.

Both are findings of the machine as much as of the harness, so they are asked for by name and not part of the matrix:
``pytest bench_tests/instrument.py -s --workload resnet18,resnet50 --size 224 --batch 1,8``. Each case prints the two
ratios; it fails where a bare loop differs by more than 3 %, or the A/A speed-up from 1 by more than 1 % (2 % below
100 us), in the median of up to three tries.
"""

import statistics
import time
from collections.abc import Callable

from bench_tests.harness.case import Case
from bench_tests.harness.session import Session, to_device
from bench_tests.harness.statistics import paired_ratio, paired_ratio_by_instance
from bench_tests.harness.timing import INSTANCES, SMALL_S, Pairing, Side
from models.workload import Tensors

TRIES = 3


def bare_loop_s(runner: Callable[..., Tensors], inputs: list[Tensors], seconds: float) -> float:
    """Median seconds of one call in a loop that does nothing else."""
    times_s: list[float] = []
    finished = time.perf_counter() + seconds
    while time.perf_counter() < finished or len(times_s) < 8:
        tensors = inputs[len(times_s) % len(inputs)]
        started = time.perf_counter()
        runner(*tensors)
        times_s.append(time.perf_counter() - started)
    return statistics.median(times_s)


def side(session: Session, case: Case, inputs: list[Tensors], count: int) -> Side:
    """Instances of a runner, each built anew."""
    return Side([session.compile(case) for _ in range(count)], inputs)


def test_harness_equals_bare_loop_and_itself(case: Case, session: Session) -> None:
    """Time one runner by the harness and by a loop, and two builds of it against each other."""
    inputs = to_device(session.case_inputs(case), session.settings.device)[:2]
    probe = side(session, case, inputs, 1)
    probe.prepare()
    count = INSTANCES if probe.call_s < SMALL_S else 1
    left, right = (side(session, case, inputs, count) for _ in range(2))
    bare, same = [], []
    for attempt in range(TRIES):
        left.times_s, right.times_s = [], []
        pairing = Pairing(left, right, budget_s=session.settings.budget_s, seed=attempt)
        before = bare_loop_s(left.instances[0], inputs, session.settings.budget_s / 4)
        pairing.run()
        after = bare_loop_s(left.instances[0], inputs, session.settings.budget_s / 4)
        blocks = pairing.instance_of_block()
        looped = [seconds for seconds, instance in zip(left.times_s, blocks, strict=True) if instance == 0]
        bare.append(statistics.median(looped) / statistics.mean([before, after]))
        if count > 1:
            ratio = paired_ratio_by_instance(right.times_s, left.times_s, blocks)
        else:
            ratio = paired_ratio(right.times_s, left.times_s)
        same.append(ratio.estimate)
    allowed = 0.02 if probe.call_s < SMALL_S else 0.01
    loop, itself = statistics.median(bare), statistics.median(same)
    print(f"\n{case.id}: {probe.call_s * 1e3:.3f} ms, harness / bare loop {loop:.4f}, A/A {itself:.4f}")
    assert abs(loop - 1) <= 0.03, f"the harness's time is {loop:.3f} of a bare loop's, expected within 3 %"
    assert abs(itself - 1) <= allowed, f"the A/A speed-up is {itself:.4f}, expected within {allowed:.0%} of 1"
