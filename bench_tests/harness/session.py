"""What the cases of one run share: workloads, modules, inputs, and the oracle's outputs, which are kept on disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bench_tests.harness.case import Case, NotMeasuredError, Settings
from bench_tests.harness.fingerprint import Fingerprint, fingerprint
from bench_tests.harness.parity import NUDGE, Deviation, deviations
from bench_tests.harness.record import ORIGINAL
from bench_tests.harness.roofline import Ceiling, ceiling, gflop
from models.workload import Predict, Quality, Tensors, Weights, Workload, load_workload
from optim.backends import load_backend
from optim.backends.base import Backend, Runner, Target, as_tuple, computes_in_int8, copied
from optim.backends.cache import artefact, module_digest, tensors_digest

if TYPE_CHECKING:  # the child that measures a model's memory shall not hold the libraries of all methods
    from optim.recipe import Recipe

SPLIT = "test"


class Session:
    """Loads each thing once. Oracle outputs and the original's quality survive the process, keyed by content."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.target = Target(settings.device, settings.threads)
        # Bounded, since a module is up to 100 MB; cases come ordered by workload, size and batch.
        self.workload = lru_cache(8)(self._workload)
        self._built = lru_cache(4)(self._build)
        self._inputs_of = lru_cache(2)(self._inputs)
        self._oracle_of = lru_cache(2)(self._oracle)
        self._gflop_of = lru_cache(16)(self._gflop)
        self._remeasured: set[str] = set()

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """The hardware that names the history's folder."""
        return fingerprint(self.settings.threads, self.settings.device)

    def _workload(self, name: str) -> Workload:
        return load_workload(self.settings.specs.get(name, name), self.settings.data)

    def case(self, workload: str, **cell: Any) -> Case:
        """The case of a workload's name and the rest of a cell of the matrix."""
        known = self.workload(workload)
        return Case(workload, known.data_name, unit=known.size_unit, **cell)

    def backend(self, case: Case) -> Backend:
        """The backend of a case."""
        return load_backend(case.backend)

    def weights(self, case: Case) -> Weights:
        """The weights of a case: those the user named, or the workload's own choice for the size."""
        given = self.settings.weights
        return (
            self.workload(case.workload).weights(case.size) if given is None else Weights(given, given.name, own=True)
        )

    def module(self, case: Case) -> nn.Module:
        """The module of a case in eval mode, on the CPU."""
        return self._built(case.workload, case.size, self.weights(case).path, case.recipe)[0]

    def digest(self, case: Case) -> str:
        """SHA-256 of the module's content."""
        return self._built(case.workload, case.size, self.weights(case).path, case.recipe)[1]

    def _build(self, name: str, size: int, weights: Path | None, recipe: str) -> tuple[nn.Module, str]:
        if recipe == ORIGINAL:
            module = self.workload(name).build(size, weights).eval().requires_grad_(False)
        else:
            from optim.recipe import follow

            original, _ = self._built(name, size, weights, ORIGINAL)
            module = follow(self.recipe(recipe), original, self.workload(name), self.settings.data, size)
        return module, module_digest(module)

    def recipe(self, name: str) -> Recipe:
        """What the user named by a recipe's name."""
        from optim.recipe import load_recipe

        return load_recipe(self.settings.recipes.get(name, name))

    def case_inputs(self, case: Case) -> tuple[Tensors, ...]:
        """The inputs on which parity is checked and time is taken; image workloads alternate real and random ones."""
        return self._inputs_of(_plain(case))

    def _inputs(self, case: Case) -> tuple[Tensors, ...]:
        seeds = 4 if case.batch >= 4 else 8  # enough outputs to tell a gain of 1 % from rounding
        first = self.settings.seed * 1000
        example = self.workload(case.workload).example
        return tuple(example(case.size, case.batch, first + seed) for seed in range(seeds))

    def compile(self, case: Case) -> Runner:
        """The candidate's runner."""
        return self.backend(case).compile(self.module(case), self.example(case), case.precision, self.target)

    def example(self, case: Case) -> Tensors:
        """Inputs to compile with: those of an odd seed, for which image workloads need no images."""
        return self.workload(case.workload).example(case.size, case.batch, 1)

    def reference(self, case: Case, precision: str = "fp32") -> Runner:
        """A runner of the backend that the candidate is compared with."""
        backend = load_backend(self.backend(case).reference)
        return backend.compile(self.module(original_of(case)), self.example(case), precision, self.target)

    def gflop(self, case: Case) -> float:
        """Billions of floating point operations of one call."""
        return self._gflop_of(_plain(case))

    def _gflop(self, case: Case) -> float:
        return gflop(self.module(case), self.case_inputs(case)[0])

    def ceiling(self, precision: str, exceeded: bool = False) -> Ceiling:
        """What this machine can reach in a precision, or in int8; measured again, once a run, where it was exceeded."""
        remeasure = exceeded and precision not in self._remeasured
        if remeasure:
            self._remeasured.add(precision)
        return ceiling(self.fingerprint, precision, self.settings.device, remeasure)

    def oracle(self, case: Case) -> tuple[Tensors, ...]:
        """Outputs of the module in float64 for each input, in its own dtype where it cannot be converted."""
        return self._oracle_of(_plain(case))

    def _oracle(self, case: Case) -> tuple[Tensors, ...]:
        inputs = self.case_inputs(case)

        def compute() -> dict[str, Tensor]:
            outputs = _float64_outputs(self.module(case), inputs, self.settings.device)
            return {f"{i}.{j}": tensor for i, row in enumerate(outputs) for j, tensor in enumerate(row)}

        found = _stored_tensors("oracle", self._parts(case), compute)
        counts = [max(int(key.split(".")[1]) for key in found) + 1] * len(inputs)
        return tuple(tuple(found[f"{i}.{j}"] for j in range(count)) for i, count in enumerate(counts))

    def eager_deviations(self, case: Case) -> list[Deviation]:
        """How far eager PyTorch in the case's precision is from the oracle; checks that eager equals itself.

        Of a quantized module, which is its own oracle: how far it is from itself when its inputs are nudged.
        """

        def build(folder: Path) -> None:
            eager = load_backend("eager").compile(
                self.module(case), self.case_inputs(case)[0], case.precision, self.target
            )
            on_device = to_device(self.case_inputs(case), eager.device)
            first, second = ([eager(*tensors) for tensors in on_device] for _ in range(2))
            if not all(
                torch.equal(a.nan_to_num(), b.nan_to_num())
                for left, right in zip(first, second, strict=True)
                for a, b in zip(left, right, strict=True)
            ):
                raise NotMeasuredError("failed", "determinism: PyTorch eager run twice does not equal itself")
            if computes_in_int8(self.module(case)):
                first = [eager(*nudged(tensors, seed)) for seed, tensors in enumerate(on_device)]
            found = [asdict(deviation) for deviation in deviations(first, self.oracle(case))]
            (folder / "deviations.json").write_text(json.dumps(found))

        parts = self._parts(case) | {"precision": case.precision, "machine": self.fingerprint.folder()}
        folder, _ = artefact("eager", parts, build)
        return [Deviation(**row) for row in json.loads((folder / "deviations.json").read_text())]

    def original_quality(self, case: Case) -> tuple[Quality, ...]:
        """Qualities of the original module in eager fp32 on the examples of the run."""
        case = original_of(case)
        workload, batch = self.workload(case.workload), min(8, case.batch)
        names: list[tuple[str, bool]] = []

        def compute() -> dict[str, Tensor]:
            example = workload.example(case.size, batch, 0)
            eager = load_backend("eager").compile(self.module(case), example, "fp32", self.target)
            qualities = workload.quality(predictor(eager), SPLIT, case.size, batch, self.settings.examples)
            found: dict[str, Tensor] = {"count": torch.tensor(len(qualities))}
            for index, quality in enumerate(qualities):
                found[f"{index}.outcomes"] = torch.from_numpy(quality.outcomes)
                found[f"{index}.answers"] = torch.from_numpy(quality.answers)
                found[f"{index}.value"] = torch.tensor([quality.value, quality.higher_is_better], dtype=torch.float64)
                names.append((quality.name, quality.higher_is_better))
                found[f"{index}.name.{quality.name}"] = torch.zeros(1)
            return found

        parts = self._parts(case) | {"examples": self.settings.examples, "split": SPLIT, "batch": batch}
        found = _stored_tensors("quality", parts, compute)
        return tuple(_quality_from(found, index) for index in range(int(found["count"])))

    def _parts(self, case: Case) -> dict[str, object]:
        """What oracle outputs depend on: the module's content, the inputs' values, the device, the version of torch."""
        inputs = tensors_digest(tuple(tensor for row in self.case_inputs(case) for tensor in row))
        device = f"{self.settings.device}:{self.settings.threads}"  # rounding depends on both
        return {"module": self.digest(case), "inputs": inputs, "device": device, "torch": torch.__version__}


