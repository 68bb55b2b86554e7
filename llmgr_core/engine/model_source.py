"""Where a language model's files are: a name, a local directory or a Hugging Face id becomes a directory."""

from __future__ import annotations

from pathlib import Path

from llmgr_core.downloads import model_directory
from llmgr_core.errors import InputError

_WANTED = ["*.safetensors", "*.safetensors.index.json", "*.json", "tokenizer.model", "vocab.txt", "merges.txt"]


def find_model(name: str, revision: str = "") -> Path:
    """The directory that holds the model's files, fetched from the Hugging Face hub where the name is an id.

    Environment variables of huggingface_hub hold: HF_HUB_OFFLINE=1 takes only what is in its cache, HF_HOME moves that.

    Raises:
        LlmgrError: no such model; or it is neither cached nor reachable, or needs a permission (the message says which).
    """
    place = model_directory(name)
    if Path(place).is_dir():
        return Path(place)
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(str(place), revision=revision or None, allow_patterns=_WANTED))
    except HFValidationError as error:
        raise InputError(f"{name!r} is neither a directory nor a Hugging Face id: {error}") from None
    except LocalEntryNotFoundError:
        offline = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the hub cannot be reached"
        raise InputError(
            f"model {name!r} is not on this machine and {offline}",
            "set engine.model to minilm or smollm2-135m (`llmgr model NAME` fetches them), or to a local directory",
        ) from None
    except (HfHubHTTPError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"model {name!r} cannot be fetched: {reason}", "check the id and, for a gated model, HF_TOKEN"
        ) from None
