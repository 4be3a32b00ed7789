"""Photos with their masks, as generative adversarial networks are trained on."""

import numpy as np

from datasets.landscape import read_image, read_mask
from datasets.pairs import Pair
from datasets.transforms import class_pixels, random_crop, random_flip, to_array
from utils.image import resize

SHARE = 0.6, 1.0  # of each side of a photo that a reference shows


class PhotosWithMasks:
    """Photos and masks of a size (width, height), and everything random in a training example; mirrored by chance unless `whole`.

    reference: (width, height) of the reference that is part of an example, or None for none. noise: how many numbers of noise are part of
    it; pixels: how many places of each class at most.
    """

    def __init__(
        self,
        pairs: list[Pair],
        size: tuple[int, int],
        whole: bool,
        reference: tuple[int, int] | None = None,
        noise: int = 0,
        pixels: int = 0,
    ):
        self.pairs, self.size, self.whole = pairs, size, whole
        self.reference, self.noise, self.pixels = reference, noise, pixels

    def __len__(self) -> int:
        return len(self.pairs)

    def example(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """image: float32 [3, H, W] in −1..1; mask: uint8 [H, W]; reference: float32 [3, h, w], the photo as `seen_apart` shows it;
        z: float32 [noise], normal; pixels: int32 [29, pixels], as `class_pixels` draws them."""
        pair = self.pairs[index]
        photo, mask = read_image(pair.image, self.size), read_mask(pair.mask, self.size)
        image, flip = to_array(photo), not self.whole and rng.random() < 0.5
        if flip:
            image, mask = image[..., ::-1], mask[..., ::-1]
        example = {"image": np.ascontiguousarray(image), "mask": np.ascontiguousarray(mask)}
        if self.reference:
            example["reference"] = seen_apart(photo, self.reference, rng)
        if self.noise:
            example["z"] = rng.standard_normal(self.noise, np.float32)
        if self.pixels:
            example["pixels"] = class_pixels(mask, self.pixels, rng)
        return example


def seen_apart(photo: np.ndarray, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A photo as a reference, float32 [3, h, w]: a part of it of random place and shape, stretched to `size` = (w, h), mirrored by chance.

    It has the photo's style and cannot give its layout away.
    """
    channels = np.moveaxis(photo, -1, 0)
    height, width = (round(side * rng.uniform(*SHARE)) for side in photo.shape[:2])
    part = random_flip(random_crop(channels, height, width, rng), rng)
    return to_array(resize(np.ascontiguousarray(np.moveaxis(part, 0, -1)), size))
