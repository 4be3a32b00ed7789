"""What a run is: chosen, kept, read again, begun anew."""

import argparse
import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import MainTrain
from models.systems import SYSTEMS, painter_file
from models.training.run import System, begun_stages, choose_run, newest_run, read_run, restart, run_of, stages_of, write_run
from utils import parallel
from utils.checkpoint import save_training_state, write_json
from utils.errors import UserError
from utils.files import short_node_name

PRESETS = SYSTEMS["diffusion"].presets


@pytest.fixture
def chosen(tmp_path, monkeypatch):
    """What these words of a command line make of the run in `tmp_path`/run."""

    def choose(*words):
        monkeypatch.setattr(sys, "argv", ["MainTrain.py", "--run", str(tmp_path / "run"), *map(str, words)])
        args = MainTrain.parse_arguments()
        MainTrain.check_arguments(args)
        return choose_run(args, tmp_path / "run", args.system, SYSTEMS, default_preset="tiny")

    return choose


def begin(run, *stages):
    """A run that has trained these stages a little."""
    write_run(run)
    for stage in stages:
        save_training_state(run.folder / "state" / stage, 3, {"w": np.zeros(2)}, {}, keep=2)
        for network in SYSTEMS[run.system].stage(stage).networks:
            for place in (run.folder, run.folder / "best"):
                write_json(place / network / "config.json", {})
        write_json(run.folder / "previews" / f"{stage}-00000003.png", {})
    write_json(run.folder / "best" / "best.json", {stage: {"step": 3, "value": 1.0} for stage in stages})
    (run.folder / "log.jsonl").write_text("".join(json.dumps({"step": 3, "stage": stage}) + "\n" for stage in stages))
    return run


def test_a_run_is_the_preset_and_what_the_command_line_says(chosen):
    run = chosen("--steps", 7, "--unet_steps", 9, "--vae_channels", 16, 16, 16, 16, "--ema", 0.5, "--seed", 3)
    assert (run.system, run.preset, run.seed) == ("diffusion", "tiny", 3)
    assert (run.options["vae"].steps, run.options["unet"].steps) == (7, 9)
    assert run.options["vae"].channels == (16, 16, 16, 16) and run.options["vae"].ema == run.options["unet"].ema == 0.5
    assert run.options["unet"].channels == PRESETS["tiny"]["unet"].channels
    assert chosen("--preset", "base").options == PRESETS["base"]
    only = chosen("--stage", "unet", "--steps", 7)
    assert (only.options["vae"].steps, only.options["unet"].steps) == (PRESETS["tiny"]["vae"].steps, 7)


def test_a_run_comes_back_as_it_was_written(chosen):
    run = begin(chosen("--unet_steps", 9, "--val_fraction", 0.2, "--accumulate", 3), "vae")
    assert read_run(run.folder, SYSTEMS) == run
    assert chosen() == run  # also how many micro-batches a step has
    assert chosen("--unet_lr", 0.5).options["unet"].steps == 9


def test_what_is_younger_than_a_run_takes_the_value_of_its_preset(chosen):
    """And not that of the largest one."""
    run = begin(chosen("--unet_steps", 9), "vae")
    path = run.folder / "run.json"
    stored = json.loads(path.read_text())
    del stored["stages"]["unet"]["warmup"], stored["stages"]["vae"]["channels"]
    path.write_text(json.dumps(stored))
    assert read_run(run.folder, SYSTEMS) == run


