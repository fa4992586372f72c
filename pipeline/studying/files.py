"""The files of a study: tables, JSON, a picture, and the heads that are worth keeping."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import OutputExistsError
from pipeline.heads import save_head
from pipeline.studying.results import METRICS, Study, Variant

FILES = ("study.csv", "seeds.csv", "study.json", "study.png")
"""A row for each configuration, a row for each head, everything, and the picture."""


def study_folder(out: str | Path) -> Path:
    """The folder of a study's files: `out` itself, and `head` where that is `head.safetensors`.

    So `--seeds 10` can be added to a command that wrote one head.
    """
    path = Path(out)
    return path.with_suffix("") if path.suffix == ".safetensors" else path


def refuse_existing_study(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder that holds a study already; a command asks before its work, not after it.

    Raises:
        OutputExistsError: if it does and `overwrite` is false, it is a file, or there is no folder
            for it.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputExistsError(f"{folder} is a file: give a folder for the study's results.")
    if not folder.parent.is_dir():
        raise OutputExistsError(f"There is no folder {folder.parent} for {folder.name}: make it.")
    present = [name for name in FILES if (folder / name).exists()]
    present += [path.name for path in _old_heads(folder)]
    if present and not overwrite:
        raise OutputExistsError(
            f"{folder} holds {', '.join(present[:4])} already: give another folder or --overwrite."
        )


def save_study(study: Study, folder: Path, overwrite: bool = False) -> list[Path]:
    """Write a study's files into a folder.

    These are `study.csv` with a row for each configuration, `seeds.csv` with a row for each head,
    `study.json`, the figure `study.png`, and `seed0.safetensors` and so on: the heads of the chosen
    configuration, or of the only one. Where several were compared and none was chosen there are no
    heads.

    Args:
        study: what `pipeline.study` returned.
        folder: made where it is missing; other files in it are left alone.
        overwrite: whether an earlier study there may be replaced, its heads too.

    Returns:
        The heads' paths, in the order of the seeds.

    Raises:
        OutputExistsError: if the folder holds a study and `overwrite` is false.
    """
    # matplotlib loads for half a second, and a study need not be saved
    from pipeline.figures.studies import study_dots

    refuse_existing_study(folder, overwrite=overwrite)
    folder.mkdir(exist_ok=True)
    # Everything is made first and moved last: a failure leaves what was there untouched.
    with tempfile.TemporaryDirectory(prefix=".study-", dir=folder) as temporary:
        made = Path(temporary)
        texts = (_csv(_configuration_rows(study)), _csv(_seed_rows(study)), _json(study))
        for name, text in zip(FILES, texts, strict=False):
            (made / name).write_text(text, encoding="utf-8", newline="")
        study_dots(study, made / FILES[-1])
        heads = _save_heads(study, made)
        for path in _old_heads(folder):  # heads of other seeds would pass for this study's
            path.unlink()
        for name in FILES:
            (made / name).replace(folder / name)
        return [path.replace(folder / path.name) for path in heads]


def _save_heads(study: Study, folder: Path) -> list[Path]:
    """Write the heads that are worth keeping."""
    if study.kept is None:
        return []
    paths = []
    for seed, head in zip(study.kept.seeds, study.kept.heads, strict=True):
        if head is not None:
            paths.append(folder / f"seed{seed}.safetensors")
            save_head(head, paths[-1])
    return paths


def _old_heads(folder: Path) -> list[Path]:
    """Heads that an earlier study left in the folder."""
    return sorted(p for p in folder.glob("seed*.safetensors") if p.stem[len("seed") :].isdigit())


def _configuration_rows(study: Study) -> Iterable[Mapping[str, Any]]:
    """A row for each configuration: its settings, and mean, deviation and interval of each metric.

    The chosen one's figures on `test` make one more row.
    """
    rows = []
    for h, variant in enumerate(study.variants):
        state = "diverged" if variant.n_diverged else "chosen" if h == study.chosen else ""
        rows.append((variant, study.split, state, variant.measured))
        if variant is study.kept and study.test is not None:
            rows.append((variant, "test", state, study.test))
    for variant, split, state, measured in rows:
        row = _settings(study, variant)
        row |= {"seeds": len(variant.seeds), "split": split, "state": state}
        for metric in METRICS:
            spread = {} if measured is None else measured.spread(metric).to_json()
            row |= {f"{metric}_{k}": spread.get(k) for k in ("mean", "deviation", "low", "high")}
        yield row


def _seed_rows(study: Study) -> Iterable[Mapping[str, Any]]:
    """A row for each head that was scored."""
    for variant in study.variants:
        splits = [(study.split, variant.measured)]
        if variant is study.kept:
            splits.append(("test", study.test))
        for split, measured in splits:
            if measured is None:
                continue
            for seed, scores in zip(variant.seeds, measured.scores, strict=True):
                metrics = {metric: getattr(scores, metric) for metric in METRICS}
                yield {**_settings(study, variant), "seed": seed, "split": split, **metrics}


def _settings(study: Study, variant: Variant) -> dict[str, Any]:
    """All fields in which configurations differ; None for one that has no part in this one."""
    return {name: variant.settings.get(name) for name in study.fields}


def _csv(rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows as CSV; what is not there is an empty field."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for k, row in enumerate(rows):
        if k == 0:
            writer.writerow(row)
        writer.writerow(f"{v:.10g}" if isinstance(v, float) else v for v in row.values())
    return text.getvalue()


def _json(study: Study) -> str:
    """Everything but the heads."""
    return json.dumps(study.to_json(), indent=2, allow_nan=False) + "\n"
