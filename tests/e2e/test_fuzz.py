"""Requests made up from our own API document: no 5xx, no undeclared status, answers as described.

The generator is schemathesis' command (https://schemathesis.readthedocs.io), over real HTTP, with a
fixed seed. `TOLLGATE_FUZZ_EXAMPLES` raises the number of examples for each operation.
"""

import re
import subprocess
import sys
from pathlib import Path

from tests.support.server import Server, setting

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
)
REQUESTS_MIN = 1000


def test_made_up_requests_break_nothing(server: Server) -> None:
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("schemathesis")),
            "run",
            f"{server.url}/api/openapi.json",
            "--max-examples",
            setting("TOLLGATE_FUZZ_EXAMPLES", "15"),
            "--seed",
            "7",
            "--checks",
            ",".join(CHECKS),
            # Making keys would lock the generator out: keys have tests of their own.
            "--exclude-path-regex",
            "access-keys|backups",
            "--no-color",
        ],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    generated = re.search(r"(\d+) generated", done.stdout)
    assert generated, done.stdout[-2000:]
    assert int(generated[1]) >= REQUESTS_MIN
    assert server.http.get("/readyz").status_code == 200
