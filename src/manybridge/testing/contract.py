"""What every bridge must hold to, as one call for its author's tests.

`check_bridge(MyBridge, samples={"count": {"text": "a b"}})` looks at the class, sets a bridge up, runs the samples and
names everything that would surprise a caller or an operator.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Final

from manybridge.bridge import Bridge, BridgeError, ErrorCode, ResourceSpec, compile_bridge
from manybridge.testing.harness import BridgeHarness, Outcome
from manybridge.testing.problems import KitError, demand_bridge_class

Sample = Mapping[str, Any]
ResourceSample = tuple[dict[str, Any], dict[str, Any]]
"""Config and inputs."""

IMPORT_TIMEOUT: Final = 60.0
"""Seconds that a fresh interpreter may take to import the bridge and its framework; the slowest known takes 6."""

ONE_THREAD: Final = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""Workers start like this unless they are told otherwise, so the probe does too."""

_STRANGE: Final = "an_argument_that_no_command_has"
_PROBE: Final = Path(__file__).with_name("probe.py")


def check_bridge(
    bridge: type[Bridge],
    options: dict[str, Any] | None = None,
    *,
    samples: Mapping[str, Sample] | None = None,
    resources: Mapping[str, ResourceSample] | None = None,
) -> None:
    """Checks a bridge against the contract.

    Args:
        bridge: the class.
        options: what `setup` gets.
        samples: command -> arguments of a call that succeeds.
        resources: resource type -> config and inputs that succeed.

    Raises:
        AssertionError: listing every problem.
    """
    problems = contract_problems(bridge, options, samples=samples, resources=resources)
    if problems:
        raise AssertionError(f"{bridge.__qualname__} breaks the contract:\n- " + "\n- ".join(problems))


def contract_problems(
    bridge: type[Bridge],
    options: dict[str, Any] | None = None,
    *,
    samples: Mapping[str, Sample] | None = None,
    resources: Mapping[str, ResourceSample] | None = None,
) -> list[str]:
    """What `check_bridge` complains about; empty for a good bridge.

    Raises:
        KitError: `bridge` is no bridge's class, or a sample has another form.
    """
    demand_bridge_class(bridge, "bridge")
    _demand_samples(samples or {}, resources or {})
    problems = [*_declaration_problems(bridge), *_import_problems(bridge)]
    harness = BridgeHarness(bridge, options)
    try:
        problems += _argument_problems(harness)
        for command, arguments in (samples or {}).items():
            problems += _sample_problems(harness, command, dict(arguments))
        for type_name, (config, inputs) in (resources or {}).items():
            problems += _resource_problems(harness, type_name, config, inputs)
    finally:
        harness.close()
    return problems + _second_close_problems(harness)


def _demand_samples(samples: Mapping[str, Any], resources: Mapping[str, Any]) -> None:
    for command, arguments in samples.items():
        if not isinstance(arguments, Mapping):
            raise KitError(f"samples[{command!r}]: expected a mapping of arguments, found {arguments!r:.200}")
    for name, pair in resources.items():
        if not (isinstance(pair, (tuple, list)) and len(pair) == 2 and all(isinstance(each, Mapping) for each in pair)):
            raise KitError(f"resources[{name!r}]: expected two mappings, config and inputs, found {pair!r:.200}")


def _declaration_problems(bridge: type[Bridge]) -> Iterator[str]:
    spec = compile_bridge(bridge)
    for name, command in spec.commands.items():
        if not command.description:
            yield f"command {name} has no description: write a docstring"
    for name, kind in spec.resources.items():
        if not kind.description:
            yield f"resource type {name} has no description: write a docstring"
    try:
        json.dumps(spec.describe(), allow_nan=False)
    except (TypeError, ValueError) as exc:
        yield f"its capabilities are not JSON: {exc}"


