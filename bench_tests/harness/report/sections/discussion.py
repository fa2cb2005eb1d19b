"""The discussion: the answers for each group of records, what is surprising in them, and what limits them."""

from __future__ import annotations

from bench_tests.harness.report.answers.questions import answers
from bench_tests.harness.report.document import Items, Paragraph, Section, say
from bench_tests.harness.report.material import Group, Material
from bench_tests.harness.report.sections.surprises import surprises
from bench_tests.harness.report.sections.validity import limits, shared_threats
from bench_tests.harness.report.tables import describe


def discussion(material: Material) -> Section:
    """The answers of all groups, of each a subsection where there are several; surprises; threats to validity."""
    if not material.groups:
        words = (
            "No case was measured, so there is nothing to discuss; the reasons stand among the cases without a number."
        )
        return Section("discussion", "Discussion", (Paragraph(say(words), "note"),))
    several = len(material.groups) > 1
    parts: list[Section] = []
    for group in material.groups:
        told = (*answers(material, group), *_surprising(group))
        parts += [Section(f"discussion-{group.slug}", describe(group), (), told)] if several else told
    return Section("discussion", "Discussion", (), (*parts, _validity(material)))


def _surprising(group: Group) -> tuple[Section, ...]:
    found = surprises(group)
    if not found:
        return ()
    return (Section(f"surprises-{group.slug}", "What is surprising", (Items(tuple(found)),)),)


def _validity(material: Material) -> Section:
    told = (*limits(material), *shared_threats(material))
    return Section("validity", "What limits these answers", (Items(told),))
