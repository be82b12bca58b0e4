"""The API document of the product: `python -m tollgate.console.document` writes it anew.

It is a file, so that the console needs nothing of what the other functions import; a test
fails when it says other than the code.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tollgate.platform.paths import INFRA

if TYPE_CHECKING:
    from tollgate.platform.api import Operation

DOCUMENT = INFRA / "openapi" / "tollgate.json"


def api_operations() -> tuple["Operation", ...]:
    """The operations of every function whose service is one of operations."""
    from tollgate.customers.service import customers_operations
    from tollgate.limits.limits_service import limits_operations
    from tollgate.limits.service import entitlements_operations
    from tollgate.metering.service import usage_operations
    from tollgate.notify.service import notify_operations

    return (
        *customers_operations(),
        *entitlements_operations(),
        *limits_operations(),
        *notify_operations(),
        *usage_operations(),
    )


def make_document() -> dict[str, Any]:
    """The document of every function's operations."""
    from tollgate.console.service import OPERATIONS as CONSOLE
    from tollgate.events.operations import OPERATIONS as INGEST
    from tollgate.platform.openapi import openapi_document

    return openapi_document((*INGEST, *api_operations(), *CONSOLE))


def document_text() -> str:
    """The document as the file has it."""
    return json.dumps(make_document(), indent=1, ensure_ascii=False) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Writes the file. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tollgate.console.document", description=__doc__
    )
    parser.add_argument("--out", type=Path, default=DOCUMENT, help="the file to write")
    path: Path = parser.parse_args(arguments).out
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document_text(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
