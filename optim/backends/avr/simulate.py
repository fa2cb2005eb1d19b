"""Run a firmware in simavr, an instruction-exact simulator of the chip: lines in, answers, logits and cycles out.

`runner.c` is compiled against libsimavr once and kept; a `Simulator` is a process of it that stays alive between lines.
"""

from __future__ import annotations

import subprocess
import weakref
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.errors import SpeedproofError
from optim.backends.avr.build import HERE, INSTALL, SRAM_START, Firmware, works
from optim.backends.cache import artefact

FREQUENCY_HZ = 16_000_000
_RUNNER = HERE / "runner.c"
_COMPILE = ("cc", "-O2", "-I/usr/include/simavr")
_MOST_CYCLES = 60 * FREQUENCY_HZ  # of the chip's time a line
_MOST_BYTES = 1_000  # of a line, which the runner reads in hex


@cache
def missing_simulator() -> str | None:
    """None, or why nothing can be simulated here."""
    headers = ["-include", "simavr/sim_avr.h", "-include", "libelf.h", "-E", "-x", "c", "/dev/null"]
    return None if works([*_COMPILE, *headers]) else f"a C compiler, libsimavr or libelf is missing: {INSTALL}"


@cache
def _runner() -> Path:
    def build(folder: Path) -> None:
        command = [*_COMPILE, str(_RUNNER), "-o", str(folder / "runner"), "-lsimavr", "-lelf"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SpeedproofError(f"{_RUNNER.name} does not compile ({done.stderr.strip()[:160]}): {INSTALL}")

    folder, _ = artefact("avr_runner", {"source": _RUNNER.read_text(), "command": _COMPILE}, build)
    return folder / "runner"


@dataclass(frozen=True, eq=False)
class Answer:
    """What the chip said to a line, and what it took.

    ``logits`` int16 (characters, classes) has a row for each character computed, the end mark too; ``cycles`` has one
    entry each, ``query_cycles`` is spent once before them. ``starts`` of the chip: more than 1 is a reset by the
    watchdog. ``stack_bytes`` is the most that was used so far, counted on the painted memory.
    """

    text: bytes
    logits: NDArray[np.int16]
    query_cycles: int
    cycles: tuple[int, ...]
    stack_bytes: int
    starts: int
    watchdog_on: bool

    @property
    def total_cycles(self) -> int:
        """Cycles of all computing."""
        return self.query_cycles + sum(self.cycles)

    @property
    def cycles_per_character(self) -> float:
        """Cycles of a character, the encoding included and the query's part shared; 0 for a line that was refused."""
        return self.total_cycles / max(1, len(self.cycles))


class Simulator:
    """A chip that runs a firmware, from its start on. `ask` sends a line; it is one chip, so one line at a time."""

    def __init__(self, firmware: Firmware) -> None:
        self._firmware = firmware
        self._start()

    def _start(self) -> None:
        firmware = self._firmware
        addresses = [str(number) for number in (firmware.sums_address, firmware.classes, firmware.end_address)]
        self._process = subprocess.Popen(
            [str(_runner()), str(firmware.elf), firmware.chip.name, *addresses],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.close = weakref.finalize(self, _end, self._process)

    def ask(self, line: bytes, characters: int = 0) -> Answer:
        """Send bytes, at the port's speed, and wait for a newline; what is no line of its own needs ``\\n`` at its end.

        After so many ``characters``, 0: any number, the chip is not waited for, but started anew. Raises
        SpeedproofError for more than 1,000 bytes or several lines; and, with a new chip for the next line, where
        nothing comes within a minute of the chip's time, the stack fills all memory, or the simulator dies.
        """
        if len(line) > _MOST_BYTES or b"\n" in line[:-1]:
            raise SpeedproofError(
                f"{len(line):,} bytes that begin with {line[:40]!r} are no line for the chip: expected at most "
                f"{_MOST_BYTES:,}, and a newline at their end alone"
            )
        reply = self._exchange(line, characters)
        try:
            self._check(line, reply)
        except SpeedproofError:
            self.close()
            self._start()  # else the next answer could be this line's
            raise
        text, _, starts, watchdog, stack, query, *computed = reply
        pairs = [character.split(":") for character in computed]
        logits = np.array([values.split(",") for _, values in pairs], np.int16)
        return Answer(
            b"" if text == "-" else bytes.fromhex(text),
            logits.reshape(len(pairs), self._firmware.classes),
            int(query),
            tuple(int(cycles) for cycles, _ in pairs),
            int(stack),
            int(starts),
            watchdog == "1",
        )

    def _exchange(self, line: bytes, characters: int = 0) -> list[str]:
        """The words of the runner's reply, see runner.c; none where it has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(f"{_MOST_CYCLES} {characters} {line.hex()}\n")
            self._process.stdin.flush()
            return self._process.stdout.readline().split()
        except OSError:
            return []

    def _check(self, line: bytes, reply: list[str]) -> None:
        firmware = self._firmware
        room = SRAM_START + firmware.chip.sram_bytes - firmware.end_address
        if len(reply) >= 6 and int(reply[4]) >= room:  # how far it went beyond is not seen
            raise SpeedproofError(
                f"the network is too big for the {firmware.chip.name}: its variables leave {room:,} bytes, and the "
                f"stack has no room left in them; prune it"
            )
        if len(reply) < 6 or reply[1] != "answered":
            raise SpeedproofError(
                f"the firmware {firmware.elf} did not answer {line[:40]!r} on the simulated {firmware.chip.name} "
                f"({reply[1] if len(reply) > 1 else 'the simulator ended'}): this is a fault in the engine, or the "
                f"network does not leave room for the stack"
            )


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe:
            pipe.close()
