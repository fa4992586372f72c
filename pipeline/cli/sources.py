"""Options that say how the images are read which a command names."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pipeline.cli.options import PATH

if TYPE_CHECKING:
    from pipeline.datasets import ImageSource, SourceOptions

Command = TypeVar("Command", bound=Callable[..., Any])

SPLIT_SEED = click.option("--split-seed", type=int, default=0, show_default=True, help="Seed of the split that shares make.")  # fmt: skip  # noqa: E501
ROOT = click.option("--root", type=PATH, help="Folder that listed paths are relative to, or that holds torchvision's CIFAR.")  # fmt: skip  # noqa: E501
REWRITE = click.option("--rewrite", metavar="OLD=NEW", multiple=True, help="Replace the beginning of listed paths; * in OLD is any one folder.")  # fmt: skip  # noqa: E501
CLASS_NAMES = click.option("--class-names", type=PATH, help="File with one class name a line, in the order of the labels.")  # fmt: skip  # noqa: E501
CLASS_ORDER = click.option("--class-order", type=PATH, help="File with the listed label of each row of the head, where its training re-ordered the classes.")  # fmt: skip  # noqa: E501


@dataclass(frozen=True)
class Reading:
    """How a command's images are read, as the user said it."""

    split_seed: int
    root: Path | None
    rewrite: tuple[str, ...]
    class_names: Path | None
    class_order: Path | None = None

    def options(self) -> SourceOptions:
        """The same as the library takes it.

        Raises:
            DatasetError: if a file of names or of their order cannot be read, or a rewrite is no
                OLD=NEW.
        """
        from pipeline.datasets import (
            SourceOptions,
            parse_rewrites,
            read_class_names,
            read_class_order,
        )

        return SourceOptions(
            root=self.root,
            class_names=None if self.class_names is None else read_class_names(self.class_names),
            class_order=None if self.class_order is None else read_class_order(self.class_order),
            rewrites=parse_rewrites(self.rewrite),
        )

    def open(
        self, sources: Mapping[str, str], required: Collection[str] = ("train", "test")
    ) -> dict[str, ImageSource]:
        """The images of every split, as `open_sources`."""
        from pipeline.datasets import open_sources

        return open_sources(sources, self.options(), split_seed=self.split_seed, required=required)

    def words(self) -> Iterator[str]:
        """The same for another command line; what was not given is left out."""
        given = {
            "--split-seed": self.split_seed or None,
            "--root": self.root,
            "--class-names": self.class_names,
            "--class-order": self.class_order,
        }
        for option, value in given.items():
            yield from () if value is None else (option, str(value))
        for rewrite in self.rewrite:
            yield from ("--rewrite", rewrite)


def reading_options(*, class_order: bool = True) -> Callable[[Command], Callable[..., Any]]:
    """Add the options, which the command takes as one `reading`.

    Args:
        class_order: the command has a head, whose classes may be in another order.
    """

    def decorate(command: Command) -> Callable[..., Any]:
        @wraps(command)
        def collecting(*args: Any, **given: Any) -> Any:
            names = ("split_seed", "root", "rewrite", "class_names", "class_order")
            reading = Reading(**{name: given.pop(name) for name in names if name in given})
            return command(*args, reading=reading, **given)

        for option in (
            *([CLASS_ORDER] if class_order else []),
            CLASS_NAMES,
            REWRITE,
            ROOT,
            SPLIT_SEED,
        ):
            collecting = option(collecting)
        return collecting

    return decorate


def named_sources(**given: str | None) -> dict[str, str]:
    """What the user gave for each split; splits that were not given are left out."""
    return {split: source for split, source in given.items() if source is not None}
