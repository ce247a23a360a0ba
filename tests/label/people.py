"""People who answer at once."""

import contextlib
import json
import threading

from alignzoo.label import requests
from alignzoo.label.work import of_request


class GoesHomeError(Exception):
    """Raised by somebody who answers no more."""


class Person:
    """Answers the requests of a folder, in a thread, as `answer(item)` says."""

    def __init__(self, folder, answer, name="ann"):
        self.folder, self.answer, self.name, self.over = folder, answer, name, threading.Event()
        self.seen = []
        self.thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()

    def _work(self):
        with contextlib.suppress(GoesHomeError):
            self._answer_all()

    def _answer_all(self):
        while not self.over.wait(0.005):
            for request in requests.in_folder(self.folder) if self.folder.exists() else []:
                if request not in self.seen:
                    self.seen.append(request)
                    items = requests.read(request).items
                    self._write(request, [{"id": one.id, "answer": self.answer(one), "rater": self.name} for one in items])

    def _write(self, request, answers):
        with requests.answers_of(request).open("a") as file:
            file.writelines(json.dumps(answer) + "\n" for answer in answers)


class Browsing(Person):
    """The same on the page of the folder."""

    def _answer_all(self):
        from tests.label.served import Served, Visitor

        with Served(lambda: [of_request(path) for path in requests.in_folder(self.folder)], {"token": self.name}) as served:
            visitor = Visitor(served.address, "token")
            while not self.over.wait(0.005):
                while (seen := visitor.look()).item:
                    self.seen = requests.in_folder(self.folder)
                    (about,) = [one for path in self.seen for one in requests.read(path).items if one.id == seen.item]
                    visitor.say(seen.item, said=str(self.answer(about)))
