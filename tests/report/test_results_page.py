"""The results page says what the JSON files say, and a page that does not is found out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from llmgr_core.errors import InputError
from trainer.commands.report import command
from trainer.report import differing_blocks, page_with_blocks, read_definition, render
from trainer.report.definition import Figure, FigureRow, FiguresBlock
from trainer.report.rendering import unexplained
from trainer.report.result_files import Provenance, ResultFiles
from trainer.report.tables import difference, figures_table, interval, level, markdown_table

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "results.md"
RESULTS = ROOT / "benchmarks" / "results"


def report(*options: str, page: Path = PAGE, results: Path = RESULTS) -> Result:
    return CliRunner().invoke(command, ["--page", str(page), "--results", str(results), *options])


@pytest.fixture
def copied(tmp_path: Path) -> tuple[Path, Path]:
    """The page with its pictures, and the result files, to be changed."""
    for name in ("results.md", "results.toml", "pictures"):
        source = ROOT / "docs" / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    shutil.copytree(RESULTS, tmp_path / "json")
    return tmp_path / "results.md", tmp_path / "json"


def test_the_committed_page_is_what_the_committed_json_gives() -> None:
    result = report("--check")
    assert result.exit_code == 0, result.stderr


@pytest.mark.parametrize("name", [path.name for path in sorted(RESULTS.glob("*.json"))])
def test_every_result_names_protocol_seed_commit_machine_and_command(name: str) -> None:
    definition = read_definition(PAGE.with_suffix(".toml"))
    missing = Provenance.of(json.loads((RESULTS / name).read_text())).missing()
    allowed = definition.exempt[name].missing if name in definition.exempt else ()
    assert set(missing) == set(allowed)


def test_no_exemption_outlives_its_file() -> None:
    assert unexplained(read_definition(PAGE.with_suffix(".toml")), ResultFiles(RESULTS)) == []


def test_a_figure_edited_by_hand_fails_the_check_and_its_block_is_named(copied: tuple[Path, Path]) -> None:
    page, results = copied
    page.write_text(page.read_text().replace("| popularity | .0068", "| popularity | .0168"))
    result = report("--check", page=page, results=results)
    assert result.exit_code == 1
    assert "block beauty-masked of" in result.stderr
    assert "beauty-unmasked" not in result.stderr


def test_prose_between_blocks_is_free(copied: tuple[Path, Path]) -> None:
    page, results = copied
    page.write_text(page.read_text().replace("Read it so:", "Another sentence."))
    assert report("--check", page=page, results=results).exit_code == 0


def test_new_json_fails_the_check_until_the_page_is_made_again(copied: tuple[Path, Path]) -> None:
    page, results = copied
    path = results / "beauty-seeds.json"
    changed = json.loads(path.read_text())
    changed["splits"]["test"]["scorers"]["online"]["masked"]["all"]["HR@5"] = 0.5
    difference = changed["splits"]["test"]["differences"]["online"]["masked"]["1-4"]["HR@20"]
    difference["mean"] = (difference["mean"] + difference["high"]) / 2
    path.write_text(json.dumps(changed))
    result = report("--check", page=page, results=results)
    assert result.exit_code == 1
    for name in ("block targets", "block beauty-masked", "block beauty-buckets", "beauty-differences.svg"):
        assert name in result.stderr
    assert report(page=page, results=results).exit_code == 0
    assert "| **.5000** |" in page.read_text()
    assert report("--check", page=page, results=results).exit_code == 0


def test_a_picture_that_was_touched_is_found(copied: tuple[Path, Path]) -> None:
    page, results = copied
    picture = page.parent / "pictures" / "beauty-differences.svg"
    picture.write_text(picture.read_text().replace("</svg>", "<g/></svg>"))
    assert "beauty-differences.svg" in report("--check", page=page, results=results).stderr
    picture.unlink()
    assert "beauty-differences.svg" in report("--check", page=page, results=results).stderr


def test_a_picture_drawn_by_another_matplotlib_is_judged_by_its_data(copied: tuple[Path, Path]) -> None:
    page, results = copied
    picture = page.parent / "pictures" / "beauty-differences.svg"
    text = picture.read_text()
    assert "Matplotlib v" in text
    picture.write_text(text.replace("Matplotlib v", "Matplotlib v0."))
    assert report("--check", page=page, results=results).exit_code == 0


def test_a_result_that_does_not_say_where_it_comes_from_fails_the_check(copied: tuple[Path, Path]) -> None:
    page, results = copied
    (results / "new.json").write_text(json.dumps({"protocol": "full ranking", "seed": 1}))
    result = report("--check", page=page, results=results)
    assert result.exit_code == 1
    assert "new.json does not name its command, commit, machine" in result.stderr


PICTURES_OF_NOTHING = [
    {"draw": "rows"},
    {"draw": "reliability"},
    {"draw": "buckets", "split": "nowhere"},
]


@pytest.mark.parametrize("block", PICTURES_OF_NOTHING)
@pytest.mark.parametrize("option", [(), ("--check",)])
def test_a_picture_of_what_a_file_does_not_hold_is_refused_by_name(
    copied: tuple[Path, Path], tmp_path: Path, block: dict, option: tuple[str, ...]
) -> None:
    page, facts = tmp_path / "p.md", {"kind": "picture", "file": "beauty-mean.json", "alt": "x", **block}
    page.write_text("<!-- begin: a -->\n<!-- end -->\n")
    page.with_suffix(".toml").write_text("[block.a]\n" + "".join(f'{key} = "{value}"\n' for key, value in facts.items()))
    result = report(*option, page=page, results=copied[1])
    assert isinstance(result.exception, InputError)
    assert "block 'a'" in str(result.exception)


UNKNOWN_METRICS = [
    (
        "kind = 'picture'\ndraw = 'rows'\nalt = 'x'\nmetric = 'NDCG@200'",
        r"there is no metric 'NDCG@200'; there are HR@5, .*MRR@20",
    ),
    ("kind = 'picture'\ndraw = 'buckets'\nalt = 'x'\nmetric = 'HR@3'", r"there is no metric 'HR@3'"),
    ("kind = 'picture'\ndraw = 'buckets'\nalt = 'x'\nmetric = 'HR@10'", r"draw = 'buckets' does not read metric"),
    ("kind = 'picture'\ndraw = 'differences'\nalt = 'x'\nmasking = 'unmasked'", r"draw = 'differences' does not read masking"),
    ("kind = 'experiment'\ncommand = 'c'\ndifference = 'NDCG'", r"there is no metric 'NDCG'"),
]


@pytest.mark.parametrize(("block", "complaint"), UNKNOWN_METRICS)
def test_a_metric_that_nothing_shows_is_refused_with_its_block(tmp_path: Path, block: str, complaint: str) -> None:
    (tmp_path / "p.toml").write_text(f"[block.a-plot]\nfile = 'beauty-mean.json'\n{block}\n")
    with pytest.raises(InputError, match=complaint) as caught:
        read_definition(tmp_path / "p.toml")
    assert "block.a-plot." in str(caught.value)


@pytest.mark.parametrize("text", ["{} {}", "{name}", "{:.2f}"])
def test_a_format_that_does_not_take_its_figure_is_shown_with_it(copied: tuple[Path, Path], text: str) -> None:
    cell = Figure(text=text, of=(("splits",),))
    block = FiguresBlock(kind="figures", columns=("a",), rows=(FigureRow(label="x", file="beauty-mean.json", cells=(cell,)),))
    with pytest.raises(InputError, match="does not take the values") as caught:
        figures_table(block, ResultFiles(copied[1]))
    assert len(str(caught.value)) < 300


def test_what_cannot_be_written_is_named(copied: tuple[Path, Path], tmp_path: Path) -> None:
    page, results = copied
    (tmp_path / "file").write_text("")
    result = report("--html", str(tmp_path / "file" / "x.html"), page=page, results=results)
    assert isinstance(result.exception, InputError)
    assert "x.html cannot be written" in str(result.exception)


@pytest.mark.parametrize("facts", [{"machine": 3}, {"machine": {"gpu": "x"}}, {"seeds": 3, "machine": {"cores": 2}}])
def test_a_result_with_a_machine_of_another_form_does_not_name_it(facts: dict) -> None:
    assert "machine" in Provenance.of({"protocol": "full ranking", **facts}).missing()


def test_html_page_holds_tables_and_pictures_and_no_markers(copied: tuple[Path, Path], tmp_path: Path) -> None:
    page, results = copied
    place = tmp_path / "site" / "results.html"
    assert report("--html", str(place), page=page, results=results).exit_code == 0
    text = place.read_text()
    assert "<img" not in text
    rendering = render(read_definition(page.with_suffix(".toml")), ResultFiles(results))
    assert text.count("<svg") == len(rendering.pictures) > 0
    blocks = rendering.blocks
    assert text.count("<table>") == sum(block.startswith("|") for block in blocks.values()) > 1
    assert 'href="../../benchmarks/results/beauty-mean.json"' in text


PAGE_TEXT = "a\n<!-- begin: x -->\nold\n<!-- end -->\nb\n"


def test_blocks_are_replaced_and_found_when_they_differ() -> None:
    assert differing_blocks(PAGE_TEXT, {"x": "new"}) == ["x"]
    made = page_with_blocks(PAGE_TEXT, {"x": "new \\1 |"})
    assert made == "a\n<!-- begin: x -->\n\nnew \\1 |\n\n<!-- end -->\nb\n"
    assert differing_blocks(made, {"x": "new \\1 |"}) == []


@pytest.mark.parametrize(
    ("page", "complaint"),
    [
        (PAGE_TEXT.replace("<!-- end -->", ""), "no partner"),
        (PAGE_TEXT.replace("begin: x", "begin: y"), "block 'y', which is defined nowhere"),
        (PAGE_TEXT * 2, "'x' twice"),
        ("nothing", "'x' has no place"),
    ],
)
def test_a_page_whose_markers_do_not_fit_is_refused(page: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        page_with_blocks(page, {"x": "new"})


def test_numbers_are_printed_as_the_page_prints_them() -> None:
    assert level(0.06704) == ".0670"
    assert level(1.0) == "1.0000"
    clear = {"mean": 0.0225, "low": 0.0179, "high": 0.0278, "relative": 0.4851}
    assert difference(clear) == "**+.0225** (+48.5 %)"
    assert interval(clear) == "[+.0179, +.0278]"
    assert difference({"mean": -0.0013, "low": -0.002, "high": 0.001, "relative": None}) == "-.0013"
    assert interval({"mean": 0.0, "low": None, "high": None, "relative": None}) == "-"
    assert markdown_table(["", "a|b"], [["", "1"]]) == "| | a\\|b |\n| --- | --- |\n| | 1 |"


def test_a_figure_is_found_in_a_list_by_the_values_of_its_entry(tmp_path: Path) -> None:
    rows = [{"op": "a", "ms": 1.0}, {"op": "b", "ms": 2.5}]
    (tmp_path / "x.json").write_text(json.dumps({"rows": rows}))
    files = ResultFiles(tmp_path)

    def table(op: str) -> str:
        cell = Figure(text="{:.1f} ms", of=(("rows", {"op": op}, "ms"),), factor=2.0)
        return figures_table(
            FiguresBlock(kind="figures", columns=("m",), rows=(FigureRow(label="l", file="x.json", cells=(cell,)),)), files
        )

    assert "| l | 5.0 ms |" in table("b")
    with pytest.raises(InputError, match=r"x\.json holds nothing at .*'op': 'c'"):
        table("c")
