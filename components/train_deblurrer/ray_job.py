"""One training as a RayJob: created or found again, followed to its end, and gone afterwards, however that comes.

    created     under a name that follows from the training: a launcher that is tried again finds it and takes over
    followed    by watches that may break, be refused or fall behind; silence is borne for `Pace.patience`
    deleted     when it has ended, at the launcher's deadline, on cancel, on any error; and never another's: only
                this object (uid), and only while nobody else has taken it over

What a launcher cannot do when it is killed, Kubernetes does: the RayJob belongs to the launcher's pod and goes with
it, and KubeRay ends it when its `activeDeadlineSeconds` are over, which a living launcher moves on every few
minutes (`Pace.lease`). Two launchers: the one that came last looks after the RayJob; the other one sees its name in
the annotation replaced and leaves without touching anything.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable

from components.train_deblurrer import ray_job_status as status
from components.train_deblurrer.ray_job_api import Conflict, Expired, Job, Missing, NoAnswer, RayJobApi
from components.train_deblurrer.ray_job_patience import Clock, Pace, Patient
from hypercut_core.errors import HypercutError, Interrupted, RayJobError
from hypercut_core.signals import signals

UNSURE = 4  # looks for a RayJob whose creation was never answered, before it counts as not created


class Displaced(RayJobError):
    """Another launcher has taken the RayJob over; it runs on."""


class RayJobRun:
    """One launcher's care for one RayJob.

    Args:
        manifest: the RayJob, with `status.LAUNCHER` (this launcher) and `status.SPEC` in its metadata.
        deadline: s after its creation at which it is ended.
        say: gets a line for every change.
    """

    def __init__(self, api: RayJobApi, manifest: Job, deadline: float, say: Callable[[str], None], *,
                 clock: Clock | None = None, pace: Pace | None = None):
        self.api, self.manifest, self.deadline = api, manifest, deadline
        self.clock, self.pace = clock or Clock(), pace or Pace()
        self.name = str(manifest["metadata"]["name"])
        self._patient = Patient(f"RayJob {self.name}", say, self.clock, self.pace)
        self._ask, self._tell = self._patient.ask, self._patient.tell
        self.launcher = status.launcher(manifest)
        self._uid = ""  # of the RayJob that is ours; "": none is, as far as we know
        self._unsure = False  # a creation was sent, and no answer came
        self._renewed = -math.inf  # what is left of its lease is not known
        self._leaving = False

    def run(self) -> Job:
        """Returns the RayJob as it ended well.

        Raises:
            Displaced: another launcher looks after it.
            Interrupted: by SIGTERM or Ctrl-C; it is deleted.
            RayJobError: it failed, was deleted by others, took too long, or Kubernetes refused or was silent; what
                there was of it is deleted, or ends by itself where that is said.
        """
        self._patient.begin(self.pace.patience)
        with signals(self._stop):
            try:
                ended = self._follow(self._own())
                self._leaving = True
            except Displaced:
                raise
            except BaseException:
                self._leaving = True
                self._leave()
                raise
            self._leave()
        return ended

    def clear(self) -> None:
        """Delete what is left of it where its result is there already; never raises for it."""
        with signals(self._stop), contextlib.suppress(HypercutError):
            self._patient.begin(self.pace.farewell)
            job = self._ask(lambda: self.api.get(self.name))
            if job is not None and self._taken_over(job) is not None:
                self._leaving = True
                self._leave()

    # -- to have one --

    def _own(self) -> Job:
        """The RayJob, created or taken over."""
        started = self.clock.now()
        while self.clock.now() - started < self.pace.removal:
            job = self._ask(lambda: self.api.get(self.name))
            if job is None:
                job = self._created()
                if job is not None:
                    return self._mine(job)
            elif status.launcher(job) == self.launcher and not status.deleting(job):
                return self._mine(job)  # created by a request whose answer was lost
            elif status.deleting(job):
                self._tell("an earlier one is being deleted; waiting until it is gone")
            elif status.ended(job) and not (status.succeeded(job) and status.same_spec(job, self.manifest)):
                self._tell("an earlier one ended without a result; it is deleted")
                self._delete(job)
            elif not status.same_spec(job, self.manifest):
                raise RayJobError("a RayJob of this training runs with other settings", where=self._place,
                                  remedy=f"wait for its end, or end it: {self._kubectl('delete')}")
            else:
                taken = self._taken_over(job)
                if taken is not None:
                    return taken
            self.clock.sleep(self.pace.between)
        raise RayJobError(f"an earlier RayJob is still not gone after {self.pace.removal:.0f} s", where=self._place,
                          remedy=f"look at the KubeRay operator and at {self._kubectl('get')} -o yaml")

    def _created(self) -> Job | None:
        """The new RayJob; None if another one has the name already."""
        self._unsure = True
        try:
            made = self._ask(lambda: self.api.create(self.manifest))
        except Conflict:
            return None
        self._unsure = False
        self._tell("created")
        return made

    def _taken_over(self, job: Job) -> Job | None:
        """The RayJob with our name on it; None if it changed at that moment."""
        ours = self.manifest["metadata"]
        metadata = {"resourceVersion": status.version(job), "annotations": {status.LAUNCHER: self.launcher},
                    "ownerReferences": ours.get("ownerReferences")}
        try:
            taken = self._ask(lambda: self.api.patch(self.name, {"metadata": metadata}))
        except (Conflict, Missing):
            return None
        self._tell("it was there already; taken over")
        return self._mine(taken)

    def _mine(self, job: Job) -> Job:
        self._uid, self._unsure = status.uid(job), False
        return job

    # -- to follow it --

    def _follow(self, job: Job) -> Job:
        """Look at it until it has ended well; raises otherwise."""
        pause = self.pace.between
        while not self._well(job):
            version, found = self._ask(lambda: self.api.find(self.name))
            if self._well(found):
                return self._there(found)
            job = self._there(found)
            while version:
                before = self.clock.now()
                try:
                    job = self._tended(job)
                    version, job = self._watched(version, job)
                    self._patient.heard = self.clock.now()
                except (Conflict, Missing, Expired):
                    version = ""  # list again
                except NoAnswer as error:
                    self._tell(f"{error.what}; looking again")
                    version = ""
                if self._well(job):
                    return job
                pause = self.pace.between if self.clock.now() - before > self.pace.between \
                    else min(2 * pause, self.pace.longest_pause)
                self.clock.sleep(pause)
        return job

    def _watched(self, version: str, job: Job) -> tuple[str, Job]:
        """Version and RayJob after one watch, which ends early when it has ended well."""
        with contextlib.closing(self.api.watch(self.name, version, self._watch_seconds(job))) as events:
            for kind, seen in events:
                version = status.version(seen) or version
                if kind == "BOOKMARK":
                    continue
                job = self._there(None if kind == "DELETED" else seen)
                if self._well(job):
                    break
        return version, job

    def _watch_seconds(self, job: Job) -> float:
        return max(1.0, min(self.pace.watch, self._left(job)))

    def _well(self, job: Job | None) -> bool:
        """Whether it has ended well; raises if it has ended otherwise, or is not ours any more."""
        job = self._there(job)
        self._tell(status.told(job))
        if status.succeeded(job):
            return True
        if status.launcher(job) != self.launcher:
            raise Displaced("another launcher has taken this RayJob over and looks after it now", where=self._place,
                            remedy="wait for that one")
        if status.ended(job):
            what, remedy = status.failure(job, self._pods(job))
            raise RayJobError(f"the training did not end well: {what}", where=self._place, remedy=remedy)
        if status.deleting(job):
            raise self._gone("is being deleted by somebody else")
        return False

    def _there(self, job: Job | None) -> Job:
        if job is None:
            raise self._gone("was deleted by somebody else")
        if status.uid(job) != self._uid:
            raise self._gone("was replaced by another one of its name")
        return job

    def _gone(self, what: str) -> RayJobError:
        return RayJobError(f"the RayJob {what} while its training ran", where=self._place,
                           remedy="run it again: it goes on from its last checkpoint")

    def _tended(self, job: Job) -> Job:
        """Renew its lease if that is due; raises at the deadline."""
        if self._left(job) <= 0:
            found = "; ".join(status.troubles(self._pods(job)))
            raise RayJobError(f"the training is not over after {self.deadline / 3600:g} h ({status.told(job)}"
                              f"{'; ' if found else ''}{found})", where=self._place,
                              remedy="run it again: it goes on from its last checkpoint")
        begun = status.begun(job)
        if begun is None or self.clock.now() - self._renewed < self.pace.renew:
            return job
        until = min(self.deadline, self.api.time() - begun + self.pace.lease)
        change = {"metadata": {"resourceVersion": status.version(job)},
                  "spec": {"activeDeadlineSeconds": max(1, math.ceil(until))}}
        job = self._there(self._ask(lambda: self.api.patch(self.name, change)))
        self._renewed = self.clock.now()
        for trouble in status.troubles(self._pods(job)):
            self._tell(trouble)
        return job

    def _left(self, job: Job) -> float:
        """Seconds until the deadline."""
        created = status.created(job)
        return self.deadline if created is None else created + self.deadline - self.api.time()

    def _pods(self, job: Job) -> list[Job]:
        """Pods of its cluster and its submitter, as far as they can be asked for."""
        cluster = status.cluster(job)
        selectors = [f"ray.io/cluster={cluster}"] * bool(cluster) + [f"job-name={self.name}"]
        found: list[Job] = []
        with contextlib.suppress(HypercutError):
            for selector in selectors:
                found += self.api.pods(selector)
        return found

    # -- to leave nothing --

    def _leave(self) -> None:
        """Delete it if it is ours, and wait until it is gone; what went wrong is said and not raised."""
        self._patient.begin(self.pace.farewell)
        try:
            self._remove()
        except HypercutError as error:
            self._tell(f"it could not be deleted ({error.what}). KubeRay ends it at the latest "
                       f"{self.pace.lease / 60:.0f} minutes after its last renewal; sooner: {self._kubectl('delete')}")

    def _remove(self) -> None:
        started, looks = self.clock.now(), 0
        while self.clock.now() - started < self.pace.removal:
            job = self._ask(lambda: self.api.get(self.name))
            looks += 1
            if job is None and (not self._unsure or looks >= UNSURE):
                if self._uid:
                    self._tell("gone")
                return
            if job is not None:
                ours = status.uid(job) == self._uid if self._uid else True
                if not ours or status.launcher(job) != self.launcher:
                    return
                self._uid = status.uid(job)
                self._delete(job)
            self.clock.sleep(min(self.pace.between * 2 ** (looks - 1), self.pace.longest_pause))
        raise RayJobError(f"it is not gone after {self.pace.removal:.0f} s")

    def _delete(self, job: Job) -> None:
        """Ask for its deletion; nothing if it changed at that moment."""
        if not status.deleting(job):
            with contextlib.suppress(Conflict):
                self._ask(lambda: self.api.delete(self.name, status.uid(job), status.version(job)))

    def _stop(self, name: str) -> None:
        """What a signal does: end the following, but not the deletion after it."""
        if self._leaving:
            self._tell("it is being deleted; a moment")
            return
        self._leaving = True
        raise Interrupted(f"stopped by {name}; the RayJob is deleted", where=self._place,
                          remedy="run the same command again to go on from the last checkpoint")

    @property
    def _place(self) -> str:
        return f"RayJob {self.api.namespace}/{self.name}"

    def _kubectl(self, verb: str) -> str:
        return f"kubectl -n {self.api.namespace} {verb} rayjob {self.name}"