@pytest.mark.parametrize("change, words", [
    (lambda stored: stored["stages"]["vae"].update(colour=1), ["unknown option colour", "stage vae", "another version", "Nothing is lost"]),
    (lambda stored: stored["stages"]["vae"].update(steps="many"), ["--vae_steps is many"]),
    (lambda stored: stored["stages"]["vae"].update(width=100), ["--vae_width 100 is not a multiple"]),
    (lambda stored: stored["stages"].update(unet=[1]), ["stage unet"]),
    (lambda stored: stored.pop("seed"), ["seed missing or wrong"]),
    (lambda stored: stored.update(seed="one", stages=[]), ["stages, seed missing or wrong"]),
    (lambda stored: stored.update(system="weather"), ["system weather", "does not exist", "diffusion"]),
    (lambda stored: stored.update(preset="huge"), ["preset huge", "does not exist", "tiny"]),
])  # fmt: skip
def test_a_damaged_run_is_said_in_a_sentence(chosen, change, words):
    run = begin(chosen(), "vae")
    path = run.folder / "run.json"
    stored = json.loads(path.read_text())
    change(stored)
    path.write_text(json.dumps(stored))
    with pytest.raises(UserError) as raised:
        read_run(run.folder, SYSTEMS)
    assert all(word in str(raised.value) for word in (str(path), *words)), raised.value


def test_a_text_encoder_that_has_moved_is_named_and_what_to_do(chosen, tmp_path):
    run = begin(chosen("--unet_words", 1), "vae", "unet")
    unet = replace(run.options["unet"], text_encoder=str(tmp_path / "clip"))
    write_run(replace(run, options=run.options | {"unet": unet}))
    with pytest.raises(UserError, match=f"no folder {tmp_path / 'clip'}; .*put it back or change text_encoder in run.json"):
        read_run(run.folder, SYSTEMS)


@pytest.mark.parametrize("content", [None, "{", "[]", "{}"])
def test_a_file_that_is_no_run_is_said_in_a_sentence(chosen, content):
    run = begin(chosen(), "vae")
    (run.folder / "run.json").unlink()
    if content is not None:
        (run.folder / "run.json").write_text(content)
    with pytest.raises(UserError, match=str(run.folder / "run.json")):
        read_run(run.folder, SYSTEMS)
    assert chosen("--restart").options == PRESETS["tiny"]  # which needs nothing of it


