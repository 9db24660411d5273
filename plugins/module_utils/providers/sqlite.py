# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SQLite databases: copied while they are in use, and written back under the feet of whoever has them open."""

from __future__ import annotations

import errno
import glob
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from .. import canonical
from ..errors import (
    NoSpace,
    ProviderError,
    RestoreFailed,
    ShadowFailed,
    SourceMissing,
    StoreCorrupt,
    ToolMissing,
    UmbraError,
    ValidationFailed,
)
from ..present import is_there
from ..resource import Interface, Option, Resource, name_for_path
from ..shadow import Claim, Root, Shadow
from ..sqlite import database, files, owner, summary
from ..sqlite.database import Broken, Busy, Denied, Full, Header, Live, Unusable
from ..sqlite.files import Facts
from ..sqlite.owner import Place, using
from ..sqlite.summary import Summary
from ..tree import messages, rootfs
from .base import LIVE, Change, Contents, Drift, Estimate, Outcome, Provider, Steps

BACKUP, RAW, ABSENT = "backup", "raw", "absent"  # methods of a shadow
ONLINE, REPLACE = "online", "replace"  # and of a restore
TABLES_SHOWN = 50
CHANGES_SHOWN = 100
HOLDERS_SHOWN = 5
POLL = 0.2  # seconds
RIGHTS = (
    "Root uses a database with the rights of the user who owns its directory: look at the owner and the mode of both."
)
_Refusal = type[ProviderError]


@dataclass(frozen=True)
class _Comparison:
    """What a restore would change: of what the database says, of its journal mode, of its file.

    `readable` tells whether SQLite can use what is there.
    """

    content: tuple[Change, ...] = ()
    journal: tuple[Change, ...] = ()
    file: tuple[Change, ...] = ()
    readable: bool = True

    @property
    def changes(self) -> tuple[Change, ...]:
        return (*self.content, *self.journal, *self.file)


