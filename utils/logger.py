"""The log of a run: JSON lines for programs, and the same numbers and pictures for TensorBoard."""

import errno
import json
import math
import os
import shutil
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np

from utils.errors import DiskError, UserError
from utils.files import atomic_write
from utils.image import encode


class RunLog:
    """Appends to `folder`/log.jsonl and to TensorBoard events in `folder`/tensorboard/`stage`.

    A line is {"step", "stage", "time" (seconds since 1970), the scalars}. A run going on from `resume_step` logs the
    steps after it once more, so this stage's lines beyond it are dropped first (0 starts the stage's log and events anew:
    on a disk that is full time and again, those of attempts that saved nothing would fill it).
    Raises DiskError when the disk is full, UserError when the folder cannot be written to.
    """

    def __init__(self, folder: str | Path, stage: str, resume_step: int = 0):
        self.folder, self.stage = Path(folder), stage
        path = self.folder / "log.jsonl"
        self.tensorboard = import_tensorboard()
        try:
            lines = read_log(path)
            damaged = (path.read_bytes().count(b"\n") if path.is_file() else 0) - len(lines)
            if damaged > 0:
                print(f"{path}: {damaged} lines that are damaged are left out.", file=sys.stderr)
            kept = [line for line in lines if line["stage"] != stage or line["step"] <= resume_step]
            with atomic_write(path) as file:
                file.write("".join(json.dumps(line) + "\n" for line in kept).encode())
            self.lines = open(path, "a", encoding="utf-8")  # noqa: SIM115  (open as long as the run lasts)
            if resume_step == 0:
                shutil.rmtree(self.folder / "tensorboard" / stage, ignore_errors=True)
            (self.folder / "tensorboard" / stage).mkdir(parents=True, exist_ok=True)
            # The file's name has the second it was opened in: with the process number, two runs do not share one.
            prefix = self.folder / "tensorboard" / stage / "events"
            self.events = self.tensorboard.EventsWriter(str(prefix), filename_suffix=f".{os.getpid()}")
        except OSError as error:
            raise self.unwritable(error) from error
        # TensorBoard hides what earlier files hold of this step and later ones.
        session = self.tensorboard.event_pb2.SessionLog(status=self.tensorboard.event_pb2.SessionLog.START)
        self.add_event(step=resume_step + 1, session_log=session)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Logs numbers by name. inf and nan become strings in the JSON line: JSON has no such numbers."""
        numbers = {name: float(value) for name, value in values.items()}
        line = {"step": step, "stage": self.stage, "time": round(time.time(), 3)}
        line |= {name: number if math.isfinite(number) else str(number) for name, number in numbers.items()}
        try:
            self.lines.write(json.dumps(line) + "\n")
            self.lines.flush()
        except OSError as error:
            raise self.unwritable(error) from error
        self.add_summary(step, [{"tag": name, "simple_value": number} for name, number in numbers.items()])

    def pictures(self, step: int, pictures: dict[str, np.ndarray]) -> None:
        """Shows uint8 RGB pictures [H, W, 3] by name in TensorBoard."""
        values = []
        for name, picture in pictures.items():
            height, width, _ = picture.shape
            jpeg = encode(picture, "JPEG", quality=90)
            image = {"height": height, "width": width, "colorspace": 3, "encoded_image_string": jpeg}
            values.append({"tag": name, "image": image})
        self.add_summary(step, values)

    def close(self) -> None:
        with suppress(OSError):  # of a full disk, said when it was written to: files try again what they have not got rid of
            self.lines.close()
        with suppress(OSError):
            self.events.close()

    def add_summary(self, step: int, values: list[dict]) -> None:
        self.add_event(step=step, summary={"value": values})

    def add_event(self, **content: object) -> None:
        try:
            self.events.write_event(self.tensorboard.event_pb2.Event(wall_time=time.time(), **content))
            self.events.flush()
        except OSError as error:
            raise self.unwritable(error) from error

    def unwritable(self, error: OSError) -> UserError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return DiskError(f"disk full while logging to {self.folder}: free space and run the same command again")
        return UserError(f"cannot log to {self.folder} ({error.strerror}): give a folder that can be written to")


def read_log(path: str | Path) -> list[dict]:
    """The lines of a log, [] where there is none; a line that a killed run has cut short, or that is damaged, is left out."""
    path, lines = Path(path), []
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    for line in text.splitlines():
        with suppress(ValueError, RecursionError):
            lines.append(json.loads(line))
    return [line for line in lines if isinstance(line, dict) and type(line.get("step")) is int and isinstance(line.get("stage"), str)]


def import_tensorboard():
    """tensorboardX's module of event files, imported as if there were no `torch`.

    tensorboardX imports any `torch` it finds. Jittor's jtorch installs a package of that name, and merely importing it
    changes flags of Jittor under which training no longer learns. Only the writer of event files is used: the
    SummaryWriter around it writes from another thread, in which a full disk goes unnoticed and then blocks the run.
    """
    hidden = sys.modules.get("torch")
    sys.modules["torch"] = None
    try:
        from tensorboardX import event_file_writer
    finally:
        if hidden is None:
            del sys.modules["torch"]
        else:
            sys.modules["torch"] = hidden
    return event_file_writer
