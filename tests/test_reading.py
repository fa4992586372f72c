"""What is said when a process that reads images is gone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipeline.errors import ExtractionError, NolbError, TrainingError
from pipeline.reading import batches_of


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
