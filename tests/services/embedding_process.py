"""An embedding server as a process of its own: ``python embedding_process.py STORE [SECTION.KEY=VALUE]...``.

Its language model takes 1 s for a text that starts with "slow", and prints nothing.
"""

import json
import sys
import time
from pathlib import Path

from embedding_fixture import ControlledModel, encoder_around, settings_with

from services.embedding.server import run
from services.server.observation import configure_logs


class SlowModel(ControlledModel):
    def embed_texts(self, texts):
        if any(text.startswith("slow") for text in texts):
            time.sleep(1.0)
        return super().embed_texts(texts)


if __name__ == "__main__":
    configure_logs()
    run(
        encoder_around(SlowModel()),
        Path(sys.argv[1]),
        settings_with(*sys.argv[2:]),
        lambda listening: print(json.dumps({"address": listening.address, "metrics_port": listening.metrics_port}), flush=True),
    )
