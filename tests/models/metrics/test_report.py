"""The page of scores: whole, safe, self-contained, and written picture by picture."""

import base64
import io
import os
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from datasets.landscape import CLASSES
from models.metrics.report import write_gallery, write_report
from utils.image import PALETTE

VOID = {"meta", "img", "br"}
NASTY = """<script>alert("1")</script> & 'two'"""


class Page(HTMLParser):
    """The elements of a page, each with tag, attributes and all text within; fails where tags do not balance."""

    def __init__(self, html):
        super().__init__()
        self.elements, self._open = [], []
        self.feed(html)
        self.close()
        assert not self._open, f"never closed: {[element.tag for element in self._open]}"

    def handle_starttag(self, tag, attrs):
        element = SimpleNamespace(tag=tag, attrs=dict(attrs), text="", parents=list(self._open))
        assert len(element.attrs) == len(attrs), f"an attribute twice in <{tag}>"
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self._open and self._open[-1].tag == tag, f"</{tag}> closes {self._open[-1].tag if self._open else 'nothing'}"
        self._open.pop()

    def handle_data(self, data):
        for element in self._open:
            element.text += data

    def all(self, tag, css_class=None, within=None):
        return [
            element
            for element in self.elements
            if element.tag == tag
            and (css_class is None or css_class in element.attrs.get("class", "").split())
            and (within is None or within in element.parents)
        ]


def photo(seed, size=(48, 64)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def entry(number, **changed):
    mask = np.full((48, 64), number, np.uint8)
    mask[:24] = 1
    scores = {"mask accuracy": 0.9 - number / 10, "LPIPS": 0.2 + number / 10}
    fields = {"stem": f"picture {number}", "mask": mask, "reference": photo(number), "result": photo(number + 50)}
    return fields | {"segmentation": mask[::-1], "scores": scores} | changed


def score(**changed):
    share = np.zeros(29)
    share[[1, 0, 28]] = 0.5, 0.3, 0.2
    accuracy = np.where(share > 0, share + 0.25, np.nan)
    table = [
        {"name": "total", "value": 0.52134, "note": "of the 3rd contest", "comparable": False},
        {"name": "FID", "value": 58.4132, "note": "by InceptionV3", "comparable": True},
        {"name": "aesthetic", "value": None, "needs": "head.pth: https://example.org/head", "note": "0..1", "comparable": False},
    ]
    fields = {
        "title": "Results",
        "facts": {"pictures": "3"},
        "table": table,
        "published": [{"entry": "SPADE", "FID": 40.31, "aesthetic": 0.5081}, {"entry": "pix2pix", "FID": "107.5 offline"}],
        "classes": {"share of pixels": share, "pixel accuracy": accuracy},
        "histograms": {"mask accuracy": [0.9, 0.8, 0.7], "LPIPS": [0.2, 0.3, np.nan]},
        "lower_is_better": ["LPIPS"],
        "gallery": map(entry, range(3)),
    }
    return fields | changed


@pytest.fixture
def page(tmp_path):
    def render(**changed):
        write_report(tmp_path / "score.html", score(**changed))
        return Page((tmp_path / "score.html").read_text("utf-8"))

    return render


def rows(page, title):
    """The cells' texts of the rows of the section's table."""
    section = next(element for element in page.all("section") if element.text.strip().startswith(title))
    lines = [row for row in page.all("tr", within=section) if row.parents[-1].tag == "tbody"]
    return [[cell.text for cell in page.elements if cell.parents and cell.parents[-1] is row] for row in lines]


def picture(uri):
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(";base64,")[2], validate=True)))


def test_the_page_fetches_nothing(page):
    page = page(title="https://example.org")
    assert not [element.tag for element in page.elements if element.tag in ("link", "iframe", "object", "embed", "base", "a", "form")]
    for element in page.elements:
        assert not {"href", "xlink:href", "srcset", "action", "data", "poster", "onclick", "onerror"} & element.attrs.keys()
        assert element.attrs.get("src", "data:image/").startswith("data:image/")
    styles = " ".join([style.text for style in page.all("style")] + [element.attrs.get("style", "") for element in page.elements])
    assert "url(" not in styles and "@import" not in styles
    (script,) = page.all("script")
    assert "http" not in script.text + styles and "import" not in script.text and "fetch" not in script.text
    (policy,) = [meta.attrs["content"] for meta in page.all("meta") if "http-equiv" in meta.attrs]
    assert "default-src 'none'" in policy and "img-src data:;" in policy


def test_the_page_is_for_phones_and_for_the_dark(page):
    page = page()
    assert any("width=device-width" in meta.attrs.get("content", "") for meta in page.all("meta"))
    assert "prefers-color-scheme: dark" in page.all("style")[0].text


