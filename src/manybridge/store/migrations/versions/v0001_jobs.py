"""Jobs with their events."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "manybridge_jobs",
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("bridge", sa.Text, nullable=False),
        sa.Column("command", sa.Text, nullable=False),
        sa.Column("args", sa.Text, nullable=False),
        sa.Column("session", sa.Text),
        sa.Column("idempotent", sa.Boolean, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("progress", sa.Text),
        sa.Column("result", sa.Text),
        sa.Column("error", sa.Text),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("events", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("started_at", sa.Double),
        sa.Column("finished_at", sa.Double),
        sa.PrimaryKeyConstraint("scope", "id", name="manybridge_jobs_pkey"),
    )
    op.create_index("manybridge_jobs_by_age", "manybridge_jobs", ["scope", "created_at"])
    op.create_table(
        "manybridge_job_events",
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("job_id", sa.Text, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("event", sa.Text, nullable=False),
        sa.Column("data", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("scope", "job_id", "seq", name="manybridge_job_events_pkey"),
        sa.ForeignKeyConstraint(
            ["scope", "job_id"],
            ["manybridge_jobs.scope", "manybridge_jobs.id"],
            ondelete="CASCADE",
            name="manybridge_job_events_job_fkey",
        ),
    )
