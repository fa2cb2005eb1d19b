"""Reads what a report is made from: any JSON file of ours, told apart by what is in it.

A file that is none of ours, or broken, is an error of one sentence; a single record that lacks a figure, or has one
that is no number, is left out and listed with the reason, as a case without a number.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench_tests.harness.record import Record, Value, finite
from bench_tests.harness.report.material import Entry, Material, Profile, StoredRun, Training
from models.errors import SpeedproofError

_WORDS = ("case", "workload", "data", "backend", "precision", "recipe", "fingerprint", "device", "clock")
_COUNTS = ("size", "batch", "threads")
_POSITIVE = (
    "trimmed_mean_s", "median_s", "fps", "ms_per_image", "speedup", "speedup_low", "speedup_high", "size_bytes",
    "gflop",
)  # fmt: skip
# What JSON can bear, and no picture: control characters, halves of surrogate pairs, and two that are no characters.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
_SUSPECT = re.compile(r"\\u(?:00[01]|00?7f|d[89a-f]|fff[ef])|[\x7f\ufffe\uffff]", re.IGNORECASE)
_FIGURES = ("stddev_s", "minimum_s", "p95_s")  # as far as it has them
_LARGEST = 1e30  # beyond it sums and squares of figures leave what a float can hold
_EXPECTED = "give runs of `pytest --benchmark-json`, profiles of `bench_tests.profile --json`, histories of trainings"


def read(files: Sequence[Path]) -> Material:
    """All that the files hold. Raises SpeedproofError for one that cannot be read, or is none of ours."""
    runs: list[StoredRun] = []
    entries: list[Entry] = []
    profiles: list[Profile] = []
    trainings: list[Training] = []
    for file in dict.fromkeys(files):
        text, content = _content(file)
        try:
            if "benchmarks" in content:
                run, records = _run(file, content)
                runs.append(run)
                lines = _lines(text, len(content["benchmarks"]))
                entries += [
                    Entry(len(entries) + at, record, run, lines[place]) for at, (place, record) in enumerate(records)
                ]
            elif {"rows", "ceiling", "total_s"} <= content.keys():
                profiles.append(_profile(file, content))
            elif "epochs" in content or "commands" in content:
                trainings.append(_training(file, content))
            else:
                raise SpeedproofError(f"{file}: no file of Speedproof's; {_EXPECTED}")
        except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise SpeedproofError(f"{file}: broken, {_fault(error)}; {_EXPECTED}") from error
    return Material(tuple(entries), tuple(runs), tuple(profiles), tuple(trainings))


def _content(file: Path) -> tuple[str, dict[str, Any]]:
    try:
        text = file.read_text(encoding="utf-8")
        content = json.loads(text)
        if _SUSPECT.search(text):
            content = _printable(content)
    except OSError as error:
        raise SpeedproofError(f"{file}: cannot be read ({error.strerror}); {_EXPECTED}") from error
    except (ValueError, RecursionError) as error:
        reason = "it is empty" if isinstance(error, ValueError) and not file.stat().st_size else _short(error)
        raise SpeedproofError(f"{file}: no whole JSON file ({reason}); {_EXPECTED}") from error
    if not isinstance(content, dict):
        raise SpeedproofError(f"{file}: holds no object; {_EXPECTED}")
    return text, content


def _printable(value: Any) -> Any:
    """A JSON value whose texts can be written in HTML, XML and PDF."""
    if isinstance(value, str):
        return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", value)
    if isinstance(value, dict):
        return {_printable(name): _printable(part) for name, part in value.items()}
    return [_printable(part) for part in value] if isinstance(value, list) else value


def _fault(error: BaseException) -> str:
    if isinstance(error, KeyError):
        return f"it has no {_short(error)}"
    return f"a part of it is of another kind than it should be ({_short(error)})"


def _short(error: BaseException) -> str:
    return str(error)[:160]


def _run(file: Path, content: Mapping[str, Any]) -> tuple[StoredRun, list[tuple[int, Record]]]:
    """A run, and its records with their places in its list of benchmarks."""
    benchmarks = list(content["benchmarks"])
    ours = [(place, entry["extra_info"]) for place, entry in enumerate(benchmarks) if "case" in entry["extra_info"]]
    unmeasured = [_strings(row, ("case", "status", "reason")) for row in content.get("not_measured", [])]
    if not ours and not unmeasured:
        raise SpeedproofError(
            f"{file}: a run of pytest-benchmark, of whose {len(benchmarks)} benchmarks none is a case of Speedproof's; "
            f"{_EXPECTED}"
        )
    records: list[tuple[int, Record]] = []
    for place, extra in ours:
        record = {"unit": "px", **extra}
        reason = _unusable(record)
        if reason:
            unmeasured.append({"case": str(extra["case"]), "status": "unusable", "reason": reason})
        else:
            records.append((place, finite(record)))
    commit, versions = dict(content.get("commit_info") or {}), _strings(content.get("versions") or {})
    run = StoredRun(
        file=file,
        when=str(content.get("datetime", "")),
        commit=versions.get("commit") or str(commit.get("id") or "")[:12] + ("-dirty" if commit.get("dirty") else ""),
        fingerprint=str(dict(content["machine_info"]).get("fingerprint", "unknown machine")),
        hardware=dict(content.get("fingerprint") or {}),
        versions=versions,
        command=str(content.get("command", "")),
        settings=dict(content.get("settings") or {}),
        workloads={str(name): dict(facts) for name, facts in dict(content.get("workloads") or {}).items()},
        asked_for=_strings(content.get("asked_for") or {}),
        not_measured=tuple(unmeasured),
    )
    return run, records


def _strings(table: Mapping[str, Any], names: Iterable[str] | None = None) -> dict[str, str]:
    return {str(name): str(table[name]) for name in (table if names is None else names)}


def _unusable(record: Mapping[str, Any]) -> str:
    """What makes a record no measured case, in a few words; empty where it is one."""
    for name in (*_WORDS, *_COUNTS, *_POSITIVE):
        if name not in record:
            return f"it has no {name}"
    for name, value in record.items():
        if not isinstance(value, Value):
            return f"{name} is a {type(value).__name__}, expected a number or a string"
        if isinstance(value, int) and abs(value) >= 2**63:
            return f"{name} is too large a number"
    for name in _WORDS:
        if not isinstance(record[name], str):
            return f"{name} is {record[name]!r}, expected a text"
    for name in (*_COUNTS, *_POSITIVE, *_FIGURES):
        value, may_be_0 = record.get(name, 1.0), name in ("gflop", "stddev_s")  # no matrix product, one sample
        if isinstance(value, bool | str) or not 0 <= value < _LARGEST or (value == 0 and not may_be_0):
            return f"{name} is {value!r}, expected a positive number"
    if any(record[name] != int(record[name]) for name in _COUNTS):
        return "its size, batch or threads is no whole number"
    if not record["speedup_low"] <= record["speedup"] <= record["speedup_high"]:
        return "its speed-up lies outside of its interval"
    for name, value in record.items():
        if name.startswith("quality_") and (isinstance(value, str) or not math.isfinite(value)):
            return f"{name} is {value}, expected a finite number"
    return ""


def _lines(text: str, count: int) -> list[int]:
    """The line on which each benchmark's record begins; 1 for all where the file is not indented."""
    lines = [at for at, line in enumerate(text.splitlines(), 1) if line.strip().startswith('"extra_info": {')]
    return lines if len(lines) == count else [1] * count


