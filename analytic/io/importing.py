"""Whether a piece of code is run by the import of a module, which an interruption would leave half done."""

from __future__ import annotations

from types import FrameType
from typing import Final

IMPORTER: Final = "<frozen importlib._bootstrap>"
"""The file of the frames by which modules are imported."""


def runs_an_import(frame: FrameType | None) -> bool:
    """Whether `frame`, or one that has called it, imports a module."""
    while frame is not None:
        if frame.f_code.co_filename == IMPORTER:
            return True
        frame = frame.f_back
    return False
