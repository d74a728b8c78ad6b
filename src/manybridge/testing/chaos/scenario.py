"""Scenarios: which calls, which faults, when, and what must hold. Read from TOML; see docs/how-to/chaos.md.

Everything is checked before anything is started, and every problem is told at once with its place.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import msgspec

from manybridge.protocol.errors import ErrorCode
from manybridge.testing.chaos.faults import FAULTS
from manybridge.testing.chaos.injection import ChaosError
from manybridge.testing.chaos.parameters import near, number_problem, parameters_of
from manybridge.testing.chaos.works import ANYTHING, Work, call_work, job_work, resource_work, stream_work

SCENARIOS: Final = Path(__file__).with_name("scenarios")


@dataclass(frozen=True, slots=True)
class FaultRule:
    """One fault and when it strikes: at given times, or again and again."""

    fault: str
    bridge: str | None
    at: tuple[float, ...] = ()
    """Seconds from the beginning."""
    every: float | None = None
    """Seconds between two of them."""
    after: float | None = None
    """Seconds before the first one; `every` if left out."""
    jitter: float = 0.0
    """Share of `every`, 0 to 1, by which each time is moved at random."""
    times: int | None = None
    """How often at most."""
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Promises:
    """What must hold for the run to pass, beside: no call lost, no wrong answer, no untyped error, no leak."""

    codes: frozenset[str] | None = None
    """Error codes that callers must bear; None for every one."""
    success: float = 0.0
    """The smallest share of right answers among calls that are `retriable`."""
    recovery: float = 30.0
    """Seconds after each fault within which its bridge is whole again."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """What a run of chaos does."""

    name: str
    works: tuple[Work, ...]
    faults: tuple[FaultRule, ...]
    description: str = ""
    duration: float = 10.0
    rate: float = 50.0
    seed: int = 1
    patience: float = 30.0
    """Seconds after the last call was sent in which all must be over."""
    promises: Promises = Promises()
    bridges: Mapping[str, Any] = field(default_factory=dict)
    """Configurations of bridges, for a host that has none of that name."""
    uses: frozenset[str] = frozenset()
    """The bridges that calls and faults name."""

    def changed(self, *, seed: int | None = None, duration: float | None = None) -> Scenario:
        """The same scenario with another seed or duration."""
        return replace(
            self, seed=self.seed if seed is None else seed, duration=self.duration if duration is None else duration
        )

    @property
    def strikes(self) -> frozenset[str]:
        """What its faults strike: `worker`, `wire`, `store`."""
        return frozenset(FAULTS[rule.fault].strikes for rule in self.faults)


def builtin_names() -> list[str]:
    """The scenarios that come with manybridge."""
    return sorted(path.stem for path in SCENARIOS.glob("*.toml"))


def builtin_scenario(name: str) -> Scenario:
    """Return a scenario that comes with manybridge.

    Raises:
        ChaosError: there is none of that name.
    """
    if name not in builtin_names():
        raise ChaosError(f'no built-in scenario "{name}"{near(name, builtin_names())}')
    return load_scenario(SCENARIOS / f"{name}.toml")


def load_scenario(source: str | Path | Mapping[str, Any]) -> Scenario:
    """Read and check a scenario: the path of a TOML file, or the mapping that such a file holds.

    Raises:
        ChaosError: it can't be read or something in it is wrong; `details["problems"]` lists every problem.
    """
    if isinstance(source, Mapping):
        return _Reader("the scenario").scenario(source)
    path = Path(source)
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ChaosError(f"{path}: the scenario can't be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ChaosError(f"{path}: not TOML: {error}") from error
    return _Reader(str(path)).scenario(document, path.stem)


# ---------------------------------------------------------------- keys

_SCENARIO: Final[dict[str, Any]] = {
    "name": str,
    "description": str,
    "duration": float,
    "rate": float,
    "seed": int,
    "patience": float,
    "bridge": str,
    "bridges": dict[str, dict[str, Any]],
    "calls": list[dict[str, Any]],
    "faults": list[dict[str, Any]],
    "promises": dict[str, Any],
}
_PROMISES: Final[dict[str, Any]] = {"codes": list[str], "success": float, "recovery": float}
_RULES: Final[dict[str, Any]] = {"weight": float, "codes": list[str], "retriable": bool}
_CALL: Final[dict[str, Any]] = {"kind": str, "bridge": str, "name": str, "timeout": float, "expect": Any, **_RULES}
_KINDS: Final[dict[str, tuple[Callable[..., Work], dict[str, Any]]]] = {
    "call": (call_work, {"command": str, "args": dict[str, Any], "session": str, "idempotency_key": str}),
    "stream": (stream_work, {"command": str, "args": dict[str, Any], "chunks": list[Any]}),
    "job": (job_work, {"command": str, "args": dict[str, Any]}),
    "resource": (resource_work, {"type": str, "config": dict[str, Any], "inputs": dict[str, Any]}),
}
_TIMES: Final[dict[str, Any]] = {
    "fault": str,
    "bridge": str,
    "at": list[float],
    "every": float,
    "after": float,
    "jitter": float,
    "times": int,
}


class _Reader:
    """Reads one document. Owner of the problems that it found."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._problems: list[str] = []

    def scenario(self, document: Mapping[str, Any], name: str = "scenario") -> Scenario:
        values = self._checked(document, _SCENARIO, "")
        default = values.get("bridge")
        works = [self._work(each, f"calls[{i}]", default, values) for i, each in enumerate(values.get("calls", ()))]
        rules = [self._rule(each, f"faults[{i}]", default) for i, each in enumerate(values.get("faults", ()))]
        promises = self._promises(values.get("promises", {}))
        if not works:
            self._problem("calls", "is missing; a scenario needs at least one [[calls]] table: the load")
        self._numbers(values, "", ("duration", "rate", "patience"), above=True)
        if self._problems:
            text = f"{self._source}: " + f"\n{self._source}: ".join(self._problems)
            raise ChaosError(text, details={"problems": self._problems})
        plain = {
            key: values[key] for key in ("name", "description", "duration", "rate", "seed", "patience") if key in values
        }
        made = [work for work, _ in works if work is not None]
        ruled = [rule for rule in rules if rule is not None]
        uses = {bridge for _, bridge in works if bridge} | {rule.bridge for rule in ruled if rule.bridge}
        return Scenario(
            **{"name": name, **plain},
            works=tuple(made),
            faults=tuple(ruled),
            promises=promises,
            bridges=values.get("bridges", {}),
            uses=frozenset(uses),
        )

    def _work(
        self, given: Mapping[str, Any], place: str, default: str | None, scenario: Mapping[str, Any]
    ) -> tuple[Work | None, str | None]:
        kind = given.get("kind", "call")
        if kind not in _KINDS:
            self._problem(f"{place}.kind", f"expected one of {', '.join(_KINDS)}, found {kind!r}")
            return None, None
        make, own = _KINDS[kind]
        before = len(self._problems)
        values = self._checked(given, _CALL | own, place)
        what = "type" if kind == "resource" else "command"
        if what not in given:
            self._problem(f"{place}.{what}", f"is missing; a {kind} needs it")
        bridge = self._bridge(values, place, default)
        self._codes(values, place)
        self._numbers(values, place, ("weight",), above=True)
        if len(self._problems) > before:
            return None, bridge
        arguments = {key: value for key, value in values.items() if key not in ("kind", "bridge", "codes")}
        codes = values.get("codes", scenario.get("promises", {}).get("codes"))
        arguments.setdefault("expect", ANYTHING)
        return make(**arguments, bridge=bridge, codes=None if codes is None else frozenset(codes)), bridge

    def _rule(self, given: Mapping[str, Any], place: str, default: str | None) -> FaultRule | None:
        before = len(self._problems)
        fault = given.get("fault")
        if fault not in FAULTS:
            known = near(str(fault), FAULTS) if fault is not None else f"; known: {', '.join(FAULTS)}"
            self._problem(f"{place}.fault", f"there is no fault {fault!r}{known}" if fault else f"is missing{known}")
            return None
        parameters = parameters_of(FAULTS[fault].inject)
        values = self._checked(given, _TIMES | parameters, place)
        bridge = None if FAULTS[fault].strikes == "store" else self._bridge(values, place, default)
        if ("at" in values) == ("every" in values):
            self._problem(place, 'needs either at = [seconds, ...] or every = seconds: when "' + fault + '" strikes')
        self._numbers(values, place, ("every", "times"), above=True)
        self._numbers(values, place, ("at", "after", *parameters))
        if not 0 <= values.get("jitter", 0.0) <= 1:
            self._problem(f"{place}.jitter", f"is a share from 0 to 1, found {values['jitter']}")
        if len(self._problems) > before:
            return None
        times = {key: values[key] for key in ("every", "after", "jitter", "times") if key in values}
        own = {key: values[key] for key in parameters if key in values}
        return FaultRule(fault, bridge, tuple(values.get("at", ())), **times, parameters=own)

    def _promises(self, given: Mapping[str, Any]) -> Promises:
        values = self._checked(given, _PROMISES, "promises")
        self._codes(values, "promises")
        if not 0 <= values.get("success", 0.0) <= 1:
            self._problem("promises.success", f"is a share from 0 to 1, found {values['success']}")
        self._numbers(values, "promises", ("recovery",), above=True)
        codes = values.pop("codes", None)
        return Promises(codes=None if codes is None else frozenset(codes), **values)

    def _bridge(self, values: Mapping[str, Any], place: str, default: str | None) -> str | None:
        bridge: str | None = values.get("bridge", default)
        if bridge is None:
            self._problem(f"{place}.bridge", 'is missing; say it here, or bridge = "NAME" once for the whole scenario')
        return bridge

    def _numbers(self, values: Mapping[str, Any], place: str, keys: Iterable[str], *, above: bool = False) -> None:
        """Demand finite numbers from 0 on, or above 0."""
        for key in keys:
            value = values.get(key)
            where = f"{place}.{key}" if place else key
            for each in value if isinstance(value, list) else [value]:
                problem = number_problem(each) or ("must be above 0, found 0" if above and each == 0 else None)
                if problem:
                    self._problem(where, problem)

    def _codes(self, values: Mapping[str, Any], place: str) -> None:
        known = [str(code) for code in ErrorCode]
        for code in values.get("codes", ()):
            if code not in known:
                self._problem(f"{place}.codes", f'there is no error code "{code}"{near(code, known)}')

    def _checked(self, given: Mapping[str, Any], keys: Mapping[str, Any], place: str) -> dict[str, Any]:
        """Return the values whose key is known and whose type is right."""
        values: dict[str, Any] = {}
        for key, value in given.items():
            where = f"{place}.{key}" if place else key
            if key not in keys:
                self._problem(where, f"is unknown{near(key, keys)}")
                continue
            try:
                values[key] = value if keys[key] is Any else msgspec.convert(value, keys[key])
            except msgspec.ValidationError as error:
                self._problem(where, f"{error}; found {value!r}")
        return values

    def _problem(self, place: str, text: str) -> None:
        self._problems.append(f"{place}: {text}")