class SqliteProvider(Provider):
    """One database file. Its shadow is a copy made with SQLite's online backup, and a summary of what it says.

    A failed state that SQLite can't read is kept byte for byte (method raw); one that is gone, as gone (method absent).
    """

    type = "sqlite"
    capabilities = frozenset({LIVE})
    interface = Interface(
        options={
            "path": Option("path", "The database file.", required=True),
            "allow_missing": Option(
                "bool", "Accept that there is no such file; the way back removes what the update made.", default=False
            ),
            "timeout": Option("float", "How many seconds to wait for a lock that another process holds.", default=30.0),
        },
        query_options={
            "pattern": Option(
                "path", "Which files to look at: a shell pattern, ** for any depth. Databases are taken.", required=True
            ),
        },
    )

    # --- what is there

    def query(self, options: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The databases among the files that match, each once. Raises SourceUnreadable."""
        found: dict[str, dict[str, Any]] = {}
        for path in sorted(glob.glob(options["pattern"], recursive=True)):
            real = os.path.realpath(path)
            try:
                with database.open_file(real) as file:
                    if file.read(len(database.MAGIC)) == database.MAGIC:
                        found.setdefault(real, {"name": name_for_path(path), "path": path})
            except (database.Broken, FileNotFoundError):
                continue  # a directory, or it went away
            except OSError as error:
                raise messages.unreadable(f"the query for {options['pattern']}", os.fsencode(path), error) from error
        return sorted(found.values(), key=lambda one: str(one["name"]))

    def claims(self, resource: Resource) -> Sequence[Claim]:
        """The database provides its path."""
        return (Claim("provides", "path", os.path.realpath(resource.options["path"]), f"path of {resource.name}"),)

    def estimate(self, resource: Resource) -> Estimate:
        """Size of the database and number of its rows. Raises as `create`."""
        place = self._checked(resource)
        if place is None:
            return Estimate(0, 0)
        with self._telling(resource, place.path, ShadowFailed), self._room() as room, using(place):
            return database.look(place.path, room, self._timeout(resource), _estimate)

    # --- the copy

    def create(self, resource: Resource, previous: Shadow | None, contents: Contents) -> Shadow:
        """Copy the database as it is at one moment.

        Raises SourceMissing, SourceUnreadable, ShadowFailed, NoSpace, ToolMissing.
        """
        place = self._checked(resource)
        if place is None:
            return self._absent(resource)
        with self._telling(resource, place.path, ShadowFailed):
            return self._backup(resource, place, contents)

    def displace(self, shadow: Shadow, contents: Contents) -> Shadow:
        """As `create`; what SQLite can't read is kept byte for byte. Raises ShadowFailed, NoSpace."""
        resource = shadow.resource
        self._require(resource)
        place = self._place(resource, ShadowFailed)
        path = place.path
        with self._telling(resource, path, ShadowFailed):
            if not files.present(path):
                return self._absent(resource)
            if is_there(path):
                try:
                    return self._backup(resource, place, contents)
                except Broken:
                    if not os.path.isfile(path):
                        raise
            return self._raw(resource, place, contents)

    def _backup(self, resource: Resource, place: Place, contents: Contents) -> Shadow:
        path = place.path
        with self._room() as room:
            copy, timeout = os.path.join(room, "copy"), self._timeout(resource)

            def use(live: Live) -> tuple[Header, str]:
                database.copy_out(live, copy, timeout)
                return live.header, live.how

            with using(place):
                header, how = database.look(path, room, timeout, use)
                facts = Facts.of(path)
            with database.translated(), database.connect(copy, "ro", immutable=True) as connection:
                problems, checked = database.integrity(connection)
                if problems:
                    raise Broken(f"is damaged ({problems[0]})")
                says = summary.take(connection)
            with open(copy, "rb") as file:
                digest, size = contents.put_fd(file.fileno())
        text = contents.put(says.encode())
        tables = {name: rows for name, (rows, _digest) in sorted(says.tables.items())[:TABLES_SHOWN]}
        data = {
            "path": path,
            "database": digest,
            "summary": text,
            "page_size": header.page_size,
            "journal_mode": header.journal_mode,
            "file": facts.to_list(),
            "parents": _parents(path),
            "opened": how,
            "checked": checked,
            "tables": tables,
            "tables_total": len(says.tables),
        }
        roots = (Root("blob", digest), Root("blob", text))
        return Shadow(resource, BACKUP, self.context.now(), 0.0, size, says.rows, 0, text, roots, data)

    def _raw(self, resource: Resource, place: Place, contents: Contents) -> Shadow:
        path = place.path
        kept = files.keep(path, contents, place.who)
        if not kept:  # it went away since it was seen
            return self._absent(resource)
        with using(place):
            facts = Facts.of(path + next(iter(kept)))
        data = {
            "path": path,
            "files": kept,
            "file": facts.to_list(),
            "parents": _parents(path),
        }
        size = sum(contents.size(digest) for digest in kept.values())
        roots = tuple(Root("blob", digest) for digest in kept.values())
        return Shadow(resource, RAW, self.context.now(), 0.0, size, len(kept), 0, canonical.digest(kept), roots, data)

    def _absent(self, resource: Resource) -> Shadow:
        data = {"path": self._place(resource, ShadowFailed).path}
        return Shadow(resource, ABSENT, self.context.now(), 0.0, 0, 0, 0, canonical.digest(ABSENT), data=data)

    # --- what differs

    def verify(self, shadow: Shadow, contents: Contents) -> int:
        """Read all its files. Raises StoreCorrupt, ContentMissing."""
        if not set(shadow.data.get("files", ())) <= set(files.KEPT):
            raise StoreCorrupt(path=f"the manifest of {shadow.name}", problem="it names files that no database has")
        return super().verify(shadow, contents)

    def drift(self, shadow: Shadow, contents: Contents) -> Drift:
        """Tables, schema, settings and the file's metadata that differ. A database in use is held still for that long.

        Raises ProviderError when it is locked or can't be read, StoreError.
        """
        found = self._compare(shadow, contents)
        size = shadow.bytes if found.content else 0
        return Drift(len(found.changes), found.changes[:CHANGES_SHOWN], size)

    def validate(self, shadow: Shadow, contents: Contents) -> None:
        """The database says what its shadow says, and is sound. Raises ValidationFailed."""
        try:
            changes = self._compare(shadow, contents).changes
        except ProviderError as error:
            problem, remedy = error.facts.get("problem", "it can't be read"), error.facts.get("remedy", "Run again.")
            raise ValidationFailed(name=shadow.name, problem=problem, remedy=remedy) from error
        if changes:
            first = changes[0]
            detail = f" ({first.before or 'nothing'} instead of {first.after or 'nothing'})"
            more = f", and {len(changes) - 1} more" if len(changes) > 1 else ""
            raise ValidationFailed(
                name=shadow.name,
                problem=f"{first.what} differs{detail}{more}",
                remedy="Stop what writes to it, and restore it again.",
            )

    def _compare(self, shadow: Shadow, contents: Contents, as_: _Refusal = ProviderError) -> _Comparison:
        self._require(shadow.resource)
        place = self._place(shadow.resource, as_)
        path = place.path
        with self._telling(shadow.resource, path, as_):
            if shadow.method == ABSENT:
                there = [path + suffix for suffix in files.present(path)]
                return _Comparison(content=tuple(Change("remove", _show(one)) for one in there))
            if shadow.method == RAW:
                with using(place):
                    return _compare_raw(shadow, path)
            return self._compare_backup(shadow, place, contents)

    def _compare_backup(self, shadow: Shadow, place: Place, contents: Contents) -> _Comparison:
        path = place.path
        whole = f"a database of {shadow.items} rows"
        if not is_there(path):
            return _Comparison(content=(Change("create", _show(path), "", whole),), readable=False)
        wanted = Summary.decode(contents.get(shadow.data["summary"]))
        try:
            with self._room() as room, using(place):
                header, says, problems = database.look(path, room, self._timeout(shadow.resource), _read)
        except Broken as error:
            return _Comparison(content=(Change("replace", _show(path), f"it {error}", whole),), readable=False)
        changes = [Change("replace", _show(path), problem, "ok") for problem in problems]
        changes += summary.compare(says, wanted)
        size, mode = shadow.data["page_size"], shadow.data["journal_mode"]
        if header.page_size and size and header.page_size != size:
            changes.append(Change("replace", "page size", str(header.page_size), str(size)))
        journal = Change("metadata", "journal mode", header.journal_mode, mode)
        with using(place):
            file = _compare_file(shadow, path)
        return _Comparison(tuple(changes), (journal,) * (header.journal_mode != mode), file)

    # --- the way back

    def methods(self, shadow: Shadow) -> Sequence[str]:
        """In one transaction; then, once nobody has it open or locked, by another file in its place."""
        return (ONLINE, REPLACE) if shadow.method == BACKUP else ("",)

    def restore(self, shadow: Shadow, contents: Contents, steps: Steps) -> Outcome:
        """Write the database back in one transaction where SQLite can use what is there, else put its file in place.

        Comparing shows what is left to do: no step is noted. Raises RestoreFailed, StoreError, NoSpace, ToolMissing.
        """
        resource = shadow.resource
        place = self._place(resource, RestoreFailed)
        path = place.path
        notes = _refuse_other_place(shadow, place)
        found = self._compare(shadow, contents, RestoreFailed)
        with self._telling(resource, path, RestoreFailed):
            files.clean(path)
            if not found.changes:
                return Outcome(0, 0, "none")
            if shadow.method == ABSENT:
                notes += tuple(f"{holder} still has {_show(path)} open" for holder in database.holders(path))
                return Outcome(files.remove(path), 0, "remove", notes)
            method, size = "metadata", 0
            if found.content:
                method, size = self._write(shadow, place, contents, found.readable), shadow.bytes
            elif found.journal:
                with using(place):
                    database.set_journal_mode(path, shadow.data["journal_mode"], self._timeout(resource))
            if is_there(path):
                Facts.from_list(shadow.data["file"]).put_back(path)
            return Outcome(max(1, shadow.items if size else 0), size, method, notes)

    def _write(self, shadow: Shadow, place: Place, contents: Contents, readable: bool) -> str:
        path = place.path
        data, timeout = shadow.data, self._timeout(shadow.resource)
        if shadow.method == BACKUP and readable and self.context.method != REPLACE:
            try:
                with self._room() as room:
                    source = os.path.join(room, "shadow")
                    with open(source, "wb") as file:
                        contents.copy_to(data["database"], file.fileno())
                    with using(place):
                        database.copy_in(source, path, data["journal_mode"], timeout)
                    return ONLINE
            except (Broken, Denied):
                pass  # SQLite can't write into it after all
        self._wait_until_closed(path, timeout)
        if readable:
            with using(place):
                database.refuse_locked(path, timeout)  # by another host, whose processes can't be seen
        wanted = data["files"] if shadow.method == RAW else {files.DATABASE: data["database"]}
        files.replace(path, wanted, Facts.from_list(data["file"]), data["parents"], contents)
        return REPLACE

    def _wait_until_closed(self, path: str, timeout: float) -> None:
        """Who has the old file open would go on writing to it, and remove the new one's journal at its end."""
        deadline = time.monotonic() + timeout
        while database.holders(path):
            if time.monotonic() > deadline:
                raise Busy(f"has to be replaced, and is still open after {timeout:.0f} s")
            time.sleep(POLL)

    # --- names, rooms and errors

    def _place(self, resource: Resource, as_: _Refusal) -> Place:
        """Where the database is: SQLite, too, keeps a database's journals beside what a symlink points to. Raises `as_`
        where somebody leads root astray."""
        path = str(resource.options["path"])
        with self._telling(resource, path, as_):
            place = owner.find(path)
        if os.geteuid() == 0 and place.strangers:
            raise as_(
                name=resource.name,
                problem=f"the way to {_show(path)} leads through a symlink that is not root's, to a directory of "
                "somebody else than its owner",
                remedy="Name the path without that symlink, or make the symlink root's (chown -h root).",
            )
        return place

    def _checked(self, resource: Resource) -> Place | None:
        """Where the database is; None when it may be missing, and is. Raises SourceMissing, ToolMissing."""
        self._require(resource)
        place = self._place(resource, ShadowFailed)
        if is_there(place.path):
            return place
        if resource.options["allow_missing"]:
            return None
        raise SourceMissing(name=resource.name, path=_show(resource.options["path"]))

    @staticmethod
    def _require(resource: Resource) -> None:
        if not database.require():
            raise ToolMissing(name=resource.name, tool="sqlite3 of Python", package="Python with its sqlite3 module")

    def _timeout(self, resource: Resource) -> float:
        return float(resource.options["timeout"]) * self.context.patience

    @contextmanager
    def _room(self) -> Iterator[str]:
        with tempfile.TemporaryDirectory(prefix="sqlite-", dir=self.context.workdir) as room:
            yield room

    @contextmanager
    def _telling(self, resource: Resource, path: str, as_: _Refusal) -> Iterator[None]:
        """Turn what SQLite and the system refuse into an error of ours."""
        try:
            yield
        except Unusable as error:
            raise self._refusal(resource, path, as_, error) from error
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise self._full(resource, path) from error
            if error.errno in (errno.EACCES, errno.EPERM) and os.geteuid() == 0:
                raise as_(
                    name=resource.name, problem=f"{_show(path)}: {messages.reason(error)}", remedy=RIGHTS
                ) from error
            tell = messages.not_restored if as_ is RestoreFailed else messages.unreadable
            raise tell(resource.name, os.fsencode(path), error) from error

    def _refusal(self, resource: Resource, path: str, as_: _Refusal, error: Unusable) -> UmbraError:
        if isinstance(error, Full):
            return self._full(resource, path)
        problem, remedy = f"{_show(path)} {error}", "Look at the owner, the mode and the file system of its directory."
        if isinstance(error, Busy):
            holders = database.holders(path)
            problem += f"; it is open in {', '.join(holders[:HOLDERS_SHOWN])}" if holders else ""
            remedy = "Stop what uses it, or set a longer `timeout`, and run again."
        elif isinstance(error, Denied) and os.geteuid() == 0:
            remedy = RIGHTS
        elif isinstance(error, Broken):
            remedy = "Repair it, or leave it out; a file that is no SQLite database has type `file`."
        return as_(name=resource.name, problem=problem, remedy=remedy)

    def _full(self, resource: Resource, path: str) -> NoSpace:
        free = min(shutil.disk_usage(place).free for place in (self.context.place, _existing(os.path.dirname(path))))
        needed = os.path.getsize(path) if os.path.exists(path) else "more"
        return NoSpace(
            where=f"The store or the file system of {_show(path)}",
            free=free,
            what=f"resource {resource.name}",
            needed=needed,
        )


def _show(path: str) -> str:
    return messages.printable(os.fsencode(path))


def _existing(directory: str) -> str:
    while not os.path.isdir(directory):
        directory = os.path.dirname(directory)
    return directory


def _refuse_other_place(shadow: Shadow, place: Place) -> tuple[str, ...]:
    """A note when symlinks lead elsewhere than they did. Raises RestoreFailed when not only root can turn them."""
    was = shadow.data["path"]
    if place.path == was:
        return ()
    if os.geteuid() == 0 and place.link_owners - {0}:
        raise RestoreFailed(
            name=shadow.name,
            problem=f"the database was {_show(was)}, and a symlink that is not root's makes it {_show(place.path)}",
            remedy="Turn the symlink back, or restore as its owner.",
        )
    return (f"the database was {_show(was)} and is {_show(place.path)} now: restored there",)


def _estimate(live: Live) -> Estimate:
    return Estimate(live.bytes, summary.count(live.connection))


def _read(live: Live) -> tuple[Header, Summary, list[str]]:
    says = summary.take(live.connection)
    return live.header, says, database.integrity(live.connection)[0]


def _compare_raw(shadow: Shadow, path: str) -> _Comparison:
    wanted, found = shadow.data["files"], files.digests(path)
    changes = [
        Change("remove" if suffix not in wanted else "replace" if suffix in found else "create", _show(path + suffix))
        for suffix in files.KEPT
        if wanted.get(suffix) != found.get(suffix)
    ]
    return _Comparison(content=tuple(changes), file=() if changes else _compare_file(shadow, path))


def _compare_file(shadow: Shadow, path: str) -> tuple[Change, ...]:
    wanted = Facts.from_list(shadow.data["file"])
    place = path + next(iter(shadow.data.get("files", {files.DATABASE: ""})))
    found = wanted.differences(place)
    if not found:
        return ()
    return (Change("metadata", f"{', '.join(found)} of {_show(place)}", Facts.of(place).text, wanted.text),)


def _parents(path: str) -> list[list[int]]:
    return [list(one) for one in rootfs.parents(os.fsencode(os.path.dirname(path)))]
