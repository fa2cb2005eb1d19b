"""The gate's table: what needs a reader comes first, the rest is counted, and the order depends on nothing else."""

import random

from hypothesis import given
from hypothesis import strategies as st

from bench_tests.gate.table import lines, markdown
from bench_tests.gate.verdict import FAILING, WORDS, Verdict

verdicts = st.lists(
    st.builds(
        Verdict, st.sampled_from("abcd"), st.sampled_from(["time", "case", "top1"]), st.sampled_from(WORDS),
        effect=st.none() | st.floats(-50, 50), note=st.sampled_from(["", "why"]),
    ),
    max_size=40,
)  # fmt: skip


@given(verdicts, st.randoms(use_true_random=False))
def test_order_depends_on_the_verdicts_alone(found, dice):
    shuffled = found.copy()
    dice.shuffle(shuffled)
    assert lines(found) == lines(shuffled)
    assert markdown(found) == markdown(shuffled)


@given(verdicts)
def test_terminal_table_is_one_screen_and_counts_everything(found):
    *rows, answer = lines(found)
    assert len(rows) <= 22
    words = {verdict.word for verdict in found}
    expected = "failed" if words & FAILING else "undecided" if "unstable" in words else "passed"
    assert answer.startswith(f"gate: {expected}: ")
    for word in WORDS:
        count = sum(verdict.word == word for verdict in found)
        assert (f"{count} {word}" in answer) == (count > 0)
    listed = [row.split()[0] for row in rows[1:] if not row.startswith("and ")]
    assert listed == sorted(listed, key=WORDS.index)


def test_other_operators_and_too_few_examples_are_told_though_nothing_failed():
    coverage = Verdict("a", "coverage", "same", note="changed: cpu/bfloat16 40 to 2")
    few = Verdict("b", "top1", "same", note="0 lost, 0 gained of 20; but too few examples to exclude a drop of 1 point")
    plain = Verdict("c", "coverage", "same")
    *rows, answer = lines([coverage, few, plain])
    assert [row.split()[1] for row in rows[1:]] == ["a", "b"]
    assert answer == "gate: passed: 3 same"


def test_rows_that_need_no_reader_are_counted_only():
    same = [Verdict(f"case{index}", "time", "same", effect=0.1) for index in range(30)]
    slower = Verdict("z", "time", "slower", "2.00x, 1 ms", "1.50x, 1.3 ms", 33.3, 30.0, 36.0)
    renamed = Verdict("new name", "case", "same", note="renamed: it was old")
    header, first, second, answer = lines([*same, renamed, slower])
    assert header.split() == ["case", "of", "base", "head", "change", "[95", "%]", "why"]
    assert first.startswith("slower")
    assert "+33.3 % [+30.0, +36.0]" in first
    assert second.endswith("renamed: it was old")
    assert answer == "gate: failed: 1 slower, 31 same"


def test_long_table_says_what_it_leaves_out_and_markdown_leaves_out_nothing():
    many = [Verdict(f"case{index:02}", "time", "slower", effect=float(index)) for index in range(25)]
    random.Random(0).shuffle(many)
    found = lines([*many, Verdict("a", "time", "unstable")])
    assert "case24" in found[1]  # the largest effect
    assert found[-2:] == ["and 5 slower, 1 unstable", "gate: failed: 25 slower, 1 unstable"]
    assert sum("case" in line for line in markdown(many).splitlines()[1:]) == 26


def test_markdown_is_not_broken_by_what_stands_in_a_note():
    note = "failed: a|b <script>\n*second* line"
    table = markdown([Verdict("my_model-a", "case", "missing", note=note)])
    (row,) = (line for line in table.splitlines() if line.startswith("| missing"))
    assert row.count("|") - row.count("\\|") == 8
    assert "<script>" not in row
    assert "my\\_model-a" in row


def test_nothing_to_compare_is_said():
    assert lines([]) == ["gate: passed: nothing to compare"]
    assert markdown([]) == "**Gate: passed: nothing to compare**\n"
