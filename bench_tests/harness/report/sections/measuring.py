"""How a case is measured: the order of its stages, time, memory and the ceilings, with the figures of these records."""

from __future__ import annotations

from collections.abc import Iterable

from bench_tests.harness.report.digits import significant
from bench_tests.harness.report.document import (
    Block,
    Items,
    Number,
    Paragraph,
    Section,
    Sentence,
    say,
)  # fmt: skip
from bench_tests.harness.report.material import Material
from bench_tests.harness.report.phrases import counted, ranged
from bench_tests.harness.report.sections.checking import Entries, coverage, numbers, parity, quality, real_and_random
from bench_tests.harness.report.wording import duration


def measuring(material: Material) -> Section:
    """What is done to a case, in its order, and how each figure comes about."""
    entries = [entry for group in material.groups for entry in group.entries]
    wall = [entry for entry in entries if entry.record["clock"] == "wall"]
    cycles = [entry for entry in entries if entry.record["clock"] == "cycles"]
    parts: list[tuple[str, str, Iterable[Block]]] = [
        ("parity", "Parity", parity(wall, cycles)),
        ("quality", "Quality", quality(material, entries)),
        ("coverage", "Coverage", coverage(entries)),
        ("time", "Time", [*_time(wall), *_cycles(cycles)]),
        ("memory", "Memory and size", _memory(entries)),
        ("ceilings", "Ceilings", _ceilings(wall)),
    ]
    sections = [Section(f"measuring-{slug}", title, tuple(blocks)) for slug, title, blocks in parts]
    order = (
        "A child process builds and runs the case once; should it die, hang or run out of memory, that is the case's "
        "reason and not the run's end.",
        "The case is built and warmed up.",
        "Its outputs are compared with those of the very module it was built from.",
        "Quality and agreement with the original are judged on real examples.",
        "The runtime is asked what really ran where.",
        "Only then is it timed, and the outputs of the last timed call are compared once more, so that the timed thing "
        "is the checked thing.",
    )
    head = Paragraph(say("Every case goes through the same stages, and one that fails any has no number anywhere:"))
    return Section(
        "measuring", "How a case is measured", (head, Items(tuple((step,) for step in order), True)), tuple(sections)
    )


def _time(entries: Entries) -> Iterable[Block]:
    if not entries:
        return
    blocks, calls = numbers(entries, "blocks"), numbers(entries, "calls_per_block")
    small = [entry for entry in entries if (entry.number_of("instances") or 1) > 1]
    on_gpu = any(entry.record["device"] == "cuda" for entry in entries)
    yield Paragraph(say(
        "The candidate and the reference, PyTorch eager in fp32 with the original model on the same device, size, "
        "batch and threads, are timed in pairs of blocks whose order is drawn anew for each pair: what slows the "
        "machine slows both. A block is about 10 ms of calls, or one longer call, and {inputs} take turns in it; "
        "where a call takes less than 10 ms, untimed calls of 2 ms go before each block, on both sides alike. As many "
        "pairs are taken as the budget allows, at least 8 and at most 400, with the garbage collector off.{here}{gpu}",
        inputs="a real and a random input" if real_and_random(entries) else "two inputs",
        here=f" These cases have {ranged(blocks)} blocks of {_calls(calls)}." if blocks and calls else "",
        gpu=" The clock waits for the GPU to finish, before and after each block." if on_gpu else "",
    ))  # fmt: skip
    yield Paragraph(say(
        "The latency is the mean of the blocks without the fastest and the slowest 10 %; FPS and time an example come "
        "from it. The speed-up is not a ratio of two means but the Hodges-Lehmann estimate of the ratios within pairs, "
        "on their logarithms, with the interval of Wilcoxon's signed-rank test: neither minds a few wild "
        "blocks.{small}",
        small=_small(small),
    ))  # fmt: skip
    timed, warmed = (sum(numbers(entries, f"spent_{name}_s")) for name in ("timed_calls", "warming"))
    built, checked = (sum(numbers(entries, f"spent_{name}_s")) for name in ("building", "checking"))
    if timed:
        yield Paragraph(say(
            "All timed calls of these {cases} together took {timed}, warming them {warmed}, building {built} and "
            "checking {checked}.",
            cases=counted(len(entries), "case"), timed=duration(timed), warmed=duration(warmed),
            built=duration(built), checked=duration(checked),
        ))  # fmt: skip


