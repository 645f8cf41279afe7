"""Processes that end with the one that started them, however that ends: on Linux by a signal of the system's own."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

PR_SET_PDEATHSIG: Final = 1
"""Of linux/prctl.h."""


def end_with_parent() -> None:
    """Let the system send this process SIGTERM when the thread that started it ends; on Linux only."""
    if sys.platform == "linux":
        _own_libraries().prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM))


def tied(*, takes_ctrl_c: bool = False) -> Callable[[], None]:
    """For `preexec_fn`: what ties a child to this process before its program is loaded.

    takes_ctrl_c  whether Ctrl-C ends the child even where this process ignores it, as in the background of a shell
    """
    parent = os.getpid()
    _own_libraries()  # not between fork and exec, where another thread may have held the loader's lock

    def tie() -> None:
        end_with_parent()
        if os.getppid() != parent:  # it has ended since
            os._exit(128 + signal.SIGTERM)
        if takes_ctrl_c:
            signal.signal(signal.SIGINT, signal.SIG_DFL)

    return tie


def output_of(
    command: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout_s: float | None = None,
    check: bool = False,
    temporary: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run `command` to its end; its output as text. Raises what `subprocess.run` does.

    temporary  the folder, made if missing, for temporary files of the command, which one that is ended leaves behind
    """
    if temporary is not None:
        temporary.mkdir(exist_ok=True)
        env = {**(os.environ if env is None else env), "TMPDIR": str(temporary)}
    return subprocess.run(
        command, cwd=cwd, env=env, timeout=timeout_s, check=check, capture_output=True, text=True, preexec_fn=tied()
    )


@cache
def _own_libraries() -> Any:
    return ctypes.CDLL(None)
