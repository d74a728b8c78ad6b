"""Resources with their recipes, sessions, idempotency keys, and the hosts that hold them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the tables."""
    _resources()
    op.create_table(
        "manybridge_sessions",
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("affinity", sa.Text, nullable=False),
        sa.Column("concurrency", sa.Text, nullable=False),
        sa.Column("lease_seconds", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double, nullable=False),
        sa.Column("settings", sa.Text, nullable=False),
        sa.Column("owner", sa.Text),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("calls", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("scope", "id", name="manybridge_sessions_pkey"),
    )
    op.create_index("manybridge_sessions_by_expiry", "manybridge_sessions", ["scope", "expires_at"])
    op.create_table(
        "manybridge_idempotency_keys",
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("bridge", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("done", sa.Boolean, nullable=False),
        sa.Column("result", sa.Text),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("expires_at", sa.Double),
        sa.PrimaryKeyConstraint("scope", "bridge", "key", name="manybridge_idempotency_keys_pkey"),
    )
    op.create_index("manybridge_idempotency_keys_by_expiry", "manybridge_idempotency_keys", ["expires_at"])
    op.create_table(
        "manybridge_hosts",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("machine", sa.Text, nullable=False),
        sa.Column("pid", sa.BigInteger, nullable=False),
        sa.Column("started", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("id", name="manybridge_hosts_pkey"),
    )


def _resources() -> None:
    op.create_table(
        "manybridge_resources",
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("bridge", sa.Text, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("config", sa.Text, nullable=False),
        sa.Column("policy", sa.Text, nullable=False),
        sa.Column("session", sa.Text),
        sa.Column("owner", sa.Text),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("executions", sa.BigInteger, nullable=False),
        sa.Column("last_executed", sa.Double),
        sa.Column("state", sa.Text),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("ready", sa.Boolean, nullable=False),
        sa.Column("holder", sa.Text),
        sa.Column("fence", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("scope", "bridge", "id", name="manybridge_resources_pkey"),
    )
    op.create_index("manybridge_resources_by_session", "manybridge_resources", ["scope", "session"])
    op.create_index("manybridge_resources_by_holder", "manybridge_resources", ["holder"])
