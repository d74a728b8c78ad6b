"""The tables, as this release reads and writes them. How they came to be is in `migrations`.

Each name begins with ours, because a database of PostgreSQL may hold the tables of an application too.

JSON is kept as text and not in a type of the database: PostgreSQL's own refuses a NUL character, and SQLite has none.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKeyConstraint,
    Index,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
)

metadata: Final = MetaData()

jobs: Final = Table(
    "manybridge_jobs",
    metadata,
    Column("scope", Text, nullable=False),
    Column("id", Text, nullable=False),
    Column("bridge", Text, nullable=False),
    Column("command", Text, nullable=False),
    Column("args", Text, nullable=False),
    Column("session", Text),
    Column("idempotent", Boolean, nullable=False),
    Column("state", Text, nullable=False),
    Column("progress", Text),
    Column("result", Text),
    Column("error", Text),
    Column("host", Text, nullable=False),
    Column("events", BigInteger, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("started_at", Double),
    Column("finished_at", Double),
    PrimaryKeyConstraint("scope", "id", name="manybridge_jobs_pkey"),
    Index("manybridge_jobs_by_age", "scope", "created_at"),
)

job_events: Final = Table(
    "manybridge_job_events",
    metadata,
    Column("scope", Text, nullable=False),
    Column("job_id", Text, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("event", Text, nullable=False),
    Column("data", Text, nullable=False),
    PrimaryKeyConstraint("scope", "job_id", "seq", name="manybridge_job_events_pkey"),
    ForeignKeyConstraint(
        ["scope", "job_id"],
        ["manybridge_jobs.scope", "manybridge_jobs.id"],
        ondelete="CASCADE",
        name="manybridge_job_events_job_fkey",
    ),
)

resources: Final = Table(
    "manybridge_resources",
    metadata,
    Column("scope", Text, nullable=False),
    Column("bridge", Text, nullable=False),
    Column("id", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("config", Text, nullable=False),
    Column("policy", Text, nullable=False),
    Column("session", Text),
    Column("owner", Text),
    Column("created_at", Double, nullable=False),
    Column("executions", BigInteger, nullable=False),
    Column("last_executed", Double),
    Column("state", Text),
    Column("version", BigInteger, nullable=False),
    Column("ready", Boolean, nullable=False),
    Column("holder", Text),
    Column("fence", BigInteger, nullable=False),
    PrimaryKeyConstraint("scope", "bridge", "id", name="manybridge_resources_pkey"),
    Index("manybridge_resources_by_session", "scope", "session"),
    Index("manybridge_resources_by_holder", "holder"),
)

sessions: Final = Table(
    "manybridge_sessions",
    metadata,
    Column("scope", Text, nullable=False),
    Column("id", Text, nullable=False),
    Column("affinity", Text, nullable=False),
    Column("concurrency", Text, nullable=False),
    Column("lease_seconds", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
    Column("settings", Text, nullable=False),
    Column("owner", Text),
    Column("created_at", Double, nullable=False),
    Column("calls", BigInteger, nullable=False),
    PrimaryKeyConstraint("scope", "id", name="manybridge_sessions_pkey"),
    Index("manybridge_sessions_by_expiry", "scope", "expires_at"),
)

keys: Final = Table(
    "manybridge_idempotency_keys",
    metadata,
    Column("scope", Text, nullable=False),
    Column("bridge", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("done", Boolean, nullable=False),
    Column("result", Text),
    Column("host", Text, nullable=False),
    Column("expires_at", Double),
    PrimaryKeyConstraint("scope", "bridge", "key", name="manybridge_idempotency_keys_pkey"),
    Index("manybridge_idempotency_keys_by_expiry", "expires_at"),
)

hosts: Final = Table(
    "manybridge_hosts",
    metadata,
    Column("id", Text, nullable=False),
    Column("machine", Text, nullable=False),
    Column("pid", BigInteger, nullable=False),
    Column("started", BigInteger, nullable=False),
    Column("expires_at", Double, nullable=False),
    PrimaryKeyConstraint("id", name="manybridge_hosts_pkey"),
)
