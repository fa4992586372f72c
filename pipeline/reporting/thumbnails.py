"""Small copies of test images that stand inside a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from PIL import Image

from pipeline.errors import UnreadableImageError
from pipeline.lookup import ImageLookup

LONGEST_SIDE = 96
"""Pixels of a thumbnail's longer side; smaller images stay as they are."""

PNG_UP_TO = 40
"""Longer side up to which a PNG is smaller than a JPEG and loses nothing."""


@dataclass(frozen=True)
class Thumbnails:
    """Images as data URIs."""

    uris: Mapping[str, str]
    """By sample id."""

    unreadable: Mapping[str, str]
    """Reasons, by sample id."""


def make_thumbnails(lookup: ImageLookup, sample_ids: Iterable[str]) -> Thumbnails:
    """Thumbnails of these samples; those that cannot be read are named with the reason."""
    uris: dict[str, str] = {}
    unreadable: dict[str, str] = {}
    for sample_id in sample_ids:
        try:
            uris[sample_id] = _data_uri(lookup.read(sample_id))
        except UnreadableImageError as error:
            unreadable[sample_id] = str(error)
    return Thumbnails(uris, unreadable)


def _data_uri(image: Image.Image) -> str:
    """The image, shrunk, as `data:...`, without whatever else its file holds."""
    small = image.copy()
    small.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    kind = "png" if max(small.size) <= PNG_UP_TO else "jpeg"
    encoded = io.BytesIO()
    # A new image carries no metadata of the old one, such as where a photograph was taken.
    Image.frombytes("RGB", small.size, small.convert("RGB").tobytes()).save(
        encoded, kind, optimize=True, **({"quality": 80} if kind == "jpeg" else {})
    )
    return f"data:image/{kind};base64,{base64.b64encode(encoded.getvalue()).decode('ascii')}"
