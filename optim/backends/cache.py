"""Artefacts on disk (exports, compiled models, oracle outputs), keyed by the content they were made from.

A key is the SHA-256 of everything that could change the artefact: the module's weights, its options and the source of
its classes, shapes, precision, threads, and the versions of the libraries. Nothing is ever overwritten: a change makes
another key. An artefact is built in a temporary folder and renamed, so a killed build leaves nothing half-written.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import shutil
import tempfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from types import CodeType, FunctionType, MappingProxyType

import numpy as np
import torch
from torch import Tensor, nn

from models.errors import SpeedproofError
from models.files import cache_root
from models.workload import Tensors


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


def _described(value: object, depth: int = 0) -> str:
    """Content of an option in words, equal for equal content in every process."""
    if isinstance(value, Tensor):
        return tensors_digest((value,))
    if isinstance(value, np.ndarray):
        return tensors_digest((torch.from_numpy(value),))
    if depth > 20:  # it refers to itself
        return type(value).__qualname__
    described = partial(_described, depth=depth + 1)
    if isinstance(value, nn.Module):  # one that is no part of the module: in a list, say
        return described([str(value), value.state_dict()])
    if isinstance(value, dict | MappingProxyType):
        return f"{{{', '.join(f'{key}: {described(value[key])}' for key in sorted(value, key=str))}}}"
    if isinstance(value, list | tuple | set | frozenset):
        parts = [described(part) for part in value]
        return f"[{', '.join(sorted(parts) if isinstance(value, set | frozenset) else parts)}]"
    if isinstance(value, FunctionType):
        closure = [cell.cell_contents for cell in value.__closure__ or ()]
        return f"{value.__module__}.{value.__qualname__} {described([value.__code__, value.__defaults__, closure])}"
    if isinstance(value, CodeType):
        return described([value.co_code.hex(), value.co_names, value.co_consts])
    if isinstance(value, partial):
        return described([value.func, value.args, value.keywords])
    if value is None or isinstance(value, _PLAIN):
        return repr(value)
    name = f"{type(value).__module__}.{getattr(value, '__qualname__', type(value).__qualname__)}"
    return name if isinstance(value, type) or not hasattr(value, "__dict__") else f"{name} {described(vars(value))}"


_PLAIN = (bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size, torch.memory_format)


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


def kept_artefact(kind: str, parts: dict[str, object]) -> Path | None:
    """The folder of an artefact that is there already, else None."""
    folder = _folder(kind, parts)
    return folder if folder.is_dir() else None


def work_folder(kind: str, parts: dict[str, object]) -> Path:
    """A folder for the state of an artefact in the making, where a killed build finds it again."""
    folder = _folder(f"{kind}_unfinished", parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def artefact(kind: str, parts: dict[str, object], build: Callable[[Path], object]) -> tuple[Path, bool]:
    """The folder of an artefact, and whether it was there already.

    ``parts`` is everything that the artefact depends on, as JSON; ``build`` fills the empty folder it is given.
    """
    folder = _folder(kind, parts)
    if folder.is_dir():
        return folder, True
    check_writable()
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name[:8]}-", dir=cache_root()))
    try:
        build(scratch)
        (scratch / "key.json").write_text(json.dumps(parts, indent=1, sort_keys=True))
        folder.parent.mkdir(exist_ok=True)
        try:
            scratch.rename(folder)
        except OSError:  # another process finished the same artefact first; both are equal
            if not folder.is_dir():
                raise
    except OSError as error:
        raise SpeedproofError(
            f"the {kind} artefact cannot be written to {folder} ({error.strerror or error}): free the disk, "
            f"or set SPEEDPROOF_CACHE to another folder"
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder, False


def _folder(kind: str, parts: dict[str, object]) -> Path:
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
    return cache_root() / kind / key
