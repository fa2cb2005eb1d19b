"""Quality against cost: the front against brute force, what is a point, names that do not overlap; shares of a peak."""

import json
import math

import pytest
import vl_convert
from hypothesis import given
from hypothesis import strategies as st

from bench_tests.harness.report.document import Number, plain
from bench_tests.harness.report.figures.front import front
from bench_tests.harness.report.figures.placing import axis, labels
from bench_tests.harness.report.figures.tradeoffs import tradeoffs
from bench_tests.harness.report.material import Group
from bench_tests.unit import stored

POINTS = st.lists(st.tuples(st.integers(0, 9).map(float), st.integers(0, 9).map(float)), min_size=1, max_size=12)


def figures_of(tmp_path, records):
    (group,) = stored.material(tmp_path, stored.run(records)).groups
    return {figure.name.removesuffix(f"-{group.slug}"): figure for figure in tradeoffs(group)}


def judged(recipe, value, low=None, high=None, backend="onnxruntime", call_s=0.01, **more):
    """A record of a recipe with a quality and a latency."""
    interval = {} if low is None else {"quality_top1_low": low, "quality_top1_high": high}
    record = stored.record(recipe=recipe, backend=backend, trimmed_mean_s=call_s, speedup=0.1 / call_s)
    record |= {"speedup_low": 0.099 / call_s, "speedup_high": 0.101 / call_s, "quality_top1": value}
    for name in ("quality_top1_low", "quality_top1_high"):
        record.pop(name)
    return record | interval | more


# The front


@given(POINTS)
def test_the_front_is_what_nothing_beats(points):
    found = front(points)
    for index, (cost, error) in enumerate(points):
        beaten = any(c <= cost and e <= error and (c, e) != (cost, error) for c, e in points)
        assert beaten or (cost, error) in [points[i] for i in found]
        assert not (beaten and index in found)


def test_each_recipe_stands_with_its_fastest_backend(tmp_path):
    records = [
        judged("original", 0.86, backend="eager", call_s=0.1),
        judged("original", 0.86, backend="openvino", call_s=0.05, size_bytes=44_000_000),
        judged("small", 0.85, call_s=0.01, size_bytes=3_000_000),
        judged("worse", 0.80, call_s=0.02, size_bytes=5_000_000),
    ]
    found = figures_of(tmp_path, records)
    rows = {row["name"]: row for row in found["quality-latency"].spec["datasets"]["rows"]}
    assert {name: (row["backend"], row["cost"], row["height"], row["standing"]) for name, row in rows.items()} == {
        "original": ("openvino", 50.0, 86.0, "on the front"),
        "small": ("onnxruntime", 10.0, 85.0, "on the front"),
        "worse": ("onnxruntime", 20.0, 80.0, "beaten by one on the front"),
    }
    steps = found["quality-latency"].spec["datasets"]["front"]
    assert [row["name"] for row in steps] == ["small", "original"]
    sizes = {row["name"]: row["cost"] for row in found["quality-size"].spec["datasets"]["rows"]}
    assert sizes == {"original": 44.0, "small": 3.0, "worse": 5.0}
    assert found["quality-size"].title == (
        "small is smallest, 3.00 MB (the original 44.0 MB), with top1 85.0 % (-0.5 [-1.1, +0.1] points, no certain "
        "difference); 2 of 3 recipes are on the front"
    )
    assert found["quality-latency"].title.startswith("small is fastest, 10.0 ms (10.0x PyTorch eager), with top1")
    assert "small 10.0 ms" in found["quality-latency"].alt


def test_of_recipes_as_fast_as_each_other_the_better_one_is_named(tmp_path):
    records = [judged("a", 0.80, call_s=0.0100), judged("b", 0.85, call_s=0.01001), judged("c", 0.86, call_s=0.02)]
    title = figures_of(tmp_path, records)["quality-latency"].title
    assert title.startswith("b is as fast as any other, 10.0 ms")


def test_the_largest_size_and_the_smallest_batch_that_were_judged_are_shown(tmp_path):
    records = stored.matrix(sizes=(128, 224), batches=(2, 8), recipes=("original", "int8"))
    for record in records:
        if (record["size"], record["batch"]) == (224, 2):
            record.pop("quality_top1")
    note = plain(figures_of(tmp_path, records)["quality-latency"].note)
    assert note.startswith("At 224 px, batch 8: each recipe")


def test_variants_of_one_recipe_are_points_where_there_are_more_than_two(tmp_path):
    found = figures_of(tmp_path, stored.matrix(sizes=(224,), batches=(1,)))
    assert "quality-size" not in found
    assert len(found["quality-latency"].spec["datasets"]["rows"]) == 8
    assert "1 of 8 variants is on the front" in found["quality-latency"].title
    two = stored.matrix(sizes=(224,), batches=(1,), backends=("eager", "openvino"), precisions=("fp32",))
    assert list(figures_of(tmp_path, two)) == ["peak"]


