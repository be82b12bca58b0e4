"""Fixtures of `tests.support.replaying`; a test module names this one in its `pytest_plugins`."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.support.loading import NewStage, Stage
from tollgate.platform.event_log import ARCHIVE, LOADER
from tollgate.platform.objects_folder import FolderObjects
from tollgate.platform.segment_log import SegmentLog


@pytest.fixture
def new_stage(stages: NewStage) -> NewStage:
    """Makes stages whose logs wait for archivers, too."""

    @contextmanager
    def open_stage() -> Iterator[Stage]:
        with stages() as stage:
            stage.log.close()
            readers = (LOADER, ARCHIVE)
            with closing(SegmentLog(stage.log.path, stage.clock, readers=readers)) as stage.log:
                yield stage

    return open_stage


@pytest.fixture
def objects(tmp_path: Path) -> FolderObjects:
    return FolderObjects(tmp_path / "objects")
