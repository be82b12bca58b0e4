"""Meters, usage queries, events, the ledger."""

from tollgate.metering.service import UsageService
from tollgate.platform.application import Application
from tollgate.platform.target import framework_target

app = Application("usage", UsageService)
usage = framework_target(app)
