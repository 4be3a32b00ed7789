"""What --best_of chooses by."""

from argparse import ArgumentParser

import numpy as np

from datasets.landscape import read_image, read_mask
from datasets.test_pairs import TestPair
from models.metrics.mask_accuracy import Judge
from models.metrics.score import total_score
from models.metrics.style import style_similarity

MERITS = ("total", "mask", "style")


def add_arguments(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("several pictures of each mask")
    group.add_argument("--best_of", type=int, default=1, metavar="N", help="paint each picture with N seeds and keep the best")
    group.add_argument("--best_by", choices=MERITS, default="total", help="best by this (default: %(default)s)")


def merit(pictures: np.ndarray, pairs: list[TestPair], by: str, judge: Judge | None, style_metric: str) -> np.ndarray:
    """Float [B], higher is better, of pictures uint8 [B, H, W, 3]: the total score, with what is not chosen by (`by`) held constant."""
    accuracy, style = np.ones(len(pairs)), np.zeros(len(pairs))
    size = pictures.shape[2:0:-1]
    if by != "style":
        labels = judge.labels(pictures, size)
        accuracy = np.array([(seen == read_mask(pair.mask, size)).mean() for seen, pair in zip(labels, pairs, strict=True)])
    if by != "mask":
        style = np.array([style_similarity(p, read_image(q.reference), style_metric) for p, q in zip(pictures, pairs, strict=True)])
    # FID belongs to a set, and the aesthetic score takes another network: both stand at what entries reach, so that mask and style weigh as
    # they do in the total.
    return np.array([total_score(a, aesthetic=0.5, style=s, FID=40) for a, s in zip(accuracy, style, strict=True)])