def test_without_qualities_there_is_no_front(tmp_path):
    records = stored.matrix(recipes=("original", "int8"))
    for record in records:
        del record["quality_top1"]
    assert list(figures_of(tmp_path, records)) == ["peak"]


def test_one_case_and_cycles_have_no_figure(tmp_path):
    assert figures_of(tmp_path, [stored.record()]) == {}
    assert figures_of(tmp_path, stored.matrix(recipes=("original", "int8"), clock="cycles")) == {}


# Scales


def test_qualities_close_to_100_are_shown_by_what_they_miss(tmp_path):
    records = [
        judged("a", 0.998, 0.99, 1.0, call_s=0.01),
        judged("b", 1.0, 0.995, 1.0, call_s=0.02),
        judged("c", 0.95, call_s=0.03),
    ]
    figure = figures_of(tmp_path, records)["quality-latency"]
    rows = {row["name"]: row for row in figure.spec["datasets"]["rows"]}
    assert rows["a"]["height"] == pytest.approx(0.2)
    assert rows["b"]["height"] == rows["a"]["height_low"] == pytest.approx(0.2 / 3, rel=1e-4)  # a logarithm has no 0
    assert rows["a"]["height_high"] == pytest.approx(1.0)
    assert rows["c"]["height_low"] == rows["c"]["height_high"] == pytest.approx(5.0)
    scale = figure.spec["layer"][2]["encoding"]["y"]["scale"]
    assert (scale["type"], scale["reverse"]) == ("log", True)
    assert scale["domain"][0] < 0.2 / 3
    assert "has no 0" in plain(figure.note)


def test_all_perfect_qualities_can_be_drawn(tmp_path):
    figure = figures_of(tmp_path, [judged("a", 1.0, call_s=0.01), judged("b", 1.0, call_s=0.02)])["quality-latency"]
    scale = figure.spec["layer"][2]["encoding"]["y"]["scale"]
    assert scale["type"] == "linear"
    assert scale["domain"][0] < 0 < scale["domain"][1]


def test_a_loss_is_better_the_lower_it_is(tmp_path):
    records = [
        judged("fast", 3.0, call_s=0.01, quality_higher_is_better=False),
        judged("good", 1.5, call_s=0.02, quality_higher_is_better=False),
        judged("bad", 9.0, call_s=0.03, quality_higher_is_better=False),
    ]
    figure = figures_of(tmp_path, records)["quality-latency"]
    assert [row["name"] for row in figure.spec["datasets"]["front"]] == ["fast", "good"]
    y = figure.spec["layer"][2]["encoding"]["y"]
    assert y["scale"]["reverse"] is True
    assert "%" not in y["axis"]["title"]
    assert figure.title.startswith("fast is fastest, 10.0 ms (10.0x PyTorch eager), with top1 3.000;")


# Names beside points


@given(
    st.lists(st.tuples(st.floats(0, 560), st.floats(0, 300)), min_size=1, max_size=20),
    st.lists(st.text(min_size=1, max_size=34), min_size=20, max_size=20),
)
def test_names_lie_within_the_picture_and_on_nothing(points, words):
    names = {index: words[index] for index in range(len(points))}
    found = labels(points, names, 560, 300)
    boxes = []
    for index, place in found.items():
        x, y = points[index][0] + place["dx"], points[index][1] + place["dy"]
        length = 6.6 * len(words[index])
        left = x if place["align"] == "left" else x - length
        boxes.append((left, y - 7, left + length, y + 7))
    for at, (left, top, right, bottom) in enumerate(boxes):
        assert left >= 0
        assert right <= 560
        assert top >= 0
        assert bottom <= 300
        assert not any(left < x + 5 and x - 5 < right and top < y + 5 and y - 5 < bottom for x, y in points)
        for other in boxes[:at]:
            assert not (left < other[2] and other[0] < right and top < other[3] and other[1] < bottom)


def test_a_name_keeps_clear_of_a_line_where_it_can():
    above = labels([(100.0, 100.0)], {0: "name"}, 560, 300)
    below = labels([(100.0, 100.0)], {0: "name"}, 560, 300, [(100.0, 92.0, 300.0, 92.0)])
    assert above[0]["dy"] < 0
    assert below[0]["dy"] > 0


@given(st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=5), st.booleans(), st.booleans())
def test_every_value_of_an_axis_is_within_it(values, logarithmic, flipped):
    found = axis(values, 300, logarithmic=logarithmic, flipped=flipped)
    low, high = found.scale["domain"]
    assert low < min(values) <= max(values) < high
    pixels = [found.pixel(value) for value in sorted(values)]
    assert all(0 < pixel < 300 for pixel in pixels)
    assert pixels == sorted(pixels, reverse=flipped)


