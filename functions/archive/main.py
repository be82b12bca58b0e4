"""Copies the log's records and the ledger's times into object storage, each once."""

from tollgate.events.archive_service import ArchiveService
from tollgate.platform.application import Application
from tollgate.platform.target import framework_target

app = Application("archive", ArchiveService)
archive = framework_target(app)
