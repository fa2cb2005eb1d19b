"""The table at the end of a run, from records made by hand."""

from __future__ import annotations

import pytest

from bench_tests.harness import table
from bench_tests.harness.record import Record, Value


def record(backend: str, precision: str, size: int, batch: int, speedup: float, fps: float, **more: Value) -> Record:
    return {
        "case": f"{backend}-{precision}-{size}-{batch}", "workload": "resnet18", "data": "digits", "recipe": "original",
        "backend": backend, "precision": precision, "size": size, "unit": "px", "batch": batch, "threads": 2,
        "clock": "wall",
        "speedup": speedup, "speedup_low": speedup * 0.99, "speedup_high": speedup * 1.01, "fps": fps,
        "ms_per_image": 1000 / fps, "gflops": 100.0, "share_of_peak": 0.5, "peak_gflops": 200.0,
        "peak_precision": "fp32", "quality": "top1", "quality_top1": 0.9, "agreement": 1.0,
        "size_bytes": 44_800_000, "cpu_peak_memory_bytes": 400 * 2**20,
        "spent_building_s": 1.0, "spent_checking_s": 2.0, "spent_timed_calls_s": 4.0, "spent_warming_s": 0.5, **more,
    }  # fmt: skip


@pytest.fixture
def records() -> dict[str, Record]:
    rows = [
        record("eager", "fp32", 224, 1, 1.0, 40.0),
        record("onnxruntime", "fp32", 224, 1, 1.5, 60.0),
        record("openvino", "bf16", 224, 1, 3.0, 120.0),
        record("eager", "fp32", 224, 8, 1.0, 41.0),
        record("onnxruntime", "fp32", 224, 8, 1.6, 66.0),
        record("openvino", "bf16", 224, 8, 3.0, 123.0),
        record("openvino", "bf16", 128, 8, 3.1, 400.0),
    ]
    found = {str(row["case"]): row for row in rows}
    table.add_best_fp32(found)
    return found


def test_speedup_over_the_best_lossless_row_is_the_ratio_of_paired_speedups(records):
    assert records["openvino-bf16-224-1"]["speedup_over_best_fp32"] == pytest.approx(2.0)
    assert records["onnxruntime-fp32-224-1"]["speedup_over_best_fp32"] == pytest.approx(1.0)
    assert "speedup_over_best_fp32" not in records["openvino-bf16-128-8"]  # no lossless row at that size


def test_best_of_each_size_and_batch_is_marked_once(records):
    lines = table.results(records).splitlines()
    assert [line.split("*")[1].split()[0] for line in lines if "*" in line] == ["openvino"] * 3
    assert "…" not in "".join(lines)
    assert any("1.60 [1.58, 1.62]" in line for line in lines)


def test_saturation_names_the_smallest_batch_near_the_best(records):
    assert table.saturations(records) == [
        "resnet18 at 224 px: openvino bf16 saturates at batch 1 (120.0 FPS), best batch 8 (123.0 FPS)"
    ]


def test_answer_is_one_line_with_the_lossless_row_beside_a_lossy_one(records):
    assert table.answer(records) == [
        "fastest: openvino bf16, 3.00x PyTorch [2.97, 3.03] at 224 px, batch 8; "
        "lossless: onnxruntime, 1.60x PyTorch [1.58, 1.62] at 224 px, batch 8"
    ]


def test_answer_for_several_workloads_names_each(records):
    other = record("eager", "fp32", 224, 1, 1.0, 20.0, workload="resnet50", case="other")
    lines = table.answer(records | {"other": other})
    assert [line.split()[0] for line in lines] == ["resnet18", "resnet50"]


def test_cost_adds_up(records):
    line = table.cost(records, 70.0)
    assert line == (
        "7 cases in 70 s: building 10%, checking 20%, timed calls 40%, harness 30.0% (of it warm-up calls 5.0%)"
    )


def test_case_of_an_exact_clock_and_without_quality_or_memory_has_a_row():
    row = record("counting", "fp32", 32, 1, 4.0, 1000.0, clock="cycles", quality="not judged: no data")
    del row["cpu_peak_memory_bytes"], row["quality_top1"]
    records = {"x": row}
    table.add_best_fp32(records)
    assert "not judged" not in table.results(records)
    assert table.report(records, [{"case": "y", "status": "out of memory", "reason": "out of memory: 30 GiB"}], 10.0)


def test_audio_is_told_in_its_own_time():
    row = record("onnxruntime", "fp32", 100, 1, 4.0, 1000.0, workload="spotter", unit="ms", real_time_factor=0.0012)
    found = {"chunk": row}
    assert table.real_time(found) == ["spotter: 1 x 100 ms of audio take 0.120% of real time on onnxruntime"]
    assert table.results(found).splitlines()[1].split()[:2] == ["ms", "batch"]
    assert table.answer(found) == ["fastest: onnxruntime, 4.00x PyTorch [3.96, 4.04] at 100 ms, batch 1"]


def test_images_have_no_real_time(records):
    assert table.real_time(records) == []
