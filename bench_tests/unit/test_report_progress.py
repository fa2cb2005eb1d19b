import json
import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench_tests.harness.fingerprint import differences
from bench_tests.harness.report.document import slug
from bench_tests.harness.report.figures.histories import MOST_CASES, history_figures
from bench_tests.harness.report.figures.trainings import training_figures
from bench_tests.harness.report.load import read
from bench_tests.unit.specs import compiled
from bench_tests.unit.stored import material, matrix, record, run

HOSTILE = '<img src=x onerror="alert(1)">\n' + "'\"" + "n" * 300


def at_speed(speedup, **more):
    return record(speedup=speedup, speedup_low=0.98 * speedup, speedup_high=1.02 * speedup, **more)


def runs_of(speedups, versions=None, **more):
    """A run a day of one case."""
    return [
        run([at_speed(speedup, **more)], when=f"2026-11-{day:02}T10:00:00+00:00",
            versions={"commit": f"{day:02}bcdef012345", **(versions[day - 1] if versions else {})})
        for day, speedup in enumerate(speedups, 1)
    ]  # fmt: skip


def only(material_):
    (group,) = material_.groups
    return history_figures(material_, group)


def test_a_change_beyond_the_interval_is_the_finding(tmp_path, capfd):
    (figure,) = only(material(tmp_path, *runs_of([2.0, 2.0, 1.5], backend="openvino")))
    assert figure.title == (
        "Over 3 runs, the only case changed by more than the intervals of its speed-up: openvino, 224 px, batch 1 from "
        "2.00x [1.96, 2.04] to 1.50x [1.47, 1.53]"
    )
    assert [row["run"] for row in figure.spec["datasets"]["rows"]] == [
        "01bcdef 2026-11-01", "02bcdef 2026-11-02", "03bcdef 2026-11-03",
    ]  # fmt: skip
    compiled(figure, capfd)
    compiled(figure, capfd, rows=[])


def test_a_change_within_the_interval_is_none(tmp_path):
    (figure,) = only(material(tmp_path, *runs_of([2.0, 2.05])))
    assert "the only case did not change by more than the intervals" in figure.title


def test_runs_are_in_the_order_of_time_not_of_the_files(tmp_path):
    (figure,) = only(material(tmp_path, *reversed(runs_of([1.0, 2.0, 3.0]))))
    assert [row["speedup"] for row in figure.spec["datasets"]["rows"]] == [1.0, 2.0, 3.0]
    assert "from 1.00x [0.98, 1.02] to 3.00x" in figure.title


def test_runs_of_one_commit_and_day_stay_apart(tmp_path):
    (figure,) = only(material(tmp_path, *(run([at_speed(speedup)]) for speedup in (1.0, 1.1))))
    assert [row["run"] for row in figure.spec["datasets"]["rows"]] == [
        "0123456 2026-11-20 no.1", "0123456 2026-11-20 no.2",
    ]  # fmt: skip


def test_one_run_has_no_history(tmp_path):
    assert only(material(tmp_path)) == []


def test_the_cases_that_changed_most_are_drawn(tmp_path, capfd):
    records = matrix(sizes=(224,), batches=(1, 2))
    later = [
        {**one, **{name: one[name] / (1 + at / 10) for name in ("speedup", "speedup_low", "speedup_high")}}
        for at, one in enumerate(records)
    ]
    first, second = run(records), run(later, when="2026-11-21T10:00:00+00:00")
    (figure,) = only(material(tmp_path, first, second))
    drawn = {row["case"] for row in figure.spec["datasets"]["rows"]}
    assert drawn == {one["case"] for one in records[-MOST_CASES:]}
    assert (
        f"{len(records) - MOST_CASES} of {len(records)} cases, whose speed-up changed least, are left out"
        in (figure.note[0])
    )
    legend = compiled(figure, capfd)["legends"]
    assert len(legend) == 1  # colour, shape and dash of a case are one entry
    looks = figure.spec["vconcat"][0]["layer"][-1]["encoding"]
    pairs = zip(looks["color"]["scale"]["range"], looks["shape"]["scale"]["range"], strict=True)
    assert len(set(pairs)) == MOST_CASES


