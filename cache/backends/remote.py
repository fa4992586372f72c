"""Zarr stores behind a URL that fsspec knows: s3://bucket/x.zarr, gs://..., memory://x.zarr.

Object stores have no renames and no locks, so two things differ from folders:

- The unfinished store NAME.partial/ is copied, on the server, to its name when it is finished; the
  root's zarr.json comes last, and without it there is no store. Killed in between, it is resumed
  and copied again. A store that is replaced is gone for as long as the copying takes.
- Two processes can write one unfinished store. Both write the same bytes, each object as a whole;
  one that throws the draft of another away is noticed by that other at its next record.

Whatever an object store has confirmed is durable. Credentials and endpoints are fsspec's affair.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from cache.backends.contract import Array, Backend, Contents, Draft, Sealed
from cache.backends.places import Place
from cache.backends.zarr_format import (
    make_arrays,
    object_names,
    open_group,
    read_shard,
    read_spare,
    shard_arrays,
    write_small_parts,
)
from cache.backends.zarr_sealed import ZarrSealed
from cache.errors import (
    NolbError,
    StoreError,
    StoreExistsError,
    StoreFormatError,
    StoreLockedError,
    StoreNotFoundError,
    one_line,
)
from cache.layout import Header
from cache.records import Record
from cache.shards import Shard, ShardRecord
from cache.strict_json import canonical, parse

if TYPE_CHECKING:
    from zarr.abc.store import Store as ZarrStore

_URL = re.compile(r"([a-z][a-z0-9+.-]+):/+(.+)")
_LOCAL = ("file", "local")


def url_of(path: Path) -> str | None:
    """Return the URL that a path stands for (paths fold // into /), None for a plain path."""
    found = _URL.fullmatch(str(path))
    if found is None:
        return None
    protocol, rest = found.groups()
    return f"{protocol}://{'/' if protocol in _LOCAL else ''}{rest}"


@contextmanager
def _calling(path: Path) -> Iterator[None]:
    """Turn whatever a client library raises into one sentence."""
    try:
        yield
    except NolbError:
        raise
    except ImportError as error:
        raise StoreError(
            f"{url_of(path)} needs a package that is not installed ({error}): "
            "pip install 'nolb[remote]'."
        ) from None
    # Each protocol's client has errors of its own, and they share no base.
    except Exception as error:
        raise StoreError(
            f"{url_of(path)} cannot be reached or written ({one_line(error)}); check the address, "
            "the network and your credentials. What was recorded before is kept."
        ) from error


class Remote(Place):
    """What lies below a URL."""

    def __init__(self, url: str) -> None:
        try:
            from fsspec.core import url_to_fs
        except ImportError:
            raise ImportError("fsspec") from None
        self.url = url.rstrip("/")
        self.files, self._root = url_to_fs(self.url)
        self._sizes: dict[str, dict[str, int]] = {}

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}" if name else str(self._root)

    def __truediv__(self, name: str) -> Remote:
        return Remote(f"{self.url}/{name}")

    def store(self, *, read_only: bool) -> ZarrStore:
        """See `Place`."""
        from zarr.storage import FsspecStore

        options = {"auto_mkdir": True} if self.url.partition(":")[0] in _LOCAL else {}
        return FsspecStore.from_url(self.url, storage_options=options, read_only=read_only)

    def size(self, name: str) -> int | None:
        """See `Place`; a folder is listed once, when it is first asked for."""
        folder, _, key = name.rpartition("/")
        if folder not in self._sizes:
            try:
                found = self.files.ls(self._at(folder), detail=True, refresh=True)
            except FileNotFoundError:
                return None
            self._sizes[folder] = {
                entry["name"].rpartition("/")[2]: int(entry["size"])
                for entry in found
                if entry["type"] == "file"
            }
        return self._sizes[folder].get(key)

    def read(self, name: str, n_bytes: int | None = None) -> bytes:
        """See `Place`."""
        content: bytes = self.files.cat_file(self._at(name), start=0, end=n_bytes)
        return content

    def metadata(self) -> dict[str, bytes]:
        """See `Place`."""
        names = [name for name in self.names() if name.endswith("/zarr.json")]
        return {name: self.read(name) for name in names}

    def names(self) -> list[str]:
        """Return all objects below the URL."""
        self.files.invalidate_cache()
        root = self._at("")
        return [str(name)[len(root) + 1 :] for name in self.files.find(root)]

    def exists(self, name: str) -> bool:
        """Tell whether an object is there."""
        self.files.invalidate_cache()
        return bool(self.files.exists(self._at(name)))

    def write(self, name: str, content: bytes) -> None:
        """Put an object; as a whole, or not at all."""
        if self.url.partition(":")[0] in _LOCAL:
            self.files.makedirs(self._at(name).rpartition("/")[0], exist_ok=True)
        self.files.pipe_file(self._at(name), content)

    def remove(self, name: str) -> None:
        """Remove an object, if it is there."""
        if self.exists(name):
            self.files.rm_file(self._at(name))

    def clear(self) -> None:
        """Remove everything below the URL."""
        if self.names():
            self.files.rm(self._at(""), recursive=True)

    def copy_from(self, other: Remote, names: list[str]) -> None:
        """Copy objects of the same name from elsewhere on the same server."""
        if names and self.url.partition(":")[0] in _LOCAL:
            for name in names:
                self.files.makedirs(self._at(name).rpartition("/")[0], exist_ok=True)
        if names:
            self.files.copy([other._at(name) for name in names], [self._at(name) for name in names])

    def n_bytes(self) -> int:
        """Return what all objects take up."""
        return sum(int(self.files.size(self._at(name))) for name in self.names())


