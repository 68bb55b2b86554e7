"""An embedding server as a process of its own: ``python embedding_process.py STORE [SECTION.KEY=VALUE]...``.

Its language model reads a text that starts with "held by FILE" only once there is FILE, and prints nothing.
"""

import json
import sys
from pathlib import Path

from embedding_fixture import ControlledModel, encoder_around, settings_with
from patience import wait_until

from services.embedding.server import run
from services.server.observation import configure_logs

HELD = "held by "


class HeldModel(ControlledModel):
    def embed_texts(self, texts):
        for text in texts:
            if text.startswith(HELD):
                wait_until(Path(text.removeprefix(HELD).split()[0]).exists, "nobody let it go on")
        return super().embed_texts(texts)


if __name__ == "__main__":
    configure_logs()
    run(
        encoder_around(HeldModel()),
        Path(sys.argv[1]),
        settings_with(*sys.argv[2:]),
        lambda listening: print(json.dumps({"address": listening.address, "metrics_port": listening.metrics_port}), flush=True),
    )
