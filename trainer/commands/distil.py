"""``llmgr distil``: the online ranker."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from llmgr_core.artefacts import Artefact, draft_artefact, open_artefact
from llmgr_core.artefacts.directory import finished_artefact
from llmgr_core.command_line.step import Step, step_command
from llmgr_core.errors import ArtefactError, SettingsError
from llmgr_core.settings import Settings
from llmgr_core.settings.controls import ControlSettings
from llmgr_core.settings.distil import DistilSettings
from llmgr_core.settings.ranker_keys import INCIDENTAL, INCIDENTAL_ENGINE, TEXT_TRANSITIONS

if TYPE_CHECKING:
    from llmgr_core.artefacts.directory import Draft
    from llmgr_core.data import Dataset
    from llmgr_core.ranker.stored import StoredRanker, Variant
    from llmgr_core.ranker.whitening import Whitening
    from llmgr_core.sessions import Examples
    from trainer.distil import Tutoring
    from trainer.distil.student import TextVectors

VARIANTS = ("fused", "id-only", "frozen-text")


@step_command("distil")
@click.option(
    "--variant",
    type=click.Choice(VARIANTS),
    default="fused",
    show_default=True,
    help="fused: IDs and tuned text; id-only: no text (the control); frozen-text: text of the untuned model (the control).",
)
def command(step: Step, *, variant: str) -> None:
    """Train the online ranker that needs no language model, fit its transition weight and its temperature.

    Reads RUN/dataset, RUN/backbone, RUN/store and, for the variant "fused", RUN/tuned. Writes RUN/ranker (or
    RUN/ranker-id-only, RUN/ranker-frozen-text).

    Where only [transitions] or distil.heldout_loss has changed since the ranker was made, its weights are kept and what
    follows training is done again; --force trains in any case.
    """
    path = step.run.ranker(variant)
    ranker = make_ranker(step, variant, path)
    click.echo(json.dumps({"ranker": str(path), "variant": variant, **_shown(ranker.manifest.metrics)}))


def make_ranker(step: Step, variant: str, path: Path) -> Artefact:
    """The ranker of these settings, trained where it does not stand at ``path`` yet."""
    inputs = _inputs(step, variant)
    settings = shaping_settings(step.settings, variant)
    if not step.force and (done := finished_artefact(path, "ranker", inputs, settings)):
        step.reporter.event("up to date", step="distil", path=str(path))
        return done

    for one in inputs:
        one.verify()

    import torch

    from llmgr_core.data import Dataset
    from llmgr_core.device import choose_device
    from trainer.distil.controls import controlled_text, shuffled_clicks
    from trainer.distil.finishing import finish_ranker
    from trainer.distil.inputs import encoder_fingerprint, read_text_vectors
    from trainer.distil.standing_ranker import standing_ranker, text_digest

    if step.settings.threads:
        torch.set_num_threads(step.settings.threads)
    distil = step.settings.distil
    dataset = Dataset.open(inputs[0])
    text = None
    if variant != "id-only":
        fingerprint = encoder_fingerprint(step.settings, dataset, inputs[2] if variant == "fused" else None)
        text = read_text_vectors(step.run.store, dataset, fingerprint, distil.text_below)
        if text.missing:
            step.reporter.event("items whose text has no vector", items=text.missing, hint="run `llmgr embed` to its end first")
        text = controlled_text(text, distil.controls.text_vectors)
    validation, heldout = dataset.validation.evenly_spread(distil.validation_examples), dataset.heldout_validation
    if distil.controls.history == "shuffled":
        validation, heldout = shuffled_clicks(validation), shuffled_clicks(heldout)
    device = choose_device(distil.device, "distil.device")
    standing = None if step.force else standing_ranker(path, inputs, settings, text)
    with draft_artefact(path, "ranker", inputs, settings) as draft:
        if standing is not None:
            taken = standing.artefact.digest
            step.reporter.event("not trained again: the ranker that stands here has the weights", path=str(path), digest=taken)
            trained, whitening = standing.trained, standing.whitening
            standing.copy_log(draft.path)
            draft.details.update(standing.details)
            draft.metrics.update(standing.metrics)
        else:
            trained, whitening = _train(step, cast("Variant", variant), inputs, dataset, text, validation, draft)
        if text is not None:
            draft.details.update(text_vectors=text_digest(text))
        step.reporter.event("fitting transition weight, how much IDs count, and temperature", examples=len(validation))
        ranker, fitted = finish_ranker(
            trained,
            whitening,
            text,
            train=dataset.train,
            settings=step.settings.transitions,
            validation=validation,
            heldout=heldout,
            heldout_loss=distil.heldout_loss,
            id_priors=distil.id_prior if text is not None else (0.0,),
            device=device,
        )
        ranker.write(draft.path)
        draft.metrics.update(fitted)
    return open_artefact(path, "ranker")


def _train(
    step: Step,
    variant: Variant,
    inputs: list[Artefact],
    dataset: Dataset,
    text: TextVectors | None,
    validation: Examples,
    draft: Draft,
) -> tuple[StoredRanker, Whitening | None]:
    """Train, and note in the draft what was measured.

    Returns:
        The weights, and the whitening of its text vectors.
    """
    from llmgr_core.encoders import Backbone
    from llmgr_core.ranker.online import OnlineRanker
    from trainer.distil import Distillation
    from trainer.distil.finishing import trained_ranker

    distil = step.settings.distil
    backbone = Backbone.load(inputs[1]) if distil.start == "backbone" else None
    encoder = backbone.settings if backbone else distil.encoder
    # One that cannot rank is refused now rather than after the teacher has been asked.
    OnlineRanker(0, encoder, distil.head_hidden)
    lessons = None
    if variant == "fused" and distil.teacher and text is not None:
        lessons = _lessons(step, inputs, dataset, text, draft)
    outcome = Distillation(
        dataset.train,
        validation,
        dataset.num_items,
        encoder=encoder,
        settings=distil.model_copy(update={"epochs": distil.epochs * distil.epoch_factor}),
        text=text,
        tutoring=lessons,
        backbone=backbone,
        seed=step.settings.seed,
        directory=draft.path,
        checkpoints=draft.checkpoints,
        reporter=step.reporter,
    ).run()
    student = outcome.model
    parameters = sum(parameter.numel() for parameter in student.parameters())
    draft.details.update(variant=variant, num_items=dataset.num_items, parameters=parameters)
    draft.metrics.update(outcome.metrics())
    whitening = student.transform.whitening if student.transform else None
    return trained_ranker(student, variant, text, dataset.popularity, dataset.include_seen), whitening


def _lessons(step: Step, inputs: list[Artefact], dataset: Dataset, text: TextVectors, draft: Draft) -> Tutoring:
    """What the ranker learns from its teacher."""
    from trainer.distil.inputs import tutoring
    from trainer.distil.self_teaching import tutoring_by_ranker

    cache, settings, reporter = step.run.root / "cache" / "teacher", step.settings, step.reporter
    if settings.distil.teacher_model == "ranker":
        untaught = settings.distil.model_copy(update={"teacher": False, "teacher_model": "llmgr"})
        first = dataclasses.replace(step, settings=settings.model_copy(update={"distil": untaught}), force=False)
        ranker = make_ranker(first, "fused", step.run.teacher_ranker)
        draft.details.update(taught_by=ranker.digest)
        lessons, figures = tutoring_by_ranker(settings, dataset, ranker=ranker, text=text, cache=cache, reporter=reporter)
    else:
        lessons, figures = tutoring(
            settings, dataset, tuned=inputs[2], backbone=inputs[1], text=text, cache=cache, reporter=reporter
        )
    draft.metrics.update(teacher=figures)
    return lessons


def shaping_settings(settings: Settings, variant: str) -> dict[str, Any]:
    """The settings that determine the ranker."""
    return {
        "seed": settings.seed,
        "variant": variant,
        "distil": settings.distil.model_dump(exclude=set(INCIDENTAL) | _without_effect(settings.distil, variant)),
        "transitions": settings.transitions.model_dump(exclude=set(TEXT_TRANSITIONS) if variant == "id-only" else None),
        **({"engine": settings.engine.model_dump(exclude=set(INCIDENTAL_ENGINE))} if variant == "frozen-text" else {}),
    }


def _without_effect(distil: DistilSettings, variant: str) -> set[str]:
    """What changes nothing: such a ranker is the one that it was before there were these settings."""
    unused = {"controls"} if distil.controls == ControlSettings() else set()
    unused |= {"id_prior"} if set(distil.id_prior) == {0.0} or variant == "id-only" else set()
    unused |= {"epoch_factor"} if distil.epoch_factor == 1 else set()
    unused |= {"teacher_model"} if distil.teacher_model == "llmgr" or not distil.teacher or variant != "fused" else set()
    return unused | {"text_below"} if distil.text_below == 0 or variant == "id-only" else unused


def _inputs(step: Step, variant: str) -> list[Artefact]:
    if step.settings.distil.row_pull and step.settings.distil.start != "backbone":
        raise SettingsError(
            "distil.row_pull needs rows in the backbone's space, distil.start is 'fresh'", "set distil.start to 'backbone'"
        )
    if step.settings.distil.row_pull and step.settings.distil.teacher and step.settings.distil.teacher_model == "ranker":
        raise SettingsError(
            "distil.row_pull needs the W_p of the tuned LLMGR, and with distil.teacher_model='ranker' a ranker teaches",
            "set distil.row_pull to 0, or distil.teacher_model to 'llmgr'",
        )
    if variant == "id-only" and not step.settings.distil.controls.ids:
        raise SettingsError("distil.controls.ids=false leaves the variant 'id-only' nothing to rank by", "take another variant")
    if step.settings.distil.text_below == 1 and variant != "id-only":
        raise SettingsError(
            "distil.text_below=1 leaves no item with training clicks a text to learn from", "0 gives every item its text"
        )
    if step.settings.distil.text_below and not step.settings.distil.controls.ids:
        raise SettingsError(
            "distil.text_below leaves clicked items nothing but their IDs, distil.controls.ids=false takes those away",
            "set distil.text_below to 0",
        )
    inputs = [open_artefact(step.run.dataset, "dataset"), open_artefact(step.run.backbone, "backbone")]
    if variant == "fused":
        try:
            inputs.append(open_artefact(step.run.tuned, "tuned"))
        except ArtefactError as error:
            raise ArtefactError(
                f"the variant 'fused' learns from the tuned language model: {error.args[0]}",
                "run `llmgr tune` and `llmgr embed` first, or take --variant id-only or frozen-text",
            ) from None
        if step.settings.distil.row_pull and inputs[-1].manifest.settings["tune"].get("projection") == "mlp":
            raise SettingsError(
                f"distil.row_pull pulls rows along a linear W_p, and the W_p of {step.run.tuned} is an MLP",
                "set distil.row_pull to 0, or tune with tune.projection = 'linear'",
            )
    return inputs


def _shown(metrics: dict[str, Any]) -> dict[str, Any]:
    return {key: metrics[key] for key in ("validation", "transitions", "calibration") if key in metrics}
