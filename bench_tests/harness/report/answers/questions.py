"""The answers to a reader's questions, each in its first sentence with its numbers, computed from the records."""

from __future__ import annotations

from bench_tests.harness.report.answers.batches import batches_answer
from bench_tests.harness.report.answers.busy import hardware_answer
from bench_tests.harness.report.answers.fastest import fastest_answer
from bench_tests.harness.report.answers.sizes import sizes_answer
from bench_tests.harness.report.answers.worth import worth_answer
from bench_tests.harness.report.document import Section
from bench_tests.harness.report.material import Group, Material


def answers(material: Material, group: Group) -> tuple[Section, ...]:
    """What is fastest, how size and batch matter, whether the hardware is busy, whether the methods are worth it.

    Where a group lacks what an answer needs, it says so, and which command supplies it.
    """
    return (
        fastest_answer(group),
        sizes_answer(group),
        batches_answer(group),
        hardware_answer(material, group),
        worth_answer(group),
    )
