"""Reading a TOML file and ``section.key=value`` overrides into Settings."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from llmgr_core.errors import SettingsError
from llmgr_core.settings.root import Settings
from llmgr_core.settings.toml_model import wrong_values


def load_settings(config: Path | None = None, overrides: Iterable[str] = ()) -> Settings:
    """Defaults, then the file, then the overrides.

    Args:
        config: a TOML file, or None for the defaults alone.
        overrides: texts like ``"pretrain.epochs=3"``; the right side is read as a TOML value, else as a plain string.

    Raises:
        SettingsError: unreadable file, unknown key (the message names the nearest known one) or a value out of bounds.
    """
    values: dict[str, Any] = {}
    if config is not None:
        try:
            values = tomllib.loads(config.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise SettingsError(f"no configuration file {config}", "see configs/ for examples") from None
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise SettingsError(f"{config} cannot be read: {error}") from None
    for override in overrides:
        _apply_override(values, override)
    _check_keys(values, Settings, "", str(config) if config else "--set")
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise SettingsError(f"settings that cannot be used: {wrong_values(error)}") from None


def known_keys() -> list[str]:
    """Every key that can be set, dotted, in file order."""
    return list(_dotted_keys(Settings, ""))


def _apply_override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise SettingsError(f"--set {override!r} is not of the form section.key=value", "for example --set pretrain.epochs=3")
    table = values
    for number, part in enumerate(parts[:-1]):
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise SettingsError(f"--set {override!r}: {'.'.join(parts[: number + 1])} is a value, not a table")
    table[parts[-1]] = _toml_value(text.strip())


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _section_class(model: type[BaseModel], key: str) -> type[BaseModel] | None:
    annotation = model.model_fields[key].annotation
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _dotted_keys(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for key in model.model_fields:
        section = _section_class(model, key)
        if section is None:
            yield prefix + key
        else:
            yield from _dotted_keys(section, f"{prefix}{key}.")


def _check_keys(values: dict[str, Any], model: type[BaseModel], prefix: str, source: str) -> None:
    for key, value in values.items():
        dotted = prefix + key
        if key not in model.model_fields:
            near = difflib.get_close_matches(key, model.model_fields, n=1)
            near = [prefix + name for name in near] or difflib.get_close_matches(dotted, known_keys(), n=1, cutoff=0.4)
            near += [known for known in known_keys() if known.rsplit(".", 1)[-1] == key]
            raise SettingsError(
                f"{source}: unknown key {dotted}", f"did you mean {near[0]}?" if near else "`llmgr settings` lists every key"
            )
        section = _section_class(model, key)
        if section is not None:
            if not isinstance(value, dict):
                raise SettingsError(f"{source}: {dotted} is a table of keys, not a value")
            _check_keys(value, section, dotted + ".", source)
