"""Figures against the size and the batch: which there are, what stands in them, what their titles claim."""

import itertools
import json

import numpy as np
import pytest
import vl_convert
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench_tests.harness.report.document import plain
from bench_tests.harness.report.figures.charts import (
    DASHES,
    PALETTE,
    SHAPES,
    legend,
    looks,
    row_of,
    scale_of,
)
from bench_tests.harness.report.figures.curves import curves
from bench_tests.harness.report.figures.sweeps import MOST_CHOICES, MOST_LINES
from bench_tests.harness.report.load import read
from bench_tests.harness.report.material import Variant
from bench_tests.harness.report.wording import cut
from bench_tests.unit import stored

HOSTILE = '<img src=x onerror="alert(1)">\n{{7*7}} \\" ' + "n" * 500


def group_of(tmp_path, records):
    (group,) = stored.material(tmp_path, stored.run(records)).groups
    return group


def kinds(figures, group):
    return [figure.name.removesuffix(f"-{group.slug}") for figure in figures]


def rows_of(figure):
    return figure.spec["datasets"]["rows"]


# Figures


ALL = ["fps-size", "speedup-size", "fps-batch", "speedup-batch"]


@pytest.mark.parametrize(
    ("sizes", "batches", "found"),
    [
        ((128, 224), (1, 8), ALL),
        ((64, 128, 192, 224), (1,), ALL[:2]),
        ((224,), (1, 2, 4, 8, 16), ALL[2:]),
        ((224,), (1,), []),
    ],
)
def test_there_is_a_figure_for_each_dimension_that_has_two_values(tmp_path, sizes, batches, found):
    group = group_of(tmp_path, stored.matrix(sizes=sizes, batches=batches))
    assert kinds(curves(group), group) == found


def test_one_case_alone_and_cycles_have_none(tmp_path):
    assert curves(group_of(tmp_path, [stored.record()])) == []
    assert curves(group_of(tmp_path, stored.matrix(clock="cycles"))) == []


def test_eager_alone_has_no_speed_up(tmp_path):
    group = group_of(tmp_path, stored.matrix(backends=("eager",), precisions=("fp32",)))
    assert kinds(curves(group), group) == ["fps-size", "fps-batch"]


def test_a_unit_that_is_no_pixel_has_no_frames(tmp_path):
    group = group_of(tmp_path, stored.matrix(sizes=(10, 1000), batches=(1,), unit="ms"))
    figures = curves(group)
    assert kinds(figures, group) == ["rate-size", "speedup-size"]
    assert "examples/s at 1000 ms" in figures[0].title
    assert "FPS" not in json.dumps(figures[0].spec)


def test_rows_are_the_records_and_open_them(tmp_path):
    records = stored.matrix(sizes=(128, 224), batches=(1, 8))
    group = group_of(tmp_path, records)
    for figure in curves(group):
        rows = rows_of(figure)
        assert len(rows) == len(records)
        for row in rows:
            record = records[row["record"]]
            for name in ("recipe", "backend", "precision", "size", "batch", "case"):
                assert row[name] == record[name]
            assert row["fps"] == pytest.approx(record["fps"], rel=1e-5)
            assert row["fps_low"] == pytest.approx(record["batch"] / (record["trimmed_mean_s"] * 1.03), rel=1e-5)
            assert row["fps_low"] < row["fps"] < row["fps_high"]
            assert row["ms"] == pytest.approx(record["ms_per_image"], rel=1e-5)
            assert row["speedup_low"] == pytest.approx(record["speedup_low"], rel=1e-5)


def test_the_page_can_choose_the_other_dimension_and_the_picture_shows_its_usual_value(tmp_path):
    figures = curves(group_of(tmp_path, stored.matrix(sizes=(128, 160, 224), batches=(2, 4, 8))))
    for figure, options, shown in zip(figures, [[2, 4, 8]] * 2 + [[128, 160, 224]] * 2, [2, 2, 224, 224], strict=True):
        (param,) = figure.spec["params"]
        assert (param["value"], param["bind"]["options"]) == (shown, options)
        assert "In the page, 3" in plain(figure.note)
    assert "batch 2" in plain(figures[0].note)
    assert "224 px" in plain(figures[2].note)


def test_a_value_with_one_case_of_each_variant_cannot_be_chosen(tmp_path):
    records = [*stored.matrix(sizes=(128, 224), batches=(8,)), *stored.matrix(sizes=(224,), batches=(1,))]
    by_size, _, by_batch, _ = curves(group_of(tmp_path, records))
    assert by_size.spec["params"] == []
    assert {row["batch"] for row in rows_of(by_size)} == {8}
    assert {row["size"] for row in rows_of(by_batch)} == {224}


def test_many_values_are_thinned_and_keep_both_ends(tmp_path):
    group = group_of(tmp_path, stored.matrix(batches=range(1, 41), backends=("eager", "openvino")))
    (param,) = curves(group)[0].spec["params"]
    options = param["bind"]["options"]
    assert (options[0], options[-1], len(set(options))) == (1, 40, MOST_CHOICES)


# Saturation


