"""The competition's score of a folder of pictures, and what belongs to it.

Each metric is a function of the pictures (pictures.py) that returns a `Metric`; METRICS lists them.
"""

import math
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from datasets.landscape import open_picture, read_image, read_mask
from datasets.test_pairs import TestPair, check_results, find_photos
from models.metrics.aesthetic import aesthetic, load_aesthetic
from models.metrics.fid import bias_note, frechet_distance, kernel_distance, kernel_distance_of_all, moments
from models.metrics.mask_accuracy import Judge, by_class
from models.metrics.pictures import BATCH, PREDICTORS, SMALL, Pictures, read_all, short
from models.metrics.reconstruction import psnr, ssim
from models.metrics.report import write_report
from models.metrics.style import STYLE_METRICS, style_parts
from models.networks.clip import clip_i, clip_t
from models.networks.lpips import load_lpips, lpips
from models.networks.weights import ALEXNET, ALEXNET_LPIPS, MissingWeights, find_any, find_weights
from models.painters.record import ways_of
from utils.checkpoint import write_json
from utils.files import remove_leftovers
from utils.rows import Rows, digest, measured

COLUMNS = ("mask accuracy", "aesthetic", "style", "FID", "total")
PUBLISHED = [  # of the third contest, and of the second, whose total had no style and whose aesthetic score was 0..10
    {"entry": entry} | {name: value for name, value in zip(COLUMNS, values, strict=True) if value is not None}
    for entry, *values in (
        ("3rd contest, SPADE with a VAE style encoder", 0.9059, 0.5081, 0.5154, 40.31, 0.5684),
        ("3rd contest, the same with photo style transfer (best published)", 0.9055, 0.5058, 0.6145, 39.41, 0.5852),
        ("2nd contest, progressive SPADE (rank 1)", None, None, None, 26.8, 0.5676),
        ("2nd contest, LGGAN+SAU, RCAN x2", 0.9037, 0.49004, None, 42.77, 0.4800),
        ("2nd contest, LGGAN+SAU, bicubic", 0.9028, 0.49005, None, 44.62, 0.4712),
        ("2nd contest, pix2pix", 0.7847, 0.45244, None, 107.5, 0.1775),
    )
]

TERMS = {  # of the total, within the brackets: weight, and the term from its metric
    "aesthetic": (0.2, lambda aesthetic: aesthetic),
    "style": (0.3, lambda style: 0.5 * style + 0.5),
    "FID": (0.5, lambda fid: (100 - min(fid, 100)) / 100),
}


def add_arguments(parser: ArgumentParser, weights: Path) -> None:
    """`weights`: the folder of published networks unless another is named."""
    group = parser.add_argument_group("scoring")
    written = "<output_path>-score/ is written, and what is measured of the photos, beside their folder imgs/"
    group.add_argument("--score", action="store_true", help=f"score the pictures; {written}")
    group.add_argument("--style_metric", choices=STYLE_METRICS, default="faithful", help="with the organisers' overflow, or without")
    group.add_argument("--judge", type=Path, help="run of system judge that judges the layout (default: the newest)")
    group.add_argument("--weights", type=Path, default=weights, help="published networks (default: %(default)s)")
    group.add_argument("--truth_path", type=Path, help="folder of the masks' true photos: adds PSNR, SSIM and LPIPS")


def total_score(mask_accuracy: float, **terms: float) -> float:
    """mask accuracy · (0.2 aesthetic + 0.3 (0.5 style + 0.5) + 0.5 (100 − min(FID, 100)) / 100), the total of the third contest's board A.

    aesthetic 0..1, style −1..1, FID 0 and more; a term that is not given counts as 0.
    """
    return mask_accuracy * sum(TERMS[name][0] * TERMS[name][1](value) for name, value in terms.items())


@dataclass
class Metric:
    """What a metric found: a number, or else what it needs."""

    value: float | None = None
    note: str = ""
    needs: str = ""  # what is missing, and where it comes from
    pictures: np.ndarray | None = None  # [N], the value of each picture, where it has one
    comparable: bool = False  # with the published results
    lower_is_better: bool = False
    details: dict[str, float] = field(default_factory=dict)  # further numbers, for score.json


# -------------------------------------------------------------------------------------------------------------- metrics


NO_JUDGE = Metric(needs="a judge, trained with MainTrain.py --system judge")
TOO_FEW = Metric(needs="at least 2 pictures, and 2 photos")