def _calls(calls: list[float]) -> str:
    return "one call" if set(calls) == {1.0} else f"{ranged(calls)} calls"


def _small(small: Entries) -> str:
    if not small:
        return ""
    attained = ranged([100 * value for value in numbers(small, "speedup_confidence")], ".1f")
    return (
        f" Below 100 us, where a function lies in memory decides more than noise does: {counted(len(small), 'case')} "
        f"of these {'was' if len(small) == 1 else 'were'} built {ranged(numbers(small, 'instances'))} times on each "
        f"side, and the interval is over these instances"
        + (f" (it attains {attained} %)." if attained else ".")
    )  # fmt: skip


def _cycles(entries: Entries) -> Iterable[Block]:
    if entries:
        yield Paragraph(say(
            "{cases} of firmware are not timed but counted: the simulator's clock cycles are exact and the same in "
            "every run, so that there is one call, no pairs and no interval. What they are compared with is the plain "
            "engine, a straightforward loop, with the original network on 2 bits; milliseconds are cycles over the "
            "chip's clock.",
            cases=counted(len(entries), "case"),
        ))  # fmt: skip


def _memory(entries: Entries) -> Iterable[Block]:
    peaks, bases = numbers(entries, "cpu_peak_memory_bytes"), numbers(entries, "cpu_base_memory_bytes")
    if peaks:
        again = sum(bool(entry.record.get("child_of_an_earlier_run")) for entry in entries)
        yield Paragraph(say(
            "CPU memory is the largest resident set of the child process that builds and runs the case once and does "
            "nothing else{bases}.{again}",
            bases=f"; {ranged(base / 2**20 for base in bases)} MiB of it are there before the model" if bases else "",
            again=f" Of {again} of {counted(len(peaks), 'case')} it is that of an earlier run's child, for the same "
            "module, code, versions and machine." if again else "",
        ))  # fmt: skip
    if numbers(entries, "gpu_peak_memory_bytes"):
        yield Paragraph(say(
            "GPU memory is the allocator's peak in that process. The card's utilisation is sampled in a pass of 2 s of "
            "its own, so that sampling disturbs no timed block."
        ))  # fmt: skip
    yield Paragraph(say(
        "The size is that of the file that a backend runs from, of PyTorch that of the weights{chip}. Of recipes the "
        "bytes of the original's weights stand beside it.",
        chip="; of firmware it is the flash that the program fills, read from the ELF file, while SRAM is its static "
        "variables and the deepest stack that the simulation saw" if numbers(entries, "flash_bytes") else "",
    ))  # fmt: skip


def _ceilings(entries: Entries) -> Iterable[Block]:
    if not numbers(entries, "peak_gflops"):
        return
    convolution = (
        " and, on the CPU, of a product as a 1x1 convolution and a 3x3 convolution as inside a ResNet"
        if any(entry.record["device"] == "cpu" for entry in entries)
        else ""
    )
    yield Paragraph(say(
        "The measured peak is the best of square matrix products{convolution}, in the precision of the case and on its "
        "threads: what software reaches here, not what a brochure says. The bandwidth is that of a copy of 256 MiB, "
        "far beyond any cache. Both are kept for the machine, so that shares of different runs are of the same "
        "ceiling, and measured again where a model exceeds them. The theoretical peak is cores times clock times "
        "operations a cycle, or the card's data sheet; how it came about stands beside it under Target hardware. A "
        "multiply-add is two FLOP everywhere, counted on the fp32 model: {gflop}.",
        convolution=convolution, gflop=_gflops(entries),
    ))  # fmt: skip


def _gflops(entries: Entries) -> Sentence:
    known = [entry for entry in entries if entry.number_of("gflop")]
    if not known:
        return ("these have none",)
    ends = (pick(known, key=lambda entry: entry.number_of("gflop") or 0.0) for pick in (min, max))
    least, most = (Number(significant(entry.number_of("gflop") or 0.0, 3), entry.number) for entry in ends)
    return (
        say("{least} to {most} GFLOP a call here", least=least, most=most)
        if least.text != most.text
        else say("{least} GFLOP a call here", least=least)
    )
