"""The methods and backends that were used: what each does, its mechanism, limits and risk, and why it fits."""

from __future__ import annotations

from collections.abc import Iterable

from bench_tests.harness.report.digits import significant
from bench_tests.harness.report.document import (
    Block,
    Code,
    Items,
    Number,
    Paragraph,
    Section,
    Sentence,
    Strong,
    joined,
    say,
)  # fmt: skip
from bench_tests.harness.report.material import Group, Material
from bench_tests.harness.report.phrases import named
from bench_tests.harness.report.sections.fitting import compiled, fits, half_limit, one_each, peak_ratio
from bench_tests.harness.report.sections.hardware import UNO_FLASH_BYTES
from bench_tests.harness.report.sections.hyperparameters import Followed, commanded, followed
from bench_tests.harness.report.sections.methods import MODULES, Method, method
from bench_tests.harness.report.sections.profiles import place

_TITLES = {
    "optim.distill": "Distillation", "optim.prune": "Pruning", "optim.quantize": "Quantization to eight bits",
    "optim.bits": "Quantization below eight bits",
}  # fmt: skip


BACKENDS = ("eager", "inductor", "onnxruntime", "openvino", "tensorrt", "avr", "avr_plain")


_COMPILED = ("inductor", "onnxruntime", "openvino", "tensorrt")


def methods_section(material: Material) -> Section:
    """A part for each method, one for the backends, one for the lower float precisions; only those that were used."""
    recipes = followed(material)
    parts = [
        Section(f"introduction-{module.partition('.')[2]}", title, tuple(_method(material, module, recipes)))
        for module, title in _TITLES.items()
        if _users(material, module, recipes)
    ]
    backends = [name for name in BACKENDS if any(_has(group, "backend", name) for group in material.groups)]
    if backends:
        parts.append(
            Section("introduction-backends", "Backends", tuple(_backends(material, backends))),
        )
    if any(_has(group, "precision", name) for group in material.groups for name in ("bf16", "fp16")):
        parts.append(Section("introduction-precision", "Lower float precisions", tuple(_precisions(material))))
    words = say(
        "Each is told with its mechanism, limits and risk, and held against the bottlenecks above: a method helps "
        "where its mechanism meets what takes the time."
        if material.profiles
        else "Each is told with its mechanism, limits and risk. Whether it fits takes a per-layer profile: see above."
    )
    return Section("introduction-methods", "Methods, and why they fit", (Paragraph(words),), tuple(parts))


def _has(group: Group, field: str, name: str) -> bool:
    return any(getattr(variant, field) == name for variant in group.variants)


def _users(material: Material, module: str, recipes: Iterable[Followed]) -> list[str]:
    """Recipes and trainings that use a method."""
    names = [recipe.name for recipe in recipes if module in recipe.modules]
    return names + [training.name for training in material.trainings if module in commanded(training)]


def _method(material: Material, module: str, recipes: list[Followed]) -> Iterable[Block]:
    told, users = method(module), _users(material, module, recipes)
    yield Paragraph(say("{title} Used by {users}.", title=told.title, users=named(users)))
    if told.steps:
        yield Items(told.steps, numbered=True)
    yield Items(_character(told))
    kinds = list(dict.fromkeys(kind for recipe in recipes for kind in recipe.kinds if MODULES.get(kind) == module))
    told_fits = [
        sentence
        for profile in one_each(material.profiles)
        for sentence in fits(material, module, kinds, profile, recipes)
    ]
    if module == "optim.bits":
        told_fits += [sentence for group in material.groups if (sentence := _on_chip(group))]
    if told_fits:
        yield Paragraph(say("Why it fits, or does not:"))
        yield Items(tuple(told_fits))


def _on_chip(group: Group) -> Sentence:
    """How far the float network is from an UNO's flash, and what a network of few bits takes of it."""
    entries = [
        entry
        for entry in group.entries
        if entry.text_of("chip") == "atmega328p" and entry.number_of("flash_bytes")
        if entry.number_of("size_bytes_original")
    ]
    if not entries:
        return ()
    least = min(entries, key=lambda entry: entry.number_of("flash_bytes") or 0.0)
    before, now = (least.number_of(name) or 0.0 for name in ("size_bytes_original", "flash_bytes"))
    return say(
        "{workload}: the weights in fp32 are {before} bytes, {times} times an UNO's flash, and the chip has no "
        "floating point: the mechanism meets both. The smallest program, {name}, takes {now} bytes.",
        workload=Code(group.workload),
        before=Number(f"{before:,.0f}", least.number),
        times=significant(before / UNO_FLASH_BYTES, 2),
        name=Code(least.variant.label),
        now=Number(f"{now:,.0f}", least.number),
    )


def _character(told: Method) -> tuple[Sentence, ...]:
    named_parts = (("Mechanism", told.mechanism), ("Limits", told.limits), ("Risk", told.risk))
    return tuple(say("{name}: {words}", name=Strong(name), words=words) for name, words in named_parts if words)


def _backends(material: Material, names: list[str]) -> Iterable[Block]:
    items: list[Sentence] = []
    for name in names:
        told = method(f"optim.backends.{'avr' if name == 'avr_plain' else name}")
        if name == "avr_plain" and "avr" in names:
            continue  # one docstring holds both
        character = joined(list(_character(told)), " ", " ") if told.mechanism else told.about
        items.append(say("{name}: {title} {character}", name=Code(name), title=told.title, character=character))
    yield Items(tuple(items))
    if any(name in _COMPILED for name in names):
        told_fits = tuple(sentence for profile in one_each(material.profiles) if (sentence := compiled(profile)))
        if told_fits:
            yield Paragraph(say("Why they fit, or do not:"))
            yield Items(told_fits)


def _precisions(material: Material) -> Iterable[Block]:
    names = [name for name in ("bf16", "fp16") if any(_has(group, "precision", name) for group in material.groups)]
    yield Paragraph(say(
        "In {names} the weights and activations of a backend have half the bytes of fp32, and the instructions of "
        "processors that know them do more a cycle. bf16 keeps fp32's range with 8 bits of precision; fp16 has 11 bits "
        "and a smaller range. A processor without such instructions converts back and forth, and is slower. What is at "
        "risk are values near each other, such as the logits of two classes that are alike.",
        names=joined([(name,) for name in names]),
    ))  # fmt: skip
    told = [
        say(
            "{place}{precision}: {peak}; {limit}.",
            place=place(profile), precision=f" in {name}" if len(names) > 1 else "", peak=words,
            limit=half_limit(profile, ratio),
        )
        for profile in one_each(material.profiles)
        for name in names
        if any(group.workload == profile.workload and _has(group, "precision", name) for group in material.groups)
        for ratio, words in [peak_ratio(material, profile, name)]
    ]  # fmt: skip
    if told:
        yield Items(tuple(told))
