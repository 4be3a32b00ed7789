"""Painting for a page: the same pictures as MainTest.py's, the newest wish first, and nothing else for anybody."""

import base64
import io
import json
import struct
import threading
import time
import zlib
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

from datasets.landscape import read_mask
from datasets.test_pairs import find_test_pairs
from models.painters.pictures import SIZE
from models.serving.page import routes_of
from models.serving.studio import Studio, to_choose_from
from models.serving.worker import Worker
from tests.benchmarks.hostile_requests import attack
from tests.page import events, serving
from tests.test_commands import one_sentence, paint
from utils.image import encode, resize
from utils.options import option


@pytest.fixture(scope="module")
def served(data, untrained, tmp_path_factory):
    with serving(data, untrained, tmp_path_factory.mktemp("served") / "output.txt", "--steps", 3) as served:
        yield served


@pytest.fixture(scope="module")
def mask(data) -> bytes:
    return (data / "val_A_labels_resized" / "test_00002.png").read_bytes()


def test_the_same_bytes_as_the_command(data, untrained, served, mask, tmp_path):
    result = paint(data, untrained, tmp_path / "results", "--batch_size", 1)
    assert result.returncode == 0, result.stderr
    for example in served.facts()["examples"]:
        painted = served.picture(
            (data / "val_A_labels_resized" / f"{example['name']}.png").read_bytes(), name=example["name"], reference=example["reference"]
        )
        assert painted == (tmp_path / "results" / f"{example['name']}.jpg").read_bytes()
    listing = json.loads((data / "label_to_img.json").read_text())
    photo = (data / "train_resized" / "imgs" / listing["test_00002.png"]).read_bytes()
    own = json.loads(served.ask("POST", "/photos", photo).read())["id"]
    assert served.picture(mask, name="test_00002", reference=own) == (tmp_path / "results" / "test_00002.jpg").read_bytes()


def test_words_for_each_file_are_not_for_the_page(data, untrained, tmp_path):
    words = ["--serve", "--prompts", tmp_path / "prompts.json"]
    one_sentence(paint(data, untrained, tmp_path / "x", *words), "--serve", "by --prompt, not --prompts")


def test_steps_are_told_and_quick_ones_are_fewer(served, mask):
    told = events(served.paint(mask, options={"steps": 16}))
    steps = [event for event in told if event["event"] == "step"]
    assert [event["step"] for event in steps] == list(range(1, 17)) and all(event["steps"] == 16 for event in steps)
    previews = [Image.open(io.BytesIO(base64.b64decode(event["picture"]))) for event in steps if "picture" in event]
    assert len(previews) == 7 and previews[0].size == (48, 32)  # four pixels of each of 12x8 latent cells
    assert told[0] == {"event": "begun"} and told[-1]["event"] == "picture" and not told[-1]["quick"]
    quick = events(served.paint(mask, options={"steps": 16}, quick=True))
    assert len([event for event in quick if event["event"] == "step"]) == 5 and quick[-1]["quick"]
    assert quick[-1]["picture"] != told[-1]["picture"]


def test_the_newest_wish_wins_and_nobody_paints_for_those_who_left(served, mask):
    first = served.paint(mask, options={"steps": 1000})
    assert json.loads(first.readline()) == {"event": "begun"}
    start = time.monotonic()
    assert served.picture(mask)
    assert json.loads(first.read().splitlines()[-1]) == {"event": "superseded"}
    gone = served.paint(mask, options={"steps": 1000})
    assert json.loads(gone.readline()) == {"event": "begun"}
    gone.close()
    assert served.picture(mask)
    assert time.monotonic() - start < 20


def test_masks_of_any_depth_have_the_same_labels(served, data):
    path = data / "val_A_labels_resized" / "test_00001.png"
    labels, expected = read_mask(path), read_mask(path, SIZE)
    palette = Image.fromarray(labels, "P")
    palette.putpalette([*range(256)] * 3)
    files = [encode(labels, "PNG"), encode(labels.astype(np.uint16), "PNG"), io.BytesIO()]
    palette.save(files[2], "PNG")
    for content in (*files[:2], files[2].getvalue()):
        assert served.ask("POST", "/labels", content).read() == expected.tobytes()


