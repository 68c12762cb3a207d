"""One generation at a time: requests stand in line for the thread that asks the model.

A Job's events pass through a queue, so a slow reader delays nobody, and a reader that left only has to set `cancelled`.
"""
import queue
import threading
import time
import traceback

from runtime.cli import UserError

WAITING, LIMIT = 8, 600         # jobs in line behind the one that runs; seconds that one may take


class Stopped(Exception):
    """Ends an answer: its client went away, or it took too long."""


class Refused(Exception):
    """(HTTP status, what is wrong)."""


class Job:
    """work(emit) runs in the model's thread; what it emits waits in `events` for the thread of its request."""
    def __init__(self, work):
        self.work, self.events = work, queue.SimpleQueue()
        self.cancelled, self.deadline = False, None

    def emit(self, event) -> None:
        if self.cancelled:
            raise Stopped("the client went away")
        if time.monotonic() > self.deadline:
            raise Stopped(f"an answer may take {LIMIT} seconds")
        self.events.put(event)

    def run(self) -> None:
        self.deadline = time.monotonic() + LIMIT
        try:
            if not self.cancelled:
                self.work(self.emit)
            self.events.put(None)
        except (UserError, Stopped) as error:
            self.events.put(error)
        except Exception:
            traceback.print_exc()
            self.events.put(Stopped("something went wrong; the terminal where chat.py runs says what"))


class Line:
    """The jobs in order of arrival; the first one is being worked on."""
    def __init__(self):
        self.jobs, self.changed = [], threading.Condition()

    def join(self, job: Job) -> None:
        with self.changed:
            if len(self.jobs) > WAITING:
                raise Refused(503, f"{WAITING} others are waiting already; try again later")
            self.jobs.append(job)
            self.changed.notify()

    def place(self, job: Job) -> int:
        """How many are before it."""
        with self.changed:
            return self.jobs.index(job) if job in self.jobs else 0

    def work(self, ended: threading.Event) -> None:
        """The model's thread: until `ended`."""
        while not ended.is_set():
            with self.changed:
                if not self.jobs:
                    self.changed.wait(0.5)          # not for ever, so that Ctrl-C is heard on Windows too
                    continue
                job = self.jobs[0]
            try:
                job.run()
            finally:
                with self.changed:
                    self.jobs.remove(job)
