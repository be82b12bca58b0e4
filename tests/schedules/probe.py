"""Somebody who asks what counts, while all else goes on: what was answered once must stay so."""

from collections.abc import Sequence
from dataclasses import dataclass

from tests.schedules.reference import Key, Place
from tests.schedules.turns import pause
from tollgate.core.errors import Transient
from tollgate.events.as_of import vector_now
from tollgate.events.facts import UNCORRECTED, counting, has_corrections, within
from tollgate.events.position import Token
from tollgate.platform.clickhouse import DATABASE, ClickHouse

Counted = dict[Place, tuple[Key, str]]
_COLUMNS = "log_partition, log_offset, log_index, namespace, source, id, data"
_OF_NAMESPACE = "namespace = {namespace:String}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What counted as of a vector."""

    vector: Token
    counted: Counted


class Probe:
    """Asks when told to."""

    def __init__(self, clickhouse: ClickHouse, namespaces: Sequence[str]) -> None:
        self._clickhouse = clickhouse
        self._namespaces = namespaces
        self.wanted = False
        self.answers: list[Answered] = []
        self.now: list[list[Key]] = []

    def run(self) -> None:
        """For ever."""
        while True:
            pause(lambda: self.wanted)
            self.wanted = False
            try:
                vector = vector_now(self._clickhouse)
                counted = what_counts(self._clickhouse, self._namespaces, vector)
                self.answers.append(Answered(vector=vector, counted=counted))
                now = what_counts(self._clickhouse, self._namespaces)
            except Transient:
                continue
            self.now.append([key for key, _ in now.values()])


def what_counts(
    clickhouse: ClickHouse, namespaces: Sequence[str], vector: Token | None = None
) -> Counted:
    """By place what counts, now or as of a vector."""
    counted: Counted = {}
    known = f" AND {within(vector)}" if vector is not None else ""
    for namespace in namespaces:
        corrected = UNCORRECTED
        if has_corrections(clickhouse, namespace):
            corrected = counting("{namespace:String}", vector=vector)
        sql = (
            f"SELECT {_COLUMNS} FROM {DATABASE}.events FINAL"
            f" WHERE {_OF_NAMESPACE}{known} AND {corrected}"
        )
        for row in clickhouse.query(sql, {"namespace": namespace}):
            place: Place = (row[0], row[1], row[2])
            assert place not in counted, f"{place} counts twice"
            counted[place] = ((row[3], row[4], row[5]), row[6])
    return counted