def huge_png(width: int, height: int) -> bytes:
    """A PNG that says it is large, and is a few bytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


def test_wishes_that_cannot_be_are_refused_in_a_sentence(served, mask):
    def refusal(answer) -> tuple[int, str]:
        return answer.status, json.loads(answer.read())["error"]

    def text(content: bytes) -> str:
        return base64.b64encode(content).decode()

    wrong = [
        ({"options": {"steps": 0}}, 422, "--steps"),
        ({"options": {"steps": "3"}}, 422, "--steps"),
        ({"options": {"guidance": 1e999}}, 422, "--guidance"),
        ({"options": {"lora": "/etc/passwd"}}, 422, "option"),
        ({"options": []}, 400, ""),
        ({"adapters": [1.0]}, 422, "0 adapters"),
        ({"adapters": ["/etc/passwd"]}, 422, "0 adapters"),
        ({"reference": 10**6}, 422, "reference"),
        ({"reference": "0" * 32}, 410, "again"),
        ({"reference": "../../etc/passwd"}, 410, "again"),
        ({"reference": True}, 400, ""),
        ({"seed": -1}, 400, ""),
        ({"seed": 1.5}, 400, ""),
        ({"name": "../x"}, 400, ""),
        ({"name": "x" * 101}, 400, ""),
        ({"quick": 1}, 400, ""),
        ({"color_match": "none; rm"}, 400, ""),
        ({"mask": "!"}, 400, ""),
        ({"mask": text(b"x")}, 422, "PNG"),
        ({"mask": text(encode(np.full((4, 4), 29, np.uint8), "PNG"))}, 422, "label over 28"),
        ({"mask": text(huge_png(60_000, 60_000))}, 422, ""),
        ({"mask": text(huge_png(512, 384))}, 422, "decoded"),
    ]
    for changed, status, needle in wrong:
        found = refusal(served.paint(mask, **changed))
        assert found[0] == status and needle in found[1], (changed, found)
    for body in (b"", b"[]", b"null", b"{", b"[" * 100_000, b"\xff", b'{"mask": NaN}'):
        assert refusal(served.ask("POST", "/paint", body))[0] == 400
    for path in ("/photos", "/labels"):
        for content in (b"", b"GIF89a", huge_png(40_000, 40_000), b"%!PS-Adobe", mask[:60]):
            assert refusal(served.ask("POST", path, content))[0] == 422
    assert refusal(served.ask("POST", "/judge", mask)) == (
        404,
        "No judge has been trained: MainTrain.py --system judge trains one, which sees the mask in a photo.",
    )
    assert refusal(served.ask("POST", "/labels", b"x" * (16 * 2**20 + 1)))[0] == 413
    assert served.picture(mask)


def test_hostile_requests_do_no_harm(served, mask):
    counts = attack(served, 200, seed=0, clients=50)
    assert sum(counts.answers.values()) >= 200 and not counts.harm, counts
    assert served.picture(mask)


@dataclass(frozen=True)
class OneNumber:
    noise: float = option(1.0, "of something", least=0)
    file: str = option("", "that the page must not name")

    def faults(self) -> list[str]:
        return []


class Plain:
    """A painter that paints in one go."""

    size = (96, 64)
    color_match = "none"

    def paint(self, masks, references, *others):
        return references


class HalfSky:
    """A judge that sees sky above and sea below, whatever the photo."""

    def labels(self, pictures, size):
        return np.repeat(np.array([1, 3], np.uint8), size[1] // 2)[None, :, None].repeat(size[0], axis=2)


@pytest.fixture
def plain(data) -> Studio:
    return Studio(Plain(), OneNumber(), "none", 3, resize, HalfSky(), *to_choose_from(find_test_pairs(data, data), data), "plain", False)


def test_a_painter_without_steps_is_served_too(plain):
    facts = plain.facts()
    assert not facts["in_steps"] and [option["name"] for option in facts["options"]] == ["noise"]
    told = []
    last = plain.painting(np.zeros((64, 96), np.uint8), plain.reference(0), "x", 0, plain.options, "none", quick=True)(told.append)
    assert told == [{"event": "begun"}] and last["event"] == "picture"


def test_the_mask_of_a_photo_is_what_the_judge_sees(data, plain):
    class Client:
        sent = b""

        def send(self, piece):
            self.sent += piece

        def check(self):
            pass

    worker, client = Worker(), Client()
    threading.Thread(target=worker.work, daemon=True).start()
    photo = sorted((data / "train_resized" / "imgs").iterdir())[0].read_bytes()
    routes_of(plain, worker)[("POST", "/judge")].answer(photo).stream(client)
    begun, seen = map(json.loads, client.sent.splitlines())
    mask = np.array(Image.open(io.BytesIO(base64.b64decode(seen["mask"]))))
    assert begun == {"event": "begun"} and mask.shape == SIZE[::-1] and (mask[:192] == 1).all() and (mask[192:] == 3).all()