def mask_accuracy(pictures: Pictures) -> Metric:
    if pictures.judge is None:
        return NO_JUDGE
    matrices = pictures.seen.column("confusion").astype(np.float64)
    accuracies = np.trace(matrices, axis1=1, axis2=2) / matrices.sum(axis=(1, 2))
    held_out = (
        f"our judge, right on {pictures.judge.held_out_accuracy:.1%} of the pixels of real photos held out; the organisers' is unpublished"
    )
    return Metric(float(accuracies.mean()), held_out, pictures=accuracies)


def mean_iou(pictures: Pictures) -> Metric:
    if pictures.judge is None:
        return NO_JUDGE
    return Metric(
        float(np.nanmean(by_class(confusion_of_all(pictures))["IoU"])), "mean over the classes that occur, of all pixels together"
    )


def confusion_of_all(pictures: Pictures) -> np.ndarray:
    return pictures.seen.column("confusion").sum(axis=0, dtype=np.int64)


def clip_aesthetic(pictures: Pictures) -> Metric:
    (predictor,) = find_any(pictures.weights, [[name] for name in PREDICTORS[pictures.clip.name]])
    embeddings, _ = pictures.embeddings
    values = aesthetic(load_aesthetic(predictor), embeddings) / 10
    return Metric(float(values.mean()), f"{predictor.name}, divided by 10; the organisers' model is not known", pictures=values)


def style(pictures: Pictures) -> Metric:
    """All correlations are measured at once, so that the other form is there too."""
    row = np.dtype([(name, np.float32) for name in STYLE_METRICS])

    def measure(indices: list[int]) -> np.ndarray:
        rows = np.empty(len(indices), row)
        for k, i in enumerate(indices):
            result, reference = read_image(pictures.results[i]), read_image(pictures.pairs[i].reference)
            for name in STYLE_METRICS:
                rows[k][name] = np.mean(list(style_parts(result, reference, name).values()))
        return rows

    keys = [digest(key, pair.reference) for key, pair in zip(pictures.keys, pictures.pairs, strict=True)]
    rows = measured(pictures.cache / "style.rows", keys, row, measure, BATCH, "style")[:]
    values, forms = rows[pictures.style_metric], {name: float(rows[name].mean()) for name in STYLE_METRICS}
    both = ", ".join(f"{name} {value:.4f}" for name, value in forms.items())
    note = f"correlation of colour histograms, −1..1 ({both}); the published numbers are taken for faithful ones"
    return Metric(float(values.mean()), note, pictures=values, comparable=pictures.style_metric == "faithful", details=forms)


def too_few(pictures: Pictures) -> bool:
    return min(len(pictures.pairs), len(pictures.photos)) < 2


def frechet(results: Rows, photos: Rows) -> tuple[float, str]:
    """The Fréchet distance of the features, and a sentence on its bias."""
    ours, theirs = moments(results.blocks()), moments(photos.blocks())
    value = frechet_distance(ours.mean, ours.covariance, theirs.mean, theirs.covariance)
    return value, bias_note(min(ours.count, theirs.count), len(ours.mean))


def fid(pictures: Pictures) -> Metric:
    if too_few(pictures):
        return TOO_FEW
    value, bias = frechet(*pictures.by_inception)
    note = f"{to_photos(pictures)}; comparable with 1000 results and the competition's own photos only"
    return Metric(value, f"{note}. {bias}".strip(), lower_is_better=True)


def kid(pictures: Pictures) -> Metric:
    if too_few(pictures):
        return TOO_FEW
    mean, deviation = kernel_distance(*pictures.by_inception)
    return Metric(
        mean, f"± {deviation:.5f} over 100 random subsets; unbiased, for small sets", lower_is_better=True, details={"deviation": deviation}
    )


def lite_fd(pictures: Pictures) -> Metric:
    if too_few(pictures):
        return TOO_FEW
    value, bias = frechet(*pictures.by_lite0)
    return Metric(value, f"{to_photos(pictures)}; FID's formula. {bias}".strip(), lower_is_better=True)


def lite_kid(pictures: Pictures) -> Metric:
    if too_few(pictures):
        return TOO_FEW
    value = 1000 * kernel_distance_of_all(*pictures.by_lite0)
    note = f"× 1000, {to_photos(pictures)}, in units of their features' deviation; unbiased, for small sets"
    return Metric(value, note, lower_is_better=True)


def to_photos(pictures: Pictures) -> str:
    return f"to {len(pictures.photos)} photos of {pictures.photos[0].parent}"


def clip_similarity(pictures: Pictures) -> Metric:
    embeddings, others = pictures.embeddings
    what = "reference" if pictures.have("references") else "true photo"
    return Metric(clip_i(embeddings, others), f"CLIP-I: mean cosine with the {what}", pictures=(embeddings * others).sum(axis=1))


