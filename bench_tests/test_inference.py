"""The main job: every backend x precision x size x batch, correct before fast, timed in pairs with PyTorch eager."""

from collections.abc import Callable

import pytest

from bench_tests.harness.case import Case
from bench_tests.harness.timing import case_clock


@pytest.mark.benchmark(timer=case_clock, disable_gc=True)
def test_inference(case: Case, measure: Callable[[Case], object]) -> None:
    """Take one case of the matrix through the harness."""
    measure(case)
