"""Real frameworks for tests: a host with workers in the framework's own environment, and a model that costs nothing.

DSPy and LangChain are pointed at a `ScriptedLLM`; Transformers gets tiny models that are written on the spot. Where the
framework is installed is said by the test, else by pytest's configuration, else by the project's `manybridge.toml`;
see `find_framework`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, Final, NamedTuple

from manybridge.host.config import BridgeConfig, EnvironmentsConfig, HostConfig, load_config, make_bridge_config
from manybridge.host.config_secrets import is_secret_key
from manybridge.host.config_sources import CONFIG_VARIABLE, find_config
from manybridge.host.sync import MLBridge
from manybridge.testing.llm import ScriptedLLM
from manybridge.testing.memory import InMemoryMLBridge
from manybridge.testing.problems import KitError

KEY: Final = "scripted-model-needs-none"
"""Sent by workers to an endpoint that asks for no key, because clients refuse to start without one."""

NO_PROXY: Final = {"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"}


class FrameworkNotFoundError(KitError):
    """Nothing says where the framework is installed, or what is said is not there. The message says what to do."""


@dataclass(frozen=True, slots=True)
class Framework:
    """A framework that a bundled bridge runs."""

    name: str
    """Of the bridge, of the package, and of the fixture behind `manybridge_`."""
    title: str
    model_options: tuple[str, ...] = ()
    """Options that lead to a model; they are replaced by the endpoint's."""


FRAMEWORKS: Final[Mapping[str, Framework]] = {
    "dspy": Framework("dspy", "DSPy", ("model", "api_key", "api_key_env", "api_base")),
    "langchain": Framework(
        "langchain", "LangChain", ("model", "api_key", "api_key_env", "base_url", "embedding_model", "parameters")
    ),
    "transformers": Framework("transformers", "Transformers", ("models_folder",)),
}


class Found(NamedTuple):
    """A framework's environment."""

    bridge: str
    """The name of the bridge in a host."""
    config: BridgeConfig
    environments: EnvironmentsConfig
    source: str
    """What said it."""


def start_framework(name: str, *, ml: MLBridge | None = None, **wishes: Any) -> Any:
    """Start a host with one bridge of a framework and return its adapter; `adapter.ml` is the host, which is to close.

    Args:
        name: `dspy`, `langchain` or `transformers`.
        ml: a host that runs already, with worker processes, and gets the bridge too; for a program that needs several.
        wishes: as of `framework_config`.

    Raises:
        KitError: `ml` is a host in memory.
        WorkerStartError: `missing_package`, the interpreter lacks the framework; or whatever kept it from starting.
        ManybridgeError: as `framework_config`.
    """
    if isinstance(ml, InMemoryMLBridge):
        raise KitError("a host in memory has no worker processes, so no environments; start it with real=True")
    found = _find_and_wire(name, **wishes)
    host = ml or MLBridge(_host_config(found))
    try:
        if ml is not None:
            ml.register_bridge(found.bridge, found.config)
        host.wait_ready(found.bridge)
        return host.get_adapter(found.bridge)
    except BaseException as error:
        error.add_note(f"The interpreter for {FRAMEWORKS[name].title} was named by {found.source}.")
        if ml is None:
            host.close(0.0)
        raise


