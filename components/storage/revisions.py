"""Footage at a revision of git and DVC.

A revision is a commit, tag or branch of the repository here, or of any other: `git+<address>@<revision>`.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from components.redaction import has_login, shown
from components.storage.objects import cache_name, local_path
from components.storage.s3_client import is_remote
from hypercut_core.errors import HypercutError, MissingExtra, StorageError
from hypercut_core.files import atomic_directory


def fetch(uri: str, revision: str, cache: Path) -> Path:
    """A local path with `uri` as it lies there, or, if `revision` is set, as git and DVC have it then.

    Args:
        uri: with a revision: the path inside its repository.
        revision: "", a revision of the repository here, or `git+<address>@<revision>`.

    Raises:
        StorageError: no such revision or path, or it may not be read.
        MissingExtra: a revision is asked for and DVC is not installed.
    """
    if not revision:
        return local_path(uri, cache)
    if is_remote(uri):
        raise StorageError("a revision goes with a path that DVC tracks, not with a URI", where=uri,
                           remedy="leave 'revision' empty, or give the path in the repository")
    repository, name = _split_revision(pinned(revision))
    target = cache / cache_name(f"{uri}@{repository}@{name}")
    if target.exists():
        return target
    with atomic_directory(target.with_name(f"{target.name}.fetch")) as folder:
        tried = f"dvc get {repository} {uri} --rev {name}"
        with _dvc(uri, f"revision '{name}' cannot be fetched", f"check that '{tried}' works") as repo:
            repo.get(repository, uri, out=os.fspath(folder / "out"), rev=name)
        (folder / "out").rename(target)
    shutil.rmtree(target.with_name(f"{target.name}.fetch"), ignore_errors=True)
    return target


def pinned(revision: str) -> str:
    """The same revision by its commit, so that a branch that moves on changes nothing that was fetched.

    Raises:
        StorageError: no such repository or revision, or a login in the address; MissingExtra: no DVC.
    """
    repository, name = _split_revision(revision)
    if not re.fullmatch(r"[0-9a-f]{40}", name):
        with _dvc(repository, f"there is no revision '{name}' in this repository",
                  "name a commit, tag or branch; 'git log --oneline' shows some") as repo, \
                repo.open(repository, rev=name, uninitialized=True) as opened:
            name = opened.get_rev()
    return name if repository == "." else f"git+{repository}@{name}"


def published(revision: str) -> str:
    """A pinned revision as another machine can fetch it: one of the repository here gets its origin's address.

    Raises:
        StorageError: there is no origin that others reach, or the commit was not pushed to it.
    """
    import subprocess

    repository, name = _split_revision(revision)
    if repository != ".":
        return revision

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], capture_output=True, text=True, check=False).stdout.strip()

    origin = shown(git("remote", "get-url", "origin"))  # its login stays here
    if "://" not in origin.removeprefix("file://") and not re.match(r"[\w.-]+@[\w.-]+:", origin):
        raise StorageError("this repository has no origin that another machine could fetch the revision from",
                           where=name, remedy="write it as git+<address>@<revision>")
    if not git("branch", "--remotes", "--contains", name):
        raise StorageError("this commit is not in the origin yet", where=name,
                           remedy="run 'git push' (and 'dvc push'), then submit again")
    return f"git+{origin}@{name}"


def _split_revision(revision: str) -> tuple[str, str]:
    """'v1' → ('.', 'v1'); 'git+<address>@v1' → (address, 'v1')."""
    if not revision.startswith("git+"):
        return ".", revision
    repository, _, name = revision.removeprefix("git+").rpartition("@")
    if not repository or not name:
        raise StorageError("this is no revision of the form git+<address>@<revision>", where=shown(revision),
                           remedy="end it with @ and a commit, tag or branch")
    if has_login(repository) and not repository.startswith("ssh://"):
        raise StorageError("the address holds a login, which would be recorded", where=shown(revision),
                           remedy="give the address alone; git's credential helper knows the login")
    return repository, name


@contextlib.contextmanager
def _dvc(where: str, what: str, remedy: str) -> Iterator[Any]:
    """DVC's `Repo`, with its errors (they have no common base that is public) as ours."""
    try:
        from dvc.repo import Repo
        from dvc.repo.open_repo import clean_repos
    except ImportError as error:
        raise MissingExtra("dvc", "pipeline") from error
    try:
        yield Repo
    except HypercutError:
        raise
    except Exception as error:
        raise StorageError(f"{what} ({_first_line(error)})", where=where, remedy=remedy) from error
    finally:
        clean_repos()  # clones lie in the temporary folder


def _first_line(error: Exception) -> str:
    return shown(str(error) or type(error).__name__).split("\n")[0][:200]
