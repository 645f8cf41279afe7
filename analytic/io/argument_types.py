"""Types of command line arguments, for `add_argument(type=...)`: a wrong one is refused with what is accepted.

argparse names the option before the message. A range that depends on the command is checked by the command.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Final

MOST_SHOWN: Final = 60


def integer(text: str) -> int:
    """A whole number of any sign."""
    try:
        return int(text)
    except ValueError:
        raise _refused(text, "a whole number, such as 64") from None


def real(text: str) -> float:
    """A finite number of any sign."""
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise _refused(text, "a finite number, such as 0.5")
    return found


def folder_path(text: str) -> Path:
    """A folder, which need not exist."""
    if not text.strip():
        raise _refused(text, "a folder")
    return Path(text)


def file_path(text: str) -> Path:
    """A file, which need not exist."""
    if not text.strip():
        raise _refused(text, "a file")
    return Path(text)


def _refused(text: str, accepted: str) -> argparse.ArgumentTypeError:
    got = text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."
    several = "; separate several with spaces, if the option takes several" if "," in text else ""
    return argparse.ArgumentTypeError(f"got {got!r}, accepted: {accepted}{several}")
