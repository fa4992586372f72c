"""Reading ahead: images of different sizes, and what is said when a reading process is gone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.datasets import Preprocessing, ShiftedViews
from pipeline.errors import (
    ConfigError,
    ExtractionError,
    NolbError,
    TrainingError,
    UnreadableImageError,
)
from pipeline.reading import AGAIN, MixedBatch, batches_of, read_mixed

CPU = torch.device("cpu")
ANY_SIZE = Preprocessing((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.mark.parametrize("reader_died", [ExtractionError, TrainingError])
@pytest.mark.parametrize(
    ("raised", "reason"),
    [
        (RuntimeError("DataLoader worker (pid 7) exited unexpectedly\nin read"), "DataLoader.*ly"),
        (ConnectionResetError(104, "Connection reset by peer"), ".*Connection reset by peer"),
        (EOFError(), "EOFError"),  # without a text, as torch raises it
    ],
)
def test_however_a_reading_process_dies_it_is_one_sentence(
    raised: Exception, reason: str, reader_died: type[NolbError]
) -> None:
    def loader() -> Iterator[int | NolbError]:
        yield 1
        raise raised

    batches = batches_of(loader(), reader_died)
    assert next(batches) == 1
    sentence = (
        rf"A process that reads images has died \({reason}\): go on with --resume, and [^\n]+$"
    )
    with pytest.raises(reader_died, match=sentence):
        next(batches)


def test_what_cannot_be_resumed_is_not_said_to_be() -> None:
    def loader() -> Iterator[int | NolbError]:
        raise EOFError
        yield 1

    with pytest.raises(
        ExtractionError, match=r"has died \(EOFError\): try again, with --workers 0"
    ):
        next(batches_of(loader(), ExtractionError, AGAIN))


class Drawn:
    """Seven images of two sizes, one of which cannot be read."""

    ids = tuple("abcdefg")

    def read(self, row: int) -> Image.Image:
        """Grey of the row's own level."""
        if row == 2:
            raise UnreadableImageError("torn")
        return Image.new("RGB", (6, 4) if row % 3 == 0 else (5, 5), (row, row, row))


@pytest.mark.parametrize("workers", [0, 2])
def test_images_of_any_size_come_in_order_and_those_alike_together(workers: int) -> None:
    views = ShiftedViews(1)
    found = list(read_mixed(Drawn(), ANY_SIZE, views, 4, CPU, workers))
    assert [(batch.rows.start, batch.rows.stop) for batch in found] == [(0, 4), (4, 7)]
    assert [batch.failures for batch in found] == [{2: "torn"}, {}]
    assert shapes(found) == [
        {(0, 3): (2, 2, 4, 6, 3), (1,): (2, 1, 5, 5, 3)},
        {(4, 5): (2, 2, 5, 5, 3), (6,): (2, 1, 4, 6, 3)},
    ]
    for batch in found:
        for rows, pixels in batch.alike:
            for i, row in enumerate(rows):
                assert np.unique(pixels[:, i]).tolist() == [row]  # its mirror image is the same


def shapes(batches: list[MixedBatch]) -> list[dict[tuple[int, ...], tuple[int, ...]]]:
    """Rows and shapes of the images that are alike."""
    return [{rows: tuple(pixels.shape) for rows, pixels in batch.alike} for batch in batches]


def test_fewer_workers_than_none_are_refused() -> None:
    with pytest.raises(ConfigError, match="workers must be 0 or more, or -1 to choose, not -2"):
        next(read_mixed(Drawn(), ANY_SIZE, ShiftedViews(), 4, CPU, -2))
