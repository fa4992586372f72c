"""Stores behind URLs keep the contract of stores, on an S3-compatible server too."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar
from uuid import uuid4

import pytest

from cache import (
    CorruptStoreError,
    StoreError,
    StoreFormatError,
    StoreLockedError,
    convert_store,
    create_store,
    describe_store,
    join_store,
    open_store,
    reopen_store,
    resume_store,
    verify_store,
)
from cache.backends.remote import Remote, url_of
from tests.cache.store_making import make_spec, make_store, tree, write, write_missing
from tests.cache.test_store_contract import StoreContract

pytest.importorskip("fsspec", reason="stores behind URLs need the extra 'remote'")


class RemoteChecks:
    suffix: ClassVar[str] = ".zarr"

    def url(self, tmp_path: Path, server: str | None) -> str:
        raise NotImplementedError

    @pytest.fixture
    def path(self, tmp_path, server) -> Path:
        return Path(f"{self.url(tmp_path, server)}/x.zarr")

    def test_nothing_but_the_store_is_left(self, path):
        make_store(path).close()
        names = Remote(str(url_of(path.parent))).names()
        assert names
        assert all(name.startswith("x.zarr/") for name in names)

    def test_it_holds_the_bytes_of_a_local_one(self, path, tmp_path):
        make_store(path).close()
        make_store(tmp_path / "local.zarr").close()
        place = Remote(str(url_of(path)))
        assert {n: place.read(n) for n in place.names()} == tree(tmp_path / "local.zarr")

    def test_there_and_back(self, path, tmp_path):
        make_store(tmp_path / "a.h5").close()
        convert_store(tmp_path / "a.h5", path).close()
        convert_store(path, tmp_path / "b.h5").close()
        assert tree(tmp_path / "a.h5") == tree(tmp_path / "b.h5")
        assert describe_store(path).complete

    def test_damage_is_found_and_repaired(self, path):
        make_store(path).close()
        place = Remote(str(url_of(path)))
        content = bytearray(place.read("train/views/c.1.1.0"))
        content[7] ^= 4
        place.write("train/views/c.1.1.0", bytes(content))
        place.remove("test/features/c.0.0")
        assert [p.shard.name for p in verify_store(path, full=False)] == ["test-00000"]
        assert [p.shard.name for p in verify_store(path)] == ["train-00001", "test-00000"]
        with open_store(path) as store, pytest.raises(CorruptStoreError):
            store["train"].views()
        assert [s.name for s in reopen_store(path).lost] == ["train-00001", "test-00000"]
        with resume_store(path, make_spec()) as writer:
            write_missing(writer)
            writer.seal().close()
        assert verify_store(path) == []

    def test_others_may_join(self, path):
        with create_store(path, make_spec()) as writer:
            with join_store(path, make_spec(), writer.share()) as other:
                for shard in other.missing()[::2]:
                    write(other, shard)
            with pytest.raises(StoreLockedError):
                join_store(path, make_spec(), "a guess")
            write_missing(writer)
            writer.seal().close()
        assert verify_store(path) == []

    def test_a_draft_that_was_thrown_away_takes_no_more_records(self, path):
        with create_store(path, make_spec()) as old:
            shard = old.missing()[0]
            with create_store(path, make_spec(), overwrite=True) as new:
                with pytest.raises(StoreLockedError, match="begun it anew; this one stops"):
                    write(old, shard)
                write_missing(new)
                new.seal().close()
        assert verify_store(path) == []

    def test_killed_while_it_is_put_under_its_name(self, path, monkeypatch):
        make_store(path, seed=0).close()
        copy = Remote.copy_from

        def killed(self, other, names):
            copy(self, other, names[: len(names) // 2])
            raise KeyboardInterrupt

        with create_store(path, make_spec(), overwrite=True) as writer:
            write_missing(writer, seed=1)
            with monkeypatch.context() as patch:
                patch.setattr(Remote, "copy_from", killed)
                with pytest.raises(KeyboardInterrupt):
                    writer.seal()
        with pytest.raises(StoreError, match="not sealed yet"):
            open_store(path)
        with resume_store(path, make_spec()) as writer:
            assert writer.missing() == []
            writer.seal().close()
        assert verify_store(path) == []


class TestInMemory(RemoteChecks, StoreContract):
    @pytest.fixture
    def server(self):
        return None

    def url(self, tmp_path, server):
        return f"memory://{uuid4().hex}"


class TestFile(RemoteChecks, StoreContract):
    @pytest.fixture
    def server(self):
        return None

    def url(self, tmp_path, server):
        return f"file://{tmp_path}/remote"


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """An S3-compatible server on this machine, found by fsspec's own settings."""
    moto = pytest.importorskip("moto.server", reason="an S3-compatible server needs moto")
    pytest.importorskip("s3fs", reason="s3:// needs s3fs")
    import fsspec

    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    before = dict(os.environ)
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    fsspec.config.conf["s3"] = {"endpoint_url": f"http://{host}:{port}"}
    fsspec.filesystem("s3").mkdir("bucket")
    yield "s3://bucket"
    del fsspec.config.conf["s3"]
    os.environ.clear()
    os.environ.update(before)
    server.stop()


def test_s3_from_the_first_shard_to_the_repair(s3, tmp_path):
    """The real protocol once; the whole contract is kept on quicker file systems above."""
    spec = make_spec(n_train=5, n_views=0, shard_rows=5)
    path, local = Path(f"{s3}/x.zarr"), tmp_path / "x.zarr"
    make_store(local, spec).close()
    with create_store(path, spec) as writer:
        write(writer, writer.missing()[1])
    with pytest.raises(StoreError, match="are not written"):
        open_store(path)
    with resume_store(path, spec) as writer:
        assert len(writer.missing()) == 2
        write_missing(writer)
        writer.seal().close()
    place = Remote(s3)
    whole = {f"x.zarr/{name}": content for name, content in tree(local).items()}
    assert {name: place.read(name) for name in place.names()} == whole
    place.write("x.zarr/train/features/c.0.0", b"noise")
    assert [problem.shard.name for problem in verify_store(path)] == ["train-00000"]
    assert [shard.name for shard in reopen_store(path).lost] == ["train-00000"]
    with resume_store(path, spec) as writer:
        write_missing(writer)
        writer.seal().close()
    assert {name: place.read(name) for name in place.names()} == whole


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("s3://bucket/a/x.zarr", "s3://bucket/a/x.zarr"),
        ("memory://x.zarr", "memory://x.zarr"),
        ("file:///home/x.zarr", "file:///home/x.zarr"),
        ("/home/x.zarr", None),
        ("x.zarr", None),
        ("a:b/x.zarr", None),
    ],
)
def test_paths_that_are_urls(text, url):
    assert url_of(Path(text)) == url


def test_only_zarr_lives_behind_urls():
    with pytest.raises(StoreFormatError, match="is a Zarr store"):
        open_store("s3://bucket/x.h5")


def test_an_unknown_protocol_is_a_sentence():
    with pytest.raises(StoreError, match="cannot be reached or written"):
        open_store("nowhere://bucket/x.zarr")
