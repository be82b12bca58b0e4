"""The product with a fault built in: `python -m tests.support.faults FAULT [option of up ...]`.

FAULT is `kill:before:arrivals:2:FILE` (SIGKILL to itself before its second insert into `arrivals`
while FILE exists; or `after`, or any other table, or `release`), `away:FILE` (every write to
ClickHouse fails while FILE exists), or `none`. Faults sit on the edges to what is not ours; the
product under them is unchanged.

`python -m tests.support.faults inspect DATA` prints what a stopped product has stored, as JSON.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.server import ROOT, SAMPLE_METERS, Server, wait_until
from tollgate.core.errors import Transient
from tollgate.platform.clickhouse import DATABASE, ClickHouse
from tollgate.platform.event_log import LOADER
from tollgate.platform.segment_log import SegmentLog

TABLES = ("arrivals", "event_outcomes", "ledger")
"""What the loader writes, in order; views fill `events` and `event_keys` from `arrivals`."""
_START_SECONDS = 60


class FaultyServer(Server):
    """A server that starts with a fault."""

    fault = "none"

    def start(self, *, wait: bool = True) -> "FaultyServer":
        """Starts the process with its fault."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("TOLLGATE_")}  # noqa: TID251
        environment |= {"PYTHONPATH": f"{ROOT / 'shared'}{os.pathsep}{ROOT}"} | self._settings
        command = [sys.executable, "-m", "tests.support.faults", self.fault]
        command += ["--port", str(self.port), "--data", str(self.data)]
        command += ["--meters", str(self._meters or SAMPLE_METERS)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, cwd=ROOT
            )
        if wait:
            wait_until(self._ready, _START_SECONDS, "server ready")
        return self

    def end(self) -> int:
        """Waits until the process has ended by itself; gives the exit code."""
        process = self._process
        assert process is not None
        code = process.wait(_START_SECONDS)
        self._process = None
        return code


def inspect(data: Path) -> dict[str, Any]:
    """What a stopped product has stored, read by a process of its own."""
    found = subprocess.run(
        [sys.executable, "-m", "tests.support.faults", "inspect", str(data)],
        env={"PYTHONPATH": f"{ROOT / 'shared'}{os.pathsep}{ROOT}"},
        cwd=ROOT,
        capture_output=True,
        check=True,
        timeout=60,
    )
    stored: dict[str, Any] = json.loads(found.stdout)
    return stored


_LEDGER = "sum(accepted), sum(stored), sum(duplicate), sum(conflict), sum(dead)"
_POSITION = "log_generation, log_partition, log_offset, log_index"
_QUESTIONS = {
    # An amendment claims no key and is no event that was accepted.
    # A key that stands twice within its window would be an event counted twice.
    "repeated_keys": "SELECT count() FROM (SELECT namespace, source, id FROM {db}.events FINAL"
    " WHERE amendment = 0 GROUP BY namespace, source, id HAVING count() > 1)",
    "events": "SELECT count() FROM {db}.events FINAL WHERE amendment = 0",
    "keys": "SELECT count() FROM {db}.event_keys FINAL",
    "keys_without_event": "SELECT count() FROM {db}.event_keys FINAL WHERE"
    f" ({_POSITION}) NOT IN (SELECT {_POSITION} FROM {{db}}.events)",
    "events_without_key": "SELECT count() FROM {db}.events FINAL WHERE amendment = 0 AND"
    f" ({_POSITION}) NOT IN (SELECT {_POSITION} FROM {{db}}.event_keys)",
    "positions_with_two_outcomes": f"SELECT count() FROM (SELECT {_POSITION} FROM"
    " {db}.event_outcomes FINAL GROUP BY ALL HAVING count() > 1)",
    "records_out_of_balance": "SELECT count() FROM {db}.ledger FINAL"
    " WHERE accepted != stored + duplicate + conflict + dead",
    # Conservation: another count of the stored events, record by record, gives the ledger's figure.
    "records_miscounted": "SELECT count() FROM"
    " (SELECT log_offset, sum(stored) AS n FROM {db}.ledger FINAL GROUP BY log_offset) AS l"
    " FULL JOIN (SELECT log_offset, count() AS n FROM {db}.events FINAL"
    " WHERE amendment = 0 GROUP BY log_offset) AS e"
    " USING log_offset WHERE l.n != e.n",
}


