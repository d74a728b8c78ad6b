"""From plain values to checked configuration structs, with every problem found on the way."""

from __future__ import annotations

import math
import os
import pkgutil
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from manybridge.errors import ConfigError
from manybridge.host.config_keys import NONE_WORD, Key, keys_of
from manybridge.host.config_model import BridgeConfig, EnvironmentsConfig, HostConfig, StoreConfig
from manybridge.host.config_problems import KeyPath, Problems, did_you_mean, show_value
from manybridge.host.config_sources import working_folder
from manybridge.protocol.errors import ERROR_CODES
from manybridge.store.urls import parse_store_url

BRIDGE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
"""A bridge's name is the namespace of its commands, so it has no colon, and it stands in file names and metrics."""

RESERVED_NAMES: Final = frozenset({"common"})
"""`common:*` is answered by every bridge."""

_VARIABLE_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_EXPANSION: Final = re.compile(r"\$\$\{|\$\{(?P<name>[^}]*)\}")
_SCRIPT: Final = re.compile(r"(?P<file>.*\.py)(?P<attribute>:[A-Za-z_][A-Za-z0-9_]*)?")


@cache
def bundled_bridges() -> tuple[str, ...]:
    """Return the names of the bridges that come with manybridge, without importing any of them."""
    folder = Path(__file__).parent.parent / "bridges"
    names = (module.name for module in pkgutil.iter_modules([str(folder)]))
    # The package `common` is what they share; its name is reserved, as no bridge can have it.
    return tuple(sorted(name for name in names if name[0] != "_" and name not in RESERVED_NAMES))


