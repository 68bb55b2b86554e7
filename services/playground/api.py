"""What the page asks for, as JSON objects: each method takes one and gives one."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import grpc

from llmgr_core.data.item import Item
from llmgr_core.errors import LlmgrError
from services.client import EmbeddingClient, RankedSession, RankingClient, ServiceError
from services.playground.catalogue import Catalogue

MOST_ITEMS = 1000
FOUND_ITEMS = 12
TEXT_FIELDS = ("title", "description", "brand")
CATEGORY_SEPARATOR = ">"

# What tells the page to ask again.
NOT_YET = HTTPStatus.CONFLICT
STATUS_OF_CODE = {
    grpc.StatusCode.INVALID_ARGUMENT: HTTPStatus.BAD_REQUEST,
    grpc.StatusCode.NOT_FOUND: HTTPStatus.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED: HTTPStatus.TOO_MANY_REQUESTS,
    grpc.StatusCode.CANCELLED: HTTPStatus.SERVICE_UNAVAILABLE,
    grpc.StatusCode.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: HTTPStatus.GATEWAY_TIMEOUT,
}
WORDS_OF_CODE = {
    grpc.StatusCode.UNAVAILABLE: "The {service} service cannot be reached. Is it running? (llmgr serve {service})",
    grpc.StatusCode.DEADLINE_EXCEEDED: "The {service} service did not answer in time.",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "The {service} service has too much to do, or no room left. Try again in a moment.",
    grpc.StatusCode.CANCELLED: "The {service} service has too much to do, or is stopping. Try again in a moment.",
    grpc.StatusCode.UNIMPLEMENTED: "At this address runs another service, not {service}.",
    grpc.StatusCode.UNAUTHENTICATED: "The {service} service wants a token. (--token-file)",
    grpc.StatusCode.PERMISSION_DENIED: "The token is not for this. The {service} service refused.",
}


class PageError(Exception):
    """What the page shows instead of a result.

    Args:
        status: of HTTP.
        message: a sentence for a person.
        field: of the request, where one is to blame.
    """

    def __init__(self, status: HTTPStatus, message: str, field: str = "") -> None:
        super().__init__(message)
        self.status, self.message, self.field = status, message, field


class PlaygroundApi:
    """Calls both services for the page.

    Args:
        ranking, embedding: clients of the two.
        catalogue: titles.
    """

    def __init__(self, ranking: RankingClient, embedding: EmbeddingClient, catalogue: Catalogue) -> None:
        self._ranking, self._embedding, self._catalogue = ranking, embedding, catalogue

    def state(self) -> dict[str, Any]:
        """What the two services are, or why they do not answer."""
        facts: dict[str, Any] = {"titles": len(self._catalogue), "titles_complete": self._catalogue.read_all.is_set()}
        for service, client in (("ranking", self._ranking), ("embedding", self._embedding)):
            try:
                info = client.info(timeout=2.0)
            except ServiceError as error:
                facts[service] = {"address": client.address, "error": words(error, service).message}
            else:
                facts[service] = {
                    "address": client.address,
                    "items": info.items,
                    "sequence": info.sequence,
                    "model_version": info.model_version[:12],
                }
        return facts

    def find(self, query: str) -> dict[str, Any]:
        """Items to click on."""
        found = self._catalogue.search(query, FOUND_ITEMS) if query.strip() else self._catalogue.some(FOUND_ITEMS)
        return {"items": [shown(item.item_id, item) for item in found]}

    def rank(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The ranking after a session, with the places of items that the page wants to follow."""
        item_ids, followed = texts(given, "item_ids"), texts(given, "followed")
        top_k = whole_number(given, "top_k", 1, MOST_ITEMS, default=20)
        include_seen = given.get("include_seen")
        if include_seen not in (None, True, False):
            raise PageError(HTTPStatus.BAD_REQUEST, "include_seen is yes, no or unset", "include_seen")
        # Followed items may stand far down; the most that the server gives is asked for once, and cut here.
        asked = MOST_ITEMS if followed else top_k
        started = time.perf_counter()
        try:
            ranking = self._ranking.rank(
                item_ids,
                top_k=asked,
                include_seen=include_seen,
                min_sequence=whole_number(given, "min_sequence", 0, (1 << 63) - 1, default=0),
            )
        except ServiceError as error:
            raise words(error, "ranking") from None
        milliseconds = (time.perf_counter() - started) * 1e3
        return self._ranking_shown(ranking, top_k, followed, milliseconds)

    def insert(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Insert an item, under a new id where none is given."""
        fields = {name: text(given, name) for name in ("item_id", *TEXT_FIELDS, "category")}
        item_id = fields["item_id"] or f"new-{secrets.token_hex(4)}"
        path = tuple(part.strip() for part in fields["category"].split(CATEGORY_SEPARATOR) if part.strip())
        title, description, brand = (fields[name] or None for name in TEXT_FIELDS)
        item = Item(item_id, title, description, brand, (path,) if path else ())
        started = time.perf_counter()
        try:
            stored = self._embedding.embed(item)
        except ServiceError as error:
            raise words(error, "embedding") from None
        except LlmgrError as error:
            raise PageError(HTTPStatus.BAD_REQUEST, str(error.args[0])) from None
        self._catalogue.keep(item)
        return {
            "item": shown(item_id, item),
            "sequence": stored.sequence,
            "cached": stored.cached,
            "model_ms": stored.timing.model_ms,
            "server_ms": stored.timing.total_ms,
            "ms": (time.perf_counter() - started) * 1e3,
        }

    def delete(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Take an item out of every ranking."""
        item_id = text(given, "item_id")
        try:
            deleted = self._embedding.delete(item_id)
        except ServiceError as error:
            raise words(error, "embedding") from None
        self._catalogue.forget(item_id)
        return {"item_id": item_id, "sequence": deleted.sequence}

    def _ranking_shown(self, ranking: RankedSession, top_k: int, followed: list[str], milliseconds: float) -> dict[str, Any]:
        places = {one.item_id: place for place, one in enumerate(ranking.items, 1)}
        rows = [
            {
                **shown(one.item_id, self._catalogue.item(one.item_id)),
                "place": places[one.item_id],
                "probability": one.probability,
                "score": one.score,
            }
            for place, one in enumerate(ranking.items, 1)
            if place <= top_k or one.item_id in followed
        ]
        return {
            "items": rows,
            "beyond": [one for one in followed if one not in places],
            "searched": len(ranking.items),
            "unknown_item_ids": list(ranking.unknown_item_ids),
            "fallback": ranking.fallback,
            "model_version": ranking.model_version[:12],
            "sequence": ranking.sequence,
            "server_ms": ranking.timing.total_ms,
            "model_ms": ranking.timing.model_ms,
            "ms": milliseconds,
        }


def shown(item_id: str, item: Item | None) -> dict[str, Any]:
    """What the page shows of an item."""
    if item is None:
        return {"item_id": item_id, "title": "", "brand": "", "category": ""}
    path = f" {CATEGORY_SEPARATOR} ".join(item.categories[0]) if item.categories else ""
    return {"item_id": item_id, "title": item.title or "", "brand": item.brand or "", "category": path}


def words(error: ServiceError, service: str) -> PageError:
    """A failed call in words for a person."""
    status = STATUS_OF_CODE.get(error.code, HTTPStatus.BAD_GATEWAY)
    if error.reason == "SEQUENCE_NOT_REACHED":
        return PageError(NOT_YET, f"The {service} service does not know of the newest change yet.")
    field = error.violations[0].field if error.violations else ""
    sentence = WORDS_OF_CODE.get(error.code)
    if sentence is None or error.reason == "STORE_FULL":
        return PageError(status, error.details or f"The {service} service failed ({error.code.name}).", field)
    return PageError(status, sentence.format(service=service), field)


def text(given: Mapping[str, Any], name: str) -> str:
    """A text of a request, "" where it is missing."""
    value = given.get(name) or ""
    if not isinstance(value, str):
        raise PageError(HTTPStatus.BAD_REQUEST, f"{name} is no text", name)
    return value.strip()


def texts(given: Mapping[str, Any], name: str) -> list[str]:
    """A list of texts of a request, empty where it is missing."""
    value = given.get(name) or []
    if not isinstance(value, list) or len(value) > MOST_ITEMS or not all(isinstance(one, str) for one in value):
        raise PageError(HTTPStatus.BAD_REQUEST, f"{name} is no list of at most {MOST_ITEMS} texts", name)
    return value


def whole_number(given: Mapping[str, Any], name: str, least: int, most: int, *, default: int) -> int:
    """A whole number of a request."""
    value = given.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise PageError(HTTPStatus.BAD_REQUEST, f"{name} is no whole number from {least} to {most}", name)
    return value
