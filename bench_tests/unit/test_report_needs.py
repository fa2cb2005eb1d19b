"""Needs as they are written, and the recommendation for them, against records read by hand."""

from __future__ import annotations

import contextlib
import operator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench_tests.harness.report.answers.choice import choose, closest
from bench_tests.harness.report.answers.needs import parse_need, recommend
from bench_tests.harness.report.document import Listing, Number, Paragraph, plain
from bench_tests.harness.report.material import Entry, Group, Material, StoredRun
from bench_tests.unit import stored
from models.errors import SpeedproofError

RUN = StoredRun(
    Path("run.json"), "2026-11-20T10:00:00", "0123456789ab", stored.FINGERPRINT, {}, {}, "", {},
    {"resnet18": {"tolerated_drop": 0.01}}, {}, (),
)  # fmt: skip
COMPARE = {"<=": operator.le, "<": operator.lt, ">=": operator.ge, ">": operator.gt}


def group_of(*records: dict) -> Group:
    entries = tuple(Entry(number, record, RUN, 1) for number, record in enumerate(records))
    (group,) = Material(entries, (RUN,)).groups
    return group


def said(blocks) -> str:
    return " ".join(plain(block.sentence) for block in blocks if isinstance(block, Paragraph))


@pytest.mark.parametrize(
    ("text", "name", "sign", "bound"),
    [
        ("latency<=10ms", "latency", "<=", 0.010),
        (" latency  <  250 us ", "latency", "<", 250e-6),
        ("latency<=2S", "latency", "<=", 2.0),
        ("fps>=30", "throughput", ">=", 30.0),
        ("throughput > 1e3/s", "throughput", ">", 1000.0),
        ("drop<=-0.5", "drop", "<=", -0.5),
        ("drop<=0.5 points", "drop", "<=", 0.5),
        ("quality>=85%", "quality", ">=", 0.85),
        ("quality>=0.85", "quality", ">=", 0.85),
        ("quality<=4", "quality", "<=", 4.0),
        ("disk<=2 MB", "disk", "<=", 2e6),
        ("memory<1GiB", "memory", "<", 2**30),
        ("speedup>=3x", "speedup", ">=", 3.0),
        ("flash<=32KiB", "flash", "<=", 32768),
        ("sram<=2048", "sram", "<=", 2048),
        ("cycles<=40000", "cycles", "<=", 40000),
        ("batch=1", "batch", "=", 1),
        ("input==224px", "input", "=", 224),
    ],
)
def test_a_need_is_read_in_its_base_unit(text, name, sign, bound):
    need = parse_need(text)
    assert (need.name, need.operator) == (name, sign)
    assert need.bound == pytest.approx(bound, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "expected a quantity"),
        ("latency", "expected a quantity"),
        ("latency<=ten ms", "expected a quantity"),
        ("latency<=nan ms", "expected a quantity"),
        ("speed<=10ms", "unknown quantity speed"),
        ("size<=10MB", "say disk, the bytes of its file, or input"),
        ("latency<=10", "it has no unit; those of latency are us, ms, s"),
        ("latency<=10 furlongs", "unknown unit furlongs"),
        ("latency<=-1ms", "-1 is below 0"),
        ("latency<=1e999ms", "no finite number"),
        ("latency=10ms", "= goes with batch and input"),
        ("quality>=85", "say quality>=85%"),
        ("latency<=10ms<script>", "unknown unit"),
        ("cycles<=5 ms", "a bare number"),
    ],
)
def test_what_cannot_be_read_is_told_with_what_is_known(text, told):
    with pytest.raises(SpeedproofError) as failure:
        parse_need(text)
    assert told in str(failure.value)
    assert "\n" not in str(failure.value)
    assert 'for example --need "latency<=10ms"' in str(failure.value) or "85%" in str(failure.value)


@given(st.text(max_size=40))
def test_any_text_is_a_need_or_a_sentence(text):
    with contextlib.suppress(SpeedproofError):
        assert parse_need(text).quantity


@given(
    st.sampled_from([("latency", "us", 1e-6), ("latency", "ms", 1e-3), ("disk", "kB", 1e3), ("memory", "MiB", 2**20)]),
    st.sampled_from(sorted(COMPARE)),
    st.floats(1e-3, 1e6).map(lambda value: f"{value:.6g}"),
    st.text(" ", max_size=3),
)
def test_number_and_unit_make_the_bound(quantity, sign, number, gap):
    name, unit, factor = quantity
    need = parse_need(gap.join(("", name, sign, number, unit, "")))
    assert need.bound == pytest.approx(float(number) * factor, rel=1e-9)


# What a need is about, as the record's keys say it: on average, and at the unfavourable end of the interval.
READ = {
    "latency<={}us": (lambda r: 1e6 * r["trimmed_mean_s"], lambda r: 1e6 * r["p95_s"], "<="),
    "fps>={}": (lambda r: r["fps"], lambda r: r["batch"] / (r["trimmed_mean_s"] + r["stddev_s"]), ">="),
    "drop<={}": (lambda r: 100 * r["quality_drop"], lambda r: 100 * r["quality_drop_high"], "<="),
    "speedup>{}": (lambda r: r["speedup"], lambda r: r["speedup_low"], ">"),
    "disk<{}kB": (lambda r: r["size_bytes"] / 1e3, lambda r: r["size_bytes"] / 1e3, "<"),
}
bounds = {
    "latency<={}us": st.integers(100, 60_000), "fps>={}": st.integers(10, 3000), "drop<={}": st.floats(-1, 2),
    "speedup>{}": st.integers(1, 9), "disk<{}kB": st.integers(5_000, 60_000),
}  # fmt: skip
needs_lists = st.lists(
    st.sampled_from(sorted(READ)).flatmap(lambda form: bounds[form].map(lambda bound: (form, round(bound, 3)))),
    min_size=1, max_size=3, unique_by=lambda need: need[0],
)  # fmt: skip
rows = st.builds(
    stored.record,
    recipe=st.sampled_from(["original", "int8"]),
    backend=st.sampled_from(sorted(stored.BACKENDS)),
    precision=st.sampled_from(["fp32", "bf16"]),
    size=st.sampled_from([128, 224]),
    batch=st.sampled_from([1, 8]),
)


@settings(deadline=None, max_examples=150)
@given(st.lists(rows, min_size=1, max_size=12, unique_by=lambda row: row["case"]), needs_lists)
def test_what_is_recommended_meets_every_need_and_surely_where_any_does(records, wanted):
    needs = [parse_need(form.format(bound)) for form, bound in wanted]
    group = group_of(*records)

    def meets(record, end):
        return all(COMPARE[READ[form][2]](READ[form][end](record), bound) for form, bound in wanted)

    choice = choose(group, needs)
    assert (choice is None) == (not any(meets(record, 0) for record in records))
    text = said(recommend(group, needs))
    if choice is None:
        assert "None of the" in text
        return
    assert meets(choice.entry.record, 0)
    assert choice.sure == any(meets(record, 0) and meets(record, 1) for record in records)
    assert choice.sure == meets(choice.entry.record, 1)
    assert f"take {choice.entry.variant.label} at" in text
    assert ("not surely" in text) == (not choice.sure)
    assert len(choice.others) == sum(meets(record, 0) for record in records) - 1


def test_a_need_that_is_met_on_average_only_is_told_so_and_comes_second():
    quick = stored.record(backend="openvino", trimmed_mean_s=0.008, p95_s=0.012, speedup=5.0, fps=125.0)
    quick |= {"speedup_low": 4.9, "speedup_high": 5.1}
    steady = stored.record(backend="onnxruntime", trimmed_mean_s=0.009, p95_s=0.0095, speedup=4.0, fps=111.0)
    steady |= {"speedup_low": 3.9, "speedup_high": 4.1}
    need = parse_need("latency<=10ms")
    text = said(recommend(group_of(quick, steady), [need]))
    assert text.startswith("For latency<=10ms, take onnxruntime at 224 px and batch 1: 9.00 ms a call")
    assert "Next comes openvino" in text
    assert "2 of the 2 cases meet" in text
    alone = said(recommend(group_of(quick), [need]))
    assert "on average, not surely: its 95th percentile is 12.0 ms" in alone
    assert "No other of the 1 cases" in alone
    assert "The rule: of the cases that surely meet all needs" in text
    assert "The rule: of the cases that meet all needs" in alone


def test_the_largest_input_is_taken_unless_a_need_is_about_it():
    small = stored.record(backend="openvino", size=128)
    large = stored.record(backend="openvino", size=224)
    group = group_of(small, large)
    assert choose(group, [parse_need("latency<=50ms")]).entry.size == 224
    assert choose(group, [parse_need("latency<=50ms"), parse_need("quality>=80%")]).entry.size == 128
    assert choose(group, [parse_need("latency<=50ms"), parse_need("input<=200px")]).entry.size == 128


def test_with_a_throughput_among_the_needs_the_shortest_call_is_taken():
    group = group_of(*stored.matrix(sizes=(224,), backends=("openvino",), precisions=("fp32",)))
    assert choose(group, [parse_need("latency<=500ms")]).entry.batch == 8
    assert choose(group, [parse_need("fps>=100")]).entry.batch == 1


def test_where_none_meets_the_closest_case_is_told_with_what_it_lacks_and_what_to_try():
    fast = stored.record(backend="openvino", trimmed_mean_s=0.0125)
    slow = stored.record(backend="eager", trimmed_mean_s=0.030)
    needs = [parse_need("latency<=10ms"), parse_need("disk<=50MB")]
    group = group_of(slow, fast)
    assert closest(group, needs).variant.backend == "openvino"
    blocks = recommend(group, needs)
    text = said(blocks)
    assert "None of the 2 cases meets latency<=10ms and disk<=50MB." in text
    assert (
        "Closest is openvino at 224 px and batch 1: its latency of a call of 12.5 ms misses latency<=10ms by 2.50 ms"
        in text
    )
    assert "No case meets latency<=10ms even alone." in text
    (command,) = [block.text for block in blocks if isinstance(block, Listing)]
    assert command.startswith("pytest bench_tests/test_methods.py --workload resnet18 --data imagenette --size 224")
    assert "--recipe original,int8" in command
    (record,) = {span.record for span in blocks[0].sentence if isinstance(span, Number)}
    assert record == 1


def test_needs_that_no_case_meets_together():
    small = stored.record(backend="eager", recipe="int8")
    exact = stored.record(backend="openvino")
    text = said(recommend(group_of(small, exact), [parse_need("disk<=20MB"), parse_need("drop<=0")]))
    assert "Each is met by some case, all together by none." in text


@pytest.mark.parametrize("need", ["drop<=0.5", "quality>=80%"])
def test_without_a_judged_quality_the_command_that_supplies_it_is_told(need):
    record = {name: value for name, value in stored.record().items() if not name.startswith("quality")}
    blocks = recommend(group_of(record | {"quality": "not judged: no examples"}), [parse_need(need)])
    assert "no record of this group has" in said(blocks)
    assert [block.text for block in blocks if isinstance(block, Listing)] == [
        "pytest bench_tests --workload resnet18 --data imagenette --threads 2 --examples all --benchmark-json run.json"
    ]


def test_cases_without_a_needed_figure_are_left_out_and_counted():
    bare = stored.record(backend="openvino", speedup=9.0, speedup_low=8.9, speedup_high=9.1)
    del bare["cpu_peak_memory_bytes"]
    text = said(recommend(group_of(bare, stored.record()), [parse_need("memory<=1GiB")]))
    assert "take eager at" in text
    assert "1 of 2 cases have no peak of the CPU's memory and were left out." in text


def test_a_loss_is_held_against_its_need_in_its_own_unit():
    loss = {"quality": "loss", "quality_loss": 4.5, "quality_higher_is_better": False, "quality_drop": 0.25}
    text = said(recommend(group_of(stored.record(**loss)), [parse_need("quality<=4"), parse_need("drop<=0.1")]))
    assert "its quality of 4.5 misses quality<=4 by 0.5" in text
    assert "its drop of the quality of 0.25 misses drop<=0.1 by 0.15" in text
    below_one = said(recommend(group_of(stored.record(**loss | {"quality_loss": 0.5})), [parse_need("quality<=0.25")]))
    assert "its quality of 0.5 misses quality<=0.25 by 0.25" in below_one


def test_no_needs_no_recommendation():
    assert recommend(group_of(stored.record()), []) == ()