def _plain(case: Case) -> Case:
    """The case with what inputs and oracle do not depend on taken out, so that neighbours share them."""
    return replace(case, backend="eager", precision="fp32")


def original_of(case: Case) -> Case:
    """The case without its recipe: what it is compared with."""
    return replace(case, recipe=ORIGINAL)


def nudged(inputs: Tensors, seed: int) -> Tensors:
    """Inputs with every float moved by about a thousandth of itself."""
    dice = torch.Generator().manual_seed(seed)
    return tuple(
        tensor * (1 + NUDGE * torch.randn(tensor.shape, generator=dice)).to(tensor.device, tensor.dtype)
        if tensor.is_floating_point()
        else tensor
        for tensor in inputs
    )


def to_device(inputs: Sequence[Tensors], device: str) -> list[Tensors]:
    """A copy of every tensor of every input on a device: a runner that writes to its inputs spoils no oracle."""
    return [tuple(tensor.to(device, copy=True) for tensor in tensors) for tensors in inputs]


def predictor(runner: Runner) -> Predict:
    """A runner as the function that a workload's quality asks: CPU tensors in, CPU tensors out."""

    def predict(inputs: Tensors) -> Tensors:
        return tuple(tensor.cpu() for tensor in runner(*(tensor.to(runner.device) for tensor in inputs)))

    return predict


