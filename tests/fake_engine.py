"""An engine for tests, started as a process: `fake_engine.py KIND PORT FILE` writes its process ids to FILE and serves.

KIND: `serves`; `fails`, with a log; `never`, which starts and does not serve; `stubborn`, which ignores SIGTERM;
`breaks`, which ends at its second page.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


def main(kind: str, port: int, pids: Path) -> None:
    if kind == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # a worker of the engine, which does not end by itself
    ignoring = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    ending = "import time; time.sleep(600)"
    worker = subprocess.Popen([sys.executable, "-c", ignoring if kind == "stubborn" else ending])
    pids.write_text(f"{os.getpid()} {worker.pid}")
    print(f"beside {sorted(os.listdir())}", flush=True)  # noqa: T201
    for number in range(40):
        print(f"line {number}", flush=True)  # noqa: T201 - its log
    if kind == "fails":
        print("out of something \x1b[31mred", flush=True)  # noqa: T201
        sys.exit(3)
    if kind == "never":
        time.sleep(600)
    from tests.serving_stub import Handler, Server, Stub

    def fault(number: int, _: tuple[int, int]) -> None:
        if kind == "breaks" and number == 1:
            print("broken", flush=True)  # noqa: T201
            os._exit(4)

    stub = Stub(models=("served",), fault=fault)
    server = Server(("127.0.0.1", port), type("OfEngine", (Handler,), {"stub": stub}))
    print("serving", flush=True)  # noqa: T201
    server.serve_forever(poll_interval=0.01)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
