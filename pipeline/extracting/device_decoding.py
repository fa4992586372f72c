"""JPEG files decoded, resized and cropped on the device that runs the model.

Reading processes hand over the files' bytes. A GPU decodes those of the plain kind (see
`datasets.jpeg`) with nvJPEG and resizes them with PyTorch's antialiased filter. All others are
decoded by the readers, as without this module, image by image; so are files that the device fails
at. Rotation tags are ignored here and there.

Pixels are not quite those of the readers: nvJPEG has its own arithmetic, and a resize differs from
Pillow's by a grey level in few pixels (docs/store.md). So a store says which it was.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from pipeline.config import ExtractConfig
from pipeline.datasets import ImageSource, Preprocessing
from pipeline.datasets.jpeg import PlainJpeg, read_plain_jpeg
from pipeline.devices import too_many_images
from pipeline.errors import (
    ConfigError,
    ExtractionError,
    NolbError,
    UnreadableImageError,
    first_line,
)
from pipeline.exhaustion import is_exhaustion
from pipeline.reading import ImageBatch, RowRange, common_size

Decoder = Callable[[list[Tensor]], list[Tensor]]
"""From (bytes,) uint8 of JPEG files to (3, H, W) uint8 RGB on a device; a RuntimeError if it fails
at any of them."""

MOST_PIXELS = 2**26
"""Pixels decoded at once: 200 MB in uint8, and 800 MB where all are one image that is resized in
float32. The readers take larger images."""


@dataclass(frozen=True)
class Place:
    """Where a file lies among the bytes of its batch."""

    start: int
    """First byte."""

    stop: int
    """One past the last byte."""

    size: tuple[int, int]
    """(height, width) by its header."""


@dataclass(frozen=True)
class EncodedBatch:
    """The images of some rows, most of them still encoded."""

    rows: RowRange
    """Which rows these are."""

    size: tuple[int, ...]
    """(H, W) of every image once it is decoded, resized and cropped."""

    content: Tensor
    """(bytes,) uint8: the files of `jpegs`, one after the other. One tensor for all, because each
    one that a process hands over costs an open file."""

    jpegs: dict[int, Place]
    """Files that the device is to decode, by row."""

    images: Tensor
    """(K, H, W, 3) uint8: the images that the reader has decoded."""

    decoded: list[int]
    """(K,) their rows."""

    failures: dict[int, str]
    """Why a row's image could not be read, by row."""


class EncodedReader(Dataset[EncodedBatch | NolbError]):
    """Reads one batch for each item, without decoding what a device can decode.

    An error of ours is an item too, as for `BatchReader`.

    Args:
        sources: the images of each split.
        preprocessing: geometry of an image.
        work: the batches, in order.
    """

    def __init__(
        self,
        sources: Mapping[str, ImageSource],
        preprocessing: Preprocessing,
        work: Sequence[RowRange],
    ) -> None:
        self._sources = dict(sources)
        self._preprocessing = preprocessing
        self._work = work

    def __len__(self) -> int:
        """Number of batches."""
        return len(self._work)

    def __getitem__(self, item: int) -> EncodedBatch | NolbError:
        """The rows of one batch, or what prevents it; see `BatchReader`."""
        try:
            return self._read(self._work[item])
        except NolbError as error:
            return error

    def _read(self, rows: RowRange) -> EncodedBatch:
        """Read the rows of one batch."""
        source = self._sources[rows.split]
        content = bytearray()
        jpegs: dict[int, Place] = {}
        decoded: dict[int, NDArray[np.uint8]] = {}
        failures: dict[int, str] = {}
        for row in range(rows.start, rows.stop):
            try:
                jpeg = self._jpeg(source, row)
                if jpeg is None:
                    decoded[row] = self._preprocessing.to_uint8(source.read(row))
                else:
                    start = len(content)
                    content += jpeg.content
                    jpegs[row] = Place(start, len(content), jpeg.size)
            except UnreadableImageError as error:
                failures[row] = str(error)
        sizes: dict[int, tuple[int, ...]] = {row: a.shape[:2] for row, a in decoded.items()}
        sizes |= {row: self._preprocessing.final_size(*jpeg.size) for row, jpeg in jpegs.items()}
        size = common_size(source, dict(sorted(sizes.items())))
        images = np.empty((len(decoded), *size, 3), np.uint8)
        for i, pixels in enumerate(decoded.values()):
            images[i] = pixels
        return EncodedBatch(
            rows, size, _as_tensor(content), jpegs,
            torch.from_numpy(images), list(decoded), failures,
        )  # fmt: skip

    def _jpeg(self, source: ImageSource, row: int) -> PlainJpeg | None:
        """A file for the device; `None` where it is not for it."""
        file = source.file(row)
        jpeg = None if file is None else read_plain_jpeg(file)
        if jpeg is None:
            return None
        (height, width), (high, wide) = jpeg.size, self._preprocessing.resized_size(*jpeg.size)
        return jpeg if max(height * width, high * wide) <= MOST_PIXELS else None


