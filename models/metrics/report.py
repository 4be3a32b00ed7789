"""Pictures as one HTML page that needs nothing but itself: no network, no other file.

The report of a score (`write_report`) has tables first, then every picture beside its mask and its reference; `write_gallery` has pictures
under headings alone. They go to the file one by one, so that a thousand of them do not pile up in memory: about 30 kB each.
"""

import base64
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path

import numpy as np

from datasets.landscape import CLASSES
from utils.files import atomic_write
from utils.image import PALETTE, colorize_mask, encode, resize, resize_mask

WIDTH = 256  # of a picture in the gallery, in pixels
BINS = 24  # of the histograms

# -------------------------------------------------------------------------------------------------------------- the page

# The policy has the browser refuse whatever would come from elsewhere.
HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>{title}</title>
<style>
:root { color-scheme: light dark; --page: #fbfaf7; --ink: #24272b; --quiet: #6b7077; --line: #e1ded6; --accent: #4d7a86; --tint: #f2efe8; }
@media (prefers-color-scheme: dark) {
  :root { --page: #16181a; --ink: #dddcd7; --quiet: #92969b; --line: #303438; --accent: #7fb0bc; --tint: #1f2225; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.25rem 5rem; max-width: 78rem; background: var(--page); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; font-variant-numeric: tabular-nums; -webkit-text-size-adjust: 100%; }
h1, h2 { font-family: ui-serif, "Iowan Old Style", Palatino, Georgia, serif; font-weight: 500; line-height: 1.2; }
h1 { margin: 0; font-size: 2.1rem; }
h2 { margin: 3.25rem 0 .75rem; font-size: 1.35rem; }
p { max-width: 44rem; margin: .75rem 0; }
.quiet, figcaption, th { color: var(--quiet); }
.quiet, figcaption, caption, th { font-size: .85rem; font-weight: 400; }
.facts { display: flex; flex-wrap: wrap; gap: .25rem 1.75rem; margin: .75rem 0 0; font-size: .9rem; overflow-wrap: anywhere; }
.facts div, .scores div { display: flex; gap: .45rem; }
dt { color: var(--quiet); }
dd { margin: 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; }
th, td { padding: .45rem 1.5rem .45rem 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: baseline; }
thead th { white-space: nowrap; vertical-align: bottom; }
tbody th { color: inherit; font-size: 1rem; }
td.number, th.number { text-align: right; white-space: nowrap; }
.main td.number { font-size: 1.15rem; }
.main td:last-child { max-width: 44rem; overflow-wrap: anywhere; }
.ours th, .ours td { font-weight: 600; }
.apart { opacity: .55; }
.swatch { display: inline-block; width: .8em; height: .8em; margin-right: .5em; border-radius: 2px; box-shadow: inset 0 0 0 1px #8888; }
.share { display: block; width: 7rem; height: 3px; margin-top: 2px; background: var(--tint); }
.share i { display: block; height: 100%; background: var(--accent); }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 17rem), 1fr)); gap: 1.75rem 2.5rem; }
figure { margin: 0; min-width: 0; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg rect { fill: var(--accent); }
svg line { stroke: var(--line); }
svg line.median { stroke: var(--ink); stroke-dasharray: 2 2; }
svg text { fill: var(--quiet); font-size: 11px; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; margin: .75rem 0; padding: 0; list-style: none; font-size: .85rem; }
.sort { position: sticky; top: 0; z-index: 1; display: flex; gap: .4rem; overflow-x: auto; padding: .6rem 0; background: var(--page); }
.sort[hidden] { display: none; }
.sort button { flex: none; padding: .3rem .8rem; border: 1px solid var(--line); border-radius: 1rem; background: none; color: inherit;
  font: inherit; font-size: .85rem; cursor: pointer; }
.sort button[aria-pressed=true] { border-color: var(--accent); background: var(--tint); }
.sort button[aria-pressed=true]::after { content: " · " attr(data-order); color: var(--quiet); }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 35rem), 1fr)); gap: 1.75rem 2rem; margin-top: 1rem; }
.card { min-width: 0; content-visibility: auto; contain-intrinsic-size: auto 13rem; }
.card h3 { margin: 0 0 .35rem; font-size: .9rem; font-weight: 600; overflow-wrap: anywhere; }
.pictures { display: grid; grid-template-columns: repeat(4, 1fr); gap: .3rem; }
.pictures img { display: block; width: 100%; height: auto; border-radius: 2px; background: var(--tint); }
.pictures figcaption { font-size: .75rem; }
.scores { display: flex; flex-wrap: wrap; gap: .1rem 1.1rem; margin: .2rem 0 0; font-size: .85rem; }
@media (max-width: 34rem) {
  body { padding-top: 1.5rem; }
  .pictures { grid-template-columns: repeat(2, 1fr); }
  .card { contain-intrinsic-size: auto 26rem; }
  th, td { padding-right: 1rem; }
  .main, .main tbody, .main tr, .main td:last-child { display: block; }
  .main thead { display: none; }
  .main tr { padding: .5rem 0; border-bottom: 1px solid var(--line); }
  .main th, .main td { padding: 0 .75rem 0 0; border: 0; }
}
</style>
</head>
<body>
"""

# Pressing the button that is pressed turns the order round. Pictures without the score stay last.
SCRIPT = """<script>
const bar = document.querySelector(".sort"), gallery = document.querySelector(".gallery");
const cards = [...gallery.children], buttons = [...bar.children];
function sortBy(button) {
  const worstFirst = !(button.getAttribute("aria-pressed") === "true" && button.dataset.order === "worst first");
  const sign = worstFirst === (button.dataset.better === "higher") ? 1 : -1;
  const value = (card) => parseFloat(card.getAttribute(button.dataset.score));
  const key = (card) => (isNaN(value(card)) ? Infinity : sign * value(card));
  cards.sort((a, b) => (key(a) > key(b)) - (key(a) < key(b)));
  gallery.append(...cards);
  buttons.forEach((other) => other.setAttribute("aria-pressed", other === button));
  button.dataset.order = worstFirst ? "worst first" : "best first";
}
buttons.forEach((button) => { button.onclick = () => sortBy(button); });
bar.hidden = false;
sortBy(buttons[0]);
</script>
"""


def write_report(path: str | Path, score: Mapping) -> None:
    """Writes the page to `path`, whole or not at all; raises as `atomic_write` does.

    Texts may hold anything: they are escaped. Numbers that are None or NaN are shown as "–", infinite ones (PSNR of a picture that equals
    its truth) as "∞". `score` has

    title       heading
    facts       {name: text}: what was scored, with what
    table       the scores, a list of {"name": ..., "value": number or None, "note": what it is and may be compared with,
                "comparable": whether with the published results}; where there is no value, with "needs": what is missing and
                where to get it
    published   the published results, a list of {"entry": ..., <name in `table`>: number or text, ...}; may be empty
    classes     {column: 29 numbers 0..1, one a class}; the first column is the share of pixels; may be empty
    histograms  {score: its values, one a picture}, for every score that pictures have one by one; the first is what the gallery is
                sorted by at first
    lower_is_better  those names in `histograms` of which a low value is good
    gallery     an iterator, gone through once, of {"stem": ..., "mask": labels uint8 [H, W], "reference" and "result": uint8 RGB
                [H, W, 3], "segmentation": labels uint8 [H, W], "scores": {<name in `histograms`>: number}, "caption": text or ""};
                all but the result may be None
    """
    names = list(score["histograms"])
    with _page(path, score["title"], score["facts"]) as write:
        write(_main_table(score["table"]))
        if score["published"]:
            write(_published_table(score["table"], score["published"]))
        if score["classes"]:
            write(_class_table(score["classes"]))
        write(_charts(score["histograms"]))
        write(_gallery_head(names, score["lower_is_better"]))
        for entry in score["gallery"]:
            write(_card(entry, names))
        write(f"</div>\n</section>\n{SCRIPT if names else ''}")


def write_gallery(path: str | Path, title: str, facts: Mapping[str, str], sections: Mapping[str, Iterable[Mapping]]) -> None:
    """Writes a page of pictures under headings to `path`, whole or not at all; raises as `atomic_write` does.

    sections: {heading: cards}, each card {"stem": ..., "note": a sentence, "pictures": {caption: uint8 RGB [H, W, 3] or labels uint8
    [H, W]}}; they are gone through once.
    """
    with _page(path, title, facts) as write:
        for heading, cards in sections.items():
            write(f'<section>\n<h2>{escape(heading)}</h2>\n<div class="gallery">\n')
            for card in cards:
                note = f'<p class="quiet">{escape(card["note"])}</p>'
                write(f'<article class="card">\n<h3>{escape(card["stem"])}</h3>\n{_figures(card["pictures"])}{note}</article>\n')
            write("</div>\n</section>\n")


@contextmanager
def _page(path: str | Path, title: str, facts: Mapping[str, str]) -> Iterator[Callable[[str], None]]:
    """A page with its heading; what the block writes comes below."""
    with atomic_write(path) as file:

        def write(html: str) -> None:
            file.write(html.encode(errors="backslashreplace"))  # names of files may be no UTF-8

        write(HEAD.replace("{title}", escape(title)))
        write(f"<header>\n<h1>{escape(title)}</h1>\n{_definitions('facts', facts)}</header>\n")
        yield write
        write("</body>\n</html>\n")


# -------------------------------------------------------------------------------------------------------------- its parts


def _text(value: float | str | None, form: str = ".4f") -> str:
    """A number in the given form, from 10 on with two decimals; a text escaped; "–" for what there is not."""
    if isinstance(value, str):
        return escape(value)
    if not _is_known(value):
        return "–"
    if math.isinf(value):
        return "∞"
    return f"{value:.2f}" if abs(value) >= 10 else format(value, form)


def _is_known(value: float | None) -> bool:
    return value is not None and not math.isnan(value)


def _definitions(css_class: str, items: Mapping[str, str]) -> str:
    pairs = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>" for name, text in items.items())
    return f'<dl class="{css_class}">{pairs}</dl>\n'


def _table(css_class: str, head: str, rows: Iterable[str]) -> str:
    body = "\n".join(rows)
    return f'<div class="scroll"><table class="{css_class}">\n<thead>{head}</thead>\n<tbody>\n{body}\n</tbody>\n</table></div>\n'


def _main_table(rows: Sequence[Mapping]) -> str:
    def line(row: Mapping) -> str:
        needs = f"<strong>Needs {escape(row['needs'])}</strong><br>" if row["value"] is None else ""
        value = f'<td class="number">{_score(row)}</td>'
        return f'<tr><th>{escape(row["name"])}</th>{value}<td class="quiet">{needs}{escape(row["note"])}</td></tr>'

    head = '<tr><th>Score</th><th class="number">Value</th><th>What it is</th></tr>'
    return f"<section>\n<h2>Scores</h2>\n{_table('main', head, map(line, rows))}</section>\n"


def _score(row: Mapping) -> str:
    return "n/a" if row["value"] is None else _text(row["value"])


def _published_table(table: Sequence[Mapping], published: Sequence[Mapping]) -> str:
    """The row of this set above those of others, in the columns that others have."""
    columns = [row for row in table if any(row["name"] in other for other in published)]
    apart = {column["name"]: "number" if column["comparable"] else "number apart" for column in columns}

    def line(entry: str, values: Mapping, css_class: str = "") -> str:
        cells = "".join(f'<td class="{apart[name]}">{_text(values.get(name))}</td>' for name in apart)
        return f'<tr class="{css_class}"><th>{escape(entry)}</th>{cells}</tr>'

    ours = {column["name"]: _score(column) for column in columns}
    head = "".join(f'<th class="{apart[name]}">{escape(name)}</th>' for name in apart)
    lines = [line("These pictures", ours, "ours"), *(line(other["entry"], other) for other in published)]
    pale = [name for name in apart if "apart" in apart[name]]
    note = f'<p class="quiet">Pale columns are not comparable ({escape(", ".join(pale))}): the notes above say why.</p>\n' if pale else ""
    return f"<section>\n<h2>Beside published results</h2>\n{_table('', f'<tr><th>Entry</th>{head}</tr>', lines)}{note}</section>\n"


def _class_table(columns: Mapping[str, Sequence[float]]) -> str:
    """A line for each class that there is, the most frequent first."""
    share = np.nan_to_num(np.asarray(next(iter(columns.values())), float))
    present = [label for label in np.argsort(-share, kind="stable") if share[label] > 0]
    absent = [name for label, name in enumerate(CLASSES) if label not in present]

    def cell(value: float) -> str:
        width = 100 * min(max(value, 0), 1) if _is_known(value) else 0
        return f'<td class="number">{_text(value, ".1%")}<span class="share"><i style="width:{width:.1f}%"></i></span></td>'

    def line(label: int) -> str:
        return f"<tr><th>{_swatch(label)}</th>{''.join(cell(values[label]) for values in columns.values())}</tr>"

    head = "".join(f'<th class="number">{escape(name)}</th>' for name in columns)
    note = f'<p class="quiet">In none of the masks: {escape(", ".join(absent))}.</p>\n' if absent else ""
    return f"<section>\n<h2>Classes</h2>\n{_table('', f'<tr><th>Class</th>{head}</tr>', map(line, present))}{note}</section>\n"


def _swatch(label: int) -> str:
    colour = "#{:02x}{:02x}{:02x}".format(*PALETTE[label])
    return f'<i class="swatch" style="background:{colour}"></i>{escape(CLASSES[label])}'


def _charts(histograms: Mapping[str, Sequence[float]]) -> str:
    charts = "".join(_chart(name, np.asarray(values, float)) for name, values in histograms.items())
    return f'<section>\n<h2>From picture to picture</h2>\n<div class="charts">\n{charts}</div>\n</section>\n'


def _chart(name: str, values: np.ndarray) -> str:
    """How often a score takes which value, as bars, with the median as a dashed line."""
    known, infinite = values[np.isfinite(values)], np.isinf(values).sum()
    if not known.size:
        why = f"Infinite in {infinite} picture{'s' if infinite > 1 else ''}." if infinite else "No picture has this score."
        return f"<figure><strong>{escape(name)}</strong> <figcaption>{why}</figcaption></figure>\n"
    width, height = 240, 72
    counts, edges = np.histogram(known, BINS)
    low, high, median = edges[0], edges[-1], np.median(known)
    bars = []
    for number, count in enumerate(counts):
        if count:
            tall = max(height * count / counts.max(), 1)
            title = f"<title>{edges[number]:.3g} to {edges[number + 1]:.3g}: {count}</title>"
            place = f'x="{number * width / BINS + 0.5:.1f}" y="{height - tall:.1f}" width="{width / BINS - 1:.1f}" height="{tall:.1f}"'
            bars.append(f"<rect {place}>{title}</rect>")
    middle = width * (median - low) / (high - low)
    more = f"; infinite in {infinite} more" if infinite else ""
    return (
        f'<figure><strong>{escape(name)}</strong> <span class="quiet">of {known.size} pictures</span>\n'
        f'<svg viewBox="0 -6 {width} {height + 22}" role="img" aria-label="histogram of {escape(name)}">{"".join(bars)}'
        f'<line x1="0" x2="{width}" y1="{height}" y2="{height}"/>'
        f'<line class="median" x1="{middle:.1f}" x2="{middle:.1f}" y1="-6" y2="{height}"/>'
        f'<text y="{height + 13}">{low:.3g}</text><text x="{width}" y="{height + 13}" text-anchor="end">{high:.3g}</text></svg>\n'
        f"<figcaption>mean {known.mean():.3g}, median {median:.3g}{more}</figcaption></figure>\n"
    )


def _gallery_head(names: Sequence[str], lower_is_better: Collection[str]) -> str:
    buttons = "".join(
        f'<button type="button" data-score="data-score{number}" data-better="{"lower" if name in lower_is_better else "higher"}" '
        f'aria-pressed="false">{escape(name)}</button>'
        for number, name in enumerate(names)
    )
    legend = "".join(f"<li>{_swatch(label)}</li>" for label in range(len(CLASSES)))
    return (
        f'<section>\n<h2>Pictures</h2>\n<ul class="legend">{legend}</ul>\n'
        f'<div class="sort" role="group" aria-label="Sort by" hidden>{buttons}</div>\n<div class="gallery">\n'
    )


def _card(entry: Mapping, names: Sequence[str]) -> str:
    scores = {name: entry["scores"].get(name) for name in names}
    data = "".join(f' data-score{number}="{_for_script(value)}"' for number, value in enumerate(scores.values()) if _is_known(value))
    texts = {name: _text(value, ".3f") for name, value in scores.items()}
    pictures = {name: entry[name] for name in ("mask", "reference", "result")} | {"result, segmented": entry["segmentation"]}
    pictures = {name: picture for name, picture in pictures.items() if picture is not None}
    caption = f'<p class="quiet">{escape(entry["caption"])}</p>\n' if entry.get("caption") else ""
    return (
        f'<article class="card"{data}>\n<h3>{escape(entry["stem"])}</h3>\n'
        f"{_figures(pictures)}{caption}{_definitions('scores', texts)}</article>\n"
    )


def _figures(pictures: Mapping[str, np.ndarray]) -> str:
    """Photos [H, W, 3] and masks [H, W] in a row, above their captions."""
    uris = {caption: (_photo_uri if picture.ndim == 3 else _mask_uri)(picture) for caption, picture in pictures.items()}
    figures = "".join(
        f'<figure><img src="{uri}" width="{width}" height="{height}" alt="" loading="lazy" decoding="async">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
        for caption, (uri, width, height) in uris.items()
    )
    return f'<div class="pictures">{figures}</div>\n'


def _for_script(value: float) -> str:
    return "Infinity" if math.isinf(value) else f"{value:.9g}"  # as JavaScript's parseFloat reads it


def _photo_uri(image: np.ndarray) -> tuple[str, int, int]:
    """The photo as a data URI, its width and its height there."""
    size = (WIDTH, max(round(WIDTH * image.shape[0] / image.shape[1]), 1))
    return _data_uri(encode(resize(image, size), "JPEG", quality=75), "jpeg"), *size


def _mask_uri(mask: np.ndarray) -> tuple[str, int, int]:
    """The same for a mask: as PNG, which for flat colours is sharp and a third of the JPEG."""
    size = (WIDTH, max(round(WIDTH * mask.shape[0] / mask.shape[1]), 1))
    return _data_uri(encode(colorize_mask(resize_mask(mask, size)), "PNG", optimize=True), "png"), *size


def _data_uri(content: bytes, file_format: str) -> str:
    return f"data:image/{file_format};base64,{base64.b64encode(content).decode()}"
