"""Backends ``avr`` and ``avr_plain``: an integer network as firmware of an 8-bit AVR, in clock cycles at 16 MHz.

The chip is an ATmega328P, an Arduino UNO's, simulated by simavr; `header` writes the model as C, `build` compiles it,
`simulate` runs it. ``avr_plain`` is the plain reference that ``avr`` is compared with: the straightforward loop over
2-bit weights and all 256 counts (plain.c), on an ATmega1284P, whose instructions take as long, where that needs more
memory than an UNO has. A call is one character: the query's part and that of the character, its encoding included.

``python -m optim.backends.avr MODEL -o FOLDER`` writes a network as an Arduino sketch.

Mechanism: counts that are zero cost nothing, and weights are read as packed bits. Limits: networks in integers of one
or two bits a weight. Risk: int16 sums wrap where inputs exceed what the shifts were chosen for.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import nn

from models.data.chat import RECENT
from models.errors import SpeedproofError
from models.integer import IntegerLayer, IntegerNet, IntegerTinychat
from models.workload import Tensors
from optim.backends.avr.build import LARGE, UNO, Firmware, build_firmware, missing_compiler
from optim.backends.avr.simulate import FREQUENCY_HZ, Answer, Simulator, missing_simulator
from optim.backends.base import Backend, Coverage, CycleRunner, Runner, Target, unsupported


class AvrRunner(CycleRunner):
    """A firmware on a simulated chip.

    Takes ``query`` uint8 (1, 64), zeros behind it, and ``recent`` uint8 (1, 8); returns logits float32 (1, classes).
    ``answer`` sends a whole query; ``stack_bytes`` is the most that the stack has held so far.
    """

    frequency_hz = FREQUENCY_HZ

    def __init__(self, firmware: Firmware, layers: int, build_s: float, from_cache: bool) -> None:
        super().__init__(size_bytes=firmware.flash_bytes, build_s=build_s, from_cache=from_cache)
        self.firmware = firmware
        self.stack_bytes = 0
        self.cycles = 0
        self._layers = layers
        self._simulator = Simulator(firmware)

    def answer(self, query: bytes, recent: bytes = b"", characters: int = 0) -> Answer:
        """Send a query, with the answer so far if any, and wait for the rest of the answer, or for some characters.

        Raises SpeedproofError for a query with a newline, carriage return or TAB, which mean something on the line, an
        answer so far with them, and where the chip has no room for the stack.
        """
        if any(byte in query + recent for byte in b"\n\r\t"):
            raise SpeedproofError(f"the query {query!r} holds a newline, carriage return or TAB: leave them out")
        answer = self._simulator.ask(query + b"\t" + recent + b"\n", characters)
        self.stack_bytes = answer.stack_bytes
        self.firmware.check(answer.stack_bytes)
        return answer

    def __call__(self, *inputs: torch.Tensor) -> Tensors:
        query, recent = inputs
        if query.shape[0] != 1 or recent.shape != (1, RECENT):
            raise SpeedproofError(
                f"the firmware answers one query at a time: expected query (1, 64) and recent (1, {RECENT}), found "
                f"{tuple(query.shape)} and {tuple(recent.shape)}"
            )
        answer = self.answer(bytes(query[0].tolist()).split(b"\0")[0], bytes(recent[0].tolist()), 1)
        self.cycles = answer.query_cycles + answer.cycles[0]
        return (torch.from_numpy(answer.logits[:1].astype(np.float32)),)

    def facts(self) -> dict[str, float | str]:
        """Memory, and whether an UNO has as much; the stack is the most of all calls so far."""
        chip, sram = self.firmware.chip, self.firmware.sram_bytes + self.stack_bytes
        fits = self.firmware.flash_bytes <= UNO.flash_bytes and sram <= UNO.sram_bytes
        return {
            "chip": chip.name,
            "flash_bytes": self.firmware.flash_bytes,
            "sram_bytes": sram,
            "stack_bytes": self.stack_bytes,
            "fits": "yes" if fits else "no",
        }

    def coverage(self, inputs: Tensors) -> Coverage:
        """Every layer runs on the chip in int16: the binary holds nothing else."""
        self(*inputs)
        return Coverage({f"{self.firmware.chip.name}/int16": self._layers})


class Avr(Backend):
    """The fast engine on an UNO."""

    name = "avr"
    reference = "avr_plain"

    def missing(self, precision: str, target: Target) -> str | None:
        if (reason := unsupported(precision, target, ("cpu",))) is not None:
            return reason
        if precision != "fp32":
            return f"computes in int16 whatever the precision: take fp32, not {precision}"
        return missing_compiler() or missing_simulator()

    def compile(
        self,
        module: nn.Module,
        example: Tensors,
        precision: str,  # noqa: ARG002
        target: Target,  # noqa: ARG002
    ) -> Runner:
        start = time.perf_counter()
        net = self._net(module)
        firmware, kept = self._build(net)
        runner = AvrRunner(firmware, len(net.layers), time.perf_counter() - start, kept)
        runner(*example)  # measures the stack
        return runner

    def _build(self, net: IntegerNet) -> tuple[Firmware, bool]:
        return build_firmware(net)

    def _net(self, module: nn.Module) -> IntegerNet:
        found = [part.net for part in module.modules() if isinstance(part, IntegerTinychat)]
        if len(found) != 1:
            raise SpeedproofError(
                f"avr runs integer networks only, and {type(module).__name__} holds {len(found)}: give a workload of "
                f"tinychat_text and a recipe that ends in integers"
            )
        return found[0]


class AvrPlain(Avr):
    """The straightforward engine, on an UNO where it fits.

    Of a float network it takes the weights by z80ai's rule for 2 bits, untrained: its cycles, for which it is here, are
    those of the network's size, its answers are nobody's.
    """

    name = "avr_plain"

    def _build(self, net: IntegerNet) -> tuple[Firmware, bool]:
        try:
            firmware, kept = build_firmware(net, plain=True)
            firmware.check(_PLAIN_STACK_BYTES)
        except SpeedproofError:
            return build_firmware(net, LARGE, plain=True)
        return firmware, kept

    def _net(self, module: nn.Module) -> IntegerNet:
        linears = [part for part in module.modules() if isinstance(part, nn.Linear)]
        if any(isinstance(part, IntegerTinychat) for part in module.modules()) or not linears:
            return super()._net(module)
        layers = tuple(_rounded(linear) for linear in linears)
        characters = "".join(map(chr, range(ord(" "), ord(" ") + len(layers[-1].bias) - 1)))
        return IntegerNet(layers, 5, "2bit", characters)


_PLAIN_STACK_BYTES = 192  # measured: 159


def _rounded(linear: nn.Linear) -> IntegerLayer:
    weights = linear.weight.detach().double().cpu().numpy()
    scale = max(float(np.quantile(np.abs(weights), 0.95)), 1e-6)
    q = np.clip(np.round(weights / scale), -2, 1).astype(np.int8)
    return IntegerLayer(q, np.zeros(len(q), np.int16), 2)


BACKEND = Avr()
PLAIN = AvrPlain()
