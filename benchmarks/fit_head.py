"""Fitting heads on cached features, beside what people do instead.

    python -m benchmarks.fit_head [--runs 5] [--part small] [--part many] [--part large] ...

small: one epoch on random features of CIFAR-100-LT's size (10,847 x 64, 100 classes, batch 128),
against a loop over `DataLoader(TensorDataset)` with autograd and torch's optimiser, and against
re-running a frozen ResNet-32 on its 32 x 32 images in every step (the forward pass alone, on some
of the batches).
many: 32 heads in one pass against 32 runs of one; by seeds, with mini-batches of their own, and by
settings, with shared ones; and heads by both. Beside them the bare matrix products of such an
epoch, two for each step: logits and the weight's gradient.
large: one epoch at ImageNet-LT's size (115,846 x 2048, 1000 classes) against its bare matrix
products, three for each step: those two, and the features' gradient as autograd has it.
Bare products are multiplied by the library that a fit takes.

Both sides run in turn in one process. Times are wall time, and processor time (of all threads)
where the machine is shared with others: those are comparable also then.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import click
import torch
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.machine import describe, spread
from pipeline.backbones import BACKBONES
from pipeline.config import FitConfig
from pipeline.datasets import exponential_counts
from pipeline.fitting import TrainingRows, fit_heads_on_rows
from pipeline.fitting.products import onednn_products
from pipeline.losses import gml

EPOCH = FitConfig(views=False, epochs=1)
BACKBONE_STEPS = 4
"""Steps of which the frozen backbone's time is taken; all steps are alike."""

Clock = Callable[[], float]


