"""The 16 commands of DSPEx version 1, as `dspex-contract.md` has them.

Errors are plain exceptions here: their text is what goes over the wire, to the letter. Many of those texts are what
Python says about a wrong type (`'list' object has no attribute 'get'`), so arguments are read the way that says it.

Two bugs of the script that this replaces are not repeated. `list_programs` and `get_program_info` find the signature
of an ordinary program, and `execution_time` is a duration in seconds, not the time of day.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from manybridge.bridge import V1Context
from manybridge.bridges.dspy import v1_gemini
from manybridge.bridges.dspy.framework import dspy_is_installed, gemini_is_installed
from manybridge.bridges.dspy.v1_lm import Version1LM
from manybridge.bridges.dspy.v1_programs import (
    ANONYMOUS,
    StoredProgram,
    make_program,
    recreate_program,
    run_program,
)

if TYPE_CHECKING:
    from manybridge.bridges.dspy.bridge import DSPyBridge

POOL_WORKER: Final = "pool-worker"


class Version1Commands:
    """Serves version 1. Owner of its programs, which are not the programs of version 2. One call at a time."""

    def __init__(self, bridge: DSPyBridge) -> None:
        self.bridge = bridge
        self.programs: dict[Any, StoredProgram] = {}
        self.lm = Version1LM(bridge)
        self.dynamic_by_default = os.environ.get("DSPEX_DYNAMIC_SIGNATURES", "true").lower() == "true"
        self.pooled = False
        # A literal table: nothing else may become a command, least of all "predict", which DSPex's tests count on
        # being unknown.
        self._handlers: dict[str, Callable[[Any, V1Context], dict[str, Any]]] = {
            "ping": self.ping,
            "configure_lm": self.configure_lm,
            "create_program": self.create_program,
            "create_gemini_program": self.create_gemini_program,
            "execute_program": self.execute_program,
            "execute_gemini_program": self.execute_gemini_program,
            "list_programs": self.list_programs,
            "delete_program": self.delete_program,
            "get_stats": self.get_stats,
            "cleanup": self.cleanup,
            "reset_state": self.reset_state,
            "get_program_info": self.get_program_info,
            "cleanup_session": self.cleanup_session,
            "shutdown": self.shutdown,
            "get_session_data": self.get_session_data,
            "update_session_data": self.update_session_data,
        }

    def handle(self, command: Any, args: Any, v1: V1Context) -> dict[str, Any] | None:
        """Serve one command; None if there is no such command.

        Raises:
            Exception: its text is the error of the reply. A command that is a list or an object is a TypeError
                ("unhashable type"), as it always was.
        """
        handler = self._handlers.get(command)
        if handler is None:
            return None
        self.pooled = v1.mode == POOL_WORKER
        return handler(args, v1)

    # ------------------------------------------------------------------ the worker

    def ping(self, args: Any, v1: V1Context) -> dict[str, Any]:  # noqa: ARG002  # reads none
        """Answer without importing DSPy: DSPex waits 5 s for the first ping, and counts on far less."""
        answer = {
            "status": "ok",
            "timestamp": time.time(),
            "dspy_available": dspy_is_installed(),
            "gemini_available": gemini_is_installed(),
            "uptime": v1.uptime,
            "mode": self._mode(v1),
        }
        return {**answer, "worker_id": v1.worker_id} if v1.worker_id else answer

    def get_stats(self, args: Any, v1: V1Context) -> dict[str, Any]:  # noqa: ARG002  # reads none
        """Count; this call included."""
        return {
            "programs_count": len(self.programs),
            "command_count": v1.command_count,
            "error_count": v1.error_count,
            "uptime": v1.uptime,
            "memory_usage": memory_usage(),
            "dspy_available": dspy_is_installed(),
            "gemini_available": gemini_is_installed(),
        }

    def cleanup(self, args: Any, v1: V1Context) -> dict[str, Any]:  # noqa: ARG002  # reads none
        """Remove all programs."""
        return {"status": "cleaned", "programs_removed": self._clear()}

    def reset_state(self, args: Any, v1: V1Context) -> dict[str, Any]:  # noqa: ARG002  # reads none
        """Remove all programs and set the counters to zero."""
        commands, errors = v1.reset_counters()
        return {
            "status": "reset",
            "programs_cleared": self._clear(),
            "commands_reset": commands,
            "errors_reset": errors,
        }

    def shutdown(self, args: Any, v1: V1Context) -> dict[str, Any]:  # noqa: ARG002  # reads none
        """Acknowledge. The process goes on until its input ends, as it always did."""
        if not self.pooled:
            self._clear()
        return {
            "status": "shutting_down",
            "worker_id": v1.worker_id,
            "mode": self._mode(v1),
            "sessions_cleaned": 0,
        }

    # ------------------------------------------------------------------ sessions, which live in Elixir

    def cleanup_session(self, args: Any, v1: V1Context) -> dict[str, Any]:
        """Acknowledge the end of a session; this worker holds nothing of it."""
        if not self.pooled:
            return {"status": "not_applicable", "mode": self._mode(v1)}
        session_id = args.get("session_id")
        if not session_id:
            raise ValueError("Session ID required for cleanup")
        return {"status": "cleaned", "session_id": session_id, "programs_removed": 0}

    def get_session_data(self, args: Any, v1: V1Context) -> dict[str, Any]:  # noqa: ARG002  # needs no counters
        """Say that there is none here."""
        session_id = args.get("session_id")
        if not session_id:
            return {"error": "session_id is required"}
        return {
            "session_id": session_id,
            "status": "not_stored_locally",
            "message": "Session data is managed centrally in Elixir",
        }

    def update_session_data(self, args: Any, v1: V1Context) -> dict[str, Any]:  # noqa: ARG002  # needs no counters
        """Acknowledge; nothing is stored here."""
        session_id = args.get("session_id")
        if not session_id:
            return {"error": "session_id is required"}
        return {
            "session_id": session_id,
            "status": "acknowledged",
            "message": "Update acknowledged - session data managed centrally",
        }

    # ------------------------------------------------------------------ programs

    def configure_lm(self, args: Any, v1: V1Context) -> dict[str, Any]:
        """Set the model of this process. A failure is a success reply with `error` in it, and counts as an error."""
        try:
            return self.lm.configure(args)
        except Exception as error:  # noqa: BLE001  # the contract: every failure becomes this reply
            v1.error_count += 1
            return {"error": self.bridge.secrets.clean(str(error))}

    def create_program(self, args: Any, v1: V1Context) -> dict[str, Any]:  # noqa: ARG002  # needs no counters
        """Make a program; store it unless its session lives in Elixir."""
        dspy = self._dspy("create")
        program_id = args.get("id")
        signature = args.get("signature", {})
        if not program_id:
            raise ValueError("Program ID is required")
        session_id = args.get("session_id") if self.pooled else None
        if self.pooled and not session_id:
            raise ValueError("Session ID required in pool-worker mode")
        if not self.pooled:
            self._refuse_duplicate(program_id)
        try:
            wants_dynamic = args.get("use_dynamic_signature", self.dynamic_by_default)
            stored = make_program(dspy, signature, wants_dynamic)
            if session_id in (None, ANONYMOUS):
                self.programs[program_id] = stored
        except Exception as error:  # as above
            raise RuntimeError(f"Failed to create program: {error}") from error
        return {
            "program_id": program_id,
            "status": "created",
            "signature": signature,
            "program_type": args.get("program_type", "predict"),
        }

    def execute_program(self, args: Any, v1: V1Context) -> dict[str, Any]:
        """Run a program: look it up, find a model, then run."""
        program_id = args.get("program_id")
        inputs = args.get("inputs", {})
        if not program_id:
            raise ValueError("Program ID is required")
        stored = self._program_to_run(program_id, args)
        if not self.lm.configured:
            self._configure_from_environment(v1)
        try:
            begun = time.monotonic()
            outputs = run_program(self._dspy("recreate"), self.lm.current, stored, inputs)
            return {"program_id": program_id, "outputs": outputs, "execution_time": time.monotonic() - begun}
        except Exception as error:  # as above
            raise RuntimeError(self.bridge.secrets.clean(f"Program execution failed: {error}")) from error

    def _program_to_run(self, program_id: Any, args: Any) -> StoredProgram:
        session_id = args.get("session_id") if self.pooled else None
        if not session_id or session_id == ANONYMOUS:
            return self._stored(program_id)
        data = args.get("program_data")
        if not data:
            raise ValueError(f"Program not found: {program_id} (no program data provided)")
        dspy = self._dspy("recreate")
        try:
            return recreate_program(dspy, data)
        except Exception as error:  # as above
            raise RuntimeError(f"Failed to recreate program from data: {error}") from error

    def _configure_from_environment(self, v1: V1Context) -> None:
        key = os.environ.get("GEMINI_API_KEY")
        if not key:
            raise RuntimeError("No LM is loaded.")
        self.configure_lm(
            {"model": v1_gemini.DEFAULT_MODEL, "api_key": key, "temperature": 0.7, "provider": "google"}, v1
        )

    def list_programs(self, args: Any, v1: V1Context) -> dict[str, Any]:  # noqa: ARG002  # needs no counters
        """List the stored programs; in a pool, where Elixir keeps them, always none."""
        if self.pooled:
            args.get("session_id")
            return {"programs": [], "total_count": 0}
        programs = [{"id": program_id, **stored.describe()} for program_id, stored in self.programs.items()]
        return {"programs": programs, "total_count": len(programs)}

    def get_program_info(self, args: Any, v1: V1Context) -> dict[str, Any]:  # noqa: ARG002  # needs no counters
        """Describe one stored program."""
        program_id = args.get("program_id")
        if not program_id:
            raise ValueError("Program ID is required")
        return {"program_id": program_id, **self._stored(program_id).describe()}

    def delete_program(self, args: Any, v1: V1Context) -> dict[str, Any]:  # noqa: ARG002  # needs no counters
        """Remove one stored program."""
        program_id = args.get("program_id")
        if not program_id:
            raise ValueError("Program ID is required")
        session_id = args.get("session_id") if self.pooled else ANONYMOUS
        if not session_id:
            raise ValueError("Session ID required in pool-worker mode")
        if session_id != ANONYMOUS:  # its data lives in Elixir, where nobody looked
            raise ValueError(f"Session not found: {session_id}")
        self._stored(program_id)
        del self.programs[program_id]
        return {"program_id": program_id, "status": "deleted"}

    def create_gemini_program(self, args: Any, v1: V1Context) -> dict[str, Any]:  # noqa: ARG002  # needs no counters
        """Make a program that asks Gemini without DSPy."""
        gemini = v1_gemini.import_gemini()
        program_id = args.get("id")
        signature = args.get("signature", {})
        model_name = args.get("model", v1_gemini.DEFAULT_MODEL)
        if not program_id:
            raise ValueError("Program ID is required")
        self._refuse_duplicate(program_id)
        try:
            model = gemini.GenerativeModel(model_name)
        except Exception as error:  # as above
            raise RuntimeError(f"Failed to create Gemini program: {error}") from error
        self.programs[program_id] = StoredProgram(signature=signature, program=model, is_gemini=True)
        return {
            "program_id": program_id,
            "status": "created",
            "type": "gemini",
            "model_name": model_name,
            "signature": signature,
        }

    def execute_gemini_program(self, args: Any, v1: V1Context) -> dict[str, Any]:  # noqa: ARG002  # needs no counters
        """Ask Gemini."""
        program_id = args.get("program_id")
        inputs = args.get("inputs", {})
        if not program_id:
            raise ValueError("Program ID is required")
        stored = self._stored(program_id)
        if not stored.is_gemini:
            raise ValueError(f"Program {program_id} is not a Gemini program")
        try:
            begun = time.monotonic()
            text = stored.program.generate_content(v1_gemini.build_prompt(stored.signature, inputs)).text
            outputs = v1_gemini.parse_response(stored.signature, text)
            stored.count_execution()
        except Exception as error:  # as above
            raise RuntimeError(f"Gemini program execution failed: {error}") from error
        return {
            "program_id": program_id,
            "outputs": outputs,
            "execution_time": time.monotonic() - begun,
            "raw_response": text,
        }

    # ------------------------------------------------------------------ inside

    def _dspy(self, what: str) -> Any:
        try:
            return self.bridge.load()
        except ImportError as error:
            raise RuntimeError(f"DSPy not available - cannot {what} programs") from error

    def _stored(self, program_id: Any) -> StoredProgram:
        if program_id not in self.programs:
            raise ValueError(f"Program not found: {program_id}")
        return self.programs[program_id]

    def _refuse_duplicate(self, program_id: Any) -> None:
        if program_id in self.programs:
            raise ValueError(f"Program with ID '{program_id}' already exists")

    def _clear(self) -> int:
        removed = len(self.programs)
        self.programs.clear()
        gc.collect()
        return removed

    def _mode(self, v1: V1Context) -> str:
        return POOL_WORKER if v1.mode == POOL_WORKER else "standalone"


def memory_usage() -> dict[str, Any]:
    """What psutil says about this process, where it is installed; DSPex reads zeros as "unknown"."""
    try:
        import psutil
    except ImportError:
        return {"rss": 0, "vms": 0, "percent": 0, "error": "psutil not available"}
    process = psutil.Process()
    memory = process.memory_info()
    return {"rss": memory.rss, "vms": memory.vms, "percent": process.memory_percent()}
