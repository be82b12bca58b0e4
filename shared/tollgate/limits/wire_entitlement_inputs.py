"""Wire models of v1 and v2: entitlements, grants and resets as they are asked for."""

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from tollgate.core.errors import Fault, InvalidInput
from tollgate.limits.entitlement import IssueAfterReset, MeasureUsageFrom
from tollgate.limits.entitlement_record import (
    EntitlementInput,
    EntitlementKind,
    GrantInput,
    RecurrenceInput,
)
from tollgate.limits.entitlement_tables import zone_named
from tollgate.limits.grant import Expiration, ExpirationUnit
from tollgate.limits.interval import Interval
from tollgate.limits.reset import Reset
from tollgate.platform.exact import ExactNumber, exact_members, plain_json, read_exact
from tollgate.platform.wire import Wire, WireInstant

GRANTS_MAX = 100
"""Grants that an entitlement begins with."""


_ZERO = Decimal(0)


def _interval(text: str) -> str:
    try:
        Interval.parse(text)
    except InvalidInput as invalid:
        raise ValueError(invalid.faults[0].message) from None
    return text


def _zone(name: str) -> str:
    try:
        zone_named(name)
    except InvalidInput as invalid:
        raise ValueError(invalid.faults[0].message) from None
    return name


IntervalText = Annotated[
    str,
    AfterValidator(_interval),
    Field(description="DAY, WEEK, MONTH, YEAR, or an ISO 8601 duration of an hour or more."),
]
TimeZone = Annotated[
    str | None,
    AfterValidator(lambda name: name and _zone(name)),
    Field(
        alias="timeZone",
        description="IANA name of the zone on whose calendar and clock days, months and years are "
        "counted; UTC if there is none.",
    ),
]


class RecurringPeriodInputBody(Wire):
    """A recurrence (schema `RecurringPeriodCreateInput`)."""

    interval: IntervalText
    anchor: WireInstant | None = None
    time_zone: TimeZone = None

    def asked(self) -> RecurrenceInput:
        """The same for the domain."""
        zone = None if self.time_zone is None else zone_named(self.time_zone)
        return RecurrenceInput(
            interval=Interval.parse(self.interval), anchor=self.anchor, zone=zone
        )


def _asked(period: RecurringPeriodInputBody | None) -> RecurrenceInput | None:
    return None if period is None else period.asked()


class ExpirationBody(Wire):
    """How long a grant lasts (schema `ExpirationPeriod`)."""

    duration: ExpirationUnit
    count: Annotated[int, Field(ge=1, le=1000)]


class _GrantInputBody(Wire):
    amount: Annotated[
        ExactNumber,
        Field(description="Above 0; at most 20 digits before the point and 18 after it."),
    ]
    priority: Annotated[int, Field(ge=1, le=255)] = 1
    effective_at: Annotated[
        WireInstant, Field(alias="effectiveAt", description="Kept to the microsecond.")
    ]
    min_rollover: Annotated[ExactNumber | None, Field(alias="minRolloverAmount")] = None
    max_rollover: Annotated[ExactNumber | None, Field(alias="maxRolloverAmount")] = None
    metadata: dict[str, str] | None = None
    recurrence: RecurringPeriodInputBody | None = None


class GrantInputBody(_GrantInputBody):
    """A new grant of v1 (schema `EntitlementGrantCreateInput`); nothing rolls over if not asked."""

    expiration: ExpirationBody

    def asked(self) -> GrantInput:
        """The same for the domain."""
        return _grant(self, self.expiration, self.max_rollover or _ZERO, {})


class GrantInputV2Body(_GrantInputBody):
    """A new grant of v2 (schema `EntitlementGrantCreateInputV2`); all rolls over if not asked."""

    expiration: ExpirationBody | None = None
    annotations: dict[str, Any] | None = None

    def asked(self) -> GrantInput:
        """The same for the domain."""
        most = self.amount if self.max_rollover is None else self.max_rollover
        return _grant(self, self.expiration, most, plain_json(self.annotations or {}))


class IssueBody(Wire):
    """What is granted anew in each period (schema `IssueAfterReset`)."""

    amount: Annotated[ExactNumber, Field(ge=0)]
    priority: Annotated[int, Field(ge=1, le=255)] = 1


