"""A bridge that runs in both environments: each time with the `openai` package of its own environment.

[bridges.litellm]
python_script = "model_bridge.py"
python = "../../.envs/dspy/bin/python"
options = { through = "litellm" }
"""

from typing import Any

from manybridge.bridge import Bridge, BridgeError, command


class ModelBridge(Bridge):
    """Asks a model through LiteLLM or through LangChain; both use `openai` underneath."""

    name = "model"
    required_modules = ("openai",)

    def setup(self, options: dict[str, Any]) -> None:
        """Import the framework that this worker is for."""
        self.through = options.get("through")
        self.base = options.get("base", "")
        if self.through == "litellm":
            import litellm

            self.framework = litellm
        elif self.through == "langchain":
            import langchain_openai

            self.framework = langchain_openai
        else:
            raise BridgeError("config_error", f"options.through: expected litellm or langchain, found {self.through!r}")

    @command
    def ask(self, question: str) -> dict[str, str]:
        """Ask the model."""
        if self.through == "litellm":
            messages = [{"role": "user", "content": question}]
            reply = self.framework.completion(
                "openai/local-rules", messages, api_base=self.base, api_key="none", timeout=20
            )
            return {"answer": reply.choices[0].message.content}
        chat = self.framework.ChatOpenAI(model="local-rules", base_url=self.base, api_key="none", timeout=20)
        return {"answer": chat.invoke(question).content}

    @command
    def openai(self) -> dict[str, Any]:
        """Say which `openai` is imported here, and from where."""
        import os

        import openai

        return {"version": openai.__version__, "file": openai.__file__, "pid": os.getpid()}
