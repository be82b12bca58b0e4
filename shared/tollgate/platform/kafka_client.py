"""What every Kafka client of ours begins with: where, who, and whose error is what."""

import logging
import re
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from confluent_kafka import KafkaError, KafkaException

from tollgate.core.errors import Fault, InvalidInput, PermanentFault, TollgateError, Transient
from tollgate.platform.settings import Settings

_log = logging.getLogger(__name__)
Options = dict[str, Any]
REQUEST_SECONDS = 5
"""How long a question to the broker may take."""
RECORD_ROOM_BYTES = 1024
"""What Kafka may add to a record: head of its batch, and lengths."""
_PREFIX = re.compile(r"[a-zA-Z0-9._-]{1,200}")
# How to reach the brokers is the operator's; what is promised to a client is ours alone.
_ALLOWED = re.compile(r"(sasl|ssl|security|socket|broker|reconnect|client|enable\.ssl)\b.*")
# What the client library finds by itself it names with an underscore.
FATAL = KafkaError._FATAL  # noqa: SLF001
AUTHENTICATION = KafkaError._AUTHENTICATION  # noqa: SLF001
OFFSET_GONE = frozenset(
    (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE)  # noqa: SLF001
)
AWAY = frozenset((KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT))  # noqa: SLF001
_PERMANENT = frozenset(
    (
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        AUTHENTICATION,
        KafkaError.UNSUPPORTED_VERSION,
        KafkaError.INVALID_CONFIG,
        KafkaError.POLICY_VIOLATION,
        KafkaError.INVALID_REPLICATION_FACTOR,
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaPlace:
    """Which topics of which brokers.

    Attributes:
        brokers: `host:port`, several with commas.
        prefix: what the topics' names begin with; a generation is `<prefix>.<number>`.
        group: consumer group of the loaders; of the archivers in `archive_place`.
        watched: groups that must have been past a record before it is deleted.
        security: client settings of the operator's: TLS, SASL.
    """

    brokers: str
    prefix: str
    group: str
    watched: tuple[str, ...] = ()
    security: tuple[tuple[str, str], ...] = ()

    def topic(self, generation: int) -> str:
        """Name of a generation's topic."""
        return f"{self.prefix}.{generation}"

    def generation_of(self, topic: str) -> int | None:
        """Number of a topic's generation; None if it is none of ours."""
        head, _, number = topic.rpartition(".")
        if head != self.prefix or not number.isdecimal() or number.startswith("0"):
            return None
        return int(number)

    def options(self) -> Options:
        """Settings of any client."""
        return {
            # An operator's own choice of these stands.
            "reconnect.backoff.ms": 100,
            "reconnect.backoff.max.ms": 1000,
            "client.id": "tollgate",
            # Small requests must not wait for the answer to the one before.
            "socket.nagle.disable": True,
            "socket.keepalive.enable": True,
            **dict(self.security),
            "bootstrap.servers": self.brokers,
            "allow.auto.create.topics": False,
            "error_cb": note,
        }


def kafka_place(settings: Settings) -> KafkaPlace:
    """Reads the settings of the log.

    Raises:
        InvalidInput: the URL or the client file is not what it should be; all faults at once.
    """
    faults: list[Fault] = []
    url = urlsplit(settings.log_url)
    prefix = url.path.strip("/")
    if not url.netloc or not _PREFIX.fullmatch(prefix):
        message = (
            "must be kafka://host:port[,host:port...]/topic-prefix, the prefix of at most 200"
            f" letters, digits, dots, dashes and underscores (it is {settings.log_url!r})"
        )
        faults.append(_fault("TOLLGATE_LOG_URL", message))
    security: dict[str, str] = {}
    if settings.log_client_file is not None:
        try:
            text = settings.log_client_file.read_text()
        except OSError as problem:
            faults.append(_fault("TOLLGATE_LOG_CLIENT_FILE", f"can't be read: {problem}"))
            text = ""
        for number, line in enumerate(text.splitlines(), start=1):
            name, equals, value = (part.strip() for part in line.partition("="))
            if not name or name.startswith("#"):
                continue
            if not equals or not _ALLOWED.fullmatch(name):
                message = f"line {number}: {name!r} is not a setting of connection, TLS or SASL"
                faults.append(_fault("TOLLGATE_LOG_CLIENT_FILE", message))
            security[name] = value
    if faults:
        raise InvalidInput(tuple(faults))
    group = settings.log_group or f"{prefix}.load"
    return KafkaPlace(
        brokers=url.netloc,
        prefix=prefix,
        group=group,
        watched=(group, _archive_group(prefix)) if settings.objects_url else (group,),
        security=tuple(security.items()),
    )


def archive_place(settings: Settings) -> KafkaPlace:
    """The same log as the archivers' group reads it. Errors as in `kafka_place`."""
    place = kafka_place(settings)
    return replace(place, group=_archive_group(place.prefix))


def _archive_group(prefix: str) -> str:
    return f"{prefix}.archive"


def _fault(name: str, message: str) -> Fault:
    return Fault(field=name, code="invalid_setting", message=message)


def note(problem: KafkaError) -> None:
    """Logs what a client met by itself; it goes on trying."""
    _log.info("Kafka client", extra={"problem": str(problem)})


def fault_of(problem: KafkaError | KafkaException) -> TollgateError:
    """The one table from Kafka's errors to our kinds."""
    error = problem.args[0] if isinstance(problem, KafkaException) else problem
    if isinstance(error, KafkaError) and error.code() in _PERMANENT:
        return PermanentFault(f"Kafka refuses: {error.str()} ({error.name()})")
    return Transient(f"the event log can't answer now: {error}", retry_after_seconds=1)
