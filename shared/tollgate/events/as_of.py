"""What was known at a time: a time is turned into a vector of the log by the ledger's commit times.

A record is known from the moment on at which the ledger has it.
"""

from datetime import UTC, datetime

from tollgate.core.errors import Fault, InvalidInput
from tollgate.core.times import parse_instant
from tollgate.events.ledger import read_newest_generation
from tollgate.events.position import Token, parse_token
from tollgate.platform.clickhouse import DATABASE, ClickHouse


def read_as_of(clickhouse: ClickHouse, text: str) -> Token:
    """The vector that a caller means by `asOf`: a position token, or an RFC 3339 time.

    Raises:
        InvalidInput: neither of the two.
        Transient: ClickHouse is away.
    """
    text = text.strip()
    if ";" in text:
        return parse_token(text)
    try:
        instant = parse_instant(text.replace(" ", "+"))
    except ValueError:
        message = "must be an RFC 3339 time, or a position as Tollgate-Position has it"
        fault = Fault(field="asOf", code="invalid_as_of", message=message)
        raise InvalidInput((fault,)) from None
    return vector_at(clickhouse, instant)


def vector_at(clickhouse: ClickHouse, instant: datetime) -> Token:
    """How far the ledger was at an instant; of the newest generation that it had then.

    Raises:
        Transient: ClickHouse is away.
    """
    rows = clickhouse.query(
        "SELECT log_generation, log_partition, toInt64(max(log_offset))"
        f" FROM {DATABASE}.ledger WHERE stored_at <= {{instant:DateTime64(6, 'UTC')}}"
        " GROUP BY log_generation, log_partition",
        {"instant": instant.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")},
    )
    newest = max((int(row[0]) for row in rows), default=0)
    return Token(
        generation=newest,
        offsets={int(row[1]): int(row[2]) for row in rows if row[0] == newest},
    )


def vector_now(clickhouse: ClickHouse) -> Token:
    """How far the ledger is now.

    Raises:
        Transient: ClickHouse is away.
    """
    newest = read_newest_generation(clickhouse)
    rows = clickhouse.query(
        f"SELECT log_partition, toInt64(max(log_offset)) FROM {DATABASE}.ledger"
        " WHERE log_generation = {generation:UInt32} GROUP BY log_partition",
        {"generation": newest},
    )
    return Token(generation=newest, offsets={int(row[0]): int(row[1]) for row in rows})
