"""A signal while the modules of a command are imported: one sentence and an exit code, since nothing was begun.

Without this, Ctrl-C in those seconds shows the traceback of whatever was being imported, or a library takes it for a fault
of its own and the command fails with that.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType
from typing import Final

from analytic.io.ending import finished, reason_of, say
from analytic.io.signals import SIGNALS, Terminated, begun

MODULE: Final = "-m"
"""What `sys.argv` begins with while the packages of `python -m PACKAGE.MODULE` are imported."""
_taken: Final[dict[signal.Signals, object]] = {}
"""The handlers that were there before."""


def quiet_start(name: str | None = None) -> None:
    """Let a signal end this process at once, with a sentence, until `ended` or `start_over` handles signals.

    name  of the command; None for that of `python -m`, and nothing is done in a process that was started otherwise

    Signals that are ignored, or that something handles, are left alone.
    """
    if name is None and sys.argv[:1] != [MODULE]:
        return
    if threading.current_thread() is not threading.main_thread():
        return
    command = name or _module()

    def stop(number: int, frame: FrameType | None) -> None:
        if (code := finished()) is not None:  # all is said and written, and the interpreter is ending
            os._exit(code)
        if not begun():
            reason = reason_of(KeyboardInterrupt() if number == signal.SIGINT else Terminated(number))
            say(f"{command}: {reason} before it began; nothing was written")
        os._exit(128 + number)

    for number in SIGNALS:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            _taken[number] = signal.signal(number, stop)


def start_over() -> None:
    """Handle signals as before `quiet_start`."""
    for number in list(_taken):
        signal.signal(number, _taken.pop(number))  # type: ignore[arg-type]  # what signal.signal has returned


def _module() -> str:
    words = sys.orig_argv
    return words[words.index(MODULE) + 1].removesuffix(".__main__") if MODULE in words[:-1] else "command"
