"""The images of a training: draws, augmentation, held or read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.config import PretrainConfig
from pipeline.datasets import ArraySource, FolderSource, Preprocessing
from pipeline.errors import ConfigError, DatasetError
from pipeline.seeds import derived_seed
from pipeline.training.augmentation import Mix, Shift, draw_mix
from pipeline.training.draws import EpochDraws, global_seed
from pipeline.training.holding import supply_images
from pipeline.training.images import Clean, HeldImages, ReadImages, ResizedCrop, stacked
from pipeline.training.network import preprocessing_for
from tests.small_data import image_folder
from tests.small_trainings import CPU, HALF, generator, pictures

# Draws


def test_the_draws_of_an_epoch_depend_on_seed_and_epoch_alone() -> None:
    def drawn(seed: int, epoch: int) -> tuple[float, ...]:
        draws = EpochDraws(seed, epoch)
        return (
            torch.rand((), generator=draws.order).item(),
            torch.rand((), generator=draws.images).item(),
            draws.shares.random(),
        )

    assert drawn(3, 5) == drawn(3, 5)
    assert len({value for seed in (0, 1) for epoch in (0, 1) for value in drawn(seed, epoch)}) == 12
    # "1/1" and "11/" must not be the same words.
    assert derived_seed(1, 1) != derived_seed(11, "")


def test_the_global_generator_is_left_as_it_was() -> None:
    torch.manual_seed(7)
    wanted = torch.rand(3)
    torch.manual_seed(7)
    with global_seed(0, "test"):
        inside = torch.rand(3)
    assert torch.equal(torch.rand(3), wanted)
    with global_seed(0, "test"):
        assert torch.equal(torch.rand(3), inside)


# Augmentation


def test_a_shift_is_a_window_of_the_padded_image_or_its_mirror_image() -> None:
    images, colour = pictures(n=64), (9, 99, 199)
    shifted = Shift(padding=2, colour=colour, flip=True)(images, generator())
    frame = torch.tensor(colour, dtype=torch.uint8).expand(64, 9, 9, 3).clone()
    frame[:, 2:-2, 2:-2] = images
    seen = set()
    for image, canvas in zip(shifted, frame, strict=True):
        windows = {
            (top, left, flip): window.flip(1) if flip else window
            for top in range(5)
            for left in range(5)
            for window in [canvas[top : top + 5, left : left + 5]]
            for flip in (False, True)
        }
        fitting = [key for key, window in windows.items() if torch.equal(window, image)]
        assert len(fitting) == 1
        seen.add(fitting[0])
    tops, lefts, flips = (set(values) for values in zip(*seen, strict=True))
    assert tops == lefts == set(range(5))
    assert flips == {False, True}


def test_without_padding_and_flips_an_image_stays_itself() -> None:
    images = pictures()
    assert torch.equal(Shift(0, (0, 0, 0), flip=False)(images, generator()), images)


def test_mixup_takes_a_share_of_each_image_and_the_rest_of_its_partner() -> None:
    x = torch.tensor([[0.0], [10.0], [100.0]])
    mix = Mix(0.25, torch.tensor([1, 2, 0]))
    # 0.25 * 0 + 0.75 * 10, 0.25 * 10 + 0.75 * 100, 0.25 * 100 + 0.75 * 0
    assert mix.images(x).flatten().tolist() == [7.5, 77.5, 25.0]


def test_mixup_draws_its_share_from_beta() -> None:
    shares = np.random.default_rng(0)
    drawn = [draw_mix(4, 0.4, shares, generator(), CPU) for _ in range(4000)]
    values = np.array([mix.share for mix in drawn if mix is not None])
    # Beta(a, a) has mean 1/2 and variance 1 / (4 (2 a + 1)) = 0.1389 for a = 0.4; four standard
    # errors of both are 0.024 and about 0.006.
    assert len(values) == 4000
    assert abs(values.mean() - 0.5) < 0.024
    assert abs(values.var() - 0.1389) < 0.006
    assert draw_mix(4, 0.0, shares, generator(), CPU) is None


# Images


def rows_of(*batches: list[int]) -> list[torch.Tensor]:
    return [torch.tensor(batch) for batch in batches]


@pytest.mark.parametrize("workers", [0, 2])
def test_images_are_the_same_held_or_read(workers: int) -> None:
    pixels = pictures(n=7).numpy()
    source = ArraySource(pixels, [0] * 7, ["a"])
    batches = rows_of([3, 1, 4], [6, 0])
    held = HeldImages(stacked(source, range(7), Clean(HALF)))
    read = ReadImages(source, Clean(HALF), workers, CPU)
    for epoch in range(2):  # the reading processes stay and take each epoch's batches
        pairs = zip(held.batches(epoch, batches), read.batches(epoch, batches), strict=True)
        for rows, (a, b) in zip(batches, pairs, strict=True):
            assert torch.equal(a, torch.from_numpy(pixels)[rows])
            assert torch.equal(a, b)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resized_crop_depends_on_seed_epoch_and_row_alone(workers: int) -> None:
    source = ArraySource(pictures(n=4, side=20).numpy(), [0] * 4, ["a"])
    images = ReadImages(source, ResizedCrop(8, 0.3, flip=True, seed=5), workers, CPU)
    alone = ReadImages(source, ResizedCrop(8, 0.3, flip=True, seed=5), 0, CPU)
    torch.manual_seed(workers)
    (all_rows,) = images.batches(2, rows_of([0, 1, 2, 3]))
    assert all_rows.shape == (4, 8, 8, 3)
    (last,) = alone.batches(2, rows_of([3]))
    assert torch.equal(last[0], all_rows[3])
    (other_epoch,) = images.batches(3, rows_of([0, 1, 2, 3]))
    assert not torch.equal(other_epoch, all_rows)


def test_images_of_several_sizes_are_told_with_the_remedy(tmp_path: Path) -> None:
    image_folder(tmp_path / "a", counts=(2, 1, 1))
    image_folder(tmp_path / "b", counts=(1, 1, 1), side=12)
    (tmp_path / "b/ant/0.png").rename(tmp_path / "a/ant/9.png")
    source = FolderSource(tmp_path / "a")
    with pytest.raises(DatasetError, match=r"10 x 10 and .*ant/9.png is 12 x 12; .* --size"):
        stacked(source, range(len(source)), Clean(HALF))
    small = preprocessing_for(HALF, PretrainConfig(size=7))
    assert stacked(source, range(len(source)), Clean(small)).shape == (5, 7, 7, 3)


def test_an_image_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    image_folder(tmp_path)
    (tmp_path / "bee/1.png").write_bytes(b"no image")
    reader = ReadImages(FolderSource(tmp_path), Clean(HALF), 1, CPU)
    with pytest.raises(DatasetError, match=r"bee/1.png cannot be read \(.*\): mend it, or take it"):
        list(reader.batches(0, rows_of(list(range(10)))))


def test_more_images_than_memory_may_hold_are_read_anew(tmp_path: Path) -> None:
    sources = {"train": FolderSource(image_folder(tmp_path / "a"))}
    sources["test"] = FolderSource(image_folder(tmp_path / "b", (1, 1, 1)))
    # 13 * 300 bytes of training images and 3 * 300 of test images
    for memory, held in (("3899B", {"test"}), ("3900B", {"train"}), ("4800B", {"train", "test"})):
        supply = supply_images(sources, HALF, PretrainConfig(memory=memory, workers=0), CPU)
        assert {n for n, images in supply.splits.items() if isinstance(images, HeldImages)} == held


def test_how_images_are_augmented_follows_the_model(tmp_path: Path) -> None:
    sources = {"train": FolderSource(image_folder(tmp_path))}
    large = Preprocessing(mean=(0.2, 0.4, 0.6), std=(0.5,) * 3, resize=8, crop=6)
    assert supply_images(sources, HALF, PretrainConfig(), CPU).shift == Shift(4, (0, 0, 0), True)
    assert supply_images(sources, large, PretrainConfig(workers=0), CPU).shift is None
    shifted = PretrainConfig(augmentation="shift", fill="mean", padding=1, flip=False)
    supply = supply_images(sources, large, shifted, CPU)
    assert supply.shift == Shift(1, (51, 102, 153), False)
    assert supply.sample.shape == (1, 6, 6, 3)
    with pytest.raises(ConfigError, match="needs the size of its result: set --size"):
        supply_images(sources, HALF, PretrainConfig(augmentation="resized-crop"), CPU)
