"""Generations of the log as topics: made, checked, closed. Partitions are never altered.

A generation is closed by a fence that the broker itself keeps: `max.message.bytes` so small that no
record fits, only a mark (a message without key and value). After the fence a mark is appended to
every partition: once it is acknowledged, everything before it is final and can be read, so who
finds the generation loaded to its end has all of it.
"""

import logging
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from time import monotonic
from typing import TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # it names no exports
    AdminClient,
    AlterConfigOpType,
    ClusterMetadata,
    ConfigEntry,
    ConfigResource,
)
from confluent_kafka.cimpl import NewTopic

from tollgate.core.errors import PermanentFault, Transient
from tollgate.platform.kafka_client import (
    RECORD_ROOM_BYTES,
    REQUEST_SECONDS,
    KafkaPlace,
    fault_of,
)
from tollgate.platform.settings import Settings

_log = logging.getLogger(__name__)
FENCE_BYTES = 68
"""A batch of one message without key and value has exactly so many bytes (message format 2)."""
_FENCE_SECONDS = 30
_CREATE_SECONDS = 30
_REPLICAS_MIN = 3
_IN_SYNC_MIN = 2
_RECORDS_ROOM = 4
_OR_DEVELOPMENT = "or TOLLGATE_LOG_DEVELOPMENT=true, if losing events does not matter"
_PROBE = b"this message shows whether the fence stands: it is longer than the fence lets through"
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a topic must be like.

    Attributes:
        record_bytes_max: one record, without what Kafka adds.
        development: whether records may have fewer copies than production needs.
    """

    record_bytes_max: int
    development: bool


class Topics:
    """Makes, checks and closes generations. Safe when several do it at once."""

    def __init__(self, place: KafkaPlace) -> None:
        self._place = place
        self._admin = AdminClient(place.options(), logger=_log)

    def generations(self) -> dict[int, int]:
        """Numbers of all generations, oldest first, and how many partitions each has.

        Raises:
            Transient: the brokers are away.
        """
        return generations_of(self._admin, self._place)

    def settings(self, generation: int) -> dict[str, str]:
        """A topic's settings as they act, the brokers' defaults included.

        Raises:
            Transient: the brokers are away.
            PermanentFault: they refuse to tell.
        """
        resource = ConfigResource(ConfigResource.Type.TOPIC, self._place.topic(generation))
        found = self._admin.describe_configs([resource], request_timeout=REQUEST_SECONDS)
        return {name: str(entry.value) for name, entry in _result(found[resource]).items()}

    def faults(self, generation: int, needs: Needs) -> list[str]:
        """Why the generation must not take records, for people; [] if it may.

        Raises:
            Transient, PermanentFault: as in `settings`.
        """
        topic = self._place.topic(generation)
        found = setting_faults(self.settings(generation), needs)
        if not needs.development:
            found_topic = list_topics(self._admin).topics[topic]
            replicas = min(len(p.replicas) for p in found_topic.partitions.values())
            if replicas < _REPLICAS_MIN:
                found.append(
                    f"replication is {replicas}, {_REPLICAS_MIN} are needed: reassign the"
                    f" partitions with more replicas ({_OR_DEVELOPMENT})"
                )
        return [f"topic {topic}: {fault}" for fault in found]

    def create(self, generation: int, settings: Settings) -> bool:
        """Creates a generation; False if it exists already.

        Raises:
            Transient: the brokers are away.
            PermanentFault: there are too few brokers, or they refuse.
        """
        brokers = len(list_topics(self._admin).brokers)
        replicas = settings.log_replicas
        if settings.log_development:
            replicas = min(replicas, brokers)
        elif brokers < replicas or replicas < _REPLICAS_MIN:
            raise PermanentFault(
                f"TOLLGATE_LOG_REPLICAS={replicas}: at least {_REPLICAS_MIN} replicas are needed,"
                f" and a broker for each; there are {brokers} brokers ({_OR_DEVELOPMENT})"
            )
        topic = NewTopic(
            self._place.topic(generation),
            num_partitions=settings.log_partitions,
            replication_factor=replicas,
            config={
                "cleanup.policy": "delete",
                "retention.ms": str(settings.log_retention_hours * 3_600_000),
                "retention.bytes": "-1",
                "message.timestamp.type": "LogAppendTime",
                "max.message.bytes": str(
                    settings.record_bytes_max + _RECORDS_ROOM * RECORD_ROOM_BYTES
                ),
                "min.insync.replicas": str(max(1, replicas - 1)),
                "unclean.leader.election.enable": "false",
                "compression.type": "producer",
            },
        )
        made = self._admin.create_topics([topic], operation_timeout=_CREATE_SECONDS)
        try:
            made[topic.topic].result(_CREATE_SECONDS + REQUEST_SECONDS)
        except KafkaException as problem:
            if problem.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
                return False
            raise fault_of(problem) from problem
        except TimeoutError as problem:
            raise Transient(f"topic {topic.topic} was not created in time") from problem
        self._await_leaders(topic.topic)
        return True

    def _await_leaders(self, topic: str) -> None:
        until = monotonic() + _CREATE_SECONDS
        pause = threading.Event()
        while True:
            found = list_topics(self._admin).topics.get(topic)
            if found and all(p.leader >= 0 for p in found.partitions.values()):
                return
            if monotonic() > until:
                raise Transient(f"topic {topic} was created, but has no leaders yet")
            pause.wait(0.05)

    def fence(self, generation: int) -> None:
        """Closes a generation: from now on its brokers refuse every record. Can be repeated.

        Raises:
            Transient: a partition's leader can't be asked, or has not heard of the fence yet.
        """
        topic = self._place.topic(generation)
        entry = ConfigEntry(
            "max.message.bytes",
            str(FENCE_BYTES),
            incremental_operation=AlterConfigOpType.SET,
        )
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[entry])
        _result(self._admin.incremental_alter_configs([resource])[resource])
        partitions = len(list_topics(self._admin).topics[topic].partitions)
        marks = _Marks(self._place, topic)
        until = monotonic() + _FENCE_SECONDS
        pause = threading.Event()
        for partition in range(partitions):
            # The configuration reaches each broker in its own time; a refusal proves it is there.
            while marks.append(partition, _PROBE):
                if monotonic() > until:
                    raise Transient(f"the leader of {topic}[{partition}] does not keep the fence")
                pause.wait(0.1)
            if not marks.append(partition, None):
                raise PermanentFault(
                    f"{topic}[{partition}] refuses even the mark that closes it: set its"
                    f" max.message.bytes to {FENCE_BYTES}"
                )

    def is_fenced(self, generation: int) -> bool:
        """Whether the generation takes no records by its settings.

        Raises:
            Transient, PermanentFault: as in `settings`.
        """
        return int(self.settings(generation)["max.message.bytes"]) <= FENCE_BYTES


def generations_of(client: AdminClient | Producer | Consumer, place: KafkaPlace) -> dict[int, int]:
    """Numbers of all generations, oldest first, and how many partitions each has.

    Raises:
        Transient: the brokers are away.
    """
    found = {
        number: len(data.partitions)
        for name, data in list_topics(client).topics.items()
        if (number := place.generation_of(name)) is not None and data.error is None
    }
    return dict(sorted(found.items()))


def list_topics(client: AdminClient | Producer | Consumer) -> ClusterMetadata:
    """What the brokers have.

    Raises:
        Transient: the brokers are away.
        PermanentFault: they refuse to tell.
    """
    try:
        found: ClusterMetadata = client.list_topics(timeout=REQUEST_SECONDS)
    except KafkaException as problem:
        raise fault_of(problem) from problem
    return found


def setting_faults(settings: Mapping[str, str], needs: Needs) -> list[str]:
    """What of a topic's settings would lose events: setting, value found, what to do."""
    room = needs.record_bytes_max + RECORD_ROOM_BYTES
    wanted = [
        ("cleanup.policy", settings["cleanup.policy"] == "delete", "set it to delete"),
        (
            "retention.bytes",
            settings["retention.bytes"] == "-1",
            "set it to -1: records are kept by time, whatever their size",
        ),
        (
            "message.timestamp.type",
            settings["message.timestamp.type"] == "LogAppendTime",
            "set it to LogAppendTime",
        ),
        (
            "max.message.bytes",
            int(settings["max.message.bytes"]) >= room,
            f"set it to {room} or more, or lower TOLLGATE_RECORD_BYTES_MAX",
        ),
    ]
    if not needs.development:
        wanted += [
            (
                "min.insync.replicas",
                int(settings["min.insync.replicas"]) >= _IN_SYNC_MIN,
                f"set it to {_IN_SYNC_MIN} or more ({_OR_DEVELOPMENT})",
            ),
            (
                "unclean.leader.election.enable",
                settings["unclean.leader.election.enable"] == "false",
                f"set it to false ({_OR_DEVELOPMENT})",
            ),
        ]
    return [f"{name} is {settings[name]}: {advice}" for name, good, advice in wanted if not good]


