"""The page and the calls that it makes, as a Starlette application."""

from __future__ import annotations

import asyncio
import contextlib
import math
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import anyio.to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from hypercut_core.errors import HypercutError
from pipelines.ui.choices import Choice
from pipelines.ui.config import MOST_FRAMES, PLAYED, SIDES, UiConfig
from pipelines.ui.guard import Guard
from pipelines.ui.rate import RateLimit
from pipelines.ui.restoring import Job, Restorer, film, picture
from pipelines.ui.sessions import Session, Sessions

Made = TypeVar("Made")
PAGE = Path(__file__).with_name("page")
FILES = {"/": ("page.html", "text/html"), "/page.css": ("page.css", "text/css"),
         "/page.js": ("page.js", "text/javascript")}
KINDS = {"gif": "image/gif", "mp4": "video/mp4", "zip": "application/zip"}


class Refused(Exception):
    """A call that cannot be answered, and why, for people."""

    def __init__(self, status: int, what: str, remedy: str = "", wait: float = 0.0):
        super().__init__(what)
        self.status, self.what, self.remedy, self.wait = status, what, remedy, wait


class Page:
    """What the calls share. All of them are short, but for the upload and the making of films."""

    def __init__(self, config: UiConfig, choices: Sequence[Choice], sessions: Sessions, restorer: Restorer):
        self.config, self.sessions, self.restorer = config, sessions, restorer
        self.choices = {choice.key: choice for choice in choices}
        self.photos, self.films = RateLimit(config.photos_a_minute), RateLimit(config.films_a_minute)
        self.visits = RateLimit(config.films_a_minute)
        self._film_makers = anyio.CapacityLimiter(2)

    async def offer(self, request: Request) -> Response:
        """What can be chosen, and the limits."""
        return JSONResponse({
            "models": [{"key": choice.key, "label": choice.label} for choice in self.choices.values()],
            "sides": SIDES, "played": PLAYED, "mostFrames": MOST_FRAMES, "maxBytes": self.config.max_bytes})

    async def begin(self, request: Request) -> Response:
        """A new session."""
        _limit(self.visits, request)
        key = self.sessions.new()
        if key is None:
            raise Refused(503, "too many people are here at once", "try again in some minutes")
        return JSONResponse({"session": key}, 201)

    async def end(self, request: Request) -> Response:
        """Nothing of a session is kept."""
        self.sessions.close(request.headers.get("x-hypercut", ""))
        return Response(status_code=204)

    async def photo(self, request: Request) -> Response:
        """Take a photo, the body of the call, into the line."""
        session = self._session(request)
        choice = self.choices.get(request.query_params.get("model", ""))
        side = _whole(request, "side", SIDES[0])
        if choice is None or side not in SIDES:
            raise Refused(400, "there is no such model or size", "load the page again")
        _limit(self.photos, request)
        if self.restorer.waiting() >= self.config.waiting:
            raise Refused(503, "too many photos are waiting", "try again in a minute")
        folder = _folder_in(session)
        job = Job(folder, choice.path, side, request.query_params.get("careful") == "1", self.config.max_pixels)
        try:
            await self._receive(request, job)
            if not session.open:
                raise Refused(410, "this session has ended")
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        session.replace_job(job)
        self.restorer.add(job)
        return JSONResponse({}, 202)

    async def _receive(self, request: Request, job: Job) -> None:
        """The body to the job's folder, no more of it than is allowed."""
        limit, size = self.config.max_bytes, 0
        refused = Refused(413, f"the photo is larger than {limit / 2**20:.4g} MiB", "choose a smaller one")
        try:
            with job.upload.open("wb") as out:
                async with asyncio.timeout(self.config.patience):
                    async for chunk in request.stream():
                        size += len(chunk)
                        if size <= limit:
                            out.write(chunk)
                        elif size > 2 * limit:  # up to here it is swallowed: a browser hears no answer while it sends
                            raise refused
            if size > limit:
                raise refused
        except TimeoutError:
            raise Refused(408, "the photo came too slowly", "try again, or choose a smaller one") from None

    async def state(self, request: Request) -> Response:
        """How far the photo is; also a sign that the page is still open."""
        job = self._session(request).job
        if job is None:
            return JSONResponse({"stage": "none"})
        return JSONResponse({"stage": job.stage, "ahead": self.restorer.ahead(job), "frames": job.frames,
                             "width": job.size[0], "height": job.size[1], "what": job.problem,
                             "remedy": job.remedy})

    async def frame(self, request: Request) -> Response:
        """JPEG of the blurry photo (0) or of a frame (1 ..)."""
        job, number = self._done(request), request.path_params["number"]
        if not 0 <= number <= job.frames:
            raise Refused(404, "there is no such frame")
        return Response(await _of_files(picture, job, number), media_type="image/jpeg")

    async def film(self, request: Request) -> Response:
        """A download."""
        job, kind = self._done(request), request.path_params["kind"]
        count, fps = _whole(request, "frames", job.frames), _whole(request, "fps", 10)
        if kind not in KINDS or not 1 <= count <= MOST_FRAMES or fps not in PLAYED:
            raise Refused(400, f"such a download cannot be made; a film has 1 to {MOST_FRAMES} frames")
        _limit(self.films, request)
        flags = [request.query_params.get(name) == "1" for name in ("reverse", "bounce")]
        path = await _of_files(film, job, kind, count, *flags, float(fps), limiter=self._film_makers)
        stream = path.open("rb")
        path.unlink()  # the open file lives until it is sent
        if job.given_up:  # making it may have made its folder again
            job.remove()
        size = {"content-length": str(stream.seek(0, 2))}
        stream.seek(0)
        return StreamingResponse(_chunks(stream), media_type=KINDS[kind], headers=size)

    def _session(self, request: Request) -> Session:
        session = self.sessions.get(request.headers.get("x-hypercut", ""))
        if session is None:
            raise Refused(410, "this session has ended and nothing of it was kept", "choose the photo again")
        return session

    def _done(self, request: Request) -> Job:
        job = self._session(request).job
        if job is None or job.stage != "done":
            raise Refused(409, "there is no restored photo yet", "choose one first")
        return job


