"""Decoding on a device, played by the CPU's own decoder: all but nvJPEG is what a GPU runs."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.config import ExtractConfig
from pipeline.datasets import (
    ArraySource,
    FolderSource,
    ImageSource,
    Preprocessing,
    RelabelledSource,
    SubsetSource,
)
from pipeline.errors import ConfigError, DatasetError, ExtractionError
from pipeline.extracting import device_decoding
from pipeline.extracting.device_decoding import (
    BatchDecoder,
    Decoder,
    EncodedBatch,
    EncodedReader,
    jpeg_decoder,
    resized_and_cropped,
)
from pipeline.reading import BatchReader, ImageBatch, RowRange
from tests.extracting.played_device import (
    BY_READER,
    CONFIG,
    CPU,
    FAILED,
    GEOMETRY,
    HALF,
    ON_DEVICE,
    Fake,
    jpeg_folder,
    picture,
)
from tests.small_data import image_folder


def read(source: ImageSource, preprocessing: Preprocessing = GEOMETRY) -> EncodedBatch:
    batch = EncodedReader({"train": source}, preprocessing, [RowRange("train", 0, len(source))])[0]
    assert isinstance(batch, EncodedBatch)
    return batch


def decoded(
    source: ImageSource, decoder: Decoder, preprocessing: Preprocessing = GEOMETRY
) -> ImageBatch:
    decode = BatchDecoder({"train": source}, preprocessing, decoder, CPU)
    return decode(read(source, preprocessing))


def by_readers(source: ImageSource, preprocessing: Preprocessing = GEOMETRY) -> ImageBatch:
    reader = BatchReader({"train": source}, preprocessing, {}, [RowRange("train", 0, len(source))])
    batch = reader[0]
    assert isinstance(batch, ImageBatch)
    return batch


def furthest(a: torch.Tensor, b: torch.Tensor) -> int:
    """Largest difference in grey levels."""
    assert a.shape == b.shape
    return int((a.int() - b.int()).abs().max())


@pytest.fixture
def source(tmp_path: Path) -> FolderSource:
    return FolderSource(jpeg_folder(tmp_path / "images"))


def test_the_device_gets_plain_files_and_the_readers_keep_the_others(source: FolderSource) -> None:
    batch = read(source)
    assert list(batch.jpegs) == ON_DEVICE
    assert batch.decoded == BY_READER
    assert list(batch.failures) == FAILED
    for row, place in batch.jpegs.items():
        content = batch.content[place.start : place.stop].numpy().tobytes()
        assert content == Path(source.file(row)).read_bytes()
    assert batch.images.shape == (len(BY_READER), 10, 10, 3)


def test_the_batch_is_that_of_the_readers_but_for_rounding(source: FolderSource) -> None:
    decoder = Fake()
    ours, theirs = decoded(source, decoder), by_readers(source)
    assert decoder.calls == [len(ON_DEVICE)]
    assert ours.rows == theirs.rows
    assert ours.failures == theirs.failures
    assert furthest(ours.images, theirs.images) <= 1
    assert torch.equal(ours.images[0][BY_READER], theirs.images[0][BY_READER])
    assert not ours.images[0][FAILED].any()


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("squash", [False, True])
@pytest.mark.parametrize("size", [(31, 77), (90, 40), (48, 48), (7, 5)])
@pytest.mark.parametrize(("resize", "crop"), [(48, 40), (48, None), (20, 33), (33, 33)])
def test_the_geometry_is_pillow_s_to_a_level(
    size: tuple[int, int], squash: bool, interpolation: str, resize: int, crop: int | None
) -> None:
    image = picture(1, *size)
    ours = Preprocessing(HALF, HALF, resize, crop, interpolation=interpolation, squash=squash)  # type: ignore[arg-type]  # a literal
    raw = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    made = resized_and_cropped(raw, ours).permute(1, 2, 0)
    wanted = torch.from_numpy(ours.to_uint8(image).copy())
    assert furthest(made, wanted) <= 2
    # Without the levels between the two passes, one pixel in five differs. From version 13 on,
    # Pillow resizes some tall images by rows first.
    assert (made != wanted).float().mean() < (0.03 if size[0] <= size[1] else 0.15)
    assert ours.final_size(*size) == tuple(made.shape[:2])


@pytest.mark.parametrize("crop", [4, 5, 17, 40])
@pytest.mark.parametrize("size", [(16, 19), (17, 17), (3, 30)])
def test_a_crop_alone_is_exact(size: tuple[int, int], crop: int) -> None:
    preprocessing = Preprocessing(HALF, HALF, crop=crop)
    image = picture(2, *size)
    raw = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    made = resized_and_cropped(raw, preprocessing).permute(1, 2, 0).numpy()
    assert np.array_equal(made, preprocessing.to_uint8(image))


def test_bicubic_overshoot_stays_black_and_white() -> None:
    image = Image.fromarray(np.repeat(np.eye(8, dtype=np.uint8)[..., None] * 255, 3, axis=2))
    preprocessing = Preprocessing(HALF, HALF, resize=29, interpolation="bicubic")
    raw = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    made = resized_and_cropped(raw, preprocessing).permute(1, 2, 0)
    assert furthest(made, torch.from_numpy(preprocessing.to_uint8(image).copy())) <= 1


def test_an_image_that_the_device_fails_at_is_the_reader_s(source: FolderSource) -> None:
    bad = Path(source.file(2)).read_bytes()
    decoder = Fake(lambda file: file.numpy().tobytes() == bad)
    ours, theirs = decoded(source, decoder), by_readers(source)
    # All five at once, each alone, and after the one that failed a look at the device itself.
    assert decoder.calls == [5, 1, 1, 1, 1, 1, 1]
    assert torch.equal(ours.images[0][2], theirs.images[0][2])
    assert furthest(ours.images, theirs.images) <= 1
    assert list(ours.failures) == FAILED


def test_an_image_that_both_fail_at_is_the_only_one_that_failed(tmp_path: Path) -> None:
    source = FolderSource(jpeg_folder(tmp_path / "images"))
    broken = bytearray(Path(source.file(0)).read_bytes())
    # The first table of codes claims 255 codes of one bit: its header is whole, its content not.
    broken[broken.index(b"\xff\xc4") + 5] = 255
    Path(source.file(0)).write_bytes(broken)
    assert 0 in read(source).jpegs
    ours = decoded(source, Fake())
    assert list(ours.failures) == [0, *FAILED]
    assert ours.failures == by_readers(source).failures
    assert furthest(ours.images, by_readers(source).images) <= 1


def test_pixels_of_another_size_than_the_header_s_are_not_taken(source: FolderSource) -> None:
    fake = Fake()
    ours = decoded(source, lambda files: [pixels.transpose(1, 2) for pixels in fake(files)])
    assert fake.calls == [len(ON_DEVICE)]
    assert torch.equal(ours.images, by_readers(source).images)


def test_trouble_of_the_device_stops_the_run(source: FolderSource) -> None:
    decoder = Fake(lambda _: True)
    with pytest.raises(ExtractionError, match=r"^cpu no longer decodes .*batch: 3\).*--resume"):
        decoded(source, decoder)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("none left"),
        RuntimeError("Error while decoding JPEG images: CUDA out of memory. Tried to\nmore of it"),
        RuntimeError("Error while decoding JPEG images: Failed to decode batch: 5\nmore of it"),
    ],
)
def test_too_little_memory_asks_for_smaller_batches(
    source: FolderSource, error: RuntimeError
) -> None:
    def full(_: list[torch.Tensor]) -> list[torch.Tensor]:
        raise error

    with pytest.raises(ExtractionError, match=r"9 images at once are too many .*--batch-size"):
        decoded(source, full)


def test_a_resize_that_the_device_refuses_is_the_reader_s(
    source: FolderSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> torch.Tensor:
        raise RuntimeError("Too much shared memory required")

    monkeypatch.setattr(device_decoding, "resized_and_cropped", refuse)
    assert torch.equal(decoded(source, Fake()).images, by_readers(source).images)


def test_few_pixels_at_once(source: FolderSource, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = decoded(source, Fake())
    # Two images of 16 x 19; that of 30 x 25 is beyond it alone, so that the reader takes it.
    monkeypatch.setattr(device_decoding, "MOST_PIXELS", 2 * 16 * 19)
    decoder = Fake()
    parts = decoded(source, decoder)
    assert decoder.calls == [2, 2]
    assert read(source).decoded == [*BY_READER, 8]
    assert torch.equal(parts.images[0][:8], whole.images[0][:8])
    assert torch.equal(parts.images[0][8], by_readers(source).images[0][8])
    # Nor does the device take what a resize would make larger than that.
    assert read(source, Preprocessing(HALF, HALF, resize=30, crop=10)).jpegs == {}


def test_a_batch_without_any_readable_image(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "images", (2, 1, 1))
    for file in folder.rglob("*.png"):
        file.write_bytes(b"\xff\xd8\xff\xd9")
    source = FolderSource(folder)
    batch = decoded(source, Fake())
    assert list(batch.failures) == [0, 1, 2, 3]
    assert batch.images.shape == by_readers(source).images.shape


def test_images_that_differ_in_size_are_refused_before_they_are_decoded(
    source: FolderSource,
) -> None:
    preprocessing = Preprocessing(HALF, HALF)
    batch = EncodedReader({"train": source}, preprocessing, [RowRange("train", 0, 9)])[0]
    assert isinstance(batch, DatasetError)
    assert "ant/0.jpg is 19 x 16 and cat/1.jpg is 25 x 30" in str(batch)


def test_parts_of_sources_hand_over_files_and_images_in_memory_have_none(
    source: FolderSource,
) -> None:
    part = SubsetSource(source, [8, 0], "part")
    again = RelabelledSource(part, [0, 1], ("a", "b"))
    assert again.file(0) == source.file(8)
    assert list(read(again).jpegs) == [0, 1]
    pixels = np.zeros((2, 12, 12, 3), np.uint8)
    memory = ArraySource(pixels, [0, 1], ("a", "b"))
    assert memory.file(0) is None
    assert read(memory).decoded == [0, 1]


def test_it_needs_a_cuda_device() -> None:
    with pytest.raises(ConfigError, match=r"--decode device needs a CUDA device, .* runs on cpu"):
        jpeg_decoder(CONFIG, CPU)
    assert jpeg_decoder(ExtractConfig(), CPU) is None


def test_a_cuda_device_that_cannot_decode_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(device_decoding, "torchvision_decoder", lambda _: Fake(lambda _: True))
    with pytest.raises(ConfigError, match=r"on cuda:1 here \(Failed to .* 3\): leave --decode out"):
        jpeg_decoder(CONFIG, torch.device("cuda:1"))


def test_a_decoder_that_can_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake()
    monkeypatch.setattr(device_decoding, "torchvision_decoder", lambda _: fake)
    assert jpeg_decoder(CONFIG, torch.device("cuda")) is fake
    assert fake.calls == [1]


@pytest.mark.parametrize(
    ("values", "needed"),
    [
        ({"views": 1}, "cpu where views or test_views are made, not device"),
        ({"test_views": 1}, "cpu where views or test_views are made, not device"),
        ({"device": "cpu"}, "cpu where the device is cpu, not device"),
        ({"decode": "gpu"}, "one of cpu, device, not gpu"),
    ],
)
def test_settings_that_do_not_go_together(values: dict[str, object], needed: str) -> None:
    with pytest.raises(ConfigError, match=f"decode must be {needed}"):
        ExtractConfig(**{"decode": "device", **values})  # type: ignore[arg-type]  # on purpose


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_nvjpeg_itself(tmp_path: Path) -> None:
    source = FolderSource(jpeg_folder(tmp_path / "images"))
    device = torch.device("cuda")
    decoder = jpeg_decoder(CONFIG, device)
    assert decoder is not None
    decode = BatchDecoder({"train": source}, GEOMETRY, decoder, device)
    first, second = decode(read(source)), decode(read(source))
    assert torch.equal(first.images, second.images)
    assert list(first.failures) == FAILED
    # Some levels are another decoder's; another order of channels or a shift is far off.
    difference = first.images.cpu().float() - by_readers(source).images.float()
    assert difference.abs().mean() < 4


def test_a_file_in_memory_is_decoded_as_one_on_disk(source: FolderSource) -> None:
    content = Path(source.file(0)).read_bytes()

    class InMemory(SubsetSource):
        def file(self, row: int) -> BytesIO:
            return BytesIO(content)

    assert torch.equal(
        decoded(InMemory(source, [0], "one"), Fake()).images, decoded(source, Fake()).images[:, :1]
    )
