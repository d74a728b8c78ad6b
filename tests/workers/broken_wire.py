"""A worker that speaks the wire and breaks it once: standard library only, and nothing of ours.

Started in the place of our worker, with its arguments; its options (`--options-fd`) say which `fault` strikes where
(`place`: hello, reply, stream, snapshot, idle or shutdown). The file `mark` is made when it strikes, and it never
strikes twice.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

IDLE_DELAY: Final = 0.02


def pack(message: object) -> bytes:
    payload = json.dumps(message).encode()
    return struct.pack(">I", len(payload)) + payload


def reply(id: object, result: object) -> bytes:
    return pack({"id": id, "success": True, "result": result, "timestamp": time.time()})


def write(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]


def hang() -> None:
    while True:
        time.sleep(60)


def close_stream(_id: object, _result: object) -> None:
    socket.socket(fileno=1).shutdown(socket.SHUT_WR)
    hang()


def half_a_frame(id: object, _result: object) -> None:
    write(reply(id, "x" * 1000)[:500])
    os._exit(0)


def slow(_id: object, _result: object) -> None:
    hang()


# Two messages in one write: the reader sees both or none, so that what becomes of the first is no matter of luck.
FAULTS: Final[dict[str, Callable[[object, object], None]]] = {
    "garbage": lambda _, _result: write(b"Loading checkpoint shards: 100%\n"),
    "no JSON": lambda _, _result: write(struct.pack(">I", 7) + b"garbage"),
    "no message": lambda _, _result: write(pack(["not", "a", "message"])),
    "wrong id": lambda _, _result: write(reply(4711, 1)),
    "event after reply": lambda id, result: write(
        reply(id, result) + pack({"id": id, "event": "chunk", "seq": 0, "data": 1})
    ),
    "second reply": lambda id, result: write(reply(id, result) + reply(id, 2)),
    "gap in the events": lambda id, _: write(pack({"id": id, "event": "chunk", "seq": 17, "data": 1})),
    "oversized header": lambda _, _result: write(b"\xff\xff\xff\xff"),
    "half a frame": half_a_frame,
    "closed stream": close_stream,
    "slow": slow,
}


def read_requests() -> Iterator[dict[str, Any]]:
    data = b""
    while chunk := os.read(0, 65536):
        data += chunk
        while len(data) >= 4 and len(data) - 4 >= (length := struct.unpack(">I", data[:4])[0]):
            yield json.loads(data[4 : 4 + length])
            data = data[4 + length :]


def read_options() -> dict[str, Any]:
    descriptor = int(sys.argv[sys.argv.index("--options-fd") + 1])
    with os.fdopen(descriptor, encoding="utf-8") as stream:
        options: dict[str, Any] = json.load(stream)
    return options


class Worker:
    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self.count = 0  # of the one resource
        self.is_armed = False  # whether the next snapshot is the one to strike in

    def strikes(self, place: str, id: object, result: object = 1) -> bool:
        """Strike if this is the place and nobody was here before."""
        mark = self.options["mark"]
        if self.options["place"] != place or os.path.exists(mark):  # noqa: PTH110
            return False
        with open(mark, "w", encoding="utf-8") as file:  # noqa: PTH123
            file.write(str(os.getpid()))
        FAULTS[self.options["fault"]](id, result)
        return True

    def serve(self, request: dict[str, Any]) -> None:
        id, operation = request["id"], request["command"].rpartition(":")[2]
        place = {"hello": "hello", "shutdown": "shutdown", "strike": "reply"}.get(operation)
        if place is not None and self.strikes(place, id):
            return
        if operation == "shutdown":
            os._exit(0)
        elif operation == "stream":
            self.stream(id, request["args"]["go"])
        elif operation.endswith("_resource"):
            self.use_resource(id, operation, request["args"])
        elif operation == "echo":
            write(reply(id, request["args"]["value"]))
        else:
            write(reply(id, ANSWERS.get(operation)))
            if operation == "later":
                threading.Timer(IDLE_DELAY, self.strikes, ("idle", id)).start()

    def use_resource(self, id: object, operation: str, args: dict[str, Any]) -> None:
        result: object = {"id": args["id"], "type": "thing", "state": {"count": self.count}}
        if operation == "create_resource":
            self.count = args.get("state", {"count": 0})["count"]
        elif operation == "execute_resource":
            self.count += 1
            self.is_armed, result = "fault" in args["inputs"], self.count
        elif operation == "snapshot_resource" and self.is_armed and self.strikes("snapshot", id, result):
            return
        write(reply(id, result))

    def stream(self, id: object, go: str) -> None:
        for seq in (0, 1):
            write(pack({"id": id, "event": "chunk", "seq": seq, "data": seq + 1}))
        while not os.path.exists(go):  # noqa: PTH110  # until the reader has got both
            time.sleep(0.001)
        self.strikes("stream", id)


ANSWERS: Final[dict[str, Any]] = {
    "hello": {"protocol": 2, "codec": "json", "framework": "broken", "worker": {}},
    "capabilities": {"resources": {"thing": {"policy": "restore"}}},
    "warm_up": {"state": "ready", "load_seconds": 0.0, "max_concurrency": 1},
}


def main() -> None:
    worker = Worker(read_options())
    for request in read_requests():
        worker.serve(request)


main()
