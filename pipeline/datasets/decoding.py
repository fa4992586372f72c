"""Decode one image file to RGB."""

from __future__ import annotations

import errno
from io import BytesIO

from PIL import Image, UnidentifiedImageError

from pipeline.errors import DatasetError, UnreadableImageError

PASSING_TROUBLE = frozenset({
    errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EACCES, errno.EPERM, errno.ESTALE,
    errno.ETIMEDOUT, errno.ENOTCONN,
})  # fmt: skip
"""Errors of the machine rather than of an image: a share that is away, too many open files. They
pass, and must not be stored as a broken image; others (EINVAL of a seek) are damaged files'."""


def read_rgb(file: str | BytesIO) -> Image.Image:
    """The image in a file, or in its bytes, in RGB; rotation tags are ignored, as torchvision does.

    Raises:
        UnreadableImageError: if the file is missing, no image, damaged, or deeper than 8 bits.
            The message is the bare reason: it stands beside the image's id wherever it is shown.
        DatasetError: if the system refuses to read the file: that is the machine's trouble, not
            the image's.
    """
    try:
        with Image.open(file) as image:
            image.load()
            return _to_rgb(image)
    except (UnreadableImageError, MemoryError):
        raise
    except FileNotFoundError:
        raise UnreadableImageError("no such file") from None
    except UnidentifiedImageError:
        raise UnreadableImageError("not an image of a known format") from None
    except Exception as error:
        if isinstance(error, OSError) and error.errno in PASSING_TROUBLE:
            raise DatasetError(
                f"{file} cannot be read now ({error.strerror}): mend that and go on with --resume."
            ) from None
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
