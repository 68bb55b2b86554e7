"""A wheel is taken only if it is the expected file, and only what was asked for leaves it."""

from __future__ import annotations

import dataclasses
import subprocess
import zipfile
from pathlib import Path

import pytest
from made_wheels import MakeWheel

from llmgr_core.downloads.wheels import Wheel, fetched_wheel, unpack
from llmgr_core.errors import InputError


def test_members_of_a_wheel_are_unpacked_and_the_wheel_is_gone_afterwards(make_wheel: MakeWheel, tmp_path: Path) -> None:
    wheel = make_wheel("demo_data", {"demo_data/a/b.txt": b"content", "demo_data/other.txt": b"x"})
    with fetched_wheel(wheel) as path:
        unpack(path, {"demo_data/a/b.txt": "sub/b.txt"}, tmp_path)
    assert (tmp_path / "sub" / "b.txt").read_bytes() == b"content"
    assert not list(tmp_path.rglob("other.txt"))
    assert not path.exists()


def test_another_file_than_expected_is_refused_with_both_hashes(make_wheel: MakeWheel) -> None:
    wheel = make_wheel("demo_data", {"demo_data/a.txt": b"content"})
    expected = dataclasses.replace(wheel, sha256="0" * 64)
    with pytest.raises(InputError) as caught, fetched_wheel(expected):
        pass
    assert "demo_data-1.0-py3-none-any.whl" in str(caught.value)
    assert "0" * 64 in str(caught.value)
    assert wheel.sha256 in str(caught.value)


def test_a_wheel_that_pip_cannot_find_is_an_error_with_a_way_out(make_wheel: MakeWheel) -> None:
    with (
        pytest.raises(InputError, match=r"pip could not download missing==9\.9") as caught,
        fetched_wheel(Wheel("missing", "9.9", "")),
    ):
        pass
    assert "PIP_INDEX_URL" in str(caught.value)


def test_a_python_without_pip_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_pip(*_: object, **__: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], 1, "", "/bin/python: No module named pip")

    monkeypatch.setattr(subprocess, "run", no_pip)
    with pytest.raises(InputError, match="ensurepip"), fetched_wheel(Wheel("any", "1", "")):
        pass


@pytest.mark.parametrize("relative", ["../out.txt", "/etc/out.txt", "a/../../out.txt"])
def test_nothing_is_written_outside_the_target(relative: str, tmp_path: Path) -> None:
    archive = tmp_path / "a.whl"
    with zipfile.ZipFile(archive, "w") as stream:
        stream.writestr("m", b"x")
    target = tmp_path / "target"
    target.mkdir()
    with pytest.raises(InputError, match="outside"):
        unpack(archive, {"m": relative}, target)
    assert not (tmp_path / "out.txt").exists()


def test_a_missing_member_is_named(tmp_path: Path) -> None:
    archive = tmp_path / "a.whl"
    with zipfile.ZipFile(archive, "w") as stream:
        stream.writestr("m", b"x")
    with pytest.raises(InputError, match=r"no member.*other"):
        unpack(archive, {"other": "o"}, tmp_path)


@pytest.mark.parametrize("damage", ["cut", "flipped", "no zip at all"])
def test_a_damaged_archive_is_an_error_and_not_a_file(damage: str, tmp_path: Path) -> None:
    archive = tmp_path / "a.whl"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as stream:
        stream.writestr("m", bytes(range(256)) * 50)
    content = bytearray(archive.read_bytes())
    if damage == "flipped":
        content[60] ^= 0xFF
    archive.write_bytes({"cut": bytes(content[:100]), "flipped": bytes(content), "no zip at all": b"<html>"}[damage])
    with pytest.raises(InputError, match="damaged"):
        unpack(archive, {"m": "m"}, tmp_path)
