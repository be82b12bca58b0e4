"""Landing page and API document."""

from tollgate.console.service import ConsoleService
from tollgate.platform.application import Application
from tollgate.platform.target import framework_target

app = Application("console", ConsoleService)
console = framework_target(app)
