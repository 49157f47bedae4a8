"""The page in a real Chromium, over a real agent: what a person sees of it, and that a verification ends it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.aim import server
from edge_agent.aim.gauges import GAUGES
from edge_agent.aim.sources import FromAgent
from edge_agent.sandbox.server import SandboxServer
from tests.aim.browser import CHROMIUM, Browser
from tests.aim.stage import Page
from tests.faces import measurement, scores
from tests.terminal import Terminal, terminal

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

SIZES = {"desktop": (1280, 800), "phone": (390, 844)}
TEXT = "document.getElementById('{}')?.textContent"
STATES = """Object.fromEntries([...document.querySelectorAll('#gauges li')].filter((li) => !li.hidden).map((li) =>
    [li.querySelector('.name').textContent, li.className + ' ' + li.querySelector('.mark').textContent]))"""
NUMBER = """[...document.querySelectorAll('#gauges li')].find((li) => li.textContent.includes('eye to eye'))
    .querySelector('.number').textContent"""
BEYOND = """[...document.querySelectorAll('body *')].filter((e) => { const box = e.getBoundingClientRect();
    return box.width && getComputedStyle(e).position !== 'absolute' && (box.left < -1 || box.right > innerWidth + 1); })
    .map((e) => e.outerHTML.slice(0, 80))"""
UNNAMED = """[...document.querySelectorAll('button, img, section, ul, [role=meter], [role=img]')].filter((e) =>
    !(e.getAttribute('aria-label') || e.getAttribute('aria-labelledby') || e.getAttribute('alt') || e.textContent.trim()))
    .map((e) => e.outerHTML.slice(0, 80))"""


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Terminal]:
    with SandboxServer() as sandbox:
        sandbox.enrol("alice", b"source picture")
        with terminal(tmp_path, sandbox) as t:
            yield t


def shown(browser: Browser, folder: str | None, name: str) -> None:
    """Keep a picture of the page where somebody wants to look at it."""
    if folder:
        browser.screenshot(Path(folder) / f"{name}.png")


def test_a_person_can_read_the_page_at_both_sizes_and_is_told_that_a_verification_began(
    running: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "LAST_WORDS_S", 30.0)
    folder = os.environ.get("EDGE_AGENT_SCREENSHOTS")
    running.eyes.sees = measurement(inter_eye_px=31.0)
    with Page(FromAgent(running.socket)) as page, Browser(tmp_path / "profile") as browser:
        browser.resize(*SIZES["desktop"])
        browser.visit(page.link)
        browser.until(f"{TEXT.format('state')} === 'CAMERA ON – LIVE PICTURE'", "the banner does not say that it is on")
        browser.until(f"{TEXT.format('hint')} === 'Please come closer.'", "the hint does not come")
        assert browser.ask("location.href") == f"http://{page.address}/", "the token stays in the address"
        states = browser.ask(STATES)
        assert {name for name in states if "(" not in name} == {gauge.label for gauge in GAUGES.values()}
        assert (states["Size: eye to eye"], states["Face found"], states["Live"]) == ("fail ✗", "pass ✓", "none –")
        assert browser.ask(NUMBER) == "31 ≥ 60 px"
        assert browser.ask("document.querySelectorAll('#overlay rect').length") == 1
        assert browser.ask("document.querySelectorAll('#overlay circle').length") == 5
        assert browser.ask("document.getElementById('image').naturalWidth") == 960
        assert browser.ask(UNNAMED) == []

        running.eyes.sees, running.eyes.scores = measurement(inter_eye_px=101.0), scores(0.9)
        browser.until(NUMBER, "the numbers do not move", lambda text: text == "101 ≥ 60 px")
        browser.until(
            f"{TEXT.format('verdict')}.includes('✓ This picture qualifies')", "nobody is told that it is good"
        )
        assert browser.ask(STATES)["Live (first)"] == "pass ✓"
        for name, size in SIZES.items():
            browser.resize(*size)
            browser.until(f"innerWidth === {size[0]}", "the window does not change")
            assert browser.ask("document.documentElement.scrollWidth") == size[0], f"{name}: it scrolls sideways"
            assert browser.ask(BEYOND) == [], name
            shown(browser, folder, name)

        with running.client() as client:
            assert client.verify("alice", wait_s=20).approved
        browser.until(f"{TEXT.format('state')} === 'CAMERA OFF'", "the banner still says that it is on")
        assert browser.ask(TEXT.format("why")).startswith("A verification has begun: the camera is the customer's.")
        assert browser.ask("document.getElementById('image').hasAttribute('src')") is False
        shown(browser, folder, "ended")
        page.join()
        assert {url.partition("?")[0] for url in browser.asked if not url.startswith("data:")} == {
            f"http://{page.address}/", f"http://{page.address}/look"
        }  # fmt: skip
        assert browser.complaints == []
