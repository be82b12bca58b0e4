"""What was known at a time: a time is turned into a vector of the log by the ledger's commit times.

A record is known from the moment on at which the ledger first had it. A vector names how far every
partition of one generation was; generations before it are known whole, later ones not at all.
"""

from collections.abc import Mapping
from datetime import UTC, datetime

from tollgate.core.errors import Fault, InvalidInput
from tollgate.core.times import parse_instant
from tollgate.events.api_position import await_token
from tollgate.events.ledger import Partition, read_newest_generation
from tollgate.events.position import Token, parse_token
from tollgate.platform.api import Call
from tollgate.platform.clickhouse import DATABASE, ClickHouse
from tollgate.platform.parts import open_clickhouse

HEADER = "tollgate-as-of"
"""Header of an answer: the vector that its `asOf` meant. Sent as `asOf`, it gives the same."""
FIELD = "asOf"


def as_of(call: Call, text: str | None, field: str = FIELD) -> Token | None:
    """The vector that a request's `asOf` means, all of it loaded; None without one.

    The answer's `Tollgate-As-Of` header says it.

    Raises:
        InvalidInput: it is neither a time nor a position of this log.
        Transient: it is not loaded, or ClickHouse is away.
    """
    if text is None:
        return None
    clickhouse = call.parts.get(open_clickhouse)
    wanted = read_as_of(text, field)
    if isinstance(wanted, Token):
        await_token(call, wanted, field)
        vector = completed(clickhouse, wanted)
    else:
        vector = vector_at(clickhouse, wanted)
    if vector.offsets:
        call.answer_headers[HEADER] = str(vector)
    return vector


def read_as_of(text: str, field: str = FIELD) -> Token | datetime:
    """What a caller means by `asOf`: a position token, or an RFC 3339 time.

    Raises:
        InvalidInput: neither of the two.
    """
    text = text.strip()
    if ";" in text:
        return parse_token(text, field)
    try:
        return parse_instant(text.replace(" ", "+"))
    except ValueError:
        message = "must be an RFC 3339 time, or a position as Tollgate-Position has it"
        fault = Fault(field=field, code="invalid_as_of", message=message)
        raise InvalidInput((fault,)) from None


def vector_at(clickhouse: ClickHouse, instant: datetime) -> Token:
    """How far the ledger was at an instant, in the newest generation that it had then.

    Raises:
        Transient: ClickHouse is away.
    """
    known = _known_at(clickhouse, instant)
    newest = max((generation for generation, _ in known), default=0)
    return Token(
        generation=newest, offsets={p: offset for (g, p), offset in known.items() if g == newest}
    )


def completed(clickhouse: ClickHouse, token: Token) -> Token:
    """A position with what was known of the other partitions once it was loaded.

    An answer to ingest names only the partitions that its events went to.

    Args:
        clickhouse: the store.
        token: all of it is loaded.

    Raises:
        Transient: ClickHouse is away.
    """
    beyond = " OR ".join(
        f"(log_partition = {partition} AND log_offset >= {offset})"
        for partition, offset in sorted(token.offsets.items())
    )
    rows = clickhouse.query(
        f"SELECT max(first) FROM (SELECT toUnixTimestamp64Micro(min(stored_at)) AS first"
        f" FROM {DATABASE}.ledger_commits WHERE log_generation = {token.generation} AND ({beyond})"
        " GROUP BY log_partition)"
    )
    when = datetime.fromtimestamp(int(rows[0][0]) // 1_000_000, UTC)
    when = when.replace(microsecond=int(rows[0][0]) % 1_000_000)
    others = {p: o for (g, p), o in _known_at(clickhouse, when).items() if g == token.generation}
    return Token(generation=token.generation, offsets=others | dict(token.offsets))


def _known_at(clickhouse: ClickHouse, instant: datetime) -> Mapping[Partition, int]:
    rows = clickhouse.query(
        "SELECT log_generation, log_partition, toInt64(max(log_offset))"
        f" FROM {DATABASE}.ledger_commits WHERE stored_at <= {{instant:DateTime64(6, 'UTC')}}"
        " GROUP BY log_generation, log_partition",
        {"instant": instant.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")},
    )
    return {(int(row[0]), int(row[1])): int(row[2]) for row in rows}


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
