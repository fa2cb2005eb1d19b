"""Records survive the journal and JSON, arrays their file; ids are stable, tell cases apart and name files."""

import json
import math
import string
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bench_tests.harness.case import Case
from bench_tests.harness.record import Journal, finite, read_journal
from models.errors import SpeedproofError

names = st.text(min_size=1, max_size=20).filter(lambda name: name not in ("case", "status", "arrays_file"))
values = st.one_of(st.floats(), st.integers(-(2**63), 2**63), st.booleans(), st.text())
records = st.dictionaries(names, values, max_size=8)
arrays = st.dictionaries(
    st.sampled_from(["candidate_s", "reference_s", "outcomes", "answers"]),
    hnp.arrays(st.sampled_from([np.float64, np.int64]), hnp.array_shapes(min_dims=1, max_dims=2)),
)


def _entries(journal):
    return read_journal(journal.folder / "journal.jsonl")


@given(records, arrays)
def test_record_and_arrays_round_trip(tmp_path_factory, record, data):
    journal = Journal.start(tmp_path_factory.mktemp("storage"))
    plain = finite(record)
    journal.add("a-case", dict(plain), data)
    (entry,) = _entries(journal)
    assert entry.pop("case") == "a-case"
    assert entry.pop("status") == "measured"
    file = journal.folder.parent / str(entry.pop("arrays_file"))
    assert entry == plain == json.loads(json.dumps(plain, allow_nan=False))
    assert all(type(entry[name]) is type(value) for name, value in plain.items())
    with np.load(file) as stored:
        assert set(stored) == set(data)
        for name, array in data.items():
            assert stored[name].dtype == array.dtype
            np.testing.assert_array_equal(stored[name], array)


@given(records)
def test_finite_drops_nan_and_inf_only(record):
    kept = finite(record)
    dropped = {name for name in record if name not in kept}
    assert dropped == {n for n, value in record.items() if isinstance(value, float) and not math.isfinite(value)}


@pytest.mark.parametrize("value", [None, [1], np.int64(1), np.zeros(2), b"x"])
def test_only_plain_values_are_recorded(value):
    with pytest.raises(ValueError, match="record value speed is a"):
        finite({"speed": value})


@given(st.integers(0, 10_000))
def test_unfinished_last_line_is_dropped(tmp_path_factory, cut):
    journal = Journal.start(tmp_path_factory.mktemp("storage"))
    for index in range(3):
        journal.add_not_measured(f"case-{index}", "failed", f"reason\n{index} é \u2028")
    file = journal.folder / "journal.jsonl"
    whole = file.read_bytes()
    cut %= len(whole)
    complete = whole[: cut + 1].count(b"}\n") if whole[cut : cut + 1] == b"\n" else whole[:cut].count(b"}\n")
    file.write_bytes(whole[: cut + (whole[cut : cut + 1] == b"\n")])
    found = [entry["case"] for entry in read_journal(file)]
    assert found[:complete] == [f"case-{index}" for index in range(complete)]
    assert len(found) <= complete + 1  # a line that only lacks its end counts


def test_withdrawn_case_has_no_number(tmp_path):
    journal = Journal.start(tmp_path)
    journal.add("a", {"fps": 1.0}, {})
    journal.add_not_measured("a", "failed", "its test failed")
    assert not journal.records
    assert [(entry["case"], entry["status"]) for entry in _entries(journal)] == [("a", "measured"), ("a", "failed")]


def test_unwritable_folder_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    journal = Journal.start(tmp_path / "file")
    with pytest.raises(
        SpeedproofError, match=r"^the record of a cannot be written to .*file/runs/.* \(Not a directory\)"
    ):
        journal.add("a", {"fps": 1.0}, {})
    with pytest.raises(SpeedproofError, match="the record of b cannot be written"):
        journal.add_not_measured("b", "failed", "no")
    assert not journal.records


def test_nothing_is_written_before_the_first_entry(tmp_path):
    Journal.start(tmp_path / "storage")
    assert list(tmp_path.iterdir()) == []


# Histories are matched by these: whoever changes one loses the histories of all users.
IDS = {
    Case("resnet18", "digits", "eager", "fp32", 224, 1, 2): "resnet18-digits-original-eager-fp32-224px-b1-t2",
    Case("resnet50", "imagenette", "onnxruntime", "bf16", 128, 16, 8):
        "resnet50-imagenette-original-onnxruntime-bf16-128px-b16-t8",
    Case("resnet18", "folder", "openvino", "fp16", 224, 4, 1, "int8"): "resnet18-folder-int8-openvino-fp16-224px-b4-t1",
    Case("kws", "synthetic", "my.module:FAST", "fp32", 1, 1, 1): "kws-synthetic-original-my.module.FAST-fp32-1px-b1-t1",
}  # fmt: skip


@pytest.mark.parametrize("known", IDS, ids=IDS.values())
def test_ids_are_stable(known):
    assert known.id == IDS[known]


words = st.text("abAB01_.", min_size=1, max_size=4)
specs = st.builds("{}:{}".format, words, st.text("abAB01_", min_size=1, max_size=3))
cases = st.builds(
    Case,
    workload=words,
    data=words,
    backend=st.sampled_from(["eager", "openvino"]) | specs,
    precision=st.sampled_from(["fp32", "bf16"]),
    size=st.integers(1, 30),
    batch=st.integers(1, 30),
    threads=st.integers(1, 3),
    recipe=st.sampled_from(["original", "int8"]),
)


@given(st.lists(cases, min_size=2, max_size=40))
def test_ids_tell_cases_apart_and_name_files(found):
    # `a.b:C` and `a:b.C` cannot both be imported, so they may share a name.
    distinct = {replace(case, backend=case.backend.replace(":", ".")) for case in found}
    assert len({case.id for case in found}) == len(distinct)
    assert not set("".join(case.id for case in found)) - set(f"{string.ascii_letters}{string.digits}._-")
