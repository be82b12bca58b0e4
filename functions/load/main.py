"""Moves events from the log into ClickHouse, each counted once."""

from tollgate.events.load_service import LoadService
from tollgate.platform.application import Application
from tollgate.platform.target import framework_target

app = Application("load", LoadService)
load = framework_target(app)
