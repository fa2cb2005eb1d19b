"""The main job: every backend x precision x size x batch, correct before fast, timed in pairs with PyTorch eager."""

import pytest

from bench_tests.harness.timing import case_clock


@pytest.mark.benchmark(timer=case_clock, disable_gc=True)
def test_inference(case, measure):  # type: ignore[no-untyped-def]
    measure(case)
