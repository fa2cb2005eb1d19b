import json
from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench_tests.harness.bottlenecks import Row, bound, terms_s
from bench_tests.harness.layer_times import Layer
from bench_tests.harness.report.figures.layers import TOP, layer_figures
from bench_tests.harness.report.load import read
from bench_tests.harness.roofline import Ceiling
from bench_tests.unit.specs import compiled

CEILING = Ceiling("fp32", 1, 200.0, 40.0, None, "not known")
HOSTILE = '<img src=x onerror="alert(1)">\n' + "'\"" + "n" * 500


def layer(name, time_s, flop=0, moved=0, family="3x3 convolutions", kind="Conv2d 3x3 64->64"):
    return Layer(name, kind, family, 1, 1, time_s, flop, moved, 10)


def rows_of(layers):
    """As `bench_tests.profile` judges them."""
    total_s = sum(one.time_s for one in layers)
    return [
        Row(one, one.time_s / total_s if total_s else 0.0, max(terms_s(one.flop, one.bytes_moved, CEILING)),
            bound(one, CEILING), "INT8").record()
        for one in layers
    ]  # fmt: skip


def profile(tmp_path, rows, **more):
    content = {
        "workload": "resnet18", "data": "imagenette", "size": 224, "batch": 1, "threads": 1, "device": "cpu",
        "fingerprint": "amd-1c", "total_s": sum(row["time_s"] for row in rows), "rows": rows,
        "ceiling": {"precision": "fp32", "threads": 1, "peak_gflops": 200.0, "copy_gb_per_s": 40.0},
    } | more  # fmt: skip
    file = tmp_path / "profile.json"
    file.write_text(json.dumps(content))
    return read([file]).profiles[0]


CONVOLUTION = layer("conv", 8e-3, flop=10**9, moved=10**7)  # its roof is 5 ms of arithmetic
POOLING = layer("pool", 2e-3, flop=0, moved=4 * 10**7, family="pooling", kind="MaxPool2d")  # 1 ms of memory


def test_the_title_says_what_bounds_most_of_the_time(tmp_path, capfd):
    times, _ = layer_figures(profile(tmp_path, rows_of([POOLING, CONVOLUTION])))
    assert times.title == (
        "Compute-bound layers take 80 % of the 10.0 ms of resnet18 at size 224, batch 1, most of it in 3x3 convolutions"
    )
    assert "20 % is memory-bound" in times.alt
    assert "The longest is conv (Conv2d 3x3 64->64) with 8.00 ms, 80 % of all." in times.alt
    assert [row["name"] for row in times.spec["datasets"]["rows"]] == ["conv", "pool"]
    compiled(times, capfd)
    compiled(times, capfd, rows=[])


def test_a_layer_stands_where_its_flop_and_bytes_put_it(tmp_path, capfd):
    _, roof = layer_figures(profile(tmp_path, rows_of([CONVOLUTION, POOLING])))
    (row,) = roof.spec["datasets"]["rows"]  # a layer without FLOP has no place on a logarithmic axis
    assert (row["flop_per_byte"], row["gflops"], row["of_roof"]) == pytest.approx((100.0, 125.0, 0.625))
    assert (
        "reach 62 % of what the roofline allows; conv is farthest behind, 3.00 ms slower than at its roof" in roof.title
    )
    assert "1 of 2 rows of the profile have no matrix product or convolution in them" in roof.note[0]
    assert "they take 20 % of the time" in roof.note[0]
    compiled(roof, capfd)
    compiled(roof, capfd, rows=[])


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.floats(1e-7, 1.0), st.integers(0, 10**10), st.integers(0, 10**9)), min_size=1, max_size=40)
)
def test_the_roof_is_never_below_what_the_harness_judges(tmp_path_factory, measured):
    """The point's share of its roof is `Row.of_roofline`, which is computed apart from it; the shares add up to 1."""
    layers = [layer(f"layer{at}", *figures) for at, figures in enumerate(measured)]
    rows = rows_of(layers)
    figures = layer_figures(profile(tmp_path_factory.mktemp("profile"), rows))
    judged_rows = {row["name"]: row for row in rows}
    parts = figures[0].spec["datasets"].get("parts", [])
    bars = figures[0].spec["datasets"]["rows"]
    assert len(bars) == min(len(layers), TOP)
    assert sum(part["share"] for part in parts or bars) == pytest.approx(1)
    for point in chain.from_iterable(figure.spec["datasets"]["rows"] for figure in figures[1:]):
        expected = judged_rows[point["name"]]
        assert point["of_roof"] == pytest.approx(expected["of_roofline"])
        assert point["gflops"] == pytest.approx(expected["gflops"])
        assert point["flop_per_byte"] == pytest.approx(expected["flop_per_byte"])


