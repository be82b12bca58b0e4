"""Sends usage to a running Tollgate as a newcomer would, and reads it back: exact, counted once.

Needs nothing but Python. Ends with status 1 and says why if a step fails or takes too long.
"""

import argparse
import json
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Sequence
from decimal import Decimal

TIMEOUT_SECONDS = 10
POLL_SECONDS = 0.05


class SmokeError(Exception):
    """A step of the smoke test did not go as promised."""


def call(method: str, url: str, body: object = None, content_type: str = "application/json") -> str:
    """Sends one request and returns the body of its answer.

    Raises:
        SmokeError: no answer, or one other than 2xx.
    """
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(  # noqa: S310 - the URL is the caller's own
        url, data=data, method=method, headers={"Content-Type": content_type}
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310
            text: str = answer.read().decode()
            return text
    except urllib.error.HTTPError as error:
        reason = error.read().decode(errors="replace")
        raise SmokeError(f"{method} {url} answered {error.code}: {reason}") from error
    except OSError as error:
        raise SmokeError(f"{method} {url} got no answer: {error}") from error


def wait_until(what: str, seconds: int, attempt: Callable[[], str]) -> None:
    """Repeats an attempt until it returns "", which says that nothing is wrong.

    Raises:
        SmokeError: something still was when the time was over.
    """
    deadline = time.monotonic() + seconds
    problem = "not tried"
    while time.monotonic() < deadline:
        try:
            problem = attempt()
        except SmokeError as error:
            problem = str(error)
        if not problem:
            return
        time.sleep(POLL_SECONDS)  # noqa: TID251 - a client outside has nothing to wait on
    raise SmokeError(f"{what}: not within {seconds} s; {problem}")


def smoke(url: str, start_seconds: int, visible_seconds: int) -> None:
    """Makes a meter, sends one event, then three with it among them, and waits for their sum."""

    def readiness() -> str:
        call("GET", f"{url}/readyz")
        return ""

    wait_until("ready", start_seconds, readiness)
    name = f"smoke_{uuid.uuid4().hex[:12]}"
    meter = {"slug": name, "eventType": name, "aggregation": "SUM", "valueProperty": "$.amount"}
    call("POST", f"{url}/api/v1/meters", meter)
    # In binary floating point these add up to 0.6000000000000001.
    amounts = ("0.1", "0.2", "0.3")
    expected = sum(map(Decimal, amounts))
    events = [event(name, str(index), amount) for index, amount in enumerate(amounts)]
    call("POST", f"{url}/api/v1/events", events[0], "application/cloudevents+json")
    call("POST", f"{url}/api/v1/events", events, "application/cloudevents-batch+json")
    sent_at = time.monotonic()

    def total() -> str:
        text = call("GET", f"{url}/api/v1/meters/{name}/query")
        rows = json.loads(text, parse_float=Decimal, parse_int=Decimal)["data"]
        return "" if [row["value"] for row in rows] == [expected] else f"the meter says {text}"

    wait_until(f"a total of {expected}", visible_seconds, total)
    visible_ms = round((time.monotonic() - sent_at) * 1000)
    print(f"smoke: three events, one sent twice, make exactly {expected}, after {visible_ms} ms")


def event(kind: str, identity: str, amount: str) -> dict[str, object]:
    """Returns a CloudEvent whose amount is a number in a string: no digit can get lost."""
    return {
        "specversion": "1.0",
        "type": kind,
        "source": kind,  # of this run alone: the same ids with another type would be conflicts
        "id": identity,
        "subject": "customer-1",
        "data": {"amount": amount},
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the smoke test against the URL given on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="where Tollgate answers, as http://127.0.0.1:8888")
    parser.add_argument("--start-seconds", type=int, default=60, help="how long it may start")
    parser.add_argument("--visible-seconds", type=int, default=30, help="how long it may load")
    options = parser.parse_args(arguments)
    try:
        smoke(options.url.rstrip("/"), options.start_seconds, options.visible_seconds)
    except SmokeError as error:
        print(f"smoke: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
