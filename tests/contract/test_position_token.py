"""A position token of another log is told apart from one that is not loaded yet, at once."""

import time

import pytest

from tests.support.server import Server

HEADER = "Tollgate-Position"
PATH = "/api/v1/meters/tokens_total/query"
pytestmark = pytest.mark.e2e


@pytest.mark.parametrize(
    ("token", "said"),
    [
        ("9;0:1", "names generation 9; the event log has 1"),
        ("1;0:0,7:3", "names partition 7; generation 1 has"),
    ],
)
def test_what_the_log_does_not_have_is_not_waited_for(
    server: Server, token: str, said: str
) -> None:
    began = time.monotonic()
    answer = server.http.get(PATH, headers={HEADER: token})
    assert answer.status_code == 400, answer.text
    assert said in answer.text
    assert HEADER in answer.text
    # The wait for a token that may still be loaded is five seconds.
    assert time.monotonic() - began < 2
