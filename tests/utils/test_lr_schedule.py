import pytest

from utils.lr_schedule import warmup_cosine


def test_warmup_is_linear_and_reaches_the_peak():
    rates = [warmup_cosine(step, peak=1.0, warmup=4, total=12) for step in range(5)]
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])


def test_cosine_falls_to_the_floor_and_stays():
    def rate(step):
        return warmup_cosine(step, peak=1.0, warmup=2, total=10, floor=0.2)

    assert rate(6) == pytest.approx(0.6)  # half-way between peak and floor
    assert rate(4) == pytest.approx(0.2 + 0.8 * 0.853553, abs=1e-6)  # a quarter of the way: (1 + cos 45 degrees) / 2
    assert rate(10) == rate(1000) == pytest.approx(0.2)
    assert all(rate(step) > rate(step + 1) for step in range(2, 10))


def test_no_warmup_and_a_run_that_is_all_warmup():
    assert warmup_cosine(0, peak=3.0, warmup=0, total=10) == 3.0
    assert warmup_cosine(9, peak=3.0, warmup=10, total=10) == 3.0
    assert warmup_cosine(10, peak=3.0, warmup=10, total=10) == pytest.approx(3.0)
