"""Stands in for the steps of a qualification: `python -m tests.qualify_stand_in KIND FILE [...]`."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from analytic.io.ending import ended, say


def parts(path: Path, number: int, seconds: float, go_on: bool) -> int:
    """Measure `number` parts, keep what is finished when interrupted, and with --continue only the others."""
    done = json.loads(path.read_text())["done"] if go_on else []
    path.with_suffix(".pid").write_text(str(os.getpid()))
    try:
        for part in range(1, number + 1):
            if part in done:
                continue
            say(f"part ({part} of {number})")
            time.sleep(seconds)
            done.append(part)
    except KeyboardInterrupt:
        if done:
            path.write_text(json.dumps({"done": done, "incomplete": {"reason": "interrupted", "missing": []}}))
        return 130
    path.write_text(json.dumps({"done": done, "incomplete": None}))
    return 0


def main(arguments: list[str]) -> int:
    kind, file, *rest = arguments
    path = Path(file)
    if kind == "ok":
        say(f"measured {path.name}")
        path.write_text(json.dumps({"runs": 1 + (json.loads(path.read_text())["runs"] if path.exists() else 0)}))
        return 0
    if kind == "fails":
        sys.stdout.write("".join(f"line {number}\n" for number in range(40)))
        sys.stdout.flush()
        say("what went wrong")
        return 7
    if kind == "parts":
        return parts(path, int(rest[0]), float(rest[1]), "--continue" in rest)
    if kind == "stubborn":  # with a child that is as stubborn
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        path.write_text(json.dumps([child.pid]))
        say("part (1 of 1)")
        time.sleep(600)
    raise ValueError(kind)


if __name__ == "__main__":
    sys.exit(ended("stand-in", main, sys.argv[1:]))
