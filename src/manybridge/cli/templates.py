"""What `manybridge init` writes."""

from __future__ import annotations

from typing import Final

CONFIG_HEAD: Final = """\
# manybridge.toml: which bridges there are, and how their workers run.
# Every key: docs/reference/configuration.md. What is in force: manybridge config show --source
# Any key can be overridden: MANYBRIDGE__BRIDGES__WORDS__POOL_SIZE=4

# The bridge of calls that name none.
default = "words"

# Your own code. Try it:  manybridge call words words:count text="one two two"
[bridges.words]
python_script = "bridges/words.py"   # relative to this file
pool_size = 1                        # workers kept running
# max_overflow = 2                   # more of them while all are busy
# default_timeout = 60.0             # seconds; "none" for no limit
# max_memory_mb = 512                # a worker above this is replaced
options = { ignore_case = true }     # handed to the bridge's setup
"""

FRAMEWORK_TABLES: Final[dict[str, str]] = {
    "mock": """
# Scripted answers, delays and failures, for tests. Try it:  manybridge call mock mock:echo text=hi
[bridges.mock]
""",
    "python": """
# Functions of modules that you allow, and objects that live in the worker.
[bridges.python]
options = { allow = ["math", "statistics"] }
""",
    "dspy": """
# DSPy in an environment of its own. Build that first:  manybridge env lock dspy && manybridge env sync dspy
[bridges.dspy]
required_packages = ["dspy>=3"]
# required_env = ["GEMINI_API_KEY"]            # checked at start, passed to this bridge and to no other
# options = { model = "gemini/gemini-2.5-flash" }
eager = false                                  # start with the first call
""",
    "langchain": """
# LangChain in an environment of its own. Build that first:
#   manybridge env lock langchain && manybridge env sync langchain
[bridges.langchain]
required_packages = ["langchain>=1.4", "langchain-openai>=1.7"]
# required_env = ["OPENAI_API_KEY"]            # checked at start, passed to this bridge and to no other
eager = false                                  # start with the first call
""",
    "transformers": """
# Models of your own machine, in an environment of its own. Build that first (it downloads PyTorch):
#   manybridge env lock transformers && manybridge env sync transformers
[bridges.transformers]
required_packages = ["transformers>=5", "torch>=2"]
eager = false                                  # start with the first call
""",
}
"""The table that each `--framework` adds."""

EXAMPLE_BRIDGE: Final = '''\
"""A bridge in one file: everything that `manybridge` needs to run your code in a worker of its own."""

from __future__ import annotations

from collections import Counter
from typing import Any

from manybridge.bridge import Bridge, Context, command, resource


class WordsBridge(Bridge):
    name = "words"  # the namespace of its commands: words:count, words:read
    capabilities = ("counting",)

    def setup(self, options: dict[str, Any]) -> None:
        """Called once in every worker, with `options` from the configuration. Import a framework here."""
        self.ignore_case = bool(options.get("ignore_case", True))

    @command("count")
    def count(self, text: str, top: int = 10) -> dict[str, int]:
        """Count the words of a text."""
        words = text.lower().split() if self.ignore_case else text.split()
        return dict(Counter(words).most_common(top))

    @command("read")
    def read(self, text: str, *, ctx: Context) -> dict[str, int]:
        """Count the words of a text line by line, with progress."""
        total: Counter[str] = Counter()
        lines = text.splitlines()
        for number, line in enumerate(lines, 1):
            total.update(self.count(line, top=len(line)))
            ctx.progress(number, len(lines), "reading")  # a cancelled call ends here
        return dict(total)

    @resource("tally")
    class Tally:
        """Words counted over many calls: what it holds lives in the worker."""

        def create(self, start: int = 0) -> None:
            self.words = start

        def execute(self, text: str) -> dict[str, int]:
            self.words += len(text.split())
            return {"words": self.words}
'''
