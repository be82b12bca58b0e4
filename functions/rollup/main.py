"""Checks the ledger, seals hours, builds and keeps rollups."""

from tollgate.metering.rollup_service import RollupService
from tollgate.platform.application import Application
from tollgate.platform.target import framework_target

app = Application("rollup", RollupService)
rollup = framework_target(app)
