"""The resource type `program`: a DSPy module made from a recipe, with its learned state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

from manybridge.bridge import BridgeError, Context
from manybridge.bridges.common.held import Held
from manybridge.bridges.common.problems import invalid
from manybridge.bridges.common.references import References
from manybridge.bridges.dspy.errors import Translation
from manybridge.bridges.dspy.execution import CallSettings, run
from manybridge.bridges.dspy.options import check_model
from manybridge.bridges.dspy.signatures import describe_fields, make_signature
from manybridge.bridges.dspy.tools import make_tools
from manybridge.bridges.dspy.values import check_inputs, make_examples, to_json
from manybridge.protocol.errors import ErrorCode

if TYPE_CHECKING:
    from manybridge.bridges.dspy.bridge import DSPyBridge

MODULES: Final[dict[str, tuple[str, str]]] = {
    "predict": ("Predict", "one request that fills the output fields"),
    "chain_of_thought": ("ChainOfThought", "the same, with the model's reasoning as a further output"),
    "react": ("ReAct", "an agent: thinks, calls tools, looks at the results, answers"),
    "program_of_thought": ("ProgramOfThought", "writes and runs Python (needs Deno in the environment)"),
}
AdapterName = Literal["chat", "json", "xml"]


class Program(Held):
    """A DSPy program. Its state (demonstrations, instructions that an optimiser wrote) survives its worker.

    Owned by one worker at a time, which calls one method after the other.
    """

    bridge: DSPyBridge

    def create(
        self,
        signature: str | dict[str, Any] = "",
        module: str = "predict",
        instructions: str | None = None,
        tools: list[str | dict[str, Any]] | None = None,
        demos: list[dict[str, Any]] | None = None,
        max_iters: int | None = None,
        lm: dict[str, Any] | None = None,
        adapter: AdapterName | None = None,
        module_args: dict[str, Any] | None = None,
        state: dict[str, Any] | None = None,
    ) -> None:
        """Make a program.

        Args:
            signature: "question -> answer", or {name, instructions, inputs, outputs} with typed fields.
            module: predict, chain_of_thought, react, program_of_thought, or package.module:Class of a team's own
                dspy.Module in an allowed module (then signature may be left out).
            instructions: takes the place of the signature's own.
            tools: for react: "module:function" of an allowed module, or a tool of the client {name, description,
                parameters}.
            demos: examples that go into every prompt.
            max_iters: for react: how many steps at most.
            lm: settings over the session's: {model, temperature, max_tokens, api_key_env, ...}; never a key.
            adapter: how prompts are written and answers read.
            module_args: keyword arguments of a team's own class.
            state: what save_state returned for a program of the same shape.
        """
        if lm and "api_key" in lm:
            raise BridgeError(
                ErrorCode.INVALID_ARGUMENT,
                "lm.api_key: a program's recipe is stored, so it may not hold a key. Name the variable that has it "
                "(api_key_env), or use dspy:configure_lm.",
            )
        check_model(lm or {}, "lm.")
        self.own_lm = lm
        self.adapter = adapter
        dspy = self.bridge.load()
        with Translation(self.bridge.secrets):
            made = make_signature(dspy, signature, instructions) if signature else None
            arguments = {"tools": tools, "max_iters": max_iters, **(module_args or {})}
            self.module = make_module(dspy, module, made, arguments, self.bridge.references)
        self.kind = module
        if demos:
            examples = make_examples(dspy, demos, [], "demos")
            for predictor in self.module.predictors():
                predictor.demos = list(examples)
        if state:
            self.restore(state)
        self.bridge.programs[self.id] = self

    @property
    def signature(self) -> Any:
        """The program's signature class, or None for a team's own module that has none."""
        return getattr(self.module, "signature", None) or getattr(self._only_predictor(), "signature", None)

    def _only_predictor(self) -> Any:
        predictors = self.module.predictors()
        return predictors[0] if len(predictors) == 1 and self.kind in MODULES else None

    async def execute(self, inputs: dict[str, Any], *, ctx: Context) -> dict[str, Any]:
        """Run the program on one set of inputs; text outputs stream as {field, chunk}.

        Args:
            inputs: a value for each input field.
        """
        return await self.run(inputs, ctx)

    async def run(self, inputs: dict[str, Any], ctx: Context) -> dict[str, Any]:
        """Run once: `{outputs, usage, trace?}`."""
        call = self.call_settings(ctx)
        checked = inputs if self.signature is None else check_inputs(self.signature, inputs)
        with Translation(self.bridge.secrets):
            result = await run(call, self.module, checked)
        self.bridge.usage_ledger.add(result["usage"], ctx.session_id or self.session_id)
        return result

    def call_settings(self, ctx: Context) -> CallSettings:
        """Find model and adapter for one call of this program."""
        bridge = self.bridge
        dspy = bridge.load()
        settings = bridge.models.settings_for(ctx.session_id or self.session_id, self.own_lm)
        return CallSettings(dspy, bridge.models.open(dspy, settings), self.adapter or bridge.adapter, ctx)

    def describe(self) -> dict[str, Any]:
        """What the program is, for `dspy:get_program_info`; never what it learned from."""
        signature = self.signature
        described: dict[str, Any] = {"id": self.id, "session": self.session_id, "module": self.kind}
        if signature is not None:
            described["signature"] = {
                "instructions": signature.instructions,
                "inputs": describe_fields(signature.input_fields),
                "outputs": describe_fields(signature.output_fields),
            }
        described["demos"] = {name: len(predictor.demos) for name, predictor in self.module.named_predictors()}
        return described

    def input_names(self, example: dict[str, Any], named: list[str] | None) -> list[str]:
        """Which fields of an example are inputs: those named, else the signature's.

        Raises:
            BridgeError: `invalid_argument`, a team's own module has no signature and nothing is named.
        """
        if named:
            return named
        if self.signature is None:
            raise BridgeError(
                ErrorCode.INVALID_ARGUMENT, f"input_fields: name which of {', '.join(example)} are inputs"
            )
        return list(self.signature.input_fields)

    def snapshot(self) -> dict[str, Any]:
        """The learned state as JSON: demonstrations, instructions, no key."""
        dspy = self.bridge.load()
        return {"dspy_version": dspy.__version__, "module": self.kind, "state": to_json(self.module.dump_state())}

    def restore(self, state: dict[str, Any]) -> None:
        """Put a snapshot back; in another worker, make the program from its config first.

        Raises:
            BridgeError: `invalid_argument`, the state is not one of a program of this shape.
        """
        if not hasattr(self, "module"):
            self.create(**{**self.config, "state": None})
        models = [predictor.lm for predictor in self.module.predictors()]
        try:
            self.module.load_state(state["state"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BridgeError(
                ErrorCode.INVALID_ARGUMENT,
                f"state: not the state of a {self.kind} program with this signature ({type(error).__name__})",
            ) from error
        finally:
            # A state that names a model would have its maker choose to whom this worker's keys are sent.
            for predictor, model in zip(self.module.predictors(), models, strict=True):
                predictor.lm = model

    def close(self) -> None:
        """Forget the program."""
        self.bridge.programs.pop(self.id, None)


def make_module(dspy: Any, kind: str, signature: Any, arguments: dict[str, Any], references: References) -> Any:
    """Make the DSPy module of a recipe.

    Args:
        signature: a signature class; None only for a team's own class.
        arguments: `tools` and `max_iters` for `react`; all others only for a team's own class.

    Raises:
        BridgeError: `invalid_argument`, or `permission_denied` for a module that is not allowed.
    """
    given = {name: value for name, value in arguments.items() if value is not None}
    if kind not in MODULES:
        return _make_own(dspy, kind, signature, given, references)
    if signature is None:
        raise invalid("signature", "expected 'inputs -> outputs', or an object with inputs and outputs")
    if kind == "react":
        if given.get("max_iters", 1) < 1:
            raise invalid("max_iters", f"expected 1 or more, found {given['max_iters']}")
        given["tools"] = make_tools(dspy, given.get("tools", []), references)
        if not given["tools"]:
            raise invalid("tools", "react needs at least one tool")
    elif given:
        raise invalid(min(given), f"module {kind!r} does not take it")
    try:
        return getattr(dspy, MODULES[kind][0])(signature, **given)
    except TypeError as error:
        raise invalid("module_args", str(error)) from error


def _make_own(dspy: Any, kind: str, signature: Any, given: dict[str, Any], references: References) -> Any:
    if ":" not in kind:
        raise invalid("module", f"expected one of {', '.join(MODULES)}, or 'package.module:Class', found {kind!r}")
    made = references.load(kind, "module")
    if not (isinstance(made, type) and issubclass(made, dspy.Module)):
        raise invalid("module", f"{kind!r} is not a class derived from dspy.Module")
    try:
        return made(**({"signature": signature} if signature is not None else {}), **given)
    except TypeError as error:
        raise invalid("module_args", str(error)) from error