def test_a_change_of_versions_is_marked_where_it_was(tmp_path, capfd):
    old, new = {"torch": "2.12.1", "python": "3.11.7"}, {"torch": "2.13.0", "openvino": "2026.4.1", "python": "3.11.7"}
    (figure,) = only(material(tmp_path, *runs_of([1.0, 1.0, 2.0, 2.0], [old, old, new, new])))
    assert figure.spec["datasets"]["changes"] == [
        {
            "run": "03bcdef 2026-11-03", "mark": "V1",
            "text": "openvino changed from absent to 2026.4.1; torch changed from 2.12.1 to 2.13.0",
        }
    ]  # fmt: skip
    assert " V1: openvino changed from absent to 2026.4.1; torch changed from 2.12.1 to 2.13.0." in figure.note[0]
    compiled(figure, capfd)


words = st.dictionaries(st.sampled_from(["torch", "python", "openvino", "cuda"]), st.sampled_from(["1", "2"]))


@settings(max_examples=40, deadline=None)
@given(words, words)
def test_versions_differ_where_the_gate_says_so(tmp_path_factory, old, new):
    old, new = {"numpy": "1", **old}, {"numpy": "1", **new}
    (figure,) = only(material(tmp_path_factory.mktemp("runs"), *runs_of([1.0, 1.0], [old, new])))
    told = [text for change in figure.spec["datasets"]["changes"] for text in change["text"].split("; ")]
    assert [text.split()[0] for text in told] == [text.split()[0] for text in differences(old, new)]
    assert ("No change of versions" in figure.note[0]) is (not told)


def test_a_run_without_versions_tells_no_change(tmp_path):
    older = run([at_speed(1.0)], versions={})
    newer = run([at_speed(1.0)], when="2026-11-21T10:00:00+00:00")
    (figure,) = only(material(tmp_path, older, newer))
    assert figure.spec["datasets"]["changes"] == []


def test_a_history_of_hostile_names(tmp_path, capfd):
    stored = runs_of([1.0, 2.0], [{HOSTILE: HOSTILE}, {HOSTILE: "2"}], recipe=HOSTILE, backend=HOSTILE)
    stored[1]["versions"]["commit"] = HOSTILE
    (figure,) = only(material(tmp_path, *stored))
    assert len(figure.title) < 400
    assert "\n" not in figure.title
    compiled(figure, capfd)


def trained(tmp_path, name, scores, losses=(), *, data="imagenette", score="top1", **more):
    """A history as `optim.train` writes it."""
    found = [
        {f"validation_{score}": value, **({"train_loss": losses[at], "validation_loss": losses[at]} if losses else {})}
        for at, value in enumerate(scores)
    ]
    file = tmp_path / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"config": {"data": data}, "epochs": found, **more}))
    return file


def test_a_training_of_its_own_has_score_and_losses(tmp_path, capfd):
    file = trained(tmp_path, "resnet18", [0.2, 0.8, 0.7], [2.0, 1.0, 0.9], test_top1=0.75)
    (figure,) = training_figures(read([file]).trainings)
    assert figure.title == "resnet18 reaches its best validation top1, 80.0 %, in epoch 2 of 3"
    assert "On the test split its top1 is 75.0 %." in figure.note[0]
    assert [row["best"] for row in figure.spec["datasets"]["rows"]] == [False, True, False]
    assert len(figure.spec["datasets"]["losses"]) == 6
    compiled(figure, capfd)
    compiled(figure, capfd, rows=[])


def test_the_best_epoch_is_the_one_that_the_file_says_was_kept(tmp_path):
    file = trained(tmp_path, "lower_is_better", [0.5, 0.1, 0.3], score="far", best_validation_far=0.1)
    (figure,) = training_figures(read([file]).trainings)
    assert "10.0 %, in epoch 2 of 3" in figure.title


def test_a_loss_that_ran_away_is_told_and_does_not_flatten_the_rest(tmp_path, capfd):
    file = trained(tmp_path, "resnet50", [0.3, 0.1, 0.5, 0.6, 0.6], [2.0, 239.0, 2.0, 1.8, 1.7])
    (figure,) = training_figures(read([file]).trainings)
    assert "In epoch 2 the validation loss ran away to 239; its median is 2.00." in figure.note[0]
    vega = compiled(figure, capfd)
    scales = [scale for group in vega["marks"] for scale in group.get("scales", [])] + vega.get("scales", [])
    assert any(scale["type"] == "log" for scale in scales)


