"""Corrections in bulk and backfills over HTTP: dry run, confirmed run, close and revert."""

import json
from typing import Any

import httpx
import pytest

from tests.contract.test_corrections import AGGREGATIONS, Desk
from tests.support.own_models import held
from tests.support.server import Server

NOTHING = dict.fromkeys(AGGREGATIONS, "")


class Office(Desk):
    """A desk that corrects many events at once."""

    def ask(self, operation: str, method: str, path: str, body: Any = None) -> httpx.Response:
        answer = self.http.request(method, f"/api/v1/{path}", json=body, headers=self.position)
        held(operation, answer)
        if "tollgate-position" in answer.headers:
            self._note(answer)
        return answer

    def ok(self, operation: str, method: str, path: str, body: Any = None) -> dict[str, Any]:
        answer = self.ask(operation, method, path, body)
        assert answer.is_success, answer.text
        found: dict[str, Any] = answer.json()
        return found

    @property
    def filter(self) -> dict[str, Any]:
        return {"types": [self.type], "from": "2026-03-01T10:00:00Z", "to": "2026-03-01T10:10:00Z"}

    def bulk(self, **more: Any) -> httpx.Response:
        body = {"name": self.name, "reason": "a broken counter", "filter": self.filter} | more
        return self.ask("voidEventsInBulk", "POST", "corrections/bulk", body)

    @property
    def name(self) -> str:
        return f"op-{self.type}"

    def state(self) -> dict[str, Any]:
        return self.ok("getBackfill", "GET", f"backfills/{self.name}")


@pytest.fixture
def office(server: Server) -> Office:
    return Office(server)