MeasureFrom = Annotated[
    MeasureUsageFrom | WireInstant | None,
    Field(alias="measureUsageFrom", union_mode="left_to_right"),
]


class _EntitlementInputBody(Wire):
    feature_key: str | None = Field(default=None, alias="featureKey")
    feature_id: str | None = Field(default=None, alias="featureId")
    metadata: dict[str, str] | None = None

    def _common(self, kind: EntitlementKind) -> dict[str, Any]:
        feature = self.feature_id or self.feature_key
        if feature is None:
            raise _invalid("featureKey", "required", "or featureId is required")
        both = self.feature_id is not None
        return {
            "kind": kind,
            "feature": feature,
            "feature_key": self.feature_key if both else None,
            "metadata": self.metadata or {},
        }


class _MeteredInputBody(_EntitlementInputBody):
    type: Literal["metered"]
    is_soft_limit: bool = Field(default=False, alias="isSoftLimit")
    usage_period: RecurringPeriodInputBody = Field(alias="usagePeriod")
    measure_usage_from: MeasureFrom = None
    issue_after_reset: Annotated[ExactNumber | None, Field(alias="issueAfterReset", ge=0)] = None
    issue_priority: Annotated[int | None, Field(alias="issueAfterResetPriority", ge=1, le=255)] = (
        None
    )
    preserve_overage: bool = Field(default=False, alias="preserveOverageAtReset")

    def _metered(
        self, issue: IssueAfterReset | None, grants: Iterable[GrantInput] = ()
    ) -> EntitlementInput:
        return EntitlementInput(
            **self._common(EntitlementKind.METERED),
            usage_period=self.usage_period.asked(),
            measure_usage_from=self.measure_usage_from,
            is_soft_limit=self.is_soft_limit,
            issue_after_reset=issue,
            preserve_overage_at_reset=self.preserve_overage,
            grants=tuple(grants),
        )

    def _issue(self) -> IssueAfterReset | None:
        if self.issue_after_reset is None:
            if self.issue_priority is not None:
                raise _invalid("issueAfterReset", "required", "is needed with its priority")
            return None
        return IssueAfterReset(amount=self.issue_after_reset, priority=self.issue_priority or 1)


class MeteredInputBody(_MeteredInputBody):
    """A new metered entitlement of v1 (schema `EntitlementMeteredCreateInputs`)."""

    is_unlimited: Annotated[
        bool, Field(alias="isUnlimited", description="Means nothing; isSoftLimit does.")
    ] = False

    def asked(self) -> EntitlementInput:
        """The same for the domain."""
        return self._metered(self._issue())


class MeteredInputV2Body(_MeteredInputBody):
    """A new metered entitlement of v2 (schema `EntitlementMeteredV2CreateInputs`)."""

    issue: IssueBody | None = None
    grants: Annotated[list[GrantInputV2Body] | None, Field(max_length=GRANTS_MAX)] = None

    def asked(self) -> EntitlementInput:
        """The same for the domain."""
        issue = self._issue()
        if self.issue is not None:
            wanted = IssueAfterReset(amount=self.issue.amount, priority=self.issue.priority)
            if issue not in (None, wanted):
                message = "and issueAfterReset say different things; send issue alone"
                raise _invalid("issue", "contradiction", message)
            issue = wanted
        return self._metered(issue, (each.asked() for each in self.grants or ()))


class StaticInputBody(_EntitlementInputBody):
    """A new static entitlement (schema `EntitlementStaticCreateInputs`)."""

    type: Literal["static"]
    config: Annotated[str, Field(description="Text of a JSON object; given back as it came.")]
    usage_period: RecurringPeriodInputBody | None = Field(default=None, alias="usagePeriod")

    def asked(self) -> EntitlementInput:
        """The same for the domain."""
        return EntitlementInput(
            **self._common(EntitlementKind.STATIC),
            config=self.config,
            usage_period=_asked(self.usage_period),
        )


class BooleanInputBody(_EntitlementInputBody):
    """A new boolean entitlement (schema `EntitlementBooleanCreateInputs`)."""

    type: Literal["boolean"]
    usage_period: RecurringPeriodInputBody | None = Field(default=None, alias="usagePeriod")

    def asked(self) -> EntitlementInput:
        """The same for the domain."""
        return EntitlementInput(
            **self._common(EntitlementKind.BOOLEAN),
            usage_period=_asked(self.usage_period),
        )