def test_the_ends_of_the_front_and_the_original_are_named(tmp_path):
    records = [judged(f"recipe{at}", 0.5 + 0.01 * at, call_s=0.001 * 1.3**at) for at in range(20)]
    records.append(judged("original", 0.55, backend="eager", call_s=0.1))
    named = figures_of(tmp_path, records)["quality-latency"].spec["datasets"]["names"]
    names = [row["name"] for row in named]
    assert {"recipe0", "recipe19", "original"} <= set(names)
    assert len(names) <= 8


# Shares of a peak


def test_each_variant_stands_where_it_comes_nearest_to_the_peak(tmp_path):
    records = stored.matrix(sizes=(224,), batches=(1, 8), backends=("eager", "openvino"), precisions=("fp32",))
    for record, share in zip(records, (0.1, 0.5, 0.3, 0.2), strict=True):  # eager, openvino of batch 1; then of 8
        record |= {"share_of_peak": share, "share_of_theoretical_peak": 2 * share}
    figure = figures_of(tmp_path, records)["peak"]
    rows = figure.spec["datasets"]["rows"]
    found = {(row["variant"], row["peak"]): (row["batch"], row["percent"]) for row in rows}
    assert found == {
        ("openvino", "of the measured peak"): (1, 50.0),
        ("openvino", "of the theoretical peak"): (1, 100.0),
        ("eager", "of the measured peak"): (8, 30.0),
        ("eager", "of the theoretical peak"): (8, 60.0),
    }
    assert figure.title == (
        "No variant keeps the machine busy: openvino reaches 50 % of the measured peak of 500 GFLOP/s fp32 (224 px, "
        "batch 1)"
    )
    numbers = [span for span in figure.note if isinstance(span, Number)]
    assert [(number.text, number.record) for number in numbers] == [("500 GFLOP/s", 1), ("330 GFLOP/s", 1)]


def test_95_per_cent_are_busy(tmp_path):
    records = stored.matrix(sizes=(224,), batches=(1,), backends=("eager", "openvino"), precisions=("fp32",))
    for record, share in zip(records, (0.949, 0.951), strict=True):
        record["share_of_peak"] = share
    title = figures_of(tmp_path, records)["peak"].title
    assert title.startswith("One variant keeps the machine busy: openvino reaches 95 %")


def test_a_peak_that_is_not_known_is_left_out(tmp_path):
    records = stored.matrix(sizes=(224,), batches=(1,))
    for record in records:
        del record["share_of_theoretical_peak"], record["peak_theoretical_gflops"], record["peak_theoretical_how"]
    figure = figures_of(tmp_path, records)["peak"]
    assert {row["peak"] for row in figure.spec["datasets"]["rows"]} == {"of the measured peak"}
    assert "The theoretical one is not known" in plain(figure.note)
    for record in records:
        del record["share_of_peak"]
    assert "peak" not in figures_of(tmp_path, records)


def test_of_many_variants_the_nearest_to_the_peak_are_drawn(tmp_path):
    records = stored.matrix(sizes=(224,), batches=(1,), recipes=("original", "a", "b", "c"))
    figure = figures_of(tmp_path, records)["peak"]
    assert len({row["variant"] for row in figure.spec["datasets"]["rows"]}) == 20
    assert "the first 20 of 32 variants" in plain(figure.note)


# Bad input


@pytest.mark.parametrize("name", ['<script>alert("1")</script>', "two\nlines", "{{7*7}}${x}", "n" * 500, " "])
def test_hostile_names_are_data_and_the_specs_compile(tmp_path, name):
    records = [
        judged("original", 0.86, 0.85, 0.87, call_s=0.02),
        judged(name, 0.85, 0.84, 0.86, call_s=0.01, quality_drop_low=-math.inf),
        judged("c", 0.80, call_s=0.03, peak_theoretical_how=name, peak_precision=name),
    ]
    found = figures_of(tmp_path, records)
    assert list(found) == ["quality-latency", "quality-size", "peak"]
    for figure in found.values():
        assert len(figure.title) < 400
        assert "\n" not in figure.title + figure.alt
        compiled = vl_convert.vegalite_to_vega(json.loads(json.dumps(figure.spec, allow_nan=False)))
        assert set(figure.spec["datasets"]) <= {data["name"] for data in compiled["data"]}


def test_names_are_unique_in_a_report(tmp_path):
    records = [
        *stored.matrix(recipes=("original", "int8")),
        *stored.matrix(workload="other", recipes=("original", "q")),
    ]
    groups: tuple[Group, ...] = stored.material(tmp_path, stored.run(records)).groups
    names = [figure.name for group in groups for figure in tradeoffs(group)]
    assert len(names) == len(set(names)) == 6
