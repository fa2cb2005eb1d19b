"""``python -m models.data fetch imagenette [--to DIR]`` and ``python -m models.data split speech [--to FILE]``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from models.command import run
from models.data.chat import check_copy
from models.data.fetch import ARCHIVES, data_root, fetch
from models.data.speech import no_speech, speech_root
from models.data.splits import SPLIT_FILE, split_files, split_table
from models.errors import SpeedproofError
from models.files import save_json
from models.workload import DataChoice

CHAT = "chat"  # without an archive: a copy is found and checked


def main(argv: Sequence[str]) -> int:
    """Run the command; 0 is success, 2 bad input or a failure told in one sentence on stderr, 130 Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m models.data", description="Fetch and split data sets.")
    commands = parser.add_subparsers(required=True, dest="command")
    fetching = commands.add_parser("fetch", help="download and unpack one")
    fetching.add_argument("name", help=", ".join((*ARCHIVES, CHAT)))
    fetching.add_argument("--to", type=Path, default=data_root(), help="folder (default: $SPEEDPROOF_DATA or data)")
    splitting = commands.add_parser("split", help="write which clips are for training, validation and test")
    splitting.add_argument("name", choices=["speech"])
    splitting.add_argument("--data-dir", type=Path, help="the data set's folder, where it is not in the usual place")
    splitting.add_argument(
        "--to", type=Path, help=f"file (default: {SPLIT_FILE} in that folder, where it is read back)"
    )
    arguments = parser.parse_args(argv)

    def body() -> None:
        if arguments.command == "fetch" and arguments.name == CHAT:
            print(check_copy(arguments.to))
        elif arguments.command == "fetch":
            fetch(arguments.name, arguments.to)
        else:
            _split(arguments.data_dir, arguments.to)

    stays = f"what was downloaded stays in {arguments.to}; " if arguments.command == "fetch" else ""
    return run(body, f"interrupted: {stays}the same command goes on")


def _split(directory: Path | None, to: Path | None) -> None:
    root = speech_root(DataChoice("speech", directory))
    if root is None:
        raise no_speech()
    path = to or root / SPLIT_FILE
    if path.is_dir():
        raise SpeedproofError(f"--to {path}: this is a folder; give a file, such as {path / SPLIT_FILE}")
    files = split_files(root)
    save_json(path, dict(files))
    print(f"{split_table(files)}\n\nwrote {path}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