def clip_of_captions(pictures: Pictures) -> Metric:
    (embeddings, _), texts = pictures.embeddings, pictures.caption_embeddings
    described = np.array([bool(pair.caption) for pair in pictures.pairs])
    note = "" if described.all() else f", of the {described.sum()} pictures that have one"
    values = np.where(described, (embeddings * texts).sum(axis=1), np.nan)
    return Metric(clip_t(embeddings[described], texts[described]), f"CLIP-T: mean cosine with the caption{note}", pictures=values)


def reconstruction(pictures: Pictures, name: str) -> Metric:
    """PSNR or SSIM with the true photos."""
    row, truths = np.dtype([("PSNR", np.float32), ("SSIM", np.float32)]), pictures.true_photos

    def measure(indices: list[int]) -> np.ndarray:
        both = ((read_image(pictures.results[i]), read_image(truths[i], pictures.size)) for i in indices)
        return np.array([(psnr(result, truth), ssim(result, truth)) for result, truth in both], row)

    keys = [digest(key, truth) for key, truth in zip(pictures.keys, truths, strict=True)]
    values = measured(pictures.cache / "reconstruction.rows", keys, row, measure, BATCH, "PSNR and SSIM")[:][name]
    return Metric(float(values.mean()), {"PSNR": "dB, with the true photos", "SSIM": "with the true photos"}[name], pictures=values)


def perceptual(pictures: Pictures) -> Metric:
    paths = find_weights(pictures.weights, ALEXNET, ALEXNET_LPIPS)
    network, truths = load_lpips("alex", *paths), pictures.true_photos

    def measure(indices: list[int]) -> np.ndarray:
        return lpips(
            network,
            np.stack(read_all([pictures.results[i] for i in indices])),
            np.stack([read_image(truths[i], pictures.size) for i in indices]),
        )

    keys = [digest(key, truth) for key, truth in zip(pictures.keys, truths, strict=True)]
    values = measured(pictures.cache / f"lpips-{short(paths[1])}.rows", keys, np.dtype(np.float32), measure, BATCH, "LPIPS")[:]
    return Metric(float(values.mean()), "AlexNet, with the true photos", pictures=values, lower_is_better=True)


METRICS = {
    "mask accuracy": mask_accuracy,
    "mean IoU": mean_iou,
    "aesthetic": clip_aesthetic,
    "style": style,
    "FID": fid,
    "KID": kid,
    "FD (EfficientNet-lite0)": lite_fd,
    "KID (EfficientNet-lite0)": lite_kid,
    "CLIP-I": clip_similarity,
    "CLIP-T": clip_of_captions,
    "PSNR": lambda pictures: reconstruction(pictures, "PSNR"),
    "SSIM": lambda pictures: reconstruction(pictures, "SSIM"),
    "LPIPS": perceptual,
}
ONLY_WITH = {  # one of these, metrics are measured
    **dict.fromkeys(("mask accuracy", "mean IoU"), ("masks",)),
    **dict.fromkeys(("PSNR", "SSIM", "LPIPS"), ("truths",)),
    "style": ("references",),
    "CLIP-I": ("references", "truths"),
    "CLIP-T": ("captions",),
}


# ---------------------------------------------------------------------------------------------------------------- score


def score(pictures: Pictures, facts: dict[str, str], output: Path) -> dict[str, Metric]:
    """Measures everything, prints the table, and writes score.json and report.html into `output`. Returns the metrics and the total."""
    metrics = {}
    for name, function in METRICS.items():
        if name in ONLY_WITH and not any(map(pictures.have, ONLY_WITH[name])):
            continue
        try:
            metrics[name] = function(pictures)
        except MissingWeights as missing:
            metrics[name] = Metric(needs=str(missing))
    if pictures.have("masks"):
        metrics["total"] = total_of(metrics)
    print_table(metrics, pictures.weights)
    one_by_one = {name: metric.pictures for name, metric in metrics.items() if metric.pictures is not None}
    rows = [
        {"name": name, "value": m.value, "note": m.note, "comparable": m.comparable, "details": m.details}
        | ({"needs": m.needs} if m.needs else {})
        for name, m in metrics.items()
    ]
    numbers = [{name: float(values[i]) for name, values in one_by_one.items()} for i in range(len(pictures.pairs))]
    write_json(
        output / "score.json",
        {
            "facts": facts,
            "table": [row | {"value": for_json(row["value"])} for row in rows],
            "pictures": {
                pair.stem: {name: for_json(value) for name, value in values.items()}
                for pair, values in zip(pictures.pairs, numbers, strict=True)
            },
        },
    )
    write_report(
        output / "report.html",
        {
            "title": f"Score of {pictures.folder.name}",
            "facts": facts,
            "table": rows,
            "published": PUBLISHED if "total" in metrics else [],
            "classes": by_class(confusion_of_all(pictures)) if pictures.judge and "total" in metrics else {},
            "histograms": one_by_one,
            "lower_is_better": [name for name, metric in metrics.items() if metric.lower_is_better],
            "gallery": gallery(pictures, numbers),
        },
    )
    return metrics


