"""The one language model of a version 1 process.

Two differences from the script that this replaces, neither visible in a reply:

* `configure_lm` makes no test call. The old one asked the model "What is 1+1?" and ignored the outcome; without a
  network that cost 6 to 7 seconds of retries inside a command that DSPex gives 2 seconds in places, and with one it
  cost a request.
* DSPy's global settings are not touched; the model is put in place for each call.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from manybridge.bridges.dspy.bridge import DSPyBridge

API_BASE_VARIABLE: Final = "GEMINI_API_BASE"
"""An address in place of Google's, as litellm names it too: a proxy, or a local endpoint for tests."""


class Version1LM:
    """Owner of the model that `configure_lm` set for this process."""

    def __init__(self, bridge: DSPyBridge) -> None:
        self._bridge = bridge
        self.current: Any = None

    @property
    def configured(self) -> bool:
        """Whether `configure_lm` succeeded once."""
        return self.current is not None

    def configure(self, args: Any) -> dict[str, Any]:
        """Take model, key, temperature and provider.

        Raises:
            Exception: its text is the `error` of the reply.
        """
        model = args.get("model")
        api_key = args.get("api_key")
        temperature = args.get("temperature", 0.7)
        provider = args.get("provider", "google")
        if not model:
            raise ValueError("Model name is required")
        if not api_key:
            raise ValueError("API key is required")
        if provider != "google" or not model.startswith("gemini"):
            raise ValueError(f"Unsupported provider/model combination: {provider}/{model}")
        os.environ["GOOGLE_API_KEY"] = api_key
        self._bridge.secrets.add(api_key)
        self.current = self._make(model, api_key, temperature)
        return {"status": "configured", "model": model, "provider": provider, "temperature": temperature}

    def _make(self, model: str, api_key: str, temperature: Any) -> Any:
        # Retries and the disk cache stay as DSPy has them, because the application was built on them.
        options = self._bridge.options
        given: dict[str, Any] = {name: options[name] for name in ("cache", "num_retries") if name in options}
        if base := os.environ.get(API_BASE_VARIABLE):
            # With an explicit address DSPy's own client speaks to it; left to itself it would load litellm (3 s).
            given |= {"api_base": base, "engine": "lm15"}
        return self._bridge.load().LM(f"gemini/{model}", api_key=api_key, temperature=temperature, **given)
