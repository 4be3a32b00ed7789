"""A short while of hostile use; `python3 tests/fuzz.py --minutes 30` is the long one."""

import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).with_name("fuzz.py")


@pytest.mark.bit_for_bit
def test_hostile_use_loses_nothing_and_is_told_in_sentences():
    result = subprocess.run([sys.executable, FUZZ, "--minutes", "0.6", "--seed", "8"], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]
    assert " 0 failures" in result.stdout
