"""Stored runs as pytest-benchmark and the harness write them, with made-up figures; for the tests of reports."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bench_tests.harness.report.load import read
from bench_tests.harness.report.material import Material

FINGERPRINT = "amd-epyc-2c-2t-passive-0123abcd"
# How much faster than eager fp32 each backend is, and how its precision adds to it.
BACKENDS = {"eager": 1.0, "inductor": 1.3, "onnxruntime": 1.5, "openvino": 1.6}
PRECISIONS = {"fp32": 1.0, "bf16": 1.8}


def record(
    workload: str = "resnet18",
    data: str = "imagenette",
    recipe: str = "original",
    backend: str = "eager",
    precision: str = "fp32",
    size: int = 224,
    batch: int = 1,
    threads: int = 2,
    **more: Any,
) -> dict[str, Any]:
    """One measured case. Time grows with size squared, and with the batch less than proportionally up to 8."""
    speedup = BACKENDS.get(backend, 2.0) * PRECISIONS.get(precision, 1.0) * (1.0 if recipe == "original" else 3.0)
    one_s = 0.010 * (size / 224) ** 2 / speedup
    call_s = one_s * (batch + 0.6) / 1.6 if batch < 8 else one_s * batch * 8.6 / (8 * 1.6)
    gflop = 3.6 * (size / 224) ** 2 * batch
    found = {
        "case": f"{workload}-{data}-{recipe}-{backend}-{precision}-{size}px-b{batch}-t{threads}", "workload": workload,
        "data": data, "backend": backend, "precision": precision, "size": size, "batch": batch, "threads": threads,
        "recipe": recipe, "unit": "px", "seed": 0, "weights": f"best_{workload}_{size}.pth", "weights_own": True,
        "fingerprint": FINGERPRINT, "split": "test", "cpu_peak_memory_bytes": 5e8 + 1e6 * batch, "device": "cpu",
        "clock": "wall", "size_bytes": 44_800_000 if recipe == "original" else 11_300_000, "build_s": 1.0,
        "first_call_s": 0.1, "quality": "top1", "quality_top1": 0.861 if recipe == "original" else 0.856,
        "quality_top1_low": 0.845, "quality_top1_high": 0.875, "quality_top1_original": 0.861, "quality_examples": 1975,
        "quality_drop": 0.0 if recipe == "original" else 0.005, "quality_higher_is_better": True,
        "quality_drop_low": 0.0 if recipe == "original" else -0.001,
        "quality_drop_high": 0.0 if recipe == "original" else 0.011, "agreement": 0.99, "gflop": gflop,
        "peak_gflops": 500.0, "peak_precision": precision if recipe == "original" else "int8", "copy_gb_per_s": 40.0,
        "peak_theoretical_gflops": 330.0, "peak_theoretical_how": "2 cores x 2.60 GHz x 64 FLOP/cycle",
        "trimmed_mean_s": call_s, "median_s": call_s, "minimum_s": 0.95 * call_s, "stddev_s": 0.03 * call_s,
        "p95_s": 1.06 * call_s, "fps": batch / call_s, "ms_per_image": 1e3 * call_s / batch, "speedup": speedup,
        "speedup_low": 0.98 * speedup, "speedup_high": 1.02 * speedup, "speedup_confidence": 0.95, "blocks": 40,
        "instances": 1, "calls_per_block": 1, "reference_trimmed_mean_s": call_s * speedup, "gflops": gflop / call_s,
        "share_of_peak": gflop / call_s / 500.0, "share_of_theoretical_peak": gflop / call_s / 330.0,
        "recipe_steps": json.dumps({"steps": [] if recipe == "original" else [{"method": "static", "bits": 8}]}),
        "parity_largest_error": 1e-6, "coverage": '{"CPU/float32": 42}', "module_digest": f"{workload}{recipe}",
        "speedup_over_best_fp32": speedup / 1.6,
    }  # fmt: skip
    return found | more


def run(
    records: Iterable[Mapping[str, Any]], *, when: str = "2026-11-20T10:00:00+00:00", **more: Any
) -> dict[str, Any]:
    """A whole stored run."""
    records = list(records)
    return {
        "machine_info": {"fingerprint": FINGERPRINT, "node": "vm"},
        "commit_info": {"id": "0123456789abcdef", "dirty": False},
        "benchmarks": [{"name": f"test[{one['case']}]", "extra_info": dict(one), "stats": {}} for one in records],
        "datetime": when, "version": "5.3.1",
        "fingerprint": {
            "cpu_model": "AMD EPYC", "cpu_revision": "family 26", "cores_used": 2, "affinity": [0, 1],
            "cpu_quota": None, "threads": 2, "omp_wait_policy": "passive", "gpu_name": None,
        },
        "versions": {"python": "3.11.7", "torch": "2.13.0+cpu", "openvino": "2026.4.1", "commit": "0123456789ab"},
        "not_measured": [], "asked_for": {"workload": "resnet18", "recipe": "original"},
        "command": "pytest bench_tests --workload resnet18 --size 128,224 --batch 1,8 --threads 2",
        "settings": {"device": "cpu", "threads": 2, "examples": 128, "budget_s": 4.0, "timeout_s": 900.0, "seed": 0},
        "workloads": {
            name: {
                "task": "Tell which of ten things a photograph shows.", "scenario": "One image at a time, and batches.",
                "platform": "Servers: two CPU cores.", "tolerated_drop": 0.01,
            }
            for name in {one["workload"] for one in records}
        },
    } | more  # fmt: skip


def matrix(
    sizes: Iterable[int] = (128, 224),
    batches: Iterable[int] = (1, 2, 4, 8, 16),
    recipes: Iterable[str] = ("original",),
    backends: Iterable[str] = tuple(BACKENDS),
    precisions: Iterable[str] = tuple(PRECISIONS),
    **more: Any,
) -> list[dict[str, Any]]:
    """The records of a whole matrix."""
    return [
        record(recipe=recipe, backend=backend, precision=precision, size=size, batch=batch, **more)
        for size in sizes
        for batch in batches
        for recipe in recipes
        for backend in backends
        for precision in precisions
    ]


def write(file: Path, stored: Mapping[str, Any]) -> Path:
    """Write a run as pytest-benchmark does."""
    file.write_text(json.dumps(stored, indent=4))
    return file


def material(tmp_path: Path, *runs: Mapping[str, Any]) -> Material:
    """What a report is made from, of one matrix where no run is given."""
    stored = runs or (run(matrix()),)
    return read([write(tmp_path / f"run{at}.json", content) for at, content in enumerate(stored)])
