"""An S3 in this process, moto's server, and buckets that no other test uses."""

import logging
import uuid
from collections.abc import Callable, Iterator

import pytest
from minio import Minio

from tests.support.server import free_port
from tollgate.platform.objects import Objects, objects_of
from tollgate.platform.settings import Settings

KEY, SECRET = "AKIDTEST", "s3cret/with+signs"
REGION = "us-east-1"


class S3:
    """A running server."""

    def __init__(self) -> None:
        # It takes its time to import: only tests that need it wait.
        from moto.server import ThreadedMotoServer

        # A line for each request says nothing that a test asks for.
        logging.getLogger("werkzeug").setLevel(logging.WARNING)
        self.port = free_port()
        self._server = ThreadedMotoServer("127.0.0.1", self.port, verbose=False)
        self._server.start()

    def new_bucket(self) -> str:
        """Makes a bucket; gives the setting that names it, with a prefix in it."""
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        client = Minio(
            f"127.0.0.1:{self.port}",
            access_key=KEY,
            secret_key=SECRET,
            secure=False,
            region=REGION,
        )
        client.make_bucket(name)
        secret = SECRET.replace("/", "%2F").replace("+", "%2B")
        return f"s3://{KEY}:{secret}@127.0.0.1:{self.port}/{name}/archive?secure=false"

    def stop(self) -> None:
        """Ends it."""
        self._server.stop()


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    """A server for the session."""
    running = S3()
    yield running
    running.stop()


@pytest.fixture
def new_objects() -> Iterator[Callable[[str], Objects]]:
    """Opens object storage by its setting; closed at the end of the test."""
    made: list[Objects] = []

    def make(url: str) -> Objects:
        objects = objects_of(Settings(objects_url=url))
        assert objects is not None
        made.append(objects)
        return objects

    yield make
    for each in made:
        each.close()
