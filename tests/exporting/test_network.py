from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.checkpoints import load_checkpoint
from pipeline.datasets import Preprocessing
from pipeline.ensemble import ensemble_probabilities
from pipeline.errors import ExportError
from pipeline.exporting import ExportedNetwork, build_classifier, image_side
from pipeline.exporting.network import TwoHeads
from tests.exporting.exported import Small, small_extraction


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return small_extraction(tmp_path_factory.mktemp("small"))


def test_two_heads_give_the_ensembles_probabilities_even_where_softmax_gives_none() -> None:
    logits = [[200.0, 0.0, -300.0], [0.0, 0.0, 0.0], [1.0, 2.0, 3.0]]

    class Fixed(nn.Module):
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.factor = factor

        def forward(self, features: Tensor) -> Tensor:
            return self.factor * features

    found = TwoHeads(Fixed(1.0), Fixed(-0.5), 2.0, 1.5)(torch.tensor(logits))
    wanted = ensemble_probabilities(np.array(logits), -0.5 * np.array(logits), 2.0, 1.5)
    np.testing.assert_allclose(found.double().softmax(-1).numpy(), wanted, atol=1e-6)
    assert torch.isfinite(found).all()


def test_the_copy_leaves_the_model_as_it_was(small: Small) -> None:
    model = load_checkpoint(small.checkpoint)
    before = {k: v.clone() for k, v in model.module.state_dict().items()}
    network = build_classifier(model, small.head, (1.0, 1.0))
    assert isinstance(network.get_submodule(model.classifier_name), TwoHeads)
    after = model.module.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_a_network_that_changes_its_classifiers_output_is_refused(small: Small) -> None:
    model = load_checkpoint(small.checkpoint)

    class Scaled(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = 3 * self.inner(x)
            return logits

    scaled = dataclasses.replace(
        model, module=Scaled(model.module), classifier_name=f"inner.{model.classifier_name}"
    )
    with pytest.raises(ExportError, match="changes what its classifier"):
        build_classifier(scaled, small.head, None)


def test_a_head_of_another_shape_is_refused(small: Small, tmp_path: Path) -> None:
    model = load_checkpoint(small.checkpoint)
    other = dataclasses.replace(small.head, weight=np.ones((3, 5), np.float32))
    with pytest.raises(ExportError, match="do not belong together"):
        build_classifier(model, other, None)


@pytest.mark.parametrize("channels", ["RGB", "BGR"])
def test_normalisation_inside_is_that_of_the_preprocessing(channels: str) -> None:
    preprocessing = Preprocessing((0.1, 0.2, 0.3), (0.5, 0.6, 0.7), channels=channels)  # type: ignore[arg-type]  # both are its literals
    pixels = torch.randint(0, 256, (2, 5, 5, 3), dtype=torch.uint8)
    inside = ExportedNetwork(nn.Identity(), preprocessing)(pixels.permute(0, 3, 1, 2) / 255)
    torch.testing.assert_close(inside, preprocessing.normalize(pixels), atol=1e-6, rtol=1e-6)
    outside = ExportedNetwork(nn.Identity(), None)(inside)
    assert torch.equal(outside, inside)


def test_the_side_comes_from_crop_size_or_images_and_they_must_agree() -> None:
    plain = Preprocessing((0.0,) * 3, (1.0,) * 3)
    cropped = dataclasses.replace(plain, crop=224)
    assert image_side(cropped, None, None) == image_side(cropped, 224, 224) == 224
    assert image_side(plain, 32, None) == image_side(plain, None, 32) == 32
    with pytest.raises(ExportError, match="give --size"):
        image_side(plain, None, None)
    with pytest.raises(ExportError, match="32 and 64"):
        image_side(plain, 32, 64)
