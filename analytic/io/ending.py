"""How a command ends: interruptions, full disks and lack of memory are a sentence and an exit code, never a traceback.

A signal raises KeyboardInterrupt, so that a command keeps what it has finished and cleans up; a second one ends the process
at once. What was kept then carries an `Incomplete`.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, TextIO, TypeVar

from analytic.io.signals import Terminated, signal_of, stoppable

T = TypeVar("T")
FULL: Final = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS))
"""What writing to a full, limited or broken disk fails with."""
MOST_NAMED: Final = 12
_codes: Final[list[int]] = []
"""Of the command of this process, once it has ended."""


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
        number = signal_of(error)
        return "interrupted (Ctrl-C)" if number == signal.SIGINT else str(Terminated(number))
    if lacks_memory(error):
        return "out of memory"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error) or type(error).__name__


def exit_code(error: BaseException) -> int:
    """The exit code of a command that `error` ended."""
    if isinstance(error, KeyboardInterrupt):
        return 128 + signal_of(error)
    return 128 + signal.SIGPIPE if isinstance(error, BrokenPipeError) else 1


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
