"""The one thread that computes, and what the others ask of it. The newest request wins: what waits or runs for an older one is given up."""

import queue
import sys
import threading
from collections.abc import Callable

from utils.errors import UserError, telling_of_memory
from utils.web import UNFORESEEN

LESS_MEMORY = "start with --amp bfloat16, or with an option of the painter that takes less (--help)"
SUPERSEDED = {"event": "superseded"}


class GivenUp(Exception):
    """What a job raises, from `tell`, when nobody wants its result any more."""


class Job:
    """Work for the computing thread: `work(tell)` tells what it has made so far, event by event, and returns the last one. `events` hands
    them on to the thread that asked."""

    def __init__(self, work: Callable[[Callable[[dict], None]], dict]):
        self.work = work
        self.events: queue.SimpleQueue[dict | None] = queue.SimpleQueue()  # None is the end
        self.given_up = threading.Event()

    def tell(self, event: dict) -> None:
        """Raises GivenUp."""
        if self.given_up.is_set():
            raise GivenUp
        self.events.put(event)

    def give_up(self) -> None:
        self.given_up.set()

    def end(self, event: dict) -> None:
        """The last event, and the end."""
        self.events.put(event)
        self.events.put(None)

    def run(self) -> None:
        """Does the work; what goes wrong with it is told as an event too."""
        try:
            with telling_of_memory(LESS_MEMORY):
                self.end(self.work(self.tell))
        except GivenUp:
            self.end(SUPERSEDED)
        except UserError as error:
            self.end({"event": "error", "error": str(error)})
        except Exception as error:
            print(f"A request could not be answered: {type(error).__name__}: {error}", file=sys.stderr)
            sentence, kind = UNFORESEEN
            self.end({"event": "error", "error": sentence, "kind": kind})


class Worker:
    """Any thread may `submit`; one alone, that which owns Jittor, may `work`."""

    def __init__(self):
        self.changed = threading.Condition()
        self.waiting: Job | None = None
        self.running: Job | None = None

    def submit(self, job: Job) -> None:
        """Has the job done next. Those before it are given up, at their next `tell`."""
        with self.changed:
            for older in (self.waiting, self.running):
                if older is not None:
                    older.give_up()
            if self.waiting is not None:
                self.waiting.end(SUPERSEDED)
            self.waiting = job
            self.changed.notify()

    def work(self) -> None:
        """Does what is submitted, for ever: until an exception, such as KeyboardInterrupt, that is no `Exception`."""
        while True:
            with self.changed:
                while self.waiting is None:
                    self.changed.wait(0.5)  # not without end: Ctrl-C reaches a thread between two waits
                self.running, self.waiting = self.waiting, None
            self.running.run()
            with self.changed:
                self.running = None