def effects(answer: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """By aggregation: totals before and after, as text; "" for none."""
    found = json.loads(json.dumps(answer), parse_float=str, parse_int=str)["effect"]["meters"]
    return {m["aggregation"]: (m["before"] or "", m["after"] or "") for m in found}


def test_a_dry_run_says_what_the_run_does_and_a_revert_undoes_it(office: Office) -> None:
    # Ten events, four of them in the window; values with ties for every aggregation.
    minutes = (1, 2, 3, 4, 11, 12, 13, 14, 15, 16)
    office.send(*(office.event(str(n), str(n % 6), m) for n, m in enumerate(minutes)))
    office.correct(office.void("0"))
    before = office.totals()
    in_window = {"from": "2026-03-01T10:00:00Z", "to": "2026-03-01T10:10:00Z"}
    window = office.totals(**in_window)
    planned = office.bulk(dryRun=True).json()
    assert (planned["state"], planned["effect"]["events"]) == ("planned", 3)
    assert [e["id"] for e in planned["effect"]["sample"]] == ["1", "2", "3"]
    assert effects(planned) == {name: (window[name], "") for name in AGGREGATIONS}
    assert office.ask("getBackfill", "GET", f"backfills/{office.name}").status_code == 404

    assert office.bulk().status_code == 400
    assert office.bulk(confirm=4).status_code == 409
    assert office.totals() == before
    done = office.bulk(confirm=3).json()
    assert (done["state"], done["total"], done["done"]) == ("closed", 3, 3)
    assert office.totals(**in_window) == NOTHING
    # By hand: 4, 5, 0, 1, 2, 3 are left.
    assert office.totals() == dict(
        zip(AGGREGATIONS, ("15", "6", "2.5", "0", "5", "6", "3"), strict=True)
    )
    assert office.state()["voided"] == 3
    # Again: nothing more; under the name with other words: refused.
    assert office.bulk(confirm=3).json()["state"] == "closed"
    assert office.bulk(confirm=3, reason="another").status_code == 409
    listed = office.listed(operation=office.name)
    assert {(c["id"], c["action"], c["effect"]) for c in listed} == {
        (str(n), "void", "applied") for n in (1, 2, 3)
    }

    # What a person has corrected since stays as it is.
    office.correct(office.amend("3", office.event("3", "100", 4)))
    reverted = office.ok(
        "revertBackfill", "POST", f"backfills/{office.name}/revert", {"reason": "was right"}
    )
    assert (reverted["state"], reverted["revertReason"]) == ("reverted", "was right")
    assert office.totals(**in_window)["SUM"] == "103"
    assert office.look("1")["state"] == "amended"
    office.correct(office.amend("3", office.event("3", "3", 4)))
    assert office.totals() == before


def backfill(office: Office) -> None:
    body = {"name": office.name, "reason": "the collector was down", "filter": office.filter}
    opened = office.ask("openBackfill", "POST", "backfills", body)
    assert opened.status_code == 201, opened.text
    assert office.ok("openBackfill", "POST", "backfills", body)["state"] == "open"
    assert (
        office.ask("openBackfill", "POST", "backfills", body | {"reason": "x"}).status_code == 409
    )


def test_a_backfill_counts_once_it_is_closed_and_can_be_taken_back(office: Office) -> None:
    office.send(*(office.event(f"old-{n}", str(n), n) for n in range(1, 4)))
    office.send(office.event("later", "50", 30))
    before = office.totals()
    backfill(office)
    mine = {"tollgatebackfill": office.name}
    office.send(*(office.event(f"new-{n}", str(10 * n), n, **mine) for n in range(1, 5)))
    assert office.totals() == before
    assert office.look("new-1")["state"] == "held"
    assert office.state()["held"] == 4

    planned = office.ok("closeBackfill", "POST", f"backfills/{office.name}/close", {"dryRun": True})
    assert (planned["effect"]["voided"], planned["effect"]["released"]) == (3, 4)
    window = {"from": "2026-03-01T10:00:00Z", "to": "2026-03-01T10:10:00Z"}
    old = office.totals(**window)
    closed = office.ok("closeBackfill", "POST", f"backfills/{office.name}/close", {"confirm": 7})
    assert (closed["state"], closed["done"]) == ("closed", 7)
    new = office.totals(**window)
    assert effects(planned) == {name: (old[name], new[name]) for name in AGGREGATIONS}
    assert new["SUM"] == "100"
    found = office.look("new-1")
    assert (found["state"], found["event"]["tollgatebackfill"]) == ("amended", office.name)
    assert office.state()["givenBack"] == 4

    # What comes after the close waits for the next one, which takes no more away.
    office.send(office.event("old-5", "7", 5), office.event("new-5", "1", 5, **mine))
    assert office.totals(**window)["SUM"] == "107"
    again = office.ok("closeBackfill", "POST", f"backfills/{office.name}/close", {"confirm": 1})
    assert again["state"] == "closed"
    assert office.totals(**window)["SUM"] == "108"

    reverted = office.ok(
        "revertBackfill", "POST", f"backfills/{office.name}/revert", {"reason": "wrong file"}
    )
    assert (reverted["state"], reverted["done"]) == ("reverted", 8)
    office.correct(office.void("old-5"))
    assert office.totals() == before
    path = f"backfills/{office.name}/close"
    assert office.ask("closeBackfill", "POST", path, {"confirm": 0}).status_code == 409
    names = [b["name"] for b in office.ok("listBackfills", "GET", "backfills?limit=1")["items"]]
    assert names == [office.name]


def test_a_backfill_that_nobody_can_have_is_refused(office: Office) -> None:
    event = office.event("1", "1", 1, tollgatebackfill="Not A Name")
    answer = office.http.post(
        "/api/v1/events", content=event, headers={"content-type": "application/cloudevents+json"}
    )
    assert answer.status_code == 400
    assert "tollgatebackfill" in answer.text
    body = {"name": office.name, "reason": "r", "filter": {}}
    assert office.ask("openBackfill", "POST", "backfills", body).status_code == 400
    swapped = {"from": "2026-03-02T00:00:00Z", "to": "2026-03-01T00:00:00Z"}
    assert office.bulk(dryRun=True, filter=swapped).status_code == 400
    assert office.ask("getBackfill", "GET", "backfills/nobody").status_code == 404


def test_many_events_go_in_pieces(office: Office) -> None:
    """More than a piece of 2000 to take away and more than one of 500 to give back."""
    count = 2100
    office.send(*(office.event(str(n), "1", n % 10) for n in range(count)))
    assert office.totals()["COUNT"] == str(count)
    done = office.bulk(confirm=count).json()
    assert (done["state"], done["done"]) == ("closed", count)
    assert office.totals() == NOTHING
    path = f"backfills/{office.name}/revert"
    assert office.ok("revertBackfill", "POST", path, {"reason": "r"})["state"] == "reverted"
    assert office.totals()["COUNT"] == str(count)
    assert office.state()["givenBack"] == count
