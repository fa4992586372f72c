"""Whatever strangers' files hold, only the project's own errors come out."""

from __future__ import annotations

import copy
import io
import json
import reprlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from cache.errors import StoreFormatError
from cache.layout import Header
from cache.strict_json import canonical
from pipeline.datasets.folders import FolderSource
from pipeline.datasets.lists import ListSource
from pipeline.errors import HeadError, NolbError
from pipeline.heads import METADATA_KEY, average_heads, load_head, save_head
from pipeline.recipes import load_recipe
from tests.measured_stores import planted_head, planted_store

LINES = st.lists(
    st.text(max_size=12)
    | st.builds("{} {}".format, st.text(max_size=8), st.integers(-3, 12))
    | st.sampled_from(
        ["a.png 0", "../a.png 0", "/etc/passwd 0", "a/../../b 1", "a\0b 0", "a " + "9" * 5000,
         "a 99999999999999999999", "# x", "", "a.png -1", "~/x 0", "C:\\x 0", "a/./b 0", "\ud800 0"]
    ),
    max_size=6,
)  # fmt: skip

QUICK = settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("lists")
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(folder / "a.png")
    return folder


@QUICK
@given(lines=LINES, names=st.none() | st.just(("x", "y")))
def test_any_list_file(folder: Path, lines: list[str], names: tuple[str, ...] | None) -> None:
    file = folder / "list.txt"
    file.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
    with suppress(NolbError):
        source = ListSource(file, class_names=names)
        for row, name in enumerate(source.ids):
            assert ".." not in Path(name).parts
            assert not Path(name).is_absolute()
            with suppress(NolbError):
                source.read(row)


@QUICK
@given(content=st.binary(max_size=300))
def test_any_bytes_as_a_list_file(folder: Path, content: bytes) -> None:
    (folder / "bytes.txt").write_bytes(content)
    with suppress(NolbError):
        ListSource(folder / "bytes.txt")


YAML = st.sampled_from(
    ["extract: ", "fit_head: ", "sweep_temps: ", "\n  lr: ", "\n  t_old: ", "1e999", "[1, 2]",
     "!!python/object/apply:os.system ['true']", "&a [*a]", "<<: *b", "? - : ", "2026-13-45",
     "\n  views: ", "\n  mean: [", "]", "{", "0x", "true", "!!binary x", "!!set {a}", "'", "- "]
) | st.text(max_size=10)  # fmt: skip


@QUICK
@given(parts=st.lists(YAML, max_size=8))
def test_any_recipe(folder: Path, parts: list[str]) -> None:
    file = folder / "recipe.yaml"
    file.write_bytes("".join(parts).encode("utf-8", "surrogatepass"))
    with suppress(NolbError):
        load_recipe(file)


def encoded(kind: str) -> bytes:
    """A small real image."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), kind=st.sampled_from(["PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM"]))
def test_any_image_bytes(folder: Path, data: st.DataObject, kind: str) -> None:
    content = bytearray(encoded(kind))
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    kept = data.draw(st.just(len(content)) | st.integers(0, len(content)))
    images = folder / "images" / "class"
    images.mkdir(parents=True, exist_ok=True)
    (images / "x.png").write_bytes(bytes(content[:kept]))
    with suppress(NolbError):
        image = FolderSource(folder / "images").read(0)
        assert image.mode == "RGB"


JUNK = ["x", "\ud800", True, {}, [], -1, 1.5, 1e999, 10**400, None, [[1]], {"kind": "x"}]


def damaged(content: Any, way: tuple[Any, ...], junk: Any) -> Any:
    """The JSON with another value in one place, or none if the junk is the word "gone"."""
    changed = copy.deepcopy(content)
    inner = changed
    for step in way[:-1]:
        inner = inner[step]
    if junk == "gone":
        del inner[way[-1]]
    else:
        inner[way[-1]] = junk
    return changed


def ways(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value in JSON, to the first two of a list."""
    if way:
        yield way
    inner = value.items() if isinstance(value, dict) else ()
    for key, each in list(enumerate(value[:2]) if isinstance(value, list) else inner):
        yield from ways(each, (*way, key))


def one_sentence(read: Callable[[], object], error: type[NolbError], place: str) -> bool:
    """Whether reading it is refused; in a bounded line that names the place."""
    try:
        read()
    except error as refused:
        said = str(refused)
    else:
        return False
    assert place in said
    assert "\n" not in said
    assert len(said) < 600 + len(place)
    return True


@pytest.mark.parametrize("junk", [*JUNK, "gone"], ids=reprlib.repr)
def test_any_value_in_a_heads_metadata(tmp_path: Path, junk: Any) -> None:
    store = planted_store(tmp_path, {"train": (np.eye(3, dtype=np.float32), np.arange(3))})
    head, file = planted_head(store, np.eye(3)), tmp_path / "h"
    save_head(average_heads([head, head], [1, 2]), file)
    with safe_open(file, framework="numpy") as opened:
        metadata = json.loads(opened.metadata()[METADATA_KEY])
    tensors, refused = load_file(file), 0
    for way in ways(metadata):
        save_file(tensors, file, {METADATA_KEY: json.dumps(damaged(metadata, way, junk))})
        refused += one_sentence(partial(load_head, file), HeadError, str(file))
    assert refused > 10


@pytest.mark.parametrize("junk", [*JUNK, "gone"], ids=reprlib.repr)
def test_any_value_in_a_stores_header(tmp_path: Path, junk: Any) -> None:
    store = planted_store(tmp_path, {"train": (np.eye(3, dtype=np.float32), np.arange(3))})
    header = json.loads(canonical(store.header.to_json()))
    wrong = (damaged(header, way, junk) for way in ways(header))
    refused = [
        one_sentence(partial(Header.from_json, value, "a.zarr"), StoreFormatError, "a.zarr")
        for value in wrong
    ]
    assert sum(refused) > 10
