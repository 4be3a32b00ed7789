import errno
import json
import struct
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from utils.errors import DiskError, UserError
from utils.logger import RunLog, import_tensorboard, read_log

ROOT = Path(__file__).resolve().parents[2]


def test_a_stage_that_begins_anew_leaves_no_events_of_before(tmp_path):
    """An attempt that saved nothing may have ended for want of room, which they take."""
    for resumed in (0, 0, 3):
        RunLog(tmp_path, "vae", resume_step=resumed).close()
        (events,) = [path for path in (tmp_path / "tensorboard" / "vae").iterdir() if path.stem != "kept"]
        if resumed == 0:
            kept = events.rename(events.with_name("kept.1"))
    assert kept.is_file()


def events_in(folder):
    """The events of every file in `folder`: a length (8 bytes), its checksum (4), the event, its checksum (4)."""
    event_type = import_tensorboard().event_pb2.Event
    for path in sorted(folder.glob("events*")):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            yield event_type.FromString(content[12 : 12 + length])
            content = content[16 + length :]


def test_a_line_and_an_event_for_each_step(tmp_path):
    log = RunLog(tmp_path, "vae")
    log.scalars(1, {"loss": np.float32(0.5), "psnr": 20})
    log.scalars(2, {"loss": float("nan"), "psnr": float("inf")})
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    first, second = (json.loads(line, parse_constant=pytest.fail) for line in lines)
    assert first.pop("time") > 1e9
    assert first == {"step": 1, "stage": "vae", "loss": 0.5, "psnr": 20.0}
    assert (second["loss"], second["psnr"]) == ("nan", "inf")

    log.pictures(2, {"preview": np.full((4, 6, 3), 200, np.uint8)})
    log.close()
    values = [(event.step, value) for event in events_in(tmp_path / "tensorboard" / "vae") for value in event.summary.value]
    assert [(step, value.tag) for step, value in values] == [
        (1, "loss"), (1, "psnr"), (2, "loss"), (2, "psnr"), (2, "preview")
    ]  # fmt: skip
    assert values[0][1].simple_value == 0.5
    assert (values[-1][1].image.width, values[-1][1].image.height) == (6, 4)
    assert values[-1][1].image.encoded_image_string.startswith(b"\xff\xd8")


def test_resuming_drops_the_lines_that_will_come_again(tmp_path):
    for stage in ("vae", "unet"):
        log = RunLog(tmp_path, stage)
        for step in range(1, 6):
            log.scalars(step, {"loss": step})
        log.close()
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write('{"step": 6, "sta')  # what a kill leaves

    log = RunLog(tmp_path, "unet", resume_step=3)
    log.scalars(4, {"loss": 40})
    log.close()
    lines = [(line["stage"], line["step"], line["loss"]) for line in read_log(tmp_path / "log.jsonl")]
    assert lines == [("vae", s, s) for s in range(1, 6)] + [("unet", s, s) for s in range(1, 4)] + [("unet", 4, 40)]
    starts = [event.step for event in events_in(tmp_path / "tensorboard" / "unet") if event.session_log.status == 1]
    assert starts[-1] == 4

    RunLog(tmp_path, "unet").close()
    assert {line["stage"] for line in read_log(tmp_path / "log.jsonl")} == {"vae"}


def test_importing_the_log_imports_no_torch(tmp_path):
    """jtorch's `torch`, merely imported, would stop training from learning; a `torch` that is in use stays in place."""
    program = """
import sys
from utils.logger import RunLog, import_tensorboard
log = RunLog(sys.argv[1], "vae")
log.scalars(1, {"loss": 1.0})
assert "tensorboardX" in sys.modules
assert not {"torch", "jtorch"} & {name.split(".")[0] for name in sys.modules}, "torch was imported"
sys.modules["torch"] = mark = object()
import_tensorboard()
assert sys.modules["torch"] is mark
"""
    subprocess.run([sys.executable, "-c", program, tmp_path], cwd=ROOT, check=True)


@pytest.mark.parametrize(
    "line", ["null", "[1]", "3", '{"step": 2}', '{"step": "two", "stage": "vae"}', '{"step": true, "stage": "vae"}', "[" * 9999]
)
def test_a_damaged_line_is_left_out_and_said(tmp_path, capsys, line):
    log = RunLog(tmp_path, "vae")
    log.scalars(1, {"loss": 1.0})
    log.close()
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write(f"{line}\n")
    assert [line["step"] for line in read_log(tmp_path / "log.jsonl")] == [1]
    RunLog(tmp_path, "vae", resume_step=1).close()
    assert f"{tmp_path / 'log.jsonl'}: 1 lines that are damaged" in capsys.readouterr().err
    assert [line["step"] for line in read_log(tmp_path / "log.jsonl")] == [1]


def test_a_disk_that_is_full_is_said_once(tmp_path):
    """What could not be written is tried again when a file is closed, which must not hide what was said."""
    log = RunLog(tmp_path, "vae")
    log.lines.close()
    log.lines = open("/dev/full", "a")  # noqa: SIM115
    with pytest.raises(DiskError, match="disk full while logging"), closing(log):
        log.scalars(1, {"loss": 1.0})


def test_a_full_disk_and_a_wrong_folder_are_told_in_a_sentence(tmp_path, monkeypatch):
    log = RunLog(tmp_path, "vae")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(log.events, "write_event", full)
    with pytest.raises(DiskError, match=f"disk full while logging to {tmp_path}"):
        log.scalars(1, {"loss": 1.0})
    log.close()
    with pytest.raises(UserError, match=r"cannot write .*log\.jsonl"):
        RunLog(tmp_path / "log.jsonl", "vae")
