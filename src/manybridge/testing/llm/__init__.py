"""A model's endpoint for tests: on loopback, answering what the test says. It is NOT a language model.

Use it like this::

    with ScriptedLLM() as llm:
        llm.replies("Paris").fails("rate_limited", retry_after=1)
        application(base_url=llm.openai_base, api_key="any")
        assert llm.requests[0].text == "What is the capital of France?"

It speaks OpenAI's chat completions, plain and streamed, with usage and tool calls, OpenAI's embeddings, and Gemini's
generateContent. Standard library only; the parts: replies.py (what a test says), wire.py (the formats, no I/O),
server.py (HTTP), endpoint.py (the script and what came).
"""

from manybridge.testing.llm.endpoint import ScriptedLLM
from manybridge.testing.llm.replies import Answer, Fault, Reply, ToolCall
from manybridge.testing.llm.wire import ChatRequest

__all__ = ["Answer", "ChatRequest", "Fault", "Reply", "ScriptedLLM", "ToolCall"]
