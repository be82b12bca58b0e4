"""Brokers that fail on demand: librdkafka's own mock cluster, in this process.

It speaks Kafka's protocol on TCP and answers with the errors that a test asks for
(https://github.com/confluentinc/librdkafka/blob/master/src/rdkafka_mock.h). What a real broker does
is tested on a real one; here stand the answers that a real one can't be made to give.
"""

import ctypes
from pathlib import Path
from types import TracebackType

import confluent_kafka

PRODUCE, INIT_PRODUCER_ID = 0, 22
"""Numbers of requests (https://kafka.apache.org/protocol#protocol_api_keys)."""


def _library() -> ctypes.CDLL:
    folder = Path(confluent_kafka.__file__).parent.parent / "confluent_kafka.libs"
    (path,) = folder.glob("librdkafka*.so*")
    library = ctypes.CDLL(str(path))
    pointer, text = ctypes.c_void_p, ctypes.c_char_p
    signatures: tuple[tuple[str, object, list[object]], ...] = (
        ("rd_kafka_conf_new", pointer, []),
        ("rd_kafka_new", pointer, [ctypes.c_int, pointer, text, ctypes.c_size_t]),
        ("rd_kafka_destroy", None, [pointer]),
        ("rd_kafka_mock_cluster_new", pointer, [pointer, ctypes.c_int]),
        ("rd_kafka_mock_cluster_destroy", None, [pointer]),
        ("rd_kafka_mock_cluster_bootstraps", text, [pointer]),
        ("rd_kafka_mock_topic_create", ctypes.c_int, [pointer, text, ctypes.c_int, ctypes.c_int]),
        ("rd_kafka_mock_broker_set_down", ctypes.c_int, [pointer, ctypes.c_int32]),
        ("rd_kafka_mock_broker_set_up", ctypes.c_int, [pointer, ctypes.c_int32]),
        (
            "rd_kafka_mock_push_request_errors_array",
            None,
            [pointer, ctypes.c_int16, ctypes.c_size_t, ctypes.POINTER(ctypes.c_int)],
        ),
    )
    for name, result, arguments in signatures:
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


class MockKafka:
    """A cluster of brokers. Use as a context."""

    def __init__(self, brokers: int = 1) -> None:
        self._library = _library()
        problem = ctypes.create_string_buffer(256)
        self._owner = self._library.rd_kafka_new(
            0, self._library.rd_kafka_conf_new(), problem, len(problem)
        )
        assert self._owner, problem.value
        self._cluster = self._library.rd_kafka_mock_cluster_new(self._owner, brokers)
        assert self._cluster
        self.bootstrap: str = self._library.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()

    def create_topic(self, topic: str, partitions: int = 1) -> None:
        """Creates a topic with one replica."""
        assert not self._library.rd_kafka_mock_topic_create(
            self._cluster, topic.encode(), partitions, 1
        )

    def fail_next(self, request: int, *errors: int) -> None:
        """Answers the next requests of a kind with these errors."""
        array = (ctypes.c_int * len(errors))(*errors)
        self._library.rd_kafka_mock_push_request_errors_array(
            self._cluster, request, len(errors), array
        )

    def go_away(self) -> None:
        """All brokers drop their connections and accept none."""
        assert not self._library.rd_kafka_mock_broker_set_down(self._cluster, -1)

    def come_back(self) -> None:
        """All brokers accept connections again."""
        assert not self._library.rd_kafka_mock_broker_set_up(self._cluster, -1)

    def __enter__(self) -> "MockKafka":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._library.rd_kafka_mock_cluster_destroy(self._cluster)
        self._library.rd_kafka_destroy(self._owner)
