"""Lists of pictures to leave out: written, edited, read, and kept to."""

import pytest

from datasets.leave_out import read_leave_out, write_leave_out
from datasets.pairs import check_training_pairs
from tests.datasets.files import save_mask, save_picture, stems, truncate
from utils.errors import UserError

STEMS = {"a", "b.1", "c d", "#e", "湖"}


@pytest.fixture
def listing(tmp_path):
    return tmp_path / "list.txt"


def test_what_is_written_is_read(listing):
    no_utf8 = b"\xce\xf7".decode(errors="surrogateescape")
    reasons = {"a": "grey", "c d": "framed: left 4;\nduplicate of a", "#e": "", "湖": "grey", no_utf8: "grey"}
    write_leave_out(listing, reasons, ["what", "and why"])
    assert read_leave_out(listing, STEMS | {no_utf8}) == reasons.keys()
    assert listing.read_bytes().startswith(b"# what\n# and why\n#e\t\na\tgrey\nc d\tframed: left 4; duplicate of a\n")


def test_a_list_may_be_written_by_hand(listing):
    """By an editor of another system, with names of files, some of them twice."""
    listing.write_bytes("\ufeffa.JPG\r\n\r\n  c d  \r\n# 湖\r\n#\r\na\tagain\r\nb.1\r\n".encode())
    assert read_leave_out(listing, STEMS) == {"a", "b.1", "c d"}
    listing.write_text("")
    assert read_leave_out(listing, STEMS) == set()


def test_every_line_that_is_no_picture_is_named(listing):
    listing.write_text("x\na\ny.jpg\tgrey\n")
    with pytest.raises(UserError, match=r"list\.txt names 2 pictures that there are not: x, y\. Take these lines out"):
        read_leave_out(listing, STEMS)


def test_a_list_that_leaves_nothing_or_cannot_be_read_is_refused(listing, tmp_path):
    write_leave_out(listing, dict.fromkeys(STEMS, "grey"), [])
    with pytest.raises(UserError, match=r"list\.txt leaves out all 5 pictures"):
        read_leave_out(listing, STEMS)
    for path, reason in ((tmp_path / "nowhere", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(UserError, match=f"{path}.*cannot be read: {reason}"):
            read_leave_out(path, STEMS)


def test_what_is_left_out_of_training_may_be_damaged_or_alone(root, imgs, masks, listing, capsys):
    truncate(imgs / "a.jpg")
    (masks / "b.png").unlink()
    save_picture(imgs / "c.png")  # beside c.jpg
    save_picture(imgs / "e.jpg")
    save_mask(masks / "e.png")
    listing.write_text("a\nb\nc\n")
    assert stems(check_training_pairs(root, leave_out=listing)) == ["d", "e"]
    assert f"3 pictures are left out, as {listing} says" in capsys.readouterr().out
    (imgs.parent / "captions.json").write_text('{"a.jpg": "", "b": 7, "b.jpg": "water", "d": "a lake"}')
    assert [pair.captions for pair in check_training_pairs(root, leave_out=listing)] == [("a lake",), ()]
    (imgs.parent / "captions.json").write_text('{"a": "", "d": "", "x": "a lake"}')
    with pytest.raises(UserError, match="2 faults"):
        check_training_pairs(root, leave_out=listing)
    (imgs.parent / "captions.json").unlink()
    listing.write_text("a\nb\n")
    with pytest.raises(UserError, match="second file of this name: 1"):
        check_training_pairs(root, leave_out=listing)
