# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""No way leads out of a root."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.tree import rootfs
from ansible_collections.umbra.rollback.plugins.module_utils.tree.rootfs import ForeignLink, RootFs

from .trees import root_only


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root" / "a" / "b").mkdir(parents=True)
    (tmp_path / "root" / "a" / "file").write_text("inside")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("outside")
    (tmp_path / "root" / "link").symlink_to("../outside")
    (tmp_path / "root" / "a" / "file-link").symlink_to("../../outside/file")
    return tmp_path / "root"


def fs_of(path: Path, one_device: bool = True, own_links: bool = False) -> RootFs:
    return RootFs(os.fsencode(path), one_device, own_links)


OPENING: dict[str, Callable[[RootFs], object]] = {
    "a directory": lambda fs: fs.dir(b"link"),
    "below a directory": lambda fs: fs.dir(b"link/b"),
    "a file in it": lambda fs: fs.open_file(b"link/file"),
    "a file": lambda fs: fs.open_file(b"a/file-link"),
    "stat in it": lambda fs: fs.lstat(b"link/file"),
    "pin in it": lambda fs: fs.pin(b"link/file"),
}


@pytest.mark.parametrize("opening", OPENING.values(), ids=OPENING)
def test_a_symlink_is_never_followed(root: Path, opening: Callable[[RootFs], object]) -> None:
    with fs_of(root) as fs, pytest.raises(OSError) as caught:
        opening(fs)
    assert caught.value.errno in (errno.ENOTDIR, errno.ELOOP)


def test_a_symlink_itself_can_be_seen_and_held(root: Path) -> None:
    with fs_of(root) as fs:
        assert stat.S_ISLNK(fs.lstat(b"link").st_mode)
        held = fs.pin(b"a/file-link")
        assert stat.S_ISLNK(os.fstat(held).st_mode)
        os.close(held)


def test_a_root_that_is_a_symlink_is_not_entered(root: Path) -> None:
    with fs_of(root / "link") as fs:
        assert stat.S_ISLNK(fs.lstat(b"").st_mode)
        with pytest.raises(NotADirectoryError):
            fs.dir(b"")


def test_what_is_no_file_is_not_waited_for(root: Path) -> None:
    os.mkfifo(root / "fifo")
    with fs_of(root) as fs:
        for name in (b"fifo", b"a"):
            with pytest.raises(OSError) as caught:
                fs.open_file(name)
            assert caught.value.errno == errno.ENXIO


def test_directories_are_found_again_however_many_lie_between(tmp_path: Path) -> None:
    depth = 3 * rootfs.MAX_OPEN
    paths = [b"/".join([b"d"] * number) for number in range(depth)]
    before = len(os.listdir("/proc/self/fd"))
    with fs_of(tmp_path) as fs:
        for path in paths:
            fd, dummy = fs.at(path + b"/d" if path else b"d")
            os.mkdir(b"d", dir_fd=fd)
        numbers = {path: os.fstat(fs.dir(path)).st_ino for path in paths}
        assert len(set(numbers.values())) == depth
        jumps = [paths[-1], paths[1], paths[-1], b"", paths[-2]]
        order = [*reversed(paths), *paths[:: rootfs.MAX_OPEN], *paths[:5], *jumps]
        for path in order:
            assert os.fstat(fs.dir(path)).st_ino == numbers[path]
            assert len(os.listdir("/proc/self/fd")) < before + rootfs.MAX_OPEN + 5
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_directory_that_is_not_there_spoils_nothing(root: Path) -> None:
    with fs_of(root) as fs:
        fs.dir(b"a/b")
        with pytest.raises(FileNotFoundError):
            fs.dir(b"a/c/d")
        assert os.fstat(fs.dir(b"a/b")).st_ino == (root / "a" / "b").stat().st_ino
        assert os.fstat(fs.dir(b"a")).st_ino == (root / "a").stat().st_ino


def test_an_absent_root_and_an_absent_parent(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path / "none" / "none"):
        with fs_of(path) as fs:
            with pytest.raises(FileNotFoundError):
                fs.lstat(b"")
            assert (fs.parent is None) == (path.parent != tmp_path)