class RemoteDraft(Draft):
    """An unfinished store below NAME.partial/, laid out like the one in a folder.

    Args:
        path: the finished store to be.
        header: what it will hold.
        replaces: whether an older store may be replaced.
        token: what tells this draft from another one at the same place.
    """

    def __init__(self, path: Path, header: Header, *, replaces: bool, token: str) -> None:
        super().__init__(header, replaces=replaces)
        self.path = path
        self._token = token
        self._shards = {_record_name(shard): shard for shard in header.shards()}
        with _calling(path):
            self._draft = draft_of(path)
            self._place = self._draft / "store"
            self._group = open_group(self._place, read_only=False)
            self._arrays = shard_arrays(self._group, header)

    def hold(self, invitation: str | None = None) -> None:
        """See `Draft`."""
        if invitation not in (None, self._token):
            raise StoreLockedError(f"{url_of(self.path)} is being written by others.")

    def share(self) -> str:
        """See `Draft`."""
        return self._token

    def alone(self) -> bool:
        """See `Draft`."""
        return False

    def _require_own(self) -> None:
        try:
            token = _read_draft(self.path, self._draft).token
        except FileNotFoundError:
            token = ""
        if token != self._token:
            raise StoreLockedError(
                f"{url_of(self.path)}: another process has finished this store or begun it anew; "
                "this one stops."
            )

    def write(self, shard: Shard, arrays: Mapping[str, Array]) -> None:
        """See `Draft`."""
        layouts = self.header.shard_arrays(shard.split)
        with _calling(self.path):
            for name, values in arrays.items():
                array = layouts[name]
                for old in object_names(array, shard):  # it may be damaged, and zarr would read it
                    self._place.remove(old)
                self._arrays[array.path][array.index(shard.rows)] = values

    def read(self, shard: Shard, name: str) -> Array:
        """See `Draft`."""
        return read_shard(self._arrays, self.header, shard, name, self.path)

    def put_record(self, record: ShardRecord) -> None:
        """See `Draft`."""
        with _calling(self.path):
            self._require_own()
            self._draft.write(_record_name(record.shard), record.to_text().encode("utf-8"))

    def drop_record(self, shard: Shard) -> None:
        """See `Draft`."""
        with _calling(self.path):
            self._draft.remove(_record_name(shard))

    def records(self) -> dict[Shard, ShardRecord]:
        """See `Draft`."""
        found: dict[Shard, ShardRecord] = {}
        with _calling(self.path):
            for name in set(self._draft.names()) & set(self._shards):
                try:
                    record = ShardRecord.from_text(self._draft.read(name), name)
                except (StoreFormatError, FileNotFoundError):
                    continue  # a record that cannot be read vouches for nothing
                if record.shard == self._shards[name]:
                    found[record.shard] = record
        return found

    def adopt(self, sealed: Sealed | None, shard: Shard) -> None:  # noqa: ARG002  # objects suffice
        """See `Draft`."""
        with _calling(self.path):
            old = Remote(str(url_of(self.path)))
            arrays = self.header.shard_arrays(shard.split).values()
            names = [name for array in arrays for name in object_names(array, shard)]
            self._place.copy_from(old, [name for name in names if old.size(name) is not None])

    def assemble(self, contents: Contents) -> Sealed:
        """See `Draft`."""
        with _calling(self.path):
            write_small_parts(self._group, self._place, self.header, contents)
        return ZarrSealed(self._draft / "store", self.path)

    def publish(self) -> None:
        """See `Draft`."""
        with _calling(self.path):
            self._require_own()
            target = Remote(str(url_of(self.path)))
            if target.exists("zarr.json") and not self.replaces:
                raise StoreExistsError(
                    f"{url_of(self.path)} came up while its store was being written, and is left "
                    "alone. Move it away and finish with --resume."
                )
            target.remove("zarr.json")  # from here on there is no old store
            target.clear()
            target.copy_from(self._place, [n for n in self._place.names() if n != "zarr.json"])
            target.copy_from(self._place, ["zarr.json"])
            self._draft.remove("draft.json")
            self._draft.clear()

    def close(self) -> None:
        """See `Draft`."""


