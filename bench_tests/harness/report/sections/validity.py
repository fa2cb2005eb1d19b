"""What limits the conclusions: threats to validity that can be read off the records of a group and of all runs."""

from __future__ import annotations

from bench_tests.harness.record import ORIGINAL
from bench_tests.harness.report.answers.worth import failures
from bench_tests.harness.report.digits import digits, is_share
from bench_tests.harness.report.document import Code, Number, Sentence, joined, plain, say
from bench_tests.harness.report.material import DISTURBED, Group, Material
from bench_tests.harness.report.tables import describe
from bench_tests.harness.report.wording import cut

_FEW_BLOCKS = 10


def threats(group: Group) -> list[Sentence]:
    """Of one group: how well its quality and its speed-ups are known, and what was not measured."""
    kinds = (
        _data(group),
        _examples(group),
        _blocks(group),
        _process(group),
        _disturbed(group),
        _weights(group),
        _enlarged(group),
        _seed(group),
        _clock(group),
        _failed(group),
    )
    return [sentence for sentence in kinds if sentence]


def shared_threats(material: Material) -> list[Sentence]:
    """Of all runs together: machines, commits, versions."""
    told: list[Sentence] = []
    machines = list(dict.fromkeys(group.fingerprint for group in material.groups))
    if len(machines) > 1:
        names = joined([(Code(cut(machine)),) for machine in machines])
        words = "The records are of {n} machines or settings ({names}): times are not compared across them."
        told.append(say(words, n=str(len(machines)), names=names))
    dirty = [run for run in material.runs if run.commit.endswith("-dirty")]
    if dirty:
        commits = joined([(Code(cut(commit)),) for commit in dict.fromkeys(run.commit for run in dirty)])
        told.append(
            say(
                "{n} of {all} runs were made with changes that no commit holds ({commits}), so that they cannot be "
                "repeated exactly.",
                n=str(len(dirty)), all=str(len(material.runs)), commits=commits,
            )
        )  # fmt: skip
    changed = _changed_versions(material)
    if changed:
        told.append(say("Not all runs had the same versions: {changed}.", changed=joined(changed)))
    return told


def _changed_versions(material: Material) -> list[Sentence]:
    """What differs between the runs; settings of the GPU only where one was used."""
    on_gpu = any(group.device == "cuda" for group in material.groups)
    seen: dict[str, list[str]] = {}
    for run in material.runs:
        for package, version in run.versions.items():
            of_gpu = ".cuda." in package or ".cudnn." in package
            if package != "commit" and (on_gpu or not of_gpu) and version not in seen.setdefault(package, []):
                seen[package].append(version)
    return [
        say("{package} is {versions}", package=Code(cut(package)), versions=cut(" or ".join(versions)))
        for package, versions in sorted(seen.items())
        if len(versions) > 1
    ]


_IMAGENETTE_PX = 160  # of the edition that the loader reads


def _enlarged(group: Group) -> Sentence:
    larger = [size for size in group.sizes if size > _IMAGENETTE_PX]
    if group.data != "imagenette" or group.unit != "px" or not larger:
        return ()
    return say(
        "Imagenette's images have {own} px: at {larger} px they are enlarged, so that a larger size shows no more of "
        "them.",
        own=str(_IMAGENETTE_PX), larger=joined([(str(size),) for size in larger]),
    )  # fmt: skip


def _disturbed(group: Group) -> Sentence:
    """Records during which the machine was at other work: what their intervals do not know."""
    found = [entry for entry in group.entries if entry.disturbed]
    if not found:
        return ()
    worst = max(found, key=lambda entry: abs(entry.disturbance))
    return say(
        "Beside {count} of {all} cases PyTorch itself ran more than {limit} off its median of the size and batch, at "
        "most {most} ({case}): the machine was at other work, which no interval covers. They are named the fastest "
        "only where nothing else was measured; on an idle machine the run's own command repeats them.",
        count=str(len(found)), all=str(len(group.entries)), limit=f"{DISTURBED:.0%}".replace("%", " %"),
        most=Number(f"{100 * worst.disturbance:+.0f} %", worst.number), case=Code(cut(worst.case)),
    )  # fmt: skip


def _data(group: Group) -> Sentence:
    if not group.synthetic:
        return ()
    return say("The data ({data}) are made up: their quality says nothing of real ones.", data=Code(cut(group.data)))


