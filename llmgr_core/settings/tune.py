"""Settings of section [tune]."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from llmgr_core.settings.section import Section


class TuneSettings(Section):
    """Section [tune]: two-stage tuning of the language model.

    Attributes:
        order: "in-order" learns stage 1, then stage 2. As ablations: "joint" mixes the steps of both at random, "swapped"
            learns stage 2 first.
        projection: W_p. "linear" starts as the ridge regression from text vectors to IDs; "mlp" has a hidden layer before that
            linear one and starts as the same map. "random-frozen", an ablation, is drawn at random and never learns.
        lora_rank, lora_alpha, lora_dropout: of the adapter; a mild one keeps what the model knows about words. Rank 0
            leaves the language model as it is: only bridge and backbone learn.
        lora_targets: "attention", "all-linear", or layer names divided by commas.
        readout: how the hidden states of a prompt become one vector.
        head: what stands between that vector and the item rows.
        thaw: what of the backbone learns in stage 2 (nothing does in stage 1).
        graph_residual: the session vector starts from the backbone's z_s, and its text part from the text vectors of its
            clicks; the language model adds to both. Without, only the language model speaks, as in the paper's formula.
        text_rows: numbers of each item's whitened text vector that stand beside its ID vector in the catalogue softmax, so
            that items without clicks can be scored; 0 scores by ID vectors alone.
        stage1_texts: "own"; "shuffled", an ablation, shows each item of stage 1 with the text of another one.
        candidates: items to choose from in stage 1, the right one among them.
        stage2_candidates: 0 takes stage 2's losses over the whole catalogue; a number, over the target and so many other items,
            drawn at random for each prefix. What ranks afterwards ranks all items either way.
        alignment_weight: stage 1, weight of "which of all items has this text", asked of the stored text vector itself.
        following_weight: stage 2, weight of "which item follows", asked of the last click's stored text vector itself.
        prompt_titles: last clicks whose titles stand in the main prompt.
        prompt_text_tokens: tokens of each such title.
        prompt_edges: last edges of the session graph that the main prompt spells out.
        description_tokens: tokens of the description in the auxiliary prompt.
        stage1_epochs, stage2_epochs: passes over each stage's examples.
        stage1_examples, stage2_examples: a random subset of so many items and prefixes; 0 takes all.
        heldout_items: items kept out of stage 1 to measure it by.
        patience: a stage stops after so many validations in a row without a better figure, and ends with its best weights; 0
            never validates. Stage 1 goes by accuracy on the items kept out of it, stage 2 by validation NDCG@20.
        validation_steps: steps from one validation to the next.
        validation_examples: at most so many items (stage 1) and validation examples (stage 2, evenly spread) each time.
        batch_size: examples a step, over all processes and accumulated parts.
        accumulate: parts into which a process cuts its share of a batch, to save memory.
        learning_rate: peak rate of the adapter; cosine schedule to zero.
        bridge_learning_rate: peak rate of W_p, readout and heads.
        gnn_learning_rate: peak rate of what ``thaw`` frees.
        warmup_share: share of a stage's steps over which the rates rise.
        weight_decay: AdamW's.
        clip_norm: gradients longer than this are shortened to it.
        gradient_checkpointing: compute activations twice to keep fewer; for large models.
        checkpoint_steps: a checkpoint every so many steps; a killed run goes on from the last one.
        tensorboard: also write loss, rate, accuracy and tokens a second as event files under RUN/tensorboard; needs the extra
            ``llmgr[tensorboard]``.
    """

    order: Literal["in-order", "joint", "swapped"] = "in-order"
    projection: Literal["linear", "mlp", "random-frozen"] = "linear"
    lora_rank: int = Field(default=8, ge=0, le=1024)
    lora_alpha: int = Field(default=16, ge=1, le=4096)
    lora_dropout: float = Field(default=0.05, ge=0.0, lt=1.0)
    lora_targets: str = Field(default="all-linear", min_length=1)
    readout: Literal["attention", "mean", "max"] = "attention"
    head: Literal["mlp", "linear"] = "mlp"
    thaw: Literal["frozen", "gnn", "gnn+ids"] = "gnn"
    graph_residual: bool = True
    text_rows: int = Field(default=64, ge=0, le=1024)
    stage1_texts: Literal["own", "shuffled"] = "own"
    candidates: int = Field(default=10, ge=2, le=100)
    stage2_candidates: int = Field(default=0, ge=0)
    alignment_weight: float = Field(default=1.0, ge=0.0)
    following_weight: float = Field(default=0.5, ge=0.0)
    prompt_titles: int = Field(default=2, ge=0, le=20)
    prompt_text_tokens: int = Field(default=16, ge=1, le=512)
    prompt_edges: int = Field(default=4, ge=0, le=100)
    description_tokens: int = Field(default=64, ge=4, le=4096)
    stage1_epochs: int = Field(default=1, ge=0, le=100)
    stage2_epochs: int = Field(default=3, ge=0, le=100)
    stage1_examples: int = Field(default=0, ge=0)
    stage2_examples: int = Field(default=0, ge=0)
    heldout_items: int = Field(default=200, ge=0)
    patience: int = Field(default=0, ge=0)
    validation_steps: int = Field(default=50, ge=1)
    validation_examples: int = Field(default=500, ge=1)
    batch_size: int = Field(default=16, ge=1, le=65536)
    accumulate: int = Field(default=1, ge=1, le=1024)
    learning_rate: float = Field(default=2e-4, gt=0.0)
    bridge_learning_rate: float = Field(default=3e-4, gt=0.0)
    gnn_learning_rate: float = Field(default=1e-4, gt=0.0)
    warmup_share: float = Field(default=0.05, ge=0.0, lt=1.0)
    weight_decay: float = Field(default=1e-2, ge=0.0)
    clip_norm: float = Field(default=1.0, gt=0.0)
    gradient_checkpointing: bool = False
    checkpoint_steps: int = Field(default=100, ge=1)
    tensorboard: bool = False
