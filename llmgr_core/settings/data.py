"""Settings of section [data]."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from llmgr_core.settings.section import Section


class DataSettings(Section):
    """Section [data]: what to read, and how it is filtered and split.

    Attributes:
        source: a data set fetched by `llmgr data` ("movielens-100k"), or a directory with items.* and sessions.*.
        split: "leave-one-out" (last click of a session = test, second-to-last = validation), "time" (one cut in time for all
            sessions), "given" (a test file), "auto" ("given" where there is a test file, else "leave-one-out").
        min_item_clicks, min_session_clicks: k-core filter, repeated until nothing changes; 1 keeps everything. Unset: 5,
            or 1 with a test file, whose maker has already chosen.
        validation_share: "time": share of all clicks in the validation period; "given": share of sessions kept for validation.
        test_share: "time": share of all clicks in the test period.
        heldout_share: share of items never shown in training; they play the brand-new items.
        items: "clicked" ranks the items that pass the filter, "all" every item of the item file.
        bad_rows: "skip" counts and leaves out rows that cannot be used, "fail" stops at the first.
        max_bad_share: stop when more than this share of a file's rows is bad, even with "skip".
        fields: names of your columns where they differ from ours, for example {item_id = "sku", title = "name"}.
        chunk_bytes: bytes of input held at a time.
        workers: processes that clean text; 0: one for each CPU core.
    """

    source: str = ""
    split: Literal["auto", "leave-one-out", "time", "given"] = "auto"
    min_item_clicks: int | None = Field(default=None, ge=1)
    min_session_clicks: int | None = Field(default=None, ge=1)
    validation_share: float = Field(default=0.1, ge=0.0, lt=1.0)
    test_share: float = Field(default=0.1, gt=0.0, lt=1.0)
    heldout_share: float = Field(default=0.0, ge=0.0, le=0.5)
    items: Literal["clicked", "all"] = "clicked"
    bad_rows: Literal["skip", "fail"] = "skip"
    max_bad_share: float = Field(default=0.1, ge=0.0, le=1.0)
    fields: dict[str, str] = Field(default_factory=dict)
    chunk_bytes: int = Field(default=16 * 2**20, ge=64, le=2**30)
    workers: int = Field(default=0, ge=0, le=256)
