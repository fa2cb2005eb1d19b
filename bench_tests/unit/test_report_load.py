import json
import math

import pytest

from bench_tests.harness.report.load import read
from bench_tests.harness.report.material import fastest
from bench_tests.harness.report.picks import headline, ranked
from bench_tests.harness.report.tables import describe
from bench_tests.unit import stored
from models.errors import SpeedproofError


def test_records_know_their_file_and_line(tmp_path):
    material = stored.material(tmp_path)
    for entry in material.entries:
        lines = entry.run.file.read_text().splitlines()
        assert '"extra_info"' in lines[entry.line - 1]
        assert entry.case in lines[entry.line]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "it is empty"),
        ('{"benchmarks": [', "no whole JSON file"),
        ("[1, 2]", "holds no object"),
        ("{}", "no file of Speedproof's"),
        ('{"benchmarks": 5}', "broken"),
        ('{"benchmarks": [5]}', "broken"),
        ('{"benchmarks": [{"extra_info": {}}], "machine_info": {}}', "none is a case of Speedproof's"),
        ('{"benchmarks": [{"extra_info": {"case": "x"}}]}', "broken"),
        ('{"rows": [{}], "ceiling": {}, "total_s": 1}', "broken"),
        ('{"epochs": [1]}', "broken"),
        ("\x00\x01", "no whole JSON file"),
        ("[" * 100_000, "no whole JSON file"),
    ],
)
def test_a_file_that_is_none_of_ours_is_one_sentence(tmp_path, content, reason):
    file = tmp_path / "run.json"
    file.write_text(content)
    with pytest.raises(SpeedproofError, match=reason) as error:
        read([file])
    assert str(error.value).startswith(str(file))
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_or_not_text(tmp_path):
    with pytest.raises(SpeedproofError, match="cannot be read"):
        read([tmp_path / "none.json"])
    with pytest.raises(SpeedproofError, match="cannot be read"):
        read([tmp_path])
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x80")
    with pytest.raises(SpeedproofError, match="no whole JSON file"):
        read([tmp_path / "binary.json"])


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"fps": math.nan}, "fps is nan"),
        ({"trimmed_mean_s": -1.0}, "trimmed_mean_s is -1.0"),
        ({"speedup": "fast"}, "speedup is 'fast'"),
        ({"speedup_low": 99.0}, "outside of its interval"),
        ({"size": 1.5}, "no whole number"),
        ({"batch": True}, "batch is True"),
        ({"quality_top1": math.inf}, "quality_top1 is inf"),
        ({"stddev_s": math.nan}, "stddev_s is nan"),
        ({"coverage": {"CPU": 1}}, "coverage is a dict"),
        ({"workload": 5}, "workload is 5, expected a text"),
        ({"case": math.nan}, "case is nan, expected a text"),
        ({"minimum_s": 0.0}, "minimum_s is 0.0"),
        ({"quality_top1": "good"}, "quality_top1 is good"),
        ({"blocks": 10**400}, "blocks is too large"),
    ],
)
def test_a_record_that_is_no_measured_case_is_listed_with_the_reason(tmp_path, changed, reason):
    material = stored.material(tmp_path, stored.run([stored.record(), stored.record(batch=8) | changed]))
    assert [entry.batch for entry in material.entries] == [1]
    (row,) = material.runs[0].not_measured
    assert row["status"] == "unusable"
    assert reason in row["reason"]


def test_characters_that_no_picture_can_bear_are_replaced(tmp_path):
    odd = "a\x00b\x1fc\ud800d\ufffee\u007ff"
    material = stored.material(tmp_path, stored.run([stored.record(case=odd, weights="\N{GRINNING FACE}\tok")]))
    (entry,) = material.entries
    assert entry.case == "a\ufffdb\ufffdc\ufffdd\ufffde\ufffdf"
    assert entry.text_of("weights") == "\N{GRINNING FACE}\tok"


def test_a_record_without_a_figure_that_all_have(tmp_path):
    one = stored.record()
    del one["speedup"]
    material = stored.material(tmp_path, stored.run([one, stored.record()]))
    assert material.runs[0].not_measured[0]["reason"] == "it has no speedup"


def test_a_run_in_which_nothing_was_measured_is_read(tmp_path):
    row = {"case": "a", "status": "failed", "reason": "parity"}
    material = stored.material(tmp_path, stored.run([], not_measured=[row]))
    assert not material.groups
    assert material.runs[0].not_measured == (row,)