def test_what_has_begun_keeps_its_networks_its_seed_and_its_split(chosen):
    begin(chosen(), "vae")
    for words, name in (
        (("--vae_channels", 16, 16, 16, 16), "vae_channels"), (("--seed", 1), "seed"), (("--val_fraction", 0.4), "val_fraction"),
        (("--preset", "small"), "vae_channels"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=f"changes what it cannot: .*{name}"):
            chosen(*words)
    assert chosen("--unet_channels", 64, 64, 64).options["unet"].channels == (64, 64, 64)  # which has not begun
    assert chosen("--restart", "--vae_channels", 16, 16, 16, 16).options["vae"].channels == (16, 16, 16, 16)


def test_the_command_line_says_more_than_what_published_weights_say_of_themselves(chosen, tmp_path):
    (tmp_path / "unet").mkdir()
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler" / "scheduler_config.json").write_text('{"beta_schedule": "scaled_linear", "prediction_type": "epsilon"}')
    begun = chosen("--init_unet", tmp_path / "unet").options["unet"]
    assert (begun.prediction_type, begun.zero_snr, begun.linear_start) == ("epsilon", 0, 2)
    own = ("--init_unet", tmp_path / "unet", "--unet_prediction_type", "sample", "--unet_zero_snr", 1)
    assert (chosen(*own).options["unet"].prediction_type, chosen(*own).options["unet"].zero_snr) == ("sample", 1)
    begin(chosen(*own), "unet")  # what has begun keeps its own, whatever the file says by now
    (tmp_path / "scheduler" / "scheduler_config.json").write_text("{")
    assert chosen("--init_unet", tmp_path / "unet").options["unet"].prediction_type == "sample"


def test_every_fault_of_a_command_is_named_at_once(chosen):
    with pytest.raises(UserError, match=r"--vae_lr is nan.*--unet_steps is 0.*--unet_noise_schedule is pink: choose linear"):
        chosen("--vae_lr", "nan", "--unet_steps", 0, "--unet_noise_schedule", "pink")
    with pytest.raises(UserError, match=r"--seed.*--val_fraction.*nowhere does not exist"):
        chosen("--seed", -1, "--val_fraction", 2, "--init_vae", "/nowhere")
    with pytest.raises(UserError, match="does not train stage vae"):
        chosen("--stage", "unet", "--init_vae", "/tmp")


def test_a_restart_keeps_the_data_the_seed_and_the_options_of_a_run(chosen, tmp_path):
    """What it throws away is what was trained: not to go on with other data than the user's is as bad as to lose it."""
    begin(chosen("--input_path", tmp_path, "--seed", 3, "--unet_steps", 9, "--preset", "small"), "vae", "unet")
    again = chosen("--restart")
    assert (again.input_path, again.seed, again.preset, again.options["unet"].steps) == (str(tmp_path), 3, "small", 9)
    assert chosen("--restart", "--seed", 4).seed == 4


def test_no_stage_may_have_options_that_the_run_could_not_be_read_with(chosen):
    with pytest.raises(UserError, match="--unet_lr is 0"):
        chosen("--stage", "vae", "--unet_lr", 0)


def test_a_system_that_does_not_exist_is_said_in_a_sentence(chosen):
    run = begin(chosen(), "vae")
    path = run.folder / "run.json"
    path.write_text(path.read_text().replace('"diffusion"', '"gan"'))
    with pytest.raises(UserError, match="names system gan, which does not exist"):
        chosen()


@pytest.mark.parametrize("words, named", [
    (("--seed", 2**31), "--seed"), (("--max_minutes", "nan"), "--max_minutes"), (("--max_minutes", -1), "--max_minutes"),
    *((("--run", run), "--run") for run in ("", ".", "..", "/")), (("--max_minutes", 0), "--max_minutes"),
    *((("--workers", workers), "--workers") for workers in (-1, 100_000)), (("--batch_size", 10**9), "--unet_batch_size"),
    (("--accumulate", 10**9), "--unet_accumulate"), (("--unet_zero_snr", 7), "--unet_zero_snr is 7: choose 0, 1"),
])  # fmt: skip
def test_numbers_that_make_no_sense_are_refused_before_anything_begins(chosen, words, named):
    with pytest.raises(UserError, match=named):
        chosen(*words)


@pytest.mark.parametrize("words, named", [
    (("--system", "sr", "--batch_size", 10**9), "--rcan_batch_size"), (("--system", "sr", "--rcan_width", 10**6), "--rcan_width"),
    (("--system", "lggan", "--batch_size", 10**9), "--lggan_batch_size"), (("--system", "lggan", "--height", 10**6), "--lggan_height"),
    (("--system", "text", "--style_batch_size", 10**9), "--style_batch_size"),
])  # fmt: skip
def test_stages_with_defaults_of_their_own_have_the_bounds_of_all(chosen, words, named):
    with pytest.raises(UserError, match=f"{named} is {words[-1]}, but must be at most"):
        chosen(*words)


def test_the_decoder_is_of_the_size_that_the_unet_paints_for_it(chosen):
    """It ended in a traceback, where the UNet's latents met photos of another size."""
    other = ("--decoder_width", 128, "--decoder_height", 128)
    with pytest.raises(UserError, match=r"--decoder_width 128, but the UNet's is 256: .*--decoder_height 128, but the UNet's is 192"):
        chosen(*other)
    assert chosen(*other, "--decoder_painted", 0).options["decoder"].size == (128, 128)


def test_networks_that_start_from_the_run_alone_start_from_no_other(chosen, tmp_path):
    for network in ("joint_vae", "joint_unet", "joint_conditioner", "joint_decoder"):
        with pytest.raises(SystemExit):
            chosen("--stage", "joint_decoder" if network == "joint_decoder" else "joint", f"--init_{network}", tmp_path)
    assert chosen("--stage", "control", "--init_control", tmp_path)


def test_the_judge_takes_sizes_that_its_cells_divide(chosen):
    with pytest.raises(UserError, match="--segformer_width 250 is not a multiple"):
        chosen("--system", "judge", "--width", 250)


def test_a_run_that_goes_on_with_other_threads_says_what_that_changes(chosen, monkeypatch, capsys):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    run = begin(chosen(), "vae")
    assert json.loads((run.folder / "run.json").read_text())["threads"] == 3
    chosen()
    assert "threads" not in capsys.readouterr().out
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert chosen().threads == 3
    assert "bit for bit" in (said := capsys.readouterr().out) and "only with as many threads (OMP_NUM_THREADS=3)" in said
    assert chosen("--restart").threads == 2 and "threads" not in capsys.readouterr().out
    monkeypatch.setattr(parallel, "SIZE", 2)  # which add up as one process does up to rounding, whatever their threads
    assert chosen().threads == 3 and "threads" not in capsys.readouterr().out


def test_what_a_killed_save_has_left_goes_when_training_begins_again(chosen):
    run = begin(chosen(), "vae")
    left = [
        run.folder / f".run.json.{short_node_name()}.{2**22 + 1}.tmp",
        run.folder / "previews" / f".a.png.{short_node_name()}.{2**22 + 1}.tmp",
        run.folder / ".incomplete" / "vae" / "config.json",
        run.folder / "best" / ".incomplete" / "vae" / "config.json",
    ]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("half")
    write_run(run)
    assert not any(path.exists() for path in left) and not (run.folder / ".incomplete").exists()


def test_a_file_is_no_run(tmp_path):
    (tmp_path / "README.md").write_text("")
    with pytest.raises(UserError, match=r"README\.md is not a run"):
        read_run(tmp_path / "README.md", SYSTEMS)


def test_a_run_may_be_called_best(tmp_path):
    (tmp_path / "best").mkdir()
    assert run_of(tmp_path / "run" / "best") == tmp_path / "run"
    (tmp_path / "best" / "run.json").write_text("{}")
    assert run_of(tmp_path / "best") == tmp_path / "best"


def test_a_run_of_another_system_is_left_alone(chosen):
    begin(chosen(), "vae")
    with pytest.raises(UserError, match="is a run of system diffusion"):
        chosen("--system", "judge")


def test_a_folder_that_is_no_run_is_not_trained_into(chosen, tmp_path):
    write_json(tmp_path / "run" / "vae" / "config.json", {})
    for words in ((), ("--restart",)):
        with pytest.raises(UserError, match="holds vae, but is not a run"):
            chosen(*words)


def test_networks_without_their_training_state_are_not_written_over(chosen):
    """Who has deleted state/ to save room must not lose the rest by giving the command again."""
    run = begin(chosen(), "vae", "unet")
    shutil.rmtree(run.folder / "state" / "unet")
    with pytest.raises(UserError, match=r"holds unet, conditioner.*, but not the training state"):
        chosen()
    assert chosen("--stage", "vae") and chosen("--restart")


def test_styles_that_were_killed_before_anything_was_learnt_go_on(chosen, tmp_path):
    write_run(chosen("--system", "text"))
    write_json(tmp_path / "run" / "style" / "01" / "latents" / "some.json", {})
    write_json(tmp_path / "run" / "style" / "01" / "best" / "adapter" / "config.json", {})  # a validation comes before the first save
    assert chosen("--stage", "style")
    write_json(tmp_path / "run" / "style" / "01" / "adapter" / "config.json", {})
    with pytest.raises(UserError, match=r"holds style, but not the training state"):
        chosen("--stage", "style")


def test_what_a_run_in_a_runs_folder_has_begun_is_not_its_own(chosen, tmp_path):
    run = begin(chosen(), "unet")
    begin(replace(run, folder=tmp_path / "run" / "further" / "other"), "vae")
    save_training_state(tmp_path / "run" / "style" / "01" / "state" / "style", 3, {"w": np.zeros(2)}, {}, keep=2)
    assert begun_stages(tmp_path / "run") == {"unet", "style"}


def test_training_states_without_their_run_are_not_gone_on_from(chosen):
    """A new seed and split over old weights."""
    run = begin(chosen(), "vae")
    (run.folder / "run.json").unlink()
    with pytest.raises(UserError, match=r"run\.json is missing, though stage vae is there"):
        chosen()
    with pytest.raises(UserError, match=r"run\.json is missing, though stage vae is there"):
        chosen("--restart", "--stage", "unet")  # which would stand on it
    assert chosen("--restart").seed == 0


@pytest.mark.parametrize(
    "content", ["", "null", "[1]", '{"vae": 1}', '{"vae": {"step": 1}}', '{"vae": {"step": 1, "value": "low"}}', "\xff", "[" * 9999]
)
def test_a_damaged_list_of_the_best_is_said_before_training(chosen, content):
    """And not when a validation has been waited for, whose weights it would let take the place of better ones."""
    run = begin(chosen(), "vae", "unet")
    path = run.folder / "best" / "best.json"
    path.write_bytes(content.encode("latin-1"))
    for words in ((), ("--restart", "--stage", "unet")):
        with pytest.raises(UserError, match=f"{path} is damaged .*put it back, or remove it"):
            chosen(*words)
    restart(chosen("--restart"), SYSTEMS["diffusion"], ["vae"])  # which needs nothing of it
    assert json.loads(path.read_text()) == {}
    begin(run, "vae")
    path.unlink()
    assert chosen() == run


@pytest.mark.parametrize("stages, gone, left", [
    (["vae"], {"vae", "unet", "conditioner"}, set()),
    (["unet"], {"unet", "conditioner"}, {"vae"}),
])  # fmt: skip
def test_a_restart_leaves_nothing_of_the_stages_and_of_those_that_build_on_them(chosen, stages, gone, left):
    """What would be painted with, in the run and in its `best`, least of all."""
    run = begin(chosen(), "vae", "unet")
    (run.folder / "mine.txt").write_text("kept")
    restart(run, SYSTEMS["diffusion"], stages)
    folders = {path.name for path in run.folder.iterdir()} | {path.name for path in (run.folder / "best").iterdir()}
    assert not gone & folders and left <= folders and "mine.txt" in folders
    assert {path.name for path in (run.folder / "state").iterdir()} == left
    assert {*json.loads((run.folder / "best" / "best.json").read_text())} == left
    assert {json.loads(line)["stage"] for line in (run.folder / "log.jsonl").read_text().splitlines()} == left
    assert {path.name.split("-")[0] for path in (run.folder / "previews").iterdir()} == left


def test_what_builds_on_a_stage_is_found_all_the_way():
    def stage(name, *builds_on):
        return type(name, (), {"name": name, "builds_on": builds_on})

    stages = (stage("vae"), stage("unet", "vae"), stage("judge"), stage("control", "unet"), stage("style", "control"))
    system = System(stages, None, {}, optional=("control", "style"))
    assert system.following(["vae"]) == ["vae", "unet", "control", "style"]
    assert system.following(["control"]) == ["control", "style"]
    assert system.following(["judge"]) == ["judge"]
    assert stages_of(argparse.Namespace(stage=None), system) == ["vae", "unet", "judge"]  # what is optional, only when it is named
    assert stages_of(argparse.Namespace(stage="style"), system) == ["style"]


def test_the_newest_run_that_has_a_file_is_found(tmp_path):
    assert newest_run(tmp_path, lambda run: run / "unet" / "config.json") is None
    for age, name in enumerate(("new", "old", "unfinished")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text("{}")
        if name != "unfinished":
            write_json(tmp_path / name / "unet" / "config.json", {})
            path: Path = tmp_path / name / "unet" / "config.json"
            os.utime(path, (1000 - age, 1000 - age))
    assert newest_run(tmp_path, lambda run: run / "unet" / "config.json") == tmp_path / "new"


def test_a_run_that_cannot_be_read_does_not_hide_the_others(chosen, tmp_path):
    run = begin(chosen(), "vae", "unet")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "run.json").write_text('{"preset": "tiny"}')
    assert newest_run(tmp_path, painter_file) == run.folder
