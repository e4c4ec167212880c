"""The disk of Windows programs, and what is asked for of the tests."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Iterator

import pytest
from desk import WINE


@pytest.fixture(scope="session")
def wine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of Windows programs: a new disk C:, and no display."""
    folder = tmp_path_factory.mktemp("wine")
    changed = {"WINEPREFIX": str(folder / "prefix"), "WINEDEBUG": "-all", "WINEDLLOVERRIDES": "mscoree,mshtml,winemenubuilder.exe="}
    yield changed
    subprocess.run([WINE, "wineboot", "--kill"], env=os.environ | changed, capture_output=True, timeout=60)
    # Some hundred megabytes, which pytest would keep.
    shutil.rmtree(folder, ignore_errors=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of what was not asked for there is no test, rather than one that is skipped."""
    asked = [item for item in items if "NOTSET" not in item.name]
    config.hook.pytest_deselected(items=[item for item in items if item not in asked])
    items[:] = asked
