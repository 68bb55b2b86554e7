"""Peak memory and time of `llmgr prepare` on a large catalogue and click log.

Writes a made-up catalogue (JSON lines) and click log (CSV, one click a row, sessions interleaved as in a shop's own log), runs
`llmgr prepare` on them in a process of its own, and prints the peak of its memory beside its time. For comparison, the same
clicks are read the plain way, one Python tuple a row.

    python benchmarks/prepare_scale.py                       1 million items, 10 million clicks
    python benchmarks/prepare_scale.py --scale 0.01          a hundredth of that
    python benchmarks/prepare_scale.py --out results.json
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as arrow_csv

from llmgr_core.evaluation.protocol import commit, machine

MEBIBYTE = 2**20
ROWS_AT_A_TIME = 100_000
WORDS = (
    *("steel", "cotton", "blue", "red", "wireless", "charger", "kitchen", "garden", "lamp", "wooden", "table", "soft"),
    *("leather", "case", "running", "shoe", "water", "bottle", "glass", "puzzle", "compact", "bag", "winter", "jacket"),
    *("ceramic", "mug", "brush", "organic", "soap", "natural", "oil", "battery", "screen", "cable", "metal", "holder"),
)
PLAIN_READER = """
import collections, csv, sys
sessions = collections.defaultdict(list)
with open(sys.argv[1], newline="") as stream:
    for row in csv.DictReader(stream):
        sessions[row["session_id"]].append((float(row["timestamp"]), row["item_id"]))
for clicks in sessions.values():
    clicks.sort()
"""


def write_items(path: Path, num_items: int, seed: int) -> None:
    """A title, a brand, a category and a description of about 40 words for each item; streamed."""
    random = np.random.default_rng(seed)
    words = np.array(WORDS)

    def sentence(rows: int, length: int) -> np.ndarray:
        drawn = words[random.integers(0, len(words), (rows, length))]
        return np.array([" ".join(row) for row in drawn], dtype=object)

    with path.open("w", encoding="utf-8") as stream:
        for start in range(0, num_items, ROWS_AT_A_TIME):
            rows = min(ROWS_AT_A_TIME, num_items - start)
            titles, first, second = sentence(rows, 8), sentence(rows, 16), sentence(rows, 14)
            brands, categories = random.integers(0, 2000, rows), random.integers(0, 300, rows)
            for row in range(rows):
                record = {
                    "item_id": f"SKU{start + row:08d}",
                    "title": titles[row],
                    "description": f"<p>{first[row]}.</p> {second[row]}. Satisfaction guaranteed.",
                    "brand": f"Brand {brands[row]}",
                    "category": [["Shop", f"Department {categories[row] % 20}", f"Shelf {categories[row]}"]],
                }
                stream.write(json.dumps(record) + "\n")


def write_clicks(path: Path, num_items: int, num_clicks: int, seed: int) -> None:
    """Clicks in order of time; about 8 a session, a few thousand sessions open at once, items by a power law; streamed."""
    random = np.random.default_rng(seed)
    weights = 1.0 / np.arange(1, num_items + 1) ** 0.7
    bounds = np.cumsum(weights / weights.sum())
    schema = pa.schema([("session_id", pa.string()), ("item_id", pa.string()), ("timestamp", pa.int64())])
    with arrow_csv.CSVWriter(path, schema) as writer:
        for start in range(0, num_clicks, ROWS_AT_A_TIME):
            rows = min(ROWS_AT_A_TIME, num_clicks - start)
            place = np.arange(start, start + rows)
            session = place // 8 + random.integers(0, 4000, rows)
            item = np.minimum(np.searchsorted(bounds, random.random(rows)), num_items - 1)
            columns = [_ids("s", session), _ids("SKU", item), pa.array(1_700_000_000 + place // 50)]
            writer.write_table(pa.table(columns, schema=schema))


def measure(command: list[str]) -> dict[str, float]:
    """Run a command; seconds, and the highest memory (MiB) of it and its children together, sampled ten times a second."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    peak, finished = [0], threading.Event()

    def sample() -> None:
        top = psutil.Process(process.pid)
        while not finished.wait(0.1):
            try:
                family = [top, *top.children(recursive=True)]
                peak[0] = max(peak[0], sum(_private_bytes(one) for one in family))
            except psutil.NoSuchProcess:
                continue

    sampler = threading.Thread(target=sample)
    sampler.start()
    _, errors = process.communicate()
    finished.set()
    sampler.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{errors[-4000:]}")
    return {"seconds": time.perf_counter() - started, "peak_mib": peak[0] / MEBIBYTE}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="1: a million items and ten million clicks")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=0, help="processes that clean text; 0: one for each core")
    parser.add_argument("--skip-plain", action="store_true", help="leave the comparison out")
    parser.add_argument("--work", type=Path, help="directory for the made-up files (default: a temporary one)")
    parser.add_argument("--out", type=Path, help="write the figures here, as JSON")
    arguments = parser.parse_args()
    num_items, num_clicks = int(1_000_000 * arguments.scale), int(10_000_000 * arguments.scale)
    work = arguments.work or Path(tempfile.mkdtemp(prefix="prepare-scale-"))
    work.mkdir(parents=True, exist_ok=True)
    try:
        items, clicks, run = work / "items.jsonl", work / "clicks.csv", work / "run"
        if not (items.is_file() and clicks.is_file()):
            write_items(items, num_items, arguments.seed)
            write_clicks(clicks, num_items, num_clicks, arguments.seed)
        prepare = ["-c", "from llmgr_core.command_line.main import main; main()", "prepare", "--run", str(run), "--force"]
        settings = ["--set", f"data.workers={arguments.workers}"]
        figures = {
            "prepare": measure([sys.executable, *prepare, "--items", str(items), "--sessions", str(clicks), *settings]),
        }
        if not arguments.skip_plain:
            figures["plain reading of the clicks alone"] = measure([sys.executable, "-c", PLAIN_READER, str(clicks)])
        protocol = json.loads((run / "dataset" / "protocol.json").read_text(encoding="utf-8"))
        result = {
            "benchmark": "prepare_scale",
            "items": num_items,
            "clicks": num_clicks,
            "input_mib": (items.stat().st_size + clicks.stat().st_size) / MEBIBYTE,
            "items_kept": protocol["num_items"],
            "clicks_kept": protocol["num_clicks"],
            "rows_per_second": (num_items + num_clicks) / figures["prepare"]["seconds"],
            "figures": figures,
            "protocol": {"scale": arguments.scale, "workers": arguments.workers, **protocol},
            "seed": arguments.seed,
            "pyarrow": pa.__version__,
            "commit": commit(),
            "machine": machine(),
            "command": ["python", *sys.argv],
        }
    finally:
        if arguments.work is None:
            shutil.rmtree(work, ignore_errors=True)
    print(f"{num_items:,} items, {num_clicks:,} clicks, {result['input_mib']:.0f} MiB; {result['rows_per_second']:,.0f} rows/s")
    for name, one in figures.items():
        print(f"{name:36s} {one['seconds']:8.1f} s {one['peak_mib']:10.0f} MiB peak")
    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _ids(prefix: str, numbers: np.ndarray) -> pa.Array:
    digits = pc.utf8_lpad(pa.array(numbers).cast(pa.string()), 8, "0")
    return pc.binary_join_element_wise(pa.scalar(prefix), digits, "")


def _private_bytes(process: psutil.Process) -> int:
    """Resident memory that is the process's own; pages of files that it maps can be dropped at any time."""
    memory = process.memory_info()
    return int(memory.rss - getattr(memory, "shared", 0))


if __name__ == "__main__":
    main()
