"""A child process builds and runs the candidate once, before anything is measured.

Its peak is the memory figure, its artefacts fill the cache, and its death - out of memory, segmentation fault, hang -
is the reason of one row instead of the end of the session. Children are forked from a server that has imported torch
and run nothing, so that one starts at once and its peak belongs to its model alone.

What a child found is kept by content like any artefact: the same module, code, versions and machine need no second
child, as long as there is memory for the peak that the first one had.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil
import torch

from bench_tests.harness.case import Case, NotMeasuredError, Settings, explained
from bench_tests.harness.fingerprint import versions
from bench_tests.harness.resources import available_memory_bytes
from bench_tests.harness.session import Session, to_device
from optim.backends.cache import artefact, kept_artefact

_MEMORY_SHARE = 0.9  # of what is available when the child starts: past it the machine would swap or kill others


@dataclass(frozen=True)
class Rehearsal:
    """What the child found."""

    cpu_peak_memory_bytes: int
    cpu_base_memory_bytes: int  # of the same process before the model was built: Python, torch and its libraries
    gpu_peak_memory_bytes: int
    build_s: float
    from_cache: bool
    kept: bool = False  # found by the child of an earlier run, for the same content


def rehearse_once(case: Case, session: Session) -> Rehearsal:
    """What a child found for a case, in this run or an earlier one. Raises NotMeasuredError as `rehearse` does."""
    parts = _parts(case, session)
    # The key needs the module's digest, and only a build that a child has survived is tried in this process.
    if kept_artefact("built", parts):
        folder = kept_artefact("rehearsal", parts | {"module": session.digest(case)})
        if folder is not None:
            found = Rehearsal(**json.loads((folder / "rehearsal.json").read_text()))
            if found.cpu_peak_memory_bytes < available_memory_bytes() * _MEMORY_SHARE:
                return replace(found, kept=True)
    found = rehearse(case, session.settings)
    artefact(
        "rehearsal",
        parts | {"module": session.digest(case)},
        lambda folder: (folder / "rehearsal.json").write_text(json.dumps(asdict(found))),
    )
    artefact("built", parts, lambda _folder: None)
    return found


def _parts(case: Case, session: Session) -> dict[str, object]:
    """What a child's finding depends on beside the module's content: case, weights file, code, versions, machine."""
    settings, weights, backend = session.settings, session.weights(case).path, session.backend(case)
    stat = weights.stat() if weights is not None and weights.exists() else None
    spec = settings.specs.get(case.workload, case.workload)
    own_code = [sys.modules[name.partition(":")[0]].__file__ for name in (spec, case.backend) if ":" in name]
    found = versions(settings.device, (backend.package, "onnx", "onnxscript"))
    return {
        "case": asdict(case),
        "workload": spec,
        "weights": None if stat is None else [str(weights), stat.st_size, stat.st_mtime_ns],
        "code": [_code_digest(), *(_file_digest(Path(file)) for file in own_code if file)],
        "versions": {name: value for name, value in found.items() if name not in {"commit", "governor"}},
        "machine": session.fingerprint.folder(),
    }


@cache
def _code_digest() -> str:
    """Digest of all sources of models, backends and harness: a changed one may need other memory, or crash."""
    return sources_digest(Path(__file__).parents[2], ("models", "optim", "bench_tests/harness"))


def sources_digest(root: Path, folders: Sequence[str]) -> str:
    """SHA-256 of the names and contents of all Python files in some folders of a tree."""
    digest = hashlib.sha256()
    for folder in folders:
        for file in sorted((root / folder).rglob("*.py")):
            digest.update(f"{file.relative_to(root)}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()


def _file_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def rehearse(case: Case, settings: Settings) -> Rehearsal:
    """Build and run a case once in a child. Raises NotMeasuredError with the reason where that fails."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["bench_tests.harness.rehearsal", "models.resnet", "optim.backends.eager"])
    receiver, sender = context.Pipe(duplex=False)
    limit_bytes = int(available_memory_bytes() * _MEMORY_SHARE)
    environment = dict(os.environ)  # the server keeps the one that it was started in
    child = context.Process(target=_build_and_run, args=(case, settings, environment, sender), daemon=True)
    try:
        child.start()
        sender.close()
        _wait(child, receiver, limit_bytes, settings.timeout_s)
        if not receiver.poll():
            raise EOFError
        answer = receiver.recv()
    except EOFError:
        child.join(10)
        raise _death(child.exitcode) from None
    finally:
        if child.pid is not None:  # None: interrupted while it started; it ends itself, see `_end_with_parent`
            child.kill()
            child.join()
        receiver.close()
    if isinstance(answer, Rehearsal):
        return answer
    status, reason = answer
    raise NotMeasuredError(status, reason)


def _wait(child: BaseProcess, receiver: Connection, limit_bytes: int, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    process = psutil.Process(child.pid)
    while not receiver.poll(0.05):
        if not child.is_alive():
            return
        if time.monotonic() > deadline:
            child.kill()
            raise NotMeasuredError("failed", f"hung: not built and run once within {timeout_s:.0f} s (--case-timeout)")
        try:
            used_bytes = process.memory_info().rss
        except psutil.NoSuchProcess:
            return
        if used_bytes > limit_bytes:
            child.kill()
            raise NotMeasuredError(
                "out of memory", f"out of memory: more than {limit_bytes / 2**30:.1f} GiB, 90 % of what was available"
            )


def _death(exitcode: int | None) -> NotMeasuredError:
    """The reason in words for a child that ended without an answer."""
    if exitcode == -signal.SIGKILL:
        return NotMeasuredError("out of memory", "out of memory: the system killed the process that tried it")
    if exitcode is not None and exitcode < 0:
        return NotMeasuredError(
            "failed", f"crashed: the process that tried it died of {signal.Signals(-exitcode).name}"
        )
    return NotMeasuredError("failed", f"crashed: the process that tried it ended with exit code {exitcode}")


def _build_and_run(case: Case, settings: Settings, environment: dict[str, str], sender: Connection) -> None:
    """Run in the child: answer with a Rehearsal, or with status and reason."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C is the parent's to report; the child just ends
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _be_killed_first()
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(settings.threads)
    base_bytes = _peak_bytes()
    try:
        session = Session(settings)
        runner = session.compile(case)
        runner(*to_device([session.example(case)], runner.device)[0])
        gpu_bytes = torch.cuda.max_memory_allocated() if runner.device == "cuda" else 0
        sender.send(Rehearsal(_peak_bytes(), base_bytes, gpu_bytes, runner.build_s, runner.from_cache))
    except Exception as error:  # whatever a backend raises is this case's reason, not the session's end
        failure = explained(case, error)
        sender.send((failure.status, failure.reason))


def _end_with_parent() -> None:
    """A parent that was killed must not leave its child behind, which may hang or hold most of the memory."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _be_killed_first() -> None:
    """Should the system run out of memory, this process dies and not the session."""
    try:
        Path("/proc/self/oom_score_adj").write_text("1000")
    except OSError:  # no Linux
        return
