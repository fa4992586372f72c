"""The page in a real browser: it draws, answers to mouse and keys, and complains of nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.config import SweepConfig
from pipeline.metrics import wilson_interval
from pipeline.stages.report import make_report
from pipeline.stages.sweep_temps import sweep_temps
from tests.measured_stores import planted_head, planted_store
from tests.reporting.reported import NASTY, page_of, reported_head, reported_store

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
waiting = pytest.importorskip("selenium.webdriver.support.wait")

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars",
)  # fmt: skip

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


class Browser:
    """A headless Chromium with one page at a time."""

    def __init__(self, profile: Path) -> None:
        program = next(filter(None, map(shutil.which, BROWSERS)), None)
        driver = shutil.which("chromedriver")
        if program is None or driver is None:
            pytest.skip("no Chromium with chromedriver is installed")
        options = webdriver.ChromeOptions()
        options.binary_location = program
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self._driver = webdriver.Chrome(options, webdriver.ChromeService(driver))

    def open(self, page: Path, width: int, *, dark: bool = False) -> None:
        screen = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
        self._driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self._driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
        self._driver.get(page.as_uri())
        drawn = "return document.querySelector('#recalls svg') !== null"
        waiting.WebDriverWait(self._driver, 10).until(lambda _: self.run(drawn))

    def run(self, script: str, *arguments: Any) -> Any:
        return self._driver.execute_script(script, *arguments)

    def key(self, selector: str, *keys: str) -> None:
        self._driver.find_element("css selector", selector).send_keys(*keys)

    def click(self, selector: str) -> None:
        self._centred(selector).click()

    def hover(self, selector: str, x: float = 0, y: float = 0) -> None:
        chain = webdriver.ActionChains(self._driver)
        chain.move_to_element_with_offset(self._centred(selector), round(x), round(y)).perform()

    def _centred(self, selector: str) -> Any:
        """The element, in the middle of the screen."""
        element = self._driver.find_element("css selector", selector)
        self.run("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", element)
        return element

    def text(self, selector: str) -> str:
        return str(self.run("return document.querySelector(arguments[0]).textContent", selector))

    def complaints(self) -> list[str]:
        return [entry["message"] for entry in self._driver.get_log("browser")]

    def close(self) -> None:
        self._driver.quit()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    store = reported_store(folder)
    head = reported_head(store)
    sweep = sweep_temps(store, head, SweepConfig(t_old=(1, 2), t_new=(1, 2, 4)))
    return written(folder, make_report(store, head, sweep=sweep))


@pytest.fixture(scope="module")
def large_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of 300 classes, a few of them without test images."""
    folder, generator = tmp_path_factory.mktemp("large"), np.random.default_rng(0)
    counts = np.maximum(2, (300 * 0.01 ** (np.arange(300) / 299)).astype(int))
    train = np.repeat(np.arange(300), counts)
    test = np.repeat(np.arange(3, 300), 3)
    eye = np.eye(300, dtype=np.float32)
    features = [eye[y] + generator.normal(0, 0.35, (len(y), 300)) for y in (train, test)]
    planted = {"train": (features[0], train), "test": (features[1], test)}
    names = [f"class number {c} of a long list" for c in range(300)]
    store = planted_store(folder, planted, class_names=names, shard_rows=4096)
    noisy = np.eye(300) + generator.normal(0, 0.05, (300, 300))
    head = planted_head(store, noisy)
    sweep = sweep_temps(store, head, SweepConfig(t_old=(1, 2), t_new=(1, 2)))
    return written(folder, make_report(store, head, sweep=sweep))


def written(folder: Path, report: Any) -> Path:
    path = folder / "report.html"
    text = page_of(report)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("which", ["page", "large_page"])
def test_it_draws_without_complaints_and_fits_the_screen(
    browser: Browser, request: pytest.FixtureRequest, which: str, width: int, dark: bool
) -> None:
    browser.open(request.getfixturevalue(which), width, dark=dark)
    assert browser.complaints() == []
    assert browser.run("return document.documentElement.scrollWidth") == width
    assert browser.run("return document.documentElement.dataset.ready") == "yes"
    for chart in ("#recalls", "#map", "#strips", "#cell-chart", "#pairs > div .chart"):
        box = browser.run(
            "return document.querySelector(arguments[0] + ' svg').getBoundingClientRect().toJSON()",
            chart,
        )
        assert box["width"] > 200, chart
        assert box["height"] > 50, chart
    paper = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") is not dark


