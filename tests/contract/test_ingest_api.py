"""Ingest over HTTP: every mode, what is kept, what is refused and how the refusal reads."""

import gzip
import json
from decimal import Decimal
from typing import Any

import pytest

from tests.support.ingest import MANY, ONE, PLAIN, V1, V3, event, faults, kept, post, problem
from tests.support.server import Server
from tollgate.core.ids import new_ulid
from tollgate.events.position import HEADER

pytestmark = pytest.mark.e2e


class TestModes:
    @pytest.mark.parametrize(("path", "status"), [(V1, 204), (V3, 202)])
    @pytest.mark.parametrize(
        "media_type",
        [
            ONE,
            ONE + "; charset=utf-8",
            "Application/CloudEvents+JSON",
            ONE + ' ;charset="UTF-8"; x=y',
            PLAIN,
            PLAIN + "; charset=utf-8",
        ],
    )
    def test_one_structured(self, server: Server, media_type: str, path: str, status: int) -> None:
        sent = event(data={"tokens": 1})
        answer = post(server, sent, media_type, path)
        assert (answer.status_code, answer.content) == (status, b"")
        shown = kept(server, answer, sent["source"], sent["id"])
        assert shown["data"] == {"tokens": 1}
        assert shown["subject"] == "acme"

    @pytest.mark.parametrize("path", [V1, V3])
    @pytest.mark.parametrize("media_type", [MANY, MANY.title() + ";a=b", PLAIN])
    def test_a_batch(self, server: Server, media_type: str, path: str) -> None:
        sent = [event(data={"n": n}) for n in range(3)]
        answer = post(server, sent, media_type, path)
        for number, each in enumerate(sent):
            shown = kept(server, answer, each["source"], each["id"])
            assert shown["data"] == {"n": number}

    @pytest.mark.parametrize("path", [V1, V3])
    def test_binary(self, server: Server, path: str) -> None:
        number = new_ulid()
        answer = post(
            server,
            b'{"tokens": 1.50}',
            "application/json; charset=utf-8",
            path,
            {
                "ce-id": f"{number}%20%C3%A9%E2%82%AC%22",
                "CE-Source": '"a \\"b\\" %41"',
                "ce-specversion": "1.0",
                "ce-type": "ingest-api",
                "ce-subject": "100%",
                "ce-time": "2026-01-31T08:30:00+01:00",
                "ce-dataschema": "https://example.com/s",
                "ce-zone": "eu",
            },
        )
        shown = kept(server, answer, 'a "b" A', f'{number} é€"')
        assert shown["subject"] == "100%"
        assert shown["time"] == "2026-01-31T07:30:00Z"
        assert shown["dataschema"] == "https://example.com/s"
        assert shown["zone"] == "eu"
        assert shown["datacontenttype"] == "application/json; charset=utf-8"
        assert shown["data"] == {"tokens": Decimal("1.5")}

    def test_binary_without_data_or_content_type(self, server: Server) -> None:
        number = new_ulid()
        headers = {f"ce-{name}": "x" for name in ("source", "type", "subject")}
        headers |= {"ce-id": number, "ce-specversion": "1.0"}
        shown = kept(server, post(server, b"", None, V1, headers), "x", number)
        assert shown.get("data") is None

    def test_binary_names_its_faults(self, server: Server) -> None:
        headers = {"ce-id": "1", "ce-specversion": "2.0", "ce-time": "soon", "ce-source": "s"}
        answer = post(server, b'{"a":1}', "text/plain", V1, headers)
        assert faults(answer) == {
            ("type", "required"),
            ("subject", "required"),
            ("specversion", "not_supported"),
            ("time", "invalid_time"),
            ("datacontenttype", "not_supported"),
        }
        answer = post(server, b"{", PLAIN, V1, {"ce-id": "%FF", "ce-specversion": "1.0"})
        assert faults(answer) == {("id", "invalid_utf8")}
        answer = post(server, b"{", PLAIN, V1, {"ce-id": "1", "ce-specversion": "1.0"})
        assert faults(answer) == {("data", "invalid_json")}

    def test_a_structured_media_type_wins_over_ce_headers(self, server: Server) -> None:
        sent = event()
        answer = post(server, sent, ONE, V1, {"ce-id": "other", "ce-specversion": "1.0"})
        kept(server, answer, sent["source"], sent["id"])

    @pytest.mark.parametrize(
        "media_type",
        ["text/plain", "application/xml", "application/cloudevents", "*/*", "x", None, ""],
    )
    def test_other_media_types(self, server: Server, media_type: str | None) -> None:
        body = problem(post(server, event(), media_type), 415)
        assert ONE in body["detail"]

    def test_one_media_type_each(self, server: Server) -> None:
        assert faults(post(server, [event()], ONE)) == {("", "wrong_shape")}
        assert faults(post(server, event(), MANY)) == {("", "wrong_shape")}


