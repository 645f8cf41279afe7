"""An OpenAI-compatible server for tests: real HTTP on the loopback, with image tokens, delays and faults as told."""

import base64
import json
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from analytic.models.deepseek_ocr.crop_rule import TRANSFORMERS, CropRule
from analytic.models.deepseek_ocr.workload import VisionWorkload

TEXT_TOKENS = 4
MOST_WAIT_S = 10.0
"""Of what a test waits for: never reached unless the test fails."""
DRIPS, DRIP_S = 100, 0.02
"""A stream that trickles: how often, and how far apart."""
STATUSES = {
    "401": "no such key sk-test-secret",
    "404": "no model `ocr`",
    "429": "slow down",
    "500": "",
    "400": "image refused",
}


@dataclass(kw_only=True)
class Stub:
    """What the server does, and what it was sent.

    rule     cuts its pages
    around   tokens that it adds around an image
    tokens   texts of the answer; None for as many as asked
    fault    the fault of a request with an image, by its number (from 0) and its size
    hung_up  set when the client ends a request that is never answered
    before   called with the request's number and the event's (from 0) before each event with text
    """

    rule: CropRule = TRANSFORMERS
    around: int = 0
    tokens: int | None = None
    models: tuple[str, ...] = ("ocr",)
    chunked: bool = False
    fault: Callable[[int, tuple[int, int]], str | None] = lambda number, size: None
    before: Callable[[int, int], None] = lambda number, event: None
    images: list[bytes] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    lock: Any = field(default_factory=threading.Lock)
    hung_up: Any = field(default_factory=threading.Event)
    url: str = ""

    def prompt_tokens(self, size: tuple[int, int] | None) -> int:
        if size is None:
            return TEXT_TOKENS
        return TEXT_TOKENS + self.around + VisionWorkload.from_image(*size, rule=self.rule).image_tokens


def image_of(request: dict[str, Any]) -> bytes | None:
    for part in request["messages"][0]["content"]:
        if part["type"] == "image_url":
            return base64.b64decode(part["image_url"]["url"].removeprefix("data:image/png;base64,"))
    return None


def size_of(png: bytes) -> tuple[int, int]:
    return struct.unpack(">II", png[16:24])


class Handler(BaseHTTPRequestHandler):
    stub: Stub

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        self.stub.keys.append(self.headers["Authorization"])
        self.answer(200, json.dumps({"data": [{"id": name} for name in self.stub.models]}).encode())

    def do_POST(self) -> None:
        stub = self.stub
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        png = image_of(request)
        with stub.lock:
            stub.requests.append(request)
            stub.keys.append(self.headers["Authorization"])
            number = len(stub.images)
            if png is not None:
                stub.images.append(png)
        size = None if png is None else size_of(png)
        fault = None if size is None else stub.fault(number, size)
        if fault in STATUSES:
            self.answer(int(fault), json.dumps({"error": {"message": STATUSES[fault]}}).encode())
        elif fault == "redirect":
            self.answer(302, b"", Location="http://192.0.2.1/v1")
        elif fault == "drop":
            self.close_connection = True
        elif fault == "hang":
            self.connection.settimeout(MOST_WAIT_S)
            if self.connection.recv(1) == b"":
                stub.hung_up.set()
        else:
            self.stream(request, number, size, fault)

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def stream(self, request: dict[str, Any], number: int, size: tuple[int, int] | None, fault: str | None) -> None:
        tokens = request["max_tokens"] if self.stub.tokens is None else self.stub.tokens
        self.protocol_version = "HTTP/1.1" if self.stub.chunked else "HTTP/1.0"
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        if self.stub.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for event in range(tokens):
            if event == 1 and fault in ("stop", "malformed", "error", "not utf-8"):
                content = {"malformed": b"data: {\n\n", "error": b'data: {"error": {"message": "lost"}}\n\n', "stop": b""}
                self.write(content.get(fault, b"data: \xff\n\n"))
                self.close_connection = True
                return
            for _ in range(DRIPS if event == 1 and fault == "trickle" else 0):
                self.write(b": still at work\n")
                time.sleep(DRIP_S)
            if size is not None:
                self.stub.before(number, event)
            self.event({"choices": [{"index": 0, "delta": {} if fault == "no token" else {"content": "x"}}]})
        if fault != "no usage":
            usage = {"prompt_tokens": self.stub.prompt_tokens(size), "completion_tokens": tokens}
            self.event({"choices": [], "usage": {**usage, "prompt_tokens": True} if fault == "odd usage" else usage})
        if fault != "no end":
            self.write(b": comment\r\ndata: [DONE]\r\n\r\n")
        if self.stub.chunked:
            self.wfile.write(b"0\r\n\r\n")

    def event(self, value: dict[str, Any]) -> None:
        self.write(b"data: " + json.dumps(value).encode() + b"\n\n")

    def write(self, content: bytes) -> None:
        if content:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(content), content) if self.stub.chunked else content)
            self.wfile.flush()


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def handle_error(self, *_: object) -> None:
        """A client that ends a connection is no error of the server."""


@contextmanager
def serving(stub: Stub) -> Iterator[Stub]:
    """The server of `stub`, on a free port of the loopback."""
    server = Server(("127.0.0.1", 0), type("StubHandler", (Handler,), {"stub": stub}))
    stub.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class SteppedClock:
    """A clock that the server sets forward, and that the client reads: event by event, one after the other."""

    def __init__(self) -> None:
        self._time_s, self._reads = 0.0, 0
        self._changed = threading.Condition()

    def __call__(self) -> float:
        with self._changed:
            self._reads += 1
            self._changed.notify_all()
            return self._time_s

    def advance(self, seconds: float, *, after_reads: int) -> None:
        """Set the clock forward once it has been read so many times."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._reads >= after_reads, MOST_WAIT_S)
            self._time_s += seconds
