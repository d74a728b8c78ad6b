"""What an advisory database says is taken as it is, and what it does not say is said."""

from __future__ import annotations

import json
import socketserver
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from manybridge.environments import advisories
from manybridge.environments.advisories import Server, Snapshot, open_database
from manybridge.environments.denylist import Release
from manybridge.environments.osv import Unknown, Vulnerability, affects
from tests.support import MS

NOW = datetime.now(UTC).isoformat()
BETA = Release("beta", "1.0")


def record(
    *events: dict[str, str], name: str = "Beta", versions: list[str] | None = None, kind: str = "ECOSYSTEM", **more: Any
) -> dict[str, Any]:
    """Return an advisory about one package."""
    affected: dict[str, Any] = {"package": {"ecosystem": "PyPI", "name": name}}
    if events:
        affected["ranges"] = [{"type": kind, "events": list(events)}]
    if versions is not None:
        affected["versions"] = versions
    return {"id": "TEST-1", "modified": NOW, "affected": [affected], **more}


class TestARecord:
    @pytest.mark.parametrize(
        ("events", "version", "is_affected"),
        [
            ([{"introduced": "0"}], "1.0", True),
            ([{"introduced": "0"}, {"fixed": "1.0"}], "1.0", False),
            ([{"introduced": "0"}, {"fixed": "1.0"}], "1.0rc1", True),
            ([{"introduced": "0"}, {"fixed": "1.0.1"}], "1.0", True),
            ([{"introduced": "0"}, {"last_affected": "1.0"}], "1.0", True),
            ([{"introduced": "0"}, {"last_affected": "1.0"}], "1.0+cpu", True),
            ([{"introduced": "0"}, {"last_affected": "0.9"}], "1.0", False),
            ([{"introduced": "1.1"}], "1.0", False),
            ([{"fixed": "0.5"}, {"introduced": "0"}, {"introduced": "0.9"}, {"fixed": "2"}], "1.0", True),
            ([{"fixed": "0.5"}, {"introduced": "0"}, {"introduced": "0.9"}, {"fixed": "2"}], "0.7", False),
            ([{"introduced": "0"}, {"limit": "1.0"}], "1.0", False),
            ([{"introduced": "0"}, {"limit": "1.1"}], "1.0", True),
            ([{"introduced": "0"}, {"limit": "*"}], "1.0", True),
        ],
    )
    def test_ranges_are_evaluated_as_the_format_says(
        self, events: list[dict[str, str]], version: str, is_affected: bool
    ) -> None:
        """In the order of versions, whatever the order of events."""
        assert isinstance(affects(record(*events), Release("beta", version)), Vulnerability) == is_affected

    def test_a_listed_version_is_affected_also_with_a_local_label(self) -> None:
        """2.13.0+cpu is a build of 2.13.0."""
        listed = record(versions=["2.13.0"])

        assert isinstance(affects(listed, Release("beta", "2.13.0+cpu")), Vulnerability)
        assert affects(listed, Release("beta", "2.13.1")) is None

    def test_what_a_reader_needs_is_in_the_answer(self) -> None:
        """Names, a line about it, and where it is fixed."""
        said = record({"introduced": "0"}, {"fixed": "1.2"}, aliases=["CVE-1"], summary="It breaks")

        assert affects(said, BETA) == Vulnerability("beta", "1.0", "TEST-1", ("CVE-1",), "It breaks", ("1.2",))

    @pytest.mark.parametrize(
        "unclear",
        [
            record({"introduced": "0"}, kind="GIT"),
            record(),
            record({"introduced": "what is this"}),
            record(versions=["what is this"]),
        ],
    )
    def test_a_record_that_does_not_say_which_versions_is_no_pass(self, unclear: dict[str, Any]) -> None:
        """The release was not audited, and the record is named."""
        answer = affects(unclear, BETA)

        assert answer == Unknown("beta==1.0", "TEST-1 does not say which versions it is about")

    def test_a_version_that_cannot_be_compared_is_no_pass(self) -> None:
        """It may be any."""
        assert isinstance(affects(record({"introduced": "5"}), Release("beta", "built-on-monday")), Unknown)

    def test_records_about_others_and_withdrawn_ones_say_nothing(self) -> None:
        """Another package, another ecosystem, taken back."""
        other = record({"introduced": "0"})
        other["affected"][0]["package"]["ecosystem"] = "npm"

        assert affects(record({"introduced": "0"}, name="gamma"), BETA) is None
        assert affects(other, BETA) is None
        assert affects(record({"introduced": "0"}, withdrawn=NOW), BETA) is None

    @pytest.mark.parametrize("withdrawn", [None, "", "soon", "2999-01-01T00:00:00Z"])
    def test_a_record_is_withdrawn_from_its_date_on(self, withdrawn: str | None) -> None:
        """A date that is none, or that has not come, would hide an advisory."""
        assert isinstance(affects(record({"introduced": "0"}, withdrawn=withdrawn), BETA), Vulnerability)


