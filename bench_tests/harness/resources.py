"""What a run uses and what is left: free memory, and the load and memory of the graphics card.

The card is asked through pynvml (package nvidia-ml-py). Without it, or where the card does not tell (a MIG slice does
not), there are no figures, and that is an answer: nothing is guessed.
"""

from __future__ import annotations

import importlib
import threading
from typing import Any, Self

import psutil
import torch

from bench_tests.harness import machine


def available_memory_bytes() -> int:
    """How much memory this process can still take without swapping or being killed by its control group."""
    free = int(psutil.virtual_memory().available)
    headroom = machine.memory_headroom_bytes()
    return free if headroom is None else min(free, headroom)


def gpu_name() -> str | None:
    """The name of torch's current GPU, None without one."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def driver_version() -> str | None:
    """The version of the NVIDIA driver, None where it cannot be asked."""
    nvml = _nvml()
    if nvml is None:
        return None
    version = nvml.nvmlSystemGetDriverVersion()
    return version.decode() if isinstance(version, bytes) else str(version)


class Utilisation:
    """Samples the GPU while a ``with`` block runs; read the figures after it.

    ``utilisation_percent`` is the mean share of time in which a kernel ran, ``memory_peak_bytes`` the most memory in
    use, both of the whole card, other processes included; both None where there is nothing to ask. The sampling thread
    takes the interpreter's lock now and then: give it a pass of its own, of a second and more since the card averages
    over up to one, and never the timed blocks.
    """

    def __init__(self, interval_s: float = 0.05) -> None:
        """Sample every ``interval_s``; NVML itself refreshes its figures about as often."""
        self.utilisation_percent: float | None = None
        self.memory_peak_bytes: int | None = None
        self.samples = 0
        self._interval_s = interval_s
        self._busy_percent_sum = 0.0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Start sampling, where there is a card that answers."""
        nvml = _nvml()
        if nvml is not None:
            self._thread = threading.Thread(target=self._sample_until_stopped, args=(nvml,), daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop sampling and fill in the mean."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self.samples:
            self.utilisation_percent = self._busy_percent_sum / self.samples

    def _sample_until_stopped(self, nvml: Any) -> None:
        try:
            handle = _current_card(nvml)
            while True:
                busy_percent = float(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
                used_bytes = int(nvml.nvmlDeviceGetMemoryInfo(handle).used)
                self._busy_percent_sum += busy_percent
                self.memory_peak_bytes = max(self.memory_peak_bytes or 0, used_bytes)
                self.samples += 1
                if self._stop.wait(self._interval_s):
                    return
        except nvml.NVMLError:  # a MIG slice, a container without the right: the figures so far stand, or none
            return


def _current_card(nvml: Any) -> Any:
    """NVML's handle of torch's current card: NVML counts all cards, torch those that CUDA_VISIBLE_DEVICES leaves."""
    if not torch.cuda.is_available():
        return nvml.nvmlDeviceGetHandleByIndex(0)
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    return nvml.nvmlDeviceGetHandleByUUID(f"GPU-{properties.uuid}")


def _nvml() -> Any | None:
    """The initialised pynvml, None where package or driver is missing. Initialising twice is harmless."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return None
    return nvml
