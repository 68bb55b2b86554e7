"""An embedding server in a thread of this process: for tests, notebooks and demonstrations."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from llmgr_core.settings import Settings
from llmgr_core.store.item_encoder import ItemEncoder
from services.embedding.server import Listening, start

Result = TypeVar("Result")


@contextmanager
def serve_in_background(
    encoder: ItemEncoder, store_path: Path, settings: Settings, next_encoder: ItemEncoder | None = None
) -> Iterator[Listening]:
    """Serve while the block runs, then drain.

    Raises:
        LlmgrError: see services.embedding.server.start.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="embedding-server", daemon=True)
    thread.start()

    def wait_for(work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, loop).result()

    try:
        server = wait_for(start(encoder, store_path, settings, next_encoder=next_encoder))
        try:
            yield server.listening
        finally:
            wait_for(server.stop())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