def test_machines_threads_data_and_clocks_are_never_in_one_group(tmp_path):
    records = [
        stored.record(),
        stored.record(fingerprint="other-machine"),
        stored.record(threads=1),
        stored.record(data="digits"),
        stored.record(workload="resnet50"),
        stored.record(clock="cycles"),
        stored.record(device="cuda"),
        stored.record(unit="ms"),
    ]
    groups = stored.material(tmp_path, stored.run(records)).groups
    assert len(groups) == len(records)
    assert len({group.slug for group in groups}) == len(records)


def test_the_newest_of_each_case_counts_and_all_are_its_history(tmp_path):
    old = stored.run([stored.record(speedup=1.0, speedup_low=0.9, speedup_high=1.1)], when="2026-11-01T10:00:00")
    new = stored.run([stored.record(), stored.record(batch=8)], when="2026-11-02T10:00:00")
    for runs in ((old, new), (new, old)):
        material = stored.material(tmp_path, *runs)
        (group,) = material.groups
        assert {entry.run.when[:10] for entry in group.entries} == {"2026-11-02"}
        (entries,) = material.history(group).values()
        assert [entry.run.when[:10] for entry in entries] == ["2026-11-01", "2026-11-02"]


def test_a_file_named_twice_is_read_once(tmp_path):
    file = stored.write(tmp_path / "run.json", stored.run([stored.record()]))
    assert len(read([file, file]).entries) == 1


def test_both_forms_of_a_history_of_trainings(tmp_path):
    epochs = [{"train_loss": 2.0, "validation_loss": math.nan, "validation_top1": 0.5, "note": "text"}]
    (tmp_path / "one.json").write_text(json.dumps({"config": {"lr": 0.1, "layers": []}, "epochs": epochs}))
    several = {
        "commands": ["python -m optim.train"],
        "epochs": 3,
        "validation_top1": {"first": [0.1, 0.2], "second": [0.3]},
    }
    (tmp_path / "two.json").write_text(json.dumps(several))
    one, two = read([tmp_path / "one.json", tmp_path / "two.json"]).trainings
    assert (one.name, one.score, one.stages) == ("one", "top1", {"one": [{"train_loss": 2.0, "validation_top1": 0.5}]})
    assert one.config == {"lr": 0.1}
    assert two.stages == {
        "first": [{"validation_top1": 0.1}, {"validation_top1": 0.2}],
        "second": [{"validation_top1": 0.3}],
    }
    assert (two.score, two.commands, two.facts["epochs"]) == ("top1", ("python -m optim.train",), 3)


def test_a_row_beside_which_pytorch_ran_far_off_its_median_is_not_the_fastest(tmp_path):
    records = stored.matrix(sizes=(224,), batches=(1,), precisions=("fp32",))
    for record in records:
        record["reference_trimmed_mean_s"] = 0.010
    records[-1] |= {"reference_trimmed_mean_s": 0.014, "speedup": 2.5, "speedup_low": 2.4, "speedup_high": 2.6}
    (group,) = stored.material(tmp_path, stored.run(records)).groups
    assert [entry.variant.backend for entry in group.entries if entry.disturbed] == ["openvino"]
    assert fastest(group.entries).variant.backend == "onnxruntime"
    assert ranked(group.entries)[-1].variant.backend == "openvino"
    (alone,) = stored.material(tmp_path, stored.run(records[-1:])).groups
    assert not alone.entries[0].disturbed


def test_the_headline_is_at_the_largest_size_that_the_weights_were_trained_for(tmp_path):
    foreign = stored.matrix(sizes=(320,), batches=(1,), weights_own=False)
    records = [*stored.matrix(sizes=(128, 224), batches=(1, 8)), *foreign]
    (group,) = stored.material(tmp_path, stored.run(records)).groups
    assert {entry.size for entry in headline(group)} == {224}


def test_groups_of_the_same_words_are_told_apart_by_their_machines(tmp_path):
    records = [stored.record(), stored.record(fingerprint="other-machine"), stored.record(data="digits")]
    groups = stored.material(tmp_path, stored.run(records)).groups
    assert len({describe(group) for group in groups}) == 3
    assert "other-machine" in describe(groups[1])
    assert stored.FINGERPRINT not in describe(groups[2])


def test_bands_hold_their_estimate(tmp_path):
    for entry in stored.material(tmp_path).entries:
        assert entry.fps.low <= entry.fps.value <= entry.fps.high
        assert entry.speedup.low <= entry.speedup.value <= entry.speedup.high
        assert entry.drop.low <= entry.drop.value <= entry.drop.high


@pytest.mark.parametrize("told", ["[" * 100_000, "[1]", '{"steps": 5}', "not JSON", '{"steps": [3]}'])
def test_what_a_record_says_of_its_recipe_may_be_anything(tmp_path, told):
    (entry,) = stored.material(tmp_path, stored.run([stored.record(recipe_steps=told)])).entries
    assert entry.steps == []
