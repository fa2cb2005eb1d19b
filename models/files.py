"""Files are written whole or not at all: to a temporary name beside them, then renamed. And the cache's place."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.errors import SpeedproofError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURES = (".png", ".svg", ".pdf")


def cache_root() -> Path:
    """The cache's folder: ``SPEEDPROOF_CACHE``, or ``speedproof`` in the user's own cache folder."""
    own = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "speedproof"
    return Path(os.environ.get("SPEEDPROOF_CACHE") or own)


def check_writable(folder: Path) -> None:
    """Make a folder, and a file in it for a moment. Raises SpeedproofError where weights could not be kept."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise SpeedproofError(f"cannot write to {folder} ({first_line(error)}): choose another folder") from error


def save_json(path: Path, content: dict[str, Any]) -> None:
    """Write numbers and strings as JSON, whole or not at all. Raises SpeedproofError if it cannot."""
    save_text(path, json.dumps(content, indent=1))


def save_bytes(path: Path, content: bytes) -> None:
    """Write bytes, whole or not at all. Raises SpeedproofError if it cannot."""
    save(path, lambda scratch: scratch.write_bytes(content))


def save_text(path: Path, text: str) -> None:
    """Write a text, whole or not at all. Raises SpeedproofError if it cannot."""
    save(path, lambda scratch: scratch.write_text(text, encoding="utf-8"))


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an ``.npz``, whole or not at all. Raises SpeedproofError if it cannot."""

    def write(scratch: Path) -> None:
        with scratch.open("wb") as file:  # of a name, numpy makes another one
            np.savez(file, allow_pickle=False, **arrays)

    save(path, write)


def check_picture(path: Path, option: str) -> None:
    """Raise SpeedproofError where `save_figure` could not draw, before any work is done."""
    if path.is_dir() or path.suffix.lower() not in PICTURES:
        raise SpeedproofError(
            f"{option} {path}: expected a file that ends in {', '.join(PICTURES[:-1])} or {PICTURES[-1]}, "
            f"for example picture.png"
        )
    check_writable(path.parent)


def save_figure(path: Path, figure: Figure) -> None:
    """Draw a picture of the format that its name ends in, whole or not at all. Raises SpeedproofError if it cannot."""
    save(path, lambda scratch: figure.savefig(scratch, format=path.suffix[1:].lower(), dpi=120))


def save(path: Path, write: Callable[[Path], object]) -> None:
    """Write to a temporary name beside ``path`` and rename. Raises SpeedproofError if it cannot."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(scratch)
        scratch.replace(path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        raise SpeedproofError(
            f"cannot write {path} ({first_line(error)}): free the disk or choose another folder"
        ) from error
    finally:
        with contextlib.suppress(OSError):  # what failed above has been said
            scratch.unlink()


def first_line(error: BaseException) -> str:
    """The first line of what an error says, at most 160 characters."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")[:160]
