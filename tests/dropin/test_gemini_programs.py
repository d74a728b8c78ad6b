"""Version 1's Gemini programs where Google's package is installed: a stand-in for it, over the raw port."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.dropin.port import POOL_WORKER, STANDALONE, Error, Port, Row

STAND_IN = """
import json, os
class Reply:
    def __init__(self, text): self.text = text
class GenerativeModel:
    def __init__(self, name):
        if name == "broken": raise ValueError("no such model")
        self.name = name
    def generate_content(self, prompt):
        with open(os.environ["PROMPTS"], "a") as file: file.write(json.dumps([self.name, prompt]) + "\\n")
        if "fail" in prompt: raise RuntimeError("quota")
        return Reply("Answer: 42\\nother: x")
def configure(**settings):
    with open(os.environ["PROMPTS"], "a") as file: file.write(json.dumps(settings) + "\\n")
"""
SIGNATURE = {"inputs": [{"name": "question"}], "outputs": [{"name": "answer", "description": "the answer"}]}


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    """Lay out the stand-in, and tell where it writes down what it was asked."""
    package = tmp_path / "google" / "generativeai"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(STAND_IN, encoding="utf-8")
    (tmp_path / "prompts").touch()
    return tmp_path / "prompts"


@pytest.mark.parametrize("argv", [STANDALONE, POOL_WORKER], ids=["standalone", "pool-worker"])
def test_gemini_programs_where_the_package_is_installed(argv: tuple[str, ...], prompts: Path) -> None:
    """They ignore sessions; the duplicate check applies in both modes."""
    env = {"PYTHONPATH": str(prompts.parent), "PROMPTS": str(prompts), "GEMINI_API_KEY": "AIza-0123456789"}
    created = {
        "program_id": "g", "status": "created", "type": "gemini", "model_name": "gemini-1.5-flash",
        "signature": SIGNATURE,
    }  # fmt: skip
    answered = {
        "program_id": "g", "outputs": {"answer": "42"}, "execution_time": float,
        "raw_response": "Answer: 42\nother: x",
    }  # fmt: skip
    with Port(*argv, env=env) as port:
        assert port.result("ping")["gemini_available"] is True
        port.play(
            Row("create_gemini_program", {}, Error("Program ID is required")),
            Row("create_gemini_program", {"id": "g", "signature": SIGNATURE}, created),
            Row("create_gemini_program", {"id": "g"}, Error("Program with ID 'g' already exists")),
            Row("create_gemini_program", {"id": "h", "model": "broken"},
                Error("Failed to create Gemini program: no such model")),
            Row("execute_gemini_program", {"program_id": "g", "inputs": {"question": "6 * 7"}}, answered),
            Row("execute_gemini_program", {"program_id": "g", "inputs": {"question": "fail"}},
                Error("Gemini program execution failed: quota")),
            Row("execute_gemini_program", {"program_id": "g", "inputs": None},
                Error("Gemini program execution failed: 'NoneType' object has no attribute 'get'")),
        )  # fmt: skip
        info = port.result("get_program_info", {"program_id": "g"})
        assert (info["execution_count"], info["signature"]) == (1, SIGNATURE)
        assert port.result("get_stats")["programs_count"] == 1
    written = [json.loads(line) for line in prompts.read_text(encoding="utf-8").splitlines()]
    assert written[0] == {"api_key": "AIza-0123456789"}
    assert [
        "gemini-1.5-flash",
        "Please provide the answer.\n\nquestion: 6 * 7\n\n\nPlease respond in this format:\nanswer: [your the answer]",
    ] in written
