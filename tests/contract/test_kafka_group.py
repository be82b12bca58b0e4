"""Membership of a group on a real broker: who owns what, and lag that others can see."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tests.support.server import wait_until
from tollgate.local.broker import Broker
from tollgate.platform.kafka_client import KafkaPlace
from tollgate.platform.kafka_group import GroupMember, Partition

pytest_plugins = ["tests.support.kafka"]


class Owner:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.owned: set[Partition] = set()
        self.told: list[tuple[str, list[Partition]]] = []
        self.hold = threading.Event()
        self.hold.set()

    def assigned(self, partitions: Sequence[Partition]) -> None:
        self.told.append(("assigned", sorted(partitions)))
        self.owned.update(partitions)

    def revoked(self, partitions: Sequence[Partition]) -> None:
        self.told.append(("revoked", sorted(partitions)))
        self.hold.wait(8)
        self.owned.difference_update(partitions)

    def lost(self, partitions: Sequence[Partition]) -> None:
        self.told.append(("lost", sorted(partitions)))
        self.owned.difference_update(partitions)


class Group:
    """A group of one test."""

    def __init__(self, brokers: str, prefix: str) -> None:
        self.brokers, self.prefix = brokers, prefix
        self.place = KafkaPlace(brokers=brokers, prefix=prefix, group=f"{prefix}.load")
        self.admin = AdminClient({"bootstrap.servers": brokers})
        self.members: list[GroupMember] = []

    def create(self, topic: str, partitions: int) -> None:
        self.admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result()

    def member(self) -> tuple[GroupMember, Owner]:
        owner = Owner()
        self.members.append(GroupMember(self.place, owner))
        return self.members[-1], owner

    def committed(self) -> dict[tuple[str, int], int]:
        asked = ConsumerGroupTopicPartitions(self.place.group)
        (answer,) = self.admin.list_consumer_group_offsets([asked]).values()
        return {(t.topic, t.partition): t.offset for t in answer.result().topic_partitions}

    def size(self) -> int:
        described = self.admin.describe_consumer_groups([self.place.group])
        return len(described[self.place.group].result().members)

    def close(self) -> None:
        for member in self.members:
            member.stop()


@pytest.fixture
def group(broker: Broker, topic_prefix: str) -> Iterator[Group]:
    with closing(Group(broker.bootstrap, topic_prefix)) as made:
        yield made


def owns(owner: Owner, count: int) -> Callable[[], bool]:
    return lambda: len(owner.owned) == count


def test_members_share_all_generations(group: Group) -> None:
    """Topics of others with a like name are none of ours; a new generation is seen in seconds."""
    first, owner = group.member()
    first.start()
    assert not first.joined
    group.create(f"{group.prefix}.1", 4)
    group.create(f"{group.prefix}.1.backup", 1)
    group.create(f"{group.prefix}x.1", 1)
    wait_until(owns(owner, 4), what="all of the first generation")
    assert owner.owned == first.owned == {(1, n) for n in range(4)}
    second, other = group.member()
    second.start()
    wait_until(lambda: len(other.owned) == len(owner.owned) == 2, what="halves")
    # Cooperative: what the first keeps was never taken from it.
    assert [word for word, _ in owner.told] == ["assigned", "revoked"]
    group.create(f"{group.prefix}.2", 3)
    wait_until(lambda: len(owner.owned | other.owned) == 7, what="the second generation")
    wait_until(lambda: not owner.owned & other.owned, what="shared out")
    assert owner.owned | other.owned == {(1, n) for n in range(4)} | {(2, n) for n in range(3)}
    second.stop()
    wait_until(owns(owner, 7), what="all again")
    assert other.owned == set()
    assert group.size() == 1


def test_who_owns_nothing_has_joined_all_the_same(group: Group) -> None:
    group.create(f"{group.prefix}.1", 1)
    (first, owner), (second, other) = group.member(), group.member()
    first.start()
    wait_until(owns(owner, 1), what="the partition")
    second.start()
    wait_until(lambda: second.joined, what="joined")
    assert other.told == []
    first.stop()
    wait_until(owns(other, 1), what="taken over")


def test_what_is_revoked_is_nobody_elses_before_its_owner_is_done(group: Group) -> None:
    group.create(f"{group.prefix}.1", 2)
    (first, owner), (second, other) = group.member(), group.member()
    first.start()
    wait_until(owns(owner, 2), what="both")
    owner.hold.clear()
    second.start()
    wait_until(lambda: owner.told[-1][0] == "revoked", what="asked to give one back")
    first.commit(*owner.told[-1][1][0], 6)
    assert other.owned == set()
    owner.hold.set()
    wait_until(owns(other, 1), what="given")
    ((generation, partition),) = other.owned
    # What was loaded meanwhile was committed before the other had it.
    assert group.committed()[f"{group.prefix}.{generation}", partition] == 7


def test_commits_are_of_loaded_records_and_of_ours_alone(group: Group) -> None:
    group.create(f"{group.prefix}.1", 3)
    topic = f"{group.prefix}.1"
    member, owner = group.member()
    member.start()
    wait_until(owns(owner, 3), what="all")
    member.commit(1, 0, -1)
    member.commit(1, 1, 41)
    member.commit(1, 1, 40)
    member.commit(2, 0, 5)
    wait_until(lambda: len(group.committed()) == 2, what="committed")
    # The next to be loaded; one that loaded nothing says so, and can be scaled up from zero.
    assert group.committed() == {(topic, 0): 0, (topic, 1): 42}
    member.stop()
    member.commit(1, 2, 99)
    member.start()
    wait_until(owns(owner, 3), what="all again")
    assert group.committed() == {(topic, 0): 0, (topic, 1): 42}


def test_the_end_of_a_closed_generation_is_committed_past_its_marks(group: Group) -> None:
    topic = f"{group.prefix}.1"
    group.create(topic, 1)
    member, owner = group.member()
    member.start()
    wait_until(owns(owner, 1), 15, "the partition")
    producer = Producer({"bootstrap.servers": group.brokers})
    for value in (b"record", None, None):
        producer.produce(topic, value, partition=0)
    assert producer.flush(10) == 0
    member.commit(1, 0, 0)
    wait_until(lambda: group.committed() == {(topic, 0): 1}, 10, "the record")
    member.commit_end(1, 0)
    wait_until(lambda: group.committed() == {(topic, 0): 3}, 10, "the end")


def test_nothing_is_ever_read_through_the_group(group: Group) -> None:
    """A member that fetched would hold what it fetched in memory, for nothing."""
    topic = f"{group.prefix}.1"
    group.create(topic, 1)
    producer = Producer({"bootstrap.servers": group.brokers})
    producer.produce(topic, b"before", partition=0)
    assert producer.flush(10) == 0
    member, owner = group.member()
    member.start()
    wait_until(owns(owner, 1), what="the partition")
    producer.produce(topic, b"after", partition=0)
    assert producer.flush(10) == 0
    member.commit(1, 0, 0)
    wait_until(lambda: group.committed() == {(topic, 0): 1}, what="a round of polling")
    assert member.records_seen == 0


def test_a_broker_that_freezes_takes_everything_and_gives_it_back(
    new_broker: Callable[..., Broker], topic_prefix: str
) -> None:
    frozen = new_broker().start()
    with closing(Group(frozen.bootstrap, topic_prefix)) as group:
        group.create(f"{group.prefix}.1", 2)
        member, owner = group.member()
        member.start()
        wait_until(owns(owner, 2), what="both")
        frozen.suspend()
        wait_until(lambda: owner.told[-1][0] == "lost", 30, "lost")
        assert not member.joined
        assert member.owned == owner.owned == set()
        frozen.resume()
        wait_until(owns(owner, 2), what="both again")
        frozen.suspend()
        # Leaving takes bounded time whatever the broker does.
        member.stop()
        frozen.resume()