@pytest.mark.parametrize("path", [b"/", b"//", b"/."])
def test_the_root_of_everything(path: bytes) -> None:
    if path == b"/.":
        with pytest.raises(OSError):
            RootFs(path, True)
        return
    with RootFs(path, True) as fs:
        assert fs.resolved == b"/"
        assert os.fstat(fs.dir(b"")).st_ino == os.stat("/").st_ino
        assert stat.S_ISDIR(fs.lstat(b"etc").st_mode)


LINKS = [
    # links to make, way to go, where it ends (None: it does not)
    ({}, "real/deep", "real/deep"),
    ({"way": "real"}, "way/deep", "real/deep"),
    ({"way": "{}/real"}, "way/deep", "real/deep"),
    ({"way": "other", "other": "real/deep"}, "way", "real/deep"),
    ({"way": "real/deep/.."}, "way", "real"),
    ({"way": "./real//"}, "way/./deep", "real/deep"),
    ({"way": "way"}, "way", None),
    ({"way": "real/file"}, "way", None),
    ({"way": "real/none"}, "way", None),
    ({}, "real/file/..", None),
]


@pytest.mark.parametrize(("links", "way", "end"), LINKS)
def test_locate_goes_as_the_kernel_does(tmp_path: Path, links: dict[str, str], way: str, end: str | None) -> None:
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "real" / "file").touch()
    for name, target in links.items():
        (tmp_path / name).symlink_to(target.format(tmp_path))
    path = os.fsencode(tmp_path) + b"/" + way.encode()
    before = len(os.listdir("/proc/self/fd"))
    if end is None:
        with pytest.raises(OSError):
            rootfs.locate(path)
    else:
        found = rootfs.locate(path)
        assert found.path == os.fsencode(tmp_path.resolve() / end) == os.path.realpath(path)
        assert os.fstat(found.fd).st_ino == (tmp_path / end).stat().st_ino
        assert bool(found.link_owners) == bool(links)
        os.close(found.fd)
    assert len(os.listdir("/proc/self/fd")) == before


@root_only
def test_root_does_not_go_where_another_user_leads(root: Path) -> None:
    os.symlink("root", root.parent / "way")
    with fs_of(root.parent / "way" / "a", own_links=True) as fs:
        fs.dir(b"b")  # it is root's own
    os.chown(root.parent / "way", 1234, 1234, follow_symlinks=False)
    with pytest.raises(ForeignLink):
        fs_of(root.parent / "way" / "a", own_links=True)
    with pytest.raises(ForeignLink):
        fs_of(root.parent / "way" / "a")
    os.chown(root, 1234, 1234)
    with fs_of(root.parent / "way" / "a") as fs:  # to look at what is his own is another thing
        fs.dir(b"b")
    os.symlink("..", root / "up")
    os.chown(root / "up", 1234, 1234, follow_symlinks=False)
    with pytest.raises(ForeignLink):
        fs_of(root.parent / "way" / "up" / "outside")


def test_missing_parents_are_made_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "one" / "two" / "three"
    path.mkdir(parents=True)
    (tmp_path / "one" / "two").chmod(0o711)
    path.chmod(0o2750)
    real = os.fsencode(path.resolve())
    recorded = rootfs.parents(real)
    assert [oct(mode) for mode, *dummy in recorded[-2:]] == ["0o711", "0o2750"]
    path.rmdir()
    (tmp_path / "one" / "two").rmdir()
    assert rootfs.make_parents(real, recorded) == 2
    assert rootfs.parents(real) == recorded
    assert rootfs.make_parents(real, recorded) == 0


@root_only
def test_somebody_elses_directory_is_not_taken_for_the_parent_that_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who owns the directory above renames another one to where ours was made, which would become his."""
    (tmp_path / "one").mkdir()
    private = tmp_path / "private"
    private.mkdir(0o700)
    (private / "key").touch()
    recorded = [*rootfs.parents(os.fsencode(tmp_path.resolve())), (0o755, 1234, 1234)]
    mkdir = os.mkdir

    def mkdir_and_swap(*arguments: object, **named: object) -> None:
        mkdir(*arguments, **named)  # type: ignore[arg-type]
        (tmp_path / "made").rename(tmp_path / "away")
        private.rename(tmp_path / "made")

    monkeypatch.setattr(os, "mkdir", mkdir_and_swap)
    with pytest.raises(OSError, match="something else took its place"):
        rootfs.make_parents(os.fsencode(tmp_path.resolve() / "made"), recorded)
    found = (tmp_path / "made").stat()
    assert (found.st_uid, found.st_mode & 0o777) == (0, 0o700)
