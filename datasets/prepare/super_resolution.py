"""Pairs of photos in high and in half the resolution, as super-resolution networks are trained and measured on."""

from datasets.checks import WORKERS, attempt, files_in, in_threads, report
from datasets.degradation import halved
from datasets.landscape import MASKS, BadFile, read_image
from datasets.leave_out import read_leave_out
from datasets.prepare.output import own_folder
from datasets.test_pairs import find_photos
from utils.errors import UserError
from utils.image import write_png

SCALE = 2


def write_resolutions(input_path, output, leave_out=None):
    """Writes the photos below `input_path` (as in `find_photos`) and their halves, in the layout of published data sets (DIV2K, Set14):

        <output>/HR/<stem>.png                      the photo, cut at the right and at the bottom to sides that divide by 2
        <output>/LR_bicubic/X2/<stem>x2.png         its half, by Pillow's bicubic filter, which is widened to shrink

    What is there is kept, so that the command goes on where it was killed. Raises UserError where the folder holds anything else, and, when
    all others are written, naming every photo that cannot be read.
    """
    photos, bad = {}, []
    for path in find_photos(input_path):
        if photos.setdefault(path.stem, path) != path:
            bad.append(BadFile(path, "second file of this name", f"beside {photos[path.stem].name}"))
    if leave_out is not None:
        masks = files_in(next(iter(photos.values())).parent.with_name("labels"), MASKS)  # the list may name one without a photo
        left_out = read_leave_out(leave_out, photos.keys() | {path.stem for path in masks})
        photos = {stem: path for stem, path in photos.items() if stem not in left_out}
        bad = [fault for fault in bad if fault.path.stem in photos]
    folder = own_folder(output, {"HR", "LR_bicubic"})
    own_folder(folder / "LR_bicubic", {f"X{SCALE}"})
    high = own_folder(folder / "HR", {f"{stem}.png" for stem in photos})
    low = own_folder(folder / "LR_bicubic" / f"X{SCALE}", {low_name(stem) for stem in photos})
    there = {stem for stem in photos if (low / low_name(stem)).is_file()}  # the half is written last

    def write(stem):
        photo = attempt(read_image, photos[stem], bad)
        if photo is None:
            return
        height, width = (side // SCALE * SCALE for side in photo.shape[:2])
        if not height * width:
            bad.append(BadFile(photos[stem], "too small to be halved", "{1}x{0}".format(*photo.shape)))
            return
        photo = photo[:height, :width]
        write_png(high / f"{stem}.png", photo)
        write_png(low / low_name(stem), halved(photo))

    in_threads(write, sorted(photos.keys() - there), WORKERS, "writing pairs")
    if bad:
        raise UserError(report(f"{input_path}: {len(bad)} faults", bad, f"All other photos are in {folder}. Mend these, and run it again."))
    print(f"{len(photos)} pairs in {folder}, of which {len(there)} were there.")


def low_name(stem):
    return f"{stem}x{SCALE}.png"
