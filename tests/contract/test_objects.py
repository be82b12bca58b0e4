"""One suite for every object storage: what is put once stays, and names come in order."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.s3 import KEY, S3, SECRET
from tests.support.server import free_port
from tollgate.core.errors import InvalidInput, NotFound, PermanentFault, TollgateError, Transient
from tollgate.platform.objects import Objects, objects_of, require_conditional
from tollgate.platform.objects_folder import FolderObjects
from tollgate.platform.settings import Settings, read_settings

NewObjects = Callable[[str], Objects]
NAMES = ["a", "a-b/x", "a.b", "a/b", "a/b-c", "a/b.c", "a/b/0", "a/b/00", "a/b/1", "a0", "b/a"]


@pytest.fixture(params=["folder", "s3"])
def objects(request: pytest.FixtureRequest, tmp_path: Path, new_objects: NewObjects) -> Objects:
    if request.param == "folder":
        return new_objects(f"file://{tmp_path}/a folder/objects".replace(" ", "%20"))
    s3: S3 = request.getfixturevalue("s3")
    return new_objects(s3.new_bucket())


def test_an_object_is_written_once(objects: Objects) -> None:
    assert not objects.exists("x/y=1/z.bin")
    with pytest.raises(NotFound):
        objects.get("x/y=1/z.bin")
    assert objects.put("x/y=1/z.bin", b"\x00first")
    assert not objects.put("x/y=1/z.bin", b"second")
    assert objects.get("x/y=1/z.bin") == b"\x00first"
    assert objects.exists("x/y=1/z.bin")
    assert not objects.exists("x/y=1")
    assert objects.put("empty", b"")
    assert objects.get("empty") == b""


def test_of_writers_at_once_one_wins(objects: Objects) -> None:
    barrier, won = threading.Barrier(8), []

    def write(number: int) -> None:
        barrier.wait()
        if objects.put("one", b"%d" % number):
            won.append(number)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [b"%d" % number for number in won] == [objects.get("one")]


def test_names_come_in_order_of_bytes(objects: Objects) -> None:
    # A folder and an object of one name: only a folder can't have both.
    names = [n for n in NAMES if not any(o.startswith(f"{n}/") for o in NAMES)]
    for name in reversed(names):
        objects.put(name, b"")
    assert list(objects.names("")) == sorted(names)
    for prefix in ("a", "a/", "a/b", "a/b/", "a/b/0", "c", "b/a/"):
        expected = [n for n in sorted(names) if n.startswith(prefix)]
        assert list(objects.names(prefix)) == expected, prefix
        for after in ("a", "a/b", "a/b/0", "a/b/~", "a/", "a-", "b"):
            found = list(objects.names(prefix, after))
            assert found == [n for n in expected if n > after], (prefix, after)


@pytest.mark.parametrize("name", ["", "/a", "a/", "a//b", "../a", "a/../b", ".a", "a b", "ä"])
def test_names_that_not_every_store_has_are_refused(objects: Objects, name: str) -> None:
    with pytest.raises(PermanentFault):
        objects.put(name, b"")
    with pytest.raises(PermanentFault):
        objects.get(name)


def test_a_store_must_know_the_condition(objects: Objects) -> None:
    require_conditional(objects)
    require_conditional(objects)

    class Overwriting(FolderObjects):
        def put(self, name: str, data: bytes) -> bool:
            return True

    with pytest.raises(PermanentFault, match="overwrites"):
        require_conditional(Overwriting(Path("/nowhere")))


def test_a_store_that_is_away_may_come_back(new_objects: NewObjects) -> None:
    away = new_objects(
        f"s3://{KEY}:{SECRET[:6]}@127.0.0.1:{free_port()}/bucket?secure=false&region=x"
    )
    for call in (
        lambda: away.put("a", b""),
        lambda: away.get("a"),
        lambda: away.exists("a"),
        lambda: list(away.names("")),
    ):
        with pytest.raises(Transient, match="can't be reached"):
            call()


def test_a_folder_that_refuses_may_get_better(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(Transient):
        FolderObjects(tmp_path / "file").put("a", b"")


def test_a_bucket_that_is_not_there_needs_a_person(s3: S3, new_objects: NewObjects) -> None:
    gone = new_objects(s3.new_bucket().replace("bucket-", "nothing-"))
    with pytest.raises(PermanentFault, match="NoSuchBucket") as caught:
        gone.put("a", b"")
    assert SECRET not in str(caught.value)
    assert KEY not in str(caught.value)


def test_no_secret_is_shown(tmp_path: Path) -> None:
    url = f"s3://{KEY}:sesame@host:x/bucket"
    settings = read_settings({"TOLLGATE_OBJECTS_URL": url})
    assert "sesame" not in repr(settings)
    for wrong in (url, f"ftp://{KEY}:sesame@host/b", f"s3://{KEY}:sesame@host/b?secure=maybe"):
        with pytest.raises(TollgateError) as caught:
            objects_of(Settings(objects_url=wrong))
        assert isinstance(caught.value, InvalidInput)
        assert "sesame" not in str(caught.value)
    file = tmp_path / "credentials"
    file.write_text("AKID\nsesame\n")
    made = objects_of(
        Settings(objects_url="s3://host/bucket/prefix", objects_credentials_file=file)
    )
    assert made is not None
    assert made.place == "s3://host/bucket/prefix"
    assert "sesame" not in repr(vars(made)["_place"])
    file.write_text("sesame\n")
    with pytest.raises(InvalidInput, match="two lines") as refused:
        objects_of(Settings(objects_url="s3://host/bucket", objects_credentials_file=file))
    assert "sesame" not in str(refused.value)
