"""Removals of what protects the services from the faults of docs/faults.md; a named test must fail after each.

``python tests/services/fault_mutations.py`` prints the table of that page.
"""

from __future__ import annotations

import operation_faults
import request_faults
import store_faults
from fault_removal import FaultMutation

MUTATIONS: tuple[FaultMutation, ...] = store_faults.MUTATIONS + request_faults.MUTATIONS + operation_faults.MUTATIONS


def table() -> str:
    """Rows of docs/faults.md, in Markdown."""
    lines = ["| Fault | What protects | Where | Test that fails without it |", "|---|---|---|---|"]
    for one in MUTATIONS:
        lines.append(f"| {one.fault} | {one.protection} | `{one.file}` | `{one.test.partition('::')[2]}` |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
