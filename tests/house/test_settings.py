"""Settings: defaults that work, a file, overrides; what is wrong is named, with the way out."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from source_tree import ROOT

from llmgr_core.errors import SettingsError
from llmgr_core.settings import Settings, load_settings
from llmgr_core.settings.loading import known_keys

CONFIGS = sorted([*(ROOT / "configs").glob("*.toml"), *(ROOT / "configs/backbones").rglob("*.toml")])


def test_the_defaults_are_valid() -> None:
    assert load_settings() == Settings()


def test_overrides_go_over_the_file_and_the_file_over_the_defaults(tmp_path: Path) -> None:
    config = tmp_path / "my.toml"
    config.write_text("seed = 7\n[text]\nmax_tokens = 64\nattributes = 3\n")
    settings = load_settings(config, ["text.max_tokens=32", "threads = 2", "text.drop_phrases=false"])
    assert (settings.seed, settings.threads) == (7, 2)
    assert (settings.text.max_tokens, settings.text.attributes, settings.text.drop_phrases) == (32, 3, False)


@pytest.mark.parametrize(
    ("override", "nearest"),
    [
        ("text.max_token=3", "text.max_tokens"),
        ("txt.max_tokens=3", "text"),
        ("sed=3", "seed"),
        ("drop_phrases=3", "text.drop_phrases"),
    ],
)
def test_an_unknown_key_names_the_nearest_known_one(override: str, nearest: str) -> None:
    with pytest.raises(SettingsError, match="unknown key") as caught:
        load_settings(None, [override])
    assert f"did you mean {nearest}?" in str(caught.value)


def test_an_unknown_key_of_a_file_names_the_file(tmp_path: Path) -> None:
    config = tmp_path / "my.toml"
    config.write_text("[pretrian]\nepochs = 3\n")
    with pytest.raises(SettingsError, match=r"my\.toml: unknown key pretrian") as caught:
        load_settings(config)
    assert "pretrain" in str(caught.value)


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("text.max_tokens", "not of the form section.key=value"),
        ("=3", "not of the form"),
        ("text.=3", "not of the form"),
        ("seed.x=3", "seed"),
        ("text=3", "text is a table"),
        ("text.max_tokens=many", "text.max_tokens"),
        ("text.max_tokens=1", "text.max_tokens"),
        ("seed=-1", "seed"),
        ("text.drop_phrases=[1]", "text.drop_phrases"),
    ],
)
def test_an_override_that_cannot_be_taken_is_named(override: str, complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint.replace(".", r"\.")):
        load_settings(None, [override])


def test_two_overrides_that_contradict_each_other_in_shape_are_refused() -> None:
    with pytest.raises(SettingsError, match="seed is a value"):
        load_settings(None, ["seed=3", "seed.x=3"])


@pytest.mark.parametrize("content", [b"[text", b"\xff\xfe", b"seed = 1\nseed = 2\n"])
def test_a_file_that_is_no_toml_is_named(content: bytes, tmp_path: Path) -> None:
    config = tmp_path / "my.toml"
    config.write_bytes(content)
    with pytest.raises(SettingsError, match=r"my\.toml cannot be read"):
        load_settings(config)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no configuration file"):
        load_settings(tmp_path / "none.toml")


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_configuration_of_the_project_is_valid_and_explains_itself(config: Path) -> None:
    load_settings(config)
    lines = config.read_text().splitlines()
    assert lines[0].startswith("#"), "the header tells what it is for and how to run it"
    assert any("llmgr" in line for line in lines if line.startswith("#"))
    assert sum("#" in line for line in lines) >= sum("=" in line.partition("#")[0] for line in lines) / 2


def test_every_key_can_be_set_from_the_command_line() -> None:
    flat = {key: _value(Settings(), key) for key in known_keys()}
    for key, value in flat.items():
        if isinstance(value, bool | int | float):
            load_settings(None, [f"{key}={str(value).lower()}"])
        elif isinstance(value, str) and value:
            load_settings(None, [f"{key}={value}"])
    assert len(flat) > 30


def test_a_value_that_is_not_toml_is_a_text() -> None:
    assert tomllib.loads('x = "amazon-beauty"')["x"] == load_settings(None, ["engine.model=amazon-beauty"]).engine.model


def _value(settings: object, key: str) -> object:
    for name in key.split("."):
        settings = getattr(settings, name)
    return settings
