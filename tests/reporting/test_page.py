"""The page as text: whole in itself, and deaf to what names say."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.config import SweepConfig
from pipeline.reporting.page import group_sentences, headline
from pipeline.stages.report import Report, make_report
from pipeline.stages.sweep_temps import sweep_temps
from tests.reporting.reported import LABELS, NASTY, NEW_HITS, page_of, reported_head, reported_store


class Page(HTMLParser):
    """Tags with their attributes, and the content of each script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data


@pytest.fixture
def report(tmp_path: Path) -> Report:
    images = tmp_path / "images" / "test"
    images.mkdir(parents=True)
    for i in range(len(LABELS) - 1):  # the last one is missing
        Image.fromarray(np.full((8, 8, 3), 10 * i, np.uint8)).save(images / f"{i}.png")
        (images / f"{i}.png").rename(images / str(i))
    store = reported_store(tmp_path)
    head = reported_head(store)
    sweep = sweep_temps(store, head, SweepConfig(t_old=(1, 2), t_new=(1, 2, 3)))
    return make_report(store, head, sweep=sweep, images=tmp_path / "images")


@pytest.fixture
def text(report: Report) -> str:
    return page_of(report)


def test_nothing_is_loaded_from_anywhere(text: str) -> None:
    without_images = re.sub(r"data:image/\w+;base64,[A-Za-z0-9+/=]+", "data:", text)
    assert "://" not in without_images
    for _, attributes in Page(text).tags:
        for name in ("src", "href", "action", "srcset"):
            assert (attributes.get(name) or "#").startswith(("#", "data:"))
    assert "@import" not in text
    assert "url(" not in text


def test_a_hostile_class_name_stays_text(text: str) -> None:
    page = Page(text)
    assert len(page.scripts) == 2  # the data block and ours, not the class's
    assert NASTY not in text
    assert "&lt;script&gt;document.title" in text
    assert "owned" not in page.scripts[1]


def test_the_data_block_is_inert_and_whole(text: str) -> None:
    data = Page(text).scripts[0]
    assert not set("<>&") & set(data)
    content = json.loads(data)
    assert content["classes"][1] == NASTY
    assert content["contenders"][1]["hits"] == list(NEW_HITS)
    assert content["after"] == 1
    assert content["plane"]["tNew"] == [1, 2, 3]
    hits = base64.b64decode(content["plane"]["hits"]["bytes"])
    assert len(hits) == 2 * 3 * 4


def test_only_this_script_may_run(text: str) -> None:
    page = Page(text)
    policy = next(a["content"] for t, a in page.tags if t == "meta" and "http-equiv" in a)
    digest = base64.b64encode(hashlib.sha256(page.scripts[1].encode()).digest()).decode()
    assert policy is not None
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")]


def test_every_class_has_its_row_without_the_script(text: str) -> None:
    rows = [a for t, a in Page(text).tags if t == "tr" and "data-class" in a]
    assert [row["data-class"] for row in rows] == ["0", "1", "2", "3"]
    assert "▲ +100.0" in text  # eel: 0 to 4 of 4
    assert "▼ \N{MINUS SIGN}25.0" in text  # ant: 4 to 3 of 4


def test_images_stand_in_the_page_and_a_missing_one_is_named(report: Report, text: str) -> None:
    assert report.thumbnails is not None
    assert set(report.thumbnails.unreadable) == {"test/15"}
    images = [a for t, a in Page(text).tags if t == "img"]
    assert images
    assert all((a["src"] or "").startswith("data:image/png;base64,") and a["alt"] for a in images)
    assert "test/15: no such file" in text


def test_equal_reports_are_equal_files(report: Report, text: str) -> None:
    again = page_of(report)
    assert again == text


def test_the_headline_says_what_happened_to_the_worst(report: Report) -> None:
    # Quote is the worst afterwards, 2 of 4: 6.8 to 96.7, since the others have 4 images as well.
    assert headline(report.content) == [
        "With the old head 2 of 4 classes are never recognised.",
        'With the new head the worst one, quo"te, is recognised in 50.0 % '
        "(95 % interval 6.8 to 96.7).",
    ]


def test_sentences_about_groups_name_what_a_mean_hides(report: Report) -> None:
    # After: eel 100 and quote 50 are the few classes.
    assert group_sentences(report.content)[:2] == [
        "Old head: the mean of 0.0 % over the 2 few classes hides 2 classes at zero.",
        "New head: the mean of 75.0 % over the 2 few classes hides a class at 50.0 %.",
    ]


def test_without_plane_and_images_the_page_has_no_empty_sections(tmp_path: Path) -> None:
    store = reported_store(tmp_path)
    report = make_report(store, reported_head(store), n_worst=0)
    text = page_of(report)
    assert 'id="plane"' not in text
    assert 'id="lost"' not in text
    assert json.loads(Page(text).scripts[0])["plane"] is None
