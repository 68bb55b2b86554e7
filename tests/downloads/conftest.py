"""A home directory of its own for every test here, and wheels made on the spot that pip serves from a directory."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from made_wheels import MakeWheel

from llmgr_core.downloads.wheels import Wheel
from llmgr_core.progress import Reporter


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLMGR_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("LLMGR_DATA", raising=False)
    return tmp_path / "home"


@pytest.fixture
def make_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeWheel:
    """Makes a wheel of the given members; pip finds it, and nothing else, without a network."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))

    def make(name: str, members: Mapping[str, bytes]) -> Wheel:
        path = shelf / f"{name}-1.0-py3-none-any.whl"
        info = f"{name}-1.0.dist-info"
        with zipfile.ZipFile(path, "w") as archive:
            for member, content in members.items():
                archive.writestr(member, content)
            archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
            archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            archive.writestr(f"{info}/RECORD", "")
        return Wheel(name, "1.0", hashlib.sha256(path.read_bytes()).hexdigest())

    return make


@pytest.fixture
def reporter() -> Reporter:
    return Reporter(as_json=True)
