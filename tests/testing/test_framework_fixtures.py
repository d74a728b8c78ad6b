"""The fixtures for real frameworks, as a project that installed manybridge finds them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import framework_python

pytest_plugins = ["pytester"]

OPTIONS = ("-q", "-p", "no:cacheprovider")


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """An empty project, in which warnings are errors."""
    pytester.makeini("[pytest]\nfilterwarnings = error\n")
    return pytester


@pytest.mark.framework
def test_dspy_answers_what_the_test_says(project: pytest.Pytester) -> None:
    """Found by the project's own manybridge.toml, from a folder below it; its model is never asked."""
    project.makefile(
        ".toml",
        manybridge=f"""
[bridges.qa]
bridge = "dspy"
python = "{framework_python("dspy")}"
required_env = ["NO_SUCH_API_KEY"]
options = {{ model = "openai/gpt-4o", api_key_env = "NO_SUCH_API_KEY", adapter = "json" }}
""",
    )
    project.mkdir("tests").joinpath("test_it.py").write_text(
        """
import pytest
from manybridge import ManybridgeError

def test_answer_fault_stream_and_tools(manybridge_llm, manybridge_dspy):
    dspy = manybridge_dspy()
    program = dspy.create_program("question -> answer: int", module="chain_of_thought")
    manybridge_llm.replies({"reasoning": "six times seven", "answer": 42})
    manybridge_llm.fails("rate_limited", retry_after=2)

    assert program.predict(question="What is 6 * 7?").answer == 42
    with pytest.raises(ManybridgeError) as caught:
        program.predict(question="and now?")
    assert (caught.value.code, caught.value.details["retry_after"]) == ("rate_limited", 2)

    first = manybridge_llm.requests[0]
    assert "What is 6 * 7?" in first.text and "Respond with a JSON object" in first.text
    assert first.has_key and "key" not in str(first.body).lower()
    assert list(dspy.ml.bridges()) == ["qa"]

    # Nothing is cached: the same question is asked again.
    manybridge_llm.replies({"reasoning": "still", "answer": 43})
    assert program.predict(question="What is 6 * 7?").answer == 43

def test_two_at_a_time(manybridge_llm, manybridge_dspy):
    programs = [manybridge_dspy(options={"adapter": how}).create_program("q -> a") for how in ("chat", "xml")]
    manybridge_llm.answers(lambda request: {"a": str(len(manybridge_llm.requests))})
    assert [program.predict(q="?").a for program in programs] == ["1", "2"]
""",
        encoding="utf-8",
    )
    project.runpytest_subprocess(*OPTIONS).assert_outcomes(passed=2)


@pytest.mark.framework
def test_langchain_answers_what_the_test_says(project: pytest.Pytester) -> None:
    """Found by the ini option, relative to the file that says it; beside DSPy, for a program that needs both."""
    (project.path / "env").symlink_to(framework_python("langchain").parents[1])
    project.makeini(
        "[pytest]\nfilterwarnings = error\nmanybridge_langchain_python = ./env\n"
        f"manybridge_dspy_python = {framework_python('dspy')}\n"
    )
    project.makepyfile(
        test_it="""
import pytest
from manybridge import ManybridgeError

def weather(city: str) -> str:
    "Weather of a city."
    return f"sunny in {city}"

def test_it(manybridge_llm, manybridge_langchain, manybridge_dspy):
    langchain = manybridge_langchain()
    dspy = manybridge_dspy(ml=langchain.ml)
    assert list(langchain.ml.bridges()) == ["langchain", "dspy"]
    manybridge_llm.replies({"a": "in the same host"})
    assert dspy.create_program("q -> a").predict(q="?").a == "in the same host"

    manybridge_llm.calls_tool("weather", city="Paris").replies("Take a hat.")
    agent = langchain.create_agent(tools=[weather])
    assert agent.invoke("Do I need a hat in Paris?").output == "Take a hat."
    assert manybridge_llm.requests[-2].tool_names == ["weather"]
    assert manybridge_llm.requests[-1].messages[-1] == {"role": "tool", "content": "sunny in Paris"}

    schema = {"title": "City", "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    manybridge_llm.replies({"city": "Rome"})
    chain = langchain.create_chain("Which city? {text}", parser={"schema": schema})
    assert chain.invoke(text="All roads lead there.").output == {"city": "Rome"}

    manybridge_llm.cuts("one two three four", after=2)
    seen = []
    with pytest.raises(ManybridgeError) as caught:
        for event in langchain.stream_invoke("count"):
            seen += [event.data["text"]] if event.event == "chunk" and event.data["kind"] == "token" else []
    assert "".join(seen).split() == ["one", "two"]
    assert caught.value.code == "provider_unavailable"

    assert len(langchain.embed(["a text"])[0]) == 16
    assert manybridge_llm.embedding_requests
"""
    )
    project.runpytest_subprocess(*OPTIONS).assert_outcomes(passed=1)


