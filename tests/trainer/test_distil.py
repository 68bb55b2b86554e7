"""Training of the online ranker: it learns, text alone ranks, and a run that was cut off goes on as if it had not been."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from waits_found import WaitsFound

from llmgr_core.errors import InputError
from llmgr_core.evaluation import evaluate, summarise
from llmgr_core.progress import Reporter
from llmgr_core.ranker import RankerRuntime
from llmgr_core.sessions import Examples, Sessions
from llmgr_core.settings import Settings
from llmgr_core.settings.distil import DistilSettings
from llmgr_core.settings.encoder import EncoderSettings
from llmgr_core.settings.transitions import TransitionSettings
from llmgr_core.transitions import TransitionGraph
from trainer.commands.distil import shaping_settings
from trainer.distil import Distillation, RankerScorer, Tutoring
from trainer.distil.finishing import finish_ranker, served_transitions, trained_ranker
from trainer.distil.recipe import StudentScorer
from trainer.distil.student import Student, TextVectors
from trainer.distil.teacher_rankings import TeacherRankings

TOPICS, PER_TOPIC = 6, 10
ITEMS = TOPICS * PER_TOPIC
NEVER_CLICKED = np.arange(0, ITEMS, PER_TOPIC)
ENCODER = EncoderSettings(name="srgnn", dimension=16, dropout=0.0)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def sessions() -> Sessions:
    """Sessions stay within a topic; the first item of each topic is never clicked."""
    rng = np.random.default_rng(0)
    topics = rng.integers(0, TOPICS, size=300)
    return Sessions.from_lists([(topic * PER_TOPIC + 1 + rng.permutation(PER_TOPIC - 1)[:5]).tolist() for topic in topics])


@pytest.fixture(scope="module")
def text() -> TextVectors:
    """A text vector tells an item's topic, with noise, on top of a large common part."""
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(TOPICS, 24))
    vectors = 5.0 + np.repeat(centres, PER_TOPIC, axis=0) + 0.3 * rng.normal(size=(ITEMS, 24))
    return TextVectors(vectors.astype(np.float16), np.ones(ITEMS, dtype=np.bool_), "f" * 64)


def distillation(sessions: Sessions, directory: Path, text: TextVectors | None = None, **options: object) -> Distillation:
    (directory / "checkpoints").mkdir(parents=True, exist_ok=True)
    train = Sessions.from_lists([sessions[number][:-1].tolist() for number in range(len(sessions))])
    tutoring = options.pop("tutoring", None)
    values = {"epochs": 4, "batch_size": 32, "learning_rate": 0.02, "warmup_steps": 5, "head_hidden": 16, "id_dropout": 0.2}
    return Distillation(
        train,
        Examples.last_click(sessions),
        ITEMS,
        encoder=ENCODER,
        settings=DistilSettings.model_validate({**values, **options}),
        text=text,
        tutoring=tutoring,
        seed=3,
        directory=directory,
        checkpoints=directory / "checkpoints",
        reporter=Reporter(as_json=True),
    )


def log_of(directory: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (directory / "log.jsonl").read_text().splitlines()]


def test_learns_and_says_how_it_is_getting_on(sessions: Sessions, text: TextVectors, tmp_path: Path, capsys) -> None:
    outcome = distillation(sessions, tmp_path, text).run()
    losses = [line["mean_loss"] for line in log_of(tmp_path) if "mean_loss" in line]
    assert losses[-1] < losses[0] - 0.5
    assert outcome.validation["HR@10"] > 0.7
    assert outcome.examples_per_second > 0
    epochs = [json.loads(line) for line in capsys.readouterr().err.splitlines() if '"epoch"' in line]
    assert [line["number"] for line in epochs] == list(range(1, outcome.epochs + 1))


def test_items_without_a_click_are_ranked_by_their_text(sessions: Sessions, text: TextVectors, tmp_path: Path) -> None:
    """The never-clicked item of a topic stands above the items of all other topics; without text it cannot be ranked."""
    student = distillation(sessions, tmp_path / "fused", text, epochs=10).run().model
    prefixes = [[topic * PER_TOPIC + 1, topic * PER_TOPIC + 2, topic * PER_TOPIC + 3] for topic in range(TOPICS)]
    flat = Sessions.from_lists([[*prefix, topic * PER_TOPIC] for topic, prefix in enumerate(prefixes)])
    ranks = evaluate(StudentScorer(student), Examples.last_click(flat)).masked
    assert ranks.max() <= PER_TOPIC
    id_only = distillation(sessions, tmp_path / "ids", None, epochs=1).run().model
    scores = StudentScorer(id_only).scores(Examples.last_click(flat))
    assert torch.isinf(scores[:, NEVER_CLICKED]).all()


