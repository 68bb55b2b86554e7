"""Does LLMGR suit this data, and which settings follow from it?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from llmgr_core.data.preparation import Prepared
from llmgr_core.sessions import Sessions

TAIL_CLICKS = 10
# Fewer words than this are an id or a label; more than this and text tells items apart by itself.
POOR_WORDS, RICH_WORDS = 3, 8
BUCKETS = {"0": (0, 0), "1-4": (1, 4), "5-10": (5, 10), "11-49": (11, 49), "50+": (50, None)}


def fit_report(directory: Path, prepared: Prepared, raw_facts: dict[str, Any]) -> dict[str, Any]:
    """Figures, findings and settings.

    Clicks are counted in the training sessions only; texts are those of all items.

    Args:
        directory: the data set, with texts already cleaned.
        prepared: its clicks.
        raw_facts: RawInput.facts.

    Returns:
        JSON-able: ``figures`` (name to number), ``findings`` (a list of ``topic``, ``figure``, ``verdict`` "good" | "fair" |
        "poor" and ``meaning``), ``settings`` (a list of ``key``, ``value``, ``why``), ``suits`` ("yes" | "partly" | "no").
    """
    train = prepared.split.train
    counts = train.click_counts(prepared.protocol["num_items"])
    figures = {
        **_text_figures(directory),
        **_click_figures(train, counts, prepared.split.test.targets),
        "items_read": raw_facts["num_items"],
        "items_kept": len(counts),
        "repeat_share": prepared.protocol["repeat_share"],
    }
    findings = _findings(figures)
    text, tail = findings[0]["verdict"], findings[1]["verdict"]
    suits = "no" if text == "poor" else "yes" if text == "good" and tail == "good" else "partly"
    return {"suits": suits, "findings": findings, "settings": _settings(figures, prepared.protocol), "figures": figures}


def table(report: dict[str, Any]) -> str:
    """The report for people, as text."""
    rows = [(one["topic"], one["figure"], one["verdict"], one["meaning"]) for one in report["findings"]]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [f"Does LLMGR suit this data: {report['suits']}", ""]
    lines += ["  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]) for row in rows]
    lines += ["", "Settings that follow:"]
    lines += [f"  {one['key']} = {one['value']}  ({one['why']})" for one in report["settings"]]
    return "\n".join(lines)


def _text_figures(directory: Path) -> dict[str, Any]:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    words, brands, categories, descriptions = [], 0, 0, 0
    digests: list[npt.NDArray[np.int64]] = []
    with pq.ParquetFile(directory / "texts.parquet") as file:
        for batch in file.iter_batches():
            column = batch.column("text")
            count = pc.add(pc.count_substring(column, " "), 1)
            words.append(pc.fill_null(count, 0).to_numpy(zero_copy_only=False))
            known = column.drop_null()
            digests.append(np.array([hash(text) for text in known.to_pylist()], dtype=np.int64))
    with pq.ParquetFile(directory / "items.parquet") as file:
        for batch in file.iter_batches(columns=["description", "brand", "categories"]):
            descriptions += len(batch) - batch.column("description").null_count
            brands += len(batch) - batch.column("brand").null_count
            paths = pc.fill_null(pc.list_value_length(batch.column("categories")), pa.scalar(0, pa.int32()))
            categories += pc.sum(pc.greater(paths, 0)).as_py() or 0
    every, texts = np.concatenate(words), np.concatenate(digests)
    total = len(every)
    return {
        "items_with_text": float((every > 0).mean()),
        "words_median": float(np.median(every)),
        "words_p90": float(np.quantile(every, 0.9)),
        "items_with_description": descriptions / total,
        "items_with_brand": brands / total,
        "items_with_category": categories / total,
        "texts_shared": 1 - len(np.unique(texts)) / len(texts) if len(texts) else 0.0,
    }


def _click_figures(train: Sessions, counts: npt.NDArray[np.int64], targets: npt.NDArray[np.int32]) -> dict[str, Any]:
    lengths = train.lengths
    ranked = np.sort(counts)[::-1]
    clicks = int(counts.sum())

    def within(bounds: tuple[int, int | None], values: npt.NDArray[np.int64]) -> float:
        low, high = bounds
        return float(((values >= low) & (values <= (high if high is not None else values))).mean()) if len(values) else 0.0

    return {
        "train_sessions": len(train),
        "train_clicks": clicks,
        "items_without_clicks": within((0, 0), counts),
        "tail_items": within((0, TAIL_CLICKS), counts),
        "tail_targets": within((0, TAIL_CLICKS), counts[targets]),
        "items_by_clicks": {name: within(bounds, counts) for name, bounds in BUCKETS.items()},
        "targets_by_clicks": {name: within(bounds, counts[targets]) for name, bounds in BUCKETS.items()},
        "clicks_on_top_tenth": float(ranked[: max(len(ranked) // 10, 1)].sum() / max(clicks, 1)),
        "clicks_per_item": clicks / len(counts),
        "density": clicks / (len(train) * len(counts)),
        "length_median": float(np.median(lengths)),
        "length_p95": float(np.quantile(lengths, 0.95)),
        "length_longest": int(lengths.max()),
    }


def _findings(figures: dict[str, Any]) -> list[dict[str, str]]:
    def finding(topic: str, figure: str, verdict: str, meaning: str) -> dict[str, str]:
        return {"topic": topic, "figure": figure, "verdict": verdict, "meaning": meaning}

    with_text, words = figures["items_with_text"], figures["words_median"]
    if with_text < 0.5 or words < POOR_WORDS:
        text = ("poor", "there is too little for a language model to read; a model of ids alone will do as well")
    elif with_text < 0.9 or words < RICH_WORDS:
        text = ("fair", "titles alone help; descriptions, brands or categories would help more")
    else:
        text = ("good", "enough for a language model to tell items apart")
    tail = figures["tail_targets"]
    per_item = figures["clicks_per_item"]
    length = figures["length_median"]
    return [
        finding("item text", f"{with_text:.0%} of items, {words:.0f} words", *text),
        finding(
            "long tail",
            f"{tail:.0%} of targets have <= {TAIL_CLICKS} clicks",
            "good" if tail >= 0.2 else "fair" if tail >= 0.05 else "poor",
            "what text is for: items with few clicks"
            if tail >= 0.2
            else "most clicks are on items that ids alone describe well; expect a small gain",
        ),
        finding(
            "new items",
            f"{figures['items_without_clicks']:.0%} of items have no training click",
            "good",
            "ranked by their text, where they have one"
            if figures["items_without_clicks"] > 0
            else "data.heldout_share holds some items back, to measure how well new ones will do",
        ),
        finding(
            "clicks",
            f"{per_item:.1f} an item, density {figures['density']:.1e}",
            "good" if per_item >= 10 else "fair" if per_item >= 4 else "poor",
            "enough to learn from" if per_item >= 10 else "the fewer clicks an item has, the more text must carry",
        ),
        finding(
            "session length",
            f"median {length:.0f}, 95 % within {figures['length_p95']:.0f}",
            "good" if length >= 3 else "fair" if length >= 2 else "poor",
            "room for a graph" if length >= 3 else "with one or two clicks there is hardly a graph to read",
        ),
        finding(
            "repeats",
            f"{figures['repeat_share']:.1%} of clicks",
            "good",
            "items come back within a session, so graphs have cycles"
            if figures["repeat_share"] >= 0.01
            else "every session graph is a chain",
        ),
    ]


def _settings(figures: dict[str, Any], protocol: dict[str, Any]) -> list[dict[str, Any]]:
    def setting(key: str, value: Any, why: str) -> dict[str, Any]:
        return {"key": key, "value": value, "why": why}

    repeats = protocol["include_seen"]
    chosen = [
        setting("include_seen", repeats, "items are clicked again within a session" if repeats else "nothing is clicked twice"),
        setting(
            "encoder.max_clicks",
            int(np.clip(5 * np.ceil(figures["length_p95"] / 5), 10, 50)),
            "the length that 95 % of the sessions stay within; 10 to 50",
        ),
    ]
    if figures["items_kept"] < 0.7 * figures["items_read"] and protocol["items"] == "clicked":
        left_out = figures["items_read"] - figures["items_kept"]
        chosen.append(setting("data.items", "all", f"{left_out:,} items with too few clicks are left out; text can rank them"))
    if protocol["min_session_clicks"] > 3 and figures["length_median"] < 4:
        chosen.append(setting("data.min_session_clicks", 2, "sessions are short; the filter drops many of them"))
    return chosen
