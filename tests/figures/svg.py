"""What pictures say."""

from __future__ import annotations

import xml.etree.ElementTree as ET  # of files that we wrote
from pathlib import Path


def texts(path: Path) -> str:
    """All text of an SVG whose letters are text, as with the fixture `quick_pictures`."""
    return "\n".join(ET.parse(path).getroot().itertext())  # noqa: S314  # we wrote it
