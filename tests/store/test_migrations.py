"""The schema: every step from the oldest one up, on both databases, with what was in them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from manybridge.errors import StoreError
from manybridge.store import schema, tables
from manybridge.store.database import Database
from manybridge.store.opening import open_store
from manybridge.store.urls import StoreUrl, parse_store_url
from tests.store.postgresql import Server

VERSIONS = [f"{number:04}" for number in range(1, int(schema.NEWEST) + 1)]

# What a release with that schema wrote, word for word. A step that is added gets its line; lines never change.
ROWS = {
    "0001": [
        """INSERT INTO manybridge_jobs VALUES ('default', 'old', 'mock', 'mock:work', '{"n":1}', NULL, true, 'done',
        NULL, '[1,2]', NULL, 'host-1', 1, 1.5, 2.5, 3.5)""",
        """INSERT INTO manybridge_job_events VALUES ('default', 'old', 0, 'log', '{"message":"m"}')""",
    ],
    "0002": [
        """INSERT INTO manybridge_resources VALUES ('default', 'mock', 'r', 'counter', '{}', 'restore', NULL, NULL,
        1.5, 3, 2.5, '{"value":3}', 4, true, NULL, 7)""",
        """INSERT INTO manybridge_sessions VALUES ('default', 's', 'hint', 'enqueue', 60, 9e12, '{"lm":"x"}', NULL,
        1.5, 2)""",
    ],
}


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> StoreUrl:
    """A database that is empty."""
    if request.param == "sqlite":
        return parse_store_url(f"sqlite:///{tmp_path}/store.db")
    server: Server = request.getfixturevalue("postgresql")
    return parse_store_url(server.new_database())


async def on_database(url: StoreUrl, *work: Any) -> Any:
    """Run functions of a connection in one transaction, without bringing the schema up; return what the last did."""
    database = Database(url)
    database._engines = [
        database._sqlite_engine(writes=True) if url.kind == "sqlite" else database._postgresql_engine()
    ]

    async def all_of_it(connection: Any) -> Any:
        result = None
        for each in work:
            result = await connection.run_sync(each)
        return result

    try:
        return await database.write(all_of_it, "test")
    finally:
        await database.close()


def rows(version: str) -> Any:
    """What puts the rows of a release into the database."""

    def put(connection: Connection) -> None:
        for statement in ROWS[version]:
            connection.exec_driver_sql(statement)

    return put


@pytest.mark.parametrize("oldest", VERSIONS)
async def test_a_database_of_any_release_is_brought_up_with_what_it_holds(oldest: str, url: StoreUrl) -> None:
    """Opening it is enough."""
    for version in VERSIONS[: VERSIONS.index(oldest) + 1]:
        await on_database(url, lambda connection, to=version: schema.upgrade(connection, url, to), rows(version))
    store = open_store(url)
    job, events = await store.get_job("old"), await store.read_events("old")
    resource, session = await store.get_resource("mock", "r"), await store.get_session("s")
    await store.close()

    assert job is not None
    assert (job.args, job.result, job.idempotent, job.finished_at) == ({"n": 1}, [1, 2], True, 3.5)
    assert [each.data for each in events] == [{"message": "m"}]
    if oldest >= "0002":
        assert resource is not None
        assert (resource.state, resource.version, resource.fence) == ({"value": 3}, 4, 7)
        assert session is not None
        assert session.settings == {"lm": "x"}


async def test_the_steps_lead_to_the_tables_that_the_code_uses(url: StoreUrl) -> None:
    """Alembic finds no difference."""

    def difference(connection: Connection) -> list[Any]:
        context = MigrationContext.configure(connection, opts={"version_table": schema.VERSION_TABLE})
        found: list[Any] = compare_metadata(context, tables.metadata)
        return found

    assert await on_database(url, lambda connection: schema.upgrade(connection, url), difference) == []


def test_the_newest_step_is_the_one_that_is_written_down() -> None:
    """`NEWEST` saves an import at each open, and must not lie."""
    config = Config()
    config.set_main_option("script_location", str(schema.MIGRATIONS))
    script = ScriptDirectory.from_config(config)

    assert script.get_heads() == [schema.NEWEST]
    assert [each.revision for each in reversed(list(script.walk_revisions()))] == VERSIONS
    assert set(ROWS) == set(VERSIONS)


async def test_a_schema_of_a_newer_release_is_refused_by_its_number(url: StoreUrl) -> None:
    """And nothing is changed."""
    newer = f"UPDATE {schema.VERSION_TABLE} SET version_num = '0099'"
    await on_database(
        url, lambda connection: schema.upgrade(connection, url), lambda each: each.execute(text(newer)) and None
    )
    store = open_store(url)
    with pytest.raises(StoreError, match="schema is version 0099") as caught:
        await store.list_jobs()
    await store.close()

    assert (caught.value.code, caught.value.retryable) == ("store_incompatible", False)
    assert caught.value.details["schema"] == "0099"
    assert schema.NEWEST in caught.value.message


async def test_hosts_that_open_an_empty_database_at_once_all_find_it_ready(url: StoreUrl) -> None:
    """One makes the schema, the others wait for it."""
    stores = [open_store(url, scope=f"s{number}") for number in range(5)]
    found = await asyncio.gather(*(each.drop_key("b", "k", "h") for each in stores))
    for each in stores:
        await each.close()

    assert found == [None] * 5


async def test_a_file_of_another_program_is_left_alone(tmp_path: Path) -> None:
    """Its tables are named."""
    url = parse_store_url(f"sqlite:///{tmp_path}/other.db")
    await on_database(url, lambda connection: connection.execute(text("CREATE TABLE bookmarks (id)")) and None)
    store = open_store(url)
    with pytest.raises(StoreError, match="bookmarks") as caught:
        await store.list_jobs()
    await store.close()

    assert caught.value.code == "store_incompatible"
    assert caught.value.details["reason"] == "foreign"
