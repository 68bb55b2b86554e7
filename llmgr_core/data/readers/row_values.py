"""What one value of one row means; the definition that columns.py follows for whole columns."""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from typing import Any

from llmgr_core.data.readers.bad_rows import BadRow, RowError
from llmgr_core.data.readers.fields import Record

BLANKS = " \t\r\n"
NOT_A_NUMBER_TEXTS = ("nan", "NaN")
NO_TEXT = ("", *NOT_A_NUMBER_TEXTS, "null", "NULL")
PATH_SEPARATORS = (">", "|")


def id_value(value: Any, name: str) -> str:
    """An id: any text that is not blank, or a whole number.

    Raises:
        RowError: anything else.
    """
    if value is None or (isinstance(value, str) and not value.strip(BLANKS)):
        raise RowError(BadRow.MISSING_ID, name)
    if isinstance(value, str):
        if value in NOT_A_NUMBER_TEXTS:
            raise RowError(BadRow.NOT_A_NUMBER, name)
        return _sound(value, name)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise RowError(BadRow.NOT_A_NUMBER, name)
        if value.is_integer() and abs(value) < 2**53:
            return str(int(value))
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise RowError(BadRow.WRONG_TYPE, f"{name} is {_type_name(value)}")


def text_value(value: Any, name: str) -> str | None:
    """Free text; blank, null and NaN are no text, a list of texts is one text, a whole number is its digits.

    Raises:
        RowError: anything else.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str):
        return None if value.strip(BLANKS) in NO_TEXT else _sound(value, name)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, list) and all(one is None or isinstance(one, str) for one in value):
        return text_value(" ".join(one for one in value if one), name)
    raise RowError(BadRow.WRONG_TYPE, f"{name} is {_type_name(value)}")


def categories_value(value: Any) -> list[list[str]]:
    """Category paths: a list of paths, one path as a list, or one as text ("A > B", "A|B", or a list written as text).

    Raises:
        RowError: anything else.
    """
    if isinstance(value, str):
        value = _path_in_text(_sound(value, "categories"))
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return []
    if not isinstance(value, list):
        raise RowError(BadRow.WRONG_TYPE, f"categories is {_type_name(value)}")
    paths = value if any(isinstance(one, list) for one in value) else [value]
    cleaned = []
    for path in paths:
        if not isinstance(path, list):
            raise RowError(BadRow.WRONG_TYPE, "categories mixes texts and lists")
        names = [text_value(name, "categories") for name in path]
        if kept := [name for name in names if name]:
            cleaned.append(kept)
    return cleaned


def attributes_value(value: Any) -> dict[str, str]:
    """Named facts, by name; empty ones are left out, a list of texts is joined by commas.

    Raises:
        RowError: not an object.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip(BLANKS) not in NO_TEXT else None
        except (ValueError, RecursionError):
            raise RowError(BadRow.WRONG_TYPE, "attributes is text, but not a JSON object") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise RowError(BadRow.WRONG_TYPE, f"attributes is {_type_name(value)}")
    facts = {}
    for name in sorted(value):
        fact = _fact(value[name])
        if name and fact and fact.strip(BLANKS) not in NO_TEXT:
            facts[_sound(name, "attributes")] = _sound(fact, "attributes")
    return facts


def time_value(value: Any) -> float:
    """Seconds, or whatever unit the numbers are in; ISO 8601 text is seconds since 1970, UTC where it names no zone.

    Raises:
        RowError: anything else.
    """
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            try:
                value = datetime.fromisoformat(value.strip(BLANKS))
            except ValueError:
                raise RowError(BadRow.WRONG_TYPE, "timestamp is neither a number nor an ISO 8601 time") from None
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    if isinstance(value, datetime):
        value = (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RowError(BadRow.WRONG_TYPE, f"timestamp is {_type_name(value)}")
    if not math.isfinite(value):
        raise RowError(BadRow.NOT_A_NUMBER, "timestamp")
    return float(value)


def row_values(record: Record, fields: Mapping[str, Any]) -> dict[str, Any]:
    """One row in the form of ``columns.schema(record)``.

    Args:
        record: what the row is.
        fields: value of each field that the file has.

    Raises:
        RowError: the row cannot be used.
    """
    return _READERS[record](fields)


def _item(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "item_id": id_value(fields.get("item_id"), "item_id"),
        **{name: text_value(fields.get(name), name) for name in ("title", "description", "brand")},
        "categories": categories_value(fields.get("categories")),
        "attributes": list(attributes_value(fields.get("attributes")).items()),
    }


def _session(fields: Mapping[str, Any]) -> dict[str, Any]:
    items = _ids(fields.get("items"))
    values: dict[str, Any] = {"session_id": None, "items": items, "timestamps": None}
    if "session_id" in fields:
        values["session_id"] = id_value(fields["session_id"], "session_id")
    if "timestamps" in fields:
        times = fields["timestamps"]
        if not isinstance(times, list):
            raise RowError(BadRow.WRONG_TYPE, f"timestamps is {_type_name(times)}")
        if len(times) != len(items):
            raise RowError(BadRow.WRONG_TYPE, f"{len(times)} timestamps for {len(items)} items")
        values["timestamps"] = [time_value(one) for one in times]
    return values


def _click(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "session_id": id_value(fields.get("session_id"), "session_id"),
        "item_id": id_value(fields.get("item_id"), "item_id"),
        "timestamp": time_value(fields["timestamp"]) if "timestamp" in fields else None,
    }


def _example(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {"items": _ids(fields.get("items")), "target": id_value(fields.get("target"), "target")}


_READERS: dict[Record, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    Record.ITEM: _item,
    Record.SESSION: _session,
    Record.CLICK: _click,
    Record.EXAMPLE: _example,
}


def _ids(value: Any) -> list[str]:
    if value is None or value == []:
        raise RowError(BadRow.EMPTY_SESSION, "no items")
    if not isinstance(value, list):
        raise RowError(BadRow.WRONG_TYPE, f"items is {_type_name(value)}")
    return [id_value(one, "items") for one in value]


def _path_in_text(text: str) -> Any:
    text = text.strip(BLANKS)
    if text in NO_TEXT:
        return None
    if text.startswith("[") and text.endswith("]"):
        for parse in (json.loads, ast.literal_eval):
            try:
                return parse(text)
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
    separator = next((one for one in PATH_SEPARATORS if one in text), None)
    return [part.strip(BLANKS) for part in text.split(separator)] if separator else [text]


def _fact(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return None if isinstance(value, float) and not math.isfinite(value) else str(value)
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return ", ".join(one for one in value if one)
    return json.dumps(value, ensure_ascii=False, default=str)


def _sound(text: str, name: str) -> str:
    if "\0" in text:
        raise RowError(BadRow.NUL, name)
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise RowError(BadRow.INVALID_UTF8, name) from None
    return text


def _type_name(value: Any) -> str:
    names = {str: "text", bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return "missing" if value is None else names.get(type(value), type(value).__name__)
