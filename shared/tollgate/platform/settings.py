"""The one reader of the environment. Every setting has a unit, a default and a check."""

import ipaddress
import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from tollgate.core.errors import Fault, InvalidInput

PREFIX = "TOLLGATE_"
_DAY_SECONDS = 86_400
_Bytes = Annotated[int, Field(gt=0, le=1 << 40)]


def _divides_a_day(seconds: int) -> int:
    if _DAY_SECONDS % seconds:
        raise ValueError("a day must be a multiple of it")
    return seconds


class LoadMode(StrEnum):
    """How the loader of a Kafka log works: for ever, or from a ring until all is quiet."""

    CONSUME = "consume"
    DOORBELL = "doorbell"


class Settings(BaseModel):
    """All settings; a field `x_y` is read from `TOLLGATE_X_Y`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    port: Annotated[int, Field(ge=0, le=65535, description="TCP port to listen on")] = 8888
    host: Annotated[
        str, Field(description="address to bind; without any key only loopback is allowed")
    ] = ""
    data: Annotated[
        Path,
        Field(description="folder of embedded parts and of the control plane's last state"),
    ] = Path(".data")
    meters: Annotated[Path | None, Field(description="meters.yaml, upserted at start")] = None
    keys_file: Annotated[
        Path | None, Field(description="YAML list of access keys: {key, namespace, scopes}")
    ] = None
    function: Annotated[
        str, Field(description="which function the host serves; empty: all of them")
    ] = ""
    log_url: Annotated[
        str,
        Field(
            description="event log: kafka://host:port[,host:port...]/topic-prefix, file:///folder;"
            " empty: in the data folder"
        ),
    ] = ""
    log_development: Annotated[
        bool, Field(description="Kafka: allow fewer than 3 replicas or 2 in sync: data can be lost")
    ] = False
    log_group: Annotated[
        str, Field(description="Kafka: consumer group of the loaders; empty: <topic-prefix>.load")
    ] = ""
    log_client_file: Annotated[
        Path | None,
        Field(description="Kafka: client settings `name=value`, a line each: TLS and SASL"),
    ] = None
    log_partitions: Annotated[
        int, Field(ge=1, le=1000, description="Kafka: partitions of a layout that is created")
    ] = 2
    log_replicas: Annotated[
        int, Field(ge=1, le=15, description="Kafka: replicas of each partition when created")
    ] = 3
    log_retention_hours: Annotated[
        int, Field(ge=1, le=876_000, description="Kafka: how long a created topic keeps records")
    ] = 168
    log_retention_margin_seconds: Annotated[
        int,
        Field(
            ge=0,
            le=31_536_000,
            description="Kafka: how long before the oldest unloaded record is deleted ingest"
            " answers 503",
        ),
    ] = 86_400
    log_ack_seconds: Annotated[
        int, Field(ge=1, le=300, description="Kafka: how long an append may take; beyond: 503")
    ] = 10
    log_compression: Annotated[
        str, Field(pattern="^(none|lz4|zstd)$", description="Kafka: how ingest packs records")
    ] = "none"
    clickhouse_url: Annotated[
        str, Field(description="ClickHouse over HTTP; empty: the engine in this process")
    ] = ""
    database_url: Annotated[
        str, Field(description="control plane; empty: SQLite in the data folder")
    ] = ""
    objects_url: Annotated[
        str,
        Field(
            description="object storage, where records are archived: file:///folder,"
            " s3://[key:secret@]host[:port]/bucket[/prefix][?secure=false][&region=name];"
            " empty: nothing is archived",
            repr=False,
        ),
    ] = ""
    objects_credentials_file: Annotated[
        Path | None,
        Field(description="S3: the key and its secret, a line each; wins over the URL's"),
    ] = None
    archive_events_max: Annotated[
        int, Field(ge=1, le=10_000_000, description="events in one file of the archive")
    ] = 250_000
    archive_seconds: Annotated[
        int,
        AfterValidator(_divides_a_day),
        Field(
            ge=1,
            le=86_400,
            description="time of appending that one file of the archive covers; divides a day",
        ),
    ] = 600
    body_bytes_max: Annotated[_Bytes, Field(description="request body, unpacked")] = 16 << 20
    event_bytes_max: Annotated[_Bytes, Field(description="one event as the log keeps it")] = (
        256 << 10
    )
    batch_events_max: Annotated[
        int, Field(ge=1, le=1_000_000, description="events in one request")
    ] = 10_000
    record_bytes_max: Annotated[_Bytes, Field(description="one record of the log")] = 1 << 20
    pending_bytes_max: Annotated[
        _Bytes, Field(description="events that wait for the log in memory; beyond: 503")
    ] = 64 << 20
    log_bytes_max: Annotated[
        _Bytes, Field(description="records stored and not yet loaded and archived; beyond: 503")
    ] = 4 << 30
    load_events_max: Annotated[
        int, Field(ge=1, le=1_000_000, description="events in one load batch")
    ] = 200_000
    load_wait_ms: Annotated[
        int,
        Field(
            ge=0,
            le=60_000,
            description="how long a load batch is gathered; up to twice that when writing is slow",
        ),
    ] = 200
    load_dead_letters_max: Annotated[
        int,
        Field(
            ge=0,
            description="dead letters in an hour of a partition; with more, loading stops until a"
            " person has looked",
        ),
    ] = 1000
    load_mode: Annotated[
        LoadMode, Field(description="loader on Kafka: consume for ever, or wait for the doorbell")
    ] = LoadMode.CONSUME
    load_ring_seconds: Annotated[
        int, Field(ge=1, le=3600, description="how long a ring may take to be loaded; beyond: 503")
    ] = 25
    load_idle_seconds: Annotated[
        int,
        Field(ge=0, le=3600, description="without a ring, before the doorbell leaves the group"),
    ] = 5
    dedupe_window_days: Annotated[
        int, Field(ge=0, le=3650, description="how long an event key is claimed; 0: for ever")
    ] = 35
    seal_lateness_seconds: Annotated[
        int,
        Field(
            ge=0,
            le=31_536_000,
            description="how long after its end an hour still takes events before it is sealed",
        ),
    ] = 3600
    query_threads: Annotated[int, Field(ge=1, le=256, description="queries at the same time")] = 8
    query_rows_max: Annotated[
        int, Field(ge=1, le=10_000_000, description="rows of one meter query; beyond: 400")
    ] = 100_000
    query_seconds_max: Annotated[
        int, Field(ge=1, le=3600, description="how long one query may run")
    ] = 60
    position_wait_ms: Annotated[
        int, Field(ge=0, le=60_000, description="how long a query waits for its position token")
    ] = 5_000
    notify_private_addresses: Annotated[
        bool,
        Field(
            description="webhooks may go to private and loopback addresses: development only, for"
            " whoever makes a channel then reaches what this machine reaches"
        ),
    ] = False
    notify_retention_days: Annotated[
        int,
        Field(
            ge=0,
            le=36_500,
            description="how long notification events and their deliveries are kept; 0: for ever",
        ),
    ] = 90
    notify_log: Annotated[
        bool,
        Field(
            description="notification events are appended to the event log too, as events of type"
            " tollgate.<type>; false: those written from then on are not"
        ),
    ] = True
    drain_seconds: Annotated[
        int, Field(ge=0, le=600, description="how long requests may go on after SIGTERM")
    ] = 25
    log_level: Annotated[
        str, Field(pattern="^(debug|info|warning|error)$", description="lowest level written")
    ] = "info"

    @property
    def host_is_loopback(self) -> bool:
        """Whether an address to bind is given, and only this machine can reach it."""
        try:
            return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def clickhouse_path(self) -> Path:
        """Folder of the embedded engine."""
        return self.data / "clickhouse"

    @property
    def log_path(self) -> Path:
        """Folder of the embedded event log."""
        return self.data / "log"

    @property
    def sql_url(self) -> str:
        """SQLAlchemy URL of the control plane."""
        return self.database_url or f"sqlite:///{self.data / 'control.sqlite'}"


def read_settings(
    environment: Mapping[str, str] | None = None, overrides: Mapping[str, object] | None = None
) -> Settings:
    """Reads the settings, all faults at once.

    Args:
        environment: names and values; the process's own if None.
        overrides: fields given by the command line, which win.

    Raises:
        InvalidInput: one fault per wrong setting, under the name a person sets.
    """
    source = os.environ if environment is None else environment
    values: dict[str, object] = {
        name: source[key]
        for name in Settings.model_fields
        if (key := PREFIX + name.upper()) in source
    }
    values |= {k: v for k, v in (overrides or {}).items() if v is not None}
    try:
        return Settings.model_validate({k: v for k, v in values.items() if v != ""})
    except ValidationError as problem:
        raise InvalidInput(
            tuple(
                Fault(
                    field=PREFIX + str(error["loc"][0]).upper(),
                    code="invalid_setting",
                    message=f"{error['msg']} (it is {error['input']!r})",
                )
                for error in problem.errors()
            )
        ) from None


class ClientSettings(BaseModel):
    """What the `tollgate` command reads."""

    model_config = ConfigDict(frozen=True)

    url: str = "http://localhost:8888"
    key: Annotated[str, Field(description="access key, tg_...", repr=False)] = ""


def read_client_settings(environment: Mapping[str, str] | None = None) -> ClientSettings:
    """`TOLLGATE_URL` and `TOLLGATE_KEY`."""
    source = os.environ if environment is None else environment
    found = {n: source[k] for n in ("url", "key") if source.get(k := PREFIX + n.upper())}
    return ClientSettings.model_validate(found)
