"""What is reported of others, or said by them to be so, and must not happen here.

https://github.com/openmeterio/openmeter/issues/5118: an event whose write failed, sent again, was
counted zero times and answered as success. (More of OpenMeter's: tests/property.)
https://docs.flexprice.io/docs/core-concepts/usage-events/idempotency: the same id with another time
is another event, so that a retry without a time is counted twice.
"""

import asyncio
import errno
from decimal import Decimal

import pytest

from tests.support.disks import FaultyDisk
from tests.support.loading import NewStage, load_all
from tests.support.server import Server
from tests.support.usage import Usage, event, fresh
from tollgate.core.errors import Transient
from tollgate.events.ingest import Ingest, IngestLimits
from tollgate.platform.segment_log import SegmentLog

pytest_plugins = ["tests.support.stages"]
_LIMITS = IngestLimits(
    event_bytes_max=1 << 20,
    batch_events_max=100,
    record_bytes_max=1 << 20,
    pending_bytes_max=1 << 20,
    log_bytes_max=1 << 30,
)


@pytest.fixture
def usage(server: Server) -> Usage:
    return Usage(server)


async def _send_until_taken(log: SegmentLog, disk: FaultyDisk, namespace: str, body: bytes) -> None:
    """Sends; the disk fails the first time; sends the same again."""
    ingest = Ingest(log, log._clock, _LIMITS)
    disk.refusal = OSError(errno.EIO, "simulated")
    with pytest.raises(Transient):
        await ingest.take(namespace, "application/cloudevents-batch+json", body)
    accepted = await ingest.take(namespace, "application/cloudevents-batch+json", body)
    assert accepted.count == 2
    await ingest.drain()


@pytest.mark.parametrize("keeps", [0, 40, 1 << 20], ids=["nothing", "a part", "all of it"])
def test_openmeter_5118_an_event_retried_after_a_failed_write_counts_once(
    stages: NewStage, keeps: int
) -> None:
    """Whatever of the first write has reached the disk."""
    disk = FaultyDisk()
    disk.keeps = keeps
    with stages(disk) as stage:
        loader = stage.loader()
        body = f"[{event('{}', id='a', type='t')},{event('{}', id='b', type='t')}]".encode()
        asyncio.run(_send_until_taken(stage.log, disk, stage.namespace, body))
        load_all(loader, stage.log.read(0, -1, 1 << 20))
        assert len(stage.stored()) == len(stage.claims()) == 2
        accepted, stored, duplicate, *_ = map(sum, zip(*stage.ledger().values(), strict=True))
        assert (stored, accepted) == (2, 2 + duplicate)


@pytest.mark.e2e
@pytest.mark.parametrize(
    "times", [("2026-03-10", "2026-03-11"), ("2026-03-10", None), (None, None)]
)
def test_flexprice_the_same_id_with_another_time_counts_once(
    usage: Usage, times: tuple[str | None, str | None]
) -> None:
    meter, name = usage.meter(), fresh("id")
    for day in times:
        time = f'"time":"{day}T12:00:00Z",' if day else ""
        usage.send(
            f'{{{time}"specversion":"1.0","id":"{name}","source":"s","subject":"u","data":{{"v":3}}}}'
        )
    assert usage.values(meter) == [Decimal(3)]
