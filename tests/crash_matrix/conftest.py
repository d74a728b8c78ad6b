"""A PostgreSQL server for the rows that restart one."""

from tests.store.conftest import postgresql

__all__ = ["postgresql"]
