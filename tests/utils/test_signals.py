"""Ctrl-C and SIGTERM sent to a process and to all that it has started, as a terminal and a batch system send them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from utils.signals import STOPS, ending_at_once

ROOT = Path(__file__).resolve().parents[2]
ASKED = {signal.SIGINT, signal.SIGTERM}  # after SIGHUP nobody reads what is printed


def start(script: str, *words) -> subprocess.Popen:
    """A script in a process group of its own, when it has printed its first line.

    The rest is to be read from its pipes: readline() may have read ahead, and communicate() does not know.
    """
    command = [sys.executable, "-c", script, *map(str, words)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, cwd=ROOT, text=True, stdout=pipe, stderr=pipe, start_new_session=True)
    assert process.stdout.readline() == "begun\n", process.communicate()[1]
    return process


COMPILING = """
import os, time
from utils import jittor_setup, signals
import jittor as jt

jt.flags.use_cuda = 0
seen = []
signals.on_stop(lambda number, frame: seen.append(int(number)))
print("begun", flush=True)
number = time.time_ns() % 1_000_003  # no such kernel has been compiled
assert jt.code([1], "int32", [jt.zeros(1)], cpu_src=f"@out(0) = {number};").item() == number
time.sleep(0.2)
print({*seen}, flush=True)
os._exit(0)
"""


def test_a_kernel_is_compiled_to_its_end_and_then_the_signals_are_seen():
    process = start(COMPILING)
    while process.poll() is None:
        for number in ASKED:
            os.killpg(process.pid, number)
        time.sleep(0.02)
    output, errors = process.stdout.read(), process.stderr.read()
    assert (process.returncode, output) == (0, "{2, 15}\n"), errors


SWALLOWING = """
import subprocess, sys, time
from utils.signals import ending_at_once

child = f"sleep 0.5; echo compiled > {sys.argv[1]}"
with ending_at_once("Stopped in the middle."):
    subprocess.Popen(child, shell=True)
    print("begun", flush=True)
    while True:
        try:
            time.sleep(60)
        except BaseException:
            pass
"""


@pytest.mark.parametrize("number", STOPS)
def test_the_process_ends_at_once_with_a_sentence_and_its_children_later(tmp_path, number):
    process = start(SWALLOWING, tmp_path / "output")
    os.killpg(process.pid, number)
    assert process.wait(10) == 128 + number
    assert process.communicate()[1] == ("Stopped in the middle.\n" if number in ASKED else "")
    deadline = time.monotonic() + 10
    while not (tmp_path / "output").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert (tmp_path / "output").exists()


def test_behind_the_block_all_is_as_before():
    seen = []
    handlers = {number: signal.signal(number, lambda number, frame: seen.append(number)) for number in STOPS}
    try:
        with ending_at_once("Stopped in the middle."):
            pass
        for number in STOPS:
            os.kill(os.getpid(), number)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert {*seen} == STOPS and not signal.pthread_sigmask(signal.SIG_BLOCK, []) & {*STOPS, signal.SIGUSR1}


def test_a_stop_before_anybody_waits_for_one_is_not_traced():
    script = "from utils import jittor_setup\nraise {}"
    for error, ending in (("KeyboardInterrupt", "Stopped.\n"), ("ValueError", "ValueError\n")):
        result = subprocess.run([sys.executable, "-c", script.format(error)], cwd=ROOT, text=True, capture_output=True)
        assert result.stderr.endswith(ending) and ("Traceback" in result.stderr) == (error == "ValueError")


THREADS = """
from utils import jittor_setup, signals
import {script}
print("begun", flush=True)
signals.on_stop(print)
ignored = next(line for line in open("/proc/self/status") if line.startswith("SigIgn"))
print(all(int(ignored.split()[1], 16) >> number - 1 & 1 for number in signals.STOPS))
"""


@pytest.mark.parametrize("script", ["MainTrain", "MainTest"])
def test_no_thread_of_the_scripts_takes_a_signal_from_the_one_that_waits(script):
    """Their imports start threads, which must have the signals blocked; else they cannot be ignored, and compilers would die by them."""
    process = start(THREADS.format(script=script))
    output, errors = process.stdout.read(), process.stderr.read()
    assert process.wait(60) == 0, errors
    assert output == "True\n"
