"""Workloads and backends of every kind the contracts allow, through the whole case before anything is built on them."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from bench_tests.harness import measure, peaks, timing
from bench_tests.harness.case import Case, NotMeasuredError, Settings
from bench_tests.harness.measure import Measurement
from bench_tests.harness.session import Session
from bench_tests.harness.timing import INSTANCES
from bench_tests.unit import toys
from models.workload import Workload
from optim.backends import load_backend
from optim.backends.base import Backend, Target

TOYS = "bench_tests.unit.toys"
SPECS = {"streaming": "STREAMING", "two_inputs": "TWO_INPUTS", "mlp": "MLP", "small0": "SMALL"}


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """A session that spends little: short blocks, a rough ceiling, a cache of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPEEDPROOF_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(timing, "_BLOCK_S", 2e-3)
        patch.setattr(peaks, "_BUDGET_S", 0.05)
        patch.setattr(peaks, "_COPY_BUDGET_S", 0.05)
        patch.setattr(peaks, "_COPY_BYTES", 2**20)
        specs = {name: f"{TOYS}:{attribute}" for name, attribute in SPECS.items()}
        yield Session(Settings(threads=1, budget_s=0.02, specs=specs, timeout_s=120))


def _case(workload: str, backend: str, size: int = 32, batch: int = 1) -> Case:
    data = getattr(toys, SPECS[workload]).data_name
    return Case(workload, data, backend, "fp32", size, batch, 1)


def _missing(backend: str) -> str | None:
    return load_backend(backend).missing("fp32", Target("cpu", 1))


def _check(record, arrays, case):
    assert record["case"] == case.id
    assert all(isinstance(value, str | bool | int) or np.isfinite(value) for value in record.values())
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["speedup_low"] <= record["speedup"] <= record["speedup_high"]
    assert 0 < record["minimum_s"] <= record["median_s"] <= record["p95_s"]
    assert record["fps"] == pytest.approx(case.batch / record["trimmed_mean_s"])
    assert record["ms_per_image"] == pytest.approx(1e3 / record["fps"])
    assert record["size_bytes"] > 0
    assert sum(json.loads(record["coverage"]).values()) > 0
    if record["clock"] == "wall":
        assert len(arrays["candidate_s"]) == len(arrays["reference_s"]) == record["blocks"]
        assert len(np.unique(arrays["instance"])) == record["instances"]


@pytest.mark.parametrize("rehearsed", [False, True])
@pytest.mark.parametrize(
    ("workload", "backend"),
    [
        ("streaming", "eager"),
        ("streaming", "onnxruntime"),
        ("streaming", "openvino"),
        ("two_inputs", "eager"),
        ("two_inputs", "onnxruntime"),
        ("two_inputs", "openvino"),
    ],
)
def test_any_number_of_inputs_and_outputs_goes_through(session, workload, backend, rehearsed):
    if reason := _missing(backend):
        pytest.skip(reason)
    case = _case(workload, backend, batch=2)
    record, arrays = Measurement(case, session).run(rehearsed=rehearsed)
    _check(record, arrays, case)
    assert record["quality"].startswith("not judged: ")
    assert not {"quality_drop", "agreement", "quality_examples"} & set(record)
    assert not {"outcomes", "answers"} & set(arrays)
    assert ("cpu_peak_memory_bytes" in record) == rehearsed


def test_streaming_model_goes_through_inductor(session, monkeypatch):
    monkeypatch.setattr(measure, "SMALL_S", 0.0)  # one instance: others are compiled alike
    if reason := _missing("inductor"):
        pytest.skip(reason)
    case = _case("streaming", "inductor")
    record, arrays = Measurement(case, session).run()
    _check(record, arrays, case)
    assert json.loads(record["coverage"])["inductor/graph"] == 1
    assert record["child_built_from_cache"] is False
    assert record["built_from_cache"] is True  # of the child's artefact


