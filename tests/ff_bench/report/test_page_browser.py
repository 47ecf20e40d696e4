"""The pages in a real browser: no error, no request, videos in step, keys, votes; skipped without one."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser, find
from test_page import EVIL, hostile

from ff_bench.report.blind import write_blind
from ff_bench.report.page import write_page
from ff_bench.report.trials import read_key
from ff_bench.report.votes import preferences, read

pytestmark = pytest.mark.skipif(find() is None, reason="needs Chromium")

FRAME = 1 / 16
"""Seconds."""
VIDEOS = "[...document.querySelectorAll('.group:not([hidden]) video')]"
TIMES = f"{VIDEOS}.map(video => video.currentTime)"
SPREAD = f"Math.max(...{TIMES}) - Math.min(...{TIMES})"
LOADED = f"{VIDEOS}.length && {VIDEOS}.every(video => video.readyState >= 2 && !video.seeking)"
TOGETHER = "[...players.values()][0].together"


@pytest.fixture(scope="module")
def pages(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with both pages, whose texts are attacks."""
    out = tmp_path_factory.mktemp("pages")
    found, shown = hostile(run_folder)
    write_page(out, found, {}, shown=shown)
    write_blind(out, found, shown=shown, most=9)
    return out


@pytest.fixture(scope="module")
def linked(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with both pages, whose videos are too large to stand in them."""
    out = tmp_path_factory.mktemp("linked")
    found, shown = hostile(run_folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ff_bench.report.cards.EMBED_BYTES", 0)
        patch.setattr("ff_bench.report.blind.EMBED_TOTAL", 0)
        write_page(out, found, {}, shown=shown)
        write_blind(out, found, shown=shown, most=9)
    return out


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture
def browser(started: Browser) -> Iterator[Browser]:
    """Return the browser; whatever a test did, nothing was wrong and nobody was asked for anything."""
    started.resize(1180, 900)
    yield started
    assert started.problems == []
    assert [
        url for url in started.requests if not url.startswith(("file:", "data:", "blob:", "about:"))
    ] == []
    assert started.run("window.pwned") is None


def opened(browser: Browser, pages: Path) -> None:
    """Open the report at its player."""
    browser.open(pages / "index.html")
    browser.wait(LOADED)
    browser.run("document.querySelector('.set').scrollIntoView()")


def spread(browser: Browser) -> float:
    """Return how far the videos are apart, in seconds, and check that there are three."""
    times = browser.run(TIMES)
    assert len(times) == 3
    return float(max(times) - min(times))


def test_attacks_are_shown_as_text(browser: Browser, pages: Path) -> None:
    opened(browser, pages)
    assert EVIL in browser.run("document.body.innerText")
    assert browser.run("document.querySelectorAll('script').length") == 1
    assert browser.run("document.querySelectorAll('[onerror]').length") == 0


def test_videos_stay_within_a_frame(browser: Browser, pages: Path) -> None:
    opened(browser, pages)
    browser.press(" ")
    browser.wait(f"{TOGETHER}.playing && {VIDEOS}.every(video => video.currentTime > 0.5)")
    spreads = []
    for _ in range(11):
        spreads.append(spread(browser))
        time.sleep(0.1)
    assert statistics.median(spreads) < FRAME  # a busy machine may hold one of them up
    browser.press(" ")
    browser.wait(f"!{TOGETHER}.playing && {LOADED}")
    assert spread(browser) < 1e-3
    browser.run(f"{TOGETHER}.seek(7)")
    browser.wait(LOADED)
    assert spread(browser) < 1e-3
    assert browser.run(TIMES)[0] == pytest.approx(7 + FRAME / 2, abs=1e-3)  # the middle of a frame
    browser.press(" ")
    browser.wait(f"{TOGETHER}.playing && {VIDEOS}.every(video => video.currentTime > 7.5)")
    browser.wait(f"{SPREAD} < {FRAME}", 5)
    browser.run(f"{TOGETHER}.seek(3)")  # while they play
    browser.wait(f"{TOGETHER}.playing && {VIDEOS}.every(video => video.currentTime > 3.3)")
    browser.wait(f"{SPREAD} < {FRAME}", 5)
    assert browser.run(TIMES)[0] < 10


@pytest.mark.parametrize("name", ["index.html", "blind.html"])
def test_videos_beside_the_page_play_as_well(browser: Browser, linked: Path, name: str) -> None:
    browser.open(linked / name)
    browser.wait("document.querySelector('video').readyState >= 2")
    assert browser.run("document.querySelector('video').currentSrc").startswith("file:")
    browser.press(" ") if name == "blind.html" else browser.run(f"{TOGETHER}.play()")
    browser.wait("document.querySelector('video').currentTime > 0.3")


def test_a_video_that_lags_is_brought_back(browser: Browser, pages: Path) -> None:
    opened(browser, pages)
    browser.press(" ")
    browser.wait(f"{TOGETHER}.playing && {VIDEOS}.every(video => video.currentTime > 0.3)")
    for lag in (2, 0.15):
        browser.run(f"{VIDEOS}[1].currentTime += {lag}")
        browser.wait(f"Math.abs({VIDEOS}[1].currentTime - {VIDEOS}[0].currentTime) < {FRAME}", 10)


def test_they_stop_at_the_end_and_begin_again(browser: Browser, pages: Path) -> None:
    opened(browser, pages)
    browser.run(f"{TOGETHER}.seek({TOGETHER}.length - 0.5)")
    browser.wait(LOADED)
    browser.press(" ")
    browser.wait(f"{TOGETHER}.playing")
    browser.wait(f"!{TOGETHER}.playing && {LOADED}")
    assert spread(browser) < 1e-3
    assert browser.run(f"{TOGETHER}.atEnd")
    browser.press(" ")
    browser.wait(f"{TOGETHER}.playing && {TOGETHER}.time < 5")


def test_playheads_and_numbers_follow(browser: Browser, pages: Path) -> None:
    opened(browser, pages)
    browser.run(f"{TOGETHER}.seek({TOGETHER}.length / 2)")
    browser.wait(LOADED)
    tracks = browser.run(
        "[...document.querySelectorAll('.group:not([hidden]) .track')].map(track => "
        "(track.querySelector('.now').getBoundingClientRect().left - track.getBoundingClientRect().left)"
        " / track.clientWidth)"
    )
    assert len(tracks) >= 9
    assert tracks == pytest.approx([0.5] * len(tracks), abs=0.01)
    told = browser.run(
        "(() => { const output = [...document.querySelectorAll('.group:not([hidden]) output[data-steps]')]"
        f".find(output => output.value !== '–'), time = {TOGETHER}.time;"
        "const step = JSON.parse(output.dataset.steps).find(step => step[0] <= time && time < step[1]);"
        "return [Number(output.value), step[2]]; })()"
    )
    assert told[0] == pytest.approx(told[1], abs=0.01)
    held = browser.run("[...document.querySelectorAll('.group:not([hidden]) [data-held]')].map(o => o.value)")
    assert all("%, oldest" in text for text in held)


def test_keys(browser: Browser, pages: Path) -> None:
    opened(browser, pages)
    alone = "document.querySelectorAll('.group:not([hidden]) .card:not(.alone)').length"
    place = "[...players.values()][0].place"
    for key, shift, frame in (("ArrowRight", False, 1), ("ArrowRight", True, 17), ("ArrowLeft", False, 16)):
        browser.press(key, shift=shift)
        browser.wait(LOADED)
        assert browser.run(f"{TOGETHER}.frame") == frame
    browser.press("2")
    assert browser.run("document.querySelector('.group:not([hidden]) .alone .number').textContent") == "2"
    browser.press("0")
    assert browser.run(alone) == 3
    first = browser.run(place)
    browser.press("ArrowDown" if first == 0 else "ArrowUp")
    assert browser.run(place) == 1 - first
    browser.run("document.querySelector('[data-pick=best]').click()")
    best = browser.run(place)
    browser.run("document.querySelector('[data-pick=worst]').click()")
    assert browser.run(place) == 1 - best
    browser.run("document.querySelector('.choice').focus()")
    browser.press("2")  # belongs to the list
    assert browser.run(alone) == 3


def test_tables_sort(browser: Browser, pages: Path) -> None:
    opened(browser, pages)
    keys = "[...document.querySelectorAll('tbody')][0].rows"
    column = f"[...{keys}].map(row => row.cells[3].dataset.sort)"
    browser.run("document.querySelectorAll('th')[3].click()")
    down = [float(value) for value in browser.run(column) if value]
    assert down == sorted(down, reverse=True)
    browser.run("document.querySelectorAll('th')[3].click()")
    assert [float(value) for value in browser.run(column) if value] == down[::-1]
    assert browser.run("document.querySelectorAll('th')[3].ariaSort") == "ascending"


@pytest.mark.parametrize("width", [360, 768, 1180])
@pytest.mark.parametrize("name", ["index.html", "blind.html"])
def test_nothing_is_wider_than_the_window(browser: Browser, pages: Path, name: str, width: int) -> None:
    browser.resize(width, 800)
    browser.open(pages / name)
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run("innerWidth") <= width + 20  # a wider page would make a phone zoom out


def test_blind_votes_are_kept_exported_and_read_back(browser: Browser, pages: Path) -> None:
    browser.open(pages / "blind.html")
    ready = "[...document.querySelectorAll('video')].every(video => video.readyState >= 2)"
    browser.wait(ready)
    assert EVIL in browser.run("document.getElementById('prompt').textContent")
    browser.press(" ")
    browser.wait("together.playing && together.time > 0.3")
    times = browser.run("[...document.querySelectorAll('video')].map(video => video.currentTime)")
    assert abs(times[0] - times[1]) < FRAME
    for key in "120":
        browser.press(key)
        browser.wait(ready)
    assert browser.run("document.getElementById('count').value") == "pair 4 of 6, 3 voted"
    browser.press("b")
    browser.press("2")  # changes the third, and goes on
    browser.open(pages / "blind.html")  # and comes back another day
    browser.wait(ready)
    assert browser.run("document.getElementById('count').value") == "pair 4 of 6, 3 voted"
    browser.run("document.getElementById('export').click()")
    browser.wait_for(lambda: bool([*browser.downloads.glob("votes-*.json")]), "the download")
    (path,) = browser.downloads.glob("votes-*.json")
    (ballot,) = read([path])
    assert [vote.choice for vote in ballot.votes.values()] == ["left", "right", "right"]
    key = read_key(next(pages.glob("blind-key-*.json")))
    assert key is not None
    assert [found.trial for found in preferences([ballot], [pages])] == [*key.trials[:3]]