FILES: dict[str, Callable[[list[dict[str, Any]]], str]] = {
    "list": json.dumps,
    "indented list": lambda records: json.dumps(records, indent=2),
    "answer": lambda records: json.dumps({"vulns": records}),
    "indented answer": lambda records: json.dumps({"vulns": records}, indent=2),
}


def write_snapshot(folder: Path, form: str, records: list[dict[str, Any]]) -> Path:
    """Write records in one of the forms."""
    if form in FILES:
        path = folder / "all.json"
        path.write_text(FILES[form](records), encoding="utf-8")
    elif form in ("folder of archives", "folder of lines"):
        path = folder / "snapshot"
        (path / "PyPI").mkdir(parents=True)
        write_snapshot(path / "PyPI", "zip" if form == "folder of archives" else "lines", records)
    elif form == "folder":
        path = folder / "snapshot"
        path.mkdir()
        for number, each in enumerate(records):
            (path / f"{number}.json").write_text(json.dumps(each), encoding="utf-8")
    elif form == "zip":
        path = folder / "all.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for number, each in enumerate(records):
                archive.writestr(f"{number}.json", json.dumps(each))
    else:
        path = folder / "all.jsonl"
        path.write_text("".join(f"{json.dumps(each)}\n" for each in records), encoding="utf-8")
    return path


