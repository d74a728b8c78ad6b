"""A worker that speaks the wire and breaks it on demand: `fake.py BOOT BRIDGE ...`, standard library only.

BOOT says what happens at its start (`ok`, `silent`, `exit`, `bad_hello`, `setup_failed`, `sometimes:PATH`, `slow:S`);
the operation of each command says what happens to that command.
"""

import json
import os
import signal
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Message = dict[str, Any]

BOOT = sys.argv[1]


def send(message: Message) -> None:
    payload = json.dumps(message).encode()
    write(struct.pack(">I", len(payload)) + payload)


def write(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]


def reply(request: Message, result: Any) -> None:
    send({"id": request["id"], "success": True, "result": result, "timestamp": time.time()})


def refuse(request: Message, code: str, message: str, **details: str) -> None:
    info = {"code": code, "message": message, "retryable": False, "framework": "fake", "type": None, "details": details}
    send({"id": request["id"], "success": False, "error": message, "timestamp": time.time(), "error_info": info})


def requests() -> Iterator[Message]:
    data = b""
    while chunk := os.read(0, 65536):
        data += chunk
        while len(data) >= 4 and len(data) - 4 >= (length := struct.unpack(">I", data[:4])[0]):
            yield json.loads(data[4 : 4 + length])
            data = data[4 + length :]


def hello(request: Message) -> None:
    if BOOT == "silent":
        time.sleep(60)
    if BOOT == "bad_hello":
        write(b"Traceback (most recent call last):\n")
    reply(request, {"protocol": 2, "codec": "json", "framework": "fake", "worker": {"pid": os.getpid()}})


def warm_up(request: Message) -> None:
    if BOOT == "setup_failed":
        refuse(request, "setup_failed", "the bridge's setup raised an error: no such model", type="ValueError")
    else:
        reply(request, {"state": "ready", "load_seconds": 0.0, "max_concurrency": 1})


def ignore_term(_request: Message) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(60)


def close_stream(_request: Message) -> None:
    os.close(0)
    os.close(1)
    time.sleep(60)


def reply_and_die(request: Message) -> None:
    reply(request, {"finished": True})
    os._exit(0)


def sleep(request: Message) -> None:
    time.sleep(request["args"]["seconds"])
    reply(request, {"slept": True})


def twice(request: Message) -> None:
    reply(request, 1)
    reply(request, 2)


def event(request: Message) -> None:
    send({"id": request["id"], "event": "chunk", "seq": 0, "data": 1})


def sequence(request: Message) -> None:
    for seq in (0, 2):
        send({"id": request["id"], "event": "chunk", "seq": seq, "data": 1})


def half_frame(_request: Message) -> None:
    write(struct.pack(">I", 1000) + b'{"id"')
    os._exit(0)


def say(request: Message) -> None:
    sys.stderr.write(request["args"]["text"])
    sys.stderr.flush()
    os._exit(request["args"].get("exit", 5))


def shutdown(_request: Message) -> None:
    os._exit(0)


OPERATIONS: dict[str, Callable[[Message], object]] = {
    "hello": hello,
    "warm_up": warm_up,
    "shutdown": shutdown,
    "ping": lambda request: reply(request, {"status": "ok", "pid": os.getpid()}),
    "echo": lambda request: reply(request, request["args"]),
    "whole": lambda request: reply(request, request),
    "environment": lambda request: reply(request, dict(os.environ)),
    "arguments": lambda request: reply(request, sys.argv[1:]),
    "sleep": sleep,
    "exit": lambda request: os._exit(request["args"].get("code", 3)),
    "kill": lambda _: os.kill(os.getpid(), signal.SIGKILL),
    "garbage": lambda _: write(struct.pack(">I", 7) + b"garbage"),
    "text": lambda _: write(b"Loading model... done\n"),
    "oversize": lambda _: write(b"\xff\xff\xff\xff"),
    "no_object": lambda _: write(struct.pack(">I", 2) + b"[]"),
    "wrong_id": lambda _: send({"id": 4711, "success": True, "result": 1, "timestamp": 0}),
    "no_result": lambda request: send({"id": request["id"], "success": True}),
    "null_error": lambda _: send({"id": None, "success": False, "error": "could not read that", "timestamp": 0}),
    "never": lambda _: None,
    "twice": twice,
    "event": event,
    "sequence": sequence,
    "half_frame": half_frame,
    "ignore_term": ignore_term,
    "close_stream": close_stream,
    "reply_and_die": reply_and_die,
    "say": say,
}


def main() -> None:
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # a real worker writes its stacks
    if BOOT == "exit":
        sys.stderr.write("no module named frame_work\n")
        raise SystemExit(7)
    if BOOT.startswith("sometimes:") and not Path(BOOT.partition(":")[2]).exists():
        raise SystemExit(8)
    if BOOT.startswith("slow:"):
        time.sleep(float(BOOT.partition(":")[2]))
    for request in requests():
        operation = request["command"].rpartition(":")[2]
        if operation in OPERATIONS:
            OPERATIONS[operation](request)
        elif not request["command"].startswith("common:"):
            refuse(request, "unknown_command", f"Unknown command: {request['command']}")


main()
