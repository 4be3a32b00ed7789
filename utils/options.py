"""Options as dataclasses: each field says what it means and what it may be; command lines and files of options follow from that.

    @dataclass(frozen=True)
    class Options:
        steps: int = option(100, "updates", least=1)

A tuple's bounds and choices are those of each of its values.
"""

import argparse
import sys
from collections.abc import Iterable
from dataclasses import Field, field, fields, replace
from typing import Any

KINDS = {int: "a whole number", float: "a finite number", str: "a word"}


def option(
    default: Any,
    text: str,
    *,
    least: float | None = None,
    most: float | None = None,
    choices: Iterable | None = None,
    fixed: bool = False,
) -> Any:
    """A field of options; `text` is what --help says of it. `fixed`: it cannot change once what it describes has begun."""
    return field(
        default=default,
        metadata={"help": text, "least": least, "most": most, "choices": None if choices is None else tuple(choices), "fixed": fixed},
    )


def several_and_kind(each: Field) -> tuple[bool, type]:
    """Whether a field holds several values, and their type. Several of which there are none by default are words, and may be none."""
    several = isinstance(each.default, tuple)
    if several and not each.default:
        return several, str
    return several, type(each.default[0] if several else each.default)


def show(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def argument_parser(description: str) -> argparse.ArgumentParser:
    """A parser whose help begins with the description as it is written, and whose errors do not list all that there is."""
    usage, layout = "%(prog)s [options]   (--help lists them)", argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(usage=usage, description=description, formatter_class=layout, allow_abbrev=False)


def add_arguments(group: argparse._ArgumentGroup, options: type, prefix: str, presets: dict[str, object]) -> None:
    """An argument --<prefix><field> for every field, without a default. The help shows the values in `presets`, options by name."""
    for each in fields(options):
        several, kind = several_and_kind(each)
        values = {name: show(getattr(preset, each.name)) for name, preset in presets.items()}
        alike = len({*values.values()}) == 1
        shown = next(iter(values.values())) if alike else ", ".join(f"{name} {value}" for name, value in values.items())
        choices = f", one of {show(each.metadata['choices'])}" if each.metadata["choices"] else ""
        group.add_argument(
            f"--{prefix}{each.name}",
            type=kind,
            nargs="+" if several else None,
            metavar=kind.__name__,
            help=f"{each.metadata['help']}{choices}{f' ({shown})' if shown else ''}".replace("%", "%%"),
        )


def given(args: argparse.Namespace, options: type, prefix: str) -> dict[str, object]:
    """The fields that the command line gave a value."""
    values = {each.name: getattr(args, f"{prefix}{each.name}", None) for each in fields(options)}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items() if value is not None}


def faults(options: object, prefix: str) -> list[str]:
    """What is wrong with the values of options, each said with the option's name, --<prefix><field>; empty where nothing is."""
    found = []
    for each in fields(options):
        value, name = getattr(options, each.name), f"--{prefix}{each.name}"
        several, kind = several_and_kind(each)
        values = value if several and isinstance(value, tuple) else (value,)
        enough = bool(values) or each.default == ()
        if several != isinstance(value, tuple) or not enough or not all(is_of(kind, one) for one in values):
            found.append(f"{name} is {show(value)}, but must be {'one or more values' if several else KINDS[kind]}")
            continue
        least, most, choices = (each.metadata[bound] for bound in ("least", "most", "choices"))
        if least is not None and not all(one >= least for one in values):
            found.append(f"{name} is {show(value)}, but must be at least {least}")
        if most is not None and not all(one <= most for one in values):
            found.append(f"{name} is {show(value)}, but must be at most {most}")
        if choices is not None and not all(one in choices for one in values):
            found.append(f"{name} is {show(value)}: choose {', '.join(map(str, choices))}")
    return found


def is_of(kind: type, value: object) -> bool:
    """Whether a value will do for a field of this type; a float must be finite."""
    if kind is float:  # a whole number from JSON may be larger than any float
        return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    return type(value) is kind


def from_stored(defaults: Any, stored: dict[str, object]) -> Any:
    """`defaults` with the values read from JSON. Raises ValueError naming fields that there are not."""
    unknown = sorted(stored.keys() - {each.name for each in fields(defaults)})
    if unknown:
        raise ValueError(f"unknown option {', '.join(unknown)}")
    return replace(defaults, **{name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()})


def changed_though_fixed(before: Any, after: Any) -> list[str]:
    """Names of the `fixed` fields in which two options differ."""
    return [each.name for each in fields(before) if each.metadata["fixed"] and getattr(before, each.name) != getattr(after, each.name)]