def _import_problems(bridge: type[Bridge]) -> Iterator[str]:
    """Imports the bridge in a fresh interpreter: what it loads, and whether it is as fork-safe as it says."""
    module = sys.modules.get(bridge.__module__)
    file = getattr(module, "__file__", None)
    if file is None or "<locals>" in bridge.__qualname__ or bridge.__module__ == "__main__":
        return  # written inside a test: there is no file that a worker could load
    request = {
        "path": sys.path,
        "module": bridge.__module__,
        "file": file,
        "bridge": bridge.__qualname__,
        "preload": bridge.zygote_safe,
    }
    done = subprocess.run(
        [sys.executable, str(_PROBE), json.dumps(request)],
        capture_output=True,
        text=True,
        timeout=IMPORT_TIMEOUT,
        check=False,
        env={**os.environ, **ONE_THREAD},
    )
    if done.returncode != 0:
        yield f"a fresh interpreter can't import it: {done.stderr.strip().splitlines()[-1:]}"
        return
    found = json.loads(done.stdout.splitlines()[-1])
    if found["early"]:
        yield f"importing its module imports {', '.join(found['early'])}: import frameworks in preload or setup"
    if found["threads"] > 1:
        yield f"zygote_safe, but preload leaves {found['threads'] - 1} threads running"
    if found["sockets"] > 0:
        yield f"zygote_safe, but preload leaves {found['sockets']} sockets open"


def _argument_problems(harness: BridgeHarness) -> Iterator[str]:
    for name, command in harness.bridge.spec.commands.items():
        if command.args_schema.get("additionalProperties", True) is not False:
            continue
        try:
            command.validate({_STRANGE: 1})
        except BridgeError as exc:
            if exc.code is ErrorCode.INVALID_ARGUMENT:
                continue
        yield f"command {name} takes an argument that it does not know"


def _sample_problems(harness: BridgeHarness, command: str, arguments: dict[str, Any]) -> list[str]:
    try:
        outcome = harness.run(command, arguments)
    except Exception as exc:  # noqa: BLE001  # whatever a bridge's code raises is the finding
        return [f"the sample of {command} fails: {type(exc).__name__}: {exc}"]
    return _outcome_problems(f"command {command}", outcome)


def _resource_problems(
    harness: BridgeHarness, type_name: str, config: dict[str, Any], inputs: dict[str, Any]
) -> list[str]:
    try:
        held = harness.create(type_name, config)
        problems = _outcome_problems(f"resource type {type_name}", held.run(inputs))
        if held.spec.policy == "restore":
            problems += _restore_problems(harness, held.spec, config, inputs, held.snapshot())
        held.close()
    except Exception as exc:  # noqa: BLE001  # as above
        return [f"the sample of resource type {type_name} fails: {type(exc).__name__}: {exc}"]
    return problems


def _restore_problems(
    harness: BridgeHarness, spec: ResourceSpec, config: dict[str, Any], inputs: dict[str, Any], state: Any
) -> list[str]:
    """A snapshot must survive JSON, and the restored resource must give the same snapshot and still work."""
    try:
        text = json.dumps(state, sort_keys=True)
    except (TypeError, ValueError) as exc:
        return [f"the snapshot of resource type {spec.type} is not JSON: {exc}"]
    restored = harness.restore(spec.type, config, json.loads(text))
    again = json.dumps(restored.snapshot(), sort_keys=True)
    restored.run(inputs)
    restored.close()
    return [] if again == text else [f"a restored {spec.type} gives another snapshot than the one it was made from"]


def _outcome_problems(what: str, outcome: Outcome) -> list[str]:
    problems = []
    for part, value in (("result", outcome.result), *(("chunk", chunk) for chunk in outcome.chunks)):
        try:
            json.dumps(value)
        except (TypeError, ValueError, RecursionError) as exc:
            problems.append(f"a {part} of {what} is not JSON: {exc}")
    return problems


def _second_close_problems(harness: BridgeHarness) -> list[str]:
    try:
        harness.close()
    except Exception as exc:  # noqa: BLE001  # as above
        return [f"a second close fails: {type(exc).__name__}: {exc}"]
    return []


