"""Which machine a number was measured on, and with which versions.

A `Fingerprint` names hardware and how it is used; it names the history's folder, and two different ones are never
compared silently. Versions, precision flags and governor are no part of it: they are recorded with the run, and what
changed in them is printed beside a verdict, since an upgrade that slows a model down is what a history is for.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from operator import attrgetter
from pathlib import Path

import torch

from bench_tests.harness import machine, resources
from models.errors import SpeedproofError

_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")

# Settings of torch under which "fp32" may mean less than 24 bits; reading the newer names never warns.
_PRECISION_FLAGS = (
    "fp32_precision",
    "cuda.matmul.fp32_precision",
    "cuda.matmul.allow_tf32",
    "cudnn.conv.fp32_precision",
    "cudnn.rnn.fp32_precision",
    "cudnn.allow_tf32",
    "mkldnn.enabled",
    "mkldnn.matmul.fp32_precision",
    "mkldnn.conv.fp32_precision",
)


@dataclass(frozen=True)
class Fingerprint:
    """Hardware, and how much of it the process uses."""

    cpu_model: str
    cpu_revision: str  # family, model, stepping and instruction set: a virtual machine's name alone says too little
    cores_used: int
    affinity: tuple[int, ...]
    cpu_quota: float | None  # in cores; None is unlimited
    threads: int
    omp_wait_policy: str
    gpu_name: str | None = None  # None on the CPU

    def folder(self) -> str:
        """A name that is readable, stable and safe in a file system: ``amd-epyc-2c-2t-passive-1a2b3c4d``."""
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:8]
        gpu = [_slug(self.gpu_name)] if self.gpu_name else []
        words = [_slug(self.cpu_model), f"{self.cores_used}c", f"{self.threads}t", _slug(self.omp_wait_policy)]
        return "-".join([*words, *gpu, digest])

    def describe(self) -> str:
        """All of it in one line."""
        quota = "no quota" if self.cpu_quota is None else f"quota {self.cpu_quota:g}"
        cores = ",".join(str(core) for core in self.affinity)
        return (
            f"{self.gpu_name + ' beside ' if self.gpu_name else ''}{self.cpu_model} ({self.cpu_revision}), "
            f"{self.cores_used} cores ({cores}), {quota}, {self.threads} threads, "
            f"OMP_WAIT_POLICY {self.omp_wait_policy}"
        )


def fingerprint(threads: int, device: str) -> Fingerprint:
    """The fingerprint of this process: ``device`` is cpu or cuda. Raises SpeedproofError for cuda without a GPU."""
    gpu_name = resources.gpu_name() if device == "cuda" else None
    if device == "cuda" and gpu_name is None:
        raise SpeedproofError("device cuda: torch sees no GPU on this machine; ask for cpu, or install a CUDA torch")
    cpu, cores = machine.cpu_info(), machine.affinity()
    return Fingerprint(
        cpu_model=cpu.name,
        cpu_revision=cpu.revision(),
        cores_used=len(cores),
        affinity=cores,
        cpu_quota=machine.cpu_quota(),
        threads=threads,
        omp_wait_policy=os.environ.get("OMP_WAIT_POLICY", "default").lower(),
        gpu_name=gpu_name,
    )


def check_threads(threads: int) -> None:
    """Raise SpeedproofError for a thread count that this machine cannot run at once."""
    usable = machine.usable_cores()
    if not 1 <= threads <= usable:
        cores = f"{usable} core{'s' if usable > 1 else ''}"
        advice = f"1 to {usable}" if usable > 1 else "1"
        raise SpeedproofError(f"--threads {threads}: this machine lets the process use {cores}; ask for {advice}")


def versions(device: str, packages: Iterable[str]) -> dict[str, str]:
    """Everything of the software that may move a number; what is not there is left out."""
    found = {"python": platform.python_version(), "torch": torch.__version__}
    for package in packages:
        try:
            found.setdefault(package, importlib.metadata.version(package))
        except importlib.metadata.PackageNotFoundError:
            continue
    for flag in _PRECISION_FLAGS:
        try:
            found[f"torch.backends.{flag}"] = str(attrgetter(flag)(torch.backends))
        except (AttributeError, RuntimeError):  # not in this torch; or old and new names were mixed by the user
            continue
    if device == "cuda":
        found |= {"cuda": str(torch.version.cuda), "driver": resources.driver_version() or ""}
    found["governor"] = _GOVERNOR.read_text().strip() if os.access(_GOVERNOR, os.R_OK) else ""
    found["commit"] = _commit()
    return {name: value for name, value in found.items() if value}


def differences(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """What changed between the versions of two runs, a sentence each, sorted by name."""
    sentences = []
    for name in sorted({*old, *new}):
        before, now = old.get(name), new.get(name)
        if before is None:
            sentences.append(f"{name} was absent and is now {now}")
        elif now is None:
            sentences.append(f"{name} was {before} and is now absent")
        elif before != now:
            sentences.append(f"{name} changed from {before} to {now}")
    return sentences


def _commit() -> str:
    """The commit of the working tree, marked ``-dirty`` where tracked files differ; empty outside of a repository."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _slug(words: str) -> str:
    """Lower-case letters, digits and single dashes, without trademark signs and the clock."""
    plain = re.sub(r"\((?:r|tm)\)|\bcpu\b|\bprocessor\b|@.*", " ", words.lower())
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:40].rstrip("-") or "unknown"
