"""Whether a customer may use features now, and what is held for it."""

from tollgate.limits.limits_service import LimitsService
from tollgate.platform.application import Application
from tollgate.platform.target import framework_target

app = Application("limits", LimitsService)
limits = framework_target(app)
