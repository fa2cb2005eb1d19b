"""How every command of the project ends: errors of one sentence, and exit codes."""

from __future__ import annotations

import sys
from collections.abc import Callable

from models.errors import SpeedproofError


def run(
    body: Callable[[], None], interrupted: str = "interrupted: the same command goes on after the last whole epoch"
) -> int:
    """Run a command; 0 when it is done, 2 for bad input, 130 when interrupted."""
    try:
        body()
    except SpeedproofError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return 130
    return 0