class TestASnapshot:
    @pytest.mark.parametrize("form", ["folder", "zip", "lines", "folder of archives", "folder of lines", *FILES])
    def test_each_form_of_a_snapshot_is_read(self, tmp_path: Path, form: str) -> None:
        """One vulnerable package, one that is not."""
        path = write_snapshot(tmp_path, form, [record({"introduced": "0"}), record({"introduced": "9"}, name="alpha")])

        audit = open_database(str(path), 30).audit([Release("alpha", "1.0"), BETA])

        assert [each.package for each in audit.vulnerabilities] == ["beta"]
        assert audit.not_audited == []

    def test_an_old_snapshot_has_audited_nothing(self, tmp_path: Path) -> None:
        """What has become known since is not in it; what it found it found."""
        old = (datetime.now(UTC) - timedelta(days=31)).isoformat()
        path = write_snapshot(tmp_path, "lines", [{**record({"introduced": "0"}), "modified": old}])

        audit = Snapshot(path, 30).audit([BETA])

        assert [each.id for each in audit.vulnerabilities] == ["TEST-1"]
        assert "31 days old" in audit.not_audited[0].reason

    def test_one_record_is_a_snapshot_too(self, tmp_path: Path) -> None:
        """As an advisory is published: a file, indented."""
        path = tmp_path / "TEST-1.json"
        path.write_text(json.dumps(record({"introduced": "0"}), indent=2), encoding="utf-8")

        assert [each.id for each in Snapshot(path, 30).audit([BETA]).vulnerabilities] == ["TEST-1"]

    def test_a_record_of_the_future_does_not_keep_a_snapshot_young(self, tmp_path: Path) -> None:
        """Somebody mistyped a year; the rest is as old as it is."""
        future = (datetime.now(UTC) + timedelta(days=365)).isoformat()
        old = (datetime.now(UTC) - timedelta(days=31)).isoformat()
        records = [{**record({"introduced": "9"}), "modified": each} for each in (old, future)]

        audit = Snapshot(write_snapshot(tmp_path, "lines", records), 30).audit([BETA])

        assert "31 days old" in audit.not_audited[0].reason

    @pytest.mark.parametrize(
        "content",
        [b"{", b"[]\n", b'{"modified": "now"}\n', b'{"id": "X", "affected": [1]}\n', b"", b"\xff\xfe", b"[" * 100_000],
    )
    def test_a_damaged_or_empty_snapshot_has_audited_nothing(self, tmp_path: Path, content: bytes) -> None:
        """The damaged record may be about any package."""
        path = tmp_path / "all.jsonl"
        path.write_bytes(json.dumps(record({"introduced": "9"})).encode() + b"\n" + content if content else b"")

        audit = Snapshot(path, 30).audit([BETA, Release("alpha", "1.0")])

        assert [each.subject for each in audit.not_audited] == ["beta==1.0", "alpha==1.0"]

    @pytest.mark.parametrize(
        ("offset", "value"),
        [(8, b"\x01"), (10, b"\x63"), (10, b"\x08")],
        ids=["encrypted", "of an unknown method", "not what was compressed"],
    )
    def test_an_archive_that_cannot_be_unpacked_has_audited_nothing(
        self, tmp_path: Path, offset: int, value: bytes
    ) -> None:
        """The standard library has an error of another kind for each."""
        path = write_snapshot(tmp_path, "zip", [record({"introduced": "9"})])
        content = bytearray(path.read_bytes())
        for header, at in ((b"PK\x03\x04", offset - 2), (b"PK\x01\x02", offset)):  # a file's, and the directory's
            start = content.find(header) + at
            content[start : start + 1] = value
        path.write_bytes(content)

        audit = Snapshot(path, 30).audit([BETA])

        assert [each.subject for each in audit.not_audited] == ["beta==1.0"]
        assert "can't be read: " in audit.not_audited[0].reason

    def test_a_snapshot_that_is_not_there_has_audited_nothing(self, tmp_path: Path) -> None:
        """Not a pass either."""
        assert len(Snapshot(tmp_path / "absent", 30).audit([BETA]).not_audited) == 1

    def test_a_snapshot_that_is_not_there_is_no_pass_for_an_environment_without_packages(self, tmp_path: Path) -> None:
        """Nothing was asked of it, and it would have answered nothing."""
        assert [each.subject for each in Snapshot(tmp_path / "absent", 30).audit([]).not_audited] == ["advisories"]

    def test_a_snapshot_of_another_ecosystem_has_audited_nothing(self, tmp_path: Path) -> None:
        """Somebody took the wrong file."""
        wrong = record({"introduced": "0"})
        wrong["affected"][0]["package"]["ecosystem"] = "npm"

        audit = Snapshot(write_snapshot(tmp_path, "lines", [wrong]), 30).audit([BETA])

        assert "no record about Python packages" in audit.not_audited[0].reason


