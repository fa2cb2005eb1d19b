"""Fetch the official archive of a data set: download, resume, verify, unpack.

1. The archive goes into a ``.part`` file beside the target. One that is there already is hashed, and gone on with by an
   HTTP Range request; a server that ignores Range sends everything again.
2. The checksum decides. A resumed file that fails it may stem from another version of the archive, so it is fetched
   once more as a whole; a whole one that fails it is an error.
3. The archive is unpacked, without trusting its paths, into a temporary folder beside the target, which is renamed at
   the end: half a data set never exists.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import os
import shlex
import tarfile
import tempfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from tqdm import tqdm

from models.errors import SpeedproofError

TIMEOUT_S = 30.0  # without any byte from the server
CHUNK_BYTES = 1 << 18


@dataclass(frozen=True)
class Archive:
    """A data set's official archive, and the folder that it becomes (its own top folder, where it has one).

    ``checksum`` names its algorithm: ``md5:...`` or ``sha256:...``.
    """

    url: str
    checksum: str
    folder: str


ARCHIVES = {
    # Checksum as in torchvision/datasets/imagenette.py; Apache-2.0, https://github.com/fastai/imagenette
    "imagenette": Archive(
        "https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-160.tgz",
        "md5:e793b78cc4c9e9a4ccc0c1155377a412",
        "imagenette2-160",
    ),
    # Checksums as in torchaudio/datasets/speechcommands.py; CC BY 4.0, arXiv:1804.03209
    "speech": Archive(
        "https://storage.googleapis.com/download.tensorflow.org/data/speech_commands_v0.01.tar.gz",
        "sha256:743935421bb51cccdb6bdd152e04c5c70274e935c82119ad7faeec31780d811d",
        "speech_commands_v0.01",
    ),
    "speech_v0.02": Archive(
        "https://storage.googleapis.com/download.tensorflow.org/data/speech_commands_v0.02.tar.gz",
        "sha256:af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58",
        "speech_commands_v0.02",
    ),
}


def data_root() -> Path:
    """The folder that holds the data sets: the environment variable SPEEDPROOF_DATA, or ``data`` in this folder."""
    return Path(os.environ.get("SPEEDPROOF_DATA") or "data").expanduser()


def fetch(name: str, to: Path) -> Path:
    """Put the data set ``name`` into the folder ``to``, unless it is there already, and return its own folder.

    Raises SpeedproofError, in one sentence, where the name is unknown, the network or the disk fails or the archive is
    not the official one. What was downloaded by then stays for the next attempt, unless it is known to be wrong.
    """
    if name not in ARCHIVES:
        raise SpeedproofError(f"unknown data set {name!r}: expected one of {', '.join(ARCHIVES)}")
    archive = ARCHIVES[name]
    target = to / archive.folder
    part = to / (PurePosixPath(urlsplit(archive.url).path).name + ".part")
    command = f"python -m models.data fetch {name} --to {shlex.quote(str(to))}"
    try:
        if target.is_dir() and any(target.iterdir()):
            print(f"{name} is at {target} already; delete that folder to fetch it again")
            return target
        to.mkdir(parents=True, exist_ok=True)
        resumed = part.exists()
        right = _download(archive, part, command)
        if not right and resumed:
            part.unlink()
            right = _download(archive, part, command)
        if not right:
            part.unlink()
            raise SpeedproofError(
                f"{archive.url} does not have the checksum {archive.checksum} and was removed: run `{command}` again, "
                f"and if that repeats, something between here and the server changes files"
            )
        _unpack(archive, part, target, command)
        part.unlink()
    except OSError as error:  # those of the network are SpeedproofErrors by now
        raise SpeedproofError(
            f"cannot write to {to} ({error.strerror or error}): make room or give another folder with --to, "
            f"then run the command again, which goes on with what is there"
        ) from error
    print(f"{name} is at {target}")
    return target


def _download(archive: Archive, part: Path, command: str) -> bool:
    """Make ``part`` whole, from where it ends, and return whether its checksum is the archive's."""
    algorithm, _, expected = archive.checksum.partition(":")
    new_digest = partial(hashlib.new, algorithm, usedforsecurity=False)
    digest, have = new_digest(), 0
    if part.exists():
        with part.open("rb") as file:
            digest = hashlib.file_digest(file, new_digest)
            have = file.tell()
    if digest.hexdigest() == expected:
        return True
    request = urllib.request.Request(archive.url, headers={"Range": f"bytes={have}-"} if have else {})
    with _network_errors(archive, command):
        try:
            response = urllib.request.urlopen(request, timeout=TIMEOUT_S)
        except urllib.error.HTTPError as error:
            error.close()
            if have and error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                return False  # nothing is missing at the end, so something in it is wrong
            raise
    with response:
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            digest, have = new_digest(), 0
        announced = response.headers["Content-Length"]
        total = have + int(announced) if announced else None
        title = f"fetching {archive.folder}"
        bar = tqdm(total=total, initial=have, desc=title, unit="B", unit_scale=True, disable=None)
        with part.open("ab" if have else "wb") as file, bar:
            while chunk := _read(response, archive, command):
                file.write(chunk)
                digest.update(chunk)
                have += len(chunk)
                bar.update(len(chunk))
    with _network_errors(archive, command):
        if total is not None and have < total:  # http.client does not complain
            raise ConnectionError(f"the connection ended after {have:,} of {total:,} bytes")
    return digest.hexdigest() == expected


def _read(response: http.client.HTTPResponse, archive: Archive, command: str) -> bytes:
    with _network_errors(archive, command):
        return response.read(CHUNK_BYTES)


@contextmanager
def _network_errors(archive: Archive, command: str) -> Iterator[None]:
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise SpeedproofError(
            f"cannot fetch {archive.url} ({str(reason) or type(error).__name__}): check the network and run "
            f"`{command}` again, which goes on from there, or set SPEEDPROOF_DATA to a folder "
            f"with your copy of {archive.folder}"
        ) from error


def _unpack(archive: Archive, part: Path, target: Path, command: str) -> None:
    print(f"unpacking to {target}")
    with tempfile.TemporaryDirectory(prefix=f".{archive.folder}.", dir=target.parent) as scratch:
        unpacked = Path(scratch) / "unpacked"  # of its own: a temporary folder is closed to other users
        try:
            with tarfile.open(part) as tar:
                tar.extractall(unpacked, filter="data")
        except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
            part.unlink()
            raise SpeedproofError(
                f"the archive of {archive.folder} is truncated, corrupt or unsafe ({error}); it was removed, nothing "
                f"was unpacked: run `{command}` again, or set SPEEDPROOF_DATA to a folder with your {archive.folder}"
            ) from error
        own = unpacked / archive.folder
        (own if own.is_dir() else unpacked).rename(target)
