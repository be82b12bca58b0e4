"""Alembic's environment: runs revisions on the connection that `tollgate.platform.sql` hands in.

The caller holds the lock and the transaction, so there is no offline mode and no URL here. A new
revision is a file in `versions/`, numbered on, written by hand, and is held equal to the tables of
the stores by `tests/contract/test_stores.py`.
"""

from alembic import context

context.configure(connection=context.config.attributes["connection"], transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