def _float64_outputs(module: nn.Module, inputs: Sequence[Tensors], device: str) -> list[Tensors]:
    """Outputs on the CPU, in float64 where the module allows it."""
    with torch.inference_mode():
        try:
            double = copied(module).double().to(device)
            rows = [
                tuple(tensor.double() if tensor.is_floating_point() else tensor for tensor in tensors)
                for tensors in to_device(inputs, device)
            ]
            outputs = [as_tuple(double(*tensors)) for tensors in rows]
        except (AssertionError, RuntimeError, TypeError):
            # A dtype written into the module: its own is the best there is.
            plain = copied(module).to(device)
            outputs = [as_tuple(plain(*tensors)) for tensors in to_device(inputs, device)]
    return [tuple(tensor.cpu().clone() for tensor in row) for row in outputs]


def _stored_tensors(kind: str, parts: dict[str, object], compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    def build(folder: Path) -> None:
        # Cloned, since safetensors refuses two names for the same memory: qualities may share their answers.
        tensors = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in compute().items()}
        save_file(tensors, folder / "tensors.safetensors")

    folder, _ = artefact(kind, parts, build)
    return load_file(folder / "tensors.safetensors")


def _quality_from(found: dict[str, Tensor], index: int) -> Quality:
    name = next(key.split(".", 2)[2] for key in found if key.startswith(f"{index}.name."))
    value, higher = found[f"{index}.value"].tolist()
    outcomes: np.ndarray = found[f"{index}.outcomes"].numpy()
    return Quality(name, value, len(outcomes), bool(higher), outcomes, found[f"{index}.answers"].numpy())
