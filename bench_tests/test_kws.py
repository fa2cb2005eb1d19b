"""Keyword spotting offline: a whole clip a call, as log-mel (``kws``) and as a waveform (``kws_waveform``).

``pytest bench_tests/test_kws.py --keyword happy --threads 1``; ``--recipe`` names students and quantized models.
"""

from collections.abc import Callable

import pytest

from bench_tests.harness.case import Case
from bench_tests.harness.timing import case_clock


@pytest.mark.benchmark(timer=case_clock, disable_gc=True)
def test_kws(case: Case, measure: Callable[[Case], object]) -> None:
    """Take one spotter on one backend through the harness."""
    measure(case)
