"""Artefacts on disk (exports, compiled models, oracle outputs), keyed by the content they were made from.

A key is the SHA-256 of everything that could change the artefact: the module's weights, its options and the source of
its classes, shapes, precision, threads, and the versions of the libraries. Nothing is ever overwritten: a change makes
another key. An artefact is built in a temporary folder and renamed, so a killed build leaves nothing half-written.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import FunctionType

import torch
from torch import Tensor, nn

from models.errors import SpeedproofError
from models.workload import Tensors


def cache_root() -> Path:
    """The cache's folder: ``SPEEDPROOF_CACHE``, or ``speedproof`` in the user's own cache folder."""
    own = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "speedproof"
    return Path(os.environ.get("SPEEDPROOF_CACHE") or own)


def check_writable() -> None:
    """Raise SpeedproofError where the cache cannot be written, before any work is lost to it."""
    try:
        cache_root().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=cache_root()):
            pass
    except OSError as error:
        raise SpeedproofError(
            f"the cache folder {cache_root()} cannot be written ({error.strerror}): "
            f"set SPEEDPROOF_CACHE to a folder that can"
        ) from error


@cache
def _source_digest(cls: type) -> str:
    """Digest of the file that defines a class; torch's own are covered by torch's version."""
    if cls.__module__.split(".")[0] == "torch":
        return cls.__qualname__
    try:
        return hashlib.sha256(Path(inspect.getfile(cls)).read_bytes()).hexdigest()
    except (OSError, TypeError):  # made at run time: its code is in module_digest where it is a GraphModule
        return cls.__qualname__


def module_digest(module: nn.Module) -> str:
    """SHA-256 of a module's content: structure, options, source files of its classes, every parameter and buffer.

    Not seen are functions of other files that a forward calls, and globals.
    """
    digest = hashlib.sha256(str(module).encode())
    for name, part in module.named_modules():
        digest.update(f"{name} {type(part).__qualname__} {_source_digest(type(part))}".encode())  # type: ignore[arg-type]
        own = {key: value for key, value in vars(part).items() if key not in _BOOKKEEPING}
        digest.update(_described(own | {"parameters": part._parameters, "buffers": part._buffers}).encode())
        if isinstance(part, torch.fx.GraphModule):
            digest.update(part.code.encode())
    return digest.hexdigest()


# Of every nn.Module: its parts are described one by one, hooks do not survive an export.
_BOOKKEEPING = frozenset(vars(nn.Module()))


def _described(value: object) -> str:
    """Content of an option in words, equal for equal content in every process."""
    if isinstance(value, Tensor):
        return tensors_digest((value,))
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_described(value[key])}' for key in sorted(value, key=str))}}}"
    if isinstance(value, list | tuple | set | frozenset):
        parts = [_described(part) for part in value]
        return f"[{', '.join(sorted(parts) if isinstance(value, set | frozenset) else parts)}]"
    if isinstance(value, FunctionType):
        return f"{value.__module__}.{value.__qualname__} {hashlib.sha256(value.__code__.co_code).hexdigest()}"
    if value is None or isinstance(value, bool | int | float | str | torch.dtype):
        return repr(value)
    return f"{type(value).__module__}.{getattr(value, '__qualname__', type(value).__qualname__)}"


def tensors_digest(tensors: Tensors) -> str:
    """SHA-256 of the dtypes, shapes and values of some tensors."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def signature(example: Tensors) -> list[str]:
    """Dtype and shape of each input, in words for a key."""
    return [f"{tensor.dtype}{list(tensor.shape)}" for tensor in example]


def artefact(kind: str, parts: dict[str, object], build: Callable[[Path], None]) -> tuple[Path, bool]:
    """The folder of an artefact, and whether it was there already.

    ``parts`` is everything that the artefact depends on, as JSON; ``build`` fills the empty folder it is given.
    """
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
    folder = cache_root() / kind / key
    if folder.is_dir():
        return folder, True
    check_writable()
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{key[:8]}-", dir=folder.parent))
    try:
        build(scratch)
        (scratch / "key.json").write_text(json.dumps(parts, indent=1, sort_keys=True))
        try:
            scratch.rename(folder)
        except OSError:  # another process finished the same artefact first; both are equal
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder, False