def test_whatever_comes_from_files_is_text(page):
    table = [{"name": NASTY, "value": None, "needs": NASTY, "note": NASTY, "comparable": False}]
    page = page(
        title=NASTY,
        facts={NASTY: NASTY},
        table=table,
        published=[{"entry": NASTY, NASTY: NASTY}],
        classes={NASTY: np.ones(29) / 29},
        histograms={NASTY: [0.5]},
        lower_is_better=[],
        gallery=[entry(0, stem=NASTY, scores={NASTY: 0.5})],
    )
    assert len(page.all("script")) == 1 and "alert" not in page.all("script")[0].text
    whole = page.all("html")[0].text
    assert whole.count(NASTY) == 16
    assert page.all("h3")[0].text == NASTY and page.all("h1")[0].text == NASTY
    assert page.all("svg")[0].attrs["aria-label"] == f"histogram of {NASTY}"


def test_names_that_are_no_utf8_can_be_written(page):
    stem = os.fsdecode(b"berg\xff")
    assert page(gallery=[entry(0, stem=stem)]).all("h3")[0].text == "berg\\udcff"


def test_scores_stand_with_their_notes(page):
    total, fid, aesthetic = rows(page(), "Scores")
    assert total == ["total", "0.5213", "of the 3rd contest"]
    assert fid == ["FID", "58.41", "by InceptionV3"]
    assert aesthetic[:2] == ["aesthetic", "n/a"]
    assert "Needs head.pth: https://example.org/head" in aesthetic[2] and "0..1" in aesthetic[2]


def test_published_results_stand_beside_ours(page):
    rendered = page()
    assert rows(rendered, "Beside published results") == [
        ["These pictures", "58.41", "n/a"],
        ["SPADE", "40.31", "0.5081"],
        ["pix2pix", "107.5 offline", "–"],
    ]
    pale = [cell.text for cell in rendered.all("th", "apart")]
    assert pale == ["aesthetic"] and "not comparable (aesthetic)" in rendered.all("html")[0].text
    assert "Beside published" not in page(published=[]).all("html")[0].text


def test_classes_by_their_share_with_their_colours(page):
    rendered = page()
    assert rows(rendered, "Classes") == [["sky", "50.0%", "75.0%"], ["mountain", "30.0%", "55.0%"], ["other", "20.0%", "45.0%"]]
    assert "In none of the masks: water, sea," in rendered.all("html")[0].text
    (legend,) = rendered.all("ul", "legend")
    assert [item.text for item in rendered.all("li", within=legend)] == CLASSES
    colours = [swatch.attrs["style"] for swatch in rendered.all("i", "swatch", within=legend)]
    assert colours == ["background:#" + bytes(colour).hex() for colour in PALETTE]


def test_a_class_without_a_number_gets_a_dash(page):
    share, accuracy = np.ones(29) / 29, np.full(29, 0.5)
    accuracy[3] = np.nan
    lines = rows(page(classes={"share of pixels": share, "pixel accuracy": accuracy}), "Classes")
    assert len(lines) == 29 and lines[3] == ["sea", "3.4%", "–"] and lines[4][2] == "50.0%"


def test_histograms_count_every_picture(page):
    values = np.random.default_rng(0).normal(0.5, 0.1, 500)
    values[:3] = np.nan, 0, 1
    rendered = page(histograms={"a": values, "the same everywhere": [0.25] * 7, "nothing": [np.nan]})
    spread, same = rendered.all("svg")
    for svg, count in ((spread, 499), (same, 7)):
        bars = rendered.all("rect", within=svg)
        counts = [int(bar.text.rpartition(": ")[2]) for bar in bars]
        heights = [float(bar.attrs["height"]) for bar in bars]
        assert sum(counts) == count
        assert heights[np.argmax(counts)] == max(heights) == 72
        assert all(float(bar.attrs["y"]) >= -6 and float(bar.attrs["x"]) + float(bar.attrs["width"]) <= 240 for bar in bars)
    assert len(rendered.all("rect", within=spread)) > 10 and len(rendered.all("rect", within=same)) == 1
    (median,) = rendered.all("line", "median", within=spread)
    assert float(median.attrs["x1"]) == pytest.approx(240 * np.nanmedian(values), abs=0.1)
    text = rendered.all("html")[0].text
    assert f"mean {np.nanmean(values):.3g}, median {np.nanmedian(values):.3g}" in text and "No picture has this score." in text


def test_every_picture_is_there_with_its_scores(page):
    entries = [entry(0), entry(1, scores={"mask accuracy": 0.123456, "LPIPS": None}), entry(2, scores={"LPIPS": np.float32(0.5)})]
    rendered = page(gallery=iter(entries))
    cards = rendered.all("article")
    assert [rendered.all("h3", within=card)[0].text for card in cards] == [item["stem"] for item in entries]
    data = [{name: float(value) for name, value in card.attrs.items() if name.startswith("data-")} for card in cards]
    assert data == [{"data-score0": 0.9, "data-score1": 0.2}, {"data-score0": 0.123456}, {"data-score1": 0.5}]
    shown = [[number.text for number in rendered.all("dd", within=card)] for card in cards]
    assert shown == [["0.900", "0.200"], ["0.123", "–"], ["–", "0.500"]]