def _examples(group: Group) -> Sentence:
    """On how many examples quality was judged, and how wide that leaves its interval."""
    judged = [(entry, entry.quality) for entry in group.entries if entry.quality is not None]
    if not judged:
        return ("No quality was judged, so that only the parity of outputs is known.",)
    entry, widest = max(judged, key=lambda pair: pair[1].high - pair[1].low)
    examples = entry.number_of("quality_examples")
    if examples is None:
        return ()
    told = say("Quality was judged on {examples} examples", examples=Number(f"{examples:,.0f}", entry.number))
    if widest.high <= widest.low:
        return (*told, "; an interval was not kept.")
    half = (widest.high - widest.low) / 2
    width = f"{100 * half:.{digits(widest.value)}f} points" if is_share(entry) else f"{half:.2g}"
    return (
        *told,
        *say(
            ", which leaves it unknown by up to {width} either way; the change against the original is paired and "
            "known better.",
            width=Number(width, entry.number),
        ),
    )


def _blocks(group: Group) -> Sentence:
    """How many blocks and instances stand behind the speed-ups."""
    if group.in_cycles:
        return ("Cycles come from a simulator: they are exact for it, and a chip was not measured.",)
    counted = [(entry.number_of("blocks"), entry) for entry in group.entries]
    known = [(blocks, entry) for blocks, entry in counted if blocks is not None]
    if not known:
        return ()
    (least, fewest), (most, _) = min(known, key=lambda pair: pair[0]), max(known, key=lambda pair: pair[0])
    between = f"{least:.0f}" if least == most else f"{least:.0f} to {most:.0f}"
    single = sum(entry.number_of("instances") == 1 for entry in group.entries)
    told = say("Behind each speed-up stand {blocks} pairs of blocks", blocks=Number(between, fewest.number))
    instances = f", of one compiled instance in {single} of {len(group.entries)} cases" if single else ""
    few = f"; below {_FEW_BLOCKS} its interval is rough" if least < _FEW_BLOCKS else ""
    return (*told, f"{instances}{few}.")


def _process(group: Group) -> Sentence:
    if group.in_cycles:
        return ()
    return (
        "All cases of a run are of one process: another one may place memory otherwise, which the intervals leave out.",
    )


def _weights(group: Group) -> Sentence:
    foreign = [entry for entry in group.entries if entry.record.get("weights_own") is False]
    if not foreign:
        return ()
    sizes = sorted({entry.size for entry in foreign})
    return say(
        "At {sizes} {unit} the weights were trained at another size: speed holds, quality is not that of a model made "
        "for it.",
        sizes=Number(", ".join(str(size) for size in sizes), foreign[0].number), unit=group.unit,
    )  # fmt: skip


def _seed(group: Group) -> Sentence:
    seeds = {entry.record["seed"] for entry in group.entries if "seed" in entry.record}
    if len(seeds) != 1:
        return ()
    trained = any(entry.variant.recipe != ORIGINAL for entry in group.entries)
    more = " A recipe that trains may end a little otherwise with another seed." if trained else ""
    return say(
        "One seed ({seed}) made the inputs and the order of blocks.{more}", seed=cut(str(seeds.pop())), more=more
    )


def _clock(group: Group) -> Sentence:
    """That the theoretical peak rests on a clock which is no measurement."""
    entry = next((entry for entry in group.entries if entry.text_of("peak_theoretical_how")), None)
    if entry is None or group.in_cycles:
        return ()
    how = Number(cut(entry.text_of("peak_theoretical_how"), 160), entry.number)
    return say("Shares of the theoretical peak rest on {how}.", how=how)


def _failed(group: Group) -> Sentence:
    failed = failures(group)
    if not failed:
        return ()
    return (f"{len(failed)} cases failed or ran out of memory; what is told here is told of the others only.",)


def limits(material: Material) -> list[Sentence]:
    """The threats of all groups, those that several share told once, the others with the group's name."""
    told: dict[str, tuple[Sentence, list[Group]]] = {}
    for group in material.groups:
        for sentence in threats(group):
            told.setdefault(plain(sentence), (sentence, []))[1].append(group)
    return [
        sentence if len(groups) > 1 or len(material.groups) == 1
        else say("{group}: {sentence}", group=Code(cut(describe(groups[0]))), sentence=sentence)
        for sentence, groups in told.values()
    ]  # fmt: skip
