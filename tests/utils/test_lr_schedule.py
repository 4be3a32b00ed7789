import pytest

from utils.lr_schedule import warmup_cosine, warmup_halving, warmup_linear


def test_warmup_is_linear_and_reaches_the_peak():
    lr = warmup_cosine(peak=1.0, warmup=4, total=12)
    assert [lr(step) for step in range(5)] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])


def test_cosine_falls_to_the_floor_and_stays():
    lr = warmup_cosine(peak=1.0, warmup=2, total=10, floor=0.2)
    assert lr(6) == pytest.approx(0.6)  # half-way between peak and floor
    assert lr(4) == pytest.approx(0.2 + 0.8 * 0.853553, abs=1e-6)  # a quarter of the way: (1 + cos 45 degrees) / 2
    assert lr(10) == lr(1000) == pytest.approx(0.2)
    assert all(lr(step) > lr(step + 1) for step in range(2, 10))


def test_no_warmup_and_a_run_that_is_all_warmup():
    assert warmup_cosine(peak=3.0, warmup=0, total=10)(0) == 3.0
    assert warmup_cosine(peak=3.0, warmup=10, total=10)(9) == 3.0
    assert warmup_cosine(peak=3.0, warmup=10, total=10)(10) == pytest.approx(3.0)


def test_halving_after_a_warmup():
    lr = warmup_halving(peak=8.0, warmup=2, every=3)
    assert [lr(step) for step in range(8)] == [4.0, 8.0, 8.0, 4.0, 4.0, 4.0, 2.0, 2.0]


def test_a_line_falls_to_zero_after_a_while():
    lr = warmup_linear(peak=2.0, warmup=2, hold=4, total=8)
    assert [lr(step) for step in range(10)] == pytest.approx([1, 2, 2, 2, 2, 1.5, 1, 0.5, 0, 0])
    assert warmup_linear(peak=1.0, warmup=1, hold=3, total=3)(2) == 1.0
