"""Alembic's folder: how the schema came to be what it is, one step for each release that changed it.

A step that was released is never edited. The steps write their tables out by hand and do not import `tables`, which
says what the newest schema is and changes.
"""
