import argparse
from dataclasses import asdict, dataclass

import pytest

from utils.options import add_arguments, changed_though_fixed, faults, from_stored, given, option


@dataclass(frozen=True)
class Options:
    steps: int = option(10, "updates, 100 % of them", least=1)
    rate: float = option(0.5, "of something", least=0, most=1)
    channels: tuple[int, ...] = option((8, 16), "of each level", least=4, fixed=True)
    kind: str = option("a", "which", choices=("a", "b"), fixed=True)
    names: tuple[str, ...] = option((), "of files")


def parsed(*words):
    parser = argparse.ArgumentParser()
    add_arguments(parser.add_argument_group("these"), Options, "some_", {"small": Options(), "large": Options(steps=20)})
    return parser, parser.parse_args(words)


def test_what_the_command_line_says_and_nothing_else_is_given():
    _, args = parsed("--some_steps", "3", "--some_channels", "4", "8", "16")
    assert given(args, Options, "some_") == {"steps": 3, "channels": (4, 8, 16)}
    assert given(args, Options, "other_") == {}
    assert given(parsed("--some_names", "a", "b")[1], Options, "some_") == {"names": ("a", "b")}


def test_the_help_says_what_a_field_is_and_what_the_presets_have():
    text = " ".join(parsed()[0].format_help().split())
    assert "--some_steps int updates, 100 % of them (small 10, large 20)" in text
    assert "--some_channels int [int ...] of each level (8 16)" in text and "which, one of a b (a)" in text


@pytest.mark.parametrize("changed, words", [
    ({}, []),
    ({"rate": 1}, []),
    ({"names": ("a", "b")}, []),
    ({"names": "a"}, ["--some_names is a, but must be one or more values"]),
    ({"steps": 0}, ["--some_steps is 0, but must be at least 1"]),
    ({"rate": 1.5}, ["--some_rate is 1.5, but must be at most 1"]),
    ({"rate": float("nan")}, ["--some_rate is nan, but must be a finite number"]),
    ({"rate": float("inf")}, ["--some_rate is inf"]),
    ({"rate": 10**400}, ["must be a finite number"]),
    ({"channels": (8, 2)}, ["--some_channels is 8 2, but must be at least 4"]),
    ({"channels": ()}, ["--some_channels is , but must be one or more values"]),
    ({"channels": 8}, ["--some_channels is 8, but must be one or more values"]),
    ({"steps": "3"}, ["--some_steps is 3, but must be a whole number"]),
    ({"steps": True}, ["--some_steps is True, but must be a whole number"]),
    ({"steps": None}, ["--some_steps is None"]),
    ({"kind": "c", "steps": -1}, ["--some_kind is c: choose a, b", "--some_steps is -1"]),
])  # fmt: skip
def test_every_value_that_a_field_does_not_allow_is_named(changed, words):
    found = faults(Options(**changed), "some_")
    assert len(found) == len(words)
    assert all(any(word in fault for fault in found) for word in words), found


def test_options_come_back_from_json_and_what_it_does_not_have_keeps_its_value():
    stored = asdict(Options(steps=3, channels=(4, 5))) | {"channels": [4, 5], "names": []}
    assert from_stored(Options(), stored) == Options(steps=3, channels=(4, 5))
    assert from_stored(Options(steps=7), {"kind": "b"}) == Options(steps=7, kind="b")
    with pytest.raises(ValueError, match="unknown option colour"):
        from_stored(Options(), {"colour": 1})


def test_fixed_fields_that_change_are_named():
    assert changed_though_fixed(Options(), Options(steps=3, rate=1.0)) == []
    assert changed_though_fixed(Options(), Options(channels=(4,), kind="b")) == ["channels", "kind"]
