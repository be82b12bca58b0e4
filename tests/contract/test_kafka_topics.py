"""Topics of the event log on a real broker: made once, refused if unsafe, closed for good."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tests.support.event_logs import append, read_all, values_of
from tests.support.kafka import log_settings, new_layouts
from tests.support.server import wait_until
from tollgate.core.errors import InvalidInput, PermanentFault, Transient
from tollgate.local.broker import Broker
from tollgate.platform import setup
from tollgate.platform.kafka_client import kafka_place
from tollgate.platform.kafka_layouts import KafkaLayouts
from tollgate.platform.kafka_topics import Needs, Topics, setting_faults
from tollgate.platform.parts import Parts
from tollgate.platform.settings import Settings

SAFE = {
    "cleanup.policy": "delete",
    "retention.bytes": "-1",
    "message.timestamp.type": "LogAppendTime",
    "max.message.bytes": str((1 << 20) + 4096),
    "min.insync.replicas": "2",
    "unclean.leader.election.enable": "false",
}
UNSAFE = [
    ("cleanup.policy", "compact"),
    ("cleanup.policy", "compact,delete"),
    ("retention.bytes", "1000000000"),
    ("message.timestamp.type", "CreateTime"),
    ("max.message.bytes", str(1 << 20)),
]
UNSAFE_UNLESS_DEVELOPMENT = [
    ("min.insync.replicas", "1"),
    ("unclean.leader.election.enable", "true"),
]


def needs(*, development: bool) -> Needs:
    return Needs(record_bytes_max=1 << 20, development=development)


@pytest.fixture
def settings(broker: Broker, topic_prefix: str) -> Settings:
    return log_settings(broker, topic_prefix)


@contextmanager
def opened(settings: Settings) -> Iterator[KafkaLayouts]:
    with closing(new_layouts(settings)) as layouts:
        yield layouts


def prepare(settings: Settings) -> list[str]:
    return list(setup._prepare_topics(settings))


def test_safe_settings_have_no_fault() -> None:
    assert setting_faults(SAFE, needs(development=False)) == []


@pytest.mark.parametrize(("name", "value"), [*UNSAFE, *UNSAFE_UNLESS_DEVELOPMENT])
def test_an_unsafe_setting_is_named_with_its_value_and_what_to_do(name: str, value: str) -> None:
    (fault,) = setting_faults(SAFE | {name: value}, needs(development=False))
    assert fault.startswith(f"{name} is {value}: set it to ")
    allowed = (name, value) in UNSAFE_UNLESS_DEVELOPMENT
    assert ("TOLLGATE_LOG_DEVELOPMENT" in fault) == allowed
    assert bool(setting_faults(SAFE | {name: value}, needs(development=True))) != allowed


def test_a_topic_is_created_as_safe_as_its_brokers_allow(settings: Settings) -> None:
    assert prepare(settings)[0].startswith("event log: created topic")
    place = kafka_place(settings)
    topics = Topics(place)
    assert topics.generations() == {1: 2}
    found = topics.settings(1)
    assert {name: found[name] for name in SAFE} == SAFE | {
        "max.message.bytes": str((1 << 20) + 4096),
        "min.insync.replicas": "1",
    }
    assert found["retention.ms"] == str(7 * 24 * 3600 * 1000)
    assert topics.faults(1, needs(development=True)) == []
    # One broker keeps one copy: good enough to develop with, and for nothing else.
    unsafe = topics.faults(1, needs(development=False))
    assert [fault.partition(": ")[2].split(" is ")[0] for fault in unsafe] == [
        "min.insync.replicas",
        "replication",
    ]


def test_production_needs_three_brokers(broker: Broker, topic_prefix: str) -> None:
    settings = log_settings(broker, topic_prefix, log_development=False)
    with pytest.raises(PermanentFault, match=r"TOLLGATE_LOG_REPLICAS=3: .* there are 1 brokers"):
        prepare(settings)
    assert Topics(kafka_place(settings)).generations() == {}


def test_an_unsafe_topic_is_refused(broker: Broker, settings: Settings) -> None:
    place = kafka_place(settings)
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    topic = NewTopic(place.topic(1), 2, 1, config={"retention.bytes": "1000000"})
    admin.create_topics([topic])[topic.topic].result(20)
    with pytest.raises(PermanentFault) as refusal:
        prepare(settings)
    text = str(refusal.value)
    assert f"topic {place.topic(1)}: retention.bytes is 1000000: set it to -1" in text
    assert "message.timestamp.type is CreateTime: set it to LogAppendTime" in text
    assert "max.message.bytes is 1048588" in text
    with opened(settings) as layouts, pytest.raises(PermanentFault, match=r"retention\.bytes"):
        layouts.verify(1)


def test_setup_twice_and_at_once_creates_one_topic(settings: Settings) -> None:
    together = threading.Barrier(3)

    def run() -> list[str]:
        together.wait()
        return prepare(settings)

    with ThreadPoolExecutor(3) as pool:
        said = [line for each in [pool.submit(run) for _ in range(3)] for line in each.result()]
    assert sum("created topic" in line for line in said) == 1
    assert sum("takes events" in line for line in said) == 3
    assert Topics(kafka_place(settings)).generations() == {1: 2}


def test_setup_says_when_the_layout_is_not_the_wanted_one(
    broker: Broker, topic_prefix: str, settings: Settings
) -> None:
    prepare(settings)
    said = prepare(log_settings(broker, topic_prefix, log_partitions=3))
    assert "TOLLGATE_LOG_PARTITIONS is 3" in said[-1]
    assert Topics(kafka_place(settings)).generations() == {1: 2}


def test_no_layout_says_what_to_run(settings: Settings) -> None:
    with closing(KafkaLayouts(settings, Parts(settings).clock)) as layouts:
        assert layouts.generations() == []
        with pytest.raises(PermanentFault, match=r"run python -m tollgate.platform.setup"):
            layouts.newest()
        with pytest.raises(PermanentFault, match="there is no topic"):
            layouts.open(1)


def test_a_fenced_generation_takes_no_record_and_keeps_all_it_has(settings: Settings) -> None:
    with opened(settings) as layouts:
        log = layouts.open(1)
        assert [append(log, b"a", b"b"), append(log, b"c", partition=1)] == [1, 0]
        topics = Topics(kafka_place(settings))
        assert not topics.is_fenced(1)
        topics.fence(1)
        topics.fence(1)
        assert topics.is_fenced(1)
        for partition in range(2):
            for value in (b"d", b"e" * 100_000):
                with pytest.raises(Transient, match="layout of the event log is changing"):
                    append(log, value, partition=partition)
        assert values_of(read_all(log)) == [b"a", b"b"]
        assert values_of(read_all(log, partition=1)) == [b"c"]
        with pytest.raises(Transient, match="changing"):
            layouts.verify(1)


def test_a_closed_generation_ends_at_its_last_record(settings: Settings) -> None:
    with opened(settings) as layouts:
        append(layouts.open(1), b"a", b"b")
        topics = Topics(kafka_place(settings))
        topics.fence(1)
        topics.create(2, settings)
        assert layouts.generations() == [1, 2]
        # Marks that the fence left behind are no records: the loaders' ledger never names them.
        assert [layouts.open(1).end(0), layouts.open(1).end(1)] == [1, -1]
        assert [r.offset for r in read_all(layouts.open(1))] == [0, 1]
        assert layouts.open(1).read(1, -1, 1 << 20) == []
        assert layouts.newest() == 2
        assert append(layouts.open(2), b"c") == 0


def test_an_interrupted_switch_is_finished_by_the_next_setup(settings: Settings) -> None:
    prepare(settings)
    Topics(kafka_place(settings)).fence(1)
    said = prepare(settings)
    assert any(line.endswith("created topic " + kafka_place(settings).topic(2)) for line in said)
    assert Topics(kafka_place(settings)).generations() == {1: 2, 2: 2}
    assert not any("created" in line for line in prepare(settings))


def test_a_running_process_hears_of_a_new_generation(
    broker: Broker, topic_prefix: str, settings: Settings
) -> None:
    with opened(settings) as layouts:
        heard: list[int] = []
        log = layouts.open(layouts.newest())
        layouts.watch(heard.append)
        wider = log_settings(broker, topic_prefix, log_partitions=5)
        list(setup._switch_layout(wider))
        with pytest.raises(Transient):
            append(log, b"too late")
        wait_until(lambda: heard, what="the new generation heard of")
        assert heard == [2]
        assert layouts.open(2).partitions == 5


def test_names_of_others_are_no_generations(broker: Broker, settings: Settings) -> None:
    place = kafka_place(settings)
    for name, number in (
        (f"{place.prefix}.1", 1),
        (f"{place.prefix}.12", 12),
        (f"{place.prefix}.0", None),
        (f"{place.prefix}.01", None),
        (f"{place.prefix}.x", None),
        (f"{place.prefix}.other.1", None),
        (place.prefix, None),
        ("1", None),
    ):
        assert place.generation_of(name) == number


@pytest.mark.parametrize("url", ["kafka://", "kafka://host:1", "kafka:///p", "kafka://h:1/a b"])
def test_a_url_that_names_no_log_is_a_wrong_setting(url: str) -> None:
    with pytest.raises(InvalidInput, match="kafka://host:port"):
        kafka_place(Settings(log_url=url))


def test_the_client_file_gives_tls_and_sasl_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = tmp_path_factory.mktemp("client") / "client.properties"
    settings = Settings(log_url="kafka://a:1,b:2/p", log_client_file=path)
    path.write_text("# who we are\nsecurity.protocol = SASL_SSL\nsasl.password=a=b\n\n")
    place = kafka_place(settings)
    assert (place.brokers, place.prefix, place.group) == ("a:1,b:2", "p", "p.load")
    options = place.options()
    assert (options["security.protocol"], options["sasl.password"]) == ("SASL_SSL", "a=b")
    path.write_text("acks=1\nenable.idempotence=false\nnonsense\n")
    with pytest.raises(InvalidInput) as refusal:
        kafka_place(settings)
    assert [fault.message.split(":")[0] for fault in refusal.value.faults] == [
        "line 1",
        "line 2",
        "line 3",
    ]
    path.unlink()
    with pytest.raises(InvalidInput, match="can't be read"):
        kafka_place(settings)
