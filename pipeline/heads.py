"""A re-trained linear head: its logits, its file, and which stores it fits.

N samples, C classes, D feature width.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from cache import Identity, Store
from cache.errors import StoreFormatError
from cache.records import Count, Record
from cache.strict_json import canonical, parse
from pipeline.errors import HeadError
from pipeline.files import is_store_name, refuse_existing, write_whole
from pipeline.provenance import Averaged, Provenance

FORMAT = "nolb head"
VERSION = 2

METADATA_KEY = "nolb"
"""The one metadata entry, a JSON object: safetensors writes several in no fixed order, and equal
heads shall be equal files."""


@dataclass(frozen=True, eq=False)
class Head:
    """A linear head, logits = features @ weight.T + bias, and everything that decided it.

    A normalised one takes features that are brought to length 1 first.

    Raises:
        HeadError: if the shapes do not agree or a value is not finite.
    """

    weight: NDArray[np.float32]
    """(C, D)"""

    bias: NDArray[np.float32]
    """(C,)"""

    identity: Identity
    """Of the store whose features it was fitted on."""

    class_names: tuple[str, ...]
    """C names; row c of the weight is class c."""

    class_counts: tuple[int, ...]
    """Training rows of each class that the fit used."""

    provenance: Provenance
    """How it came about."""

    versions: Mapping[str, str]
    """Versions of what computed it."""

    normalized: bool = False
    """Whether features are brought to length 1 before the product, as for cosines."""

    def __post_init__(self) -> None:
        """Refuse parts that do not belong together."""
        n_classes = len(self.class_names)
        sizes = (len(self.weight), len(self.class_counts), *self.bias.shape)
        if self.weight.ndim != 2 or sizes != (n_classes,) * 3:  # noqa: PLR2004  # (C, D)
            raise HeadError(
                f"A head of {n_classes} classes needs a weight ({n_classes}, D), a bias and as "
                f"many counts, not {self.weight.shape}, {self.bias.shape} and "
                f"{len(self.class_counts)}."
            )
        if self.weight.dtype != np.float32 or self.bias.dtype != np.float32:
            raise HeadError(
                f"A head is float32, not {self.weight.dtype} with a bias in {self.bias.dtype}."
            )
        if not (np.isfinite(self.weight).all() and np.isfinite(self.bias).all()):
            raise HeadError("The head holds NaN or infinite values: fit it again.")

    def logits(self, features: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Logits (N, C) float32 of features (N, D) of any floating point type.

        Raises:
            HeadError: if the features have another width.
        """
        if features.shape[-1] != self.weight.shape[1]:
            raise HeadError(
                f"The head takes features of width {self.weight.shape[1]}, "
                f"not {features.shape[-1]}: use it with the store that it was fitted on."
            )
        logits: NDArray[np.float32] = self.inputs(features) @ self.weight.T
        logits += self.bias
        return logits

    def inputs(self, features: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """What the product takes of features (N, D): they themselves, or brought to length 1."""
        rows = features.astype(np.float32, copy=False)
        if self.normalized:
            # The bound is that of torch.nn.functional.normalize, which the fit used.
            rows = rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)
        return rows


def average_heads(heads: Sequence[Head], weights: Sequence[float] | None = None) -> Head:
    """One head whose logits are the weighted mean of several heads' logits.

    So its probabilities are the geometric mean of theirs, brought to the sum 1, where an ensemble
    takes the arithmetic mean; and it is deployed as one head.

    Args:
        heads: two or more, fitted on the same features. Splits and views may differ; the head that
            is made has those of the first one, its test views and class counts too.
        weights: one above 0 for each, in any unit; equal where not given.

    Raises:
        HeadError: if there are fewer, weights do not fit, or the heads do not belong together or
            were balanced for different test views.
    """
    shares = [1.0] * len(heads) if weights is None else list(weights)
    if len(heads) < 2:  # noqa: PLR2004  # a mean of one is that one
        raise HeadError(f"A mean takes two heads or more, not {len(heads)}.")
    if len(shares) != len(heads):
        raise HeadError(f"{len(heads)} heads need as many weights, not {len(shares)}.")
    if not all(0 < share < math.inf for share in shares):
        raise HeadError(f"Weights are numbers above 0, not {', '.join(f'{w:g}' for w in shares)}.")
    first = heads[0]
    for other in heads[1:]:
        _require_averageable(first, other)
    provenance = Averaged(tuple(head.provenance for head in heads), tuple(map(float, shares)))
    # In float64, so that the mean of equal heads is that head; no share is above 1, so that
    # nothing overflows.
    parts = [share / max(shares) for share in shares]
    total = math.fsum(parts)
    weight = sum(s * h.weight.astype(np.float64) for s, h in zip(parts, heads, strict=True))
    bias = sum(s * h.bias.astype(np.float64) for s, h in zip(parts, heads, strict=True))
    return replace(
        first,
        weight=np.asarray(weight / total, np.float32),
        bias=np.asarray(bias / total, np.float32),
        provenance=provenance,
    )


def refuse_existing_head(path: str | Path, *, overwrite: bool) -> None:
    """Refuse to put a head where none can be; a command asks before the fit, not after it.

    Raises:
        OutputExistsError: if something is there, unless it is a head file and `overwrite` is true.
        OutputError: if the folder for it is missing.
        HeadError: if it would be named as stores are, and not be found again.
    """
    refuse_existing(path, overwrite=overwrite, replaceable=is_head)
    if is_store_name(Path(path)):
        raise HeadError(f"{path} is the name of a store: call a head NAME.safetensors.")


