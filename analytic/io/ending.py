"""How a command ends: interruptions, full disks and lack of memory are a sentence and an exit code, never a traceback.

A signal raises KeyboardInterrupt, so that a command keeps what it has finished and cleans up; a second one ends the process
at once. What was kept then carries an `Incomplete`.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import Any, Final, TextIO, TypeVar

from analytic.io.importing import runs_an_import

T = TypeVar("T")
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ONE_EVENT_S: Final = 0.5
"""A signal within this time of the first is the same event: `timeout` sends its signal to the process and to its group."""
FULL: Final = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS))
"""What writing to a full, limited or broken disk fails with."""
MOST_NAMED: Final = 12
RETRY_S: Final = 0.05
_received: Final[list[signal.Signals]] = []
"""The signal that ends this process, once there is one; a library in C may raise another exception for it than ours."""

_holding: Final[list[bool]] = []
"""Not empty while `held`."""

_begun: Final[list[bool]] = []
_codes: Final[list[int]] = []
"""Not empty once signals were handled by `stoppable`."""


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP asked the process to end."""

    def __init__(self, number: int) -> None:
        self.number = signal.Signals(number)
        super().__init__(f"terminated ({self.number.name})")


@dataclass(frozen=True, kw_only=True, slots=True)
class Incomplete:
    """Why a result is incomplete, and what it lacks, by name."""

    reason: str
    missing: tuple[str, ...]

    @classmethod
    def of(cls, stored: Mapping[str, Any] | None) -> Incomplete | None:
        """From the field `incomplete` of a stored result."""
        return None if stored is None else cls(reason=stored["reason"], missing=tuple(stored["missing"]))

    def as_json(self) -> dict[str, Any]:
        """The field `incomplete` of a stored result."""
        return {"reason": self.reason, "missing": list(self.missing)}

    def __str__(self) -> str:
        return f"{self.reason}; missing: {named(self.missing)}"


class EarlyEnd:
    """What ended a measurement early, if anything did, and what it did not measure."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.missing: list[str] = []

    @contextmanager
    def keeping(self, finished: Sized) -> Iterator[None]:
        """Let an interruption or a lack of memory end the block, once anything is `finished`; raise it before that."""
        try:
            yield
        except (KeyboardInterrupt, MemoryError, OSError, RuntimeError) as error:
            if not is_ending(error) or not finished:
                raise
            self.error = error

    @property
    def incomplete(self) -> Incomplete | None:
        """The mark of the result; None if nothing ended it early."""
        if self.error is None or not self.missing:
            return None
        return Incomplete(reason=reason_of(self.error), missing=tuple(self.missing))

    def exit_code(self, command: str, *, otherwise: int, go_on: str) -> int:
        """`otherwise`, unless the measurement ended early, which is said with how to `go_on`."""
        if self.error is None:
            return otherwise
        if self.incomplete is None:
            say(f"{command}: {reason_of(self.error)}; everything was measured by then")
        else:
            say(f"{command}: INCOMPLETE: {self.incomplete}; {go_on}")
        return exit_code(self.error)


def named(names: Sequence[str]) -> str:
    """`names` in one line, the first of many."""
    shown = ", ".join(names[:MOST_NAMED])
    return shown if len(names) <= MOST_NAMED else f"{shown} and {len(names) - MOST_NAMED:,} more"


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


def ended(name: str, main: Callable[[list[str]], int], arguments: list[str]) -> int:
    """The exit code of `main(arguments)`, the command `name`; whatever ends it early is said in one sentence.

    128 + N for signal N, 1 for a full disk and for lack of memory. An OSError that says nothing of the disk is a fault of
    the command and passes through.
    """
    with stoppable():
        code = _ended(name, main, arguments)
        _codes.append(code)
    return code


def finished() -> int | None:
    """The exit code of the command of this process, if it has ended and only the interpreter has not."""
    return _codes[-1] if _codes else None


def _ended(name: str, main: Callable[[list[str]], int], arguments: list[str]) -> int:
    try:
        code = main(arguments)
        if sys.stdout is not None:  # None if the process was started with it closed, as by `>&-`
            sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader of the output has ended, as in `| head`
        discard_output()
        return exit_code(BrokenPipeError())
    except (KeyboardInterrupt, MemoryError, OSError, RuntimeError) as error:
        if not is_ending(error):
            raise
        say(f"{name}: {reason_of(error)}; nothing more was written")
        if isinstance(error, OSError):
            discard_output()
        return exit_code(error)


def written(name: str, what: str, write: Callable[[], T]) -> T | None:
    """What `write` returns; None if an OSError kept it from writing `what`, which is then said in one sentence."""
    try:
        return write()
    except OSError as error:
        say(f"{name}: {what} could not be written: {reason_of(error)}; free some space, or choose another --output-dir")
        return None


def is_ending(error: BaseException) -> bool:
    """Whether `error` comes from outside the command: a signal, a full disk, lack of memory."""
    if isinstance(error, OSError):
        return error.errno in FULL
    return isinstance(error, KeyboardInterrupt) or lacks_memory(error)


def lacks_memory(error: BaseException) -> bool:
    """Whether device or host ran out of memory; torch's own errors are recognized without importing it."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and "allocate memory" in str(error)


def reason_of(error: BaseException) -> str:
    """What ended the command, in a few words."""
    if isinstance(error, KeyboardInterrupt):
        number = _signal_of(error)
        return "interrupted (Ctrl-C)" if number == signal.SIGINT else str(Terminated(number))
    if lacks_memory(error):
        return "out of memory"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error) or type(error).__name__


def exit_code(error: BaseException) -> int:
    """The exit code of a command that `error` ended."""
    if isinstance(error, KeyboardInterrupt):
        return 128 + _signal_of(error)
    return 128 + signal.SIGPIPE if isinstance(error, BrokenPipeError) else 1


def _signal_of(error: KeyboardInterrupt) -> signal.Signals:
    if isinstance(error, Terminated):
        return error.number
    return _received[0] if _received else signal.SIGINT


def say(text: str) -> None:
    """Print a line to the standard error, which may be full or closed itself."""
    if sys.stderr is None:  # where `print` would take the standard output
        return
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)  # noqa: T201 - the sentence at the end of a command


def discard_output(stream: TextIO | None = None) -> None:
    """Send what is still buffered nowhere, so that the interpreter does not try to write it again when it exits."""
    if sys.stdout is None:
        return
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, (sys.stdout if stream is None else stream).fileno())
        os.close(nowhere)
