"""Keys: what opens, what does not, and that a refusal says nothing about why."""

import hmac
from datetime import UTC, datetime, timedelta

import pytest

from tollgate.core.clock import us_from_datetime
from tollgate.core.errors import Forbidden, Transient, Unauthorized
from tollgate.platform import access
from tollgate.platform.access import Access, ActiveKey, KeyIndex, Scope, hash_secret, split_key

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECRET = "s" * 43


class SetClock:
    def __init__(self, instant: datetime = NOON) -> None:
        self.instant = instant

    def now(self) -> datetime:
        return self.instant

    def now_us(self) -> int:
        return us_from_datetime(self.instant)


def key(*scopes: Scope, identity: str = "abc", expires_at: datetime | None = None) -> ActiveKey:
    return ActiveKey(
        id=identity,
        namespace="acme",
        scopes=frozenset(scopes or (Scope.READ,)),
        secret_hash=hash_secret(SECRET),
        expires_at=expires_at,
    )


def index_of(*keys: ActiveKey, open_to_all: bool = False) -> KeyIndex:
    index = KeyIndex()
    index.replace(keys, none_ever=open_to_all)
    index.allow_open()
    return index


def check(index: KeyIndex, header: bytes | None, clock: SetClock | None = None) -> Access:
    return index.check(header, clock or SetClock())


@pytest.mark.parametrize(
    "header",
    [f"Bearer tg_abc_{SECRET}", f"bearer tg_abc_{SECRET}", f"BEARER   tg_abc_{SECRET} "],
)
def test_a_key_opens_its_namespace_with_its_scopes(header: str) -> None:
    found = check(index_of(key(Scope.READ)), header.encode())
    assert (found.namespace, found.scopes, found.key_id) == (
        "acme",
        frozenset((Scope.READ,)),
        "abc",
    )


@pytest.mark.parametrize(
    "header",
    [
        None,
        b"",
        b"Bearer",
        b"Bearer ",
        b"Bearer tg_abc_",
        b"Bearer tg__" + SECRET.encode(),
        f"Bearer tg_abc_{SECRET}x".encode(),
        f"Bearer tg_abc_{SECRET[1:]}".encode(),
        f"Bearer tg_other_{SECRET}".encode(),
        f"Bearer xx_abc_{SECRET}".encode(),
        f"Basic tg_abc_{SECRET}".encode(),
        f"tg_abc_{SECRET}".encode(),
        f"Bearer tg_abc {SECRET}".encode(),
        b"Bearer \xff\xfe\x00_\xed\xa0\x80_\xff",
        b"Bearer " + b"_" * 100_000,
    ],
)
def test_all_else_is_refused(header: bytes | None) -> None:
    with pytest.raises(Unauthorized):
        check(index_of(key()), header)


def test_unknown_wrong_and_expired_are_told_alike() -> None:
    index = index_of(key(), key(identity="old", expires_at=NOON))
    details = set()
    for text in (f"tg_nobody_{SECRET}", "tg_abc_wrong", f"tg_old_{SECRET}", f"xx_abc_{SECRET}"):
        with pytest.raises(Unauthorized) as refusal:
            check(index, f"Bearer {text}".encode())
        details.add(refusal.value.detail)
    assert len(details) == 1


def test_an_unknown_id_costs_the_same_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[int, int]] = []

    def counted(left: bytes, right: bytes) -> bool:
        compared.append((len(left), len(right)))
        return hmac.compare_digest(left, right)

    monkeypatch.setattr(access, "hmac", type("Counted", (), {"compare_digest": counted}))
    index = index_of(key())
    for identity in ("abc", "nobody", ""):
        with pytest.raises(Unauthorized):
            check(index, f"Bearer tg_{identity}_wrong".encode())
    check(index, f"Bearer tg_abc_{SECRET}".encode())
    assert compared == [(32, 32)] * 4


def test_a_key_ends_at_its_instant() -> None:
    index, header = index_of(key(expires_at=NOON)), f"Bearer tg_abc_{SECRET}".encode()
    check(index, header, SetClock(NOON - timedelta(microseconds=1)))
    with pytest.raises(Unauthorized):
        check(index, header, SetClock(NOON))


@pytest.mark.parametrize(
    ("held", "granted"),
    [
        ({Scope.INGEST}, {Scope.INGEST}),
        ({Scope.READ}, {Scope.READ}),
        ({Scope.INGEST, Scope.READ}, {Scope.INGEST, Scope.READ}),
        ({Scope.ADMIN}, {Scope.INGEST, Scope.READ, Scope.ADMIN}),
        ({Scope.OPERATOR}, set(Scope)),
    ],
)
def test_scopes_by_hand(held: set[Scope], granted: set[Scope]) -> None:
    found = check(index_of(key(*held)), f"Bearer tg_abc_{SECRET}".encode())
    assert found.scopes == granted
    for scope in Scope:
        if scope in granted:
            found.require(scope)
        else:
            with pytest.raises(Forbidden, match=scope.value):
                found.require(scope)


def test_without_any_key_all_are_the_operator() -> None:
    index = index_of(open_to_all=True)
    assert index.open_to_all
    assert check(index, None) == check(index, b"Bearer nonsense")
    assert check(index, None).namespace == "default"
    assert check(index, None).scopes == set(Scope)


def test_the_door_closes_with_the_first_key_and_stays_closed() -> None:
    index = index_of(open_to_all=True)
    index.replace([key()], none_ever=True)
    assert not index.open_to_all
    index.replace([], none_ever=False)
    with pytest.raises(Unauthorized):
        check(index, None)


@pytest.mark.parametrize("text", ["", "tg_", "tg_a", "tg_a_", "tg__b", "xx_a_b", " tg_a_b"])
def test_other_texts_are_no_keys(text: str) -> None:
    assert split_key(text) is None
    assert split_key("tg_a_b_c") == ("a", "b_c")


def test_without_any_key_nobody_gets_in_unless_only_loopback_is_served() -> None:
    index = KeyIndex()
    index.replace([], none_ever=True)
    assert index.none_ever
    assert not index.open_to_all
    with pytest.raises(Unauthorized, match="TOLLGATE_KEYS_FILE"):
        check(index, None)
    index.allow_open()
    assert index.open_to_all
    index.replace([], none_ever=False)
    assert not index.open_to_all


def test_while_keys_are_not_known_who_is_not_known_comes_again() -> None:
    index = KeyIndex()
    index.allow_open()
    good, other = f"Bearer tg_abc_{SECRET}".encode(), f"Bearer tg_other_{SECRET}".encode()
    for header in (None, good, other):
        with pytest.raises(Transient):
            check(index, header)
    assert index.unreadiness()
    # A keys file is known without SQL; that SQL has no key at all is not.
    index.replace([key()], none_ever=True, complete=False)
    assert not index.open_to_all
    assert check(index, good).key_id == "abc"
    for header in (None, other):
        with pytest.raises(Transient):
            check(index, header)
    with pytest.raises(Unauthorized):
        check(index, b"Bearer tg_abc_wrong")
    index.replace([key()], none_ever=False)
    assert not index.unreadiness()
    with pytest.raises(Unauthorized):
        check(index, other)
