"""The questions as a page, for raters who have a browser and a link; and, for the owner, how far they are."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from hmac import compare_digest
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from alignzoo.common.disk import is_full
from alignzoo.data.rows import Row
from alignzoo.errors import UserError
from alignzoo.label import stats
from alignzoo.label.access import HERE, OWNER
from alignzoo.label.items import Answer, Item, QuestionKind, Scale, last_content, read_answer
from alignzoo.label.journal import RaterAnswer, data_rows
from alignzoo.label.markup import editable, passages, visible
from alignzoo.label.session import Session
from alignzoo.label.work import Work

LONGEST_POST = 4_000_000  # bytes
FIELDS = 200  # of a form, at most
ANSWERED = "You have answered this elsewhere meanwhile, and that stands. Undo takes it back."
GONE = "That question is no longer asked."


class Refused(Exception):
    """(status, why): a request that is answered by that alone."""


class Shown(NamedTuple):
    """What a rater sees: a question other than the next one, with what was said of it, and what there is to say first."""

    message: str = ""
    status: int = 200
    before: RaterAnswer | None = None


class Page:
    """An ASGI application. A rater is who has one of the `tokens` ({token: rater}); every answer is on disk when the next
    question is sent. Posts need the token in the form: a page elsewhere, which has none, can't make a browser post.

    With `here` it answers by the names of this machine alone, so that no name of a site leads to it.
    """

    def __init__(self, works: Callable[[], Sequence[Work]], tokens: Mapping[str, str], here: bool = True) -> None:
        self.works, self.tokens, self.here = works, tokens, here
        environment = Environment(
            loader=FileSystemLoader(Path(__file__).with_name("templates")), autoescape=True, undefined=StrictUndefined,
            trim_blocks=True, lstrip_blocks=True,
        )  # fmt: skip
        environment.filters.update(passages=passages, visible=visible, editable=editable, content=last_content)
        self.template = environment.get_template("page.html")
        self.shown_to_owner: tuple[list[RaterAnswer], list[stats.Table]] = [], []
        self.app = Starlette(routes=[Route("/", self._respond, methods=["GET", "POST"])])

    async def _respond(self, request: Request) -> Response:
        try:
            self._check(request)
            form = await _form(request) if request.method == "POST" else None
            return await run_in_threadpool(self._answer, request.query_params.get("token", ""), form)
        except Refused as refusal:
            status, why = refusal.args
            return self._html({"view": "refused"}, Shown(why, status))
        except ClientDisconnect:
            return Response(status_code=400)  # which nobody gets
        except (UserError, OSError) as error:  # the page keeps what was said, and sends it again
            why = "the disk is full" if is_full(error) else str(error)
            return PlainTextResponse(visible(why) if form is None else f"Not kept: {visible(why)}", 500)

    def _check(self, request: Request) -> None:
        """Raises Refused for a request by a strange name of this machine, and for a post from elsewhere."""
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        try:
            name, source = urlsplit(f"//{host}").hostname, origin and urlsplit(origin).netloc
        except ValueError:
            raise Refused(400, "That is no request of a browser.") from None
        if self.here and name not in HERE:
            raise Refused(403, "This page is on 127.0.0.1 alone.")
        if request.method == "POST" and origin is not None and source != host:
            raise Refused(403, "Answers are taken from this page alone.")

    def _answer(self, address_token: str, form: Mapping[str, str] | None) -> Response:
        token = address_token if form is None else form.get("token", "")
        rater = next((name for key, name in self.tokens.items() if compare_digest(key.encode(), token.encode())), None)
        if rater is None or (rater == OWNER and form is not None):
            raise Refused(403, "This link is not valid. Ask whoever sent it for another.")
        if rater == OWNER:
            return self._owner()
        session = Session(works=self.works, rater=rater)
        shown = _kept(session, form) if form else Shown()
        turn = session.turn()
        about, scale = (shown.before.item, session.item(shown.before.item.id)[1]) if shown.before else (turn.about, turn.scale)
        return self._html(
            {
                "view": about.kind.value if about else "nothing", "token": token, "rater": rater, "turn": turn, "about": about,
                "scale": scale, "places": session.places(about) if about else [],
            },
            shown,
        )  # fmt: skip

    def _owner(self) -> Response:
        works = self.works()
        answers = [answer for work in works for answer in work.answers()]
        progress = [
            (name, Session(works=lambda: works, rater=name).turn(), token)
            for token, name in self.tokens.items()
            if name != OWNER
        ]
        if answers != self.shown_to_owner[0]:  # which takes a while of thousands
            rows = [Row("an answer", row, row, {}) for row in data_rows(answers)]
            self.shown_to_owner = answers, stats.tables(rows)
        notes = [answer for answer in reversed(answers) if answer.note]
        return self._html({"view": "owner", "progress": progress, "tables": self.shown_to_owner[1], "notes": notes}, Shown())

    def _html(self, values: Mapping[str, object], shown: Shown) -> Response:
        nonce = secrets.token_urlsafe(16)
        html = self.template.render(**values, message=shown.message, before=shown.before, nonce=nonce)
        policy = (
            f"default-src 'none'; img-src data:; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; "
            "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
        )
        headers = {
            "Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store",
            "Referrer-Policy": "same-origin",  # to others, no token
        }  # fmt: skip
        return HTMLResponse(html, shown.status, headers)


async def _form(request: Request) -> dict[str, str]:
    """Raises Refused for one that is too long."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LONGEST_POST:
            raise Refused(413, "That is too long.")
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=FIELDS))
    except ValueError:
        raise Refused(400, "That is no answer.") from None


def _kept(session: Session, form: Mapping[str, str]) -> Shown:
    """What comes of a form: an answer, kept or not, or one that is taken back."""
    try:
        if "undo" in form:
            return Shown(before=session.undo(form["undo"]))
        about, scale = session.item(form.get("item", ""))
        answer = None if "skip" in form else _read(form, about, scale)
        if session.answer(about, answer, editable(form.get("note", "")).strip()):
            return Shown()
    except LookupError:
        return Shown(GONE, 410)
    except ValueError as error:
        return Shown(f"{error}.", 400)
    return Shown(ANSWERED, 409)


def _read(form: Mapping[str, str], about: Item, scale: Scale) -> Answer:
    """In the order shown. Raises ValueError for what is no answer."""
    if about.kind is QuestionKind.rankings:
        return read_answer([form.get(f"rank{place}", "") for place in range(len(about.completions))], about, scale)
    content = editable(form.get("content", ""))
    if about.kind is QuestionKind.corrections:
        before = last_content(about.completions[0])
        unchanged = "right" in form or content == editable(before)
        return read_answer(before if unchanged else content, about, scale)
    return read_answer(form.get("said", ""), about, scale)
