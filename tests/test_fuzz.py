"""Whatever strangers' files hold, only the project's own errors come out."""

from __future__ import annotations

import io
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.datasets.folders import FolderSource
from pipeline.datasets.lists import ListSource
from pipeline.errors import NolbError
from pipeline.recipes import load_recipe

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
