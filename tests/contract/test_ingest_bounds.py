"""Who may send to ingest, and how much: each refusal has its own status."""

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.ingest import MANY, ONE, PLAIN, V1, V3, event, faults, post, problem
from tests.support.server import Server
from tollgate.events.position import HEADER

pytestmark = pytest.mark.e2e

KEYS = """
- {key: "tg_sender_%(secret)s", namespace: acme, scopes: [ingest]}
- {key: "tg_reader_%(secret)s", namespace: acme, scopes: [read]}
- {key: "tg_other_%(secret)s", namespace: other, scopes: [admin]}
"""
SECRET = "0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A product with keys and narrow bounds."""
    folder = tmp_path_factory.mktemp("strict")
    keys = Path(folder / "keys.yaml")
    keys.write_text(KEYS % {"secret": SECRET})
    settings = {
        "TOLLGATE_KEYS_FILE": str(keys),
        "TOLLGATE_HOST": "127.0.0.1",
        "TOLLGATE_BATCH_EVENTS_MAX": "3",
        "TOLLGATE_EVENT_BYTES_MAX": "1000",
        "TOLLGATE_BODY_BYTES_MAX": "20000",
    }
    with Server(folder / "data", settings=settings) as running:
        yield running


def bearer(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer tg_{name}_{SECRET}"}


class TestAccessAndBounds:
    @pytest.mark.parametrize("path", [V1, V3])
    def test_who_may_send(self, strict: Server, path: str) -> None:
        missing = post(strict, event(), ONE, path)
        problem(missing, 401)
        assert missing.headers["www-authenticate"].startswith("Bearer")
        wrong = {"authorization": f"Bearer tg_sender_{SECRET[::-1]}"}
        problem(post(strict, event(), ONE, path, wrong), 401)
        problem(post(strict, event(), ONE, path, bearer("reader")), 403)
        assert post(strict, event(), ONE, path, bearer("sender")).is_success
        assert post(strict, event(), ONE, path, bearer("other")).is_success

    def test_a_namespace_sees_its_own_events_only(self, strict: Server) -> None:
        sent = event()
        answer = post(strict, sent, ONE, V1, bearer("sender"))
        for name, status in (("reader", 200), ("other", 404)):
            found = strict.http.get(
                "/api/v1/events/lookup",
                params={"source": sent["source"], "id": sent["id"]},
                headers=bearer(name) | {HEADER: answer.headers[HEADER]},
            )
            assert found.status_code == status

    def test_the_count_of_a_batch(self, strict: Server) -> None:
        assert post(strict, [event()] * 3, MANY, V1, bearer("sender")).status_code == 204
        bodies: list[list[object]] = [[event()] * 4, [0] * 4, [{}] * 4]
        for body in bodies:
            refused = problem(post(strict, body, MANY, V1, bearer("sender")), 413)
            assert "TOLLGATE_BATCH_EVENTS_MAX" in refused["detail"]
        refused = problem(post(strict, [event()] * 4, PLAIN, V3, bearer("sender")), 413)
        assert "at most 3" in refused["detail"]

    def test_the_size_of_an_event(self, strict: Server) -> None:
        large = event(data={"text": "x" * 1000})
        answer = post(strict, [event(), large], MANY, V1, bearer("sender"))
        assert faults(answer) == {("[1]", "event_too_large")}
        partly = post(strict, [event(), large], MANY, V1 + "?partial=true", bearer("sender"))
        assert partly.json()["accepted"] == 1
        assert post(strict, event(data={"t": "x" * 400}), ONE, V1, bearer("sender")).is_success

    def test_the_size_of_a_body(self, strict: Server) -> None:
        body = json.dumps(event()).encode()
        padded = body + b" " * (20_000 - len(body))
        assert post(strict, padded, ONE, V1, bearer("sender")).status_code == 204
        problem(post(strict, padded + b" ", ONE, V1, bearer("sender")), 413)
        packed = bearer("sender") | {"content-encoding": "gzip"}
        assert post(strict, gzip.compress(padded), ONE, V1, packed).status_code == 204
        problem(post(strict, gzip.compress(padded + b" "), ONE, V1, packed), 413)

    def test_a_body_without_length_is_bounded_too(self, strict: Server) -> None:
        def pieces() -> Iterator[bytes]:
            yield from [b" " * 5000] * 5

        headers = bearer("sender") | {"content-type": ONE}
        problem(strict.http.post(V1, content=pieces(), headers=headers), 413)


def test_a_full_log_is_503_and_says_when_to_come_back(new_server: Callable[..., Server]) -> None:
    server = new_server({"TOLLGATE_LOG_BYTES_MAX": "1", "TOLLGATE_FUNCTION": "ingest"})
    server.start()
    sent = event()
    # Nothing loads here, so what was stored stays: the second request finds the log full.
    assert post(server, sent).status_code == 204
    for path in (V1, V3):
        answer = post(server, event(), ONE, path)
        assert "nothing of this request was stored" in problem(answer, 503)["detail"]
        assert int(answer.headers["retry-after"]) > 0
