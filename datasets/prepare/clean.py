"""A report of pictures better left out of training, and the list of them that `MainTrain.py --leave_out` takes."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.checks import WORKERS, in_threads
from datasets.landscape import CLASSES, read_image, read_mask
from datasets.leave_out import write_leave_out
from datasets.pairs import examine_training_pairs
from datasets.prepare.faults import GREY, Print, borders, chroma, duplicates, print_of
from datasets.prepare.output import own_folder, print_command
from models.metrics.report import write_gallery
from utils.errors import UserError

LIST, PAGE, CACHE = "leave_out.txt", "report.html", "cache"
KINDS = {  # of findings, with their headings in the report, in its order
    "damaged": "Damaged",
    "grey": "Grey",
    "framed": "With a border",
    "duplicate": "There twice",
    "mask": "Masks that disagree with their photos",
}
HEAD = (
    "Pictures better left out of training, as `python3 -m datasets.prepare clean` found: a stem a line and, after a tab, why.",
    "Look at them in report.html, take out the lines of those to keep, and train with MainTrain.py --leave_out and this file.",
)
AGAINST = -0.3  # nats a pixel of evidence (models/metrics/mask_accuracy.py): a mask that has less disagrees with its photo


@dataclass
class Finding:
    """A reason to leave a picture out."""

    kind: str  # a key of KINDS
    text: str
    beside: dict[str, object]  # what to show beside the photo and the mask: {caption: a photo's path, or labels uint8 [H, W]}


@dataclass
class Look:
    """What is measured of a photo."""

    size: tuple[int, int]  # its pixels, the bytes of its file: of two files of one photo the larger has lost less
    chroma: float
    borders: dict[str, int]  # width in pixels by side
    print: Print


def write_report(root, output, judge=None):
    """Looks at all pairs of the training set at `root` and writes into the folder `output`

        leave_out.txt       stems with reasons, to edit, and to give to MainTrain.py --leave_out
        report.html         the same pictures to look at: photo, mask, and the original or what the judge sees
        cache/              what the judge has seen, so that the command goes on where it was killed

    judge: the folder of a run that has one; without it no mask is judged. Raises UserError, also where `output` has a list already: it may
    have been edited.
    """
    folder = own_folder(output, {LIST, PAGE, CACHE})
    if (folder / LIST).exists():
        raise UserError(f"{folder / LIST} is there already, and may have been edited: give another folder as --output_path, or remove it.")
    set_folder, pairs, bad = examine_training_pairs(root)
    count = len({pair.stem for pair in pairs} | {fault.path.stem for fault in bad})
    pairs = [pair for pair in pairs if pair.stem not in {fault.path.stem for fault in bad}]
    findings = find(pairs, bad, judge, folder / CACHE)

    counts = {kind: sum(finding.kind == kind for found in findings.values() for finding in found) for kind in KINDS}
    facts = {"pairs": f"{count} of {set_folder}", "better left out": str(len(findings))}
    facts |= {"judge": str(judge) if judge else "none, so that no mask was judged"}
    sections = {f"{heading} ({counts[kind]})": cards(kind, pairs, findings) for kind, heading in KINDS.items() if counts[kind]}
    write_gallery(folder / PAGE, "Pictures better left out", facts, sections)
    write_leave_out(folder / LIST, {stem: "; ".join(finding.text for finding in found) for stem, found in findings.items()}, HEAD)
    summary = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count) or "nothing"
    print(f"{count} pairs of {set_folder}: {len(findings)} better left out ({summary}).")
    print(f"Look at {folder / PAGE}, edit {folder / LIST}, and train with")
    print_command("MainTrain.py", "--input_path", root, "--leave_out", folder / LIST)


def find(pairs, bad, judge, cache):
    """{stem: list of Finding} of sound pairs and of the BadFiles `bad`; judge: as in `write_report`; cache: its folder."""
    findings = {}

    def add(stem, kind, text, beside=None):
        findings.setdefault(stem, []).append(Finding(kind, text, beside or {}))

    for fault in bad:
        add(fault.path.stem, "damaged", f"damaged: {fault.path.parent.name}/{fault.path.name}, {fault.fault}{fault.detail}")
    if judge is not None:
        for pair, text, labels in disagreements(pairs, judge, cache):
            add(pair.stem, "mask", text, {"the judge's": labels})
    looks = dict(zip((pair.stem for pair in pairs), in_threads(look_at, pairs, WORKERS, "looking at photos"), strict=True))
    for stem, look in looks.items():
        if look.chroma < GREY:
            add(stem, "grey", f"grey: chroma {look.chroma:.1f}")
        if look.borders:
            add(stem, "framed", f"framed: {', '.join(f'{side} {width}' for side, width in look.borders.items())} pixels")
    images = {pair.stem: pair.image for pair in pairs}
    for stem, original, mirrored in superfluous(looks, set(findings)):
        add(stem, "duplicate", f"duplicate: {'mirrored, ' if mirrored else ''}of {original}", {original: images[original]})
    return findings


def look_at(pair):
    photo = read_image(pair.image)
    return Look((photo.shape[0] * photo.shape[1], pair.image.stat().st_size), chroma(photo), borders(photo), print_of(photo))


def superfluous(looks, faulty):
    """(stem, the original's stem, mirrored) of each photo that is there again. One of each group stays: without other faults, the largest.

    looks: {stem: Look}. faulty: stems that something else is wrong with.
    """
    stems = list(looks)
    same, near = {stem: {stem} for stem in stems}, {}
    for i, j, mirrored in duplicates([look.print for look in looks.values()]):
        near[stems[i], stems[j]] = near[stems[j], stems[i]] = mirrored
        same[stems[i]] |= same[stems[j]]
        for stem in same[stems[i]]:
            same[stem] = same[stems[i]]
    for group in {id(group): group for group in same.values()}.values():
        original = max(sorted(group), key=lambda stem: (stem not in faulty, looks[stem].size))
        for stem in sorted(group - {original}):
            yield stem, original, near.get((stem, original), False)


def disagreements(pairs, judge, cache):
    """(pair, a sentence, labels uint8 [h, w]) of each pair against whose mask speaks what the judge of a run sees, worst first."""
    from utils import jittor_setup  # noqa: F401  (only here, since Jittor compiles for a while; and before what imports it)

    # isort: split
    from models.metrics.mask_accuracy import evidence, load_judge
    from models.metrics.pictures import seen_by
    from models.systems import SYSTEMS
    from models.training.run import read_run

    judge = load_judge(read_run(Path(judge).resolve(), SYSTEMS))
    seen = seen_by(judge, [pair.image for pair in pairs], [pair.mask for pair in pairs], judge.size, cache)
    confusions = seen.column("confusion").astype(np.int64)  # [N, 29, 29]
    agreement, values = np.trace(confusions, axis1=1, axis2=2) / confusions.sum(axis=(1, 2)), evidence(confusions)
    print(f"The judge agrees with {agreement.mean():.1%} of the masks' pixels (in its validation: {judge.held_out_accuracy:.1%}).")
    for i in np.argsort(values, kind="stable"):
        if values[i] < AGAINST:
            wrong = confusions[i] * ~np.eye(len(CLASSES), dtype=bool)
            asked, found = np.unravel_index(wrong.argmax(), wrong.shape)
            most = f"{wrong.max() / confusions[i].sum():.0%} of its pixels are {CLASSES[asked]}, which the judge sees as {CLASSES[found]}"
            yield pairs[i], f"mask: evidence {values[i]:.2f}; {most}", seen[i]["labels"]


def cards(kind, pairs, findings):
    """The pictures of the page with a finding of this kind; damaged ones by their names alone."""
    pairs = {pair.stem: pair for pair in pairs}
    for stem, found in findings.items():
        for finding in (finding for finding in found if finding.kind == kind):
            pictures = {}
            if stem in pairs:
                pictures = {"photo": read_image(pairs[stem].image), "mask": read_mask(pairs[stem].mask)}
                pictures |= {caption: read_image(other) if isinstance(other, Path) else other for caption, other in finding.beside.items()}
            yield {"stem": stem, "note": finding.text, "pictures": pictures}
