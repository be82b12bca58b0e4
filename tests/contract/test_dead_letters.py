"""Dead letters that a person works with: look, send again under the same key, discard."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.dead_letters import append_to_folder, unreadable
from tests.support.own_models import held
from tests.support.server import Server, wait_until

LETTERS = 6
METERS = "meters: [{slug: dead_sum, eventType: dead, aggregation: SUM, valueProperty: $.n}]\n"
UNATTRIBUTED = {"unattributed": "true"}


def body(number: int) -> bytes:
    return (
        b'{"id":"%d","source":"dead","type":"dead","subject":"s",'
        b'"data":{"n":0.100000000000000001}}' % number
    )


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("dead")
    meters = folder / "meters.yaml"
    meters.write_text(METERS)
    (folder / "data").mkdir()
    records = [unreadable(body(number)) for number in range(LETTERS)]
    append_to_folder(folder / "data", [*records, b"no record"])
    with Server(folder / "data", meters) as server:
        wait_until(lambda: len(listed(server)) == LETTERS, what="loaded")
        yield server


def listed(server: Server, **parameters: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while True:
        answer = server.http.get("/api/v1/dead-letters", params={"limit": "2"} | parameters)
        page = held("listDeadLetters", answer).json()
        found += page["items"]
        if "nextCursor" not in page:
            return found
        parameters["cursor"] = page["nextCursor"]


def letter_of(server: Server, number: int) -> dict[str, Any]:
    return next(each for each in listed(server) if each["id"] == str(number))


def post(server: Server, letter: str, action: str, content: Any, **params: str) -> httpx.Response:
    path = f"/api/v1/dead-letters/{letter}/{action}"
    if isinstance(content, str):
        headers = {"content-type": "application/json"}
        answer = server.http.post(path, content=content, headers=headers, params=params)
    else:
        answer = server.http.post(path, json=content, params=params)
    return held(f"{action}DeadLetter", answer)


def state(server: Server, number: int, headers: dict[str, str]) -> dict[str, Any]:
    params = {"source": "dead", "id": str(number)}
    answer = server.http.get("/api/v1/events/lookup", params=params, headers=headers)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json() | {"text": answer.text}
    return found


def test_each_is_shown_with_its_name_and_event(house: Server) -> None:
    for letter in listed(house):
        place = letter["position"]
        name = "-".join(str(place[n]) for n in ("generation", "partition", "offset", "index"))
        assert letter["letter"] == name
        assert letter["code"] == "unreadable_row"
        answer = held("getDeadLetter", house.http.get(f"/api/v1/dead-letters/{name}"))
        assert answer.json() == letter
        assert '"n":0.100000000000000001' in answer.text
    (record,) = listed(house, **UNATTRIBUTED)
    assert record["record"]


def test_sent_again_as_it_was_it_counts_once_with_every_digit(house: Server) -> None:
    letter = letter_of(house, 0)
    answer = post(house, letter["letter"], "replay", {"reason": "the engine reads it now"})
    assert answer.status_code == 200, answer.text
    ending = answer.json()["ending"]
    assert (ending["action"], ending["reason"]) == ("replayed", "the engine reads it now")
    position = {"tollgate-position": answer.headers["tollgate-position"]}
    assert ending["position"] == position["tollgate-position"]
    found = state(house, 0, position)
    assert found["state"] == "stored"
    assert '"n":0.100000000000000001' in found["text"]
    assert found["deadLetters"]["count"] == 1
    # It happened when it was received first.
    assert found["event"]["time"] == letter["receivedAt"]
    total = house.http.get(
        "/api/v1/meters/dead_sum/query", headers=position, params={"subject": "s"}
    )
    assert '"value":0.100000000000000001' in total.text
    again = post(house, letter["letter"], "replay", {"reason": "twice"})
    assert again.status_code == 409
    assert "was replayed at" in again.json()["detail"]
    assert (
        held("getDeadLetter", house.http.get(f"/api/v1/dead-letters/{letter['letter']}")).json()[
            "ending"
        ]
        == ending
    )


def test_what_is_given_is_what_counts(house: Server) -> None:
    letter = letter_of(house, 1)["letter"]
    fixed = (
        '{"reason":"n was wrong","event":{"id":"1","source":"dead","type":"other","subject":"s",'
        '"time":"2026-02-03T04:05:06.000007Z","data":{"n":12345678901234567890.123456789}}}'
    )
    answer = post(house, letter, "replay", fixed)
    assert answer.status_code == 200, answer.text
    found = state(house, 1, {"tollgate-position": answer.headers["tollgate-position"]})
    assert found["state"] == "stored"
    assert found["event"]["time"] == "2026-02-03T04:05:06.000007Z"
    assert '"n":12345678901234567890.123456789' in found["text"]
    assert found["event"]["type"] == "other"


@pytest.mark.parametrize(
    ("content", "field"),
    [
        ({"reason": ""}, "reason"),
        ({}, "reason"),
        ({"reason": "r", "event": {"id": "3", "source": "dead"}}, "event.id"),
        ({"reason": "r", "event": {"id": "2", "source": "s"}}, "event.source"),
        ({"reason": "r", "event": {"id": "2", "source": "dead", "type": "t"}}, "subject"),
        ({"reason": "r", "event": "text"}, "event"),
    ],
)
def test_a_wrong_repair_is_refused_and_the_letter_stays_open(
    house: Server, content: dict[str, Any], field: str
) -> None:
    letter = letter_of(house, 2)["letter"]
    answer = post(house, letter, "replay", content)
    assert answer.status_code == 400, answer.text
    faults = answer.json()["extensions"]["validationErrors"]
    assert field in [fault["field"] for fault in faults]
    assert "ending" not in letter_of(house, 2)


def test_discarded_it_is_kept_and_never_counts(house: Server) -> None:
    letter = letter_of(house, 3)["letter"]
    answer = post(house, letter, "discard", {"reason": "a test of theirs"})
    assert answer.status_code == 200, answer.text
    shown = letter_of(house, 3)
    assert shown["ending"]["action"] == "discarded"
    assert "position" not in shown["ending"]
    assert post(house, letter, "replay", {"reason": "after all"}).status_code == 409
    assert letter not in [each["letter"] for each in listed(house, open="true")]
    assert letter_of(house, 4)["letter"] in [each["letter"] for each in listed(house, open="true")]
    assert state(house, 3, {})["state"] == "dead"


def test_a_record_of_nobody_can_only_be_discarded(house: Server) -> None:
    (record,) = listed(house, **UNATTRIBUTED)
    assert post(house, record["letter"], "discard", {"reason": "x"}).status_code == 404
    refused = post(house, record["letter"], "replay", {"reason": "x"}, **UNATTRIBUTED)
    assert refused.status_code == 409
    done = post(house, record["letter"], "discard", {"reason": "sent anew"}, **UNATTRIBUTED)
    assert done.status_code == 200, done.text
    assert listed(house, **UNATTRIBUTED, open="true") == []


@pytest.mark.parametrize("name", ["1-0-999999-0", "x", "1-0-0", "1-0-0-0-0", "9" * 40])
def test_an_unknown_one_is_not_found(house: Server, name: str) -> None:
    assert house.http.get(f"/api/v1/dead-letters/{name}").status_code == 404
    assert post(house, name, "discard", {"reason": "x"}).status_code == 404


def stopped(server: Server) -> int:
    found = re.search(
        r"^tollgate_load_partitions_stopped (\d+)", server.http.get("/metrics").text, re.MULTILINE
    )
    assert found is not None
    return int(float(found[1]))


def test_over_the_rate_loading_stops_and_says_so(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    append_to_folder(data, [unreadable(body(number)) for number in range(4)])
    few = {"TOLLGATE_LOAD_DEAD_LETTERS_MAX": "3"}
    with Server(data, None, few) as server:
        wait_until(lambda: stopped(server) == 1, what="stopped")
        assert "more than 3 dead letters in an hour" in server.log.read_text()
        assert listed(server) == []
    # Who has looked raises the bound.
    with Server(data, None, {"TOLLGATE_LOAD_DEAD_LETTERS_MAX": "4"}) as again:
        wait_until(lambda: len(listed(again)) == 4, what="loaded")
        assert stopped(again) == 0
