"""Decode one image file to RGB."""

from __future__ import annotations

from PIL import Image, UnidentifiedImageError

from pipeline.errors import UnreadableImageError


def read_rgb(path: str) -> Image.Image:
    """The image at `path` in RGB; rotation tags are ignored, as torchvision's loader does.

    Raises:
        UnreadableImageError: if the file is missing, no image, damaged, or deeper than 8 bits.
            The message is the bare reason: it stands beside the image's id wherever it is shown.
    """
    try:
        with Image.open(path) as image:
            image.load()
            return _to_rgb(image)
    except UnreadableImageError:
        raise
    except FileNotFoundError:
        raise UnreadableImageError("no such file") from None
    except UnidentifiedImageError:
        raise UnreadableImageError("not an image of a known format") from None
    except Exception as error:
        # Damaged files make decoders raise nearly anything: OSError, SyntaxError, struct.error ...
        raise UnreadableImageError(f"cannot be decoded: {error}") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    """The image in RGB, without a copy where it is RGB already."""
    if image.mode == "RGB":
        return image
    if image.mode in {"I", "F"} or image.mode.startswith("I;"):
        # Pillow would clip all but the darkest 256 of 65,536 levels to white.
        raise UnreadableImageError(
            f"more than 8 bits a pixel (mode {image.mode}); convert it to 8 bits first"
        )
    if image.mode == "P" and "transparency" in image.info:
        # The same colours as the direct way, which warns about the transparency that it drops.
        image = image.convert("RGBA")
    return image.convert("RGB")
