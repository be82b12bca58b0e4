"""The control plane of a process."""

from tollgate.platform.parts import Parts
from tollgate.platform.sql import Database


def open_database(parts: Parts) -> Database:
    """The database of the settings; migrated before by `scripts/up` or a Job."""
    database = Database(parts.settings.sql_url)
    parts.on_close(database.dispose)
    return database
