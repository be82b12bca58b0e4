"""The service of `functions/entitlements`: features, and who may use how much of them."""

import importlib

from tollgate.platform.api import ApiService, Operation
from tollgate.platform.parts import Parts

_MODULES = (
    "tollgate.limits.api_features_v1",
    "tollgate.limits.api_features_v3",
    "tollgate.limits.api_features_cost_v3",
    "tollgate.limits.api_entitlements_v1",
    "tollgate.limits.api_subject_entitlements_v1",
    "tollgate.limits.api_entitlements_v2",
)


def entitlements_operations() -> tuple[Operation, ...]:
    """All operations that the entitlements function serves."""
    found: list[Operation] = []
    for name in _MODULES:
        found += importlib.import_module(name).OPERATIONS
    return tuple(found)


class EntitlementsService(ApiService):
    """Serves the operations."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts, entitlements_operations())
