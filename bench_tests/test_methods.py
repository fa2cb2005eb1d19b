"""Methods against the model they were applied to: recipe x workload x backend, under the same conditions.

``pytest bench_tests/test_methods.py --workload resnet50 --data imagenette --size 224 --batch 1`` is the classic
comparison: original, distillation, pruning, quantization, and all of them combined. ``--recipe`` names others.
"""

from collections.abc import Callable

import pytest

from bench_tests.harness.case import Case
from bench_tests.harness.timing import case_clock


@pytest.mark.benchmark(timer=case_clock, disable_gc=True)
def test_methods(case: Case, measure: Callable[[Case], object]) -> None:
    """Take one recipe on one backend through the harness."""
    measure(case)
