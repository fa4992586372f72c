"""The files of a study: tables, JSON, a picture, and the heads that are worth keeping."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipeline.files import refuse_existing_in, whole_files
from pipeline.heads import save_head
from pipeline.studying.results import MEASURED, Study, Variant
from pipeline.writing import csv_text

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
        OutputError: as `refuse_existing_in`.
    """
    refuse_existing_in(folder, _names(folder), overwrite=overwrite)


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
        OutputError: as `whole_files`; what was there is untouched.
    """
    # matplotlib loads for half a second, and a study need not be saved
    from pipeline.figures.studies import study_dots

    # Heads of other seeds, too, would pass for this study's.
    with whole_files(folder, _names(folder), overwrite=overwrite) as made:
        texts = (_csv(_configuration_rows(study)), _csv(_seed_rows(study)), _json(study))
        for name, text in zip(FILES, texts, strict=False):
            (made / name).write_text(text, encoding="utf-8", newline="")
        study_dots(study, made / FILES[-1])
        heads = _save_heads(study, made)
    return [folder / path.name for path in heads]


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


def _names(folder: Path) -> list[str]:
    """The files of a study, with the heads that an earlier one left in the folder."""
    heads = (p for p in folder.glob("seed*.safetensors") if p.stem[len("seed") :].isdigit())
    return [*FILES, *sorted(path.name for path in heads)]


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
        for metric in MEASURED:
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
                metrics = {metric: getattr(scores, metric) for metric in MEASURED}
                yield {**_settings(study, variant), "seed": seed, "split": split, **metrics}


def _settings(study: Study, variant: Variant) -> dict[str, Any]:
    """All fields in which configurations differ; None for one that has no part in this one."""
    return {name: variant.settings.get(name) for name in study.fields}


def _csv(rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows as CSV; what is not there is an empty field."""
    listed = list(rows)
    return csv_text([*(list(row) for row in listed[:1]), *(row.values() for row in listed)])


def _json(study: Study) -> str:
    """Everything but the heads."""
    return json.dumps(study.to_json(), indent=2, allow_nan=False) + "\n"