def framework_config(
    name: str,
    *,
    llm: ScriptedLLM | None = None,
    models: Path | None = None,
    python: str | Path | None = None,
    bridge: str | None = None,
    options: Mapping[str, Any] | None = None,
    said: str | Path | None = None,
    folder: Path | None = None,
    **keys: Any,
) -> HostConfig:
    """Return the configuration of such a host, for `AsyncMLBridge` or for a host of your own.

    Args:
        name: `dspy`, `langchain` or `transformers`.
        llm: the endpoint that DSPy and LangChain ask. Without one, `options` must name a model.
        models: the folder in which Transformers looks for models; see `write_tiny_models`.
        python: an interpreter that has the framework, or the folder of its environment.
        bridge: the bridge's name in the host; also chooses one of `manybridge.toml`.
        options: of the bridge, over what `manybridge.toml` says and over what leads to the endpoint.
        said: what pytest's configuration says as `python`.
        folder: where the search for `manybridge.toml` begins; the working folder if left out.
        keys: other keys of the bridge's configuration, such as `pool_size`.

    Raises:
        FrameworkNotFoundError: it is nowhere, or what was said is not there.
        KitError: no such framework, or `manybridge.toml` has not the one bridge that is meant.
        ConfigError: a key, or `manybridge.toml`, is wrong.
    """
    found = _find_and_wire(
        name, llm=llm, models=models, python=python, bridge=bridge, options=options, said=said, folder=folder, **keys
    )
    return _host_config(found)


def _find_and_wire(
    name: str,
    *,
    llm: ScriptedLLM | None = None,
    models: Path | None = None,
    python: str | Path | None = None,
    bridge: str | None = None,
    options: Mapping[str, Any] | None = None,
    said: str | Path | None = None,
    folder: Path | None = None,
    **keys: Any,
) -> Found:
    framework = framework_named(name)
    found = find_framework(framework, python=python, bridge=bridge, said=said, folder=folder)
    return found._replace(config=_wired(framework, found, wiring(framework, llm, models), options or {}, keys))


def _host_config(found: Found) -> HostConfig:
    return HostConfig(bridges={found.bridge: found.config}, environments=found.environments)


def framework_named(name: str) -> Framework:
    """Return what is known of a framework.

    Raises:
        KitError: nothing is.
    """
    if name not in FRAMEWORKS:
        raise KitError(f"expected one of {', '.join(FRAMEWORKS)}, found {name!r}; other bridges: manybridge_host")
    return FRAMEWORKS[name]


def wiring(framework: Framework, llm: ScriptedLLM | None, models: Path | None = None) -> dict[str, Any]:
    """The options that lead a framework to the test's models. Nothing is retried or cached: one call, one request."""
    if framework.name == "transformers":
        return {} if models is None else {"models_folder": str(models)}
    if llm is None:
        return {}
    key = {"api_key": llm.api_key or KEY}
    if framework.name == "dspy":
        return {**key, "model": "openai/scripted", "api_base": llm.openai_base, "cache": False, "num_retries": 0}
    model = "openai:scripted"
    return {**key, "model": model, "embedding_model": model, "base_url": llm.openai_base, "max_retries": 0}


def _wired(
    framework: Framework, found: Found, wires: dict[str, Any], options: Mapping[str, Any], keys: dict[str, Any]
) -> BridgeConfig:
    """The configuration that was found, with the test's model in the place of its own."""
    own = {
        name: value for name, value in found.config.options.items() if not wires or name not in framework.model_options
    }
    required = found.config.required_env
    if wires:
        required = [name for name in required if name in os.environ and not is_secret_key(name)]
    return make_bridge_config(
        found.bridge,
        {
            "bridge": found.config.bridge,
            "python": found.config.python,
            "check_python": found.config.check_python,
            "required_packages": found.config.required_packages,
            "required_env": required,
            "environment": {**found.config.environment, **NO_PROXY},
            "options": {**own, **wires, **options},
            **keys,
        },
    )


# ---------------------------------------------------------------- where it is installed


def find_framework(
    framework: Framework,
    *,
    python: str | Path | None = None,
    bridge: str | None = None,
    said: str | Path | None = None,
    folder: Path | None = None,
) -> Found:
    """Find a framework's environment.

    The first of these counts: `python`; `said`; the bridge of that framework in the nearest `manybridge.toml` from
    `folder` upward, or in the file that MANYBRIDGE_CONFIG names; the interpreter that runs the test.

    Raises:
        FrameworkNotFoundError: none of them has it, or the one that counts names what is not there.
        KitError: `manybridge.toml` has several such bridges, or not the one that was asked for.
        ConfigError: `manybridge.toml` is wrong.
    """
    for named, source in ((python, "the argument python"), (said, f"the ini option {ini_option(framework.name)}")):
        if named:
            return _named(framework, bridge, str(named), source)
    path = _config_path(folder or Path.cwd())
    if path is not None and (found := _configured(framework, bridge, path)) is not None:
        return found
    if _is_installed(framework.name):
        return _found(framework, bridge, sys.executable, "nothing, so it is the one that runs the test")
    raise FrameworkNotFoundError(_nowhere(framework, path, folder or Path.cwd()))


