"""Draw docs/pictures/flow.svg: `python docs/pictures/draw_flow.py`. Standard library only."""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

BOX_WIDTH, BOX_HEIGHT, GAP = 128, 58, 26
LEFT, OFFLINE_TOP, STORE_TOP, ONLINE_TOP = 20, 62, 190, 316

OFFLINE = [
    ("prepare", "clean text, split"),
    ("pretrain", "GC-SAN on IDs"),
    ("tune", "LoRA, two stages"),
    ("embed", "one LLM pass each"),
    ("distil", "ranker without LLM"),
    ("export", "everything served"),
]


def box(x: float, y: float, title: str, line: str, fill: str, width: float = BOX_WIDTH) -> str:
    """A rounded box with a title and one line below it."""
    middle = x + width / 2
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{BOX_HEIGHT}" rx="8" fill="{fill}" stroke="#334155"/>'
        f'<text x="{middle}" y="{y + 25}" text-anchor="middle" font-weight="600" font-size="14">{escape(title)}</text>'
        f'<text x="{middle}" y="{y + 44}" text-anchor="middle" font-size="11.5" fill="#334155">{escape(line)}</text>'
    )


def arrow(points: list[tuple[float, float]], label: str = "", at: tuple[float, float] = (0, 0)) -> str:
    """A line with a head at its last point."""
    path = " ".join(f"{x},{y}" for x, y in points)
    text = f'<text x="{at[0]}" y="{at[1]}" font-size="11.5" fill="#334155">{escape(label)}</text>' if label else ""
    return f'<polyline points="{path}" fill="none" stroke="#334155" stroke-width="1.6" marker-end="url(#head)"/>{text}'


def heading(y: float, text: str) -> str:
    """A grey heading at the left edge."""
    return f'<text x="{LEFT}" y="{y}" font-size="12.5" font-weight="600" fill="#64748b">{escape(text)}</text>'


def flow() -> str:
    """The whole picture as SVG text."""
    step = BOX_WIDTH + GAP
    places = [LEFT + number * step for number in range(len(OFFLINE))]
    width = places[-1] + BOX_WIDTH + LEFT
    parts = [heading(OFFLINE_TOP - 16, "OFFLINE: training, on items.jsonl and sessions.jsonl")]
    for x, (title, line) in zip(places, OFFLINE, strict=True):
        parts.append(box(x, OFFLINE_TOP, title, line, "#e0f2fe"))
    middle = OFFLINE_TOP + BOX_HEIGHT / 2
    parts += [arrow([(x + BOX_WIDTH, middle), (x + step, middle)]) for x in places[:-1]]

    store, bundle = places[3], places[5]
    parts.append(box(store, STORE_TOP, "store", "LMDB, change log", "#fef9c3"))
    parts.append(box(bundle, STORE_TOP, "bundle", "one hashed folder", "#fef9c3"))
    parts.append(
        arrow([(store + 40, OFFLINE_TOP + BOX_HEIGHT), (store + 40, STORE_TOP)], "vectors", (store - 10, STORE_TOP - 32))
    )
    parts.append(
        arrow(
            [
                (store + 94, STORE_TOP),
                (store + 94, OFFLINE_TOP + BOX_HEIGHT + 34),
                (places[4] + 40, OFFLINE_TOP + BOX_HEIGHT + 34),
                (places[4] + 40, OFFLINE_TOP + BOX_HEIGHT),
            ]
        )
    )
    parts.append(arrow([(bundle + 64, OFFLINE_TOP + BOX_HEIGHT), (bundle + 64, STORE_TOP)]))

    parts.append(heading(ONLINE_TOP + BOX_HEIGHT + 26, "ONLINE: gRPC, no language model on a ranking request"))
    parts.append(box(places[0], ONLINE_TOP, "catalogue", "a new or edited item", "#f1f5f9"))
    embedding = places[1] + step / 2
    parts.append(box(embedding, ONLINE_TOP, "embedding server", "LLM once per new text", "#dcfce7", 150))
    parts.append(box(places[4] - 30, ONLINE_TOP, "ranking server", "GNN + fused rows", "#dcfce7", 150))
    parts.append(box(places[5] + 20, ONLINE_TOP, "shop", "a session's clicks", "#f1f5f9", 108))
    low = ONLINE_TOP + BOX_HEIGHT / 2
    parts.append(arrow([(places[0] + BOX_WIDTH, low), (embedding, low)], "EmbedItem", (places[0] + BOX_WIDTH + 14, low - 8)))
    parts.append(
        arrow(
            [(embedding + 75, ONLINE_TOP), (embedding + 75, STORE_TOP + 30), (store, STORE_TOP + 30)],
            "durable, then OK",
            (embedding + 84, STORE_TOP + 22),
        )
    )
    parts.append(
        arrow(
            [(store + 64, STORE_TOP + BOX_HEIGHT), (store + 64, low), (places[4] - 30, low)],
            "follows the log",
            (store + 72, STORE_TOP + BOX_HEIGHT + 20),
        )
    )
    parts.append(
        arrow(
            [
                (bundle + 30, STORE_TOP + BOX_HEIGHT),
                (bundle + 30, STORE_TOP + BOX_HEIGHT + 24),
                (places[4] + 45, STORE_TOP + BOX_HEIGHT + 24),
                (places[4] + 45, ONLINE_TOP),
            ]
        )
    )
    parts.append(arrow([(places[5] + 20, low), (places[4] + 120, low)], "", (0, 0)))
    parts.append(f'<text x="{places[4] + 92}" y="{ONLINE_TOP - 8}" font-size="11.5" fill="#334155">RankSession</text>')
    height = ONLINE_TOP + BOX_HEIGHT + 34
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="system-ui, sans-serif">'
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0,0 L8,4 L0,8 z" fill="#334155"/></marker></defs>'
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>' + "".join(parts) + "</svg>\n"
    )


if __name__ == "__main__":
    Path(__file__).with_name("flow.svg").write_text(flow(), encoding="utf-8")
