import json

import pytest
from PIL import Image

from datasets.styles import check_styles, find_style_prompts, style_of
from datasets.synthetic.write_styles import write_styles
from utils.errors import UserError


@pytest.fixture
def root(tmp_path):
    write_styles(tmp_path / "styles", styles=2, pictures=3, prompts=2, size=(64, 48))
    return tmp_path / "styles"


def test_a_drawn_set_is_read_with_its_captions_and_prompts(root):
    styles = check_styles(root)
    assert {style: len(pairs) for style, pairs in styles.items()} == {"01": 3, "02": 3}
    for style, pairs in styles.items():
        assert [pair.captions for pair in pairs] == [(f"{pair.image.stem}, style{style}",) for pair in pairs]
    prompts = find_style_prompts(root)
    listed = json.loads((root / "02" / "prompt.json").read_text())
    assert [pair.stem for pair in prompts][2:] == [f"02/{text}" for text in listed.values()]
    assert prompts[3].caption == f"{listed['1']}, style02" and (root / "02" / "truth" / f"{listed['1']}.png").is_file()
    (root / "02" / "prompt.json").write_text(json.dumps(listed | {"9": listed["0"]}))
    assert find_style_prompts(root) == prompts
    assert not {pair.stem for pair in prompts} & {f"{style}/{pair.stem}" for style, pairs in styles.items() for pair in pairs}


def test_faults_are_named_in_one_report(root):
    first = sorted((root / "01" / "images").iterdir())[0]
    first.write_bytes(b"no picture")
    Image.new("RGB", (8, 8)).save(root / "01" / "images" / f"{sorted((root / '01' / 'images').iterdir())[1].stem}.jpg")
    for path in (root / "02" / "images").iterdir():
        path.unlink()
    with pytest.raises(UserError) as error:
        check_styles(root)
    assert all(word in str(error.value) for word in (first.name, "second file of this name", "no picture of this style"))
    (root / "02" / "prompt.json").write_text('{"0": "a/b", "1": ""}')
    with pytest.raises(UserError, match="cannot be a file's name"):
        find_style_prompts(root)
    for path in root.glob("*/prompt.json"):
        path.unlink()
    with pytest.raises(UserError, match="Nothing to paint in"):
        find_style_prompts(root)
    with pytest.raises(UserError, match="holds no style"):
        check_styles(root / "01")


def test_a_caption_says_its_style():
    assert [style_of(text) for text in ("a lake, style07", "a lake, style7", "style07 lake", "")] == ["07", None, None, None]