def test_every_variant_and_size_is_marked_where_it_saturates(tmp_path):
    group = group_of(tmp_path, stored.matrix(sizes=(128, 224), batches=(1, 2, 4, 8, 16, 32)))
    figure = next(figure for figure in curves(group) if figure.name.startswith("fps-batch"))
    lines: dict = {}
    for row in rows_of(figure):
        lines.setdefault((row["variant"], row["size"]), []).append(row)
    assert len(lines) == 16
    for line in lines.values():
        best = max(row["fps"] for row in line)
        first = min(row["batch"] for row in line if row["fps"] >= 0.95 * best)
        assert [row["batch"] for row in line if "mark" in row] == [first]
        assert first == 8


@pytest.mark.parametrize(
    ("batches", "said"),
    [
        ((1, 2, 4, 8, 16), "openvino is best, and saturates, at batch 8 at 224 px: 238 FPS"),
        ((1, 4), "openvino still gains at batch 4, its largest, at 224 px: 223 FPS"),
    ],
)
def test_the_title_says_where_the_fastest_saturates(tmp_path, batches, said):
    group = group_of(tmp_path, stored.matrix(batches=batches, backends=("eager", "openvino"), precisions=("fp32",)))
    assert curves(group)[2].title == said


def test_a_spread_that_hides_the_saturation_is_said(tmp_path):
    records = [stored.record(batch=batch, backend="openvino") for batch in (1, 8)]
    records = [record | {"stddev_s": record["trimmed_mean_s"], "minimum_s": 1e-9} for record in records]
    assert "spread too far to tell it from batch 1" in curves(group_of(tmp_path, records))[0].title


# Titles


def test_the_fastest_is_named_with_its_numbers(tmp_path):
    by_size, speedup, *_ = curves(group_of(tmp_path, stored.matrix(sizes=(64, 128, 224), precisions=("fp32",))))
    assert by_size.title == "openvino is fastest at every size: 160 FPS at 224 px, 1.60x PyTorch eager (batch 1)"
    assert "At 224 px: openvino 160, onnxruntime 150, inductor 130, eager 100." in by_size.alt
    assert speedup.title.startswith("The size makes no certain difference to the speed-up of openvino over PyTorch")


def test_doubt_about_the_fastest_is_said(tmp_path):
    records = stored.matrix(backends=("onnxruntime", "openvino"), precisions=("fp32",))
    records = [record | {"speedup_low": 1.0, "speedup_high": 2.0} for record in records]
    assert curves(group_of(tmp_path, records))[0].title.endswith("onnxruntime cannot be told apart from it there")


def test_a_leader_of_some_sizes_only_is_said(tmp_path):
    records = stored.matrix(sizes=(64, 128, 224), batches=(1,), backends=("eager", "openvino"), precisions=("fp32",))
    for record in records:
        if record["size"] == 64 and record["backend"] == "openvino":
            record |= {"speedup": 0.5, "speedup_low": 0.49, "speedup_high": 0.51}
    by_size, speedup = curves(group_of(tmp_path, records))
    assert "openvino is fastest at 2 of 3 sizes" in by_size.title
    assert by_size.title.endswith("; eager at 64 px")
    assert speedup.title == (
        "openvino gains more over PyTorch at 224 px than at 64 px: 1.60x [1.57, 1.63] and 0.500x [0.490, 0.510], "
        "batch 1"
    )


def test_a_size_at_which_most_failed_does_not_name_the_fastest(tmp_path):
    records = [
        record
        for record in stored.matrix(sizes=(64, 128, 224), batches=(1,), precisions=("fp32",))
        if record["size"] < 224 or record["backend"] in ("eager", "inductor")
    ]
    by_size, speedup = curves(group_of(tmp_path, records))
    assert by_size.title.startswith("openvino is fastest at 2 of 3 sizes: 490 FPS at 128 px")
    assert by_size.title.endswith("; inductor at 224 px")
    assert "of openvino over PyTorch: 1.60x [1.57, 1.63] at 64 px and 1.60x [1.57, 1.63] at 128 px" in speedup.title


def test_nothing_faster_than_eager_is_said(tmp_path):
    records = stored.matrix(batches=(1,), backends=("eager", "slow"), precisions=("fp32",))
    records = [
        record | ({"speedup": 0.8, "speedup_low": 0.7, "speedup_high": 0.9} if record["backend"] == "slow" else {})
        for record in records
    ]
    by_size, speedup = curves(group_of(tmp_path, records))
    assert speedup.title.startswith("Nothing is faster than PyTorch eager at 224 px, batch 1: slow")
    assert "x PyTorch" not in by_size.title


def test_of_many_variants_the_fastest_and_eager_are_drawn_and_the_note_says_so(tmp_path):
    group = group_of(tmp_path, stored.matrix(recipes=("original", "int8", "pruned")))
    assert len(group.variants) == 24
    for figure in curves(group):
        drawn = {row["variant"] for row in rows_of(figure)}
        assert len(drawn) == MOST_LINES
        assert {"eager", "int8 on openvino bf16", "pruned on openvino bf16"} <= drawn
        assert "Of 24 variants the picture has 8" in plain(figure.note)


