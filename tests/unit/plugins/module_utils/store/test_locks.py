# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Locks between real processes: one verb per host, garbage collection alone, and a killed holder holds nothing."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.errors import StoreLocked
from ansible_collections.umbra.rollback.plugins.module_utils.store import locks
from ansible_collections.umbra.rollback.plugins.module_utils.store import store as store_module
from ansible_collections.umbra.rollback.plugins.module_utils.store.store import Store

from .helpers import HOST, files_below, fork, open_store, publish

DAY = 86400.0


@contextmanager
def elsewhere(hold: Callable[[], Any]) -> Iterator[int]:
    """Another process that has entered the context `hold()`, until the body ends; its pid."""
    reader, writer = os.pipe()
    child = fork()
    if not child:
        try:
            with hold():
                os.write(writer, b"x")
                time.sleep(60)
        finally:
            os._exit(1)
    os.close(writer)
    try:
        assert os.read(reader, 1) == b"x"
        yield child
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reader)


def test_the_second_verb_is_told_who_is_at_work(store: Store) -> None:
    with elsewhere(lambda: store.lock("restore", "shop-2.4.0")) as pid:
        words = f"restore of update shop-2.4.0 by pid {pid} on {os.uname().nodename} since 20.* UTC; waited 0 s"
        with pytest.raises(StoreLocked, match=words) as caught, store.lock("create", "shop-2.5.0"):
            pass
        assert store.path in str(caught.value)


def test_a_killed_holder_holds_nothing(store: Store) -> None:
    with elsewhere(lambda: store.lock("restore", "u1")) as pid:
        os.kill(pid, signal.SIGKILL)
        with store.lock("restore", "u1", wait=5):
            pass


def test_waiting_has_a_deadline_and_ends_early(store: Store) -> None:
    with elsewhere(lambda: store.lock("restore", "u1")) as pid:
        started = time.monotonic()
        with pytest.raises(StoreLocked), store.lock("create", "u2", wait=0.3):
            pass
        assert 0.3 <= time.monotonic() - started < 3
        os.kill(pid, signal.SIGTERM)
        with store.lock("create", "u2", wait=30):
            assert time.monotonic() - started < 10


def test_hosts_do_not_wait_for_each_other(store: Store) -> None:
    other = open_store(Path(store.path), "web2")
    with store.lock("create", "u1"), other.lock("create", "u1"):
        pass


def test_the_same_process_waits_for_itself_too(store: Store) -> None:
    words = f"create of update u1 by pid {os.getpid()}"
    with store.lock("create", "u1"), pytest.raises(StoreLocked, match=words), store.lock("create", "u1"):
        pass


def test_a_lock_is_given_back_whatever_happens(store: Store) -> None:
    for dummy in range(2):
        with pytest.raises(ZeroDivisionError), store.lock("create", "u1"):
            raise ZeroDivisionError
    assert (Path(store.path) / "locks" / f"{HOST}.lock").read_bytes() == b""


def test_collection_waits_for_verbs_and_names_them(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "COLLECT_WAIT", 0.1)
    other = open_store(Path(store.path), "web2")
    one, two = partial(other.lock, "create", "u1"), partial(store.lock, "restore", "u2")
    with elsewhere(one) as first, elsewhere(two) as second:
        with pytest.raises(StoreLocked) as caught:
            store.collect(DAY, time.time())
        assert f"restore of update u2 by pid {second}" in str(caught.value)
        assert f"create of update u1 by pid {first}" in str(caught.value)
    store.collect(DAY, time.time())


def test_verbs_and_reading_wait_for_collection_and_name_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "COLLECT_WAIT", 0.1)
    with elsewhere(lambda: store.locks.collecting("collect", 0)) as pid:
        with pytest.raises(StoreLocked, match=f"in use by collect by pid {pid} on"), store.lock("create", "u1"):
            pass
        with pytest.raises(StoreLocked, match=f"in use by collect by pid {pid} on"):
            store.verify()
    with store.lock("create", "u1"):
        pass


def test_a_killed_collection_is_not_blamed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name stays in the lock; who holds it now is another."""
    monkeypatch.setattr(store_module, "COLLECT_WAIT", 0.1)
    with elsewhere(lambda: store.locks.collecting("collect", 0)):
        pass
    with elsewhere(lambda: store.lock("restore", "u2")) as pid, pytest.raises(StoreLocked) as caught:
        store.collect(DAY, time.time())
    assert f"in use by restore of update u2 by pid {pid}" in str(caught.value)


def test_a_lock_file_that_was_replaced_is_locked_anew(store: Store) -> None:
    path = Path(store.path) / "locks" / f"{HOST}.lock"
    path.touch()
    fd = os.open(path, os.O_RDWR)
    path.unlink()
    path.touch()
    assert not locks.hold(fd, str(path)), "it is locked, but nobody else would find it"
    with store.lock("create", "u1"):
        pass
    os.close(fd)


def test_a_host_may_have_any_name(store: Store) -> None:
    for host in ("gc", "gc~", "versions~", "../../x", "."):
        other = open_store(Path(store.path), host)
        with other.lock("create", "u1"), store.lock("create", "u1"):
            pass
    assert {"gc.lock", "gc%7E.lock", "gc~.lock"} <= files_below(Path(store.path) / "locks")


def test_a_full_disk_does_not_keep_the_way_back_from_its_lock(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with store.lock("create", "u1"):
        pass

    def refuse(*_args: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", refuse)
    with store.lock("restore", "u1"):
        pass


def untouched(store: Store) -> dict[Path, tuple[int, ...]]:
    """What writing changes of each name in a store; reading sets the time of access."""
    found = {path: path.stat() for path in Path(store.path).rglob("*")}
    return {path: (st.st_ino, st.st_mode, st.st_size, st.st_mtime_ns, st.st_ctime_ns) for path, st in found.items()}


def test_reading_needs_no_writing(store: Store) -> None:
    publish(store, "u1", {"a": b"content"})
    before = untouched(store)
    assert store.verify().problems == ()
    assert untouched(store) == before


def test_a_copy_without_locks_can_be_read(store: Store) -> None:
    publish(store, "u1", {"a": b"content"})
    for path in (Path(store.path) / "locks").iterdir():
        path.unlink()
    (Path(store.path) / "locks").rmdir()
    assert store.verify().problems == ()
    assert not (Path(store.path) / "locks").exists()


def test_an_error_of_the_body_is_not_made_the_store_s(store: Store) -> None:
    with pytest.raises(FileNotFoundError), store.lock("create", "u1"):
        os.stat("/nowhere/at/all")
    with pytest.raises(FileNotFoundError), store.workdir():
        os.stat("/nowhere/at/all")