class BatchDecoder:
    """Makes decoded batches of encoded ones; the images then lie on the device.

    Args:
        sources: the images of each split, for what the device fails at.
        preprocessing: geometry of an image.
        decoder: what decodes files on the device.
        device: where the model runs.
    """

    def __init__(
        self,
        sources: Mapping[str, ImageSource],
        preprocessing: Preprocessing,
        decoder: Decoder,
        device: torch.device,
    ) -> None:
        self._sources = dict(sources)
        self._preprocessing = preprocessing
        self._decoder = decoder
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __call__(self, batch: EncodedBatch) -> ImageBatch:
        """Decode a batch.

        nvJPEG writes into fresh memory without waiting for work that is queued on it
        (github.com/pytorch/vision/pull/9606). PyTorch gives memory out again while the model, on
        its own stream, may still have to read what was there before; so decoding has a stream of
        its own, whose memory the model's never is, and which has nothing queued when nvJPEG begins.

        Raises:
            ExtractionError: if the device has too little memory, or decodes no longer.
            DatasetError: if the machine refuses to read an image that the device failed at.
        """
        try:
            if self._stream is None:
                return self._decode(batch)
            with torch.cuda.stream(self._stream):
                decoded = self._decode(batch)
            model_stream = torch.cuda.current_stream(self._device)
            model_stream.wait_stream(self._stream)
            decoded.images.record_stream(model_stream)
            return decoded
        except torch.OutOfMemoryError:
            n_rows = batch.rows.stop - batch.rows.start
            raise too_many_images(n_rows, self._device) from None

    def _decode(self, batch: EncodedBatch) -> ImageBatch:
        """Decode a batch on the current stream."""
        start = batch.rows.start
        shape = (batch.rows.stop - start, 3, *batch.size)
        planes = torch.zeros(shape, dtype=torch.uint8, device=self._device)
        failures = dict(batch.failures)
        if batch.decoded:
            places = torch.tensor(batch.decoded, device=self._device) - start
            planes[places] = batch.images.to(self._device).permute(0, 3, 1, 2)
        for rows in _groups(batch.jpegs):
            files = [batch.content[batch.jpegs[row].start : batch.jpegs[row].stop] for row in rows]
            for row, raw in zip(rows, self._decoded(files), strict=True):
                pixels = self._framed(raw, batch.jpegs[row].size)
                if pixels is not None:
                    planes[row - start] = pixels
                    continue
                try:
                    planes[row - start] = self._by_reader(batch.rows.split, row)
                except UnreadableImageError as error:
                    failures[row] = str(error)
        # In the order of rows, so that the first failure does not hang on who decoded it.
        failures = dict(sorted(failures.items()))
        return ImageBatch(batch.rows, planes.permute(0, 2, 3, 1)[None], failures)

    def _decoded(self, files: list[Tensor]) -> list[Tensor | None]:
        """(3, H, W) uint8 of each file, before any resize; `None` where the device fails.

        The decoder fails for all files of a call where it fails at one.
        """
        try:
            return list(self._call(files))
        except RuntimeError as error:
            if lacks_memory(error):
                raise torch.OutOfMemoryError(str(error)) from None
            if len(files) > 1:
                return [each for file in files for each in self._decoded([file])]
        self._require_sound()
        return [None]

    def _require_sound(self) -> None:
        """Stop where the trouble is the device's: that must not pass for the image's."""
        if (reason := trouble_of(self._call)) is not None:
            raise ExtractionError(
                f"{self._device} no longer decodes JPEG files ({reason}): go on with --resume."
            )

    def _call(self, files: list[Tensor]) -> list[Tensor]:
        """Call the decoder, with nothing queued on the stream whose memory it writes to."""
        if self._stream is not None:
            self._stream.synchronize()
        return self._decoder(files)

    def _framed(self, pixels: Tensor | None, size: tuple[int, int]) -> Tensor | None:
        """(3, H, W) uint8, resized and cropped, of decoded pixels that have the header's size."""
        if pixels is None or tuple(pixels.shape) != (3, *size):
            return None
        try:
            return resized_and_cropped(pixels, self._preprocessing)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:  # so strong a reduction that a GPU has no room for the filter
            return None

    def _by_reader(self, split: str, row: int) -> Tensor:
        """(3, H, W) uint8 of an image, decoded as the readers do."""
        pixels = self._preprocessing.to_uint8(self._sources[split].read(row))
        return torch.from_numpy(pixels.copy()).permute(2, 0, 1)


