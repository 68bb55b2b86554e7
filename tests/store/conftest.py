"""A disk that is soon full."""

import pytest
from small_disk import small_disk_at


@pytest.fixture
def small_disk(tmp_path):
    """Directory on a file system of 6 MB of its own."""
    with small_disk_at(tmp_path / "small") as directory:
        yield directory