def test_a_class_called_script_does_not_run(browser: Browser, page: Path) -> None:
    browser.open(page, 1280)
    assert "owned" not in str(browser.run("return document.title"))
    assert NASTY in browser.text("#table")
    assert browser.run("return document.scripts.length") == 2


def test_hovering_a_bar_shows_counts_and_the_interval(browser: Browser, page: Path) -> None:
    browser.open(page, 1280)
    width = browser.run("return document.querySelector('#recalls svg').clientWidth")
    browser.hover("#recalls svg", 0.45 * width)  # the last of four bars: quote
    tip = browser.text("#tip")
    low, high = wilson_interval(2, 4)
    assert tip.startswith('quo"te5 training images (few)')
    assert f"New head: 2 of 4 = 50.0 % ({low:.1f}\N{EN DASH}{high:.1f})" in tip
    assert (
        "Old head: 0 of 4 = 0.0 % (0.0\N{EN DASH}49.0)" in tip
    )  # Wilson (1927) of 0 of 4: z2/(4 + z2)


def test_the_keyboard_reads_the_classes_out(browser: Browser, page: Path) -> None:
    browser.open(page, 1280)
    browser.key("#recalls", "\ue014", "\ue014")  # arrow right, twice
    assert browser.text("#live").startswith(NASTY)
    browser.key("#recalls", "\ue010")  # end
    assert browser.text("#live").startswith('quo"te')
    browser.key("#recalls", "\ue00c")  # escape
    assert browser.run("return document.getElementById('tip').hidden")


def first_cells(browser: Browser) -> list[str]:
    shown = "[...document.querySelectorAll('#table tbody tr')].filter((row) => !row.hidden)"
    return list(browser.run(f"return {shown}.map((row) => row.dataset.class)"))


def test_headings_sort_and_the_search_finds(browser: Browser, page: Path) -> None:
    browser.open(page, 1280)
    assert first_cells(browser) == ["0", "1", "2", "3"]
    browser.click("#table [data-sort=k1]")  # the new head's recalls: 75, 100, 100, 50
    assert first_cells(browser) == ["3", "0", "1", "2"]
    browser.click("#table [data-sort=k1]")
    assert first_cells(browser)[-2:] == ["0", "3"]
    heading = "return document.querySelector('#table [data-sort=k1]').parentElement.ariaSort"
    assert browser.run(heading) == "descending"
    browser.key("#find", "few")
    assert sorted(first_cells(browser)) == ["2", "3"]
    assert browser.text("#found") == "2 of 4 classes"


def test_a_cell_of_the_plane_shows_its_metrics_and_its_classes(
    browser: Browser, page: Path
) -> None:
    browser.open(page, 1280)
    data = json.loads(browser.text("#data"))["plane"]
    assert (
        browser.text("#cell-h")
        == "Old 1, new 1 (the paper\N{RIGHT SINGLE QUOTATION MARK}s default)"
    )
    browser.key("#map", "\ue013", "\ue014", "\ue007")  # up, right, enter: t_old 2, t_new 2
    assert browser.text("#cell-h") == "Old 2, new 2"
    metric = next(m for m in data["metrics"] if m["name"] == "lowest_recall")
    assert f"Lowest recall{metric['values'][1 * 3 + 1]:.1f}" in browser.text("#cell")
    assert browser.text("#cell-classes-h").startswith("Every class at old 2, new 2")
    browser.hover("#map svg image")
    assert browser.text("#cell-h").startswith("Old")
    browser.run(
        "const m = document.getElementById('metric'); m.value = 'lowest_recall';"
        "m.dispatchEvent(new Event('change'))"
    )
    assert browser.complaints() == []


def test_light_and_dark_can_be_switched_by_hand(browser: Browser, page: Path) -> None:
    browser.open(page, 1280)
    browser.click("#theme")
    paper = "return getComputedStyle(document.body).backgroundColor"
    assert browser.run(paper) != "rgb(255, 255, 255)"
    browser.click("#theme")
    assert browser.run(paper) == "rgb(255, 255, 255)"