@pytest.mark.framework
def test_transformers_has_tiny_models_that_always_say_the_same(project: pytest.Pytester) -> None:
    """Made on the spot; written, classified, embedded, and the interpreter named by the test itself."""
    project.makepyfile(
        test_it=f"""
def test_it(manybridge_transformers):
    transformers = manybridge_transformers({str(framework_python("transformers"))!r})
    writer = transformers.load_model("tiny-writer")
    written = writer.generate("Once upon a time", max_new_tokens=6, temperature=0)
    assert written.usage == {{"prompt_tokens": 16, "completion_tokens": 6, "total_tokens": 22}}
    assert writer.generate("Once upon a time", max_new_tokens=6, temperature=0) == written
    assert writer.chat([{{"role": "user", "content": "hi"}}], max_new_tokens=1).usage["prompt_tokens"] == 19

    labels = transformers.load_model("tiny-classifier").classify(["good", "bad", "café 北京"])
    assert {{each.label for each in labels.results}} <= {{"negative", "positive"}}
    vectors = transformers.load_model("tiny-classifier", task="embedding").embed(["good", "good", "bad"]).results
    assert vectors[0] == vectors[1] != vectors[2] and len(vectors[0]) == 16
"""
    )
    project.runpytest_subprocess(*OPTIONS).assert_outcomes(passed=1)


def test_a_framework_that_is_nowhere_fails_the_test_or_skips_it(project: pytest.Pytester) -> None:
    """It fails with what to configure, unless the project says that such tests are skipped."""
    project.makepyfile(
        test_it="""
def test_nowhere(manybridge_dspy):
    manybridge_dspy()

def test_gone(manybridge_langchain):
    manybridge_langchain(python="/no/such/python")

def test_lacking(manybridge_transformers):
    import sys
    manybridge_transformers(python=sys.executable)
"""
    )
    failed = project.runpytest_subprocess(*OPTIONS)
    failed.assert_outcomes(failed=3)
    failed.stdout.fnmatch_lines(["*nothing says where DSPy is installed*", '*manybridge_dspy_python = ".envs/dspy/*'])
    failed.stdout.fnmatch_lines(["*/no/such/python, which the argument python names for LangChain, does not exist*"])
    failed.stdout.fnmatch_lines(["*The interpreter for Transformers was named by the argument python.*"])

    skipped = project.runpytest_subprocess(*OPTIONS, "-rs", "-o", "manybridge_missing_framework=skip")
    skipped.assert_outcomes(skipped=3)
    skipped.stdout.fnmatch_lines(["*nothing says where DSPy is installed*"])

    wrong = project.runpytest_subprocess(*OPTIONS, "-o", "manybridge_missing_framework=ignore")
    wrong.assert_outcomes(failed=3)
    wrong.stdout.fnmatch_lines(["*manybridge_missing_framework: expected fail or skip, found 'ignore'*"])


def test_a_script_that_was_not_kept_fails_its_test(project: pytest.Pytester) -> None:
    """At the end, and only that test."""
    project.makepyfile(
        test_it="""
def test_left(manybridge_llm):
    manybridge_llm.replies("never asked for")

def test_after(manybridge_llm):
    assert manybridge_llm.requests == []
"""
    )
    result = project.runpytest_subprocess(*OPTIONS)
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*nobody asked for: 'never asked for'*"])


def test_tiny_models_are_the_same_every_time(tmp_path: Path) -> None:
    """And small enough to be made for every test."""
    from manybridge.testing import write_tiny_models

    once, again = (write_tiny_models(tmp_path / name) for name in ("once", "again"))
    files = sorted(path.relative_to(once) for path in once.rglob("*") if path.is_file())
    assert len(files) == 8
    assert all((once / name).read_bytes() == (again / name).read_bytes() for name in files)
    assert sum((once / name).stat().st_size for name in files) < 100_000
