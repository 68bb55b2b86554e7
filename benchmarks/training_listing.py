"""What a device runs in one step of training: the ops of kernels/, their Triton kernels, and everything else.

    python benchmarks/training_listing.py                              stage 2 of tuning, on a CUDA machine
    python benchmarks/training_listing.py --step pretraining           one step of the backbone
    python benchmarks/training_listing.py --model DIRECTORY --items 12101 --sessions 16

The model is a small random one unless a directory is given; the batch is drawn. On CUDA LLMGR_KERNELS=triton holds, so that an
op that would have taken torch's path ends the run with its reason. The exit status is 1 if an op that the step must call is
not there.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from kernels.compilation import all_configurations
from llmgr_core.encoders import Backbone
from llmgr_core.engine.adapter import add_adapter
from llmgr_core.engine.bridge import Bridge
from llmgr_core.engine.hybrid_model import HybridModel
from llmgr_core.engine.prompt_batches import PromptBatches
from llmgr_core.engine.semantic_engine import SemanticEngine
from llmgr_core.graphs import SessionBatch
from llmgr_core.sessions import Examples, Sessions
from llmgr_core.settings import Settings

NO_GPU = "no CUDA device: torch's operations on the CPU are listed; nothing below is a GPU's"
ROWS = ("item_rows_forward", "item_rows_backward")
GATED = ("gated_layers_forward", "gated_layers_backward")
LOSS = ("catalogue_cross_entropy_forward", "catalogue_cross_entropy_backward")
READOUT = {
    "srgnn": ("attention_readout_forward", "attention_readout_backward"),
    "gcsan": ("session_attention_last_forward", "session_attention_last_backward"),
}
COLOURS = ["red", "blue", "green", "soft", "hard", "small", "large"]
THINGS = ["lipstick", "cream", "brush", "comb", "soap", "towel", "mirror", "powder", "gel", "oil", "wax", "lotion"]


def required_ops(step: str, encoder: str) -> set[str]:
    """Ops of kernels/ that a step must call; with one self-attention layer GC-SAN reads out its last rows alone."""
    return {*ROWS, *GATED, *LOSS, *READOUT[encoder], *(("gated_project_into",) if step == "stage-2" else ())}


def write_random_model(directory: Path) -> Path:
    """A Llama of four layers, D = 256, random weights, with a tokenizer of a few words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    names = ["[PAD]", "[UNK]", *COLOURS, *THINGS]
    tokenizer = Tokenizer(models.WordLevel({name: place for place, name in enumerate(names)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    shape = {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2}
    torch.manual_seed(1)
    config = LlamaConfig(vocab_size=len(names), intermediate_size=512, max_position_embeddings=1024, **shape)
    LlamaForCausalLM(config).save_pretrained(directory)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(directory)
    return directory


def drawn_sessions(count: int, items: int, max_clicks: int) -> Sessions:
    """Sessions of 3 clicks up to ``max_clicks``, evenly drawn."""
    random = np.random.default_rng(3)
    lengths = random.integers(3, max_clicks + 1, size=count)
    return Sessions.from_lists([random.integers(0, items, size=length).tolist() for length in lengths])


def pretraining_step(settings: Settings, items: int, count: int, device: torch.device) -> Callable[[], Any]:
    """Loss and gradients of the backbone on a batch."""
    backbone = Backbone(items, settings.encoder).to(device)
    clicks = drawn_sessions(count, items, settings.encoder.max_clicks)
    batch = SessionBatch.from_sessions(clicks, device=device)
    targets = torch.from_numpy(np.random.default_rng(5).integers(0, items, size=count)).to(device)
    return lambda: backbone.loss(batch, targets).backward()


def stage_two_step(settings: Settings, items: int, count: int, device: torch.device) -> Callable[[], Any]:
    """Loss and gradients of LLMGR on a batch of prompts."""
    settings = settings.model_copy(update={"engine": settings.engine.model_copy(update={"device": str(device)})})
    tune = settings.tune
    engine = SemanticEngine.load(settings.engine)
    add_adapter(engine.language_model, tune.lora_rank, tune.lora_alpha, tune.lora_dropout, tune.lora_targets)
    backbone = Backbone(items, settings.encoder)
    bridge = Bridge(engine.hidden_size, settings.encoder.dimension, tune)
    known, text_rows = torch.ones(items, dtype=torch.bool), torch.randn(items, tune.text_rows)
    model = HybridModel(engine, backbone, bridge, tune, known=known, text_rows=text_rows)
    texts = [f"{COLOURS[item % len(COLOURS)]} {THINGS[item % len(THINGS)]}" for item in range(items)]
    batches = PromptBatches(engine, texts, texts, tune, settings.encoder.max_clicks)
    examples = Examples.last_click(drawn_sessions(count, items, settings.encoder.max_clicks))
    batch = batches.main(examples, with_last_texts=True)
    return lambda: model(batch).loss.backward()  # noqa: PLW0108


def listing(step: Callable[[], Any], device: torch.device) -> dict[str, Any]:
    """Of a second call: ops of kernels/, kernels on the device with their microseconds, and torch's operations."""
    step()
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as recorded:
        step()
        if on_gpu:
            torch.cuda.synchronize(device)
    calls: dict[str, Counter[str]] = {"ops": Counter(), "kernels": Counter(), "operations": Counter()}
    microseconds: Counter[str] = Counter()
    triton = {one.kernel.__name__ for one in all_configurations()}
    for event in recorded.events():
        if event.device_type == DeviceType.CUDA:
            calls["kernels"][event.name] += 1
            microseconds[event.name] += event.time_range.elapsed_us()
        elif event.name.startswith("llmgr::"):
            calls["ops"][event.name.removeprefix("llmgr::")] += 1
        elif event.name.startswith("aten::"):
            calls["operations"][event.name.removeprefix("aten::")] += 1
    return {
        "ops": dict(sorted(calls["ops"].items())),
        "kernels": [
            {"name": name, "ours": name in triton, "calls": calls["kernels"][name], "us": round(spent, 1)}
            for name, spent in microseconds.most_common()
        ],
        "operations": dict(calls["operations"].most_common()),
    }


def missing_from(found: dict[str, Any], step: str, encoder: str, device: torch.device) -> list[str]:
    """What such a step must have called, and has not."""
    missing = sorted(required_ops(step, encoder) - set(found["ops"]))
    if device.type == "cuda" and not any(row["ours"] for row in found["kernels"]):
        missing.append("every kernel of kernels/ on the device")
    return missing


def lines(found: dict[str, Any], missing: list[str]) -> list[str]:
    """The listing for people."""
    told = ["ops of kernels/, calls:", *(f"  {calls:5}  {name}" for name, calls in found["ops"].items())]
    if found["kernels"]:
        told.append("kernels on the device, calls and microseconds (* Triton, of kernels/):")
        told += [
            f"{'*' if row['ours'] else ' '} {row['calls']:5} {row['us']:10.1f}  {row['name'][:100]}" for row in found["kernels"]
        ]
    else:
        told.append("torch's operations, calls:")
        told += [f"  {calls:5}  {name}" for name, calls in found["operations"].items()]
    return [*told, *(f"MISSING: {name}" for name in missing)]


@click.command("training-listing", help="List what a device runs in one step of training.")
@click.option("--step", type=click.Choice(["stage-2", "pretraining"]), default="stage-2", show_default=True)
@click.option("--encoder", type=click.Choice(list(READOUT)), default="gcsan", show_default=True)
@click.option("--model", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Language model; default: random.")
@click.option("--items", type=click.IntRange(20), default=12_101, show_default=True, help="Size of the catalogue.")
@click.option("--sessions", type=click.IntRange(1), default=16, show_default=True, help="Of the batch.")
@click.option("--device", type=click.Choice(["cuda", "cpu"]), help="Default: cuda where there is one.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the listing here, as JSON.")
def command(
    step: str, encoder: str, model: Path | None, items: int, sessions: int, device: str | None, out: Path | None
) -> None:
    from llmgr_core.evaluation.protocol import commit, machine

    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if place.type == "cuda" and not torch.cuda.is_available():
        raise click.UsageError("--device cuda: torch sees no CUDA device")
    click.echo(torch.cuda.get_device_name(place) if place.type == "cuda" else NO_GPU)
    if place.type == "cuda":
        os.environ["LLMGR_KERNELS"] = "triton"
    torch.manual_seed(1)
    with tempfile.TemporaryDirectory() as scratch:
        settings = Settings.model_validate({"encoder": {"name": encoder}})
        if step == "stage-2":
            path = model or write_random_model(Path(scratch))
            settings = Settings.model_validate({"encoder": {"name": encoder}, "engine": {"model": str(path)}})
        prepare = stage_two_step if step == "stage-2" else pretraining_step
        found = listing(prepare(settings, items, sessions, place), place)
    # Plain torch, a CPU's path, calls none of them.
    missing = missing_from(found, step, encoder, place) if os.environ.get("LLMGR_KERNELS") == "triton" else []
    click.echo("\n".join(lines(found, missing)))
    if out is not None:
        facts = {"step": step, "encoder": encoder, "items": items, "sessions": sessions, "device": str(place)}
        gpu = torch.cuda.get_device_name(place) if place.type == "cuda" else None
        record = {"benchmark": "training_listing", **facts, "gpu": gpu, **found, "missing": missing, "commit": commit()}
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps({**record, "machine": machine()}, indent=1) + "\n", encoding="utf-8")
    sys.exit(int(bool(missing)))


if __name__ == "__main__":
    command()