class _Marks:
    """Appends messages that are no records, one at a time."""

    def __init__(self, place: KafkaPlace, topic: str) -> None:
        self._topic = topic
        self._producer = Producer(
            place.options()
            | {
                "acks": "all",
                "linger.ms": 0,
                "delivery.timeout.ms": _FENCE_SECONDS * 1000,
            },
            logger=_log,
        )

    def append(self, partition: int, key: bytes | None) -> bool:
        """Whether the partition took a message without value; False if it was too large.

        Raises:
            Transient: the partition's leader did not answer.
        """
        answers: list[KafkaError | None] = []

        def note_answer(problem: KafkaError | None, _message: Message) -> None:
            answers.append(problem)

        self._producer.produce(self._topic, None, key, partition, note_answer)
        self._producer.flush(_FENCE_SECONDS)
        if not answers:
            raise Transient(f"the leader of {self._topic}[{partition}] does not answer")
        problem = answers[0]
        if problem is None:
            return True
        if problem.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            return False
        raise fault_of(problem)


def _result(future: "Future[Answer]") -> Answer:
    try:
        return future.result(2 * REQUEST_SECONDS)
    except KafkaException as problem:
        raise fault_of(problem) from problem
    except TimeoutError as problem:
        raise Transient("the event log's brokers did not answer in time") from problem