def resized_and_cropped(pixels: Tensor, preprocessing: Preprocessing) -> Tensor:
    """(3, H, W) uint8 on any device: the geometry of `Preprocessing.to_uint8` in PyTorch.

    Args:
        pixels: (3, height, width) uint8.
        preprocessing: sizes and interpolation.
    """
    # Stages that decode nothing on a device need not wait for torchvision.
    from torchvision.transforms.v2.functional import InterpolationMode, center_crop, resize

    mode = InterpolationMode(preprocessing.interpolation)
    height, width = preprocessing.resized_size(*pixels.shape[1:])
    # Columns first and rows after them, whole levels in between and halves up, as Pillow does it.
    for size in ([pixels.shape[1], width], [height, width]):
        if size != list(pixels.shape[1:]):
            # In float32 everywhere: a CPU's own arithmetic for uint8 is not that of a GPU.
            levels = resize(pixels.float(), size, interpolation=mode, antialias=True)
            pixels = levels.add_(0.5).floor_().clamp_(0, 255).to(torch.uint8)
    crop = preprocessing.crop
    cropped: Tensor = pixels if crop is None else center_crop(pixels, [crop, crop])
    return cropped


def jpeg_decoder(config: ExtractConfig, device: torch.device) -> Decoder | None:
    """What decodes JPEG files on the device; `None` where the settings leave it to the readers.

    Raises:
        ConfigError: if the device is no CUDA device, or torchvision cannot decode on it.
    """
    if config.decode == "cpu":
        return None
    if device.type != "cuda":
        raise ConfigError(
            f"--decode device needs a CUDA device, and the model runs on {device} here: leave the "
            "option out."
        )
    decoder = torchvision_decoder(device)
    if (reason := trouble_of(decoder)) is not None:
        raise ConfigError(
            f"torchvision cannot decode JPEG files on {device} here ({reason}): leave --decode out."
        )
    return decoder


def torchvision_decoder(device: torch.device) -> Decoder:
    """The decoder of torchvision: nvJPEG on a CUDA device, libjpeg on the CPU."""

    def decode(files: list[Tensor]) -> list[Tensor]:
        from torchvision.io import ImageReadMode, decode_jpeg

        with warnings.catch_warnings():
            # From 0.29 on, it says that TorchCodec, a package of its own, is to follow it.
            warnings.simplefilter("ignore", DeprecationWarning)
            decoded: list[Tensor] = decode_jpeg(files, ImageReadMode.RGB, device=device)
        return decoded

    return decode


def lacks_memory(error: RuntimeError) -> bool:
    """Whether a decoder has failed for want of memory, which is not the image's fault.

    The errors of PyTorch's allocator lose their type on the way through torchvision's decoder;
    NVJPEG_STATUS_ALLOCATOR_FAILURE is 5.
    """
    return is_exhaustion(error) or str(error).partition("\n")[0].endswith(": 5")


def trouble_of(decoder: Decoder) -> str | None:
    """Why a decoder fails at a small sound file; `None` where it does not."""
    file = BytesIO()
    Image.linear_gradient("L").resize((32, 16)).convert("RGB").save(file, "JPEG")
    try:
        (pixels,) = decoder([_as_tensor(file.getvalue())])
        shape = tuple(pixels.shape)
    # A build without nvJPEG or without images lacks the operator, or the whole function.
    except (RuntimeError, ImportError, AttributeError) as error:
        return first_line(error)
    return None if shape == (3, 16, 32) else f"it makes {shape} of an image of 32 x 16"


def _as_tensor(content: bytes | bytearray) -> Tensor:
    """(bytes,) uint8."""
    if not content:
        return torch.empty(0, dtype=torch.uint8)
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)


def _groups(jpegs: Mapping[int, Place]) -> Iterator[list[int]]:
    """Rows of files that together have no more than `MOST_PIXELS`, in order."""
    rows: list[int] = []
    pixels = 0
    for row, jpeg in jpegs.items():
        here = jpeg.size[0] * jpeg.size[1]
        if rows and pixels + here > MOST_PIXELS:
            yield rows
            rows, pixels = [], 0
        rows.append(row)
        pixels += here
    if rows:
        yield rows
