"""Lists of pictures to leave out of training: a stem a line and, after a tab, why.

    # whatever begins with a number sign and a space is for people
    train_00017	framed: black, left 4, right 5 pixels

`python3 -m datasets.prepare clean` writes such a list, people edit it, and `--leave_out` takes it.
"""

import re

from utils.errors import UserError
from utils.files import atomic_write

LISTED = 20  # stems that an error names


def write_leave_out(path, reasons, head):
    """Writes the stems with their reasons, {stem: text}, below the lines of text `head`; raises as `atomic_write` does."""
    lines = [f"# {line}" for line in head] + [f"{stem}\t{' '.join(reason.split())}" for stem, reason in sorted(reasons.items())]
    with atomic_write(path) as file:
        file.write("".join(f"{line}\n" for line in lines).encode(errors="surrogateescape"))  # names may be no UTF-8


def read_leave_out(path, stems):
    """The set of those of `stems` that the list names. A line may also be a file's name, with its ending.

    Raises UserError where the list cannot be read, naming all lines that are no stem, or where nothing would be left.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise UserError(f"{path}, the list of pictures to leave out, cannot be read: {error.strerror}.") from error
    names = [line.partition("\t")[0].strip() for line in text.split("\n") if not line.startswith("# ")]
    names = [name for name in names if name not in ("", "#")]
    found = {name if name in stems else without_ending(name) for name in names}
    unknown = sorted(found - stems)
    if unknown:
        shown = ", ".join(unknown[:LISTED]) + (", ..." if len(unknown) > LISTED else "")
        shown = shown.encode(errors="backslashreplace").decode()
        raise UserError(f"{path} names {len(unknown)} pictures that there are not: {shown}. Take these lines out, or give another list.")
    if found == stems:
        raise UserError(f"{path} leaves out all {len(stems)} pictures: nothing is left. Take lines out of it.")
    return found


def without_ending(name):
    """A picture's name without .jpg, .jpeg or .png, where it ends so (a stem may have dots itself)."""
    return re.sub(r"\.(jpe?g|png)$", "", name, flags=re.IGNORECASE)
