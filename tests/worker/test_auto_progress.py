"""Hooks that are installed when a module is imported, and bars that report without user code."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from manybridge.bridge import Cancelled, Context
from manybridge.bridge.progress import ProgressSource, begin_progress, current_context, running_call
from manybridge.host.sync import MLBridge
from manybridge.worker import auto_progress
from tests.support import PATIENT, eventually, framework_python

BRIDGE = Path(__file__).parents[1] / "workers" / "bridges" / "bars.py"


class FakeCall:
    """A running call that keeps what is reported."""

    def __init__(self) -> None:
        self.progress_sources: list[ProgressSource] | None = None
        self.cancelled = False
        self.reports: list[tuple[Any, Any, str]] = []
        self._context = Context.detached()

    def context(self) -> Context:
        """What its handler would get."""
        return self._context

    def report_automatically(self, data: dict[str, Any]) -> None:
        """Keep it."""
        self.reports.append((data["current"], data["total"], data["message"]))


@pytest.fixture
def call() -> Iterator[FakeCall]:
    """Return a call that this thread serves."""
    made = FakeCall()
    token = running_call.set(made)
    yield made
    running_call.reset(token)


class TestSources:
    def test_outside_of_calls_there_is_nothing_to_report_to(self) -> None:
        """A bar at import, or in setup."""
        assert begin_progress() is None
        assert current_context() is None

    def test_the_outermost_source_is_shown(self, call: FakeCall) -> None:
        """An inner one is silent, also when the outer one has reached its total; the next one is not."""
        outer, inner = ProgressSource(call), ProgressSource(call)
        outer.report(2, 2, "outer")
        inner.report(1, 5, "inner")
        inner.close()
        outer.close()
        ProgressSource(call).report(1, 3, "next")

        assert call.reports == [(2, 2, "outer"), (1, 3, "next")]

    def test_a_bar_that_was_never_closed_hides_nothing_once_it_is_full(self, call: FakeCall) -> None:
        """Forgotten bars are common."""
        forgotten = ProgressSource(call)
        forgotten.report(3, 3)
        ProgressSource(call).report(1, 2, "next")

        assert call.reports[1:] == [(1, 2, "next")]

    def test_reports_are_thinned_but_the_end_is_told(self, call: FakeCall) -> None:
        """A thousand steps in a moment are two reports."""
        source = ProgressSource(call)
        for number in range(1001):
            source.report(number, 1000)

        assert call.reports[0] == (0, 1000, "")
        assert call.reports[-1] == (1000, 1000, "")
        assert len(call.reports) < 10

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), None, "three", object()])
    def test_what_is_no_number_is_left_out(self, call: FakeCall, value: Any) -> None:
        """Libraries count with types of their own."""
        source = ProgressSource(call)
        source.report(value, 3)
        source.report(1, value)

        assert call.reports == [(1, None, "")]

    def test_a_cancel_is_noticed(self, call: FakeCall) -> None:
        """By whoever checks."""
        source = ProgressSource(call)
        source.check()
        call.cancelled = True

        with pytest.raises(Cancelled):
            source.check()


installed: list[Callable[[], Context | None]] = []


def hook(current: Callable[[], Context | None]) -> None:
    """Note that it was installed."""
    installed.append(current)


def broken(_current: Callable[[], Context | None]) -> None:
    """Fail, as on another release of a library."""
    raise AttributeError("no such thing")


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], ModuleType]]:
    """Return a function that imports a module which is new to this process."""
    (tmp_path / "a_library.py").write_text("value = __spec__.loader.__class__.__name__")
    monkeypatch.syspath_prepend(tmp_path)
    before = list(sys.meta_path)
    # A worker that another test ran in this process has installed the hooks that there are.
    sys.meta_path[:] = [finder for finder in before if not isinstance(finder, auto_progress._Finder)]

    def load() -> ModuleType:
        return __import__("a_library")

    yield load
    sys.meta_path[:] = before
    sys.modules.pop("a_library", None)
    installed.clear()


class TestHooks:
    def test_a_hook_is_installed_when_its_module_is_imported(self, module: Callable[[], ModuleType]) -> None:
        """Not before; and the module is as it would have been."""
        auto_progress.install({"a_library": f"{__name__}:hook"})
        assert installed == []
        loaded = module()

        assert installed == [current_context]
        assert type(loaded.__loader__).__name__ == "SourceFileLoader"
        assert loaded.__spec__ is not None
        assert loaded.__spec__.loader is loaded.__loader__

    def test_a_module_that_is_imported_already_gets_its_hook_at_once(self, module: Callable[[], ModuleType]) -> None:
        """As in the child of a zygote."""
        module()
        auto_progress.install({"a_library": f"{__name__}:hook"})

        assert installed == [current_context]

    def test_a_hook_that_fails_leaves_its_module_alone(
        self, module: Callable[[], ModuleType], capsys: pytest.CaptureFixture[str]
    ) -> None:
        """It works, it only shows no progress."""
        auto_progress.install({"a_library": f"{__name__}:broken"})

        assert module().value
        assert "no automatic progress" in capsys.readouterr().err

    def test_installing_twice_is_installing_once(self, module: Callable[[], ModuleType]) -> None:
        """One finder."""
        for _ in range(2):
            auto_progress.install({"a_library": f"{__name__}:hook"})
        module()

        assert len(installed) == 1

    def test_a_module_that_is_not_there_is_not_there(self, module: Callable[[], ModuleType]) -> None:
        """The error is Python's own."""
        del module
        auto_progress.install({"no_such_library": f"{__name__}:hook"})

        with pytest.raises(ModuleNotFoundError, match="no_such_library"):
            __import__("no_such_library")


