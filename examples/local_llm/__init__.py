"""A small local endpoint that speaks the OpenAI and Gemini chat wire formats. It is NOT a language model.

Every answer comes from a handful of written rules (arithmetic, a table of facts, keyword classification, a look
at the examples in the prompt), so the same prompt always gets the same answer. It exists so that the demo, the
examples and the tests run a real DSPy program, over real HTTP, with no key, no GPU and no network. Every reply
says so: the model field of each answer starts with ``local-rules``.

HTTP and wire formats are those of ``manybridge.testing.ScriptedLLM``; only the rules, and ways to make it fail from
another process, are here. A test that wants to say itself what the model answers takes that class.

Run it:      ``python examples/local_llm --port 8000`` (any Python that has manybridge)
Use it:      ``dspy.LM("openai/local-rules", api_base="http://127.0.0.1:8000/v1", api_key="not-needed")``
In a test:   ``with LocalLLM() as server: ... server.openai_base ...``
"""

from .server import LocalLLM

__all__ = ["LocalLLM"]
