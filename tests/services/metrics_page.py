"""Reading what a server's metrics page shows."""

from __future__ import annotations

import urllib.request

from patience import PATIENCE
from prometheus_client.parser import text_string_to_metric_families

Page = dict[str, list[tuple[dict[str, str], float]]]


def series(port: int) -> Page:
    """Everything on a page, by name."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE) as reply:
        text = reply.read().decode()
    found: Page = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def value(page: Page, name: str, **labels: str) -> float:
    """Sum of the series of a name that have these labels."""
    chosen = [one for has, one in page[name] if labels.items() <= has.items()]
    assert chosen, f"no {name} with {labels}"
    return sum(chosen)
