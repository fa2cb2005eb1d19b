"""A network as firmware: the header is generated, avr-gcc compiles it with the engine, the ELF file tells its size.

The measured build and the Arduino sketch are the same sources; only what the Arduino library does around a sketch
(`main.cpp`) is ours. Builds are kept by content (`optim.backends.cache`).
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from models.errors import SpeedproofError
from models.files import save_text
from models.integer import IntegerNet
from optim.backends.avr.header import fast_header, plain_header
from optim.backends.cache import artefact

HERE = Path(__file__).parent
SKETCH = HERE / "sketch"
INSTALL = "apt install gcc gcc-avr avr-libc simavr libsimavr-dev libelf-dev"
SRAM_START = 0x100  # the address, on both chips
SMALLEST_STACK_BYTES = 32  # without it not even a first answer can be asked for, which measures the stack
_FLAGS = ("-O2", "-DF_CPU=16000000UL", "-Wall", "-Wextra", "-ffunction-sections", "-fdata-sections")


@dataclass(frozen=True)
class Chip:
    """A microcontroller: its name for the compiler and the simulator, and what it has."""

    name: str
    flash_bytes: int  # less 512 for the boot loader
    sram_bytes: int


UNO = Chip("atmega328p", 32_256, 2_048)
# Instructions take as long, and there is room for a network that does not fit on an UNO.
# Of its 128 KiB of flash the engine's pgm_read reaches the first 64 KiB alone: a pointer has 16 bits.
LARGE = Chip("atmega1284p", 65_536, 16_384)


@dataclass(frozen=True)
class Firmware:
    """A linked program: static sizes in bytes, and the addresses that the simulator needs."""

    elf: Path
    chip: Chip
    flash_bytes: int
    sram_bytes: int  # static variables, the stack not included
    sums_address: int  # of the logits
    end_address: int  # of the static variables
    classes: int

    def check(self, stack_bytes: int = 0) -> None:
        """Raise SpeedproofError where the chip has too little memory; says of which, and by how many bytes."""
        sram = self.sram_bytes + stack_bytes
        for memory, has, needs in (
            ("flash", self.chip.flash_bytes, self.flash_bytes),
            ("SRAM", self.chip.sram_bytes, sram),
        ):
            if needs > has:
                raise SpeedproofError(
                    f"the network is too big for the {self.chip.name}: {needs:,} bytes of {memory} are "
                    f"{needs - has:,} more than the {has:,} it has; prune it, or take fewer bits a weight"
                )


@cache
def missing_compiler() -> str | None:
    """None, or why no firmware can be compiled here."""
    probe = ["-mmcu=" + UNO.name, "-x", "c++", "-include", "avr/io.h", "-E", "/dev/null"]
    return None if works(["avr-g++", *probe]) else f"avr-gcc or avr-libc is missing: {INSTALL}"


def works(command: Sequence[str]) -> bool:
    """Whether a program is there and ends well."""
    return shutil.which(command[0]) is not None and subprocess.run(command, capture_output=True).returncode == 0


def build_firmware(net: IntegerNet, chip: Chip = UNO, *, plain: bool = False) -> tuple[Firmware, bool]:
    """The firmware of a network, fast or plain, and whether it was built before.

    Raises SpeedproofError for a network that the chip cannot hold and where the compiler fails. The stack is not known
    here: `Firmware.check` takes it.
    """
    header = plain_header(net) if plain else fast_header(net, chip.flash_bytes)
    engine = HERE / "plain.c" if plain else SKETCH / "engine.c"
    sources = [engine, SKETCH / "engine.h", SKETCH / "tinychat.ino", HERE / "main.cpp"]
    digest = hashlib.sha256(b"".join([header.encode(), *(source.read_bytes() for source in sources)])).hexdigest()
    parts: dict[str, object] = {"sources": digest, "chip": chip.name, "flags": _FLAGS, "gcc": _gcc_version()}

    def build(folder: Path) -> None:
        (folder / "model.h").write_text(header)
        _compile(folder, engine, chip)
        (folder / "sizes.json").write_text(json.dumps(_sizes(folder / "firmware.elf")))

    folder, kept = artefact("avr", parts, build)
    sizes = json.loads((folder / "sizes.json").read_text())
    firmware = Firmware(folder / "firmware.elf", chip, classes=net.classes, **sizes)
    firmware.check(SMALLEST_STACK_BYTES)
    return firmware, kept


@cache
def _gcc_version() -> str:
    return _run(["avr-gcc", "--version"]).splitlines()[0]


def _compile(folder: Path, engine: Path, chip: Chip) -> None:
    common = [f"-mmcu={chip.name}", *_FLAGS, f"-I{SKETCH}", f"-I{folder}"]
    objects = []
    for source in (engine, SKETCH / "tinychat.ino", HERE / "main.cpp"):
        objects.append(str(folder / f"{source.stem}.o"))
        language = ["-x", "c", "-std=gnu99"] if source.suffix == ".c" else ["-x", "c++", "-std=gnu++11"]
        _run(["avr-gcc", *common, *language, "-c", str(source), "-o", objects[-1]])
    # The linker is told of a flash larger than any, so that what does not fit is told by the byte.
    region = "--defsym=__TEXT_REGION_LENGTH__=8M"
    linking = [f"-mmcu={chip.name}", f"-Wl,--gc-sections,{region}"]
    _run(["avr-gcc", *linking, *objects, "-o", str(folder / "firmware.elf")])


def _sizes(elf: Path) -> dict[str, int]:
    """Sections and symbols of an ELF file, as the fields of `Firmware`."""
    rows = [line.split() for line in _run(["avr-size", "-A", str(elf)]).splitlines()]
    sections = {row[0]: int(row[1]) for row in rows if row and row[0].startswith(".")}
    named = [line.split() for line in _run(["avr-nm", str(elf)]).splitlines()]
    symbols = {row[-1]: int(row[0], 16) & 0xFFFF for row in named if len(row) == 3}
    data = sections.get(".data", 0)
    return {
        "flash_bytes": sections[".text"] + data,
        "sram_bytes": symbols["_end"] - SRAM_START,  # what alignment skips counts too
        "sums_address": symbols["sums"],
        "end_address": symbols["_end"],
    }


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        said = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip()[:160])
        raise SpeedproofError(f"{command[0]} failed ({said}): check that it is Debian's, {INSTALL}")
    return done.stdout


def write_sketch(net: IntegerNet, folder: Path) -> Path:
    """Write the Arduino sketch of a network into ``folder/tinychat``, a name that the Arduino program wants.

    Raises SpeedproofError where the folder cannot be written or the network cannot be numbered by bytes.
    """
    header = fast_header(net, UNO.flash_bytes)
    sketch = folder / "tinychat"
    for source in sorted(SKETCH.iterdir()):
        save_text(sketch / source.name, source.read_text())
    save_text(sketch / "model.h", header)
    return sketch
