"""Objects in a bucket of any S3, through the `minio` client."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import urllib3
from minio import Minio
from minio.credentials.providers import (
    ChainedProvider,
    EnvAWSProvider,
    IamAwsProvider,
    Provider,
    StaticProvider,
)
from minio.error import MinioException, S3Error, ServerError
from urllib3.exceptions import HTTPError

from tollgate.core.errors import (
    Fault,
    InvalidInput,
    NotFound,
    PermanentFault,
    TollgateError,
    Transient,
)
from tollgate.platform.objects import checked, wrong_url
from tollgate.platform.settings import Settings

_ERRORS = (MinioException, HTTPError, OSError, ValueError)
_CONNECT_SECONDS = 5
_READ_SECONDS = 60
_CONNECTIONS = 16
_GONE = frozenset(("NoSuchKey", "NoSuchObject", "NotFound"))
_NEVER = frozenset(
    (
        "AccessDenied",
        "AllAccessDisabled",
        "AuthorizationHeaderMalformed",
        "InvalidAccessKeyId",
        "InvalidBucketName",
        "NoSuchBucket",
        "NotImplemented",
        "SignatureDoesNotMatch",
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Place:
    """Which bucket, and who asks.

    Attributes:
        endpoint: `host` or `host:port`.
        secure: whether TLS is spoken.
        bucket: its name.
        prefix: what all names begin with: "" or a path that ends with a slash.
        region: of the bucket; "": the store is asked.
        credentials: the key and its secret; None: those of AWS_ACCESS_KEY_ID or of the machine.
    """

    endpoint: str
    secure: bool
    bucket: str
    prefix: str = ""
    region: str = ""
    credentials: tuple[str, str] | None = field(default=None, repr=False)


def s3_place(settings: Settings) -> S3Place:
    """Reads the settings.

    Raises:
        InvalidInput: they name no bucket; no secret is in the message.
    """
    url = urlsplit(settings.objects_url)
    bucket, _, prefix = url.path.strip("/").partition("/")
    query = parse_qs(url.query)
    unknown = query.keys() - {"secure", "region"}
    secure = query.get("secure", ["true"])[-1]
    try:
        port = url.port
    except ValueError:
        raise wrong_url("the port must be a number") from None
    if not url.hostname or not bucket or unknown or secure not in ("true", "false"):
        raise wrong_url(
            "must be s3://[key:secret@]host[:port]/bucket[/prefix][?secure=false][&region=name]"
        )
    if prefix:
        checked(prefix)
    credentials = None
    if url.username:
        credentials = (unquote(url.username), unquote(url.password or ""))
    if settings.objects_credentials_file is not None:
        credentials = _read_credentials(settings.objects_credentials_file)
    return S3Place(
        endpoint=f"{url.hostname}:{port}" if port else url.hostname,
        secure=secure == "true",
        bucket=bucket,
        prefix=f"{prefix}/" if prefix else "",
        region=query.get("region", [""])[-1],
        credentials=credentials,
    )


def _read_credentials(path: Path) -> tuple[str, str]:
    """The key and its secret: two lines of a mounted file."""
    try:
        lines = path.read_text().split()
    except OSError as problem:
        lines, why = [], f"can't be read: {problem}"
    else:
        why = "must have two lines: the key and its secret"
    if len(lines) != 2:
        fault = Fault(
            field="TOLLGATE_OBJECTS_CREDENTIALS_FILE", code="invalid_setting", message=why
        )
        raise InvalidInput((fault,))
    return lines[0], lines[1]


class S3Objects:
    """See `Objects`. Any number of threads."""

    def __init__(self, place: S3Place) -> None:
        """Names the bucket. Nothing is asked yet."""
        self._place = place
        self._pool = urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=_CONNECT_SECONDS, read=_READ_SECONDS),
            maxsize=_CONNECTIONS,
            # Whoever asks repeats it.
            retries=False,
        )
        self._client = Minio(
            place.endpoint,
            secure=place.secure,
            region=place.region or None,
            credentials=_provider(place),
            http_client=self._pool,
        )

    @property
    def place(self) -> str:
        """Endpoint, bucket and prefix."""
        return f"s3://{self._place.endpoint}/{self._place.bucket}/{self._place.prefix}".rstrip("/")

    def put(self, name: str, data: bytes) -> bool:
        """See `Objects.put`: a conditional write.

        https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html. The client's
        public `put_object` sends no such header; what it calls does (the contract suite holds it).
        """
        try:
            self._client._put_object(  # noqa: SLF001
                self._place.bucket,
                self._place.prefix + checked(name),
                data,
                headers={
                    "If-None-Match": "*",
                    "Content-Type": "application/octet-stream",
                },
            )
        except S3Error as problem:
            if problem.code == "PreconditionFailed":
                return False
            raise self._fault(problem) from problem
        except _ERRORS as problem:
            raise self._fault(problem) from problem
        return True

    def get(self, name: str) -> bytes:
        """See `Objects.get`."""
        try:
            answer = self._client.get_object(self._place.bucket, self._place.prefix + checked(name))
            try:
                data: bytes = answer.read()
            finally:
                answer.close()
                answer.release_conn()
        except _ERRORS as problem:
            raise self._fault(problem, name) from problem
        return data

    def exists(self, name: str) -> bool:
        """See `Objects.exists`."""
        try:
            self._client.stat_object(self._place.bucket, self._place.prefix + checked(name))
        except _ERRORS as problem:
            fault = self._fault(problem, name)
            if isinstance(fault, NotFound):
                return False
            raise fault from problem
        return True

    def names(self, prefix: str, after: str = "") -> Iterator[str]:
        """See `Objects.names`."""
        own = self._place.prefix
        try:
            for each in self._client.list_objects(
                self._place.bucket,
                prefix=own + prefix,
                recursive=True,
                start_after=own + after if after else None,
            ):
                yield str(each.object_name).removeprefix(own)
        except _ERRORS as problem:
            raise self._fault(problem) from problem

    def close(self) -> None:
        """See `Objects.close`."""
        self._pool.clear()

    def _fault(self, problem: Exception, name: str = "") -> TollgateError:
        """The one table from this client's errors to our kinds."""
        where = f"object storage {self.place}"
        if isinstance(problem, S3Error):
            said = f"{where}: {problem.code}: {problem.message}"
            if name and problem.code in _GONE:
                return NotFound(f"there is no object {name!r} in {self.place}")
            if problem.code in _NEVER:
                return PermanentFault(said)
            # Also what was refused because somebody else writes the same name at this moment (409).
            return Transient(said, retry_after_seconds=2)
        if isinstance(problem, ServerError | HTTPError | OSError):
            return Transient(f"{where} can't be reached: {_short(problem)}", retry_after_seconds=2)
        return PermanentFault(f"{where}: {_short(problem)}")


def _short(problem: Exception) -> str:
    # A signed URL never gets into a message.
    return re.sub(r"\?\S*", "", str(problem))[:300]


def _provider(place: S3Place) -> Provider:
    if place.credentials is not None:
        key, secret = place.credentials
        return StaticProvider(key, secret)
    return ChainedProvider([EnvAWSProvider(), IamAwsProvider()])
