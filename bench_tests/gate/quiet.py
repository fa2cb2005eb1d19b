"""Is the machine quiet enough to measure on, and is another gate measuring already?

Foreign CPU time and steal are read from the system's counters over the span of a measurement; what they took of the
cores that the measurement needed is a share, and above `BUSY` the figures are not to be trusted.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil

from models.errors import SpeedproofError

BUSY = 0.15  # of the needed cores: a neighbour that takes half of one is seen, the system's own chores are not
_LOCK = "speedproof-gate.lock"


class Watch:
    """Counts, from its making on, what other processes and the hypervisor took of some cores.

    ``cpus`` are the cores that the measurement runs on, ``needed`` how many of them at a time.
    """

    def __init__(self, cpus: Iterable[int], needed: int) -> None:
        self._cpus, self._needed = sorted(cpus), needed
        self._started, self._before = time.perf_counter(), self._foreign_s()

    def foreign_share(self) -> float:
        """What was taken of the needed cores beyond those that were free anyway, 0 to 1."""
        wall_s = time.perf_counter() - self._started
        foreign = max(0.0, self._foreign_s() - self._before) / max(wall_s, 1e-9)
        spare = len(self._cpus) - self._needed
        return min(1.0, max(0.0, foreign - spare) / self._needed)

    def _foreign_s(self) -> float:
        """Seconds that the cores were not free, nor busy with this process and what it started."""
        times = psutil.cpu_times(percpu=True)
        return sum(_busy_s(times[cpu]) for cpu in self._cpus if cpu < len(times)) - _own_s()


def _busy_s(times: object) -> float:
    """Seconds of anything, those included that were lent to another machine."""
    return sum(float(getattr(times, name, 0.0)) for name in ("user", "nice", "system", "irq", "softirq", "steal"))


def _own_s() -> float:
    """CPU seconds of this process and of all that it started, also of those that are gone."""
    me, total = psutil.Process(), 0.0
    for process in (me, *me.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def quietest_cpu(span_s: float = 0.5) -> int:
    """The least busy of the cores that this process may use, looked at for a moment."""
    allowed = sorted(os.sched_getaffinity(0))
    before = psutil.cpu_times(percpu=True)
    time.sleep(span_s)
    after = psutil.cpu_times(percpu=True)
    return min(allowed, key=lambda cpu: _busy_s(after[cpu]) - _busy_s(before[cpu]) if cpu < len(after) else 0.0)


@contextlib.contextmanager
def alone(folder: Path | None = None) -> Iterator[None]:
    """Wait until no other gate measures on this machine, and keep others waiting."""
    file = (folder or Path(tempfile.gettempdir())) / _LOCK
    try:
        made = not file.exists()
        handle = os.open(file, os.O_RDWR | (os.O_CREAT if made else 0), 0o666)
        if made:
            os.fchmod(handle, 0o666)  # whatever the umask: other users' gates wait for it too
    except OSError:  # another user's, in a system that guards such files: read access is enough for a lock
        try:
            handle = os.open(file, os.O_RDONLY)
        except OSError as error:
            raise SpeedproofError(f"{file}: cannot be opened ({error.strerror}): remove it, or set TMPDIR") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("gate: another gate measures on this machine: waiting for it", file=sys.stderr, flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