def test_what_is_infinite_is_shown_as_infinite(page):
    rendered = page(
        table=[{"name": "PSNR", "value": np.inf, "note": "dB", "comparable": False}],
        histograms={"PSNR": [20.0, 30.0, np.inf, np.inf], "the same": [np.inf]},
        gallery=[entry(0, scores={"PSNR": np.inf, "the same": np.inf})],
    )
    assert rows(rendered, "Scores") == [["PSNR", "∞", "dB"]]
    some, all_of_them = (figure.text for figure in rendered.all("figure") if figure.parents[-1].attrs.get("class") == "charts")
    assert "of 2 pictures" in some and "mean 25, median 25; infinite in 2 more" in some
    assert "Infinite in 1 picture" in all_of_them and "No picture has" not in all_of_them
    (card,) = rendered.all("article")
    assert [number.text for number in rendered.all("dd", within=card)] == ["∞", "∞"]
    assert card.attrs["data-score0"] == "Infinity"  # as JavaScript writes it


def test_buttons_sort_by_the_scores(page):
    buttons = page().all("button")
    assert [(button.text, button.attrs["data-score"], button.attrs["data-better"]) for button in buttons] == [
        ("mask accuracy", "data-score0", "higher"),
        ("LPIPS", "data-score1", "lower"),
    ]


def test_without_scores_there_is_nothing_to_sort(page):
    rendered = page(histograms={}, lower_is_better=[])
    assert not rendered.all("script") and len(rendered.all("article")) == 3


def test_pictures_are_small_and_masks_coloured(page):
    first, second = entry(5, reference=photo(9, (96, 64)), result=photo(8, (384, 512))), entry(6, segmentation=None)
    rendered = page(gallery=[first, second])
    images = rendered.all("img")
    captions = [caption.text for caption in rendered.all("figcaption") if caption.parents[-2].attrs.get("class") == "pictures"]
    assert captions == ["mask", "reference", "result", "result, segmented", "mask", "reference", "result"]
    opened = [picture(image.attrs["src"]) for image in images]
    assert [image.size for image in opened] == [(256, 192), (256, 384), (256, 192), (256, 192), (256, 192), (256, 192), (256, 192)]
    assert [(int(image.attrs["width"]), int(image.attrs["height"])) for image in images] == [image.size for image in opened]
    assert [image.format for image in opened[:3]] == ["PNG", "JPEG", "JPEG"]
    mask, segmentation = np.array(opened[0]), np.array(opened[3])
    assert (mask[:96] == PALETTE[1]).all() and (mask[96:] == PALETTE[5]).all()
    assert (segmentation[:96] == PALETTE[5]).all() and (segmentation[96:] == PALETTE[1]).all()
    grey = page(gallery=[entry(0, reference=np.full((48, 64, 3), (200, 100, 50), np.uint8))]).all("img")[1]
    assert np.abs(np.array(picture(grey.attrs["src"])).astype(int) - (200, 100, 50)).max() <= 4


def test_pictures_go_to_the_file_one_by_one(tmp_path):
    """When the next one is asked for, the file being written has grown by the last."""
    sizes = []

    def gallery():
        for number in range(4):
            (temporary,) = tmp_path.glob(".score.html.*")
            sizes.append(temporary.stat().st_size)
            yield entry(number, result=photo(number, (384, 512)))

    write_report(tmp_path / "score.html", score(gallery=gallery()))
    grown = np.diff([*sizes, (tmp_path / "score.html").stat().st_size])
    assert (grown > 10_000).all()
    assert re.findall(r"<h3>(.*?)</h3>", (tmp_path / "score.html").read_text("utf-8")) == [f"picture {number}" for number in range(4)]


def test_a_gallery_that_fails_leaves_the_old_page(tmp_path):
    path = tmp_path / "score.html"
    write_report(path, score())
    before = path.read_bytes()

    def gallery():
        yield entry(0)
        raise RuntimeError("a picture is damaged")

    with pytest.raises(RuntimeError, match="damaged"):
        write_report(path, score(gallery=gallery()))
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_gallery_shows_pictures_under_headings(tmp_path):
    photo, mask = np.full((48, 64, 3), 90, np.uint8), np.zeros((48, 64), np.uint8)
    cards = [
        {"stem": NASTY, "note": NASTY, "pictures": {"photo": photo, "mask": mask, NASTY: photo}},
        {"stem": "b", "note": "damaged", "pictures": {}},
    ]
    write_gallery(tmp_path / "page.html", NASTY, {"set": NASTY}, {"One": iter(cards[:1]), "Two": iter(cards[1:])})
    page = Page((tmp_path / "page.html").read_text())
    assert [heading.text for heading in page.all("h2")] == ["One", "Two"] and not page.all("script")
    first, second = page.all("article", "card")
    assert NASTY in first.text and [caption.text for caption in page.all("figcaption", within=first)] == ["photo", "mask", NASTY]
    assert "damaged" in second.text and not page.all("img", within=second)
    assert [image.attrs["src"].split(";")[0] for image in page.all("img")] == ["data:image/jpeg", "data:image/png", "data:image/jpeg"]
