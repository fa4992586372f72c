"""What a `with` block closes when it ends."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self


class Closable(ABC):
    """A base for whatever holds files or threads: leaving its `with` block closes it."""

    @abstractmethod
    def close(self) -> None:
        """Let go of what is held."""

    def __enter__(self) -> Self:
        """Nothing to prepare."""
        return self

    def __exit__(self, *raised: object) -> None:
        """Close, whether the block ended well or not."""
        self.close()