def score_folder(
    pairs: list[TestPair],
    folder: Path,
    img_path: Path,
    truths: Path | None,
    judge: Judge | None,
    weights: Path,
    style_metric: str,
    size: tuple[int, int],
) -> Path:
    """Scores the pictures of the pairs in a folder against the photos of `img_path`, and the true ones if there are; returns the report.

    It lies beside them, in <folder>-score/. Raises UserError where one is missing, damaged, or not of `size` = (width, height). Pictures
    without masks may be of any one size.
    """
    if pairs[0].mask is None:
        check_results(pairs[:1], folder)
        size = open_picture(folder / pairs[0].file).size
    check_results(pairs, folder, size)
    if truths:
        check_results(pairs, truths)
    output = folder.with_name(folder.name + "-score")
    remove_leftovers(output, "*")
    pictures = Pictures(pairs, folder, find_photos(img_path), truths, judge, weights, style_metric, output / "cache", size)
    facts = {"pictures": f"{len(pairs)} of {folder}", "references": str(img_path)}
    painted = Counter(way["checkpoint"] for way in ways_of(pairs, folder) if "checkpoint" in way)
    facts |= {"painted with": "; ".join(f"{run}: {count}" for run, count in painted.items())} if painted else {}
    facts |= {"judge": str(judge.weights.parent) if judge else "none", "style": style_metric}
    score(pictures, facts, output)
    return output / "report.html"


def for_json(value: float | None) -> float | str | None:
    """JSON knows no infinite number, as PSNR is where nothing differs: that is written as the text "inf". What is no number is null."""
    if value is None or math.isnan(value):
        return None
    return value if math.isfinite(value) else str(value)


def total_of(metrics: dict[str, Metric]) -> Metric:
    """The total, or as much of it as can be told."""
    accuracy = metrics["mask accuracy"].value
    terms = {name: metrics[name].value for name in TERMS if name in metrics and metrics[name].value is not None}
    absent = [name for name in TERMS if name not in terms]
    if accuracy is None or not terms:
        return Metric(needs="mask accuracy, and one of " + ", ".join(TERMS))
    note = "mask accuracy · (0.2 aesthetic + 0.3 (0.5 style + 0.5) + 0.5 (100 − min(FID, 100)) / 100), the third contest's board A"
    if absent:
        note = f"PARTIAL, without {' and '.join(absent)}, so {sum(TERMS[name][0] for name in terms):.1f} at most: {note}"
    return Metric(total_score(accuracy, **terms), note)


def print_table(metrics: dict[str, Metric], weights: Path) -> None:
    """Ours, with what each number is; then the published results."""
    width = max(map(len, metrics))
    for name, metric in metrics.items():
        if metric.value is None:
            text = f"n/a (needs {metric.needs})"
        else:
            number = "∞" if math.isinf(metric.value) else f"{metric.value:.4f}"
            text = f"{number:>8}   {metric.note}"
        print(f"{name:>{width}}  {text}")
    if any(metric.value is None for metric in metrics.values()):
        print(f"What is missing is looked for in {weights} (checkpoints/README.md says which).")
    if "total" not in metrics:
        return
    print("\nPublished (comparable: the style; the rest with the organisers' networks and photos only)")
    print(" ".join(f"{name:>13}" for name in COLUMNS))
    for row in PUBLISHED:
        print(" ".join(f"{row[name]:13.4f}" if name in row else f"{'–':>13}" for name in COLUMNS), "", row["entry"])


def gallery(pictures: Pictures, numbers: list[dict[str, float]]) -> Iterator[dict]:
    """The pictures of the report, one by one."""
    for i, (pair, values) in enumerate(zip(pictures.pairs, numbers, strict=True)):
        yield {
            "stem": pair.stem,
            "mask": read_mask(pair.mask, SMALL) if pair.mask else None,
            "reference": read_image(pair.reference, SMALL) if pair.reference else None,
            "result": read_image(pictures.results[i], SMALL),
            "segmentation": pictures.seen[i]["labels"] if pictures.judge and pair.mask else None,
            "caption": pair.caption,
            "scores": values,
        }
