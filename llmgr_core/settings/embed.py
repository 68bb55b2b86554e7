"""Settings of section [embed]."""

from __future__ import annotations

from pydantic import Field

from llmgr_core.settings.section import Section


class EmbedSettings(Section):
    """Section [embed]: embedding the catalogue, and the limits of the embedding server.

    Attributes:
        commit_texts: texts that `llmgr embed` embeds between two durable writes; what is lost when it is cut off.
        max_item_id_bytes: longest item id the server takes, in bytes of UTF-8.
        max_text_bytes: largest item the server takes, all its text together, in bytes of UTF-8. The language model reads
            some hundred bytes of it; more is a mistake in the catalogue, and cleaning it would hold other requests up.
        max_queued_texts: new texts of single calls that may wait for the language model; the next one is refused with
            RESOURCE_EXHAUSTED.
        max_stream_items: items of one EmbedItems stream that are worked on at a time; further ones wait unread.
        max_stream_bytes: size of the items, as they were sent, that all EmbedItems streams together have in work; further ones
            wait unread. In memory an item takes about ten times its size while it is in work. One larger than this is in
            work alone.
        max_call_bytes: size of the items, as they are stored, that all EmbedItem calls together have in work; the next one is
            refused with RESOURCE_EXHAUSTED. An unchanged item takes no room. One larger than this is in work alone.
        commit_group: items that one durable write may hold; concurrent inserts share it.
        fill_missing: let the server embed, in the background, every item of the store that lacks a vector of the active one, or
            only items that lost theirs to a repair or have none of any encoder, so that what `llmgr embed` left out on
            purpose (--below, --stale-after) stays so. A next encoder (serve embedding --next-bundle) is always filled.
        prune_hours: hours between two prunings by the server (see `llmgr store prune`); 0 leaves it to the command.
        keep_changes: newest changes of the log that a pruning leaves whole.
        metrics_port: port of the embedding server's Prometheus page, on loopback only; 0 takes any free port, -1 has none.
    """

    commit_texts: int = Field(default=512, ge=1, le=65_536)
    max_item_id_bytes: int = Field(default=512, ge=1, le=4096)
    max_text_bytes: int = Field(default=256 << 10, ge=1 << 10, le=8 << 20)
    max_queued_texts: int = Field(default=1024, ge=1, le=1_000_000)
    max_stream_items: int = Field(default=256, ge=1, le=65_536)
    max_stream_bytes: int = Field(default=32 << 20, ge=1 << 10, le=1 << 40)
    max_call_bytes: int = Field(default=32 << 20, ge=1 << 10, le=1 << 40)
    commit_group: int = Field(default=256, ge=1, le=65_536)
    fill_missing: bool = False
    prune_hours: float = Field(default=24.0, ge=0.0, le=8760.0)
    keep_changes: int = Field(default=100_000, ge=0)
    metrics_port: int = Field(default=9465, ge=-1, le=65535)
