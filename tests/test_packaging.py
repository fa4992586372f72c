"""What is installed is what is here."""

from __future__ import annotations

import configparser
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_every_package_is_installed() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    listed = set(setup["options"]["packages"].split())
    here = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for package in ("cache", "pipeline")
        for path in (ROOT / package).rglob("__init__.py")
    }
    assert listed == here | {"pipeline.configs"}
