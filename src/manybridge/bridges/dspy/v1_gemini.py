"""Version 1's Gemini programs: a plain prompt, sent with Google's own package, and a reply read line by line."""

from __future__ import annotations

import os
from typing import Any, Final

DEFAULT_MODEL: Final = "gemini-1.5-flash"


def import_gemini() -> Any:
    """Import Google's package and give it the key from the environment, if there is one.

    Raises:
        RuntimeError: it is not installed; the text is the contract's.
    """
    try:
        import google.generativeai as gemini  # type: ignore[import-not-found,import-untyped,unused-ignore]  # optional
    except ImportError as error:
        raise RuntimeError("Gemini not available - cannot create Gemini programs") from error
    if key := os.environ.get("GEMINI_API_KEY"):
        gemini.configure(api_key=key)
    return gemini


def build_prompt(signature: Any, inputs: Any) -> str:
    """Write the prompt: what is wanted, one paragraph per input, the form of the reply."""
    outputs = signature.get("outputs", [])
    paragraphs = [_instruction(outputs)]
    for described in signature.get("inputs", []):
        name = described.get("name")
        paragraphs.append(f"{described.get('description', '') or name}: {inputs.get(name, '')}")
    if outputs:
        lines = "\n".join(_reply_line(described) for described in outputs)
        paragraphs.append(f"\nPlease respond in this format:\n{lines}")
    return "\n\n".join(paragraphs)


def _instruction(outputs: list[dict[str, Any]]) -> str:
    if len(outputs) == 1:
        only = outputs[0]
        return f"Please provide {only.get('description', only.get('name', 'an answer'))}."
    names = ", ".join(described.get("name", "output") for described in outputs)
    return f"Please provide the following: {names}."


def _reply_line(described: dict[str, Any]) -> str:
    wanted = described.get("description", "")
    return f"{described.get('name')}: [your {wanted.lower() if wanted else 'response'}]"


def parse_response(signature: Any, text: str) -> dict[str, str]:
    """Read the reply: the first line `name: value` of each output; a single output may be the whole text."""
    outputs = signature.get("outputs", [])
    lines = text.strip().split("\n")
    found: dict[str, str] = {}
    for described in outputs:
        name = described.get("name")
        line = next((line for line in lines if line.lower().startswith(f"{name.lower()}:")), "")
        value = line.partition(":")[2].strip()
        found[name] = text.strip() if not value and len(outputs) == 1 else value
    return found