def question_all(clickhouse: ClickHouse) -> dict[str, Any]:
    """Answers of the invariants' questions, the ledger's sums, outcomes by kind."""
    found: dict[str, Any] = {
        name: clickhouse.query(sql.format(db=DATABASE))[0][0] for name, sql in _QUESTIONS.items()
    }
    (sums,) = clickhouse.query(f"SELECT {_LEDGER} FROM {DATABASE}.ledger FINAL")
    names = ("accepted", "stored", "duplicate", "conflict", "dead")
    found["ledger"] = dict(zip(names, map(int, sums), strict=True))
    outcomes = clickhouse.query(
        f"SELECT toString(outcome), count() FROM {DATABASE}.event_outcomes FINAL GROUP BY outcome"
    )
    found["outcomes"] = {str(name): int(count) for name, count in outcomes}
    return found


def assert_balanced(found: Mapping[str, Any]) -> None:
    """What must hold of any store that was loaded to the log's end, whatever happened before."""
    for name in (
        "repeated_keys",
        "keys_without_event",
        "events_without_key",
        "positions_with_two_outcomes",
        "records_out_of_balance",
        "records_miscounted",
    ):
        assert found[name] == 0, (name, found)
    ledger = found["ledger"]
    assert ledger["stored"] == found["events"] == found["keys"]
    for outcome in ("duplicate", "conflict", "dead"):
        assert ledger[outcome] == found["outcomes"].get(outcome, 0)
    assert ledger["accepted"] == sum(v for k, v in ledger.items() if k != "accepted")


class _Countdown:
    """Kills this process at the n-th pass of a point."""

    def __init__(self, fault: str) -> None:
        _, self.when, self.place, number, file = fault.split(":")
        self.left, self.file = int(number), Path(file)

    def pass_by(self, when: str, place: str) -> None:
        if (when, place) == (self.when, self.place) and self.file.exists():
            self.left -= 1
            if not self.left:
                os.kill(os.getpid(), signal.SIGKILL)


def _kill_at(fault: str) -> None:
    point = _Countdown(fault)
    insert, release = ClickHouse.insert, SegmentLog.release

    def insert_or_die(self: ClickHouse, table: str, columns: Sequence[str], rows: bytes) -> None:
        point.pass_by("before", table)
        insert(self, table, columns, rows)
        point.pass_by("after", table)

    def release_or_die(
        self: SegmentLog, partition: int, through: int, reader: str = LOADER
    ) -> None:
        point.pass_by("before", "release")
        release(self, partition, through, reader)
        point.pass_by("after", "release")

    ClickHouse.insert = insert_or_die  # type: ignore[method-assign]
    SegmentLog.release = release_or_die  # type: ignore[method-assign]


def _away_while(file: Path) -> None:
    insert = ClickHouse.insert

    def insert_if_there(self: ClickHouse, table: str, columns: Sequence[str], rows: bytes) -> None:
        if file.exists():
            raise Transient("ClickHouse: simulated: connection refused")
        insert(self, table, columns, rows)

    ClickHouse.insert = insert_if_there  # type: ignore[method-assign]


def main(arguments: list[str]) -> int:
    """See the module."""
    fault, rest = arguments[0], arguments[1:]
    if fault == "inspect":
        with ClickHouse(path=Path(rest[0]) / "clickhouse") as clickhouse:
            print(json.dumps(question_all(clickhouse)))
        return 0
    if fault.startswith("kill:"):
        _kill_at(fault)
    elif fault.startswith("away:"):
        _away_while(Path(fault.removeprefix("away:")))
    from tollgate.platform.up import main as up

    return up(rest)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
