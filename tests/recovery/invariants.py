"""What holds in the store's database at every moment, also right after a kill."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

_RULES: Final = {
    "a resource belongs to a session that is not there": """
        SELECT id FROM manybridge_resources AS made WHERE session IS NOT NULL AND NOT EXISTS (
            SELECT 1 FROM manybridge_sessions AS known WHERE known.scope = made.scope AND known.id = made.session)""",
    "a resource with state has none": """
        SELECT id FROM manybridge_resources WHERE ready AND policy = 'restore' AND (state IS NULL OR version < 1)""",
    "a resource without state has one": """
        SELECT id FROM manybridge_resources WHERE policy <> 'restore' AND (state IS NOT NULL OR version <> 0)""",
    "a resource was executed more often than its state was kept": """
        SELECT id FROM manybridge_resources WHERE policy = 'restore' AND executions >= version AND ready""",
    "a reservation has no host": "SELECT id FROM manybridge_resources WHERE NOT ready AND holder IS NULL",
    "a job has a state that is none": """
        SELECT id FROM manybridge_jobs
        WHERE state NOT IN ('queued', 'starting', 'running', 'done', 'failed', 'cancelled')""",
    "a job has ended, and not when": """
        SELECT id FROM manybridge_jobs WHERE (state IN ('done', 'failed', 'cancelled')) <> (finished_at IS NOT NULL)""",
    "a job that is done has an error, or one that is not has a result": """
        SELECT id FROM manybridge_jobs
        WHERE (state IN ('failed', 'cancelled')) <> (error IS NOT NULL) OR (state <> 'done' AND result IS NOT NULL)""",
    "the events of a job have a gap": """
        SELECT job_id FROM manybridge_job_events GROUP BY scope, job_id HAVING COUNT(*) <> MAX(seq) + 1""",
    "a job tells of events that are not there": """
        SELECT id FROM manybridge_jobs AS job WHERE events > (
            SELECT COUNT(*) FROM manybridge_job_events AS one WHERE one.scope = job.scope AND one.job_id = job.id)""",
    "an idempotency key is done without a result": """
        SELECT "key" FROM manybridge_idempotency_keys WHERE done AND result IS NULL""",
}


def violations(path: Path) -> list[str]:
    """Return a sentence for each thing that is wrong; none where there is no schema yet."""
    connection = sqlite3.connect(path)
    try:
        found = [f"integrity_check: {row[0]}" for row in connection.execute("PRAGMA integrity_check") if row[0] != "ok"]
        found += [f"foreign_key_check: {row}" for row in connection.execute("PRAGMA foreign_key_check")]
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "manybridge_version" not in tables:
            return [*found, *(["half a schema"] if tables else [])]
        for rule, query in _RULES.items():
            found += [f"{rule}: {id}" for (id,) in connection.execute(query)]
        return found
    finally:
        connection.close()