@pytest.fixture(scope="module")
def ml() -> Iterator[MLBridge]:
    """Return a host whose bridge `bars` runs where tqdm and DSPy are."""
    config = {"python_script": str(BRIDGE), "python": str(framework_python("dspy")), "zygote": "never", **PATIENT}
    with MLBridge({"bridges": {"bars": config}}) as host:
        host.wait_ready("bars", 30)
        yield host


def reports(ml: MLBridge, command: str, args: dict[str, Any] | None = None) -> tuple[list[tuple[Any, Any, str]], Any]:
    """Call a command and return what progress it made, and its result."""
    stream = ml.stream("bars", command, args)
    found = [event.data for event in stream if event.event == "progress"]
    return [(data["current"], data["total"], data["message"]) for data in found], stream.result


@pytest.mark.framework
class TestBars:
    def test_nothing_is_imported_for_our_sake(self, ml: MLBridge) -> None:
        """Before the first bar there is no tqdm."""
        fresh = {"python_script": str(BRIDGE), "python": str(framework_python("dspy")), "zygote": "never"}
        with MLBridge({"bridges": {"bars": fresh}}) as other:
            assert other.call("bars", "loaded") == {"tqdm": False, "dspy": False}
        assert ml.call("bars", "plain", {"steps": 1}) == {"steps": 1}

    @pytest.mark.parametrize("options", [{}, {"disable": None}, {"miniters": 1000}, {"mininterval": 60}, {"delay": 60}])
    def test_a_bar_reports_its_steps(self, ml: MLBridge, options: dict[str, Any]) -> None:
        """Whatever it was told about drawing."""
        found, result = reports(ml, "plain", {"options": options})

        assert (found[0], found[-1], result) == ((0, 6, "walking"), (6, 6, "walking"), {"steps": 6})
        assert len(found) > 2

    def test_a_bar_that_is_switched_off_is_off(self, ml: MLBridge) -> None:
        """The author said so."""
        assert reports(ml, "plain", {"options": {"disable": True}})[0] == []

    def test_of_nested_bars_the_outer_one_reports(self, ml: MLBridge) -> None:
        """And then the next one."""
        messages = [message for _, _, message in reports(ml, "nested")[0]]

        assert list(dict.fromkeys(messages)) == ["outer", "behind"]

    @pytest.mark.parametrize(
        ("command", "message", "total"), [("elsewhere", "beside", 4), ("notebook", "cell", 3), ("tasks", "tasks", 3)]
    )
    def test_bars_of_every_kind_report(self, ml: MLBridge, command: str, message: str, total: int) -> None:
        """On a thread of the handler's, of notebooks, of asyncio."""
        found = reports(ml, command)[0]

        assert found[-1] == (total, total, message)
        assert {each[2] for each in found} == {message}

    def test_a_handler_that_reports_by_itself_is_right(self, ml: MLBridge) -> None:
        """Its bars are silent."""
        assert reports(ml, "both")[0] == [(1, 2, "mine"), (2, 2, "mine")]

    def test_a_file_of_the_handlers_choice_is_written(self, ml: MLBridge) -> None:
        """And the caller is told as well."""
        found, result = reports(ml, "own_file")

        assert found[-1] == (3, 3, "written")
        assert "written: 100%" in result["drawn"]

    @pytest.mark.parametrize("slow", [False, True])
    def test_a_cancel_is_noticed_at_the_next_step(self, ml: MLBridge, slow: bool) -> None:
        """Cooperatively, although the code knows nothing of it; the worker goes on."""
        job = ml.submit("bars", "endless", {"slow": slow})
        eventually(lambda: job.progress is not None)
        job.cancel()

        assert job.error is not None
        assert job.error.details["stopped_by"] == "cooperative"
        assert ml.call("bars", "plain", {"steps": 1}) == {"steps": 1}

    @pytest.mark.parametrize(("threads", "bar"), [(1, False), (2, False), (1, True)])
    def test_an_evaluation_of_dspy_reports_its_examples(self, ml: MLBridge, threads: int, bar: bool) -> None:
        """Through DSPy's callbacks; its own bar is an inner one."""
        found, result = reports(ml, "evaluate", {"threads": threads, "bar": bar})

        assert (found[0], found[-1]) == ((0, 6, "evaluating"), (6, 6, "evaluating"))
        assert {message for _, _, message in found} == {"evaluating"}
        assert result == {"score": 100.0}

    def test_an_evaluation_of_dspy_can_be_cancelled(self, ml: MLBridge) -> None:
        """At the next example."""
        job = ml.submit("bars", "evaluate", {"examples": 5000})
        eventually(lambda: job.progress is not None and job.progress.current > 1)
        job.cancel()

        assert str(job.state) == "cancelled"
