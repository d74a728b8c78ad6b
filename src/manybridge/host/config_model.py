"""What can be configured: one frozen struct per table of `manybridge.toml`.

This module is the single source of every key: its type, range, unit, default and meaning. The checker, the error
messages, `manybridge config show` and docs/reference/configuration.md are all made from it. Durations are seconds.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypedDict, Unpack

from msgspec import Meta, Struct, field

from manybridge.protocol.frames import ABSOLUTE_MAX_FRAME_BYTES, DEFAULT_MAX_FRAME_BYTES

SMALLEST_FRAME_LIMIT: Final = 1024
"""A limit below this could not carry the error that says that a frame was too large."""

MAX_POOL_SIZE: Final = 1024
"""More processes than any one machine runs well: a larger number is a typing error, not a wish."""


class _Limits(TypedDict, total=False):
    ge: float
    gt: float
    le: float


def _about(description: str, *, unit: str | None = None, **limits: Unpack[_Limits]) -> Meta:
    extra = {"unit": unit} if unit else None
    return Meta(description=description, extra=extra, **limits)  # type: ignore[call-overload,no-any-return]  # overloads forbid ge with gt, which nobody gives


def _seconds(description: str, **limits: Unpack[_Limits]) -> Meta:
    return _about(description, unit="seconds", **limits)


class RestartConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a pool replaces workers that die: the wait doubles with each crash, too many open the breaker."""

    initial_backoff: Annotated[
        float, _seconds("Wait before the second replacement in a row; the first one starts at once.", ge=0)
    ] = 0.1
    max_backoff: Annotated[float, _seconds("The longest wait between two replacements.", ge=0)] = 30.0
    max_crashes: Annotated[
        int, _about("So many crashes within `window` open the breaker: calls get `circuit_open` at once.", ge=1)
    ] = 5
    window: Annotated[
        float, _seconds("The time in which crashes are counted, and for which the open breaker refuses calls.", gt=0)
    ] = 60.0


RETRIED_CODES: Final = (
    "worker_crashed", "protocol_violation", "shutting_down", "rate_limited", "provider_timeout", "provider_unavailable",
)  # fmt: skip
"""What passes by itself. Not `overloaded` and `circuit_open`: trying again would add to what they protect from. Not
`timeout`: the call has no time left. Not `output_not_parsed`: asking a model again costs money; who wants it says so.
"""


class RetryConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How calls are tried again: those of idempotent commands, and those with a key; never beyond their deadline."""

    attempts: Annotated[
        int,
        _about("How often such a call is made at most, the first time included. 1 turns retries off.", ge=1, le=100),
    ] = 3
    initial_backoff: Annotated[
        float, _seconds("Wait before the second attempt; doubles each time, with as much again at random.", ge=0)
    ] = 0.1
    max_backoff: Annotated[
        float,
        _seconds(
            "The longest wait. A provider that says how long to wait is obeyed; one that wants more than this ends the "
            "attempts.",
            ge=0,
        ),
    ] = 10.0
    codes: Annotated[
        list[str],
        _about("The error codes after which another attempt is made, unless the error says that it can't help."),
    ] = field(default_factory=lambda: list(RETRIED_CODES))


class BridgeConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One bridge and its pool. The table's name is the bridge's name in every call."""

    bridge: (
        Annotated[
            str,
            _about(
                "The bridge's class: a bundled name, `package.module:Class`, or an entry point. "
                "Left out together with `python_script`, it is the bundled bridge of the table's name."
            ),
        ]
        | None
    ) = None
    python_script: (
        Annotated[
            str,
            _about(
                "Path of the Python file that defines the bridge, instead of `bridge`; `file.py:Class` where it "
                "defines several. A relative path is relative to the configuration file."
            ),
        ]
        | None
    ) = None
    search_path: (
        Annotated[
            list[str],
            _about(
                "Folders in which the module of `package.module:Class` is looked for too, after those of its "
                "interpreter. A relative path is relative to the configuration file. Left out, it is the folder of "
                "that file (without one, the working folder) and, where `python` is left out too, what the host's own "
                "`PYTHONPATH` and script add."
            ),
        ]
        | None
    ) = None
    python: (
        Annotated[
            str,
            _about(
                "An interpreter of your own for this bridge: a path (relative to the configuration file), or a command "
                "on PATH. Left out, it is that of the environment that `manybridge env` builds from the bridge's lock, "
                "and where there is no lock, the interpreter that the host runs under."
            ),
        ]
        | None
    ) = None
    check_python: Annotated[
        bool,
        _about(
            "Look through the folders of `python` for known-bad versions and start-up code before it is started. "
            "`false` is for a script that starts an interpreter manybridge can't find by reading files."
        ),
    ] = True
    options: Annotated[
        dict[str, Any],
        _about("Handed to the bridge's `setup`; the bridge says what it knows. `${VARIABLE}` in a string is replaced."),
    ] = {}
    pool_size: Annotated[int, _about("How many workers are kept running.", ge=1, le=MAX_POOL_SIZE)] = 1
    max_overflow: Annotated[
        int, _about("How many more workers may be started while all are busy.", ge=0, le=MAX_POOL_SIZE)
    ] = 0
    max_concurrency: (
        Annotated[
            int, _about("Calls that one worker runs at the same time. Left out, the bridge's class says it.", ge=1)
        ]
        | None
    ) = None
    max_queue: Annotated[int, _about("Calls that may wait for a worker; one more gets `overloaded` at once.", ge=0)] = (
        1000
    )
    queue_timeout: (
        Annotated[
            float,
            _seconds(
                "The longest wait for a worker before `overloaded`. Left out, only the call's timeout counts.", gt=0
            ),
        ]
        | None
    ) = None
    default_timeout: (
        Annotated[
            float,
            _seconds('The timeout of a call that brings none, queueing included. `"none"` means no limit.', gt=0),
        ]
        | None
    ) = 60.0
    start_timeout: Annotated[float, _seconds("How long a worker may take to become ready.", gt=0)] = 60.0
    cancel_grace: Annotated[
        float, _seconds("How long a cancelled call may take to stop by itself before SIGTERM.", ge=0)
    ] = 0.5
    term_grace: Annotated[float, _seconds("How long a worker may take to end after SIGTERM before SIGKILL.", ge=0)] = (
        0.5
    )
    max_requests: Annotated[int, _about("Replace a worker after so many calls.", ge=1)] | None = None
    max_resources: (
        Annotated[
            int,
            _about(
                "Resources that one worker holds at the same time. One more, and the one used least recently is "
                "let go, to be made again from its recipe when it is needed. Pinned ones always stay.",
                ge=1,
            ),
        ]
        | None
    ) = None
    resource_memory_mb: (
        Annotated[
            int,
            _about(
                "While a worker's process group uses more memory than this, resources that it holds are let go, least "
                "recently used first.",
                unit="MiB",
                ge=1,
            ),
        ]
        | None
    ) = None
    max_age: Annotated[float, _seconds("Replace a worker that has run for so long.", gt=0)] | None = None
    max_memory_mb: (
        Annotated[int, _about("Replace a worker whose process group uses more memory than this.", unit="MiB", ge=1)]
        | None
    ) = None
    required_env: Annotated[
        list[str],
        _about(
            "Environment variables that must be set on the host. They are checked at start, passed to the workers of "
            "this bridge, and to no others."
        ),
    ] = []
    required_packages: Annotated[
        list[str],
        _about(
            'Packages that the bridge\'s interpreter must have, for example `"dspy>=3"`. They are checked at start; '
            "`manybridge env lock` and `manybridge env sync` make an environment from them."
        ),
    ] = []
    environment: Annotated[
        dict[str, str],
        _about("Plain environment variables for the workers of this bridge. `${VARIABLE}` is replaced."),
    ] = {}
    zygote: Annotated[
        Literal["auto", "always", "never"],
        _about("Whether workers are forked from a process that has imported the framework; `auto` asks the bridge."),
    ] = "auto"
    sandbox: Annotated[
        Literal["required", "none"],
        _about(
            "Whether code that callers send (`python:execute`) must run in a sandbox. With `required` it is refused, "
            "since this version has no sandbox; `none` runs it with all the rights of the worker. Other commands work "
            "either way."
        ),
    ] = "required"
    restart: Annotated[RestartConfig, _about("The restart policy.")] = RestartConfig()
    retry: Annotated[RetryConfig, _about("Which calls are tried again, and how.")] = RetryConfig()
    fallback: (
        Annotated[
            str,
            _about(
                "The bridge that gets a call when this one can't serve at all: its breaker is open, or it can't start. "
                "`NAME:operation` becomes `FALLBACK:operation`; resources stay where they are."
            ),
        ]
        | None
    ) = None
    max_frame_bytes: Annotated[
        int,
        _about(
            "The largest message in either direction.",
            unit="bytes",
            ge=SMALLEST_FRAME_LIMIT,
            le=ABSOLUTE_MAX_FRAME_BYTES,
        ),
    ] = DEFAULT_MAX_FRAME_BYTES
    eager: Annotated[bool, _about("Start the pool together with the host instead of with the first call.")] = True
    capture_output: Annotated[
        bool, _about("Send what a worker prints to the host's log. If false, it goes to the host's stderr as it is.")
    ] = True

    @property
    def reference(self) -> str:
        """What the worker is told to load. A checked configuration has exactly one of the two keys."""
        return self.python_script or self.bridge or ""


class LimitsConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Limits of the host itself, over all bridges."""

    session_ttl: Annotated[float, _seconds("A session without a call for so long is closed.", gt=0)] = 3600.0
    max_sessions: Annotated[int, _about("Sessions that may be open at the same time.", ge=1)] = 10_000
    max_jobs: Annotated[
        int, _about("Jobs that are remembered; the oldest finished ones are forgotten first.", ge=1)
    ] = 1_000
    shutdown_timeout: Annotated[
        float,
        _seconds("How long running calls may take to finish when the host closes, before they are stopped.", ge=0),
    ] = 5.0


class StoreConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where durable records go: resources, sessions, jobs, idempotency keys."""

    url: (
        Annotated[
            str,
            _about(
                "`sqlite:///FILE` (relative to the configuration file; four slashes for an absolute path), "
                "`postgresql://USER@HOST/DATABASE` for several hosts, or `memory:`. Left out, it is a database in the "
                "user's state folder; without a configuration file, memory."
            ),
        ]
        | None
    ) = None
    scope: (
        Annotated[
            str,
            _about(
                "Whose records: hosts with the same `url` and `scope` share them, and see no others. Left out, it is "
                '`"default"` where `url` is given, else the path of the configuration file.'
            ),
        ]
        | None
    ) = None


class EnvironmentsConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The environments that `manybridge env` locks and builds, and what is checked before Python starts in any."""

    folder: (
        Annotated[
            str,
            _about(
                "Where built environments lie. Left out: `manybridge/environments` in the user's data folder "
                "(`XDG_DATA_HOME`, else `~/.local/share`)."
            ),
        ]
        | None
    ) = None
    locks: (
        Annotated[
            str,
            _about(
                "Where lock files lie, `BRIDGE.txt` each. Left out: a folder beside the configuration file with its "
                "name and `.locks`, for example `manybridge.locks`."
            ),
        ]
        | None
    ) = None
    python: (
        Annotated[
            str,
            _about("The interpreter that environments are built from. Left out: the one that the host's is made from."),
        ]
        | None
    ) = None
    uv: Annotated[str, _about("The uv to run. Left out: the one that was installed with manybridge.")] | None = None
    find_links: Annotated[
        list[str],
        _about("Further folders with wheels, besides those that `UV_FIND_LINKS` and `PIP_FIND_LINKS` name."),
    ] = []
    build_from_source: Annotated[
        list[str],
        _about(
            "Packages that may run build code of their own while they are locked and installed. Of all others only "
            "wheels are taken: build code runs before anything can be checked."
        ),
    ] = []
    extra_denylist: Annotated[
        dict[str, str],
        _about('Further versions that are never installed or started, with the reason: `"name==1.2.3" = "why"`.'),
    ] = {}
    allowed_startup: Annotated[
        list[str],
        _about(
            "SHA-256 of lines in `.pth` files and of sitecustomize files that may run at every start of Python. The "
            "error that refuses one names its hash."
        ),
    ] = []
    advisories: (
        Annotated[
            str,
            _about(
                "What `manybridge env scan` asks: a snapshot of an advisory database in the OSV format (a file with a "
                "record, with a list of them or with one in each line; a zip file or a folder of such), or the URL of "
                "an OSV server. Left out: OSV's own server."
            ),
        ]
        | None
    ) = None
    max_advisory_age: Annotated[
        float,
        _about("A snapshot whose newest record is older than this has not audited anything.", unit="days", gt=0),
    ] = 30.0


class HostConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole configuration of one host."""

    default: (
        Annotated[
            str,
            _about("The bridge of calls that name none. Left out, it is the only bridge where there is only one."),
        ]
        | None
    ) = None
    bridges: Annotated[dict[str, BridgeConfig], _about("The bridges by name.")] = {}
    limits: Annotated[LimitsConfig, _about("Limits of the host itself.")] = LimitsConfig()
    store: Annotated[StoreConfig, _about("The durable store.")] = StoreConfig()
    environments: Annotated[EnvironmentsConfig, _about("The environments of the bridges.")] = EnvironmentsConfig()
