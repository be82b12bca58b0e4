"""Records that ingest would not write, put into the log beside it."""

import threading
from pathlib import Path

from tollgate.core.clock import SystemClock
from tollgate.events.event import Arrival, decode_envelopes, encode_all
from tollgate.events.record import Encoded, Group, encode_record
from tollgate.platform.segment_log import SegmentLog


def unreadable(body: bytes) -> bytes:
    """A record with an event, its only one, whose time the engine can't read."""
    now_us = SystemClock().now_us()
    arrival = Arrival(namespace="default", received_us=now_us, event_bytes_max=10_000)
    (made,) = encode_all(decode_envelopes(body, batch=False), arrival, plain=False)
    line = made.line.replace(arrival.received_text.encode(), b"never" + b" " * 12, 1)
    assert line != made.line
    return encode_record([Group("default", now_us, [Encoded(made.key_hash, line)])])


def append_to_folder(folder: Path, records: list[bytes]) -> None:
    """Appends records to the embedded log of a data folder that nobody uses."""
    log = SegmentLog(folder / "log", SystemClock())
    done = threading.Event()
    log.submit(0, records, lambda _: done.set())
    assert done.wait(10)
    log.close()
