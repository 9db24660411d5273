# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line of the emergency tool: what may be typed, and how it ends."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TextIO

from ..errors import UmbraError
from ..kernel import selected
from ..store.store import default_path
from ..version import ENGINE
from ..watchdog import main as watchdog
from . import build, commands, work
from .screen import Screen
from .session import DONE, Session

PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")  # where programs always are
COMMANDS: Mapping[str, tuple[Callable[[Session], int], str]] = {
    "status": (commands.status, "how an update stands, what runs now, and what to type next"),
    "list": (commands.list_, "all updates of this host"),
    "plan": (commands.plan, "the order of the way back, with predicted times"),
    "diff": (commands.diff, "what a restore would change; nothing is touched"),
    "restore": (commands.restore, "go back to the state before the update"),
    "undo": (commands.undo, "bring back the failed state that a restore set aside"),
    "commit": (commands.commit, "declare the update good"),
    "verify": (commands.verify, "read the store back against its checksums"),
}
EXAMPLES = """\
examples:
  umbra                                  how it stands, and what to type next
  umbra diff shop-2.4.0                  what a restore would change
  umbra restore shop-2.4.0               go back; if interrupted, the same again goes on
  umbra restore shop-2.4.0 --resource db --resource config
  umbra status --json                    for a program

exit status: 0 done, 1 not all is as it should be, 2 wrong usage or refused, 3 another process is at work,
130 interrupted
"""


def main() -> NoReturn:
    """Run what was typed, and end the process."""
    _open_standard_descriptors()
    _complete_path()
    if sys.argv[1:2] == ["watch"]:  # the dead-man switch, which nobody types
        choose_kernel(selected.AUTO)
        sys.exit(watchdog.main(sys.argv[2:]))  # pylint: disable=ansible-bad-function  # no Ansible here
    status = run(sys.argv[1:], os.environ, sys.stdout, sys.stderr, sys.stdin)
    sys.exit(status)  # pylint: disable=ansible-bad-function  # no Ansible here


def run(
    argv: Sequence[str], environment: Mapping[str, str], out: TextIO | None, err: TextIO | None, stdin: TextIO | None
) -> int:
    """Run one command; its exit status. Any of the three may be None: it is closed."""
    for stream in (out, err):
        if stream is not None and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a terminal that knows fewer letters shows codes
    if stdin is not None and hasattr(stdin, "reconfigure"):
        stdin.reconfigure(errors="replace")
    arguments = parser().parse_args(argv)
    options = vars(arguments)
    quiet = bool(options.get("json"))
    session = Session(
        options,
        Screen(out, environment, quiet),
        Screen(err, environment),
        stdin,
        archive(),
        options.get("store") or _default_store(),
    )
    work.heed_signals()
    try:
        return _run(session, options)
    except work.Stopped as stopped:
        session.interrupted(stopped.number)


def _run(session: Session, options: Mapping[str, Any]) -> int:
    """As `run`; whatever goes wrong is one sentence."""
    try:
        choose_kernel(options.get("kernel", selected.AUTO))
        if options.get("version"):
            return version(session)
        return COMMANDS[options["command"] or "status"][0](session)
    except UmbraError as error:
        return session.refuse(error)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return session.fail("system", f"{where}{error.strerror or error}. Mend it and run again.")
    except Exception as error:  # noqa: BLE001  # the edge: a defect of ours must end in a sentence, too
        if options.get("debug"):
            session.errors.raw(traceback.format_exc())
        text = (
            f"umbra.rollback has a defect ({type(error).__name__}: {error}). What was begun is journaled: run again to "
            "go on, and report this with the output of --debug."
        )
        return session.fail("internal", text)


def parser() -> argparse.ArgumentParser:
    """What may be typed."""
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument("--store", metavar="DIR", help="the store (default: the directory that this file lies in)")
    common.add_argument("--host", metavar="NAME", help="the name below which the shadows lie, where that isn't clear")
    common.add_argument("--store-key-file", metavar="FILE", help="has the `store_key` that the store was written with")
    common.add_argument("--json", action="store_true", help="print one JSON document, and nothing else")
    common.add_argument("--kernel", choices=(selected.AUTO, selected.NATIVE, selected.PURE), help="see docs/kernel.md")
    common.add_argument("--debug", action="store_true", help="where it ends by a defect, show where that is")
    top = argparse.ArgumentParser(
        build.NAME,
        description=f"{ENGINE}: the way back of this host, by hand. It needs no Ansible and no network.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[common],
    )
    top.add_argument("--version", action="store_true", help="print the version, try the kernel, and end")
    commands_ = top.add_subparsers(dest="command", metavar="COMMAND")
    for name, (dummy, purpose) in COMMANDS.items():
        one = commands_.add_parser(
            name, help=purpose, description=f"{purpose[0].upper()}{purpose[1:]}.", parents=[common]
        )
        if name != "list":
            one.add_argument("update_id", nargs="?", metavar="ID", help="the update")
        _add_options(name, one)
    return top


def _add_options(name: str, one: argparse.ArgumentParser) -> None:
    if name == "diff":
        one.add_argument("resources", nargs="*", metavar="RESOURCE", help="only these")
        one.add_argument("--all", action="store_true", help="no bound on what is shown")
    if name == "restore":
        one.add_argument(
            "--resource",
            action="append",
            default=[],
            dest="resources",
            metavar="NAME",
            help="only this; may be repeated",
        )
        one.add_argument("--wave", type=int, metavar="N", help="only wave N; 0 verifies, stops and sets aside")
        one.add_argument("--force", action="store_true", help="even if the update was committed")
    if name in ("restore", "undo"):
        one.add_argument("--max-attempts", type=int, default=3, metavar="N", help="how often a resource is tried")
    if name in ("restore", "undo", "commit"):
        one.add_argument("--yes", action="store_true", help="don't ask")
        one.add_argument("--no-wait", action="store_true", help="where another process is at work, end at once")


def archive() -> str | None:
    """The file that this very code was loaded from; None when it is no such file."""
    path = getattr(__spec__.loader if __spec__ else None, "archive", None)
    return os.path.realpath(path) if path else None


def _default_store() -> str:
    """The directory that the tool lies in, if that is a store."""
    path = archive()
    directory = os.path.dirname(path) if path else ""
    return directory if directory and os.path.exists(os.path.join(directory, "FORMAT")) else default_path()


def choose_kernel(wanted: str) -> None:
    """Load the native kernel from the file, if it has one for this host. Raises KernelUnavailable."""
    path = archive()
    content, why = build.kernel_here(path) if path else (None, "this is not the emergency tool's file")
    selected.choose_content(wanted, content, why, why=f"{path} has it, with the SHA-256 that it says.")


def version(session: Session) -> int:
    """Say what this is."""
    session.screen.line(f"{ENGINE}, kernel: {selected.NAME}. {selected.WHY}")
    return session.document(
        DONE, engine=ENGINE, kernel=selected.NAME, kernel_reason=selected.WHY, python=sys.executable
    )


def _complete_path() -> None:
    """A broken PATH must not hide the programs that providers call."""
    given = [part for part in os.environ.get("PATH", "").split(os.pathsep) if part]
    os.environ["PATH"] = os.pathsep.join([*given, *(part for part in PATH if part not in given)])


def _open_standard_descriptors() -> None:
    """What is opened later must not get the number of a closed stdout, into which libraries and programs print."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number is this one
