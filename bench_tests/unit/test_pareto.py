"""The picture of quality against cost: its front against brute force, and what cannot be drawn."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench_tests.pareto import errors_of, front, main, read_records

POINTS = st.lists(st.tuples(st.integers(0, 9).map(float), st.integers(0, 9).map(float)), min_size=1, max_size=12)


@given(POINTS)
def test_the_front_is_what_nothing_beats(points):
    found = front(points)
    for index, (cost, error) in enumerate(points):
        beaten = any(c <= cost and e <= error and (c, e) != (cost, error) for c, e in points)
        assert beaten or (cost, error) in [points[i] for i in found]
        assert not (beaten and index in found)


def entry(recipe: str, median_s: float, auc: float, **more) -> dict:
    record = {
        "case": f"{recipe}-{median_s}", "workload": "kws", "data": "speech_happy", "size": 1000, "unit": "ms",
        "batch": 1, "threads": 1, "device": "cpu", "recipe": recipe, "median_s": median_s, "size_bytes": 3000,
        "gflop": 0.002, "quality": "roc_auc",
        "quality_roc_auc": auc, "quality_roc_auc_low": auc - 0.001, "quality_roc_auc_high": min(1.0, auc + 0.001),
        **more,
    }  # fmt: skip
    return {"extra_info": record}


def stored(tmp_path, *entries):
    file = tmp_path / "run.json"
    file.write_text(json.dumps({"benchmarks": [{"extra_info": {}}, *entries]}))
    return file


def test_a_run_is_drawn_with_each_recipe_on_its_fastest_backend(tmp_path, capsys):
    file = stored(tmp_path, entry("original", 1e-4, 0.999), entry("original", 5e-5, 0.999), entry("small", 1e-5, 1.0))
    found = {record["recipe"]: record for record in read_records(file)}
    assert {name: (record["median_s"], record["macs"]) for name, record in found.items()} == {
        "original": (5e-5, 1_000_000), "small": (1e-5, 1_000_000),
    }  # fmt: skip
    assert errors_of(found["original"]) == pytest.approx((0.1, 0.0, 0.2))
    picture = tmp_path / "front.png"
    assert main([str(file), "-o", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out == f"{picture}: written\n"


@pytest.mark.parametrize(
    ("content", "output", "said"),
    [
        ("", "x.png", "no stored run that can be drawn"),
        ("[]", "x.png", "no stored run that can be drawn"),
        (json.dumps({"benchmarks": [{"extra_info": {"case": "a"}}]}), "x.png", "no stored run that can be drawn"),
        (json.dumps({"benchmarks": [entry("one", 1.0, 0.9)]}), "x.png", "expected at least two recipes"),
        (json.dumps({"benchmarks": [entry("a", 1.0, 0.9), entry("b", 1.0, 0.9, batch=8)]}), "x.png", "recipes of 2"),
        (json.dumps({"benchmarks": [entry("a", 1.0, 0.9), entry("b", 1.0, 0.9, threads=2)]}), "x.png", "recipes of 2"),
        (json.dumps({"benchmarks": [entry("a", 1.0, 0.9), entry("b", 1.0, 0.9, device="cuda")]}), "x.png", "of 2"),
        (json.dumps({"benchmarks": [entry("a", 1.0, 0.9), entry("b", 1.0, 0.9), entry("b", 0.5, 0.9, threads=2)]}),
         "x.png", "found 2 recipes of 2"),
        ("", "x.txt", "expected a file that ends in .png, .svg or .pdf"),
        ("", ".", "expected a file that ends in .png, .svg or .pdf"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_one_sentence(tmp_path, capsys, monkeypatch, content, output, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.json").write_text(content)
    assert main(["run.json", "-o", output]) == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert said in sentence
    assert not (tmp_path / "x.png").exists()


MISSING = "missing"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *((name, value) for name in ("median_s", "size_bytes", "gflop", "macs")
          for value in (MISSING, None, math.nan, math.inf, 0, -1, "fast") if (name, value) != ("macs", MISSING)),
        ("unit", MISSING), ("threads", MISSING), ("device", MISSING), ("quality", MISSING), ("recipe", MISSING),
        ("quality_roc_auc", MISSING), ("quality_roc_auc", None), ("quality_roc_auc", math.nan),
        ("quality_roc_auc_low", None), ("quality_roc_auc_high", math.nan),
        pytest.param("gflop", 10**400, id="gflop-huge"),
    ],
)  # fmt: skip
def test_a_record_that_cannot_be_drawn_is_one_sentence(tmp_path, capsys, field, value):
    wrong = entry("small", 1e-5, 0.99)
    if value == MISSING:
        del wrong["extra_info"][field]
    else:
        wrong["extra_info"][field] = value
    file, picture = stored(tmp_path, entry("original", 1e-4, 0.999), wrong), tmp_path / "front.png"
    assert main([str(file), "-o", str(picture)]) == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert "no stored run that can be drawn" in sentence
    assert not picture.exists()
