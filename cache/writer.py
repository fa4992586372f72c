"""The unfinished store: made, filled shard by shard, resumed, sealed."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.backends import backend_for
from cache.backends.contract import Backend, Contents, Draft
from cache.catalogue import Catalogue, failures_of, require_ours, salvage_catalogue
from cache.closable import Closable
from cache.errors import (
    CorruptStoreError,
    IdentityMismatchError,
    IncompleteStoreError,
    NonFiniteError,
    StoreError,
    StoreExistsError,
    StoreFormatError,
    StoreNotFoundError,
)
from cache.identity import ids_digest
from cache.layout import SPARE, ArrayLayout, Header
from cache.shards import (
    Shard,
    ShardRecord,
    array_digest,
    finite_rows,
    tidy_reason,
    unfinished_message,
)
from cache.spec import StoreSpec
from cache.store import Store, open_store
from cache.strict_json import JSON
from cache.verify import verify_sealed

_FLOATS = ("float16", "float32")


def create_store(path: Path | str, spec: StoreSpec, *, overwrite: bool = False) -> StoreWriter:
    """Begin a store; its suffix, .zarr, .h5 or .memory, says of what kind.

    Until `StoreWriter.seal` it lives beside `path`, and nothing stands at `path` but what
    stood there before.

    Args:
        path: the store to be.
        spec: everything that is known about it.
        overwrite: throw away an unfinished store, and replace a finished one once the new one is
            sealed. Only stores are replaced, nothing else.

    Raises:
        StoreExistsError: a store, finished or not, is there, and `overwrite` is not set.
        StoreFormatError: something else is there, or the suffix is unknown.
        StoreLockedError: another process is writing it.
        StoreError: the folder does not exist or cannot be written.
    """
    path = Path(path)
    backend = backend_for(path)
    if overwrite and backend.has_sealed(path):
        _require_replaceable(backend, path)
    if not overwrite and backend.has_sealed(path):
        raise StoreExistsError(
            f"{path} exists and is left alone; choose another name or replace it with --overwrite."
        )
    if not overwrite and backend.has_draft(path):
        raise StoreExistsError(
            f"{path} was begun and is not finished; go on with --resume or start anew with "
            "--overwrite."
        )
    return StoreWriter(path, spec, backend.create_draft(path, Header.of(spec), replaces=overwrite))


def resume_store(path: Path | str, spec: StoreSpec) -> StoreWriter:
    """Go on with an unfinished store; the size of its shards and its provenance stay.

    Args:
        path: the store to be.
        spec: what is to be extracted, as for `create_store`.

    Raises:
        StoreNotFoundError: nothing was begun there.
        IdentityMismatchError: it is another extraction; the message names the fields.
        StoreExistsError: it is complete already.
        StoreLockedError: another process is writing it.
    """
    path = Path(path)
    backend = backend_for(path)
    draft = backend.open_draft(path) if backend.has_draft(path) else None
    if backend.has_sealed(path) and (draft is None or not draft.replaces):
        _refuse_finished(backend, path, spec, draft)
    if draft is None:
        raise StoreNotFoundError(
            f"{path}: nothing to resume here; begin with: nolb extract ... --out {path}"
        )
    _require_same(path, draft.header, Header.of(spec))
    draft.hold()
    return StoreWriter(path, _as_begun(spec, draft), draft)


def join_store(path: Path | str, spec: StoreSpec, invitation: str) -> StoreWriter:
    """Write shards of a store that another process began and will seal.

    Args:
        path: the store to be.
        spec: what is to be extracted, the same as in the process that began it.
        invitation: what `StoreWriter.share` returned there.

    Raises:
        StoreNotFoundError: nothing is being written there.
        IdentityMismatchError: it is another extraction; the message names the fields.
        StoreLockedError: those who write it have not invited us.
    """
    path = Path(path)
    backend = backend_for(path)
    if not backend.has_draft(path):
        raise StoreNotFoundError(f"{path}: no store is being written here.")
    draft = backend.open_draft(path)
    _require_same(path, draft.header, Header.of(spec))
    draft.hold(invitation)
    return StoreWriter(path, _as_begun(spec, draft), draft)


def _as_begun(spec: StoreSpec, draft: Draft) -> StoreSpec:
    """What decides no number stays as it was begun."""
    return replace(spec, shard_rows=draft.header.shard_rows, provenance=draft.header.provenance)


def _require_replaceable(backend: Backend, path: Path) -> None:
    """Let only stores be replaced: damaged ones too, but nothing that does not say it is one."""
    try:
        with backend.open_sealed(path) as sealed:
            require_ours(sealed.attributes(), path)
    except CorruptStoreError:
        with suppress(CorruptStoreError):
            salvage_catalogue(None, backend.read_spare(path), path)
            return
        raise StoreFormatError(
            f"{path} cannot be told to be a store of nolb, so it is not replaced; move it away."
        ) from None


def _refuse_finished(backend: Backend, path: Path, spec: StoreSpec, draft: Draft | None) -> None:
    with open_store(path) as store:
        found = store.header
    _require_same(path, found, Header.of(spec))
    if draft is None or draft.header == found:
        backend.discard_draft(path)  # the rest of a publication that was killed at its last step
    raise StoreExistsError(f"{path} is complete already; there is nothing to resume.")


def _require_same(path: Path, theirs: Header, ours: Header) -> None:
    differing = ours.differences(theirs)
    if differing:
        raise IdentityMismatchError(
            f"{path} is of another extraction ({'; '.join(differing)}, 'that' being the store). "
            "Extract as before, choose another name, or start anew with --overwrite."
        )


class StoreWriter(Closable):
    """Fills a store shard by shard.

    A shard that `write_shard` has returned for is safe against any crash. One thread may
    write while others read `path` and `spec`. Left without `seal`, the store
    stays unfinished and can be resumed.
    """

    def __init__(self, path: Path, spec: StoreSpec, draft: Draft) -> None:
        self.path = path
        self.spec = spec
        self._draft = draft
        self._ids = {split.name: split.ids for split in spec.splits}
        self._trusted: dict[Shard, ShardRecord] = {}
        self._lock = threading.Lock()

    def missing(self, split: str | None = None) -> list[Shard]:
        """Return the shards still to be written: splits in their order, then by index.

        A recorded shard whose bytes do not agree with its record is missing again. Each is read
        once by a writer, and those that it wrote itself are not.
        """
        with self._lock:
            recorded = self._draft.records()
            return [
                shard
                for shard in self._draft.header.shards(split)
                if shard not in recorded or not self._agrees(recorded[shard])
            ]

    def _agrees(self, record: ShardRecord) -> bool:
        shard = record.shard
        if self._trusted.get(shard) == record:
            return True
        names = set(self._draft.header.shard_arrays(shard.split))
        try:
            good = set(record.arrays) == names and all(
                array_digest(self._draft.read(shard, name)) == record.arrays[name] for name in names
            )
        except CorruptStoreError:
            return False
        if good and record.ids == ids_digest(self._ids[shard.split][shard.rows]):
            self._trusted[shard] = record
            return True
        return False

    def write_shard(
        self,
        shard: Shard,
        *,
        features: npt.NDArray[np.floating[Any]],
        logits: npt.NDArray[np.floating[Any]] | None = None,
        views: npt.NDArray[np.floating[Any]] | None = None,
        failures: Mapping[int, str] | None = None,
    ) -> ShardRecord:
        """Write one shard of n rows and record it; durable on return.

        Args:
            shard: one of `missing`; one that is complete is written anew.
            features: (n, D) float32 or float16.
            logits: (n, C), or None where the store keeps none.
            views: (V, n, D), or None where the split has none.
            failures: row of the split, `shard.start` to `shard.stop - 1`, -> why its image
                could not be read. Whatever the arrays hold there is stored as NaN.

        Raises:
            NonFiniteError: a row that did not fail holds NaN or infinity, or overflows float16.
            StoreError: an array is missing, superfluous or of another shape or type; or the disk
                does not take it.
        """
        if not self._draft.header.has(shard):
            raise StoreError(f"{self.path} has no {shard}.")
        reasons = {int(row): tidy_reason(why) for row, why in (failures or {}).items()}
        foreign = sorted(row for row in reasons if not shard.start <= row < shard.stop)
        if foreign:
            raise StoreError(f"Row {foreign[0]} is marked failed, but is not in {shard}.")
        failed = np.zeros(shard.n_rows, dtype=bool)
        failed[[row - shard.start for row in reasons]] = True

        given = {"features": features, "logits": logits, "views": views}
        layouts = self._draft.header.shard_arrays(shard.split)
        self._require_arrays(shard, set(layouts), given)
        arrays = {
            name: self._as_stored(shard, layouts[name], array, failed)
            for name, array in given.items()
            if array is not None
        }
        digests = {name: array_digest(array) for name, array in arrays.items()}
        ids = ids_digest(self._ids[shard.split][shard.rows])
        record = ShardRecord(shard, digests, ids, reasons)
        with self._lock:
            self._draft.drop_record(shard)
            self._draft.write(shard, arrays)
            self._draft.put_record(record)
            self._trusted[shard] = record
        return record

    def _require_arrays(
        self, shard: Shard, needed: set[str], given: Mapping[str, object | None]
    ) -> None:
        have = {name for name, array in given.items() if array is not None}
        if have != needed:
            raise StoreError(
                f"{self.path}: {shard} takes {sorted(needed)}, but was given {sorted(have)}."
            )

    def _as_stored(
        self,
        shard: Shard,
        layout: ArrayLayout,
        array: npt.NDArray[np.floating[Any]],
        failed: npt.NDArray[np.bool_],
    ) -> npt.NDArray[Any]:
        """Bring an array into its stored type, NaN in failed rows, and check the others."""
        shape = layout.shape_of(shard.n_rows)
        if array.shape != shape or array.dtype.name not in _FLOATS:
            raise StoreError(
                f"{self.path}: '{layout.name}' of {shard} must be {shape} of float32 or "
                f"float16, not {array.shape} of {array.dtype}."
            )
        with np.errstate(over="ignore"):  # an overflow becomes infinity and is named below
            stored = array.astype(layout.dtype, order="C", copy=bool(failed.any()))
        stored[layout.index(failed)] = np.nan
        bad = ~(finite_rows(stored, layout.row_axis) | failed)
        if bad.any():
            row = shard.start + int(bad.argmax())
            advice = "check the checkpoint and the preprocessing"
            if layout.dtype == "float16":
                advice = "float16 overflows above 65504, so extract with --dtype float32"
            raise NonFiniteError(
                f"{self.path}: '{layout.name}' of '{self._ids[shard.split][row]}' (row {row} of "
                f"split '{shard.split}') holds NaN or infinity; {advice}."
            )
        return stored

    def share(self) -> str:
        """Let other processes write shards too; `join_store` needs what this returns."""
        return self._draft.share()

    def alone(self) -> bool:
        """Tell whether the processes that joined are all known to have left or died."""
        return self._draft.alone()

    def seal(self) -> Store:
        """Finish: join the shards, read everything back, and put the store under its name.

        Raises:
            IncompleteStoreError: shards are missing.
            CorruptStoreError: the disk gave back other bytes than were written; the shards
                concerned are missing again.
        """
        with self._lock:
            recorded = self._draft.records()
            shards = self._draft.header.shards()
            unfinished = [shard for shard in shards if shard not in recorded]
            if unfinished:
                raise IncompleteStoreError(unfinished_message(self.path, shards, unfinished))
            labels = next(split.labels for split in self.spec.splits if split.name == "train")
            catalogue = Catalogue.of(self._draft.header, labels, recorded)
            with self._draft.assemble(self._contents(catalogue)) as sealed:
                problems = verify_sealed(sealed, self.path)
            for problem in problems:
                if problem.shard is not None:
                    self._trusted.pop(problem.shard, None)
                    self._draft.drop_record(problem.shard)
            if problems:
                raise CorruptStoreError(
                    f"{self.path}: the disk gave back other bytes than were written "
                    f"({problems[0]}). Check the disk, then finish with --resume."
                )
            self._draft.publish()
        return open_store(self.path)

    def _contents(self, catalogue: Catalogue) -> Contents:
        classifier = self.spec.classifier
        arrays: dict[str, Any] = {"classifier/weight": classifier.weight}
        if classifier.bias is not None:
            arrays["classifier/bias"] = classifier.bias
        for split in self.spec.splits:
            failures = failures_of(catalogue.records[split.name])
            arrays[f"{split.name}/labels"] = split.labels
            arrays[f"{split.name}/ids"] = split.ids
            arrays[f"{split.name}/failed"] = [
                failures.get(row, "") for row in range(len(split.ids))
            ]
            arrays[f"{split.name}/records"] = catalogue.record_texts(split.name)
        arrays[SPARE] = [catalogue.to_text()]
        head: dict[str, JSON] = {"scale": classifier.scale, "normalized": classifier.normalized}
        return Contents({"": catalogue.attributes(), "classifier": head}, arrays)

    def close(self) -> None:
        """Let go of the files; an unfinished store stays and can be resumed."""
        self._draft.close()
