"""Where a model runs. One module a backend, imported only when it is asked for."""

from __future__ import annotations

import importlib

from models.errors import SpeedproofError
from models.workload import load_object
from optim.backends.base import Backend

# The order in which tables show them. Each module has one object BACKEND.
_MODULES = ("eager", "inductor", "onnxruntime", "openvino", "tensorrt")
# Of microcontrollers, which run one workload: no part of ``all``.
FIRMWARE = ("avr", "avr_plain")


def backend_names() -> tuple[str, ...]:
    """The names of the registered backends."""
    return _MODULES


def load_backend(spec: str) -> Backend:
    """Find a backend: a registered name, or ``pkg.module:OBJECT`` for your own. Raises SpeedproofError if unknown."""
    if ":" in spec:
        own: Backend = load_object(spec, Backend, "--backend")
        return own
    if spec not in (*_MODULES, *FIRMWARE):
        known = ", ".join((*_MODULES, *FIRMWARE))
        raise SpeedproofError(f"unknown backend {spec!r}: expected all, {known}, or pkg.module:OBJECT for your own")
    backend: Backend = importlib.import_module(f"optim.backends.{spec}").BACKEND
    return backend