class TestEncoding:
    def test_gzip_of_one_and_of_several_members(self, server: Server) -> None:
        sent = [event(), event()]
        text = json.dumps(sent).encode()
        for packed in (gzip.compress(text), gzip.compress(text[:50]) + gzip.compress(text[50:])):
            answer = post(server, packed, MANY, V1, {"content-encoding": "gzip"})
            for each in sent:
                kept(server, answer, each["source"], each["id"])

    def test_gzip_that_is_cut_off(self, server: Server) -> None:
        packed = gzip.compress(json.dumps(event()).encode())[:-3]
        answer = post(server, packed, ONE, V1, {"content-encoding": "gzip"})
        assert faults(answer) == {("", "invalid_gzip")}

    def test_a_bomb(self, server: Server) -> None:
        bomb = gzip.compress(b" " * (64 << 20))
        problem(post(server, bomb, ONE, V1, {"content-encoding": "gzip"}), 413)

    def test_other_encodings(self, server: Server) -> None:
        problem(post(server, event(), ONE, V1, {"content-encoding": "br"}), 415)


class TestRefusals:
    def test_every_fault_of_a_batch_at_once_and_nothing_stored(self, server: Server) -> None:
        good = event()
        sent = [good, event(id="", time="x"), event(subject=None), 7, event(data=[1])]
        answer = post(server, sent, MANY)
        assert faults(answer) == {
            ("[1].id", "empty"),
            ("[1].time", "invalid_time"),
            ("[2].subject", "required"),
            ("[3]", "wrong_shape"),
            ("[4].data", "not_an_object"),
        }
        assert "event 1: id" in answer.json()["detail"]
        assert HEADER not in answer.headers
        # A later event is loaded, so an earlier one would be: the good one of the batch was not.
        later = event()
        stored = post(server, later)
        kept(server, stored, later["source"], later["id"])
        asked = {"source": good["source"], "id": good["id"]}
        position = {HEADER: stored.headers[HEADER]}
        found = server.http.get("/api/v1/events/lookup", params=asked, headers=position)
        assert found.status_code == 404

    def test_v3_names_them_its_own_way(self, server: Server) -> None:
        body = problem(post(server, [event(), event(id=None)], MANY, V3), 400)
        assert [(p["field"], p["reason"]) for p in body["invalid_parameters"]] == [
            ("[1].id", "is required")
        ]

    @pytest.mark.parametrize("name", ["id", "source", "type", "subject"])
    def test_required_attributes(self, server: Server, name: str) -> None:
        sent = event()
        absent = {k: v for k, v in sent.items() if k != name}
        assert faults(post(server, absent)) == {(name, "required")}
        assert faults(post(server, sent | {name: None})) == {(name, "required")}
        assert faults(post(server, sent | {name: ""})) == {(name, "empty")}
        assert faults(post(server, sent | {name: 1})) == {(name, "not_a_string")}
        assert faults(post(server, sent | {name: "x" * 1025})) == {(name, "too_long")}

    def test_specversion_may_be_left_out(self, server: Server) -> None:
        sent = event()
        del sent["specversion"]
        kept(server, post(server, sent), sent["source"], sent["id"])

    def test_partial(self, server: Server) -> None:
        good, last = event(), event()
        sent = [good, event(id="bad", time="x", data=1), {}, last]
        answer = post(server, sent, MANY, V1 + "?partial=true")
        assert answer.status_code == 200
        body = answer.json()
        assert body["accepted"] == 2
        found = [(r["index"], r["id"], r["field"], r["code"]) for r in body["rejected"]]
        assert found == [
            (1, "bad", "time", "invalid_time"),
            (1, "bad", "data", "not_an_object"),
            *((2, "", name, "required") for name in ("id", "source", "type", "subject")),
        ]
        assert all(each["detail"] for each in body["rejected"])
        kept(server, answer, good["source"], good["id"])
        kept(server, answer, last["source"], last["id"])

    def test_partial_of_none_and_of_all(self, server: Server) -> None:
        none = post(server, [{}], MANY, V1 + "?partial=true")
        assert (none.status_code, none.json()["accepted"]) == (200, 0)
        assert HEADER not in none.headers
        everything = post(server, [event()], MANY, V1 + "?partial=1")
        assert everything.json() == {"accepted": 1, "rejected": []}
        assert post(server, event(), ONE, V1 + "?partial=false").status_code == 204
        assert faults(post(server, event(), ONE, V1 + "?partial=maybe")) == {
            ("partial", "invalid_value")
        }
        problem(post(server, "[", MANY, V1 + "?partial=true"), 400)

    def test_the_same_id_twice_in_a_batch_is_no_fault(self, server: Server) -> None:
        sent = event()
        kept(server, post(server, [sent, sent], MANY), sent["source"], sent["id"])

    def test_an_empty_batch_stores_nothing(self, server: Server) -> None:
        answer = post(server, [], MANY)
        assert answer.status_code == 204
        assert HEADER not in answer.headers


