"""Takes usage events (CloudEvents) and answers once they are on disk."""

from tollgate.events.api_ingest import IngestService
from tollgate.platform.application import Application
from tollgate.platform.target import framework_target

app = Application("ingest", IngestService)
ingest = framework_target(app)
