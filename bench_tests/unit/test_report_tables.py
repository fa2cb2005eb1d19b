import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench_tests.harness.report import tables
from bench_tests.harness.report.digits import significant
from bench_tests.harness.report.document import plain
from bench_tests.harness.report.forms.export import csv_text
from bench_tests.unit import stored


@given(st.floats(1e-9, 1e12), st.integers(2, 6))
def test_significant_digits_are_kept_without_an_exponent(value, digits):
    text = significant(value, digits)
    assert "e" not in text
    assert float(text.replace(",", "")) == pytest.approx(value, rel=0.51 * 10 ** (1 - digits), abs=1e-12)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.014319, "0.01432"),
        (1.5, "1.500"),
        (21868.16, "21,868"),
        (0.00009999, "0.0001000"),
        (99.996, "100.0"),
    ],
)
def test_significant_digits_of_typical_figures(value, text):
    assert significant(value) == text


def test_every_case_is_a_row_of_results_and_resources(tmp_path):
    material = stored.material(tmp_path)
    (group,) = material.groups
    for table in (tables.results_table(group), tables.resources_table(group)):
        assert {row.record for row in table.rows} == {entry.number for entry in material.entries}
        assert all(len(row.cells) == len(table.columns) for row in table.rows)


def test_a_row_shows_its_record(tmp_path):
    one = stored.record(backend="openvino", size=224, batch=8, recipe="int8")
    (group,) = stored.material(tmp_path, stored.run([one])).groups
    (row,) = csv.DictReader(io.StringIO(csv_text(tables.results_table(group))))
    assert float(row["fps"]) == one["fps"]
    assert float(row["mean_ms"]) == pytest.approx(1e3 * one["trimmed_mean_s"])
    assert float(row["quality_change_points"]) == pytest.approx(-0.5)
    assert float(row["size_mb"]) == pytest.approx(11.3)
    (shown,) = tables.results_table(group).rows
    assert "-0.5 [-1.1, +0.1]" in [cell.text for cell in shown.cells]


def test_the_fastest_of_each_size_and_batch_is_marked(tmp_path):
    (group,) = stored.material(tmp_path).groups
    marked = [group.entries[row.record] for row in tables.results_table(group).rows if row.best]
    assert [entry.variant.label for entry in marked] == ["openvino bf16"] * 10
    assert len({(entry.size, entry.batch) for entry in marked}) == 10


def test_columns_that_no_record_fills_are_left_out(tmp_path):
    records = stored.matrix(sizes=(224,), batches=(1,))
    for record in records:
        for name in [name for name in record if name.startswith(("quality", "agreement"))]:
            del record[name]
    (group,) = stored.material(tmp_path, stored.run(records)).groups
    names = {column.name for column in tables.results_table(group).columns}
    assert not names & {"quality_percent", "quality_change_points", "agreement_percent"}
    assert not {column.name for column in tables.resources_table(group).columns} & {"gpu", "gpu_peak_memory_mib"}


def test_a_gpu_is_named_with_its_memory_and_utilisation(tmp_path):
    one = stored.record(device="cuda", gpu_peak_memory_bytes=3 * 2**30, gpu_utilisation_percent=87.0)
    run = stored.run([one])
    run["fingerprint"]["gpu_name"] = "NVIDIA H100"
    (group,) = stored.material(tmp_path, run).groups
    table = tables.resources_table(group)
    shown = dict(
        zip([column.label for column in table.columns], [cell.text for cell in table.rows[0].cells], strict=True)
    )
    assert shown["GPU"] == "NVIDIA H100"
    assert shown["GPU memory, MiB"] == "3,072"
    assert shown["GPU busy"] == "87 %"


def test_recipes_stand_on_their_fastest_backend(tmp_path):
    (group,) = stored.material(tmp_path, stored.run(stored.matrix(recipes=("original", "int8")))).groups
    table = tables.recipes_table(group)
    assert [[cell.text for cell in row.cells[:3]] for row in table.rows] == [
        ["original", "openvino", "bf16"],
        ["int8", "openvino", "bf16"],
    ]
    (alone,) = stored.material(tmp_path).groups
    assert tables.recipes_table(alone) is None


def test_recipes_are_compared_where_there_are_several(tmp_path):
    records = [stored.record(batch=8), stored.record(batch=8, recipe="int8"), stored.record(size=128)]
    (group,) = stored.material(tmp_path, stored.run(records)).groups
    assert "At 224 px, batch 8" in plain(tables.recipes_table(group).note)


def test_a_quality_that_is_no_share_is_in_its_own_unit(tmp_path):
    loss = {"quality": "loss", "quality_loss": 4.0, "quality_higher_is_better": False, "quality_drop": 0.2}
    (group,) = stored.material(
        tmp_path, stored.run([stored.record(quality_drop_low=0.1, quality_drop_high=0.3) | loss])
    ).groups
    table = tables.results_table(group)
    shown = {column.name: cell.text for column, cell in zip(table.columns, table.rows[0].cells, strict=True)}
    assert (shown["quality"], shown["quality_change"]) == ("4.000", "-0.2 [-0.3, -0.1]")


def test_what_has_no_number_is_listed_with_its_reason(tmp_path):
    row = {
        "case": "resnet18-imagenette-original-openvino-fp32-4096px-b64-t2",
        "status": "out of memory",
        "reason": "no",
    }
    material = stored.material(tmp_path, stored.run(stored.matrix(), not_measured=[row]))
    table = tables.unmeasured_table(material)
    assert [[cell.text for cell in row.cells] for row in table.rows] == [[*row.values(), "run0.json"]]
    assert tables.unmeasured_table(stored.material(tmp_path)) is None


def test_all_values_of_all_records_are_in_one_table(tmp_path):
    material = stored.material(tmp_path, stored.run([stored.record(only_here=5), stored.record(batch=8)]))
    table = tables.records_table(material)
    rows = [
        {column.name: cell.value for column, cell in zip(table.columns, row.cells, strict=True)} for row in table.rows
    ]
    for row, entry in zip(rows, material.entries, strict=True):
        assert {name: row[name] for name in entry.record} == entry.record
        assert row["line"] == entry.line
    assert rows[1]["only_here"] is None


def test_synthetic_data_are_called_so(tmp_path):
    (group,) = stored.material(tmp_path, stored.run([stored.record(data="synthetic_tones")])).groups
    assert "synthetic data" in tables.describe(group)
