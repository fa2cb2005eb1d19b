"""The finished stages of a pruning run on disk, so that a killed run goes on with the next one.

Within a stage it is `retrain` that goes on after the last whole epoch; here lies what a whole stage ended with.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn

from models.errors import SpeedproofError
from models.weights import load_into, read_checkpoint, save_checkpoint


class Stages:
    """``keep`` is the path of the run's result, as in `retrain`; None keeps nothing. ``identity`` tells runs apart."""

    def __init__(self, keep: Path | None, identity: dict[str, Any]) -> None:
        self._keep, self._identity = keep, json.dumps(identity)
        self._written: list[Path] = []

    def place(self, label: str) -> Path | None:
        """Where a stage's training is kept: ``pruned.pt`` becomes ``pruned_step1.pt``."""
        return self._keep and self._keep.with_name(f"{self._keep.stem}_{label}{self._keep.suffix}")

    def load(self, model: nn.Module, label: str) -> bool:
        """Give ``model`` what the stage ended with, and say whether it was there."""
        path = self._path(label)
        if path is None or not path.is_file():
            return False
        try:
            same = read_checkpoint(path)[1].get("identity") == self._identity
        except SpeedproofError as error:
            print(f"{error}: the stage starts anew", flush=True)
            return False
        if same:
            load_into(model, path)
            path.with_suffix(".resume").unlink(missing_ok=True)  # it was killed before it could do so itself
            self._written.append(path)
        return same

    def save(self, model: nn.Module, label: str) -> None:
        """Keep what the stage ended with."""
        path = self._path(label)
        if path is not None:
            meta = {"identity": self._identity, "channels_removed": True}
            save_checkpoint(path, {"state_dict": model.state_dict(), "meta": meta})
            self._written.append(path)

    def clear(self) -> None:
        """Remove the stages of a run that is over."""
        for path in self._written:
            path.unlink(missing_ok=True)

    def _path(self, label: str) -> Path | None:
        place = self.place(label)
        return place and place.with_suffix(".stage")
