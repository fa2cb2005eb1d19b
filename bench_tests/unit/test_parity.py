"""Deviations against numpy, what the tolerance lets pass, and the tricks with buffers that alternation finds."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bench_tests.harness.case import NotMeasuredError
from bench_tests.harness.parity import (
    FLOORS,
    Deviation,
    check_bits,
    check_deviations,
    deviations,
    run_alternating,
)

EXACT = Deviation(0.0, 0.0, 0.0)
values = st.floats(-1e3, 1e3, width=32)
pairs = hnp.array_shapes(min_dims=1, max_dims=3, max_side=5).flatmap(
    lambda shape: st.tuples(*(hnp.arrays(np.float64, shape, elements=values) for _ in range(2)))
)


def _one(left, right):
    return deviations([(torch.as_tensor(left),)], [(torch.as_tensor(right),)])


@given(pairs)
def test_deviation_is_that_of_numpy(pair):
    found, oracle = pair
    (deviation,) = _one(found, oracle)
    scale = np.sqrt(np.mean(oracle**2)) or 1.0
    error = found - oracle
    np.testing.assert_allclose(deviation.largest, np.abs(error).max() / scale, rtol=1e-9)
    np.testing.assert_allclose(deviation.rms, np.sqrt(np.mean(error**2)) / scale, rtol=1e-9)
    if oracle.any():
        slope = np.sum(found * oracle) / np.sum(oracle**2)
        cancelled = np.sum(np.abs(found * oracle)) / np.sum(oracle**2)
        np.testing.assert_allclose(deviation.gain, slope - 1, rtol=1e-9, atol=1e-12 * (1 + cancelled))


@given(pairs, st.floats(1e-6, 1e6))
def test_deviation_has_no_unit(pair, factor):
    found, oracle = pair[0], pair[1] + 1e4  # far from zero, where there is no scale
    (plain,), (scaled,) = _one(found, oracle), _one(found * factor, oracle * factor)
    for name in ("largest", "rms", "gain"):
        np.testing.assert_allclose(getattr(scaled, name), getattr(plain, name), rtol=1e-6, atol=1e-12)


@given(pairs)
def test_equal_outputs_deviate_by_nothing(pair):
    (deviation,) = _one(pair[0], pair[0])
    assert (deviation.largest, deviation.rms) == (0.0, 0.0)
    assert abs(deviation.gain) < 1e-12


def test_all_inputs_count_together():
    found = [(torch.tensor([1.0, 2.0]),), (torch.tensor([3.0, 5.0]),)]
    oracle = [(torch.tensor([1.0, 2.0]),), (torch.tensor([3.0, 4.0]),)]
    (deviation,) = deviations(found, oracle)
    assert deviation.largest == pytest.approx(1 / np.sqrt(7.5))


def test_oracle_of_zeros_is_compared_in_absolute_terms():
    (deviation,) = _one([0.0, 1e-3], [0.0, 0.0])
    assert deviation.largest == pytest.approx(1e-3)
    with pytest.raises(NotMeasuredError, match="off by"):
        check_deviations([deviation], [EXACT], "fp32")
    check_deviations(_one([0.0, 0.0], [0.0, 0.0]), [EXACT], "fp32")


def test_empty_output_deviates_by_nothing():
    assert _one(torch.empty(0, 4), torch.empty(0, 4)) == [EXACT]


@pytest.mark.parametrize("respect", ["largest", "rms", "gain"])
@pytest.mark.parametrize("precision", FLOORS)
def test_tolerance_is_twice_or_in_int8_three_times_that_of_eager_and_the_floor(precision, respect):
    own = Deviation(1e-3, 1e-4, -1e-4)  # a gain counts by its size
    factor = 3 if precision == "int8" else 2
    allowed = factor * abs(getattr(own, respect)) + getattr(FLOORS[precision], respect)
    for sign in (1, -1):
        inside, outside = (Deviation(**{**vars(EXACT), respect: sign * allowed * f}) for f in (0.999, 1.001))
        check_deviations([inside], [own], precision)
        with pytest.raises(NotMeasuredError, match=rf"^parity: output 0 is off by .*{respect}.* {precision}"):
            check_deviations([outside], [own], precision)


def test_nan_deviation_never_passes():
    with pytest.raises(NotMeasuredError):
        check_deviations([Deviation(float("nan"), 0.0, 0.0)], [EXACT], "bf16")


@pytest.mark.parametrize("position", [0, 1])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_nan_and_inf_fail_in_any_output(value, position):
    good = torch.ones(3)
    bad = torch.tensor([1.0, value, 1.0])
    with pytest.raises(NotMeasuredError, match=f"output {position} holds NaN or inf"):
        deviations([(bad, good) if position == 0 else (good, bad)], [(good, good)])


def test_integers_are_equal_or_wrong():
    oracle = torch.tensor([1, 2, 3])
    assert _one(oracle, oracle) == []
    assert _one(oracle.int(), oracle) == []  # a runtime may count in fewer bits
    assert _one(oracle.float(), oracle) == []
    for wrong in (torch.tensor([1, 2, 4]), torch.tensor([1.0, 2.0, 3.7]), torch.tensor([1, 2, 3 + 2**32])):
        with pytest.raises(NotMeasuredError, match="other integers"):
            _one(wrong, oracle)
    assert _one(torch.tensor([True]), torch.tensor([True])) == []


@pytest.mark.parametrize("shape", [(4, 2), (2,), (8,), (2, 4, 1)])
def test_another_shape_fails(shape):
    with pytest.raises(NotMeasuredError, match=r"shape .*, expected \(2, 4\)"):
        _one(torch.zeros(shape), torch.zeros(2, 4))


@pytest.mark.parametrize("count", [0, 1, 3])
def test_another_number_of_outputs_fails(count):
    good = (torch.ones(2), torch.ones(2))
    with pytest.raises(NotMeasuredError, match=f"{count} outputs, expected 2"):
        deviations([good, (torch.ones(2),) * count], [good, good])


def test_bits():
    one = torch.tensor([1.0])
    check_bits([(one,)], [(one.clone(),)])
    for wrong in ((torch.nextafter(one, one + 1),), (one, one), ()):
        with pytest.raises(NotMeasuredError, match="bit for bit"):
            check_bits([wrong], [(one,)])


INPUTS = [(torch.tensor([float(index)]),) for index in range(4)]


def test_alternation_gives_each_output_to_its_input():
    assert run_alternating(lambda x: (x * 2,), INPUTS) == [(x * 2,) for (x,) in INPUTS]


@pytest.mark.parametrize("buffers", [1, 2, 3])
def test_reused_buffers_are_found(buffers):
    ring, calls = [torch.zeros(1) for _ in range(buffers)], iter(range(99))

    def runner(x):
        return (ring[next(calls) % buffers].copy_(x * 2),)

    with pytest.raises(NotMeasuredError):
        check_deviations(deviations(run_alternating(runner, INPUTS), [(x * 2,) for (x,) in INPUTS]), [EXACT], "fp32")


@pytest.mark.parametrize("late", [1, 2, 4])
def test_stale_outputs_are_found(late):
    history = []

    def runner(x):
        history.append((x * 2,))
        return history[max(0, len(history) - 1 - late)]

    with pytest.raises(NotMeasuredError):
        check_deviations(deviations(run_alternating(runner, INPUTS), [(x * 2,) for (x,) in INPUTS]), [EXACT], "fp32")


def test_changed_inputs_are_found():
    with pytest.raises(NotMeasuredError, match="changed its inputs"):
        run_alternating(lambda x: (x.add_(1).clone(),), [(x.clone(),) for (x,) in INPUTS])
