"""Small extractions, and what interrupts them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from pipeline.config import ExtractConfig
from pipeline.progress import Snapshot
from pipeline.stages.extract import Extraction, extract


@dataclasses.dataclass(frozen=True)
class Run:
    """A folder with the checkpoint `m.pth` and images of each split; calling it extracts."""

    folder: Path
    config: ExtractConfig
    splits: tuple[str, ...] = ("train", "test")

    def __call__(
        self, out: Path | str = "store.zarr", config: ExtractConfig | None = None, **how: Any
    ) -> Extraction:
        """Extract to a name in the folder, or a path elsewhere; `how` is for the stage."""
        sources = how.pop("sources", {name: self.folder / name for name in self.splits})
        checkpoint = self.folder / "m.pth"
        return extract(checkpoint, sources, self.folder / out, config or self.config, **how)


class Interrupted:
    """Presses Ctrl-C after a number of batches."""

    def __init__(self, batches: int) -> None:
        self.left = batches

    def __call__(self, _: Snapshot) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
