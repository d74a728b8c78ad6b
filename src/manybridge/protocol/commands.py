"""The commands of the namespace `common`, which every bridge answers.

One table, from which the worker dispatches, `common:capabilities` lists, and the reference is generated. A second one
has the commands that only a host answers: jobs outlive the worker that runs them, so no worker has any.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

COMMON: Final = "common"

_TEXT: Final = {"type": "string"}
_ID: Final = {"id": {"type": "string", "description": "The resource's id."}}


class CommonCommand(NamedTuple):
    """One command that every bridge answers."""

    description: str
    args: dict[str, Any]
    """JSON Schema of each argument, by name."""
    required: tuple[str, ...] = ()
    result: str = ""
    """The shape of the result, for people."""
    at_once: bool = False
    """Answered by the control lane while user code runs; the others wait their turn."""

    def schema(self) -> dict[str, Any]:
        """JSON Schema of the arguments object."""
        schema: dict[str, Any] = {"type": "object", "properties": self.args}
        if self.required:
            schema["required"] = list(self.required)
        return schema


_RESOURCE: Final = "{id, type, bridge, session, created_at, executions, last_executed}"

COMMON_COMMANDS: Final[dict[str, CommonCommand]] = {
    "ping": CommonCommand(
        "Say that the worker lives, and what it does right now.",
        {},
        result="{status: 'ok', state, busy_seconds, current_call, queued, uptime, pid, framework, bridge, worker_id, "
        "generation, mode}; state is starting, loading, ready, busy or failed",
        at_once=True,
    ),
    "hello": CommonCommand(
        "Agree on protocol version 2.",
        {
            "protocol": {"type": "integer", "minimum": 1, "description": "Highest version that the client speaks."},
            "codec": {"type": "string", "enum": ["json"]},
            "features": {"type": "array", "items": _TEXT},
            "client": {"type": "object", "description": "Who asks, for logs."},
        },
        result="{protocol, codec, features, worker: {id, pid, generation}, framework, bridge, capabilities, "
        "max_frame_bytes}",
        at_once=True,
    ),
    "capabilities": CommonCommand(
        "List commands and resource types with their JSON Schemas.",
        {},
        result="{framework, version, capabilities, commands: {name: {description, args, result, streaming}}, "
        "resources: {type: {description, config, inputs, policy}}}",
    ),
    "get_stats": CommonCommand(
        "Count calls, errors, resources and memory.",
        {},
        result="{calls, errors, deprecated_calls, resources, uptime, load_seconds, memory: {rss_bytes, "
        "unshared_bytes}, threads}",
        at_once=True,
    ),
    "health": CommonCommand(
        "Say whether calls can be served, and if not, why.",
        {},
        result="{status: 'ok' | 'loading' | 'failed', state, reason}",
        at_once=True,
    ),
    "warm_up": CommonCommand(
        "Answer when the framework is imported and set up, or with the reason why it can't be.",
        {},
        result="{state: 'ready', load_seconds, max_concurrency, idempotent, session_settings, changes}; idempotent "
        "lists the operations that may be repeated, session_settings those whose result has the settings of their "
        "session; changes has, for those that change a resource, the argument with its id",
    ),
    "create_resource": CommonCommand(
        "Make a resource.",
        {
            "type": {"type": "string"},
            "config": {"type": "object"},
            "id": {"type": "string", "description": "Chosen by the worker when absent."},
            "state": {"description": "A snapshot to restore."},
        },
        ("type",),
        _RESOURCE,
    ),
    "execute_resource": CommonCommand(
        "Run a resource on inputs.", {**_ID, "inputs": {"type": "object"}}, ("id",), "what its execute returns"
    ),
    "get_resource": CommonCommand("Describe a resource.", _ID, ("id",), _RESOURCE),
    "list_resources": CommonCommand(
        "List the resources that the caller may see.",
        {"type": {"type": "string", "description": "Only this type."}},
        result="{resources: [...], total_count}",
    ),
    "delete_resource": CommonCommand("Delete a resource.", _ID, ("id",), "{id, deleted: true}"),
    "snapshot_resource": CommonCommand(
        "Return the state of a resource, as create_resource takes it back.", _ID, ("id",), "{id, state}"
    ),
    "cancel": CommonCommand(
        "Stop a call, wherever it is.",
        {
            "id": {"description": "The id of the request to stop."},
            "only_waiting": {"type": "boolean", "description": "Stop it only if it has not begun (default: false)."},
        },
        ("id",),
        "{id, state: 'cancelling' | 'unknown' | 'begun'}; the stopped call gets its own reply with code cancelled",
        at_once=True,
    ),
    "call_result": CommonCommand(
        "Answer an event of kind call.",
        {
            "call_id": {"type": "string"},
            "result": {"description": "What the tool returned."},
            "error": {"type": "object", "description": "{code, message, type?, details?} if it failed."},
        },
        ("call_id",),
        "{}",
        at_once=True,
    ),
    "batch": CommonCommand(
        "Run several commands one after another as one call.",
        {"calls": {"type": "array", "items": {"type": "object", "required": ["command"]}}},
        ("calls",),
        "{results: [{success, result | error, error_info}]} in the order of the calls",
    ),
    "cleanup": CommonCommand(
        "Delete the resources of a session, or all.",
        {"session_id": {"type": "string"}},
        result="{status: 'cleaned', resources_removed, ...}",
    ),
    "configure_session": CommonCommand(
        "Give a session its settings in this worker, in the place of those that it had; its calls from now on have "
        "them. What is wrong with them is the error of its next call.",
        {
            "session_id": {"type": "string", "description": "Default: the session of the request."},
            "settings": {"type": "object", "description": "What the bridge takes; empty: none any more."},
        },
        ("settings",),
        "{session_id, status: 'kept'}",
        at_once=True,
    ),
    "shutdown": CommonCommand(
        "Finish the calls that are here and exit with status 0.", {}, result="{status: 'shutting_down'}", at_once=True
    ),
}

_JOB: Final = {"id": {"type": "string", "description": "The job's id."}}

_JOB_FACTS: Final = (
    "{id, bridge, command, session, state, progress, created_at, started_at, finished_at, events, error}"
)

HOST_COMMANDS: Final[dict[str, CommonCommand]] = {
    "submit": CommonCommand(
        "Start a command as a job, which goes on when the client has gone.",
        {
            "command": {"type": "string", "description": "What to run."},
            "args": {"type": "object", "description": "With what (default: nothing)."},
            "bridge": {"type": "string", "description": "For a command without a namespace of its own."},
            "timeout_ms": {"type": "number", "description": "How long the job may take (default: no limit)."},
            "id": {"type": "string", "description": "Chosen by the host when absent."},
            "resume": {
                "type": "boolean",
                "description": "Run it again, from its beginning, if its host ends before it (default: false).",
            },
        },
        ("command",),
        _JOB_FACTS + "; session_id and idempotency_key of the request are the job's",
    ),
    "jobs": CommonCommand(
        "List jobs, oldest first.",
        {
            "bridge": {"type": "string", "description": "Only of this bridge."},
            "states": {
                "type": "array",
                "items": _TEXT,
                "description": "Only in these: queued, starting, running, done, failed, cancelled.",
            },
            "limit": {"type": "integer", "description": "Only so many, the newest ones."},
        },
        result="{jobs: [...], total_count}",
    ),
    "job": CommonCommand("Say how far a job is.", _JOB, ("id",), _JOB_FACTS),
    "job_result": CommonCommand(
        "Wait for the end of a job, at most until the request's deadline.",
        _JOB,
        ("id",),
        "what its command returned; its error if it failed or was cancelled",
    ),
    "job_events": CommonCommand(
        "Watch a job: with `stream`, each of its events as a chunk {seq, event, data}, past and future ones; without, "
        "at most 1,000 that are there now.",
        {**_JOB, "from_seq": {"type": "integer", "description": "The number of the first event (default: 0)."}},
        ("id",),
        "{id, state, next_seq, events: [...]}; events only without `stream`. Events that are not kept any more are one "
        "event `gap` with {from_seq, to_seq}",
    ),
    "cancel_job": CommonCommand(
        "Stop a job, and answer when its work has ended.",
        _JOB,
        ("id",),
        "{id, cancelled, state}; cancelled is false where it had ended",
    ),
    "delete_job": CommonCommand(
        "Forget a job that has ended, with its result and its events.", _JOB, ("id",), "{id, deleted: true}"
    ),
    "explain": CommonCommand(
        "Say what something waits for, and why. Without arguments: the calls of every bridge.",
        {
            "id": {"type": "string", "description": "A bridge, a session, a job, or the traceparent of an open call."},
            "request": {"description": "The id of an open request of this connection."},
        },
        result="{waits_for, reason, ...}; waits_for is null, capacity, worker, pinned_worker, starting, loading, "
        "backoff, breaker, retry, session or host",
    ),
    "reload_bridge": CommonCommand(
        "Replace the workers of a bridge one after the other by ones that load its code anew; calls go on meanwhile.",
        {"bridge": {"type": "string", "description": "Its name (default: the default bridge)."}},
        result="{bridge, replaced}, when all are replaced",
    ),
}
"""What a host answers beside `COMMON_COMMANDS`. A worker says `unknown_command`; a host lists the feature `jobs`."""
