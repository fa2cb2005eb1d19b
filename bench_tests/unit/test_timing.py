"""Pairing on a virtual clock, where every duration is known."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench_tests.harness import timing
from bench_tests.harness.statistics import paired_ratio
from bench_tests.harness.timing import Pairing, Side, case_clock


class VirtualTime:
    """Stands in for the module `time`; functions made by it take as long as they say."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.calls: list[str] = []

    def perf_counter(self) -> float:
        return self.now_s

    def function(self, name: str, seconds: float):
        def call(*inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
            self.now_s += seconds
            self.calls.append(name)
            return inputs

        return call


@pytest.fixture
def virtual(monkeypatch):
    clock = VirtualTime()
    monkeypatch.setattr(timing, "time", clock)
    return clock


INPUTS = [(torch.tensor([0.0]),), (torch.tensor([1.0]),)]


def pairing(
    virtual: VirtualTime, candidate_s: float, reference_s: float, *, budget_s: float = 4.0, seed: int = 0
) -> Pairing:
    sides = [
        Side([virtual.function(name, seconds)], INPUTS)
        for name, seconds in (("candidate", candidate_s), ("reference", reference_s))
    ]
    return Pairing(*sides, budget_s=budget_s, seed=seed)


def test_times_are_those_of_one_call_and_the_ratio_is_exact(virtual):
    found = pairing(virtual, 0.001, 0.003)
    found.run()
    assert found.candidate.times_s == pytest.approx([0.001] * found.blocks)
    assert found.reference.times_s == pytest.approx([0.003] * found.blocks)
    ratio = paired_ratio(found.reference.times_s, found.candidate.times_s)
    assert (ratio.estimate, ratio.low, ratio.high) == pytest.approx((3.0, 3.0, 3.0))


def test_case_clock_goes_on_by_the_candidates_calls_only(virtual):
    found = pairing(virtual, 0.002, 0.05)
    before = case_clock()
    found.pair()
    assert case_clock() - before == pytest.approx(0.002)


def test_order_is_random_seeded_and_balanced(virtual):
    def order(seed: int) -> list[str]:
        found = pairing(virtual, 0.05, 0.05, budget_s=20.0, seed=seed)
        virtual.calls.clear()
        found.run()
        return virtual.calls[:: found.candidate.calls + found.candidate.warm_calls]

    first = order(1)
    assert first == order(1)
    assert first != order(2)
    leading = first[::2].count("candidate") / len(first[::2])
    assert 0.3 < leading < 0.7
    assert first.count("candidate") == first.count("reference")


@pytest.mark.parametrize(("call_s", "warm_calls"), [(20e-6, 100), (1e-3, 2), (0.008, 1), (0.02, 0)])
def test_each_side_is_warmed_for_milliseconds_but_never_by_a_long_call(virtual, call_s, warm_calls):
    assert pairing(virtual, call_s, call_s).candidate.warm_calls == warm_calls


def test_slow_function_is_not_called_more_than_needed_before_its_blocks(virtual):
    found = pairing(virtual, 5.0, 5.0)
    assert len(virtual.calls) == 2
    assert found.blocks == timing._MIN_BLOCKS


def test_last_outputs_belong_to_the_last_timed_input(virtual):
    found = pairing(virtual, 0.01, 0.02)
    found.run()
    assert found.candidate.last is not None
    index, outputs = found.candidate.last
    assert torch.equal(outputs[0], INPUTS[index][0])


@settings(max_examples=60)
@given(candidate_s=st.floats(1e-5, 2.0), reference_s=st.floats(1e-5, 2.0), budget_s=st.floats(0.01, 60.0))
def test_blocks_are_enough_for_an_interval_and_within_the_budget(candidate_s, reference_s, budget_s):
    virtual = VirtualTime()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "time", virtual)
        found = pairing(virtual, candidate_s, reference_s, budget_s=budget_s)
        assert timing._MIN_BLOCKS <= found.blocks <= timing._MAX_BLOCKS
        if found.blocks > timing._MIN_BLOCKS:
            found.run()
            assert found.candidate.timed_s + found.reference.timed_s <= budget_s * 1.1


def test_instances_take_turns_and_each_has_enough_blocks(virtual):
    names = [f"instance {index}" for index in range(timing.INSTANCES)]
    sides = [Side([virtual.function(name, 50e-6) for name in names], INPUTS) for _ in range(2)]
    found = Pairing(*sides, budget_s=0.1, seed=0)
    found.run()
    blocks = found.instance_of_block()
    assert all(blocks.count(index) >= 6 for index in range(timing.INSTANCES))
    assert set(virtual.calls) == set(names)