class BridgeContract:
    """The contract as tests that pytest collects, one for each promise, command and resource type.

    Inherit from it in a test module, under a name that begins with `Test`::

        class TestWordBridge(BridgeContract):
            bridge = WordBridge
            samples = {"count": {"text": "a b a"}}
    """

    bridge: ClassVar[type[Bridge]]
    """The class."""
    options: ClassVar[dict[str, Any]] = {}
    """What `setup` gets."""
    samples: ClassVar[Mapping[str, Sample]] = {}
    """Command -> arguments of a call that succeeds."""
    resources: ClassVar[Mapping[str, ResourceSample]] = {}
    """Resource type -> config and inputs that succeed."""
    in_worker: ClassVar[bool] = True
    """Whether the samples run in a real worker too; needs the bridge's framework beside pytest."""

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        found = cls.__dict__.get("bridge")
        if found is not None and not (isinstance(found, type) and issubclass(found, Bridge)):
            wanted = "a class that extends manybridge.bridge.Bridge"
            raise TypeError(f"{cls.__qualname__}.bridge: expected {wanted}, found {found!r}; import it first")

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """One test for each sample. Called by pytest."""
        for argument, known in (("sample", self.samples), ("resource_sample", self.resources)):
            if argument in metafunc.fixturenames:
                metafunc.parametrize(argument, list(known))

    def test_says_what_it_has(self) -> None:
        """Commands and resource types are described, and the description is JSON."""
        _demand(_declaration_problems(self.bridge))

    def test_can_be_imported_before_its_framework(self) -> None:
        """Importing the module imports no framework, and a bridge that may be forked leaves nothing running."""
        _demand(_import_problems(self.bridge))

    def test_refuses_arguments_that_it_does_not_know(self) -> None:
        """Every command says `invalid_argument` to an argument that it does not have."""
        with BridgeHarness(self.bridge, dict(self.options)) as harness:
            _demand(_argument_problems(harness))

    def test_command(self, sample: str) -> None:
        """The sample of a command succeeds with what JSON can carry."""
        with BridgeHarness(self.bridge, dict(self.options)) as harness:
            _demand(_sample_problems(harness, sample, dict(self.samples[sample])))

    def test_resource(self, resource_sample: str) -> None:
        """The sample of a resource type succeeds, and its snapshot can be restored."""
        config, inputs = self.resources[resource_sample]
        with BridgeHarness(self.bridge, dict(self.options)) as harness:
            _demand(_resource_problems(harness, resource_sample, config, inputs))

    def test_can_be_closed_twice(self) -> None:
        """A second close does nothing."""
        harness = BridgeHarness(self.bridge, dict(self.options))
        harness.close()
        _demand(_second_close_problems(harness))

    def test_serves_in_a_worker(self) -> None:
        """The samples succeed in a process of their own, through a host, and wrong calls get the right codes."""
        if self.in_worker:
            _demand(_worker_problems(self.bridge, self.options, self.samples, self.resources))


def _demand(problems: Iterable[str]) -> None:
    found = list(problems)
    assert not found, "- " + "\n- ".join(found)


def _worker_problems(
    bridge: type[Bridge],
    options: dict[str, Any],
    samples: Mapping[str, Sample],
    resources: Mapping[str, ResourceSample],
) -> Iterator[str]:
    from manybridge.errors import ManybridgeError  # the host's side: a test of a bridge alone does not load it
    from manybridge.testing.hosts import start_host

    host = start_host({bridge.name: {"bridge": bridge, "options": options, "zygote": "never"}}, real=True)
    with host as ml:
        for command, arguments in samples.items():
            try:
                ml.call(bridge.name, f"{bridge.name}:{command.removeprefix(f'{bridge.name}:')}", arguments)
            except ManybridgeError as error:
                yield f"in a worker the sample of {command} fails: {error}"
        for type_name, (config, inputs) in resources.items():
            try:
                made = ml.create_resource(bridge.name, type_name, config)
                ml.execute_resource(bridge.name, made.id, inputs)
                ml.delete_resource(bridge.name, made.id)
            except ManybridgeError as error:
                yield f"in a worker the sample of resource type {type_name} fails: {error}"
        try:
            ml.call(bridge.name, f"{bridge.name}:a_command_that_no_bridge_has")
        except ManybridgeError as error:
            if error.code != ErrorCode.UNKNOWN_COMMAND:
                yield f"an unknown command fails with {error.code} in a worker, not with unknown_command"
        else:
            yield "a command that it does not have succeeds in a worker"