class RemoteBackend(Backend):
    """Zarr stores behind URLs."""

    def has_sealed(self, path: Path) -> bool:
        """See `Backend`."""
        with _calling(path):
            return Remote(str(url_of(path))).exists("zarr.json")

    def has_draft(self, path: Path) -> bool:
        """See `Backend`."""
        with _calling(path):
            return draft_of(path).exists("draft.json")

    def create_draft(self, path: Path, header: Header, *, replaces: bool) -> Draft:
        """See `Backend`."""
        token = uuid4().hex
        with _calling(path):
            draft = draft_of(path)
            draft.remove("draft.json")
            draft.clear()
            make_arrays(draft / "store", header)
            content = canonical(_Begun(header, replaces, token).to_json())
            draft.write("draft.json", content.encode("utf-8"))
        return RemoteDraft(path, header, replaces=replaces, token=token)

    def open_draft(self, path: Path) -> Draft:
        """See `Backend`."""
        with _calling(path):
            try:
                begun = _read_draft(path, draft_of(path))
            except FileNotFoundError:
                raise StoreNotFoundError(f"{url_of(path)}: no store was begun here.") from None
        return RemoteDraft(path, begun.header, replaces=begun.replaces, token=begun.token)

    def discard_draft(self, path: Path) -> None:
        """See `Backend`."""
        with _calling(path):
            draft = draft_of(path)
            draft.remove("draft.json")
            draft.clear()

    def open_sealed(self, path: Path) -> Sealed:
        """See `Backend`."""
        with _calling(path):
            return ZarrSealed(Remote(str(url_of(path))), path)

    def read_spare(self, path: Path) -> str | None:
        """See `Backend`."""
        with _calling(path):
            return read_spare(Remote(str(url_of(path))), path)

    def n_bytes(self, path: Path) -> int:
        """See `Backend`."""
        with _calling(path):
            return (
                Remote(str(url_of(path))) if self.has_sealed(path) else draft_of(path)
            ).n_bytes()


def draft_of(path: Path) -> Remote:
    """Return where the unfinished store lies."""
    return Remote(f"{url_of(path)}.partial")


def _record_name(shard: Shard) -> str:
    return f"records/{shard.name}.json"


@dataclass(frozen=True)
class _Begun(Record):
    """What `draft.json` says."""

    header: Header
    """Of the store to be."""
    replaces: bool
    """Whether an older store is to be replaced."""
    token: str
    """Of the writer that began it."""


def _read_draft(path: Path, draft: Remote) -> _Begun:
    where = f"{url_of(path)}.partial/draft.json"
    try:
        return _Begun.from_json(parse(draft.read("draft.json"), where), where)
    except StoreFormatError as error:
        raise StoreFormatError(f"{error} Start anew with --overwrite.") from None