def ini_option(name: str) -> str:
    """The option of pytest's configuration that names a framework's interpreter."""
    return f"manybridge_{name}_python"


def _named(framework: Framework, bridge: str | None, python: str, source: str) -> Found:
    path = Path(python).expanduser()
    interpreter = path / "bin" / "python" if path.is_dir() else path
    if "/" in python and not interpreter.exists():
        raise FrameworkNotFoundError(
            f"{interpreter}, which {source} names for {framework.title}, does not exist; expected an interpreter, or "
            "the folder of a virtual environment"
        )
    return _found(framework, bridge, str(interpreter) if "/" in python else python, source)


def _found(framework: Framework, bridge: str | None, python: str, source: str) -> Found:
    config = BridgeConfig(bridge=framework.name, python=python)
    return Found(bridge or framework.name, config, EnvironmentsConfig(), source)


def _config_path(folder: Path) -> Path | None:
    """The configuration of the project, under the rules of the host: named, else nearest and not somebody else's."""
    if named := os.environ.get(CONFIG_VARIABLE):
        return Path(named).expanduser()
    path = find_config(folder)
    if path is not None and (owner := path.stat().st_uid) not in (0, os.geteuid()):
        raise KitError(
            f"{path} was found by searching upward from {folder}, but it belongs to user {owner}, and it names code to "
            f"run. If you trust it, name it with {CONFIG_VARIABLE}"
        )
    return path


def _configured(framework: Framework, bridge: str | None, path: Path) -> Found | None:
    config = load_config(path, _Variables(os.environ))
    ours = {name: each for name, each in config.bridges.items() if _runs(each, name, framework)}
    if bridge is not None and bridge not in ours:
        if ours:
            raise KitError(f'{path} has no bridge "{bridge}" of {framework.title}; it has {", ".join(ours)}')
        return None
    name = bridge or (framework.name if framework.name in ours else next(iter(ours), None))
    if name is None:
        return None
    if bridge is None and name != framework.name and len(ours) > 1:
        raise KitError(f"{path} has several bridges of {framework.title}; say which: bridge={next(iter(ours))!r}")
    return Found(name, ours[name], config.environments, f'bridge "{name}" in {path}')


def _runs(config: BridgeConfig, name: str, framework: Framework) -> bool:
    reference = config.reference or name
    return reference == framework.name or reference.startswith(f"manybridge.bridges.{framework.name}")


class _Variables(dict[str, str]):
    """The environment, in which every other variable is empty: nobody needs the key of a provider here."""

    def __contains__(self, name: object) -> bool:
        return True


def _is_installed(package: str) -> bool:
    """Whether this interpreter has it. Not asked by import: a folder of tests may have the same name."""
    try:
        distribution(package)
    except PackageNotFoundError:
        return False
    return True


def _nowhere(framework: Framework, path: Path | None, folder: Path) -> str:
    option = ini_option(framework.name)
    looked = f"{path} has no bridge of it" if path is not None else f"there is none from {folder} upward"
    return (
        f"nothing says where {framework.title} is installed. Looked at: the argument python (not given), the ini "
        f"option {option} (not set), manybridge.toml ({looked}), {sys.executable} (has no package {framework.name}).\n"
        f"Name an interpreter that has it, for example in pyproject.toml:\n"
        f"  [tool.pytest.ini_options]\n"
        f'  {option} = ".envs/{framework.name}/bin/python"\n'
        f'Tests that need it are skipped instead with: manybridge_missing_framework = "skip"'
    )
