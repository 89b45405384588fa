"""The docs page in a real browser: a prediction made, a mistake shown, at the widths of a desk and of a phone."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests import models
from tests.e2e.running import Penstock

pytestmark = [pytest.mark.e2e, pytest.mark.nightly]

CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WIDTHS = {"desktop": (1280, 900), "phone": (390, 844)}
SCREENSHOTS = os.environ.get("SCREENSHOTS")
"""A folder that keeps the screenshots, to be looked at."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no chromium on PATH: install Debian's package `chromium` to run the docs page in a browser")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def documented(penstock: Penstock) -> Penstock:
    penstock.deploy_live("flowers", models.classifier())
    penstock.deploy_live("grid", models.add_one(shape=(64, 64)))
    return penstock


@pytest.fixture(params=WIDTHS)
def page(request: pytest.FixtureRequest, browser: Browser, documented: Penstock) -> Iterator[Page]:
    width, height = WIDTHS[request.param]
    context = browser.new_context(base_url=documented.url, viewport={"width": width, "height": height})
    opened = context.new_page()
    troubles: list[str] = []
    opened.on("pageerror", lambda error: troubles.append(str(error)))
    yield opened
    context.close()
    assert not troubles


def keep(page: Page, name: str, folder: Path) -> None:
    assert page.viewport_size
    place = Path(SCREENSHOTS) if SCREENSHOTS else folder
    page.screenshot(path=place / f"{name}-{page.viewport_size['width']}.png", full_page=True)


def fits(page: Page) -> bool:
    """Nothing is wider than the window."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"))


def answer(page: Page) -> Any:
    return json.loads(page.locator("#answer").inner_text())


def test_a_prediction_is_made_from_the_page(page: Page, tmp_path: Path) -> None:
    page.goto("/docs/flowers")
    page.get_by_role("button", name="Predict").click()
    expect(page.locator("#outcome")).to_contain_text("Answered in")
    assert [list(row) for row in answer(page)["predictions"]] == [["label", "probabilities"]]
    expect(page.locator("#facts")).to_contain_text("version")
    keep(page, "prediction", tmp_path)
    assert fits(page)


def test_a_mistake_is_shown_with_its_field_and_what_was_expected(page: Page, tmp_path: Path) -> None:
    page.goto("/docs/flowers")
    page.get_by_label("Request").fill('{"instances": [{"X": [5.1, 3.5, 1.4]}]}')
    page.get_by_role("button", name="Predict").click()
    expect(page.locator("#outcome")).to_have_text("instances[0].X: expected 4 values, received 3")
    for words in ("INVALID_ARGUMENT, WRONG_COUNT (HTTP 400)", "instances[0].X", "4 values"):
        expect(page.locator("#facts")).to_contain_text(words)
    keep(page, "mistake", tmp_path)
    assert fits(page)


def test_a_version_that_is_not_there_is_shown(page: Page) -> None:
    page.goto("/docs/flowers")
    page.locator("#version").fill("9")
    page.get_by_role("button", name="Predict").click()
    expect(page.locator("#outcome")).to_contain_text("no loaded version 9")


def test_a_model_too_large_for_an_example_can_be_tried_and_the_index_leads_to_it(page: Page, tmp_path: Path) -> None:
    page.goto("/docs")
    keep(page, "index", tmp_path)
    assert fits(page)
    page.get_by_role("link", name="grid", exact=True).click()
    page.get_by_role("button", name="Predict").click()
    expect(page.locator("#outcome")).to_contain_text("Answered in")
    keep(page, "large", tmp_path)
    assert fits(page)
