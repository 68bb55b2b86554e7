"""The data sets that can be fetched by name."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from llmgr_core.artefacts.manifest import hash_file
from llmgr_core.downloads.amazon_raw import convert_amazon
from llmgr_core.downloads.data_format import KNOWN_NAMES, copy_data, holds_data
from llmgr_core.downloads.http import fetch_file
from llmgr_core.downloads.movielens import write_movielens
from llmgr_core.downloads.placement import place_directory
from llmgr_core.downloads.places import home
from llmgr_core.downloads.wheels import RECBOLE
from llmgr_core.errors import InputError
from llmgr_core.progress import Reporter

LAYOUT = 1
MOVIELENS = "movielens-100k"
# https://jmcauley.ucsd.edu/data/amazon/ (2014) and https://nijianmo.github.io/amazon/ (2018) point to these.
FILES_OF_2014 = "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles"
FILES_OF_2018 = "https://datarepo.eng.ucsd.edu/mcauley_group/data/amazon_v2"


@dataclass(frozen=True)
class AmazonSource:
    """Official addresses of one category: its 5-core reviews and its item records."""

    reviews: str
    meta: str

    @property
    def reviews_name(self) -> str:
        return self.reviews.rsplit("/", 1)[-1]

    @property
    def meta_name(self) -> str:
        return self.meta.rsplit("/", 1)[-1]


def _of_2014(category: str) -> AmazonSource:
    return AmazonSource(f"{FILES_OF_2014}/reviews_{category}_5.json.gz", f"{FILES_OF_2014}/meta_{category}.json.gz")


def _of_2018(category: str) -> AmazonSource:
    return AmazonSource(
        f"{FILES_OF_2018}/categoryFilesSmall/{category}_5.json.gz", f"{FILES_OF_2018}/metaFiles2/meta_{category}.json.gz"
    )


AMAZON = {
    "amazon-beauty": _of_2014("Beauty"),
    "amazon-music": _of_2014("Digital_Music"),
    "amazon-pantry": _of_2018("Prime_Pantry"),
    "amazon-scientific": _of_2018("Industrial_and_Scientific"),
}
# Behind a registration form: only a directory that someone has fetched and converted can be taken.
ONLY_FROM_DIRECTORY = {"diginetica": "CIKM Cup 2016, https://competitions.codalab.org/competitions/11161"}
NAMES = (MOVIELENS, *AMAZON, *ONLY_FROM_DIRECTORY)


def fetch_data(name: str, reporter: Reporter, *, directory: Path | None = None, force: bool = False) -> Path:
    """Make a data set available under ``home()/data/NAME``; nothing happens if it is there.

    Args:
        name: one of NAMES; with ``directory`` any name that can be a file name.
        directory: take it from here instead: either a directory of the project's data format, or one with the official
            Amazon files of that name.
        force: make it again even if it is there.

    Raises:
        InputError: unknown name, network or hash failure, or files that are not what they should be.
    """
    if not name or name != Path(name).name or name.startswith("."):
        raise InputError(f"{name!r} cannot be the name of a data set")
    final = home() / "data" / name
    if directory is not None:
        made = _take_directory(name, directory, final, reporter, force)
    elif name == MOVIELENS:
        reporter.event("download", wheel=RECBOLE.requirement, megabytes=2)
        made = place_directory(final, RECBOLE.source(data="ml-100k", layout=LAYOUT), write_movielens, force=force)
    elif name in AMAZON:
        made = _fetch_amazon(name, final, reporter, force)
    elif name in ONLY_FROM_DIRECTORY:
        raise InputError(
            f"{name} has no address that can be fetched without registration ({ONLY_FROM_DIRECTORY[name]})",
            f"with its files in the project's data format: `llmgr data {name} --from DIR`",
        )
    else:
        raise InputError(f"no data set {name!r}", f"known are {', '.join(NAMES)}; `--from DIR` takes any other")
    reporter.event("data", data_set=name, directory=str(final), made=made)
    return final


def _take_directory(name: str, directory: Path, final: Path, reporter: Reporter, force: bool) -> bool:
    if not directory.is_dir():
        raise InputError(f"no directory {directory}")
    raw = AMAZON.get(name)
    files: tuple[str, ...]
    if raw and not holds_data(directory) and (directory / raw.reviews_name).is_file():
        files = (raw.reviews_name, raw.meta_name)

        def fill(target: Path) -> None:
            _convert(directory / raw.reviews_name, directory / raw.meta_name, target, reporter)
    else:
        files = KNOWN_NAMES

        def fill(target: Path) -> None:
            reporter.event("copied", **copy_data(directory, target))

    hashes = {file: hash_file(directory / file) for file in files if (directory / file).is_file()}
    return place_directory(final, {"files": hashes, "layout": LAYOUT}, fill, force=force)


def _fetch_amazon(name: str, final: Path, reporter: Reporter, force: bool) -> bool:
    source = AMAZON[name]
    hint = (
        f"fetch {source.reviews_name} and {source.meta_name} on a machine that reaches it, "
        f"put both into one directory, and run `llmgr data {name} --from DIR`"
    )

    def fill(target: Path) -> None:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{name}.raw-") as raw:
            for address in (source.reviews, source.meta):
                fetch_file(address, Path(raw) / address.rsplit("/", 1)[-1], reporter, hint)
            _convert(Path(raw) / source.reviews_name, Path(raw) / source.meta_name, target, reporter)

    return place_directory(final, {"addresses": asdict(source), "layout": LAYOUT}, fill, force=force)


def _convert(reviews: Path, meta: Path, target: Path, reporter: Reporter) -> None:
    report = convert_amazon(reviews, meta, target)
    reporter.event("converted", **asdict(report))
