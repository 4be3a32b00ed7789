"""Pictures made larger by RCAN: of a painter that paints smaller than 512x384, and beyond 512x384."""

from argparse import ArgumentParser
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from datasets.landscape import read_image
from models.networks.pretrained import initialise, load_network
from models.networks.rcan import RCAN, RCANConfig, double
from models.training.run import Run
from utils.errors import UserError
from utils.files import remove_leftovers
from utils.image import resize, write_picture

SCALES = (2, 4, 8)  # of pictures that are written beside those of 512x384
LEAST_TILE = 64


@dataclass
class SuperResolution:
    network: RCAN
    tile: int  # pixels a side of the pieces that a picture is taken in; 0: all at once

    def doubled(self, picture: np.ndarray) -> np.ndarray:
        """uint8 [H, W, 3] → uint8 [2H, 2W, 3]."""
        return double(self.network, picture, self.tile)

    def enlarged(self, picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """The picture uint8 [H, W, 3] at `size` = (width, height): doubled until no side is shorter, then shrunk where it is larger."""
        while picture.shape[1] < size[0] or picture.shape[0] < size[1]:
            picture = self.doubled(picture)
        return resize(picture, size)


def add_arguments(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("super-resolution, by a run of system sr")
    group.add_argument("--use_sr", action="store_true", help="bring to 512x384 by RCAN, and not by a filter, what is painted smaller")
    group.add_argument("--scale", type=int, nargs="+", default=[], choices=SCALES, help="write larger ones too, in <output_path>-x<scale>/")
    group.add_argument("--sr_checkpoint", type=Path, help="the run, or a file of published weights (default: the newest run)")
    group.add_argument("--sr_tile", type=int, default=0, help="work in tiles of so many pixels a side, where memory is short; 0: at once")


def rcan_file(folder: Path) -> Path:
    """The file that a run has when pictures can be enlarged with it."""
    return folder / "best" / "rcan" / "config.json"


def rcan_of(run: Run) -> RCAN:
    """The network of highest PSNR of a run. Raises UserError where the run has none."""
    if "rcan" not in run.options:
        raise UserError(f"{run.folder} is a run of system {run.system}, which enlarges nothing: name one of system sr with --sr_checkpoint")
    return load_network(RCAN, RCANConfig, rcan_file(run.folder).parent)


def published_rcan(file: Path) -> RCAN:
    """The network of the published shape with weights from a file. Raises UserError where they are not its."""
    network = RCAN(RCANConfig())
    initialise(network, file)
    return network


def enlarge_files(files: list[Path], folder: Path, scales: list[int], super_resolution: SuperResolution, quiet: bool) -> None:
    """Writes each picture in `folder`, or further down in it, at these multiples of its size, a few of SCALES, to the place that `larger`
    gives it; under a progress bar unless `quiet`.

    A larger one that is there is kept, unless its picture has been painted again since. It is made from the file, so that it shows what the
    file shows, whoever painted that and however often this is stopped; JPEG's faults at the quality that is written are those RCAN has
    learnt to see through. Each doubling starts from the last ("continuous super-resolution").
    """
    for written in {larger(file, scale, folder).parent for file in files for scale in scales}:
        remove_leftovers(written, "*")
    for file in tqdm(files, desc="enlarging", unit="picture", dynamic_ncols=True, disable=quiet):
        wanted = [scale for scale in scales if not is_up_to_date(larger(file, scale, folder), file)]
        if not wanted:
            continue
        picture = read_image(file)
        for scale in SCALES[: 1 + SCALES.index(max(wanted))]:
            picture = super_resolution.doubled(picture)
            if scale in wanted:
                write_picture(larger(file, scale, folder), picture)


def larger(file: Path, scale: int, folder: Path) -> Path:
    """Where the larger version of a picture in `folder` goes: to the same place in a folder beside that, <folder>-x<scale>."""
    return folder.with_name(f"{folder.name}-x{scale}") / file.relative_to(folder)


def is_up_to_date(made: Path, source: Path) -> bool:
    return made.is_file() and made.stat().st_mtime_ns >= source.stat().st_mtime_ns
