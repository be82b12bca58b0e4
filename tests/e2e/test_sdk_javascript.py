"""OpenMeter's published JavaScript client, unmodified: only the base URL is ours."""

import fcntl
import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.server import Server

pytestmark = pytest.mark.e2e

SDK = Path(__file__).parent / "sdk"
NOON, ONE, TWO = (f"2026-03-10T{hour}:00:00.000Z" for hour in (12, 13, 14))
SEEN = {
    "created": [True, "SUM", True],
    "found": True,
    "listed": True,
    "ingested": [None, None],
    "total": [[None, None, 7]],
    "byModel": [[None, "a", 5], [None, "b", 2]],
    "ofBob": [["bob", None, 4]],
    "filtered": [[None, None, 5]],
    "hours": [[NOON, ONE, 3], [ONE, TWO, 4]],
    "posted": [[None, "b", 2]],
    "advanced": [[None, None, 2]],
    "days": [["2026-03-09T23:00:00.000Z", "2026-03-10T23:00:00.000Z", 7]],
    "progress": [1, 0, 1],
    "meterSubjects": ["ada", "bob"],
    "csv": [
        "window_start,window_end,value",
        "2026-03-10T12:00:00Z,2026-03-10T13:00:00Z,3",
        "",
    ],
    "values": ["a", "b"],
    "events": [
        [True, "2026-03-10T12:01:00.000Z", {"tokens": 2, "model": "b"}, "@openmeter/sdk"],
        [True, NOON, {"tokens": 1, "model": "a"}, "@openmeter/sdk"],
    ],
    "page": [1, "string"],
    "sentTwice": [[None, None, 15]],  # 7 and a new 8; the 2 sent again counts no more
    "subject": [True, "Ada"],
    "subjectFound": True,
    "subjectListed": True,
    "subjectGone": {"status": 404, "title": "Not Found", "explained": True},
    "customer": [True, "EUR", True],
    "customerFound": True,
    "customerListed": [True],
    "ofCustomer": [[True, 11]],
    "customerTaken": {"status": 409, "title": "Conflict", "explained": True},
    "customerUpdated": "New",
    "customerGone": {"status": 404, "title": "Not Found", "explained": True},
    "feature": [True, ["a", "b"], {"type": "manual", "amount": "0.005"}, True],
    "featureFound": True,
    "featureListed": [True],
    "featureTaken": {"status": 409, "title": "Conflict", "explained": True},
    "featureHoldsMeter": {"status": 409, "title": "Conflict", "explained": True},
    "featureArchived": True,
    "entitled": ["metered", {"amount": 10, "priority": 1}, "2026-03-10T11:00:00.000Z"],
    "entitledTwice": {"status": 409, "title": "Conflict", "explained": True},
    "granted": [2.5, 2.5, "2126-03-10T12:00:00.000Z"],
    # Of the four two and a half were the grant's.
    "value": {"hasAccess": True, "balance": 8.5, "usage": 4, "overage": 0},
    "history": [[4, 8.5]],
    "grants": 2,
    "access": [8.5],
    "ofSubject": 4,
    "anew": 0,
    "config": "{}",
    "noRight": {"hasAccess": False},
    "updated": "Renamed",
    "conflict": {"status": 409, "title": "Conflict", "explained": True},
    "refusedMeter": {"status": 400, "title": "Bad Request", "explained": True},
    "refusedQuery": {"status": 400, "title": "Bad Request", "explained": True},
    "meterGone": {"status": 404, "title": "Not Found", "explained": True},
    "refused": {"status": 400, "title": "Bad Request", "explained": True},
}


def run(*command: str) -> str:
    """Standard output of a command that must succeed."""
    done = subprocess.run(
        command, cwd=SDK, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def node() -> str:
    """The `node` command, with the client installed beside the script; done once per lock file."""
    found, installer = shutil.which("node"), shutil.which("npm")
    if found is None or installer is None:
        pytest.skip("NOT PROVEN HERE: Node.js and npm are missing, so no JavaScript client was run")
    wanted = hashlib.sha256((SDK / "package-lock.json").read_bytes()).hexdigest()
    stamp = SDK / "node_modules" / ".installed"
    # Two runs of the suite in one clone would otherwise take each other's files away.
    with (SDK / "package.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_text() != wanted:
            run(installer, "ci")
            stamp.write_text(wanted)
    return found


@pytest.mark.parametrize("key", [(), ("any",)], ids=["without a key", "with a key"])
def test_the_client_works_with_only_its_base_url_changed(
    server: Server, node: str, key: tuple[str, ...]
) -> None:
    seen: dict[str, Any] = json.loads(run(node, "usage.mjs", server.url, *key))
    assert seen == SEEN
