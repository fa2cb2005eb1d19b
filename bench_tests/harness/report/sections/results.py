"""The results: for each group its tables and figures, with what a reader must know before reading them."""

from __future__ import annotations

from bench_tests.harness.report.document import Block, Code, Figure, Paragraph, Section, Table, say
from bench_tests.harness.report.figures.curves import curves
from bench_tests.harness.report.figures.firmware import firmware_figures
from bench_tests.harness.report.figures.histories import history_figures
from bench_tests.harness.report.figures.layers import layer_figures
from bench_tests.harness.report.figures.speech import speech_figures
from bench_tests.harness.report.figures.tradeoffs import tradeoffs
from bench_tests.harness.report.figures.trainings import training_figures
from bench_tests.harness.report.material import Group, Material
from bench_tests.harness.report.tables import (
    answers_table,
    describe,
    firmware_table,
    recipes_table,
    resources_table,
    results_table,
)


def results(material: Material) -> Section:
    """A part for each group, then the trainings, and profiles that belong to no group."""
    parts = [_of_group(material, group) for group in material.groups]
    told = {id(profile) for group in material.groups for profile in material.profiles_of(group)}
    others = [profile for profile in material.profiles if id(profile) not in told]
    if others:
        figures = tuple(figure for profile in others for figure in layer_figures(profile))
        parts.append(Section("results-profiles", "Profiles of models that were not measured here", figures))
    if material.trainings:
        parts.append(Section("results-trainings", "Trainings", tuple(training_figures(material.trainings))))
    return Section("results", "Results", (), tuple(parts))


def _of_group(material: Material, group: Group) -> Section:
    notes: list[Block] = [_machine(group)]
    if group.synthetic:
        words = "{data} is synthetic: its qualities say that the program works, and nothing about real data."
        notes.append(Paragraph(say(words, data=Code(group.data)), kind="note"))
    short: list[Table | None]
    if group.in_cycles:
        short, whole = [firmware_table(group), answers_table(group)], []
        figures: list[Figure] = firmware_figures(group)
    else:
        short, whole = [recipes_table(group)], [results_table(group), resources_table(group)]
        figures = [*curves(group), *tradeoffs(group), *speech_figures(group)]
    figures += [figure for profile in material.profiles_of(group) for figure in layer_figures(profile)]
    figures += history_figures(material, group)
    blocks = (*notes, *(table for table in short if table is not None), *figures, *whole)  # the whole takes pages
    return Section(f"results-{group.slug}", describe(group), blocks)


def _machine(group: Group) -> Paragraph:
    words = (
        "{count} cases on {machine}; records of other machines stand in other parts and are in no figure of this one."
    )
    return Paragraph(say(words, count=str(len(group.entries)), machine=Code(group.fingerprint)))
