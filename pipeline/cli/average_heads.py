"""`nolb average-heads`: several heads become one."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.cli.arguments import no_store
from pipeline.cli.options import PATH, json_option, overwrite_option
from pipeline.cli.output import Speaker, write_json
from pipeline.config import parse_weights


@click.command("average-heads")
@click.argument("heads", metavar="HEAD HEAD...", type=PATH, nargs=-1, required=True, callback=no_store)  # fmt: skip  # noqa: E501
@click.option("--out", type=PATH, required=True, help="Head to write, NAME.safetensors.")
@click.option("--weights", metavar="W,W[,W...]", help="Weights of the heads.  [default: equal]")
@overwrite_option
@json_option
def average_heads(
    heads: tuple[Path, ...],
    out: Path,
    weights: str | None,
    overwrite: bool,
    json_path: str | None,
) -> None:
    """Write one head whose logits are the mean of several heads' logits.

    An ensemble of linear heads that costs no more than one: of other seeds, losses and solvers, or
    with the old head from `fit-head --head logit-adjusted`. `predict` and `export` take it as any
    other. Test views are the first HEAD's, and of heads that were balanced those that they were
    balanced for.

    \b
    Example:
      nolb fit-head data.zarr --out new.safetensors
      nolb fit-head data.zarr --head logit-adjusted --out adjusted.safetensors
      nolb average-heads new.safetensors adjusted.safetensors --out mean.safetensors
      nolb evaluate data.zarr mean.safetensors
      nolb predict mean.safetensors photos/ --checkpoint model.pth
    """
    shares = None if weights is None else parse_weights(weights)

    from pipeline.extracting.identities import views_of_identity
    from pipeline.heads import average_heads, load_head, refuse_existing_head, save_head
    from pipeline.provenance import what_is_classified

    refuse_existing_head(out, overwrite=overwrite)
    if shares is not None and len(shares) == len(heads):  # as in `evaluate`, 0 leaves a head out
        heads = tuple(head for head, share in zip(heads, shares, strict=True) if share)
        shares = tuple(filter(None, shares))
    loaded = [load_head(head) for head in heads]
    mean = average_heads(loaded, shares)
    views = [views_of_identity(head.identity) for head in loaded]
    save_head(mean, out, overwrite=overwrite)
    speaker = Speaker(json_path)
    speaker.tell("averaged", f"{len(heads)} heads")
    balanced_for = mean.provenance.balanced_for
    if balanced_for is not None:
        classified = what_is_classified(balanced_for)
        speaker.note(f"Balanced on {classified}: it is scored and predicts on that.")
        both = zip(heads, loaded, strict=True)
        plain = [str(path) for path, one in both if one.provenance.balanced_for is None]
        if plain:
            speaker.note(
                f"{', '.join(plain)} {'was' if len(plain) == 1 else 'were'} not balanced, the "
                "others were: average the heads before balancing, then balance the average."
            )
    if balanced_for != 0 and any(view != views[0] for view in views):
        speaker.note(
            f"Their stores differ in test views; `nolb predict` takes those of {heads[0]}: "
            f"{views[0].describe() or 'none'}."
        )
    speaker.wrote(out)
    speaker.next(f"nolb evaluate STORE {out}")
    speaker.next(f"nolb predict {out} IMAGES --checkpoint FILE")
    content = {"head": str(out), "average_of": list(map(str, heads)), "weights": shares}
    write_json(content | {"balanced_for_test_views": balanced_for}, json_path)
