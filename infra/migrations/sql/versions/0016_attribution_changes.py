"""Why an attribution began, and customers by when they changed last."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"

_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Adds a column and an index."""
    op.add_column("attributions", sa.Column("reason", _TEXT))
    op.create_index("ix_customers_updated", "customers", ["namespace", "updated_at", "id"])