def _profile(file: Path, content: Mapping[str, Any]) -> Profile:
    rows = tuple(dict(row) for row in content["rows"])
    for row in rows:
        for name in ("time_s", "share", "flop", "bytes_moved"):
            row[name] = _number(row, name)
        row |= {name: str(row[name]) for name in ("name", "kind", "family", "bound", "take")}
    ceiling = dict(content["ceiling"])
    ceiling |= {name: _number(ceiling, name) for name in ("peak_gflops", "copy_gb_per_s")}
    return Profile(
        file, str(content["workload"]), str(content["data"]), int(content["size"]), int(content["batch"]),
        int(content["threads"]), str(content["device"]), str(content["fingerprint"]), _number(content, "total_s"),
        ceiling, rows,
    )  # fmt: skip


def _number(table: Mapping[str, Any], name: str) -> float:
    value = float(table[name])
    if not abs(value) < _LARGEST:
        raise ValueError(f"{name} is {value}")
    return value


def _training(file: Path, content: Mapping[str, Any]) -> Training:
    """A history as `optim.train` and `optim.distill` write it, or one of several trainings with their commands."""
    if "epochs" in content and isinstance(content["epochs"], list):
        stages = {file.stem: [_numbers(epoch) for epoch in content["epochs"]]}
    else:
        scores = {name: dict(table) for name, table in content.items() if name.startswith("validation_")}
        stages = {
            str(stage): [{name: float(value)} for value in values]
            for name, table in scores.items()
            for stage, values in table.items()
        }
    facts = {name: value for name, value in content.items() if isinstance(value, Value)}
    config = {str(name): value for name, value in dict(content.get("config") or {}).items() if isinstance(value, Value)}
    commands = tuple(str(command) for command in content.get("commands", []))
    return Training(file, config, {stage: epochs for stage, epochs in stages.items() if epochs}, commands, facts)


def _numbers(epoch: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers of an epoch: a loss that ran away is written as NaN or Infinity."""
    return {
        str(name): float(value)
        for name, value in epoch.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }
