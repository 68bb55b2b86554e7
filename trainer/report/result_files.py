"""The committed result files: reading them, and what each says about how it came about."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from llmgr_core.errors import InputError


@dataclass(frozen=True)
class Provenance:
    """What a reader must know to repeat a result; None for what the file does not say.

    Attributes:
        protocol: how it was measured.
        seed: of the run, or all seeds, as text.
        commit: of the source tree.
        machine: processor and cores, as text.
        command: as it was typed.
    """

    protocol: Any
    seed: str | None
    commit: str | None
    machine: str | None
    command: str | None

    @classmethod
    def of(cls, result: dict[str, Any]) -> Provenance:
        """Evaluations keep the facts inside their protocol, benchmarks beside it."""
        protocol = result.get("protocol")
        inside = protocol if isinstance(protocol, dict) else {}
        facts = {**inside, **result}
        seeds = facts.get("seeds") or facts.get("seed")
        named = seeds if isinstance(seeds, list) or seeds is None else [seeds]
        command = facts.get("command")
        machine = facts.get("machine")
        return cls(
            protocol=protocol or None,
            seed=None if named is None else ", ".join(str(seed) for seed in named),
            commit=facts.get("commit") or None,
            machine=_named(machine) if isinstance(machine, dict) else None,
            command=command if isinstance(command, str) or command is None else shlex.join(command),
        )

    def missing(self) -> tuple[str, ...]:
        """Names of the facts that are not there."""
        return tuple(one.name for one in fields(self) if getattr(self, one.name) is None)


class ResultFiles:
    """JSON files of one directory, read once each.

    Args:
        directory: where they stand.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._read: dict[str, dict[str, Any]] = {}

    def names(self) -> list[str]:
        """Every result file, in the order of their names."""
        return sorted(path.name for path in self.directory.glob("*.json"))

    def exists(self, name: str) -> bool:
        return (self.directory / name).is_file()

    def __getitem__(self, name: str) -> dict[str, Any]:
        """
        Raises:
            InputError: missing, or not a JSON object.
        """
        if name not in self._read:
            path = self.directory / name
            try:
                value = json.loads(path.read_text(encoding="utf-8"))
            except FileNotFoundError:
                raise InputError(f"no result file {path}", "restore it, or take its block off the page") from None
            except (OSError, ValueError) as error:
                raise InputError(f"{path} cannot be read: {error}") from None
            if not isinstance(value, dict):
                raise InputError(f"{path} holds no JSON object")
            self._read[name] = value
        return self._read[name]

    def at(self, name: str, place: Sequence[str | int | dict[str, Any]]) -> Any:
        """The value at a place of a file: keys one after another; a table picks the first list entry that has its values.

        Raises:
            InputError: nothing stands there.
        """
        value: Any = self[name]
        for step in place:
            found = None
            if isinstance(step, dict) and isinstance(value, list):
                wanted = step.items()
                found = next((one for one in value if all(one.get(key) == wish for key, wish in wanted)), None)
            elif isinstance(value, dict):
                found = value.get(step)
            elif isinstance(value, list) and isinstance(step, int) and -len(value) <= step < len(value):
                found = value[step]
            if found is None:
                raise InputError(f"{name} holds nothing at {list(place)} (lost at {step!r})")
            value = found
        return value


def _named(machine: dict[str, Any]) -> str | None:
    """Processor, cores and GPU; None where the first two are not all there."""
    if "processor" not in machine or "cores" not in machine:
        return None
    named = f"{machine['processor']}, {machine['cores']} cores"
    return f"{named}, {machine['gpu']}" if machine.get("gpu") else named
