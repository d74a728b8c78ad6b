"""Command line: start the local rule-based endpoint and print its address as one JSON line."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from local_llm.server import LocalLLM  # type: ignore[import-not-found]  # found through the line above


def main(argv: list[str] | None = None) -> int:
    """Serve until interrupted, or until standard input closes with ``--until-eof``.

    The first line on standard output is JSON: ``{"openai_base", "gemini_base", "port"}``.
    """
    parser = argparse.ArgumentParser(prog="local_llm", description="A rule-based chat endpoint. Not a model.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: loopback only)")
    parser.add_argument("--port", type=int, default=0, help="port; 0 picks a free one")
    parser.add_argument("--api-key", default=None, help="answer 401 to any other key; default: accept everything")
    parser.add_argument("--delay-ms", type=float, default=0.0, help="wait before every answer")
    parser.add_argument("--until-eof", action="store_true", help="stop when standard input is closed")
    options = parser.parse_args(argv)
    with LocalLLM(options.host, options.port, api_key=options.api_key, delay=options.delay_ms / 1000) as server:
        address = {"openai_base": server.openai_base, "gemini_base": server.gemini_base, "port": server.port}
        print(json.dumps(address), flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            sys.stdin.read() if options.until_eof else server.wait()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
