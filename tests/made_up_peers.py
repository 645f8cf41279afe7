"""Counters of peers that do not exist: right, wrong, broken, never ending."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from fixtures.peers.points import PeerCall, Size, must_cost
from fixtures.peers.reading import CountError, Reading


def right(call: PeerCall, size: Size, folder: Path) -> Reading:
    assert (folder / "config.json").is_file()
    sys.stdout.write("a peer prints what it likes\n")
    return Reading(count=must_cost(call, size).flops, moved_bytes=5_000_000_000, notes=("a note",))


def in_macs(call: PeerCall, size: Size, folder: Path) -> Reading:
    return Reading(count=must_cost(call, size).flops // 2)


def without_experts(call: PeerCall, size: Size, folder: Path) -> Reading:
    must = must_cost(call, size)
    return Reading(count=must.flops - must.groups.get("routed experts", 0))


def malformed(call: PeerCall, size: Size, folder: Path) -> Reading:
    return Reading(count="many")  # type: ignore[arg-type]


def raising(call: PeerCall, size: Size, folder: Path) -> Reading:
    try:
        raise CountError("no rule for /home/somebody/models/config.json, see https://example.org/a/b\nsecond line")
    except CountError as error:
        raise RuntimeError("see above") from error


def leaving(call: PeerCall, size: Size, folder: Path) -> Reading:
    os._exit(3)


def exiting(call: PeerCall, size: Size, folder: Path) -> Reading:
    sys.exit("no such model")


def killed(call: PeerCall, size: Size, folder: Path) -> Reading:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def endless(call: PeerCall, size: Size, folder: Path) -> Reading:
    time.sleep(600)
    raise AssertionError


def without_meta(module: Any, inputs: Any) -> Reading:
    """A counter of models that needs numbers."""
    if inputs[0].is_meta:
        raise NotImplementedError("it needs numbers")
    return Reading(count=1)
