"""The playground in a real browser: Debian's Chromium without a window, driven by Playwright, on real servers."""

from __future__ import annotations

import os
import re
import shutil
import threading

import pytest
from test_playground_http import both_services

from llmgr_core.data.item import Item
from services.client import EmbeddingClient
from services.playground.serving import Playground
from services.ranking.live_ranker import LiveRanker

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
CHROMIUM = os.environ.get("LLMGR_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
MARKUP = '<img src=x onerror="document.title=1"><b>bold</b> "quoted" & lamp'
PATIENCE_MS = 60_000
playwright.expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium: apt-get install chromium, or name one in LLMGR_CHROMIUM")
    with playwright.sync_playwright() as driver:
        # Containers give a browser no namespaces of its own; it only opens a page of ours.
        browser = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"], timeout=PATIENCE_MS
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A playground on real servers, with one item whose title is markup."""
    with both_services(tmp_path_factory.mktemp("browser")) as (ranking, embedding):
        with EmbeddingClient(embedding) as client:
            client.embed(Item("markup", title=MARKUP))
        with Playground(ranking, embedding, port=0).serve() as server:
            yield server


@pytest.fixture
def tab(browser, site):
    """The page, opened; whatever its scripts complain of fails the test."""
    context = browser.new_context()
    tab = context.new_page()
    tab.set_default_timeout(PATIENCE_MS)
    complaints = []
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    tab.goto(site.address)
    playwright.expect(tab.locator("#ranking > li")).to_have_count(20)
    yield tab
    context.close()
    # Chromium reports every status from 400 on; what the page makes of it is for the test to see.
    assert [one for one in complaints if not one.startswith("Failed to load resource")] == []


def expect(tab, selector):
    return playwright.expect(tab.locator(selector))


def test_a_person_finds_an_item_clicks_it_and_sees_the_ranking_change(tab):
    expect(tab, "#facts").to_contain_text("by popularity")
    expect(tab, "#services").to_contain_text("41 titles")
    tab.get_by_label("Find an item").fill("number 7")
    expect(tab, "#found button").to_have_count(4)
    tab.get_by_role("button", name="Add Lamp number 7").click()
    expect(tab, "#clicks .name").to_have_text(re.compile("Lamp number 7"))
    expect(tab, "#facts").to_contain_text(re.compile(r"^answered in [\d.]+ ms, of which the ranker took [\d.]+ ms"))
    expect(tab, "#ranking [data-item=item-7]").to_have_count(0)
    expect(tab, "#ranking > li:first-child .chance").to_have_text(re.compile(r"[\d.]+ %"))
    tab.get_by_label("clicked items may come again").check()
    expect(tab, "#ranking > li").to_have_count(20)
    second = tab.locator("#ranking > li:nth-child(2) .pick")
    second.click()
    expect(tab, "#clicks > li").to_have_count(2)
    tab.get_by_role("button", name=re.compile("^Remove click 1")).click()
    expect(tab, "#clicks > li").to_have_count(1)
    tab.get_by_role("button", name="Start over").click()
    expect(tab, "#facts").to_contain_text("by popularity")


def test_the_keyboard_alone_is_enough(tab):
    for _ in range(10):
        if tab.evaluate("document.activeElement.id") == "query":
            break
        tab.keyboard.press("Tab")
    tab.keyboard.type("lamp number 1")
    expect(tab, "#found li:first-child").to_contain_text("Lamp number 1")
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("ArrowUp")
    tab.keyboard.press("Enter")
    expect(tab, "#clicks .name").to_have_text(re.compile("Lamp number 1"))
    tab.keyboard.press("Escape")
    assert tab.evaluate("document.activeElement.id") == "query"
    tab.keyboard.press("Enter")
    expect(tab, "#clicks > li").to_have_count(2)


def test_an_item_is_added_and_appears_in_the_ranking_then_goes(tab):
    tab.get_by_role("button", name="Write one like").click()
    assert tab.get_by_label("Title").input_value().startswith("Lamp number")
    tab.get_by_label("Title").fill("Moon lamp")
    tab.get_by_role("button", name="Add", exact=True).click()
    expect(tab, "#inserted").to_have_text(re.compile("Moon lamp is stored as new-.* the language model took"))
    expect(tab, "#followed li").to_have_count(1)
    expect(tab, "#followed li").to_contain_text("Moon lamp")
    place = tab.locator("#followed .place").inner_text()
    assert 1 <= int(place) <= 42
    if int(place) <= 20:
        expect(tab, "#ranking .mine").to_contain_text("Moon lamp")
    tab.get_by_role("button", name="Delete Moon lamp").click()
    expect(tab, "#inserted").to_have_text("Moon lamp is deleted.")
    expect(tab, "#followed-box").to_be_hidden()


def test_the_page_asks_again_until_the_ranker_knows_of_what_was_inserted(tab, monkeypatch):
    follow, behind = LiveRanker.follow, threading.Event()
    behind.set()
    monkeypatch.setattr(LiveRanker, "follow", lambda ranker: None if behind.is_set() else follow(ranker))
    tab.get_by_label("Title").fill("Sun lamp")
    tab.get_by_role("button", name="Add", exact=True).click()
    expect(tab, "#rank-error").to_contain_text("does not know of the newest change yet. Asking again")
    expect(tab, "#followed-box").to_be_hidden()
    behind.clear()
    expect(tab, "#followed li").to_contain_text("Sun lamp")
    expect(tab, "#rank-error").to_be_hidden()
    tab.get_by_role("button", name="Delete Sun lamp").click()
    expect(tab, "#inserted").to_have_text("Sun lamp is deleted.")


def test_what_a_service_refuses_is_said_in_words(tab):
    tab.get_by_label("Title").fill("<br>")
    tab.get_by_role("button", name="Add", exact=True).click()
    expect(tab, "#insert-error").to_be_visible()
    expect(tab, "#insert-error").to_contain_text("text")


def test_a_title_that_is_markup_is_shown_as_it_is(tab):
    tab.get_by_label("Find an item").fill("quoted")
    expect(tab, "#found .pick").to_have_count(1)
    expect(tab, "#found .pick").to_contain_text(MARKUP)
    tab.locator("#found .pick").click()
    expect(tab, "#clicks .name").to_contain_text(MARKUP)
    assert tab.locator("img, b").count() == 0
    assert tab.title() == "LLMGR playground"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_keeps_contrast_in_light_and_dark(tab, scheme):
    tab.set_viewport_size({"width": 360, "height": 740})
    tab.emulate_media(color_scheme=scheme)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 360
    for selector in ("body", ".hint", "button[type=submit]"):
        assert contrast(tab, selector) >= 4.5, selector


def contrast(tab, selector: str) -> float:
    """Contrast ratio (WCAG 2) of an element's text and ground."""
    colours = tab.evaluate(
        """selector => {
          let at = document.querySelector(selector), ground = "rgba(0, 0, 0, 0)";
          const text = getComputedStyle(at).color;
          for (; at && ground === "rgba(0, 0, 0, 0)"; at = at.parentElement) ground = getComputedStyle(at).backgroundColor;
          return [text, ground];
        }""",
        selector,
    )
    light, dark = sorted((luminance(one) for one in colours), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    channels = [int(one) / 255 for one in re.findall(r"\d+", colour)[:3]]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_a_service_that_goes_is_said_and_comes_back(browser, tmp_path):
    context = browser.new_context()
    tab = context.new_page()
    tab.set_default_timeout(PATIENCE_MS)
    with both_services(tmp_path) as (ranking, embedding), Playground(ranking, embedding, port=0).serve() as server:
        tab.goto(server.address)
        expect(tab, "#ranking > li").to_have_count(20)
        with Playground("127.0.0.1:1", embedding, port=0).serve() as broken:
            tab.goto(broken.address)
            expect(tab, "#rank-error").to_contain_text("llmgr serve ranking")
            expect(tab, "#services .down").to_contain_text("cannot be reached")
    tab.get_by_role("button", name="Start over").click()
    expect(tab, "#rank-error").to_contain_text("playground itself does not answer")
    context.close()