def test_state_that_is_fed_back_keeps_its_form(session):
    """What a stream's user does: the state that came out goes in again, on every backend alike."""
    expected = None
    for backend in ("eager", "onnxruntime", "openvino"):
        if _missing(backend):
            continue
        case = _case("streaming", backend)
        runner = session.compile(case)
        (chunk, state), *_ = session.case_inputs(case)
        for _ in range(5):
            probability, state = runner(chunk, state)
        assert (probability.shape, state.shape) == ((1, 1), (1, 8))
        expected = state if expected is None else expected
        torch.testing.assert_close(state, expected, rtol=1e-4, atol=1e-5)


def test_microsecond_model_is_timed_on_several_instances(session):
    case = _case("mlp", "eager", batch=2)
    record, arrays = Measurement(case, session).run(rehearsed=False)
    _check(record, arrays, case)
    assert record["instances"] == INSTANCES == 6
    assert record["blocks"] >= 6 * INSTANCES
    assert (record["quality"], record["agreement"], record["quality_drop"]) == ("top1", 1.0, 0.0)
    assert record["quality_top1_low"] <= record["quality_top1"] <= record["quality_top1_high"]
    assert len(arrays["answers"]) == len(arrays["outcomes"]) == record["quality_examples"] == 16


@pytest.mark.parametrize("rehearsed", [False, True])
def test_cycles_are_exact(session, rehearsed):
    case = _case("mlp", f"{TOYS}:FAST")
    record, arrays = Measurement(case, session).run(rehearsed=rehearsed)
    _check(record, arrays, case)
    assert record["clock"] == "cycles"
    assert record["parity_bits_equal"] is True
    assert record["speedup"] == record["speedup_low"] == record["speedup_high"] == 4.0
    assert (record["cycles"], record["reference_cycles"]) == (16_000, 64_000)
    assert record["trimmed_mean_s"] == record["median_s"] == 16_000 / 16e6 == 1e-3
    assert record["fps"] == pytest.approx(1000.0)


def test_one_wrong_bit_is_refused(session):
    with pytest.raises(NotMeasuredError, match=r"^parity: outputs are not bit for bit") as caught:
        Measurement(_case("mlp", f"{TOYS}:OFF_BY_ONE_BIT"), session).run(rehearsed=False)
    assert caught.value.status == "failed"


def test_checks_without_the_clock(session):
    class Disabled:
        enabled = False

    record, _ = Measurement(_case("mlp", "eager"), session).run(Disabled(), rehearsed=False)
    assert "agreement" in record
    assert not {"speedup", "fps", "blocks", "gflop"} & set(record)


@pytest.mark.parametrize("name", SPECS)
def test_workload_keeps_its_contract(name):
    workload = getattr(toys, SPECS[name])
    size, batch = workload.sizes[0], 2
    assert isinstance(workload, Workload)
    one, same, other = (workload.example(size, batch, seed) for seed in (0, 0, 2))
    assert isinstance(one, tuple)
    for left, right, third in zip(one, same, other, strict=True):
        assert torch.equal(left, right)  # an example is its seed's
        assert not torch.equal(left, third)
        assert left.shape == third.shape
        assert left.shape[0] == batch
    module = workload.build(size, None)
    assert isinstance(module, nn.Module)
    assert not module.training
    with torch.no_grad():
        before = [tensor.clone() for tensor in one]
        first, second = module(*one), workload.build(size, None)(*one)
    assert all(torch.equal(a, b) for a, b in zip(before, one, strict=True))
    torch.testing.assert_close(first, second, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["eager", "inductor", "onnxruntime", "openvino", "tensorrt", f"{TOYS}:FAST"])
def test_backend_keeps_its_contract(name):
    backend = load_backend(name)
    assert isinstance(backend, Backend)
    assert isinstance(load_backend(backend.reference), Backend)
    for precision in ("fp32", "bf16", "fp16"):
        reason = backend.missing(precision, Target("cpu", 1))
        assert reason is None or (reason and "\n" not in reason)