def application(page: Page) -> Starlette:
    """The ASGI application."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        sweeper = asyncio.create_task(_sweep(page.sessions))
        yield
        sweeper.cancel()

    routes = [Route(path, _static) for path in FILES]
    routes += [Route("/api/offer", page.offer), Route("/api/session", page.begin, methods=["POST"]),
               Route("/api/session", page.end, methods=["DELETE"]), Route("/api/photo", page.photo, methods=["POST"]),
               Route("/api/state", page.state), Route("/api/frame/{number:int}", page.frame),
               Route("/api/film/{kind}", page.film)]
    return Starlette(routes=routes, lifespan=lifespan, middleware=[Middleware(Guard, names=page.config.names)],
                     exception_handlers={Refused: _refuse, HypercutError: _explain, HTTPException: _http,
                                         ClientDisconnect: _gone})


async def _static(request: Request) -> Response:
    name, kind = FILES[request.url.path]
    return Response((PAGE / name).read_bytes(), media_type=kind)


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    headers = {"retry-after": str(math.ceil(error.wait))} if error.wait else None
    return JSONResponse({"what": error.what, "remedy": error.remedy}, error.status, headers)


async def _explain(request: Request, error: Exception) -> Response:
    assert isinstance(error, HypercutError)  # `where` is a path on this machine: not for visitors
    return JSONResponse({"what": error.what, "remedy": error.remedy or ""}, 500)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"what": error.detail}, error.status_code)


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=499)  # nobody hears it


async def _sweep(sessions: Sessions) -> None:
    while True:
        await asyncio.sleep(min(5.0, sessions.keep))
        await anyio.to_thread.run_sync(sessions.expire)


async def _of_files(make: Callable[..., Made], job: Job, *words: Any,
                    limiter: anyio.CapacityLimiter | None = None) -> Made:
    """Run what reads a job's files in a thread; the page may have been closed meanwhile."""
    try:
        return await anyio.to_thread.run_sync(make, job, *words, limiter=limiter)
    except OSError as error:
        if job.given_up:
            raise Refused(410, "this photo was given up") from error
        raise


def _folder_in(session: Session) -> Path:
    try:
        return Path(tempfile.mkdtemp(prefix="photo-", dir=session.folder))
    except OSError as error:
        if not session.open:
            raise Refused(410, "this session has ended") from error
        raise


def _limit(limit: RateLimit, request: Request) -> None:
    wait = limit.wait(request.client.host if request.client else "")
    if wait:
        raise Refused(429, "that was too much in one minute", f"try again in {math.ceil(wait)} seconds", wait)


def _whole(request: Request, name: str, usual: int) -> int:
    text = request.query_params.get(name, str(usual))
    if not (text.isascii() and text.isdigit() and len(text) < 6):
        raise Refused(400, f"'{name}' must be a whole number")
    return int(text)


def _chunks(stream: BinaryIO) -> Iterator[bytes]:
    with stream:
        while chunk := stream.read(2**18):
            yield chunk
