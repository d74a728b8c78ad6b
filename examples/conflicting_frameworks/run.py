"""Two frameworks whose requirements conflict, side by side in one program.

    python examples/conflicting_frameworks/run.py

LiteLLM, on which DSPy stands, needs `openai` below 3. LangChain's environment is locked with `openai` 3. No environment
holds both; the resolver says so first, from the metadata of what is installed, without network. Then one host runs
both, each in its own environment, and both ask the same (local, scripted) model at the same time.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from resolver import ask, installed

from manybridge import AsyncMLBridge

REPOSITORY = Path(__file__).resolve().parents[2]
DSPY, LANGCHAIN = (REPOSITORY / ".envs" / name for name in ("dspy", "langchain"))
QUESTION = "What is 17 * 23?"


def show_the_conflict() -> bool:
    """Let the resolver refuse the two environments as one. Returns whether it did."""
    one, other = installed(DSPY), installed(LANGCHAIN)
    wanted = [
        *(f"{name}=={one[name].version}" for name in ("dspy", "litellm")),
        *(f"{name}=={other[name].version}" for name in ("langchain-openai", "openai")),
    ]
    for environment, packages, names in ((DSPY, one, ("dspy", "litellm")), (LANGCHAIN, other, ("langchain-openai",))):
        shown = ", ".join(f"{name} {packages[name].version}" for name in (*names, "openai"))
        print(f"{environment.relative_to(REPOSITORY)} has {shown}")
    print("\nAs one environment:\n$ uv pip compile   # " + " ".join(wanted))
    possible, words = ask(wanted, (DSPY, LANGCHAIN))
    print(words)
    return not possible


async def run_both(base: str) -> dict[str, str]:
    """Ask the model through both frameworks at the same time. Returns the version of openai behind each."""
    script = str(Path(__file__).parent / "model_bridge.py")
    bridges = {
        through: {
            "python_script": script,
            "python": str(environment / "bin" / "python"),
            "options": {"through": through, "base": base},
            "environment": {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_PROXY": "127.0.0.1"},
        }
        for through, environment in (("litellm", DSPY), ("langchain", LANGCHAIN))
    }
    print("\nAs two bridges of one host:")
    async with AsyncMLBridge.from_config({"bridges": bridges}) as ml:
        answers = await asyncio.gather(*(ml.call(name, "ask", {"question": QUESTION}) for name in bridges))
        facts = await asyncio.gather(*(ml.call(name, "openai") for name in bridges))
    for name, answer, fact in zip(bridges, answers, facts, strict=True):
        where = Path(fact["file"]).relative_to(REPOSITORY / ".envs").parts[0]
        print(
            f"{name:9} answers {answer['answer']!r} with openai {fact['version']} of .envs/{where}, pid {fact['pid']}"
        )
    return {name: fact["version"] for name, fact in zip(bridges, facts, strict=True)}


def main() -> int:
    """Run the example; 0 if everything is as it says."""
    sys.path.insert(0, str(REPOSITORY))
    from examples.local_llm import LocalLLM

    refused = show_the_conflict()
    with LocalLLM() as llm:
        versions = asyncio.run(run_both(llm.openai_base))
    both = versions["litellm"].split(".")[0] == "2" and versions["langchain"].split(".")[0] == "3"
    print("\nRefused as one, running as two." if refused and both else "\nNot as promised.")
    return 0 if refused and both else 1


if __name__ == "__main__":
    sys.exit(main())
