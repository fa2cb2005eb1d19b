"""The harness measured by itself: what it says of a runner against a bare loop over it, and of a model against itself.

Both are findings of the machine as much as of the harness, so they are asked for by name and not part of the matrix:
``pytest bench_tests/instrument.py -s --workload resnet18,resnet50 --size 224 --batch 1,8``. Each case prints the two
ratios with their intervals; it fails where a bare loop differs by more than 3 %, or the A/A speed-up from 1 by more
than 1 % (2 % below 100 us). Blocks are added until the A/A interval is as narrow as that question needs.
"""

import statistics
import time
from collections.abc import Callable

from bench_tests.harness.case import Case
from bench_tests.harness.session import Session, to_device
from bench_tests.harness.statistics import Ratio, paired_ratio, paired_ratio_by_instance
from bench_tests.harness.timing import INSTANCES, SMALL_S, Pairing, Side
from models.workload import Tensors

_LONGEST = 8  # times the budget


def bare_loop_s(runner: Callable[..., Tensors], inputs: list[Tensors]) -> float:
    """Seconds of one call in a loop that does nothing else: the median of several, the first of them left out."""
    times_s: list[float] = []
    while len(times_s) < 4 or sum(times_s) < 5e-3:
        tensors = inputs[len(times_s) % len(inputs)]
        started = time.perf_counter()
        runner(*tensors)
        times_s.append(time.perf_counter() - started)
    return statistics.median(times_s[1:])


def side(session: Session, case: Case, inputs: list[Tensors], count: int) -> Side:
    """Instances of a runner, each built anew."""
    return Side([session.compile(case) for _ in range(count)], inputs)


def _itself(pairing: Pairing) -> Ratio:
    """The A/A speed-up so far."""
    left_s, right_s = pairing.candidate.times_s, pairing.reference.times_s
    if pairing.instances > 1:
        return paired_ratio_by_instance(right_s, left_s, pairing.instance_of_block())
    return paired_ratio(right_s, left_s)


def test_harness_equals_bare_loop_and_itself(case: Case, session: Session) -> None:
    """Time one runner by the harness and by a loop, and two builds of it against each other."""
    inputs = to_device(session.case_inputs(case), session.settings.device)[:2]
    probe = side(session, case, inputs, 1)
    probe.prepare()
    count = INSTANCES if probe.call_s < SMALL_S else 1
    left, right = (side(session, case, inputs, count) for _ in range(2))
    pairing = Pairing(left, right, budget_s=session.settings.budget_s, seed=session.settings.seed)
    allowed = 0.02 if probe.call_s < SMALL_S else 0.01
    looped_s: list[float] = []
    itself = Ratio(1.0, 0.0, 2.0, 0, 0.0)
    while left.timed_s + right.timed_s < _LONGEST * session.settings.budget_s and itself.high - itself.low > allowed:
        for _ in range(pairing.blocks):
            pairing.pair()
            looped_s.append(bare_loop_s(left.instances[len(looped_s) % count], inputs))
        itself = _itself(pairing)
    loop = paired_ratio(left.times_s, looped_s)
    print(
        f"\n{case.id}: {left.call_s * 1e3:.3f} ms, harness / bare loop {loop.estimate:.4f} "
        f"[{loop.low:.4f}, {loop.high:.4f}], A/A {itself.estimate:.4f} [{itself.low:.4f}, {itself.high:.4f}]"
    )
    assert abs(loop.estimate - 1) <= 0.03, (
        f"the harness takes {loop.estimate:.3f} times a bare loop, expected within 3 %"
    )
    assert abs(itself.estimate - 1) <= allowed, (
        f"the A/A speed-up is {itself.estimate:.4f}, expected within {allowed:.0%}"
    )
