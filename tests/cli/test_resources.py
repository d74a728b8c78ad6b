"""`manybridge resources`, with a real host and a real worker."""

from __future__ import annotations

from tests.cli.support import CommandLine


def test_types_are_listed_with_their_schemas(manybridge: CommandLine) -> None:
    """What can be made, and what it takes."""
    types = manybridge("resources", "types", "mock", "--json").json

    assert {"echo", "counter"} <= set(types)
    assert types["counter"]["policy"] == "restore"


def test_one_command_makes_and_uses_a_resource(manybridge: CommandLine) -> None:
    """State lasts over the executions of one command."""
    ended = manybridge(
        "resources", "create", "mock", "counter", "start:=5", "--execute", "{}", "--execute", '{"add": 2}', "--json"
    )

    assert ended.code == 0
    assert (ended.json["resource"]["type"], ended.json["resource"]["bridge"]) == ("counter", "mock")
    assert [result["value"] for result in ended.json["results"]] == [6, 8]


def test_a_resource_without_executions_is_its_record(manybridge: CommandLine) -> None:
    """The record has what the design promises of a resource."""
    record = manybridge("resources", "create", "mock", "echo", "--args", '{"a": 1}', "--json").json

    assert {"id", "type", "bridge", "session", "created_at"} <= set(record)


def test_a_new_host_has_no_resources(manybridge: CommandLine) -> None:
    """Each command is a host of its own, as the help says."""
    assert manybridge("resources", "list", "mock", "--json").json == []


def test_what_is_not_there_ends_with_4_and_says_why(manybridge: CommandLine) -> None:
    """The hint explains that a resource ends with its command."""
    codes = [manybridge("resources", verb, "mock", "r1").code for verb in ("get", "execute", "delete")]
    said = manybridge("resources", "get", "mock", "r1").err

    assert codes == [4, 4, 4]
    assert "a resource made by one manybridge command ends with that command" in said


def test_an_unknown_type_ends_with_4(manybridge: CommandLine) -> None:
    """The types can be listed."""
    ended = manybridge("resources", "create", "mock", "ecko")

    assert ended.code == 4
    assert "manybridge resources types BRIDGE" in ended.err
