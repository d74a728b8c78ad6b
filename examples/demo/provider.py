"""Which language model answers in the demo: a real provider where a key is set, the local rules otherwise."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from local_llm import LocalLLM  # found through the line above

PROVIDERS = {
    "OPENAI_API_KEY": "openai/gpt-4o-mini",
    "ANTHROPIC_API_KEY": "anthropic/claude-haiku-4-5",
    "GEMINI_API_KEY": "gemini/gemini-2.5-flash",
}
"""The variable that has a provider's key, and a small model of that provider. The first that is set is taken."""

LOCAL_MODEL = "openai/local-rules"

PLUGGED = "openai"
"""The provider whose plug-in the environment of LangChain has; with another provider's key its model stays local."""


@dataclass(frozen=True, slots=True)
class Provider:
    """Who answers. Options and variables are those of the DSPy bridge and of the LangChain bridge."""

    label: str
    is_local: bool
    options: dict[str, Any]
    langchain_options: dict[str, Any]
    required_env: list[str] = field(default_factory=list)

    def configure(self) -> None:
        """Override the configuration file through the environment, as an operator would."""
        variables = [name for name in self.required_env if name == self.langchain_options.get("api_key_env")]
        for key, value in {
            "DSPY__OPTIONS": self.options,
            "DSPY__REQUIRED_ENV": self.required_env,
            "LANGCHAIN__OPTIONS": self.langchain_options,
            "LANGCHAIN__REQUIRED_ENV": variables,
        }.items():
            os.environ[f"MANYBRIDGE__BRIDGES__{key}"] = json.dumps(value)


@contextmanager
def chosen_provider(*, force_local: bool, model: str | None = None) -> Iterator[Provider]:
    """Choose, and run the local endpoint on loopback where that is the choice.

    Args:
        force_local: take the local rules even where a key is set.
        model: `provider/model` in the place of the small one; its provider's key must be set.
    """
    variable = next((name for name in PROVIDERS if os.environ.get(name) and _serves(name, model)), None)
    with LocalLLM() as server:
        local = {"model": LOCAL_MODEL.replace("/", ":"), "base_url": server.openai_base, "api_key": "not-needed"}
        if variable is None or force_local:
            options = {"model": LOCAL_MODEL, "api_base": server.openai_base, "api_key": "not-needed"}
            yield Provider("local, rule based: not a model", True, options, local)
            return
        name = model or PROVIDERS[variable]
        asked = {"model": name.replace("/", ":", 1), "api_key_env": variable, "max_tokens": 1000}
        langchain = asked if name.split("/")[0] == PLUGGED else local
        yield Provider(name, False, {**asked, "model": name}, langchain, [variable])


def _serves(variable: str, model: str | None) -> bool:
    return model is None or PROVIDERS[variable].split("/")[0] == model.split("/")[0]