def save_head(head: Head, path: str | Path, overwrite: bool = False) -> None:
    """Write a head as safetensors: `weight` (C, D), `bias` (C,), provenance in the metadata.

    The file appears whole or not at all; equal heads give equal bytes.

    Raises:
        OutputError: as `refuse_existing_head`, or if it cannot be written.
        HeadError: as there.
    """
    path = Path(path)
    refuse_existing_head(path, overwrite=overwrite)
    tensors = {
        "weight": np.ascontiguousarray(head.weight),
        "bias": np.ascontiguousarray(head.bias),
    }
    content = save(tensors, {METADATA_KEY: _metadata(head)})
    write_whole(path, content, overwrite=overwrite, replaceable=is_head)


def load_head(path: str | Path) -> Head:
    """Read what `save_head` wrote.

    Raises:
        HeadError: if there is no such file, or it is no whole head file of ours.
    """
    path = Path(path)
    if is_store_name(path):
        raise HeadError(f"{path} is a store, not a head: give a file of nolb fit-head.")
    if path.is_dir():
        raise HeadError(f"{path} is a folder, not a head: give a file of nolb fit-head.")
    if not path.is_file():
        raise HeadError(
            f"There is no head file {path}. Make one with: nolb fit-head STORE --out {path}"
        )
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = (file.metadata() or {}).get(METADATA_KEY)
            if metadata is None:
                raise HeadError(f"{path} is a safetensors file, but no head that nolb wrote.")
            if set(file.keys()) != {"weight", "bias"}:
                raise HeadError(
                    f"{path} must hold `weight` and `bias`, but holds {sorted(file.keys())}."
                )
            weight, bias = file.get_tensor("weight"), file.get_tensor("bias")
    except (SafetensorError, OSError) as error:
        raise HeadError(
            f"{path} is no whole head file ({error}): fit the head again, or fetch the file again."
        ) from None
    try:
        return _head(weight, bias, metadata)
    except (StoreFormatError, HeadError) as error:
        raise HeadError(f"{path} cannot be used as a head: {error}") from None


def is_head(path: Path) -> bool:
    """Whether a file holds what head files do, and not a whole network."""
    try:
        with safe_open(path, framework="numpy") as file:
            return set(file.keys()) == {"weight", "bias"}
    except (SafetensorError, OSError):
        return False


def is_safetensors(path: Path) -> bool:
    """Whether a file is a safetensors file, by its header; no store is."""
    try:
        with safe_open(path, framework="numpy"):
            return True
    except (SafetensorError, OSError):
        return False


def require_same_identity(head: Head, store: Store) -> None:
    """Refuse a store in whose feature space the head does not live.

    Splits and views that only one of the two knows do not matter.

    Raises:
        HeadError: naming the fields that differ.
    """
    differences = _differences(head, store)
    if differences:
        raise HeadError(
            f"The head was fitted on another extraction than this store ({'; '.join(differences)}, "
            "where this is the head's). Fit one on this store with: nolb fit-head STORE --out HEAD"
        )


def _require_averageable(first: Head, other: Head) -> None:
    """Refuse two heads whose logits have no mean that is a head."""
    differences = _differences(first, other)
    if differences:
        raise HeadError(
            "Only heads of the same features and classes have a mean; these were fitted on "
            f"different extractions ({'; '.join(differences)})."
        )
    if first.normalized != other.normalized:
        raise HeadError(
            "A head on features of length 1, such as a cosine one, and a head on features as they "
            "are have no mean that is one head: score them together with nolb evaluate."
        )


@dataclass(frozen=True)
class _Metadata(Record):
    """What a file says beside the tensors; the fields are those of `Head`."""

    identity: Identity
    class_names: tuple[str, ...]
    class_counts: tuple[Count, ...]
    normalized: bool
    provenance: Provenance
    versions: Mapping[str, str]
    format: str = FORMAT
    version: int = VERSION


def _metadata(head: Head) -> str:
    """The metadata's text."""
    values = {each.name: getattr(head, each.name) for each in fields(Head)}
    del values["weight"], values["bias"]
    return canonical(_Metadata(**values).to_json())


def _head(weight: NDArray[np.float32], bias: NDArray[np.float32], metadata: str) -> Head:
    """A head from its tensors and the metadata's text."""
    content = parse(metadata, "the metadata")
    if not isinstance(content, Mapping) or content.get("format") != FORMAT:
        raise HeadError(f"its metadata does not call it a {FORMAT}.")
    version = content.get("version")
    if version != VERSION:
        raise HeadError(
            f"its format has version {reprlib.repr(version)}, this nolb reads version {VERSION}. "
            "Make the head again with nolb fit-head, average-heads or balance-head."
        )
    try:
        found = _Metadata.from_json(content, "the metadata")
    except RecursionError:
        raise HeadError("its provenance is nested deeper than that of any head.") from None
    return Head(
        weight, bias, found.identity, found.class_names, found.class_counts, found.provenance,
        found.versions, found.normalized,
    )  # fmt: skip


def _differences(head: Head, other: Head | Store) -> list[str]:
    """What puts a head's features or classes apart from those of another head or a store."""
    differences = head.identity.feature_space_differences(other.identity)
    if head.class_names != other.class_names:
        differences.append(f"class_names: {_first_difference(head.class_names, other.class_names)}")
    return differences


def _first_difference(these: tuple[str, ...], those: tuple[str, ...]) -> str:
    """Where two lists of class names part."""
    if len(these) != len(those):
        return f"this has {len(these)}, that {len(those)}"
    index = next(i for i, (this, that) in enumerate(zip(these, those, strict=True)) if this != that)
    return f"class {index} is this {these[index]!r}, that {those[index]!r}"
