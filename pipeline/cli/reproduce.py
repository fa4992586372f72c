"""`nolb reproduce`: the paper's tables and figures on one's own checkpoints."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.cli.options import PATH, json_option, overwrite_option, settings_from
from pipeline.cli.output import Speaker, write_json
from pipeline.cli.sources import Reading, named_sources, reading_options
from pipeline.config import FEWEST_REPLICATES, ExtractConfig, FitConfig
from pipeline.reproduction.paper import METHODS, NAMES


@click.command()
@click.argument("what", metavar="WHAT", type=click.Choice(NAMES))
@click.option("--checkpoint", "checkpoints", metavar="[NAME=]FILE", multiple=True, help=f"A trained classifier; may be repeated. NAME is its method, such as {', '.join(METHODS)}; default: its checkpoint family's.")  # fmt: skip  # noqa: E501
@click.option("--store", "stores", metavar="[NAME=]STORE", multiple=True, help="A finished store instead of a checkpoint; NAME as for --checkpoint.")  # fmt: skip  # noqa: E501
@click.option("--train", metavar="SRC", help="Training images of the checkpoints, as for `nolb extract`.")  # fmt: skip  # noqa: E501
@click.option("--test", metavar="SRC|SHARE", help="Test images; same forms as --train.")
@click.option("--val", metavar="SRC|SHARE", help="Validation images, on which temperatures are chosen; same forms as --train.")  # fmt: skip  # noqa: E501
@reading_options()
@click.option("--model", "models", metavar="[NAME=]MODEL", multiple=True, help="Checkpoint family, if it cannot be detected from the file; see `nolb extract --model`.")  # fmt: skip  # noqa: E501
@click.option("--out", type=PATH, required=True, help="Folder for WHAT.md, WHAT.json, WHAT.png and the extracted stores, which are used again.")  # fmt: skip  # noqa: E501
@click.option("--seeds", type=click.IntRange(min=1), default=5, show_default=True, help="Heads fitted of each kind.")  # fmt: skip  # noqa: E501
@click.option("--replicates", type=click.IntRange(min=FEWEST_REPLICATES), default=1000, show_default=True, help="Bootstrap replicates over the test images.")  # fmt: skip  # noqa: E501
@click.option("--config", "recipe", metavar="NAME|FILE", help="Take settings of extraction and fit, but for the loss, from a recipe, by name or file.")  # fmt: skip  # noqa: E501
@overwrite_option
@json_option
def reproduce(
    what: str,
    checkpoints: tuple[str, ...],
    stores: tuple[str, ...],
    train: str | None,
    test: str | None,
    val: str | None,
    models: tuple[str, ...],
    out: Path,
    seeds: int,
    replicates: int,
    recipe: str | None,
    overwrite: bool,
    json_path: str | None,
    reading: Reading,
) -> None:
    """Run one of the paper's comparisons on your checkpoints, and judge its claims.

    WHAT is one of table3 to table9, figure1, figure2 and figure3.

    Prints your numbers beside the paper's, and which of its claims hold here, do not, or cannot be
    told. Table 9 needs a network trained with GML, called scratch: see `nolb pretrain`.

    \b
    Examples:
      nolb reproduce table3 --checkpoint CE=ce.pth --checkpoint PaCo=paco.pth.tar \\
        --train data/train --test data/test --out reproduced
      nolb reproduce table7 --store CE=data.zarr --seeds 10 --out reproduced
    """
    extract_config = settings_from("extract", ExtractConfig, recipe, {})
    fit_config = settings_from("fit_head", FitConfig, recipe, {})
    speaker = Speaker(json_path)

    from pipeline.reproduction.methods import Inputs, canonical
    from pipeline.reproduction.printing import terminal
    from pipeline.reproduction.run import reproduce

    named_models = (_named(text) for text in models)
    inputs = Inputs(
        checkpoints=[_file(text) for text in checkpoints],
        stores=[_file(text) for text in stores],
        sources=named_sources(train=train, test=test, val=val),
        options=reading.options(),
        split_seed=reading.split_seed,
        models={name and canonical(name): model for name, model in named_models},
    )
    result = reproduce(
        what, inputs, out, fit_config, extract_config, n_seeds=seeds, replicates=replicates,
        overwrite=overwrite, say=speaker.line, show_progress=True,
    )  # fmt: skip
    speaker.line()
    speaker.show(terminal(result))
    speaker.wrote(*result.files)
    write_json(result.to_json(), json_path)


def _file(text: str) -> tuple[str | None, Path]:
    """Name and path of `[NAME=]PATH`; what is a path as a whole has no name."""
    if Path(text).exists():
        return None, Path(text)
    name, path = _named(text)
    return name, Path(path)


def _named(text: str) -> tuple[str | None, str]:
    """Name and value of `[NAME=]VALUE`; a name holds no slash, colon or comma."""
    name, equals, value = text.partition("=")
    if not equals or not name or not value or set(name) & set("/\\:,"):
        return None, text
    return name, value
