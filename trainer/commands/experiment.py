"""``llmgr experiment``: rows of settings, trained, ranked and compared."""

from __future__ import annotations

import json
from pathlib import Path

import click

from llmgr_core.command_line.step import Step, step_command


@step_command("experiment")
@click.argument("name")
@click.option("--seeds", "seed_texts", metavar="N,N,...", help="Seeds of each row's last training.  [those of the experiment]")
@click.option("--only", multiple=True, metavar="ROW", help="Only this row and what it is compared with; may be repeated.")
@click.option("--collect", is_flag=True, help="Train nothing: take what is there, and name the rest as not run.")
@click.option("--plan", is_flag=True, help="Print what would have to be trained, as commands, and stop there.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Also write the result here.")
def command(
    step: Step, *, name: str, seed_texts: str | None, only: tuple[str, ...], collect: bool, plan: bool, out: Path | None
) -> None:
    """Run the experiment NAME (configs/experiments/NAME.toml, or a path) on the run RUN.

    Each row is a set of settings. What a row leaves alone is the run's own, as it stands there; the rest is made by the
    ordinary steps under RUN/experiments/steps, named by its content, so that nothing is made twice and a row that was cut
    off goes on from its checkpoint. Writes RUN/experiments/NAME.json.

    \b
    llmgr experiment ablations --run RUN --config FILE --plan
    llmgr experiment ablations --run RUN --config FILE --only permuted-text --only shuffled-history
    llmgr experiment ablations --run RUN --config FILE --collect --out benchmarks/results/ablations.json
    """
    from trainer.experiments import Conduct, find_experiment

    stem, experiment = find_experiment(name)
    seeds = _seeds(seed_texts) or experiment.seeds
    one = Conduct(stem, experiment, step, seeds, experiment.select(only), train=not collect)
    if plan:
        for line in one.plan():
            click.echo(json.dumps(line, ensure_ascii=False))
        return
    import torch

    from llmgr_core.evaluation.results import write_results
    from trainer.experiments import conduct

    if step.settings.threads:
        torch.set_num_threads(step.settings.threads)
    result = conduct(one)
    path = step.run.experiments / f"{stem}.json"
    write_results(path, result)
    if out is not None:
        write_results(out, result)
    found = result["splits"]["test"]["scorers"] if "test" in result["splits"] else {}
    click.echo(
        json.dumps(
            {
                "experiment": stem,
                "result": str(out or path),
                "NDCG@20": {row: round(facts["masked"]["all"]["NDCG@20"], 5) for row, facts in found.items()},
                "not_run": [row["name"] for row in result["not_run"]],
            },
            ensure_ascii=False,
        )
    )
    if one.failed:
        for message in one.failed:
            click.echo(f"llmgr experiment: {message}", err=True)
        raise SystemExit(1)


def _seeds(text: str | None) -> tuple[int, ...]:
    if text is None:
        return ()
    try:
        seeds = tuple(int(one) for one in text.replace(",", " ").split())
    except ValueError:
        seeds = ()
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise click.BadParameter(f"{text!r} is no list of different seeds; for example --seeds 1,2,3")
    return seeds
