"""Tinychat on a computer: one character a call, from counts (``tinychat``) and from text (``tinychat_text``).

``pytest bench_tests/test_tinychat.py --threads 1``; ``--recipe`` names pruned and quantized networks.
"""

from collections.abc import Callable

import pytest

from bench_tests.harness.case import Case
from bench_tests.harness.timing import case_clock


@pytest.mark.benchmark(timer=case_clock, disable_gc=True)
def test_tinychat(case: Case, measure: Callable[[Case], object]) -> None:
    """Take one network on one backend through the harness."""
    measure(case)
