"""What the commands that go on after a kill ask of the folder they write to, and how they say what to do next."""

import shlex
from pathlib import Path

from utils.errors import UserError
from utils.files import remove_leftovers, reporting_disk

LISTED = 5  # other things that an error names


def own_folder(path, own):
    """The folder `path`, made if need be. Raises UserError where it has anything visible in it but the names of `own`."""
    folder = Path(path)
    with reporting_disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder, "*")
        others = sorted(each.name for each in folder.iterdir() if each.name not in own and not each.name.startswith("."))
    if others:
        shown = ", ".join(others[:LISTED]) + (", ..." if len(others) > LISTED else "")
        raise UserError(f"{folder} holds other things ({shown}): give another folder as --output_path.")
    return folder


def print_command(*words):
    """Prints a command of ours, to be copied into a shell."""
    print(f"  {shlex.join(['python3', *map(str, words)])}")
