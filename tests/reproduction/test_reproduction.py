"""`nolb reproduce` from stores and checkpoints to files and verdicts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cache import Store, open_store
from pipeline.cli.reproduce import _named
from pipeline.config import FitConfig, SweepConfig
from pipeline.errors import ConfigError, EvaluationError, FitError
from pipeline.reproduction import paper
from pipeline.reproduction.fits import Method, hits_of
from pipeline.reproduction.methods import FAMILY_METHODS, Inputs, canonical
from pipeline.reproduction.run import reproduce
from pipeline.stages.evaluate import evaluate
from pipeline.stages.fit_head import fit_head
from pipeline.stages.sweep_temps import sweep_temps
from tests.commands import nolb, refused
from tests.measured_stores import planted_store
from tests.small_data import small_checkpoint, small_sources

COUNTS = (105, 30, 10, 5)
FIT = FitConfig(epochs=2, batch_size=32, lr=0.5)
MakeStore = Callable[..., Store]

pytestmark = pytest.mark.usefixtures("quick_pictures")


@pytest.fixture
def make_store(tmp_path: Path) -> MakeStore:
    """A store of four classes with a long tail, whose old head prefers the first class."""

    def make(name: str, *, val: bool = False, seed: int = 0, weight: object = None) -> Store:
        rng = np.random.default_rng(0)
        noise = np.random.default_rng(seed)  # the features differ, not the samples

        def split(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return np.eye(4)[labels] * 2 + noise.normal(size=(len(labels), 4)), labels

        planted = {"train": split(np.repeat(np.arange(4), COUNTS))}
        planted["test"] = split(rng.integers(0, 4, 60))
        if val:
            planted["val"] = split(np.arange(40) % 4)
        folder = tmp_path / name
        folder.mkdir()
        old = np.diag([3.0, 1, 0.5, 0.2]) if weight is None else weight
        return planted_store(folder, planted, weight=old, checkpoint=f"{seed}" * 64)

    return make


def stores(*pairs: tuple[str | None, Store]) -> Inputs:
    return Inputs(stores=[(name, Path(store.path)) for name, store in pairs])


@pytest.mark.parametrize("what", [name for name in paper.NAMES if name != "table9"])
def test_every_table_and_figure(what: str, make_store: MakeStore, tmp_path: Path) -> None:
    store, out = make_store("ce", val=True), tmp_path / "out"
    result = reproduce(what, stores(("CE", store)), out, FIT, n_seeds=2, replicates=100)
    assert {path.name for path in result.files} == {path.name for path in out.iterdir()}
    assert (out / f"{what}.png").is_file() == what.startswith("figure")
    content = json.loads((out / f"{what}.json").read_text())
    assert [row["label"] for row in content["rows"]] == [row.label for row in result.rows]
    assert len(content["findings"]) == len(result.findings) > 0
    text = (out / f"{what}.md").read_text()
    assert text.startswith(f"# {result.experiment.table.name}: ")
    for row in result.rows:
        assert row.label in text
        if row.paper is not None:
            assert f"{row.paper.values['harmonic_mean']:.2f}" in text
    for finding in result.findings:
        assert finding.verdict in text
    assert "compare the claims, not the numbers" in text  # four classes are not the paper's


def test_table_9_beside_a_published_method(make_store: MakeStore, tmp_path: Path) -> None:
    both = stores(("scratch", make_store("a")), ("ce", make_store("b", seed=1)))
    result = reproduce("table9", both, tmp_path / "out", FIT, n_seeds=2, replicates=100)
    measured = {row.label for row in result.rows if row.measured is not None}
    assert measured == {"CE + GML", paper.SCRATCH_LABEL}
    assert result.methods == ("scratch", "CE")
    (scratch,) = [row for row in result.rows if row.label == paper.SCRATCH_LABEL]
    assert scratch.measured is not None
    assert scratch.measured["harmonic_mean"].seeds is None


def test_every_classifier_is_the_one_that_its_name_says(make_store: MakeStore) -> None:
    store = make_store("ce", val=True)
    kinds = ("old", "gml", "ensemble", "on-val", "pairs", "plain", "resampled")
    hits = hits_of(Method("CE", store), kinds, FIT, 2)
    assert 100 * hits["CE"].mean() == pytest.approx(evaluate(store).accuracy)
    for k in range(2):
        head = fit_head(store, FitConfig(epochs=2, batch_size=32, lr=0.5, seed=k)).head
        chosen = sweep_temps(store, head, SweepConfig(split="val", replicates=0)).chosen
        expected = {
            paper.label_gml("CE"): evaluate(store, head),
            paper.label_ensemble("CE"): evaluate(store, head, t_old=1, t_new=1),
            paper.label_on_val("CE"): evaluate(store, head, t_old=chosen[0], t_new=chosen[1]),
        } | {
            paper.label_at("CE", a, b): evaluate(store, head, t_old=a, t_new=b)
            for a, b in paper.PAIRS
        }
        for label, scores in expected.items():
            assert 100 * hits[label][k].mean() == pytest.approx(scores.accuracy), label
    for label, sampler in (
        (paper.label_plain("CE"), "instance"), (paper.label_resampled("CE"), "class-balanced"),
    ):  # fmt: skip
        config = FitConfig(epochs=2, batch_size=32, lr=0.5, reweight=False, sampler=sampler)
        accuracy = evaluate(store, fit_head(store, config).head).accuracy
        assert 100 * hits[label][0].mean() == pytest.approx(accuracy), label


def test_mislas_gets_its_own_loss_too(make_store: MakeStore, tmp_path: Path) -> None:
    store = make_store("m")
    hits = hits_of(Method("MiSLAS", store), ("gml",), FIT, 1)
    config = FitConfig(epochs=2, batch_size=32, lr=0.5, loss="gml+label-aware-smoothing")
    accuracy = evaluate(store, fit_head(store, config).head).accuracy
    assert 100 * hits["MiSLAS + GML"].mean() == pytest.approx(accuracy)
    result = reproduce(
        "table5", stores(("mislas", store)), tmp_path / "out", FIT, n_seeds=1, replicates=100
    )
    assert "GML on MiSLAS is fitted with label-aware smoothing (Table 5)." in result.notes


def test_the_command_prints_ours_beside_the_paper_s(make_store: MakeStore, tmp_path: Path) -> None:
    store, out = make_store("ce"), tmp_path / "out"
    arguments = ("table6", "--store", f"ce={store.path}", "--seeds", 2, "--replicates", 100)
    result = nolb("reproduce", *arguments, "--out", out, "--json", tmp_path / "result.json")
    for text in ("paper 21.03*", "CE + GML", "Sec. 4.4.3, Table 6", "images (", "seeds ("):
        assert text in result.output
    assert "Add --checkpoint BSCE=FILE --checkpoint MiSLAS=FILE" in " ".join(result.output.split())
    content = json.loads((tmp_path / "result.json").read_text())
    assert content.pop("written_by") == "nolb reproduce"
    assert content == json.loads((out / "table6.json").read_text())
    assert content["seeds"] == [0, 1]
    told = refused("reproduce", *arguments, "--out", out)
    assert "exists already" in told
    nolb("reproduce", *arguments, "--out", out, "--overwrite")


def test_checkpoints_are_extracted_once(tmp_path: Path) -> None:
    small_sources(tmp_path, (3, 3, 3))
    checkpoint, out = small_checkpoint(tmp_path / "model.pth"), tmp_path / "out"
    data = ("--train", tmp_path / "train", "--test", tmp_path / "test", "--out", out)
    first = nolb("reproduce", "figure1", "--checkpoint", checkpoint, *data)
    assert "is called plain after its family plain" in first.output
    assert "--checkpoint NAME=" in first.output
    with open_store(out / "plain.zarr") as store:
        assert store.splits == ("train", "test")
    named = nolb("reproduce", "figure1", "--checkpoint", f"Ce={checkpoint}", *data, "--overwrite")
    assert "complete already" not in named.output
    again = nolb("reproduce", "figure1", "--checkpoint", f"CE={checkpoint}", *data, "--overwrite")
    assert f"{out / 'ce.zarr'} is complete already: used again" in again.output
    other = small_checkpoint(tmp_path / "other.pth", scale=1.5)
    refused = nolb(
        "reproduce", "figure1", "--checkpoint", f"CE={other}", *data, "--overwrite", code=1
    )
    assert "checkpoint" in refused.output
    wrong = small_checkpoint(tmp_path / "wrong.pth", n_classes=5)
    refused = nolb(
        "reproduce", "figure1", "--checkpoint", f"BSCE={wrong}", *data, "--overwrite", code=1
    )
    assert "is for 5 classes, but the training images have 3" in refused.output
    refused = nolb("reproduce", "figure1", "--checkpoint", checkpoint, "--model", "CE=x", *data,
                   "--overwrite", "--model", "paco", code=1)  # fmt: skip
    assert "paco" in refused.output


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("table2",), 2, "'table3'"),
        (("table3",), 2, "nothing to compare: give --checkpoint [NAME=]FILE"),
        (("table3", "--checkpoint", "CE=ce.pth"), 2, "give --train SRC and --test SRC"),
        (("table3", "--store", "CE=nothing.zarr"), 1, "nothing.zarr"),
        (("table3", "--store", "CE=x.zarr", "--config", "nothing"), 2, "No recipe is called"),
        (("table3", "--store", "CE=x.zarr", "--seeds", "0"), 2, "seeds"),
    ],
)
def test_what_is_missing_is_said(
    arguments: tuple[str, ...], code: int, message: str, tmp_path: Path
) -> None:
    result = nolb("reproduce", *arguments, "--out", tmp_path / "out", code=code)
    assert message in result.output
    assert "Traceback" not in result.output


def test_methods_that_cannot_be_compared_are_refused(make_store: MakeStore, tmp_path: Path) -> None:
    first, val, out = make_store("a"), make_store("b", val=True, seed=1), tmp_path / "out"

    def run(what: str, *pairs: tuple[str | None, Store]) -> None:
        reproduce(what, stores(*pairs), out, FIT, n_seeds=1, replicates=100)

    with pytest.raises(ConfigError, match=r"Make one with: nolb pretrain --loss gml"):
        run("table9", ("CE", first))
    with pytest.raises(ConfigError, match=r"add --checkpoint CE=FILE"):
        run("table9", ("scratch", first))
    with pytest.raises(ConfigError, match="Two methods are called CE"):
        run("figure1", ("CE", first), ("ce", val))
    with pytest.raises(ConfigError, match="nothing called 'table1'"):
        run("table1", ("CE", first))
    none = make_store("none", weight=np.zeros((4, 4)))
    with pytest.raises(EvaluationError, match="no old head"):
        run("figure1", ("CE", none))
    other = tmp_path / "other"
    other.mkdir()
    rows = (np.eye(4)[[0, 1, 2, 3, 0]], np.array([0, 1, 2, 3, 0]))
    fewer = planted_store(other, {"train": rows, "test": rows})
    with pytest.raises(EvaluationError, match="their training images differ"):
        run("figure1", ("CE", first), ("PaCo", fewer))
    assert not list(out.glob("*.json"))


def test_a_fit_that_diverges_names_the_remedy(make_store: MakeStore, tmp_path: Path) -> None:
    with pytest.raises(FitError, match=r"CE \+ GML: the fit of seed 0 diverged .* --config FILE"):
        reproduce(
            "table6", stores(("CE", make_store("a"))), tmp_path, FitConfig(lr=1e38), n_seeds=1
        )  # fmt: skip


@pytest.mark.parametrize("what", ["table3", "table4", "figure1", "figure3"])
def test_classes_without_test_images_are_in_no_number(what: str, tmp_path: Path) -> None:
    labels, some = np.repeat(np.arange(4), COUNTS), np.array([0, 0, 1, 1, 2])
    rng = np.random.default_rng(0)
    planted = {
        name: (np.eye(4)[rows] + rng.normal(size=(len(rows), 4)), rows)
        for name, rows in (("train", labels), ("test", some))
    }
    store = planted_store(tmp_path, planted, weight=np.diag([3.0, 1, 0.5, 0.2]))
    out = tmp_path / "out"
    reproduce(what, stores(("CE", store)), out, FIT, n_seeds=2, replicates=100)
    json.loads((out / f"{what}.json").read_text(), parse_constant=pytest.fail)


def test_one_seed_has_intervals_over_images_alone(make_store: MakeStore, tmp_path: Path) -> None:
    pair = ("CE", make_store("a"))
    result = reproduce("table8", stores(pair), tmp_path / "o", FIT, n_seeds=1, replicates=100)
    for finding in result.findings:
        # Of these images the number itself says it: more is above 0, nothing else is.
        assert finding.measured is not None
        assert finding.measured.seeds is None
        assert finding.on_these_images == (
            "holds" if finding.measured.value > 0 else "does not hold"
        )
    assert "over the choice of the test images" in result.notes[1]
    assert "seeds of the fit" not in result.notes[1]


def test_names() -> None:
    assert _named("CE=model.pth") == ("CE", "model.pth")
    assert _named("model.pth") == (None, "model.pth")
    assert _named("/data/a=b/model.pth") == (None, "/data/a=b/model.pth")
    assert _named("lade:ce") == (None, "lade:ce")
    assert (canonical("paco"), canonical("SCRATCH"), canonical("Mine")) == (
        "PaCo", "scratch", "Mine"
    )  # fmt: skip
    assert set(FAMILY_METHODS.values()) < set(paper.METHODS)
