"""Signals that end a command: the first raises KeyboardInterrupt, so that what is finished is kept, a second ends it."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from analytic.io.importing import runs_an_import

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ONE_EVENT_S: Final = 0.5
"""A signal within this time of the first is the same event: `timeout` sends its signal to the process and to its group."""
RETRY_S: Final = 0.05
_received: Final[list[signal.Signals]] = []
"""The signal that ends this process, once there is one; a library in C may raise another exception for it than ours."""
_holding: Final[list[bool]] = []
"""Not empty while `held`."""
_begun: Final[list[bool]] = []
"""Not empty once signals were handled by `stoppable`."""


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP asked the process to end."""

    def __init__(self, number: int) -> None:
        self.number = signal.Signals(number)
        super().__init__(f"terminated ({self.number.name})")


@contextmanager
def stoppable() -> Iterator[None]:
    """Let the first SIGINT, SIGTERM or SIGHUP raise KeyboardInterrupt, and a second end the process at once.

    A signal that comes while a module is imported waits for the end of that: one that is imported half may fail with
    another error, now or when it is imported again. A signal that the process was started to ignore stays ignored. Outside
    the main thread, which alone receives signals, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    first_s: list[float] = []
    sent_again: list[bool] = []
    handling = [True]
    _received.clear()
    _begun.append(True)

    def stop(number: int, frame: FrameType | None) -> None:
        again = bool(sent_again)
        sent_again.clear()
        if not first_s or again:
            if not again:
                first_s.append(time.monotonic())
                _received.append(signal.Signals(number))
            if _holding:
                return
            if runs_an_import(frame):
                _later(number, handling, sent_again)
                return
            raise KeyboardInterrupt if number == signal.SIGINT else Terminated(number)
        if time.monotonic() - first_s[0] > ONE_EVENT_S:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, stop)
        yield
    finally:
        handling.clear()
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _later(number: int, handling: list[bool], sent_again: list[bool]) -> None:
    """Send this process a signal again once the import has ended, and note it in `sent_again`; nothing if not `handling`.

    Not before that: a second signal of somebody else, at the same moment, would be taken for the same.
    """
    main = threading.main_thread().ident

    def send() -> None:
        while handling:
            time.sleep(RETRY_S)
            if handling and not runs_an_import(sys._current_frames().get(main or 0)):
                sent_again.append(True)
                os.kill(os.getpid(), number)
                return

    threading.Thread(target=send, daemon=True).start()


@contextmanager
def held() -> Iterator[None]:
    """Within `stoppable`, let the first signal raise nothing, so that what is being written is finished; see `received`."""
    _holding.append(True)
    try:
        yield
    finally:
        _holding.pop()


@contextmanager
def postponed() -> Iterator[None]:
    """Within `stoppable`, let the first signal wait for the end of the block, and raise KeyboardInterrupt there."""
    before = len(_received)
    with held():
        yield
    came = received()
    if came is not None and not before and not _holding:
        raise came


def begun() -> bool:
    """Whether a command of this process has begun, so that it handles its signals itself."""
    return bool(_begun)


def received() -> KeyboardInterrupt | None:
    """What the first signal within `stoppable` raises, or would have raised if it were not `held`."""
    if not _received:
        return None
    return KeyboardInterrupt() if _received[0] == signal.SIGINT else Terminated(_received[0])


def signal_of(error: KeyboardInterrupt) -> signal.Signals:
    """The signal that `error` was raised for."""
    if isinstance(error, Terminated):
        return error.number
    return _received[0] if _received else signal.SIGINT