def test_the_other_layers_share_one_bar(tmp_path, capfd):
    layers = [layer(f"layer{at}", 1e-3 * (at + 1), flop=10**8, moved=10**6) for at in range(TOP + 5)]
    times, _ = layer_figures(profile(tmp_path, rows_of(layers)))
    parts = times.spec["datasets"]["parts"]
    assert {part["part"] for part in parts} == {"the 15 longest", "the other 5"}
    others = sum(part["share"] for part in parts if part["part"] == "the other 5")
    assert others == pytest.approx((1 + 2 + 3 + 4 + 5) / (20 * 21 / 2))
    assert "5 more layers without a bar: 7.1 % of the time." in times.alt
    compiled(times, capfd)


def test_a_layer_above_the_slope_is_explained(tmp_path):
    cached = layer("cached", 1e-4, flop=10**6, moved=10**7)  # 100 GB/s, where a copy reaches 40
    _, roof = layer_figures(profile(tmp_path, rows_of([cached])))
    assert "finds in a cache" in roof.note[0]
    assert "farthest behind" not in roof.title


def test_a_model_of_one_layer_is_the_whole_model(tmp_path, capfd):
    times, roof = layer_figures(profile(tmp_path, rows_of([layer("", 1e-4, flop=10**6, moved=10**5)])))
    assert "The longest is the whole model" in times.alt
    compiled(times, capfd)
    compiled(roof, capfd)


def test_without_figures_there_is_no_picture(tmp_path):
    empty = rows_of([layer("none", 0.0)])
    assert layer_figures(profile(tmp_path, [])) == []
    assert layer_figures(profile(tmp_path, empty)) == []
    no_flop = rows_of([POOLING])
    assert len(layer_figures(profile(tmp_path, no_flop))) == 1
    no_ceiling = {"precision": "fp32", "threads": 1, "peak_gflops": 0.0, "copy_gb_per_s": 40.0}
    assert len(layer_figures(profile(tmp_path, rows_of([CONVOLUTION]), ceiling=no_ceiling))) == 1


def test_hostile_names_are_data_and_cut_in_titles(tmp_path, capfd):
    rows = rows_of([layer(HOSTILE, 1e-3, flop=10**8, moved=10**6, family=HOSTILE, kind=HOSTILE)])
    figures = layer_figures(profile(tmp_path, [{**row, "bound": HOSTILE} for row in rows], workload=HOSTILE))
    assert len(figures) == 2
    for figure in figures:
        assert len(figure.title) < 400
        assert "\n" not in figure.title
        assert len(figure.name) < 100
        assert all(letter.isalnum() or letter in "-_" for letter in figure.name)
        compiled(figure, capfd)


def test_names_tell_profiles_apart(tmp_path):
    rows = rows_of([CONVOLUTION])
    names = [
        figure.name
        for more in ({}, {"batch": 8}, {"size": 128}, {"fingerprint": "amd-2c"}, {"data": "other"})
        for figure in layer_figures(profile(tmp_path, rows, **more))
    ]
    assert len(set(names)) == len(names) == 10