def test_clicked_item_whose_id_is_taken_away_is_still_ranked_by_text(
    sessions: Sessions, text: TextVectors, tmp_path: Path
) -> None:
    student = distillation(sessions, tmp_path, text, epochs=6, id_dropout=0.3).run().model
    student.has_id[[5, 25, 45]] = False
    flat = Sessions.from_lists([[2, 3, 5], [22, 23, 25], [42, 43, 45]])
    ranks = evaluate(StudentScorer(student), Examples.last_click(flat)).masked
    assert ranks.max() <= PER_TOPIC


class CutOffError(Exception):
    """The process is gone."""


def test_killed_and_resumed_run_follows_the_same_loss_curve(sessions: Sessions, text: TextVectors, tmp_path: Path) -> None:
    whole = distillation(sessions, tmp_path / "whole", text).run()
    cut = distillation(sessions, tmp_path / "cut", text)
    step, done = cut._step, 0

    def dying_step(*arguments: object) -> dict[str, float]:
        nonlocal done
        done += 1
        if done == len(cut.loader) + 4:
            raise CutOffError
        return step(*arguments)

    cut._step = dying_step  # type: ignore[method-assign,assignment]
    with pytest.raises(CutOffError):
        cut.run()
    resumed = distillation(sessions, tmp_path / "cut", text)
    assert resumed.loader.epoch == 1
    outcome = resumed.run()
    assert log_of(tmp_path / "cut") == log_of(tmp_path / "whole")
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, outcome.model.state_dict()[name]), name


def test_no_prefix_to_learn_from_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no training session has two clicks"):
        distillation(Sessions.from_lists([[1, 2], [3, 4]]), tmp_path)


def test_teacher_moves_the_student_only_where_it_is_better(sessions: Sessions, text: TextVectors, tmp_path: Path) -> None:
    count = sum(max(length - 2, 0) for length in sessions.lengths)
    items = np.tile(np.arange(ITEMS - 10, ITEMS, dtype=np.int32), (count, 1))
    logits = np.zeros((count, 10), dtype=np.float16)
    places = np.arange(count, dtype=np.int64)
    for rank, moved in ((1, True), (10_000, False)):
        rankings = TeacherRankings(places, items, logits, np.full(count, rank, dtype=np.int32))
        directory = tmp_path / str(rank)
        run = distillation(sessions, directory, text, tutoring=Tutoring(rankings), epochs=1, teacher_weight=1.0)
        run.run()
        steps = [line for line in log_of(directory) if "loss" in line]
        assert all((line["imitation"] > 0 and line["imitated"] > 0) == moved for line in steps[:3])