# Any matrix


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(st.tuples(st.sampled_from([64, 128, 224]), st.sampled_from([1, 3, 8]), st.integers(0, 11)), min_size=1))
def test_of_any_sparse_matrix_whole_lines_are_drawn(tmp_path, chosen):
    ways = list(itertools.product(("original", "int8"), ("eager", "openvino", "x"), ("fp32", "bf16")))
    records = [
        stored.record(recipe=ways[way][0], backend=ways[way][1], precision=ways[way][2], size=size, batch=batch)
        for size, batch, way in sorted(chosen)
    ]
    group = group_of(tmp_path, records)
    for figure in curves(group):
        along, across = ("size", "batch") if "-size-" in figure.name else ("batch", "size")
        lines: dict = {}
        for row in rows_of(figure):
            lines.setdefault((row["variant"], row[across]), set()).add(row[along])
        assert all(len(stops) > 1 for stops in lines.values())
        bound = [param["value"] for param in figure.spec["params"]] or [next(iter(lines))[1]]
        assert any(value == bound[0] for _, value in lines)
        assert all(text and text == " ".join(text.split()) for text in (figure.title, figure.alt))


def test_hostile_names_are_data_and_the_spec_compiles(tmp_path):
    records = stored.matrix(sizes=(128, 224), batches=(1, 8), backends=("eager", HOSTILE), precisions=("fp32",))
    figures = curves(group_of(tmp_path, records))
    assert len(figures) == 4
    for figure in figures:
        assert len(figure.title) < 400
        compiled = vl_convert.vegalite_to_vega(json.loads(json.dumps(figure.spec, allow_nan=False)))
        assert {"rows", "chosen_store"} <= {data["name"] for data in compiled["data"]}
        assert any(signal["name"] == "shown_value" for signal in compiled["signals"])
        assert [entry["stroke"] for entry in compiled["legends"] if "stroke" in entry] == ["color"]


# What figures share


def luminance(colour: str) -> np.ndarray:
    channels = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def lab(linear: np.ndarray) -> np.ndarray:
    to_xyz = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]
    )
    x, y, z = np.cbrt(to_xyz @ linear.clip(0, 1) / np.array([0.95047, 1.0, 1.08883]))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


# Machado, Oliveira & Fernandes (2009), severity 1.
BLIND = {
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


@pytest.mark.parametrize("kind", BLIND)
def test_a_colour_blind_reader_can_tell_the_palette_apart(kind):
    seen = [lab(np.array(BLIND[kind]) @ luminance(colour)) for colour in PALETTE]
    assert min(float(np.linalg.norm(one - other)) for one, other in itertools.combinations(seen, 2)) > 15


def test_variants_differ_in_shape_or_dash_without_any_colour():
    variants = [Variant(f"r{at}", "eager", "fp32") for at in range(len(PALETTE) * len(DASHES))]
    found = looks(variants)
    assert len({(tuple(dash), shape) for dash, shape in zip(found.dashes, found.shapes, strict=True)}) == len(variants)


def test_a_backend_keeps_its_colour_and_precisions_share_it():
    few = looks([Variant("original", "eager", "fp32"), Variant("original", "openvino", "bf16")])
    many = looks([Variant("original", name, kind) for name in stored.BACKENDS for kind in ("fp32", "bf16")])
    colours = dict(zip(many.labels, many.colours, strict=True))
    assert few.colours == (colours["eager"], colours["openvino bf16"])
    assert colours["eager"] == colours["eager bf16"]
    assert len(set(colours.values())) == len(stored.BACKENDS)


@given(st.lists(st.tuples(st.text(max_size=4), st.text(max_size=4), st.sampled_from(["fp32", "bf16"])), min_size=1))
def test_any_variants_have_a_look(names):
    found = looks([Variant(*name) for name in names])
    assert len(found.labels) == len(set(found.labels)) == len(found.colours) == len(found.dashes) == len(found.shapes)
    assert set(found.colours) <= set(PALETTE)
    assert set(found.shapes) <= set(SHAPES)


@pytest.mark.parametrize(
    ("values", "kind"), [([1, 10], "linear"), ([1, 11], "log"), ([0, 5, 500], "linear"), ([], "linear")]
)
def test_more_than_a_decade_is_logarithmic(values, kind):
    assert scale_of(values)["type"] == kind


@given(st.text(), st.integers(3, 80))
def test_names_that_are_cut_are_one_short_line(text, length):
    found = cut(text, length)
    assert len(found) <= length
    assert "\n" not in found


def test_a_legend_fits_beside_its_plot():
    assert legend(["eager", "openvino"])["columns"] == 4
    assert legend([HOSTILE])["columns"] == 1


def test_a_row_of_a_record_without_spread_has_no_band(tmp_path):
    record = {name: value for name, value in stored.record().items() if name not in ("stddev_s", "minimum_s")}
    (entry,) = read([stored.write(tmp_path / "run.json", stored.run([record]))]).entries
    row = row_of(entry)
    assert row["fps_low"] == row["fps"] == row["fps_high"]