def random_rows(
    n_rows: int, width: int, n_classes: int, largest: int, ratio: float
) -> TrainingRows:
    """Random features with long-tailed labels, cut or filled up to N rows."""
    labels = torch.arange(n_classes).repeat_interleave(
        torch.tensor(exponential_counts(largest, ratio, n_classes))
    )
    labels = labels.repeat(-(-n_rows // len(labels)))[:n_rows]
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(1, n_rows, width, generator=generator)
    return TrainingRows(features, labels, labels.bincount(minlength=n_classes))


def loader_loop(rows: TrainingRows, config: FitConfig) -> None:
    """One epoch the usual way: DataLoader, autograd, torch's optimiser."""
    dataset = TensorDataset(rows.features[0], rows.labels)
    head = torch.nn.Linear(rows.features.shape[2], len(rows.class_counts))
    optimizer = torch.optim.SGD(head.parameters(), config.first_lr, momentum=config.momentum)
    for features, labels in DataLoader(dataset, config.batch_size, shuffle=True):
        loss = gml(head(features), labels, rows.class_counts)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def backbone_steps(config: FitConfig) -> None:
    """Some steps' forward passes of a frozen ResNet-32 of random weights."""
    network = BACKBONES["cifar-resnet32"].build(100).eval()
    images = torch.rand(config.batch_size, 3, 32, 32)
    with torch.inference_mode():
        for _ in range(BACKBONE_STEPS):
            network(images)


def bare_products(
    rows: TrainingRows, config: FitConfig, n_heads: int = 1, *, of_features: bool = False
) -> None:
    """The products of one epoch and nothing else; the operands are at hand, the results kept."""
    dtype = torch.bfloat16 if config.precision == "bfloat16" else torch.float32
    features = rows.features[0, : config.batch_size].to(dtype)
    weight = torch.randn(n_heads * len(rows.class_counts), features.shape[1]).to(dtype)
    slopes = torch.randn(len(features), len(weight)).to(dtype)
    logits, by_weight, by_features = map(torch.empty_like, (slopes, weight, features))
    with onednn_products():
        for _ in range(-(-len(rows.labels) // config.batch_size)):
            torch.mm(features, weight.T, out=logits)
            torch.mm(slopes.T, features, out=by_weight)
            if of_features:
                torch.mm(slopes, weight, out=by_features)


def in_turn(
    works: Mapping[str, Callable[[], object]], runs: int, clock: Clock
) -> dict[str, list[float]]:
    """Times of each work, `runs` times in turn after one that does not count."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for run in range(runs + 1):
        for name, work in works.items():
            begun = clock()
            work()
            if run:
                times[name].append(clock() - begun)
    return times


def show(times: dict[str, list[float]], own: str, scales: dict[str, float] | None = None) -> None:
    """Print every time, and how it compares with our own, run by run."""
    for name, values in times.items():
        scaled = [value * (scales or {}).get(name, 1.0) for value in values]
        ratios = [a / b for a, b in zip(scaled, times[own], strict=True)]
        against = "" if name == own else f"   {spread(ratios, 'x')} of our own"
        print(f"  {name:<34} {spread(scaled)}{against}", flush=True)


def small(runs: int, clock: Clock) -> None:
    """One epoch of one head."""
    rows = random_rows(10_847, 64, 100, 500, 100)
    works = {
        "own epoch": lambda: fit_heads_on_rows(rows, [EPOCH]),
        "DataLoader and autograd": lambda: loader_loop(rows, EPOCH),
        "frozen ResNet-32 in every step": lambda: backbone_steps(EPOCH),
    }
    steps = -(-len(rows.labels) // EPOCH.batch_size)
    print(f"one epoch, {len(rows.labels):,} x 64, 100 classes, batch {EPOCH.batch_size}")
    show(
        in_turn(works, runs, clock), "own epoch",
        {"frozen ResNet-32 in every step": steps / BACKBONE_STEPS},
    )  # fmt: skip


def many(runs: int, clock: Clock) -> None:
    """32 heads in one pass, and one after the other."""
    rows = random_rows(10_847, 64, 100, 500, 100)
    kinds = {
        "seeds": [replace(EPOCH, seed=k) for k in range(32)],
        "settings": [replace(EPOCH, lr=0.1 + 0.001 * k) for k in range(32)],
        "4 seeds x 8 settings": [
            replace(EPOCH, seed=g, lr=0.1 + 0.001 * h) for g in range(4) for h in range(8)
        ],
    }
    kinds |= {
        f"{name}, bfloat16": [replace(config, precision="bfloat16") for config in configs]
        for name, configs in kinds.items()
    }
    for name, configs in kinds.items():
        works = {
            "one pass": lambda of=configs: fit_heads_on_rows(rows, of),
            "32 runs of one": lambda of=configs: [fit_heads_on_rows(rows, [c]) for c in of],
            "two bare products": lambda of=configs: bare_products(rows, of[0], len(of)),
            "DataLoader loop, times 32": lambda: loader_loop(rows, EPOCH),
        }
        print(f"one epoch of 32 heads, {name}")
        show(in_turn(works, runs, clock), "one pass", {"DataLoader loop, times 32": 32.0})  # type: ignore[arg-type]  # default arguments


def large(runs: int, clock: Clock, batch_size: int) -> None:
    """One epoch at ImageNet-LT's size."""
    rows = random_rows(115_846, 2048, 1000, 1280, 256)
    print(f"one epoch, 115,846 x 2048, 1000 classes, batch {batch_size}")
    for precision in ("float32", "bfloat16"):
        config = replace(EPOCH, batch_size=batch_size, lr=0.01)
        config = replace(config, precision=precision)
        works = {
            f"three products, {precision}": lambda of=config: bare_products(
                rows, of, of_features=True
            ),
            f"own epoch, {precision}": lambda of=config: fit_heads_on_rows(rows, [of]),
        }
        times = in_turn(works, runs, clock)
        show(times, f"own epoch, {precision}")


@click.command()
@click.option("--runs", default=5, show_default=True)
@click.option(
    "--part",
    "parts",
    multiple=True,
    default=("small", "many", "large"),
    show_default=True,
    type=click.Choice(["small", "many", "large"]),
)
@click.option("--batch-size", default=512, show_default=True, help="Of the large part.")
@click.option("--cpu-time", is_flag=True, help="Processor time, for a machine that others use.")
def main(runs: int, parts: tuple[str, ...], batch_size: int, cpu_time: bool) -> None:
    """Print all times side by side."""
    clock = time.process_time if cpu_time else time.perf_counter
    print(describe())
    print("processor time" if cpu_time else "wall time")
    if "small" in parts:
        small(runs, clock)
    if "many" in parts:
        many(runs, clock)
    if "large" in parts:
        large(runs, clock, batch_size)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(f"largest resident memory  {peak:,.0f} MiB")


if __name__ == "__main__":
    main()
