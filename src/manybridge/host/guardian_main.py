"""Kills the workers of a host that died. A program of its own: `python -I -S guardian_main.py`, standard library only.

The host says on this program's standard input which process groups there are (`+GROUP`, `-GROUP`, one on a line).
When that pipe ends, the host is gone, in whatever way, and every group that is left gets SIGKILL: also a worker that
is stuck inside C and the children that it forked, which no parent-death signal reaches.
"""

import os
import signal
import sys


def read_groups() -> set[int]:
    """Follow the host's messages to their end and return the groups that are left."""
    groups: set[int] = set()
    for line in sys.stdin.buffer:
        number = line[1:].strip()
        if number.isdigit() and int(number) > 1:
            if line.startswith(b"+"):
                groups.add(int(number))
            else:
                groups.discard(int(number))
    return groups


def main() -> None:
    """Wait for the host's end, then kill."""
    # It must outlive whatever ends its host: Ctrl-C on the terminal, a service manager's SIGTERM, a lost session.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    for group in read_groups():
        try:
            os.killpg(group, signal.SIGKILL)
        except OSError:
            continue  # gone by itself


if __name__ == "__main__":
    main()
