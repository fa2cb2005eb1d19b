"""``python -m optim.backends.avr MODEL -o FOLDER``: a network as an Arduino sketch, and what it takes of an UNO."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from models.chat_file import read_network
from models.command import run
from models.errors import SpeedproofError
from models.integer import IntegerNet
from optim.backends.avr.build import UNO, build_firmware, missing_compiler, write_sketch


def main(argv: Sequence[str]) -> int:
    """Run the command; 0 is success, 2 bad input told in one sentence on stderr, 130 Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m optim.backends.avr", description=__doc__)
    parser.add_argument("model", type=Path, help="an integer network of optim.recipe (.pt), its .npz, or z80ai's")
    parser.add_argument("-o", "--output", type=Path, default=Path(), metavar="FOLDER", help="where tinychat/ is put")
    options = parser.parse_args(argv)

    def body() -> None:
        net = _net(options.model)
        if (reason := missing_compiler()) is None:
            firmware, _ = build_firmware(net)
            print(
                f"{firmware.flash_bytes:,} of {UNO.flash_bytes:,} bytes of flash, {firmware.sram_bytes:,} of "
                f"{UNO.sram_bytes:,} bytes of SRAM before the stack and the Arduino library"
            )
        else:
            print(f"not compiled: {reason}", file=sys.stderr)
        sketch = write_sketch(net, options.output)
        print(f"wrote {sketch}: open {sketch / 'tinychat.ino'} in the Arduino program, board Arduino UNO, and upload")

    return run(body, "interrupted")


def _net(path: Path) -> IntegerNet:
    network = read_network(path)
    if not isinstance(network, IntegerNet):
        raise SpeedproofError(
            f"{path} holds a float network, which no AVR computes: give what a recipe of tinychat in integers wrote"
        )
    return network


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
