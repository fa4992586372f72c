"""Settings that a store notes: what of them is taken, and what is the machine's or the user's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cache.layout import Header
from pipeline.config import ExtractConfig
from pipeline.errors import ConfigError
from pipeline.extracting.noted import noted_config
from pipeline.old_head import ADOPTED
from tests.cache.store_making import make_spec

PATH = Path("x.zarr")


def header(config: dict[str, Any], **identity: Any) -> Header:
    return Header.of(replace(make_spec(**identity), provenance={"config": config}))


def test_the_store_says_what_decides_numbers_and_the_machine_the_rest() -> None:
    noted = {"views": 2, "batch_size": 7, "crop": None, "device": "auto", "workers": 10**9}
    found = noted_config(PATH, header(noted, dtype="float16"))
    assert found == ExtractConfig(
        views=2, batch_size=7, dtype="float16", device="cpu", workers=-1
    )  # fmt: skip


@pytest.mark.parametrize("model", ["plain:resnet32", "nolb:small-cnn", "timm/resnet18", "auto"])
def test_names_of_no_function_are_the_stores_word(model: str) -> None:
    assert noted_config(PATH, header({"model": model})).model == model


def test_the_user_s_word_comes_first() -> None:
    for model in ("nets:mine", "plain:nets:mine"):
        with pytest.raises(ConfigError, match=rf"give --model {model}\.$"):
            noted_config(PATH, header({"model": model}))
        assert noted_config(PATH, header({"model": model}), model).model == model
    with pytest.raises(ConfigError, match=r"give --model 'plain:\$\(rm\),nets:mine'\.$"):
        noted_config(PATH, header({"model": "plain:$(rm),nets:mine"}))


def test_a_store_of_no_extraction_is_made_again() -> None:
    noted = {"config": {}, ADOPTED: {"config": {}}}
    with pytest.raises(ConfigError, match="repair the store that it is a copy of, and make it"):
        noted_config(PATH, Header.of(replace(make_spec(), provenance=noted)))