class ResetBody(Wire):
    """A reset by hand (schema `ResetEntitlementUsageInput`)."""

    effective_at: Annotated[
        WireInstant | None,
        Field(
            alias="effectiveAt",
            description="In the current usage period; now if there is none. Kept to the "
            "microsecond.",
        ),
    ] = None
    retain_anchor: Annotated[
        bool | None,
        Field(alias="retainAnchor", description="Whether later periods end where they would have."),
    ] = None
    preserve_overage: Annotated[bool | None, Field(alias="preserveOverage")] = None

    def asked(self, now: datetime) -> Reset:
        """The reset, asked for at an instant."""
        return Reset(
            effective_at=self.effective_at or now,
            retain_anchor=bool(self.retain_anchor),
            preserve_overage=self.preserve_overage,
        )


def _as_sent(value: object) -> object:
    return value


_EntitlementInput = Annotated[
    MeteredInputBody | StaticInputBody | BooleanInputBody, Field(discriminator="type")
]
_EntitlementInputV2 = Annotated[
    MeteredInputV2Body | StaticInputBody | BooleanInputBody, Field(discriminator="type")
]
# Read as plain members, because their numbers are read from the body as it was sent.
EntitlementMembers = Annotated[
    dict[str, Any], BeforeValidator(_as_sent, json_schema_input_type=_EntitlementInput)
]
EntitlementV2Members = Annotated[
    dict[str, Any], BeforeValidator(_as_sent, json_schema_input_type=_EntitlementInputV2)
]
GrantMembers = Annotated[
    dict[str, Any], BeforeValidator(_as_sent, json_schema_input_type=GrantInputBody)
]
GrantV2Members = Annotated[
    dict[str, Any], BeforeValidator(_as_sent, json_schema_input_type=GrantInputV2Body)
]


def read_entitlement_input(raw: bytes) -> EntitlementInput:
    """A new entitlement from a body of v1.

    Raises:
        InvalidInput: every fault that its shape has.
    """
    return _read(raw, MeteredInputBody)


def read_entitlement_input_v2(raw: bytes) -> EntitlementInput:
    """A new entitlement from a body of v2.

    Raises:
        InvalidInput: every fault that its shape has.
    """
    return _read(raw, MeteredInputV2Body)


def read_grant_input(raw: bytes) -> GrantInput:
    """A new grant from a body of v1.

    Raises:
        InvalidInput: every fault that its shape has.
    """
    return read_exact(GrantInputBody, exact_members(raw)).asked()


def read_grant_input_v2(raw: bytes) -> GrantInput:
    """A new grant from a body of v2.

    Raises:
        InvalidInput: every fault that its shape has.
    """
    return read_exact(GrantInputV2Body, exact_members(raw)).asked()


def _read(
    raw: bytes, metered: type[MeteredInputBody] | type[MeteredInputV2Body]
) -> EntitlementInput:
    members = exact_members(raw)
    match members.get("type"):
        case "metered":
            return read_exact(metered, members).asked()
        case "static":
            return read_exact(StaticInputBody, members).asked()
        case "boolean":
            return read_exact(BooleanInputBody, members).asked()
        case _:
            raise _invalid("type", "literal_error", "must be metered, static or boolean")


def _grant(
    body: _GrantInputBody,
    expiration: ExpirationBody | None,
    most: Decimal,
    annotations: dict[str, Any],
) -> GrantInput:
    lasts = None
    if expiration is not None:
        lasts = Expiration(duration=expiration.duration, count=expiration.count)
    return GrantInput(
        amount=body.amount,
        effective_at=body.effective_at,
        priority=body.priority,
        expiration=lasts,
        recurrence=_asked(body.recurrence),
        min_rollover=body.min_rollover or _ZERO,
        max_rollover=most,
        metadata=body.metadata or {},
        annotations=annotations,
    )


def _invalid(name: str, code: str, message: str) -> InvalidInput:
    return InvalidInput((Fault(field=name, code=code, message=message),))
