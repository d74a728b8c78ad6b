"""The wire protocol as a pure core: bytes in, messages out. No I/O, no clock, no thread, standard library only.

`frames` cuts bytes, `codec` reads and writes JSON, `messages` names every message, `commands` lists the `common:*`
commands, `connection` says what is legal when, `errors` holds the taxonomy.
"""