class TestValues:
    @pytest.mark.parametrize(
        ("time", "shown"),
        [
            ("2026-01-31T08:30:00Z", "2026-01-31T08:30:00Z"),
            ("2026-01-31t08:30:00z", "2026-01-31T08:30:00Z"),
            ("2026-01-31T08:30:00.1Z", "2026-01-31T08:30:00.100000Z"),
            ("2026-01-31T08:30:00.1234569+05:30", "2026-01-31T03:00:00.123456Z"),
            ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z"),
            ("1900-01-01T00:00:00Z", "1900-01-01T00:00:00Z"),
            ("1969-12-31T23:59:59.999999Z", "1969-12-31T23:59:59.999999Z"),
            ("2299-12-31T23:59:59.999999Z", "2299-12-31T23:59:59.999999Z"),
        ],
    )
    def test_times(self, server: Server, time: str, shown: str) -> None:
        sent = event(time=time)
        assert kept(server, post(server, sent), sent["source"], sent["id"])["time"] == shown

    @pytest.mark.parametrize(
        "time",
        [
            "1899-12-31T23:59:59Z",
            "2300-01-01T00:00:00Z",
            "2026-01-31T08:30:00",
            "2026-02-29T00:00:00Z",
            "",
        ],
    )
    def test_times_that_are_none(self, server: Server, time: str) -> None:
        found = faults(post(server, event(time=time)))
        assert found == {("time", "invalid_time" if time else "empty")}

    @pytest.mark.parametrize("members", [{}, {"time": None}])
    def test_time_left_out(self, server: Server, members: dict[str, Any]) -> None:
        sent = event(**members)
        assert kept(server, post(server, sent), sent["source"], sent["id"])["time"] > "2026-"

    @pytest.mark.parametrize("data", [{}, None, ...])
    def test_data_is_optional(self, server: Server, data: object) -> None:
        sent = event() if data is ... else event(data=data)
        shown = kept(server, post(server, sent), sent["source"], sent["id"])
        assert shown.get("data") == (None if data is ... else data)

    def test_extensions_and_schema_are_kept(self, server: Server) -> None:
        more = {"dataschema": "https://example.com/s", "zone": "eu", "attempt": 2, "live": True}
        sent = event(**more, datacontenttype="application/json", gone=None)
        shown = kept(server, post(server, sent), sent["source"], sent["id"])
        assert {name: shown.get(name) for name in more} == more
        assert shown["datacontenttype"] == "application/json"
        assert "gone" not in shown

    @pytest.mark.parametrize(
        "number",
        [
            "123456789012345678.123456789012345678",
            "-0.000000000000000001",
            "9007199254740993",
            "1e400",
            "1E-400",
            "100000000000000000000000000000000000000000000000001",
            "1.50",
            "1e2",
        ],
    )
    def test_numbers_digit_for_digit(self, server: Server, number: str) -> None:
        sent = event()
        text = f'{json.dumps(sent)[:-1]},"data":{{"v":{number},"list":[{number}]}}}}'
        answer = post(server, text)
        kept(server, answer, sent["source"], sent["id"])
        asked = {"source": sent["source"], "id": sent["id"]}
        raw = server.http.get("/api/v1/events/lookup", params=asked).text
        assert f'"data":{{"v":{number},"list":[{number}]}}' in raw

    def test_a_sum_digit_for_digit(self, server: Server) -> None:
        kind, slug = f"exact-{new_ulid()}", f"exact_{new_ulid().lower()}"
        meter = {"slug": slug, "aggregation": "SUM", "eventType": kind}
        made = server.http.post("/api/v1/meters", json=meter | {"valueProperty": "$.v"})
        assert made.status_code == 201, made.text
        texts = [
            f'{json.dumps(event(type=kind))[:-1]},"data":{{"v":{value}}}}}'
            for value in ("123456789012345678.123456789012345678", "0.000000000000000001")
        ]
        answer = post(server, f"[{','.join(texts)}]", MANY)
        position = {HEADER: answer.headers[HEADER]}
        found = server.http.get(f"/api/v1/meters/{slug}/query", headers=position)
        assert '"value":123456789012345678.123456789012345679,' in found.text
