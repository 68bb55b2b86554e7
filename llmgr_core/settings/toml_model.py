"""A TOML file as a model: errors name the file and the key."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from llmgr_core.errors import InputError

Model = TypeVar("Model", bound=BaseModel)


def read_toml(path: Path, model: type[Model]) -> Model:
    """Read a file into a model.

    Raises:
        InputError: not there, not TOML, or not such a model.
    """
    try:
        return model.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    except ValidationError as error:
        raise InputError(f"{path}: {wrong_values(error)}") from None


def wrong_values(error: ValidationError) -> str:
    """Every dotted key that does not fit, and why, in one line."""
    return "; ".join(f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors())
