"""Options that commands share; those of a stage's settings are made from its dataclass."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import click

from pipeline.cli.output import is_json_of
from pipeline.config import ExtractConfig, build_config, field_help, typed, value_type
from pipeline.config.building import Config
from pipeline.files import Replaceable, refuse_existing
from pipeline.recipes import SECTIONS, load_recipe

Command = TypeVar("Command", bound=Callable[..., Any])

RUNNING = ("device", "workers")
"""Settings of an extraction that any run of a model over images has."""

PATH = click.Path(path_type=Path)
"""A path as text; whether something is there is for the library to say, in its own words."""


def settings_options(section: str) -> Callable[[Command], Command]:
    """Add `--config` and one option for each field of a stage's settings.

    The options default to "not given", so that a recipe can fill them; their help shows the
    dataclass's default.
    """
    settings = SECTIONS[section]
    hints = get_type_hints(settings, include_extras=True)
    helps = field_help(settings)

    def decorate(command: Command) -> Command:
        for field in reversed(dataclasses.fields(settings)):
            command = _option(field, value_type(hints[field.name]), helps[field.name])(command)
        return click.option(
            "--config",
            "recipe",
            metavar="NAME|FILE",
            help="Take settings from a recipe, by name or file; options given here come first.",
        )(command)

    return decorate


def settings_from(
    section: str, settings: type[Config], recipe: str | None, given: Mapping[str, Any]
) -> Config:
    """A stage's settings from the options given, the recipe named, and the defaults."""
    content = getattr(load_recipe(recipe), section) if recipe is not None else None
    return build_config(settings, content, **given)


def running_options(needs: str | None = None) -> Callable[[Command], Command]:
    """Add `--device` and `--workers` of `extract`, for commands that run a model over images.

    Args:
        needs: the option without which they have no effect, if there is one.
    """
    hints = get_type_hints(ExtractConfig, include_extras=True)
    helps = field_help(ExtractConfig)

    def decorate(command: Command) -> Command:
        for field in reversed(dataclasses.fields(ExtractConfig)):
            if field.name in RUNNING:
                text = helps[field.name]
                if needs is not None:
                    text = f"With {needs}: {text[0].lower()}{text[1:]}"
                command = _option(field, value_type(hints[field.name]), text)(command)
        return command

    return decorate


def named_by_hand(given: Mapping[str, Any]) -> list[str]:
    """The settings that the user named, and no recipe or default."""
    return [name for name, value in given.items() if value is not None]


def json_option(command: Command) -> Command:
    """Add `--json`, for programs that read the result."""
    return click.option(
        "--json",
        "json_path",
        metavar="FILE|-",
        callback=_new_json,
        help="Also write the result as JSON, to a file or (-) to standard output.",
    )(command)


def overwrite_option(command: Command) -> Command:
    """Add `--overwrite`; without it nothing that exists is touched."""
    # Eager: the options that name files ask for it while they are read.
    return click.option(
        "--overwrite", is_flag=True, is_eager=True, help="Replace the results that exist already."
    )(command)


def resume_option(text: str) -> Callable[[Command], Command]:
    """Add `--resume`, which goes on with what `--overwrite` would begin anew."""
    return click.option("--resume", is_flag=True, callback=_no_overwrite, help=text)


def _no_overwrite(ctx: click.Context, _option: click.Parameter, resume: bool) -> bool:
    """Refuse to go on and to begin anew at once."""
    if resume and ctx.params.get("overwrite"):
        raise click.UsageError("--resume and --overwrite contradict each other: give one.")
    return resume


def test_views_option(command: Command) -> Command:
    """Add `--test-views/--no-test-views`, for commands that score a split."""
    return click.option(
        "--test-views/--no-test-views",
        default=None,
        help="Classify the mean feature of each image and its test views, or the clean image "
        "alone.  [default: the mean, where the store has test views; for a head that was balanced "
        "on the clean image alone, that]",
    )(command)


def file_option(
    flag: str, text: str, replaceable: Replaceable | None = None
) -> Callable[[Command], Command]:
    """Add an option that names a file to write; what exists is refused before the work.

    Args:
        flag: the option.
        text: its help.
        replaceable: whether a file is one that `--overwrite` may replace; not given: any is.
    """

    def new_file(ctx: click.Context, _option: click.Parameter, path: Path | None) -> Path | None:
        if path is not None:
            overwrite = bool(ctx.params.get("overwrite"))
            refuse_existing(path, overwrite=overwrite, replaceable=replaceable)
        return path

    return click.option(flag, type=PATH, callback=new_file, help=text)


def _new_json(ctx: click.Context, _option: click.Parameter, path: str | None) -> str | None:
    """Likewise; only an earlier result of the same command is replaced."""
    if path is not None and path != "-":
        overwrite = bool(ctx.params.get("overwrite"))
        refuse_existing(path, overwrite=overwrite, replaceable=is_json_of(ctx))
    return path


def _option(field: dataclasses.Field[Any], hint: Any, text: str) -> Callable[[Command], Command]:
    """The click option of one field."""
    flag = "--" + field.name.replace("_", "-")
    shown = f"{text}  [default: {_shown_default(field.default, hint)}]"
    if hint is bool:
        return click.option(f"{flag}/--no-{flag[2:]}", field.name, default=None, help=shown)
    if get_origin(hint) is Literal:
        return click.option(flag, type=click.Choice(get_args(hint)), help=shown)
    how = typed(hint)
    if how is not None:
        return click.option(flag, metavar=how.metavar, help=shown)
    if get_origin(hint) is tuple:
        return click.option(flag, metavar="R,G,B", help=shown)
    return click.option(flag, type=hint, help=shown)


def _shown_default(value: Any, hint: Any) -> str:
    """A default as a user would type it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    how = typed(hint)
    if how is not None and value is not None:
        return how.shown(value)
    return "not set" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
