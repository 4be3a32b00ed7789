from datasets.prepare import clean
from datasets.prepare.clean import Look, superfluous


def looks(**pixels):
    return {stem: Look((count, 100), 20.0, {}, None) for stem, count in pixels.items()}


def test_of_each_group_the_best_photo_stays(monkeypatch):
    """Also where not each of a group is like each other."""
    monkeypatch.setattr(clean, "duplicates", lambda prints: [(0, 1, False), (1, 2, True), (3, 4, False), (5, 6, False)])
    found = list(superfluous(looks(a=9, b=5, c=5, d=5, e=9, f=9, g=5, h=9), faulty={"f"}))
    assert found == [("b", "a", False), ("c", "a", False), ("d", "e", False), ("f", "g", False)]
    monkeypatch.setattr(clean, "duplicates", lambda prints: [(0, 1, True)])
    assert list(superfluous(looks(b=5, a=5), faulty=set())) == [("b", "a", True)]
