"""The two sides of the comparison as folders to run in: the base from git, the head as it lies on the disk.

A side's folder links to all of its tree but ``bench_tests``, which is the head's on both: a change to the harness is
never mistaken for one of the models. What git does not track in the head's ``weights`` (trained weights are too large)
stands in both. Each side has a cache of its own, named by its content, since an artefact's key does not see every
change of the code that makes it; a tree that was compared before finds its artefacts again.

A base with other dependencies gets an environment of its own, installed once and kept in the cache.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import tomllib
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench_tests.harness.rehearsal import sources_digest
from models.data.fetch import data_root
from models.errors import SpeedproofError
from models.files import cache_root
from optim.backends.cache import artefact

_CODE = ("models", "optim")
_HARNESS = "bench_tests"


@dataclass(frozen=True)
class Tree:
    """One side: where its workers run, with which Python, and where their artefacts are kept."""

    name: str  # as the user named it
    folder: Path
    python: Path
    cache: Path

    def environment(self) -> dict[str, str]:
        """Variables of a worker's process: its own modules come before an installed copy."""
        own = {
            "PYTHONPATH": os.pathsep.join(filter(None, (str(self.folder), os.environ.get("PYTHONPATH")))),
            "SPEEDPROOF_CACHE": str(self.cache.resolve()),
            "SPEEDPROOF_DATA": str(data_root().resolve()),
        }
        return {"OMP_WAIT_POLICY": "passive"} | os.environ | own


@contextlib.contextmanager
def both_trees(base: str, head: Path) -> Iterator[tuple[Tree, Tree]]:
    """Base and head, ready to run in; temporary files are gone afterwards.

    Raises SpeedproofError where the head is no git tree of ours, or the base names no commit.
    """
    root = head.resolve()
    if not all((root / part).is_dir() for part in (*_CODE, _HARNESS)):
        raise SpeedproofError(f"--head {head}: expected the root of a Speedproof tree, with {', '.join(_CODE)}")
    commit = _git(root, "rev-parse", "--verify", "--quiet", f"{base}^{{commit}}", what=f"--base {base}")
    with tempfile.TemporaryDirectory(prefix="speedproof-gate-") as scratch:
        checkout = Path(scratch) / "checkout"
        _git(root, "worktree", "add", "--detach", str(checkout), commit, what=f"--base {base}")
        try:
            if not all((checkout / part).is_dir() for part in _CODE):
                raise SpeedproofError(f"--base {base}: that commit has no {' or no '.join(_CODE)}: give a later one")
            python = _python(checkout, root, base)
            yield (
                _linked(Path(scratch) / "base", checkout, root, base, python),
                _linked(Path(scratch) / "head", root, root, str(head), Path(sys.executable)),
            )
        finally:
            _git(root, "worktree", "remove", "--force", str(checkout), what="the base's checkout")


def _linked(folder: Path, own: Path, head: Path, name: str, python: Path) -> Tree:
    """A folder of links to a side's tree, with the harness of the head."""
    folder.mkdir()
    weights = folder / "weights"
    weights.mkdir()
    for part in sorted(own.iterdir()):
        if part.name not in {_HARNESS, "weights", ".git"}:
            (folder / part.name).symlink_to(part)
    (folder / _HARNESS).symlink_to(head / _HARNESS)
    tracked = set(_git(head, "ls-files", "weights", what="weights").splitlines())
    for source in (own, head):
        for file in sorted(path for path in source.glob("weights/**/*") if path.is_file()):
            relative = file.relative_to(source)
            link = folder / relative
            if (source == own or relative.as_posix() not in tracked) and not link.exists():
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(file)
    return Tree(name, folder, python, cache_root() / "gate" / sources_digest(own, _CODE)[:32])


def _python(base: Path, head: Path, name: str) -> Path:
    """This environment's Python, or that of one with the base's own dependencies, where they differ from the head's."""
    packages = _packages(base)
    if packages == _packages(head):
        return Path(sys.executable)

    def build(folder: Path) -> None:
        print(f"gate: {name} has other dependencies, which are installed into an environment of its own", flush=True)
        try:
            venv.create(folder / "venv", with_pip=True, symlinks=True)
        except subprocess.CalledProcessError as error:
            raise SpeedproofError(
                f"--base {name}: no environment can be made ({error}): install python3-venv"
            ) from error
        command = [str(folder / "venv/bin/python"), "-m", "pip", "install", "--quiet", *packages]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise SpeedproofError(f"--base {name}: its dependencies cannot be installed ({reason})")

    folder, _ = artefact("gate_environment", {"packages": packages, "python": sys.version}, build)
    return folder.resolve() / "venv/bin/python"


def _packages(tree: Path) -> list[str]:
    """What is installed to run a tree on a CPU."""
    try:
        project = tomllib.loads((tree / "pyproject.toml").read_text())["project"]
    except (OSError, KeyError, tomllib.TOMLDecodeError) as error:
        raise SpeedproofError(f"{tree / 'pyproject.toml'} cannot be read ({error}): expected a [project]") from error
    return [*project.get("dependencies", []), *project.get("optional-dependencies", {}).get("cpu", [])]


def _git(root: Path, *arguments: str, what: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise SpeedproofError("git is not installed: base against head needs it") from None
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["git knows no such commit"])[-1]
        raise SpeedproofError(f"{what}: {reason}; give a commit, a branch or a tag of the repository in {root}")
    return done.stdout.strip()
