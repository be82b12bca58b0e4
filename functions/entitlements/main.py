"""Features, and who may use how much of them."""

from tollgate.limits.service import EntitlementsService
from tollgate.platform.application import Application
from tollgate.platform.target import framework_target

app = Application("entitlements", EntitlementsService)
entitlements = framework_target(app)
