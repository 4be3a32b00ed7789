"""What the checks of training pairs and of test pairs share: finding files, looking at them in threads, and the report of their faults."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from datasets.landscape import BadFile
from utils.errors import UserError

WORKERS = min(8, os.cpu_count() or 1)
LISTED = 20  # offenders a message names when the full report goes to a file


def existing_folder(path):
    """The folder as an absolute path. Raises UserError where there is none."""
    folder = Path(os.path.abspath(os.path.expanduser(path)))  # so that "." has a name and a parent
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder." if folder.exists() else f"The folder {folder} does not exist.")
    return folder


def files_in(folder, suffixes):
    """Its visible files with one of these suffixes in any case, sorted; none where there is no such folder."""
    if not folder.is_dir():
        return []
    visible = (path for path in folder.iterdir() if not path.name.startswith("."))
    return sorted(path for path in visible if path.suffix.lower() in suffixes and path.is_file())


def files_by_stem(folder, suffixes):
    """{stem: file}, the faults of files whose stem is taken, and the names of what else lies there (hidden files aside)."""
    by_stem, taken = {}, []
    files = files_in(folder, suffixes)
    for path in files:
        if by_stem.setdefault(path.stem, path) != path:
            taken.append(BadFile(path, "second file of this name", f"beside {by_stem[path.stem].name}"))
    others = {path.name for path in folder.iterdir() if not path.name.startswith(".")} - {path.name for path in files}
    return by_stem, taken, [f"{folder.name}/{name}" for name in others]


def attempt(read, path, bad):
    """read(path), or None with the fault added to the list `bad`."""
    try:
        return read(path)
    except BadFile as fault:
        bad.append(fault)
        return None


def in_threads(function, items, workers, description):
    """[function(item) for each item], computed by `workers` threads under a progress bar that says `description`."""
    with ThreadPoolExecutor(workers) as pool:
        try:
            results = pool.map(function, items)
            return list(tqdm(results, description, len(items), unit="file", disable=None))  # no bar in a log file
        except BaseException:
            pool.shutdown(cancel_futures=True)  # else Ctrl-C would wait for all that has yet to begin
            raise


def mention(what, names):
    """Says on stderr which files something was done to, at most LISTED by name; nothing where there is none."""
    if names:
        shown = ", ".join(sorted(names)[:LISTED]) + (", ..." if len(names) > LISTED else "")
        print(f"{len(names)} {what}: {shown}", file=sys.stderr)


def report(head, bad, end, limit=None):
    """The faults grouped by kind between two sentences; with a limit, each kind gets its share of so many lines."""
    kinds = {}
    for fault in sorted(bad, key=lambda fault: (fault.fault, fault.path)):
        kinds.setdefault(fault.fault, []).append(f"  {fault.path.parent.name}/{fault.path.name}{fault.detail}")
    share = max(1, limit // len(kinds)) if limit else None
    lines = [f"{head}."]
    for kind, files in kinds.items():
        lines += [f"{kind}: {len(files)}", *files[:share]]
        if share and len(files) > share:
            lines.append("  ...")
    return "\n".join([*lines, end])