class FakeServer(ThreadingHTTPServer):
    """An OSV server on this machine that answers as it was told."""

    def __init__(self, answer: Any) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = answer
        self.asked: list[Any] = []

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: FakeServer

    def do_POST(self) -> None:  # the name that the standard library calls
        """Answer one question."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, body))
        answer = self.server.answer(body) if callable(self.server.answer) else self.server.answer
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *_args: object) -> None:
        """Say nothing."""


@pytest.fixture
def osv_server() -> Iterator[FakeServer]:
    """Return a server; a test sets what it answers."""
    with FakeServer({}) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class TestAServer:
    def test_names_and_versions_are_asked_for_and_nothing_else(self, osv_server: FakeServer) -> None:
        """The label of a local build is left out: the database knows releases."""
        osv_server.answer = {"results": [{"vulns": [{"id": "TEST-1", "modified": NOW}]}, {}]}

        audit = Server(osv_server.url).audit([Release("torch", "2.13.0+cpu"), BETA])

        assert [(each.package, each.id) for each in audit.vulnerabilities] == [("torch", "TEST-1")]
        assert audit.not_audited == []
        ((path, body),) = osv_server.asked
        assert path == "/v1/querybatch"
        assert body == {
            "queries": [
                {"package": {"name": "torch", "ecosystem": "PyPI"}, "version": "2.13.0"},
                {"package": {"name": "beta", "ecosystem": "PyPI"}, "version": "1.0"},
            ]
        }

    def test_all_pages_of_an_answer_are_asked_for(self, osv_server: FakeServer) -> None:
        """The first page need not have everything."""

        def answer(body: Any) -> Any:
            page = body["queries"][0].get("page_token")
            if page is None:
                return {"results": [{"vulns": [{"id": "TEST-1"}], "next_page_token": "2"}]}
            return {"results": [{"vulns": [{"id": "TEST-2"}]}]}

        osv_server.answer = answer

        assert [each.id for each in Server(osv_server.url).audit([BETA]).vulnerabilities] == ["TEST-1", "TEST-2"]

    @pytest.mark.parametrize(
        "answer",
        [
            {},
            {"results": []},
            {"results": "none"},
            [],
            {"results": [{"vulns": [{}]}]},
            {"results": [{"next_page_token": "again"}]},
            {"results": [None]},
            {"results": [[]]},
            {"results": [{"vulns": None}]},
            {"results": [{"code": 13, "message": "internal error"}]},
        ],
    )
    def test_an_answer_that_is_none_has_audited_nothing(self, osv_server: FakeServer, answer: Any) -> None:
        """Too short, of another form, or without an end."""
        osv_server.answer = answer

        assert [each.subject for each in Server(osv_server.url).audit([BETA]).not_audited] == ["beta==1.0"]

    @pytest.mark.parametrize(
        "reply",
        [
            b"SSH-2.0-OpenSSH_9.2\r\n",
            b'HTTP/1.0 200 OK\r\nContent-Length: 1000\r\n\r\n{"results": [{}]}',
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"HTTP/1.0 200 OK\r\n\r\n" + b"[" * 100_000,
        ],
        ids=["no HTTP", "cut", "damaged", "endless"],
    )
    def test_a_server_that_breaks_off_or_talks_nonsense_has_audited_nothing(self, reply: bytes) -> None:
        """No traceback: a scan says what it could not look up, and goes on to the next bridge."""

        class Nonsense(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                while self.rfile.readline().strip():
                    pass
                self.wfile.write(reply)

        with socketserver.TCPServer(("127.0.0.1", 0), Nonsense) as server:
            thread = threading.Thread(target=server.handle_request)
            thread.start()
            audit = Server(f"http://127.0.0.1:{server.server_address[1]}").audit([BETA])
            thread.join()

        assert [each.subject for each in audit.not_audited] == ["beta==1.0"]

    def test_a_server_that_never_ends_its_answer_has_audited_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The limit is that of an answer, not of each of its bytes."""
        monkeypatch.setattr(advisories, "SERVER_TIMEOUT", 20 * MS)
        over = threading.Event()

        class Dripping(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                while self.rfile.readline().strip():
                    pass
                self.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n")
                with suppress(OSError):
                    while not over.wait(MS):
                        self.wfile.write(b" ")

        with socketserver.TCPServer(("127.0.0.1", 0), Dripping) as server:
            thread = threading.Thread(target=server.handle_request)
            thread.start()
            audit = Server(f"http://127.0.0.1:{server.server_address[1]}").audit([BETA])
            over.set()
            thread.join()

        assert [each.subject for each in audit.not_audited] == ["beta==1.0"]
        assert "timed out" in audit.not_audited[0].reason

    def test_an_address_that_is_none_has_audited_nothing(self) -> None:
        """It is the caller's word, and his pipeline waits for the exit code."""
        assert len(open_database("http://a b/", 30).audit([BETA]).not_audited) == 1

    def test_a_server_that_cannot_be_reached_has_audited_nothing(self) -> None:
        """Nobody listens on this port."""
        audit = open_database("http://127.0.0.1:9", 30).audit([BETA])

        assert "can't be asked" in audit.not_audited[0].reason
