"""What a recipe made of a model, beside its speed: size, parameters, arithmetic, zeros; for the record."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from torch import nn

from bench_tests.harness.case import Case
from bench_tests.harness.record import Record
from bench_tests.harness.session import Session, original_of
from optim.backends.base import is_quantized
from optim.backends.eager import weight_bytes
from optim.prune import compressed_bytes, parameters, sparsity

INT8 = ("int8", "uint8")
_GRID = re.compile("scale|zero_point")  # of a quantized tensor, no parameters of the model


def method_record(case: Case, session: Session) -> Record:
    """The recipe's configs and what its module is, beside the original's; the same for every backend."""
    record: Record = {"recipe_steps": session.recipe(case.recipe).description()}
    for suffix, own in (("", case), ("_original", original_of(case))):
        facts = _facts(session.module(own))
        record |= {f"{name}{suffix}": value for name, value in facts.items()}
        record[f"macs{suffix}"] = round(session.gflop(own) * 1e9 / 2)
    record["size_bytes_original"] = weight_bytes(session.module(original_of(case)))
    return record


@lru_cache(4)  # no more modules than the session itself holds
def _facts(module: nn.Module) -> dict[str, float]:
    facts = {"parameters": parameters(module), "compressed_bytes": compressed_bytes(module)}
    if is_quantized(module):
        tensors = {name: tensor for name, tensor in module.state_dict().items() if not _GRID.search(name)}
        return facts | {"parameters": sum(tensor.numel() for tensor in tensors.values())}
    return facts | {"sparsity": sparsity(module)["overall"]}


def int8_operators(operators: Mapping[str, int]) -> int:
    """How many of the operators that ran, counted by ``place/dtype``, computed in eight bits."""
    return sum(count for key, count in operators.items() if key.rpartition("/")[2] in INT8)
