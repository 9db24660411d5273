# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Small stores with real contents, and processes that are killed at a chosen moment."""

from __future__ import annotations

import os
import signal
import stat
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Callable

from ansible_collections.umbra.rollback.plugins.module_utils import canonical
from ansible_collections.umbra.rollback.plugins.module_utils.providers.base import Contents
from ansible_collections.umbra.rollback.plugins.module_utils.resource import Resource
from ansible_collections.umbra.rollback.plugins.module_utils.shadow import Manifest, Root, Shadow
from ansible_collections.umbra.rollback.plugins.module_utils.store.store import Store
from ansible_collections.umbra.rollback.plugins.module_utils.store.update import HostUpdate
from ansible_collections.umbra.rollback.plugins.module_utils.tree.entry import Entry, encode

HOST = "web1"
HOUR = 3600.0


def open_store(path: Path, host: str = HOST) -> Store:
    """The store at `path`, made when it isn't there."""
    return Store.open(str(path), host, create=True)


def put_tree(contents: Contents, tree: Mapping[str, bytes]) -> Root:
    """A listing of regular files in one directory."""
    entries = [Entry(b"", "d", 0o755)]
    entries += [Entry(os.fsencode(n), "f", 0o644, size=len(d), digest=contents.put(d)) for n, d in tree.items()]
    return Root("tree", contents.put(encode(entries)))


def shadow(name: str, *roots: Root, **facts: Any) -> Shadow:
    """A shadow that stands on `roots`."""
    resource = Resource(name, "file", {"path": f"/etc/{name}"}, versioned=bool(facts.pop("versioned", False)))
    checksum = canonical.digest([root.digest for root in roots])
    return Shadow(resource, "copy", 1.0, 0.1, 1, 1, 1, checksum, tuple(roots), **facts)


def manifest(store: Store, update_id: str, *shadows: Shadow, created: float = 1.0) -> Manifest:
    """What the store's host shadowed."""
    return Manifest(update_id, store.host, created, tuple(shadows), "test")


def publish(store: Store, update_id: str, *trees: Mapping[str, bytes], created: float = 1.0) -> HostUpdate:
    """Shadow `trees` as the resources r0, r1 ..., under the host's lock."""
    with store.lock("create", update_id):
        shadows = [shadow(f"r{number}", put_tree(store.contents, tree)) for number, tree in enumerate(trees)]
        update = store.update(update_id)
        update.publish(manifest(store, update_id, *shadows, created=created), {})
    return update


def files_below(path: Path) -> set[str]:
    """Every file below `path`, relative to it."""
    return {str(one.relative_to(path)) for one in path.rglob("*") if not one.is_dir()}


def modes_below(path: Path) -> Iterator[tuple[str, bool, int]]:
    """Every path, whether it is a directory, and its permissions."""
    for one in [path, *path.rglob("*")]:
        yield str(one), one.is_dir(), stat.S_IMODE(one.lstat().st_mode)


def make_old(path: Path, age: float = HOUR) -> None:
    """Let everything below `path` look as if it had been written `age` seconds ago."""
    then = time.time() - age
    for one in [path, *path.rglob("*")]:
        os.utime(one, (then, then), follow_symlinks=False)


def flip(path: Path, offset: int = -1, bit: int = 3) -> None:
    """Flip one bit of a file, in the middle unless told."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if offset < 0 else offset] ^= 1 << bit
    path.chmod(0o600)
    path.write_bytes(data)


def fork() -> int:
    """os.fork. Python warns of threads, and may see one of this test's that has ended but is not quite gone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


CALLS = ("rename", "fsync", "unlink", "mkdir", "rmdir", "pwrite", "ftruncate", "chmod", "fchmod")


def run_and_kill(action: Callable[[], object], calls: int) -> bool:
    """Run `action` in a process of its own, which gets SIGKILL instead of making its `calls`-th call of CALLS.

    Whether it was killed; False: it came to its end before that.
    """
    child = fork()
    if not child:
        status = 1
        try:
            _kill_at(calls)
            action()
            status = 0
        finally:  # never back into pytest, whatever was raised
            os._exit(status)
    _pid, ended = os.waitpid(child, 0)
    if os.WIFSIGNALED(ended):
        assert os.WTERMSIG(ended) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(ended) == 0, "the action failed"
    return False


def _kill_at(calls: int) -> None:
    left = [calls]

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        return wrapper

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))
