"""Where results are kept: plain numbers and strings in a record, arrays in a file beside it, a journal at once.

pytest-benchmark writes its JSON when the session ends. Each finished case is therefore also appended to a journal in
the same folder, and a case that was not measured stands, with its reason, in the journal and in the JSON's
`not_measured`.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from models.errors import SpeedproofError

ORIGINAL = "original"  # the recipe that changes nothing

Value = float | int | str | bool
Record = dict[str, Value]


@dataclass
class Journal:
    """The folder of one run: ``<storage>/runs/<date>-<process>/`` with ``journal.jsonl`` and one ``.npz`` a case."""

    folder: Path
    records: dict[str, Record] = field(default_factory=dict)
    not_measured: list[Record] = field(default_factory=list)

    @classmethod
    def start(cls, storage: Path) -> Journal:
        """A journal of its own for this process; the folder is made with the first entry."""
        return cls(storage / "runs" / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}")

    def add(self, case_id: str, record: Record, arrays: dict[str, np.ndarray]) -> None:
        """Keep a measured case: its arrays first, then its line, so that no line points to nothing."""
        with self._writing(case_id):
            file = self.folder / f"{re.sub('[^A-Za-z0-9._-]', '_', case_id)}.npz"
            scratch = file.with_name(f".{file.name}")
            with scratch.open("wb") as stream:
                np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
            scratch.replace(file)
            record["arrays_file"] = f"{self.folder.name}/{file.name}"
            self._append({"case": case_id, "status": "measured", **record})
        self.records[case_id] = record

    def add_not_measured(self, case_id: str, status: str, reason: str) -> None:
        """Keep why a case has no number; one that had is withdrawn. The last line of a case in the journal holds."""
        entry: Record = {"case": case_id, "status": status, "reason": reason}
        self.records.pop(case_id, None)
        self.not_measured.append(entry)
        with self._writing(case_id):
            self._append(entry)

    @contextlib.contextmanager
    def _writing(self, case_id: str) -> Iterator[None]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            yield
        except OSError as error:
            raise SpeedproofError(
                f"the record of {case_id} cannot be written to {self.folder} ({error.strerror})"
            ) from error

    def _append(self, entry: Record) -> None:
        with (self.folder / "journal.jsonl").open("a") as stream:
            stream.write(json.dumps(entry, allow_nan=False) + "\n")
            stream.flush()
            os.fsync(stream.fileno())


def read_journal(file: Path) -> list[Record]:
    """The entries of a journal; a last line that a killed process left unfinished is dropped."""
    entries = []
    for line in file.read_text().splitlines():
        try:
            entries.append(json.loads(line))
        except ValueError:
            break
    return entries


def finite(record: Record) -> Record:
    """A record without the values that JSON has no word for. Raises ValueError for one that is no plain value."""
    for name, value in record.items():
        if not isinstance(value, Value):
            raise ValueError(f"record value {name} is a {type(value).__name__}, expected a number or a string")
    return {
        name: value for name, value in record.items() if not (isinstance(value, float) and not math.isfinite(value))
    }