@pytest.mark.parametrize(("losses", "rises"), [([2.0, 1.0, 1.05], False), ([2.0, 1.0, 1.2], True)])
def test_a_validation_loss_that_rises_again_is_told(tmp_path, losses, rises):
    (figure,) = training_figures(read([trained(tmp_path, "net", [0.1, 0.2, 0.3], losses)]).trainings)
    assert ("The validation loss is lowest in epoch 2, 1.00, and ends at 1.20" in figure.note[0]) is rises


def test_trainings_of_one_score_and_data_stand_beside_each_other(tmp_path, capfd):
    files = [
        trained(tmp_path, f"{folder}/speech_{name}", scores, [1.0, 0.5], data="speech", score="roc_auc")
        for folder in ("plain", "taught")
        for name, scores in (("small", [0.7, 0.99]), ("large", [0.9, 0.9996]))
    ]
    other = trained(tmp_path, "chat", [0.5], data="z80ai", score="next_char")
    scores, losses, alone = training_figures(read([*files, other]).trainings)
    assert scores.title == (
        "4 trainings on speech: plain/large reaches the highest validation roc_auc, 99.960 %, taught/small the lowest, "
        "99.00 %"
    )
    assert {row["training"] for row in scores.spec["datasets"]["rows"]} == {
        "plain/small", "plain/large", "taught/small", "taught/large",
    }  # fmt: skip
    assert losses.title.startswith("In none of 4 trainings on speech")
    assert alone.title.startswith("chat reaches")
    assert len({figure.name for figure in (scores, losses, alone)}) == 3
    for figure in (scores, losses, alone):
        compiled(figure, capfd)
        compiled(figure, capfd, rows=[])


def test_stages_follow_each_other_and_each_has_its_best_epoch(tmp_path, capfd):
    file = tmp_path / "chain.json"
    file.write_text(
        json.dumps({"commands": ["a", "b"], "validation_top1": {"r18": [0.5, 0.7, 0.6], "c50": [0.4, 0.65]}})
    )
    (figure,) = training_figures(read([file]).trainings)
    rows = figure.spec["datasets"]["rows"]
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5]
    assert [(row["stage"], row["of_stage"]) for row in rows if row["best"]] == [("r18", 2), ("c50", 2)]
    assert "2 trainings one after another, 5 epochs; the last, c50, reaches a validation top1 of 65.0 %" in figure.title
    compiled(figure, capfd)


def test_the_kept_histories_are_drawn(capfd, pytestconfig):
    files = sorted((pytestconfig.rootpath / "weights").rglob("*.json"))
    trainings = read(files).trainings
    figures = training_figures(trainings)
    shown = {row["stage"] for figure in figures for row in figure.spec["datasets"]["rows"]}
    assert shown >= {stage for training in trainings for stage in training.stages}
    assert len({figure.name for figure in figures}) == len(figures)
    for figure in figures:
        compiled(figure, capfd)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.one_of(st.none(), st.floats(-2, 2), st.just(math.nan)), min_size=1, max_size=5),
    st.sampled_from(["net", HOSTILE[:80].replace("/", "")]),
)
def test_sparse_trainings_never_raise(tmp_path_factory, values, name):
    found = [{} if value is None else {"validation_top1": value, "validation_loss": -value} for value in values]
    file = tmp_path_factory.mktemp("training") / f"{name}.json"
    file.write_text(json.dumps({"epochs": found}))
    kept = [value for value in values if value is not None and math.isfinite(value)]
    figures = training_figures(read([file]).trainings)
    assert len(figures) <= 1
    if kept and values[0] is not None and math.isfinite(values[0]):
        assert "reaches its best validation top1" in figures[0].title
        assert max(row["score"] for row in figures[0].spec["datasets"]["rows"] if row["best"]) == max(kept)


PLACES = st.lists(st.one_of(st.text(), st.integers()), max_size=4)


@given(st.text(), PLACES, PLACES)
def test_a_slug_is_a_short_safe_name_of_its_place(words, place, other):
    assert re.fullmatch("[a-z0-9-]{1,47}", slug(words, place))
    assert (slug(words, place) == slug(words, other)) == (place == other)
