"""Putting the files of a bundle together."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmgr_core.bundle.allowed_files import refuse_other_files
from llmgr_core.bundle.bundle import ADAPTER_NAME, BRIDGE_NAME, CLEANER_NAME, ENGINE_NAME, ITEM_IDS_NAME, EngineReference
from llmgr_core.errors import ArtefactError
from llmgr_core.ranker.stored import StoredRanker


def write_bundle(
    directory: Path,
    ranker: StoredRanker,
    item_ids: Sequence[str],
    *,
    cleaner_state: Mapping[str, Any] | None = None,
    engine: EngineReference | None = None,
    adapter: Path | None = None,
    bridge: Path | None = None,
) -> None:
    """Write the files of a bundle into an artefact draft's directory.

    Args:
        directory: exists; what stands in it from an earlier attempt is overwritten.
        ranker: the trained ranker.
        item_ids: identifiers of its V items, in index order.
        cleaner_state, engine: needed where the ranker uses text.
        adapter: PEFT directory to copy; only its .json and .safetensors files may be there.
        bridge: bridge.safetensors to copy.

    Raises:
        ArtefactError: item ids or engine do not fit the ranker, or the adapter directory holds a pickle.
    """
    description = ranker.description
    if len(item_ids) != description.num_items:
        raise ArtefactError(f"the ranker ranks {description.num_items} items, the data set has {len(item_ids)}")
    if description.text_dimension:
        if engine is None or cleaner_state is None:
            raise ArtefactError("a ranker that uses text needs the engine and the text cleaner in its bundle")
        if engine.fingerprint != description.fingerprint:
            raise ArtefactError(
                f"the ranker was trained with vectors of encoder {description.fingerprint[:12]}, "
                f"the engine is {engine.fingerprint[:12]}",
                "run `llmgr embed` and `llmgr distil` again",
            )
        _write_json(directory / ENGINE_NAME, engine.model_dump())
        _write_json(directory / CLEANER_NAME, dict(cleaner_state))
    ranker.write(directory)
    _write_json(directory / ITEM_IDS_NAME, list(item_ids))
    if adapter is not None:
        refuse_other_files(adapter)
        shutil.copytree(adapter, directory / ADAPTER_NAME, dirs_exist_ok=True)
    if bridge is not None:
        shutil.copyfile(bridge, directory / BRIDGE_NAME)


def _write_json(path: Path, value: Any) -> None:
    # Escapes keep every string, lone surrogates included, within plain UTF-8.
    path.write_text(json.dumps(value, ensure_ascii=True) + "\n", encoding="utf-8")
