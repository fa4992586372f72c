"""The description in an exported file: its classes, its input and its origin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from cache.errors import StoreFormatError
from cache.strict_json import JSON, canonical, parse
from pipeline.datasets.preprocessing import Preprocessing
from pipeline.errors import ExportError

FORMAT = "nolb export"
VERSION = 1

METADATA_KEY = "nolb"
"""The one metadata entry, a JSON object, in every format."""

Kind = Literal["ensemble", "new"]
Normalization = Literal["inside", "outside"]


@dataclass(frozen=True)
class Description:
    """Everything needed to use an exported classifier, and to know where it comes from."""

    classifier: Kind
    """`ensemble`: output is the logarithm of both heads' mean probability; `new`: raw logits."""

    temperatures: tuple[float, float] | None
    """(t_old, t_new) of an ensemble; None for the new head alone."""

    normalization: Normalization
    """`inside`: images are RGB in 0..1; `outside`: the caller normalises them, as `mean`, `std`
    and `channels` say."""

    side: int | None
    """Height and width of the images in pixels; None where the file holds weights alone."""

    preprocessing: Preprocessing
    """How images are resized, cropped and normalised."""

    class_names: tuple[str, ...]
    """(C,) names in the order of the outputs."""

    model: str
    """Family and backbone of the checkpoint."""

    backbone: str
    """Registry name of the network."""

    classifier_name: str
    """Dotted name of the module in the network that holds the heads."""

    cosine_scale: float | None
    """Scale of an old head that gives cosines; None for a linear one."""

    origin: Mapping[str, JSON]
    """Identity of the store, settings of the head and versions."""

    normalized: bool = False
    """Whether the new head brings features to length 1 first."""

    def input_text(self) -> str:
        """The input in one line."""
        side = "H, W" if self.side is None else f"{self.side}, {self.side}"
        if self.normalization == "inside":
            return f"float32 (batch, 3, {side}), RGB in 0..1; normalisation is inside"
        done = f"(x/255 - {self.preprocessing.mean}) / {self.preprocessing.std}"
        return f"float32 (batch, 3, {side}), {self.preprocessing.channels}, normalised as {done}"

    def output_text(self) -> str:
        """The output in one line."""
        n = len(self.class_names)
        if self.temperatures is None:
            return f"float32 (batch, {n}), logits of the new head"
        t_old, t_new = self.temperatures
        return (
            f"float32 (batch, {n}), log-probabilities of the ensemble at t_old = {t_old:g}, "
            f"t_new = {t_new:g}; their softmax is the ensemble's probability"
        )

    def to_text(self) -> str:
        """As one JSON text, the same for equal descriptions."""
        words: dict[str, Any] = {each.name: getattr(self, each.name) for each in fields(self)}
        words |= {
            "format": FORMAT,
            "version": VERSION,
            "preprocessing": self.preprocessing.to_json(),
            "input": self.input_text(),
            "output": self.output_text(),
        }
        return canonical(words)

    @classmethod
    def from_text(cls, text: str | None, where: str) -> Description:
        """Read what `to_text` wrote.

        Raises:
            ExportError: if it did not write this; `where` names the file.
        """
        content = None if not text else parse(text, f"The description in {where}")
        if not isinstance(content, Mapping) or content.get("format") != FORMAT:
            raise ExportError(f"{where} is no model that nolb exported: it lacks its description.")
        if content.get("version") != VERSION:
            raise ExportError(
                f"{where} has version {content.get('version')} of the export format, this nolb "
                f"reads version {VERSION}."
            )
        words: dict[str, Any] = {each.name: content.get(each.name) for each in fields(cls)}
        words["normalized"] = bool(words["normalized"])  # absent in files of before there were such
        try:
            preprocessing = Preprocessing.from_json(words["preprocessing"], "the preprocessing")
            words["preprocessing"] = preprocessing
            words["class_names"] = tuple(words["class_names"])
            if words["temperatures"] is not None:
                words["temperatures"] = tuple(words["temperatures"])
        except (TypeError, StoreFormatError):
            raise ExportError(f"The description in {where} is damaged: export again.") from None
        return cls(**words)


def image_side(preprocessing: Preprocessing, given: int | None, seen: int | None) -> int:
    """Side of the images that a program is made for.

    Args:
        preprocessing: its centre crop is the side, where it has one.
        given: by the user.
        seen: side of the first image at hand.

    Raises:
        ExportError: if nothing says how large the images are, or two things contradict each other.
    """
    known = {side for side in (preprocessing.crop, given, seen) if side is not None}
    if len(known) > 1:
        raise ExportError(
            f"The images would be {' and '.join(map(str, sorted(known)))} pixels wide at once: "
            "--size must be the side after resizing and cropping."
        )
    if not known:
        raise ExportError(
            "The checkpoint does not say how large its images are: give --size (32 for CIFAR), or "
            "--images with the test images."
        )
    return known.pop()
