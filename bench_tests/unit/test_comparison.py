"""The comparison of methods, from records made by hand."""

from bench_tests.harness.comparison import comparisons
from bench_tests.unit.test_table import record

MADE = {
    "size_bytes_original": 94_300_000, "parameters": 23_500_000, "quality_drop": 0.003, "quality_drop_low": -0.001,
    "quality_drop_high": 0.007, "int8_operators": 70, "operators": 80, "trimmed_mean_s": 0.01, "gflop": 8.2,
}  # fmt: skip


def test_each_method_stands_once_on_its_fastest_backend():
    plain = {"trimmed_mean_s": 0.02, "gflop": 8.2, "quality_drop": 0.0}
    rows = [
        record("eager", "fp32", 224, 1, 1.0, 40.0, **plain),
        record("openvino", "bf16", 224, 1, 4.5, 120.0, **plain),
        record("eager", "fp32", 224, 1, 0.4, 10.0, recipe="int8", **MADE),
        record("openvino", "fp32", 224, 1, 8.0, 300.0, recipe="int8", **{**MADE, "size_bytes": 23_575_000}),
    ]
    title, header, *lines, blank = comparisons({str(index): row for index, row in enumerate(rows)})
    assert title == "resnet18 on digits at 224 px, batch 1: each method on its fastest backend"
    assert header.split()[:3] == ["method", "fastest", "on"]
    assert [line.split()[:2] for line in lines] == [["original", "openvino"], ["int8", "openvino"]]
    assert "8.00 [7.92, 8.08]" in lines[1]
    assert " 4.0x " in lines[1]
    assert "70 of 80" in lines[1]
    assert "-0.3 [-0.7, +0.1]" in lines[1]
    assert blank == ""


def test_one_recipe_alone_is_compared_with_nothing():
    assert comparisons({"a": record("eager", "fp32", 224, 1, 1.0, 40.0)}) == []
