"""`DSPyBridge`: what a client can ask of DSPy.

Theory of operation. DSPy keeps the current model in global settings that only one thread may change, so this bridge
never configures it: every call runs inside `dspy.context(...)` with the model of its program, session or worker
(`lm.py`). Programs are resources; their recipe makes them again and their learned state is a snapshot, so they
survive their worker. Commands that take a `program_id` work on any program that this worker holds for the caller.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final, Literal

from manybridge.bridge import Bridge, BridgeError, Context, V1Context, command, resource
from manybridge.bridges.common.keys import Secrets, required_variable
from manybridge.bridges.common.references import References
from manybridge.bridges.common.sessions import checked_session_settings, configured_session, of_session
from manybridge.bridges.common.usage import UsageLedger
from manybridge.bridges.dspy.errors import translate
from manybridge.bridges.dspy.framework import import_dspy
from manybridge.bridges.dspy.lm import SETTING_NAMES, LanguageModels, overlay
from manybridge.bridges.dspy.metrics import METRICS, demand_labels, make_metric
from manybridge.bridges.dspy.optimize import OPTIMIZERS, Task, evaluate, optimize
from manybridge.bridges.dspy.options import check_model, check_options
from manybridge.bridges.dspy.programs import MODULES, AdapterName, Program
from manybridge.bridges.dspy.usage import TOKEN_COUNTS
from manybridge.bridges.dspy.v1 import Version1Commands
from manybridge.bridges.dspy.values import make_examples
from manybridge.protocol.errors import ErrorCode

FIRST_CALL_MODULES: Final = ("asyncio", "dspy.streaming", "dspy.clients.engines.lm15_engine", "dspy.clients.execution")
"""What DSPy imports during its first call. A zygote imports it once for all workers."""

OptimizerName = Literal["LabeledFewShot", "BootstrapFewShot", "BootstrapFewShotWithRandomSearch", "MIPROv2"]


class DSPyBridge(Bridge):
    """DSPy: typed signatures, programs, agents with tools, optimisers.

    Options: `model`, `api_key_env` (or `api_key`), `api_base`, `temperature`, `max_tokens`, `timeout` (seconds),
    `cache`, `num_retries`; `adapter` (chat, json, xml); `allow_modules` and `search_path` for a team's own code.
    """

    name: ClassVar[str] = "dspy"
    capabilities: ClassVar[tuple[str, ...]] = ("text-generation", "agents", "optimization", "streaming", "tools")
    required_modules: ClassVar[tuple[str, ...]] = ("dspy",)
    zygote_safe: ClassVar[bool] = True
    dialect: ClassVar[Literal["native", "dspex"]] = "dspex"

    program: ClassVar[type[Program]] = resource("program", policy="restore")(Program)

    def __init__(self) -> None:
        # Version 1 commands are served before, and without, `setup`.
        self.secrets = Secrets()
        self.models = LanguageModels(self.secrets)
        self.references = References()
        self.adapter: str | None = None
        self.options: dict[str, Any] = {}
        self.programs: dict[str, Program] = {}
        self.usage_ledger = UsageLedger(TOKEN_COUNTS)
        self._own_programs: set[str] = set()
        self._version1: Version1Commands | None = None

    @classmethod
    def preload(cls) -> None:
        """Import DSPy and what the first call would import."""
        import_dspy()
        for name in FIRST_CALL_MODULES:
            with contextlib.suppress(ImportError):  # only a matter of speed; another DSPy may have other modules
                importlib.import_module(name)

    def load(self) -> Any:
        """Return the module `dspy`, imported when first needed.

        Raises:
            ImportError: it is not installed.
        """
        return import_dspy()

    def setup(self, options: dict[str, Any]) -> None:
        """Read the options; no model is contacted.

        Raises:
            BridgeError: `config_error` for an unknown or wrong option, `missing_variable` for a key that is not there.
        """
        check_options(options)
        self.options = options
        self.adapter = options.get("adapter")
        self.references = References(options.get("allow_modules") or (), options.get("search_path") or ())
        model = {name: options[name] for name in SETTING_NAMES if options.get(name) is not None}
        if "model" in model:
            self.models = LanguageModels(self.secrets, overlay(None, model, trusted=True))
            if model.get("api_key_env"):
                required_variable(model["api_key_env"])

    def close(self) -> None:
        """Close connections to models."""
        self.models.close()

    def cleanup(self, session_id: str | None) -> dict[str, Any]:
        """Forget a session's model, usage and programs made with `dspy:create_program`."""
        doomed = [
            program
            for program in (self.programs[name] for name in list(self._own_programs))
            if session_id is None or program.session_id == session_id
        ]
        for program in doomed:
            self._forget(program)
        if session_id is not None:
            self.models.forget(session_id)
            self.usage_ledger.forget(session_id)
        return {"programs_removed": len(doomed)}

    def configure_session(self, session_id: str, settings: Mapping[str, Any]) -> None:
        """Set the model of a session; the settings are the arguments of `dspy:configure_lm`.

        Raises:
            BridgeError: as `dspy:configure_lm`.
        """
        try:
            given = checked_session_settings(self.spec.commands["configure_lm"], settings)
            check_model(given, "")
            self.models.configure_session(given, session_id)
        except BridgeError as error:
            raise of_session(error, self.name) from error

    def stats(self) -> dict[str, Any]:
        """Programs and usage."""
        return {"programs": len(self.programs), "usage": self.usage_ledger.total()}

    def translate_error(self, error: BaseException) -> BridgeError | None:
        """See `errors.py`."""
        return translate(error, self.secrets)

    def handle_v1(self, command: str, args: Any, v1: V1Context) -> dict[str, Any] | None:
        """Serve DSPEx version 1, see `v1.py`."""
        if self._version1 is None:
            self._version1 = Version1Commands(self)
        return self._version1.handle(command, args, v1)

    # ------------------------------------------------------------------ models

    @command("configure_lm", session_settings=True)
    def configure_lm(
        self,
        model: str | None = None,
        api_key: str | None = None,
        api_key_env: str | None = None,
        api_base: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        timeout: float | None = None,
        cache: bool | None = None,
        num_retries: int | None = None,
        session_id: str | None = None,
        *,
        ctx: Context,
    ) -> dict[str, Any]:
        """Set the language model of a session, or of this worker where there is no session; asks no model.

        Args:
            model: provider/model, for example openai/gpt-4o-mini.
            api_key: the key; better its place, api_key_env.
            api_key_env: name of the environment variable that has the key.
            api_base: address of an endpoint; needs an api_key in the same call.
            temperature: of the sampling.
            max_tokens: of one answer.
            timeout: seconds without an answer.
            cache: whether answers may come from DSPy's disk cache.
            num_retries: how often DSPy repeats a failed request.
            session_id: by default the session of the call.
            ctx: the call.
        """
        session = configured_session(session_id, ctx, self.worker)
        given = {
            "model": model, "api_key": api_key, "api_key_env": api_key_env, "api_base": api_base,
            "temperature": temperature, "max_tokens": max_tokens, "timeout": timeout, "cache": cache,
            "num_retries": num_retries,
        }  # fmt: skip
        check_model(given, "")
        settings = self.models.configure(given, session, lambda made: self.models.open(self.load(), made))
        return {
            "status": "configured", "session": session, **settings.describe(), "settings": self.models.told(session),
        }  # fmt: skip

    @command("usage", idempotent=True)
    def usage(self, *, ctx: Context) -> dict[str, Any]:
        """Tokens and requests since this worker started, and of the caller's session on it."""
        return self.usage_ledger.told(ctx.session_id)

    @command("list_modules", idempotent=True)
    def list_modules(self) -> dict[str, Any]:
        """Name the kinds of modules, optimisers and metrics that this bridge knows."""
        return {
            "modules": {name: description for name, (_, description) in MODULES.items()},
            "optimizers": OPTIMIZERS,
            "metrics": list(METRICS),
            "own_modules_allowed": list(self.references.allowed),
            "dspy_version": self.load().__version__,
        }

    # ------------------------------------------------------------------ programs

    @command("predict")
    async def predict(
        self,
        signature: str | dict[str, Any],
        inputs: dict[str, Any],
        module: str = "predict",
        instructions: str | None = None,
        tools: list[str | dict[str, Any]] | None = None,
        lm: dict[str, Any] | None = None,
        adapter: AdapterName | None = None,
        *,
        ctx: Context,
    ) -> dict[str, Any]:
        """Make a program, run it once and forget it. Arguments as for the resource type `program`."""
        config = {
            "signature": signature, "module": module, "instructions": instructions, "tools": tools, "lm": lm,
            "adapter": adapter,
        }  # fmt: skip
        with self._using(None, config, ctx) as program:
            return await program.run(inputs, ctx)

    @command("create_program", any_args=True)
    def create_program(self, id: str | None = None, *, ctx: Context, **config: Any) -> dict[str, Any]:
        """Make a program that lives in this worker alone; with a pool, use common:create_resource.

        Arguments are the config of the resource type `program`, and the id.
        """
        name = id or f"program-{os.urandom(8).hex()}"
        if name in self.programs:
            raise BridgeError(ErrorCode.RESOURCE_EXISTS, f"A program {name!r} exists already.", details={"id": name})
        program = self._make(name, config, ctx.session_id)
        self._own_programs.add(name)
        return program.describe()

    @command("execute_program")
    async def execute_program(self, program_id: str, inputs: dict[str, Any], *, ctx: Context) -> dict[str, Any]:
        """Run a program on one set of inputs."""
        return await self._find(program_id, ctx).run(inputs, ctx)

    @command("list_programs", idempotent=True)
    def list_programs(self, *, ctx: Context) -> dict[str, Any]:
        """List the programs that this worker holds for the caller, however they were made."""
        visible = [p.describe() for p in self.programs.values() if p.session_id in (None, ctx.session_id)]
        return {"programs": visible, "total_count": len(visible)}

    @command("get_program_info", idempotent=True)
    def get_program_info(self, program_id: str, *, ctx: Context) -> dict[str, Any]:
        """Describe a program: its module, its fields, how many demonstrations it has."""
        return self._find(program_id, ctx).describe()

    @command("delete_program")
    def delete_program(self, program_id: str, *, ctx: Context) -> dict[str, Any]:
        """Delete a program that dspy:create_program made."""
        program = self._find(program_id, ctx)
        if program_id not in self._own_programs:
            raise BridgeError(
                ErrorCode.NOT_SUPPORTED, f"{program_id!r} is a resource; delete it with common:delete_resource."
            )
        self._forget(program)
        return {"id": program_id, "deleted": True}

    @command("save_state", idempotent=True)
    def save_state(
        self, program_id: str | None = None, program: dict[str, Any] | None = None, *, ctx: Context
    ) -> dict[str, Any]:
        """Return what a program has learned, as JSON: for load_state, or the `state` of a new program.

        Args:
            program_id: the program; or
            program: its recipe, that is the config of the resource type `program`.
            ctx: the call.
        """
        with self._using(program_id, program, ctx) as found:
            return {"program_id": program_id, "state": found.snapshot()}

    @command("load_state", changes="program_id")
    def load_state(self, program_id: str, state: dict[str, Any], *, ctx: Context) -> dict[str, Any]:
        """Put back what save_state returned for a program of the same shape."""
        program = self._find(program_id, ctx)
        program.restore(state)
        return program.describe()

    # ------------------------------------------------------------------ learning

    @command("optimize", changes="program_id")
    def optimize(
        self,
        trainset: list[dict[str, Any]],
        program_id: str | None = None,
        program: dict[str, Any] | None = None,
        optimizer: OptimizerName = "BootstrapFewShot",
        metric: str = "exact_match",
        metric_field: str | None = None,
        valset: list[dict[str, Any]] | None = None,
        input_fields: list[str] | None = None,
        settings: dict[str, Any] | None = None,
        num_threads: int = 1,
        *,
        ctx: Context,
    ) -> dict[str, Any]:
        """Improve a program from examples; progress counts metric calls; a cancelled one leaves it as it was.

        Args:
            trainset: one object per example, with inputs and labels.
            program_id: the program, where this worker holds it; the result takes its place. Or
            program: its recipe, which any worker can take; the result is only the `state` in the reply.
            optimizer: which one, see list_modules.
            metric: exact_match, contains, word_overlap, or package.module:function of an allowed module.
            metric_field: the output field to compare; by default every label.
            valset: examples to score the program on, before and after.
            input_fields: which fields are inputs; by default the signature's.
            settings: keyword arguments of the optimiser, for example {"max_bootstrapped_demos": 2}.
            num_threads: examples at the same time.
            ctx: the call.
        """
        with self._using(program_id, program, ctx) as found:
            task = self._task(found, metric, metric_field, num_threads, ctx)
            compared = (metric, metric_field)
            examples = self._examples(
                found, trainset, input_fields, "trainset", compared if optimizer != "LabeledFewShot" else None
            )
            checks = self._examples(found, valset, input_fields, "valset", compared) if valset else []
            report = optimize(task, optimizer, examples, checks, settings or {})
            return {"program_id": program_id, **report, "state": found.snapshot()}

    @command("evaluate")
    def evaluate(
        self,
        devset: list[dict[str, Any]],
        program_id: str | None = None,
        program: dict[str, Any] | None = None,
        metric: str = "exact_match",
        metric_field: str | None = None,
        input_fields: list[str] | None = None,
        num_threads: int = 1,
        *,
        ctx: Context,
    ) -> dict[str, Any]:
        """Score a program on examples, with progress. Arguments as for optimize."""
        with self._using(program_id, program, ctx) as found:
            task = self._task(found, metric, metric_field, num_threads, ctx)
            return evaluate(task, self._examples(found, devset, input_fields, "devset", (metric, metric_field)))

    # ------------------------------------------------------------------ inside

    @contextlib.contextmanager
    def _using(self, program_id: str | None, recipe: dict[str, Any] | None, ctx: Context) -> Iterator[Program]:
        """Find a program that is here, or make one of its recipe for this call alone."""
        if (program_id is None) == (recipe is None):
            raise BridgeError(ErrorCode.INVALID_ARGUMENT, "expected either program_id or program, the recipe")
        if program_id is not None:
            yield self._find(program_id, ctx)
            return
        made = self._make(f"once-{os.urandom(8).hex()}", recipe or {}, ctx.session_id)
        try:
            yield made
        finally:
            made.close()

    def _task(self, program: Program, metric: str, field: str | None, num_threads: int, ctx: Context) -> Task:
        if num_threads < 1:
            raise BridgeError(ErrorCode.INVALID_ARGUMENT, f"num_threads: expected 1 or more, found {num_threads}")
        return Task(program, make_metric(metric, field, self.references), ctx, num_threads)

    def _examples(
        self,
        program: Program,
        rows: list[dict[str, Any]],
        named: list[str] | None,
        argument: str,
        compared: tuple[str, str | None] | None,
    ) -> list[Any]:
        """Make examples; `compared` is the metric and its field, where there is one."""
        inputs = program.input_names(rows[0], named) if rows else []
        examples = make_examples(self.load(), rows, inputs, argument)
        if compared is not None:
            demand_labels(*compared, rows, inputs, argument)
        return examples

    def _make(self, name: str, config: Mapping[str, Any], session_id: str | None) -> Program:
        spec = self.spec.resources["program"]
        given = {key: value for key, value in config.items() if value is not None}
        made: Program = spec.new(self, name, session_id, given)
        spec.create.function(made, **spec.create.validate(given))
        return made

    def _find(self, program_id: str, ctx: Context) -> Program:
        found = self.programs.get(program_id)
        if found is None or found.session_id not in (None, ctx.session_id):
            raise BridgeError(
                ErrorCode.RESOURCE_NOT_FOUND, f"Program not found: {program_id}", details={"id": program_id}
            )
        return found

    def _forget(self, program: Program) -> None:
        self._own_programs.discard(program.id)
        program.close()