def fallback_problems(bridges: Mapping[str, BridgeConfig], known: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield each bridge whose fallback is none, with what is wrong: it must exist, and lead to an end.

    Args:
        bridges: those that were read.
        known: the names of all, including those with problems of their own.
    """
    names = list(known)
    for name, config in bridges.items():
        if config.fallback is None:
            continue
        if config.fallback not in names:
            text = f'expected the name of another bridge, found "{config.fallback}"'
            yield name, text + did_you_mean(config.fallback, [each for each in names if each != name])
        elif (way := _way_back(name, bridges)) is not None:
            yield name, f"expected a bridge from which no fallback leads back here, found {' -> '.join(way)}"


def _way_back(name: str, bridges: Mapping[str, BridgeConfig]) -> list[str] | None:
    way = [name]
    while (following := bridges.get(way[-1])) is not None and following.fallback is not None:
        way.append(following.fallback)
        if way[-1] == name:
            return way
        if way[-1] in way[:-1]:
            return None  # a loop of others, which is told of them
    return None


def _own_import_path() -> list[str]:
    """Where this process looks for modules, without the folders that every process of its interpreter has."""
    own = {os.path.realpath(each) for each in (sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix)}
    folders = [os.path.realpath(each or working_folder()) for each in sys.path if Path(each or ".").is_dir()]
    return [each for each in folders if not any(Path(each).is_relative_to(prefix) for prefix in own)]


@dataclass(slots=True)
class Checker:
    """Turns tables of values into structs. Owns nothing; adds what is wrong to `problems`."""

    problems: Problems
    environ: Mapping[str, str]
    """Where `${VARIABLE}` is looked up."""
    folder: Path
    """What relative paths are relative to."""
    expand: bool = True
    """Whether `${VARIABLE}` is replaced."""

    def host(self, values: Any) -> HostConfig | None:
        """Return the checked configuration, or None if anything is wrong with it."""
        before = len(self.problems.found)
        fields = self.table(HostConfig, values, ())
        bridges: dict[str, BridgeConfig] = fields.get("bridges", {})
        if fields.get("environments") is not None:
            fields["environments"] = self.environments(fields["environments"])
        if fields.get("store") is not None:
            self.store(fields["store"])
        written = values.get("bridges") if isinstance(values, Mapping) else None
        if not isinstance(written, Mapping):  # nothing, or what the table's check has told already
            written = {}
        for name, text in fallback_problems(bridges, written):
            self.problems.add(("bridges", name, "fallback"), text)
        default = fields.get("default")
        if default is not None and default not in written:
            self.problems.add(
                ("default",), f'expected the name of a bridge, found "{default}"{did_you_mean(default, written)}'
            )
        return HostConfig(**{**fields, "bridges": bridges}) if len(self.problems.found) == before else None

    def store(self, config: StoreConfig) -> None:
        """Check the address of the store. Nothing is opened."""
        if config.url is None:
            return
        try:
            parse_store_url(config.url, self.folder)
        except ConfigError as error:
            self.problems.add(("store", "url"), error.message.removeprefix("store.url: "))

    def environments(self, config: EnvironmentsConfig) -> EnvironmentsConfig:
        """Return the table with every path made absolute."""
        paths = {
            key: self.absolute(value) for key in ("folder", "locks") if (value := getattr(config, key)) is not None
        }
        paths |= {
            key: self.interpreter(value) for key in ("python", "uv") if (value := getattr(config, key)) is not None
        }
        if config.advisories is not None and "://" not in config.advisories:
            paths["advisories"] = self.absolute(config.advisories)
        # uv takes addresses of pages with links too; those stay as they are.
        links = [each if "://" in each else self.absolute(each) for each in config.find_links]
        return msgspec.structs.replace(config, **paths, find_links=links)

    def bridge(self, name: str, values: Any, path: KeyPath) -> BridgeConfig | None:
        """Return one checked bridge, or None if anything is wrong with it."""
        if isinstance(values, BridgeConfig):
            # It was read before: what looks like ${VARIABLE} in it now is a value.
            return replace(self, expand=False).bridge(name, msgspec.to_builtins(values), path)
        before = len(self.problems.found)
        if not BRIDGE_NAME.fullmatch(name) or name in RESERVED_NAMES:
            self.problems.add(
                path,
                'expected a name of letters, digits, "_", "-" and "." that begins with a letter or digit and is not '
                f'"common", found "{name}"',
            )
        fields = self.bridge_fields(values, path)
        if len(self.problems.found) > before:
            return None
        config = BridgeConfig(**fields)
        if config.bridge is None and config.python_script is None and name in bundled_bridges():
            config = msgspec.structs.replace(config, bridge=name)
        config = self.with_search_path(config)
        self.bridge_as_a_whole(config, path)
        return config if len(self.problems.found) == before else None

    def bridge_fields(self, values: Any, path: KeyPath) -> dict[str, Any]:
        """Check the keys that are there, each by itself, and return the ones that are right, ready to use."""
        fields = self.table(BridgeConfig, values, path)
        for name in ("options", "environment"):
            if name in fields and self.expand:
                fields[name] = self.expanded(fields[name], (*path, name))
        if fields.get("python_script") is not None:
            fields["python_script"] = self.script(fields["python_script"], (*path, "python_script"))
        if fields.get("search_path") is not None:
            fields["search_path"] = [self.absolute(each) for each in fields["search_path"]]
        if fields.get("python") is not None:
            fields["python"] = self.interpreter(fields["python"])
        for variable in fields.get("required_env", ()):
            if not _VARIABLE_NAME.fullmatch(variable):
                self.problems.wrong_value((*path, "required_env"), "names of environment variables", variable)
        return fields

    def with_search_path(self, config: BridgeConfig) -> BridgeConfig:
        """Return `config` with the folders where its module is looked for, if a module is what it names."""
        if config.search_path is not None or config.bridge is None or ":" not in config.bridge:
            return config
        folders = [self.absolute("."), *(_own_import_path() if config.python is None else ())]
        return msgspec.structs.replace(config, search_path=list(dict.fromkeys(folders)))

    def bridge_as_a_whole(self, config: BridgeConfig, path: KeyPath) -> None:
        """Check what takes more than one key."""
        if config.bridge is not None and config.python_script is not None:
            self.problems.add(path, 'expected "bridge" or "python_script", found both')
        elif not config.reference:
            self.problems.add(
                path,
                f'expected "bridge" or "python_script", found neither, and "{path[-1]}" is no bundled bridge'
                f"{did_you_mean(path[-1], bundled_bridges())}",
            )
        for table in ("restart", "retry"):
            policy = getattr(config, table)
            if policy.initial_backoff > policy.max_backoff:
                least, found = policy.initial_backoff, policy.max_backoff
                self.problems.add(
                    (*path, table, "max_backoff"), f"expected at least initial_backoff ({least}), found {found}"
                )
        for code in config.retry.codes:
            if code not in ERROR_CODES:
                self.problems.add(
                    (*path, "retry", "codes"), f'expected error codes, found "{code}"{did_you_mean(code, ERROR_CODES)}'
                )

    def table(self, struct: type[Struct], values: Any, path: KeyPath) -> dict[str, Any]:
        """Check the keys of one table and return those that are right."""
        if not isinstance(values, Mapping):
            self.problems.wrong_value(path, "a table", values)
            return {}
        keys = keys_of(struct)
        checked = {}
        for name, value in values.items():
            here = (*path, str(name))
            if name not in keys:
                self.problems.unknown_key(here, keys)
                continue
            before = len(self.problems.found)
            result = self.value(keys[name], value, here)
            if len(self.problems.found) == before:
                checked[name] = result
        return checked

    def value(self, key: Key, value: Any, path: KeyPath) -> Any:
        """Check one value against its key and return it converted."""
        if isinstance(value, Struct):
            value = msgspec.to_builtins(value)
        if key.table is not None:
            return self.nested(key.table, value, path)
        if key.table_of is not None:
            return self.named(value, path)
        if key.is_mapping:
            self.json_values(value, path)
        if key.takes_none_word and value == NONE_WORD:
            return None
        if isinstance(value, float) and not math.isfinite(value):
            return self.problems.wrong_value(path, key.expected, value)
        try:
            return msgspec.convert(value, key.type)
        except msgspec.ValidationError:
            return self.problems.wrong_value(path, key.expected, value)

    def nested(self, struct: type[Struct], value: Any, path: KeyPath) -> Any:
        """Check a nested table."""
        before = len(self.problems.found)
        fields = self.table(struct, value, path)
        return struct(**fields) if len(self.problems.found) == before else None

    def named(self, value: Any, path: KeyPath) -> dict[str, BridgeConfig]:
        """Check a table of named bridges."""
        if not isinstance(value, Mapping):
            self.problems.wrong_value(path, "a table of tables", value)
            return {}
        checked = {}
        for name, item in value.items():
            config = self.bridge(str(name), item, (*path, str(name)))
            if config is not None:
                checked[str(name)] = config
        return checked

    def json_values(self, value: Any, path: KeyPath) -> None:
        """Options travel to the worker as JSON: refuse here, with the key, what would fail there."""
        if isinstance(value, Mapping):
            for name, item in value.items():
                self.json_values(item, (*path, str(name)))
        elif isinstance(value, list):
            for item in value:
                self.json_values(item, path)
        elif not (value is None or isinstance(value, (str, int, float))) or (
            isinstance(value, float) and not math.isfinite(value)
        ):
            self.problems.wrong_value(path, "a value that JSON can carry", value)

    def expanded(self, value: Any, path: KeyPath) -> Any:
        """Return a copy in which every `${VARIABLE}` is replaced, and `$${` stands for a literal `${`."""
        if isinstance(value, dict):
            return {name: self.expanded(item, (*path, name)) for name, item in value.items()}
        if isinstance(value, list):
            return [self.expanded(item, path) for item in value]
        if not isinstance(value, str):
            return value
        return _EXPANSION.sub(lambda match: self.variable(match, path), value)

    def variable(self, match: re.Match[str], path: KeyPath) -> str:
        """Return what one `${VARIABLE}` stands for."""
        name = match["name"]
        if name is None:
            return "${"
        if not _VARIABLE_NAME.fullmatch(name):
            self.problems.add(
                path, f'expected the name of an environment variable in "${{...}}", found {show_value(name)}'
            )
        elif name not in self.environ:
            text = f"expected the environment variable {name} to be set, found it missing; set it: export {name}=..."
            self.problems.add(path, text, missing_variable=True)
        return self.environ.get(name, "")

    def script(self, text: str, path: KeyPath) -> str:
        """Return the absolute path of a bridge's file, with `:Class` if that was given."""
        match = _SCRIPT.fullmatch(text)
        if match is None:
            self.problems.wrong_value(path, "the path of a Python file, `file.py` or `file.py:Class`", text)
            return text
        file = self.absolute(match["file"])
        if not Path(file).is_file():
            self.problems.add(path, f'expected the path of a Python file, found "{text}", and there is no file {file}')
        return file + (match["attribute"] or "")

    def interpreter(self, text: str) -> str:
        """Return the absolute path of an interpreter; a bare command stays one, PATH is asked when a worker starts."""
        return self.absolute(text) if "/" in text or text.startswith("~") else text

    def absolute(self, text: str) -> str:
        """Return a path made absolute. Links are kept: a virtual environment's interpreter is one."""
        return os.path.normpath(self.folder.absolute() / Path(text).expanduser())