def test_a_step_with_a_teacher_waits_for_the_device_once(
    sessions: Sessions, text: TextVectors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Checks of index ranges read the indices, on the host alone.
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    count = sum(max(length - 2, 0) for length in sessions.lengths)
    places = np.arange(0, count, 2)
    items = np.tile(np.arange(ITEMS - 10, ITEMS, dtype=np.int32), (len(places), 1))
    ranks = np.resize(np.array([1, 10_000], dtype=np.int32), len(places))
    rankings = TeacherRankings(places, items, np.zeros((len(places), 10), dtype=np.float16), ranks)
    run = distillation(sessions, tmp_path, text, tutoring=Tutoring(rankings), teacher_weight=1.0)
    batch, targets, examples = next(iter(run.loader))
    # The parts of the loss that do what this is about; the torch paths under them read numbers of a CPU as they like.
    student, imitation = run.model, run.imitation
    assert imitation is not None
    rows = student.rows()
    vectors = student.online.encode(rows, batch)
    with WaitsFound() as waits:
        imitated, passed = imitation.loss(student.online.logits, vectors, rows, targets, examples)
        torch.autograd.backward(imitated)
    # Which prefixes have a ranking comes from NumPy and is sent without waiting.
    assert set(waits.found) <= {"lift_fresh.default"}
    assert 0 < int(passed) < len(targets)
    # ID vectors are dropped at random.
    torch.manual_seed(1)
    loss, figures = run.loss(batch, targets, examples)
    torch.manual_seed(1)
    assert all(isinstance(value, torch.Tensor) for value in figures.values())
    read = []
    monkeypatch.setattr(torch.Tensor, "tolist", lambda one: (read.append(one.shape), one.numpy().tolist())[1])
    monkeypatch.setattr(torch.Tensor, "__float__", lambda one: pytest.fail("a second wait"))
    line = run._step(batch, targets, examples)
    assert list(line) == ["loss", "imitation", "imitated"]
    assert isinstance(line["imitated"], int)
    assert line["loss"] == pytest.approx(loss.item())
    assert read == [(3,)]


def test_row_pull_brings_rows_to_their_text(sessions: Sessions, text: TextVectors, tmp_path: Path) -> None:
    target = torch.randn(ITEMS, 16, generator=torch.Generator().manual_seed(0))
    empty = TeacherRankings(
        np.zeros(0, np.int64), np.zeros((0, 5), np.int32), np.zeros((0, 5), np.float16), np.zeros(0, np.int32)
    )
    closeness = []
    for pull in (0.0, 5.0):
        tutoring = Tutoring(empty, target)
        student = distillation(sessions, tmp_path / str(pull), text, tutoring=tutoring, row_pull=pull, epochs=8).run().model
        clicked = student.trained
        closeness.append(float(torch.cosine_similarity(student.rows(), target, dim=1)[clicked].mean()))
    assert closeness[1] > closeness[0] + 0.2


@pytest.fixture(scope="module")
def finished(sessions: Sessions, text: TextVectors, tmp_path_factory: pytest.TempPathFactory):
    run = distillation(sessions, tmp_path_factory.mktemp("finished"), text, epochs=3)
    student = run.run().model
    train = run.loader.examples
    sessions_of = Sessions.from_lists([sessions[number][:-1].tolist() for number in range(len(sessions))])
    examples = Examples.last_click(sessions)
    stored, figures = finish_ranker(
        trained_ranker(student, "fused", text, sessions_of.click_counts(ITEMS), include_seen=False),
        student.transform.whitening,
        text,
        train=sessions_of,
        settings=TransitionSettings(text_neighbours=0),
        validation=examples,
        heldout=examples.select(slice(0, 0)),
        heldout_loss=0.05,
    )
    assert len(train)
    return student, stored, figures


def test_scorer_and_runtime_give_the_same_scores(finished, text: TextVectors, sessions: Sessions) -> None:
    _, stored, _ = finished
    examples = Examples.last_click(sessions).select(slice(0, 20))
    scores = RankerScorer(stored, text.vectors, text.present).scores(examples).numpy()
    runtime = RankerRuntime(stored.parts("v", [str(number) for number in range(ITEMS)]), text.vectors, text.present)
    for number in range(len(examples)):
        ranking = runtime.rank(examples.prefix(number).astype(np.int64), ITEMS, include_seen=True)
        np.testing.assert_allclose(ranking.scores, scores[number][ranking.indices], atol=2e-4, rtol=1e-4)


def test_transition_term_can_be_left_out(finished, text: TextVectors, sessions: Sessions) -> None:
    student, stored, figures = finished
    examples = Examples.last_click(sessions)
    plain = RankerScorer(stored, text.vectors, text.present, with_transitions=False)
    expected = StudentScorer(student).scores(examples) / figures["calibration"]["temperature"]
    torch.testing.assert_close(plain.scores(examples), expected, atol=1e-3, rtol=1e-3)
    measured = summarise(evaluate(plain, examples).masked)["NDCG@20"]
    assert measured == pytest.approx(figures["transitions"]["validation_without"], abs=2e-3)
    with_term = summarise(evaluate(RankerScorer(stored, text.vectors, text.present), examples).masked)["NDCG@20"]
    assert with_term == pytest.approx(figures["transitions"]["validation"], abs=2e-3)
    assert with_term >= measured


def test_a_ranker_with_text_serves_transitions_shared_between_text_neighbours(
    sessions: Sessions, text: TextVectors, tmp_path: Path
) -> None:
    plain = TransitionGraph.build(sessions, ITEMS, TransitionSettings()).pruned()

    def served(student: Student, **knobs: int) -> TransitionGraph:
        whitening = student.transform.whitening if student.transform else None
        counts = sessions.click_counts(ITEMS)
        return served_transitions(sessions, TransitionSettings(**knobs), counts, whitening, text if whitening else None)[0]

    with_text = distillation(sessions, tmp_path / "text", text).model
    without = distillation(sessions, tmp_path / "ids").model
    assert served(with_text).num_edges > plain.num_edges
    for same in (served(without), served(with_text, text_neighbours=0)):
        np.testing.assert_array_equal(same.neighbours, plain.neighbours)
        np.testing.assert_array_equal(same.weights, plain.weights)


def test_a_ranker_without_text_does_not_depend_on_how_text_shares_transitions() -> None:
    plain = Settings()
    other = plain.model_copy(update={"transitions": TransitionSettings(text_targets=1.0)})
    assert shaping_settings(plain, "id-only") == shaping_settings(other, "id-only")
    assert shaping_settings(plain, "fused") != shaping_settings(other, "fused")
