# cython: language_level=3, binding=False, embedsignature=True, always_allow_keywords=False
# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The native twin of umbra.rollback's kernel: trees, packs and graphs, without the GIL.

It decides the plain cases. What it returns as None, or lists as left over, the pure twin decides: the specification is
there, and so are all errors for people. What needs waiting can be interrupted.
"""

import os

from cpython.bytes cimport PyBytes_AsString, PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport INT64_MAX, INT64_MIN, UINT64_MAX, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

cdef extern from "umbra.h" nogil:
    ctypedef int (*Poll)(void *, int64_t, int64_t)
    int DIGEST
    int sha256_use(const char *path)
    void sha256_use_own(int instructions)
    const char *sha256_name()

    ctypedef struct Text:
        char *data
        size_t size
    int text_add(Text *text, const void *data, size_t size)
    void text_free(Text *text)

    ctypedef struct Stat:
        uint64_t dev, ino, rdev
        int64_t size, mtime, ctime, blocks
        uint32_t mode, nlink, uid, gid
    ctypedef struct CDir "Dir":
        CNode *nodes
        char *path
        size_t path_size
        uint32_t count
    ctypedef struct CNode "Node":
        const char *name
        CDir *parent
        Stat st
        uint32_t name_size, state
    ctypedef struct LeftOut:
        char kind
        char *path
        size_t size
    ctypedef struct Roots:
        int parent_fd
        const char *name
        int one_device
        uint64_t device
    ctypedef struct CTree "Tree":
        Roots roots
        CNode **order
        size_t count, left_out_count
        LeftOut *left_out
        int absent
    ctypedef struct ScanOptions:
        const char **mounts
        const size_t *mount_sizes
        size_t mount_count
        const uint64_t (*untouched)[2]
        size_t untouched_count
        int (*exclude)(void *context, const CDir *dir, uint8_t *flags)
        void *context
    int tree_scan(CTree *tree, const Roots *roots, const ScanOptions *options, int threads, Poll poll, void *context)
    void tree_free(CTree *tree)
    size_t node_path(const CNode *node, Text *out)
    const CNode *tree_find(const CTree *tree, const char *path, size_t size)

    ctypedef struct Line:
        const char *text
        const char *path
        int64_t size
        uint32_t text_size, path_size
        char kind
        uint8_t sparse
    ctypedef struct CListing "Listing":
        Line *lines
        size_t count
        int has_stats
    int listing_read(CListing *listing, const char *data, size_t size)
    int listing_index(CListing *listing, const char *data, size_t size, const char *tree_hex)
    void listing_free(CListing *listing)
    ssize_t listing_find(const CListing *listing, const char *path, size_t size)
    const char *line_digest(const Line *line)
    int read_hex(const char *at, uint8_t *digest)

    ctypedef struct Place:
        int32_t pack
        uint32_t length
        uint64_t offset
    ctypedef struct Index:
        const uint8_t *data
        size_t rows
    ctypedef struct Segment:
        char *data
        size_t count
        uint32_t *sizes
    void packs_find(const Index *packs, size_t count, const uint8_t *digests, size_t wanted, Place *places)

    int NODE_OTHER, NODE_SAME, NODE_READ, NODE_DONE
    ctypedef struct CCapture "Capture":
        CTree *tree
        const CListing *previous
        uint32_t *line_of
        size_t read_count, same
        int root_user
        int (*sink)(void *context, Segment *segment)
        void *sink_context
    int capture_match(CCapture *capture)
    int capture_queue(CCapture *capture)
    int capture_read(CCapture *capture, int threads, Poll poll, void *context)
    int capture_write(CCapture *capture, int stats,
                      int (*other)(void *context, size_t position, Text *out, int64_t *bytes),
                      int (*take)(void *context, const char *data, size_t size), void *context, int64_t *bytes)
    void capture_free(CCapture *capture)

    int line_is_same(const CListing *listing, const Line *line, const Stat *st)

    int LINE_PROVEN, LINE_UNDECIDED, LINE_MISSING, LINE_LOOK, LINE_REPLACE
    ctypedef struct Identity:
        uint64_t dev, ino
        int64_t ctime
    ctypedef struct CComparison "Comparison":
        const CTree *tree
        const CListing *listing
        const Identity *written
        uint8_t *state
        uint32_t *node_of
        uint32_t *extra
        size_t extra_count
        int root_user
    int compare_match(CComparison *comparison)
    int compare_look(CComparison *comparison, int threads, Poll poll, void *context)
    void compare_free(CComparison *comparison)

    ctypedef struct Create:
        const Roots *roots
        const CTree *tree
        const uint32_t *node_of
        const CListing *listing
        const Index *packs
        size_t pack_count
        const uint32_t *lines
        const Place *places
        size_t count
        uint8_t *done
        const char *prefix
        Identity *made
        int remember
    int create_files(Create *create, int threads, Poll poll, void *context)
    size_t create_directories(const Roots *roots, const CListing *listing, const uint32_t *lines, size_t count,
                              Identity *made)
    void finish_directories(const Roots *roots, const CListing *listing, const uint32_t *lines, size_t count,
                            const Identity *made, uint8_t *done)

    int64_t stream_copy(int source, int target, int direct, int64_t size, uint8_t *digest, int *refused, Poll poll,
                        void *context)

VERSION = "0.1.0"
DEF_SMALL = 128 << 10


def use_libcrypto(path):
    """Take SHA-256 from the libcrypto at `path` (bytes), which this process has loaded; whether that works."""
    return sha256_use(path) == 0


def use_own(bint instructions):
    """Take no libcrypto, and the processor's instructions only if asked to; for tests."""
    sha256_use_own(instructions)


def hashing():
    """Where SHA-256 comes from: "libcrypto", "sha-ni" or "portable"."""
    return sha256_name().decode("ascii")


# --- what the C part calls back

cdef class Caught:
    """The first exception that a callback met, raised again when the threads have ended."""
    cdef object error

    cdef void keep(self, object error):
        if self.error is None:
            self.error = error

    cdef int settle(self, int result) except -2:
        """Raise what was caught; MemoryError for -1."""
        error, self.error = self.error, None
        if error is not None:
            raise error
        if result < 0:
            raise MemoryError()
        return result


cdef object reporter = None


def report(take, /):
    """Have `take(done, of)` called, about ten times a second, while something takes long: how many of how many equal parts
    of that are begun. From any thread. None: nobody is told."""
    global reporter
    reporter = take


cdef int poll(void *context, int64_t done, int64_t of) noexcept with gil:
    caught = <Caught>context
    try:
        PyErr_CheckSignals()
        if reporter is not None and of > 0:
            reporter(done, of)
    except BaseException as error:
        caught.keep(error)
        return 1
    return 0


cdef class Excluding(Caught):
    cdef object matches


cdef int exclude(void *context, const CDir *found, uint8_t *flags) noexcept with gil:
    call = <Excluding>context
    cdef uint32_t number
    try:
        path = PyBytes_FromStringAndSize(found.path, found.path_size)
        prefix = path + b"/" if path else b""
        for number in range(found.count):
            name = PyBytes_FromStringAndSize(found.nodes[number].name, found.nodes[number].name_size)
            flags[number] = bool(call.matches(prefix + name, name))
            if call.error is not None:  # an interrupt: there may be many names
                return 1
    except BaseException as error:
        call.keep(error)
        return 1
    return 0


cdef int fail(int error) except -1:
    raise OSError(error, os.strerror(error))


# --- trees

cdef object stat_result(const Stat *st):
    return os.stat_result(
        (st.mode, st.ino, st.dev, st.nlink, st.uid, st.gid, st.size, 0, st.mtime // 1000000000,
         st.ctime // 1000000000),
        {
            "st_mtime_ns": st.mtime,
            "st_ctime_ns": st.ctime,
            "st_mtime": st.mtime / 1e9,
            "st_ctime": st.ctime / 1e9,
            "st_blocks": st.blocks,
            "st_rdev": st.rdev,
        },
    )


cdef class Tree:
    """A tree as it was when it was scanned; nodes are numbered in the order of a listing. See `scan`."""
    cdef CTree tree
    cdef bytes name

    def __dealloc__(self):
        tree_free(&self.tree)

    def __len__(self):
        return self.tree.count

    def path(self, size_t number):
        """The path of a node (bytes, relative to the root)."""
        cdef Text path
        if number >= self.tree.count:
            raise IndexError(number)
        memset(&path, 0, sizeof(path))
        try:
            node_path(self.tree.order[number], &path)
            return PyBytes_FromStringAndSize(path.data, path.size)
        finally:
            text_free(&path)

    def stat(self, size_t number):
        """What stat said of a node, without atime (an os.stat_result)."""
        if number >= self.tree.count:
            raise IndexError(number)
        return stat_result(&self.tree.order[number].st)

    def find(self, bytes path):
        """What stat said of the node at `path`, or None."""
        cdef const CNode *node = tree_find(&self.tree, path, len(path))
        return stat_result(&node.st) if node != NULL else None

    def sizes(self):
        """How many bytes the files with one name have, and the numbers of those with several."""
        cdef size_t number
        cdef int64_t total = 0
        cdef CNode *node
        several = []
        for number in range(self.tree.count):
            node = self.tree.order[number]
            if (node.st.mode & 0o170000) == 0o100000:
                if node.st.nlink == 1:
                    total += node.st.size
                else:
                    several.append(number)
        return total, several

    def left_out(self):
        """(kind, path) of what is there and doesn't count: m mounted there, x excluded, t a temporary of ours."""
        cdef size_t number
        found = []
        for number in range(self.tree.left_out_count):
            one = self.tree.left_out[number]
            found.append((chr(one.kind), PyBytes_FromStringAndSize(one.path, one.size)))
        return found


def scan(int parent_fd, bytes name, bint one_device, mounts, untouched, matches, int threads, /):
    """Look at the whole tree at `name` in the directory `parent_fd`, which the Tree uses as long as it lives.

    `mounts` are relative paths not to enter, `untouched` (device, inode) of directories not to enter, `matches(path,
    name)` whether a name is excluded (None: none is). None when something is odd: the pure twin has to look.
    """
    cdef Tree made = Tree()
    cdef Excluding context = Excluding()
    cdef Roots roots
    cdef ScanOptions options
    cdef const char **paths = <const char **>calloc(len(mounts) + 1, sizeof(char *))
    cdef size_t *sizes = <size_t *>calloc(len(mounts) + 1, sizeof(size_t))
    cdef uint64_t *pairs = <uint64_t *>calloc(len(untouched) + 1, 2 * sizeof(uint64_t))
    cdef int result
    try:
        if paths == NULL or sizes == NULL or pairs == NULL:
            raise MemoryError()
        mounts = list(mounts)
        for number, path in enumerate(mounts):
            paths[number] = PyBytes_AsString(path)
            sizes[number] = len(path)
        for number, pair in enumerate(untouched):
            pairs[2 * number] = pair[0]
            pairs[2 * number + 1] = pair[1]
        made.name = name
        roots.parent_fd, roots.name, roots.one_device, roots.device = parent_fd, made.name, one_device, 0
        options.mounts, options.mount_sizes, options.mount_count = paths, sizes, len(mounts)
        options.untouched = <const uint64_t (*)[2]>pairs
        options.untouched_count = len(untouched)
        options.exclude = NULL
        if matches is not None:
            options.exclude = exclude
        options.context = <void *>context
        context.matches = matches
        with nogil:
            result = tree_scan(&made.tree, &roots, &options, threads, poll, <void *>context)
        if context.error is not None:
            context.settle(result)
        return made if result == 0 else None
    finally:
        free(paths)
        free(sizes)
        free(pairs)


# --- listings

cdef class Listing:
    """A listing that is just as the pure twin writes it, and the stat index that belongs to it. See `listing`."""
    cdef CListing listing
    cdef bytes data, stats

    def __dealloc__(self):
        listing_free(&self.listing)

    def __len__(self):
        return self.listing.count

    def index(self, bytes stats, bytes tree, /):
        """Take the stat index of the listing with digest `tree` (64 hexadecimal digits); whether it belongs to it."""
        if len(tree) != 2 * DIGEST:
            return False
        self.stats = stats
        return listing_index(&self.listing, stats, len(stats), tree) == 0

    def line(self, size_t number):
        """One line (str), without its end."""
        if number >= self.listing.count:
            raise IndexError(number)
        line = self.listing.lines[number]
        return PyBytes_FromStringAndSize(line.text, line.text_size).decode("ascii")

    def find(self, bytes path):
        """The number of the line for `path`, or None."""
        found = listing_find(&self.listing, path, len(path))
        return None if found < 0 else found

    def links(self):
        """The numbers of the lines that are other names of a file."""
        cdef size_t number
        return [number for number in range(self.listing.count) if self.listing.lines[number].kind == b"h"]

    def digests(self):
        """The digest (32 bytes) of each file, one after the other."""
        cdef size_t number, count = 0
        cdef bytes made
        cdef uint8_t *at
        for number in range(self.listing.count):
            count += self.listing.lines[number].kind == b"f"
        made = PyBytes_FromStringAndSize(NULL, count * DIGEST)
        at = <uint8_t *>PyBytes_AsString(made)
        for number in range(self.listing.count):
            if self.listing.lines[number].kind == b"f":
                read_hex(line_digest(&self.listing.lines[number]), at)
                at += DIGEST
        return made


def listing(bytes data):
    """The Listing in `data`, or None when it is not just as it should be: the pure twin says what is wrong."""
    cdef Listing made = Listing()
    cdef const char *at = data
    cdef size_t size = len(data)
    cdef int result
    made.data = data
    with nogil:
        result = listing_read(&made.listing, at, size)
    return made if result == 0 else None


# --- packs

include "packs.pxi"


# --- shadowing

cdef class Others(Caught):
    cdef dict lines
    cdef bint stats
    cdef object take


cdef int other(void *context, size_t position, Text *out, int64_t *total) noexcept with gil:
    call = <Others>context
    cdef bytes line, stat
    cdef tuple found
    try:
        found = call.lines.get(position)
        if found is None:
            return 0
        line, stat, size = found
        if call.stats:
            line = stat
        if text_add(out, PyBytes_AsString(line), len(line)):
            raise MemoryError()
        total[0] += size
    except BaseException as error:
        call.keep(error)
        return 1
    return 0


cdef int written(void *context, const char *data, size_t size) noexcept with gil:
    call = <Others>context
    try:
        call.take(PyBytes_FromStringAndSize(data, size))
    except BaseException as error:
        call.keep(error)
        return 1
    return 0


cdef class Capture:
    """One shadow of a tree: `match` it with the last one, tell what is `lost`, `read`, and `write` the new listing."""
    cdef CCapture capture
    cdef Tree tree
    cdef Listing previous

    def __init__(self, Tree tree not None, Listing previous, bint root_user, /):
        self.tree, self.previous = tree, previous
        self.capture.tree = &tree.tree
        self.capture.previous = &previous.listing if previous is not None else NULL
        self.capture.root_user = root_user

    def __dealloc__(self):
        capture_free(&self.capture)

    def match(self):
        """Find what is as it was; how many."""
        cdef int result
        if self.capture.line_of != NULL:
            raise RuntimeError("was matched before")
        with nogil:
            result = capture_match(&self.capture)
        if result:
            raise MemoryError()
        return self.capture.same

    def digests(self):
        """The digest (32 bytes) of each file that is as it was, one after the other."""
        cdef size_t number, count = 0
        cdef CTree *tree = self.capture.tree
        cdef const Line *line
        cdef bytes made = b""
        cdef uint8_t *at = NULL
        while True:  # to count, and to take
            for number in range(tree.count):
                if tree.order[number].state == NODE_SAME:
                    line = &self.capture.previous.lines[self.capture.line_of[number] - 1]
                    if line.kind != b"f":
                        continue
                    if at == NULL:
                        count += 1
                    else:
                        read_hex(line_digest(line), at)
                        at += DIGEST
            if at != NULL:
                return made
            made = PyBytes_FromStringAndSize(NULL, count * DIGEST)
            at = <uint8_t *>PyBytes_AsString(made)

    def lost(self, bytes flags):
        """Of what `digests` gave, what is flagged is to be read again, or is left over; how many are."""
        cdef size_t number, count = 0, lost = 0
        cdef CTree *tree = self.capture.tree
        cdef const char *at = flags
        cdef CNode *node
        for number in range(tree.count):
            node = tree.order[number]
            if node.state == NODE_SAME and self.capture.previous.lines[self.capture.line_of[number] - 1].kind == b"f":
                if count >= <size_t>len(flags):
                    raise ValueError("fewer flags than digests")
                if at[count]:
                    node.state = NODE_READ if node.st.size <= DEF_SMALL else NODE_OTHER
                    self.capture.line_of[number] = 0
                    self.capture.same -= 1
                    lost += 1
                count += 1
        return lost

    def read(self, Packs packs, give, uint64_t limit, int threads, /):
        """Read what has to be read. Small contents that `packs` don't have are written to the PackWriter that `give()`
        gives, from any thread: at first, and when one has `limit` bytes. Without packs, each goes to `give(data)`. Raises
        OSError of writing."""
        cdef Filling context = Filling()
        cdef int result
        context.give, context.held = give, [packs]
        context.packing.limit = limit
        context.packing.next, context.packing.context = next_writer, <void *>context
        self.capture.sink, self.capture.sink_context = sink, <void *>context
        if packs is not None:
            context.packing.packs, context.packing.pack_count = packs.packs, packs.count
            self.capture.sink, self.capture.sink_context = packing_add, &context.packing
        if self.capture_queue():
            raise MemoryError()
        with nogil:
            result = capture_read(&self.capture, threads, poll, <void *>context)
        if context.error is None and context.packing.error:
            fail(context.packing.error)
        context.settle(result)

    cdef int capture_queue(self):
        if self.capture.read_count:
            raise RuntimeError("was read before")
        return capture_queue(&self.capture)

    def others(self):
        """The numbers of the nodes that are left over, in order."""
        cdef size_t number
        cdef CTree *tree = self.capture.tree
        return [number for number in range(tree.count) if tree.order[number].state == NODE_OTHER]

    def files_read(self):
        """How many files were read."""
        cdef size_t number, count = 0
        cdef CTree *tree = self.capture.tree
        for number in range(tree.count):
            count += tree.order[number].state == NODE_DONE and (tree.order[number].st.mode & 0o170000) == 0o100000
        return count

    def line_of(self, size_t number):
        """The last line (str) of a node that stat says is as it was, or None."""
        if number >= self.tree.tree.count:
            raise IndexError(number)
        if not self.capture.line_of[number]:
            return None
        return self.previous.line(self.capture.line_of[number] - 1)

    def write(self, dict lines, bint stats, take, /):
        """Give the listing, or with `stats` the lines of its stat index, piece by piece (bytes) to `take`; how many bytes
        the files have.

        `lines` has for the number of each node that was left over: its line and its line of the index, with their
        ends (bytes), and its size; those that are not in it are gone.
        """
        cdef Others context = Others()
        cdef int64_t total = 0
        cdef int result
        context.lines, context.stats, context.take = lines, stats, take
        with nogil:
            result = capture_write(&self.capture, stats, other, written, <void *>context, &total)
        context.settle(result)
        return total


# --- comparing and making

cdef class Comparison:
    """A tree held against a listing; `written` is what that of the last restore has `written`, if there was one just
    now. What is missing is then made by `make_directories`, `make_files`, and `finish`."""
    cdef CComparison comparison
    cdef Tree tree
    cdef Listing listing
    cdef bytes held
    cdef Identity *identities  # in `held`, by line
    cdef Roots roots
    cdef uint8_t *is_made  # by line
    cdef uint32_t *lines

    def __init__(
        self, Tree tree not None, Listing listing not None, bint root_user, int threads, bytes written=None, /
    ):
        cdef Caught context = Caught()
        cdef int result
        self.tree, self.listing = tree, listing
        self.comparison.tree, self.comparison.listing = &tree.tree, &listing.listing
        if written is not None and <size_t>len(written) == listing.listing.count * sizeof(Identity):
            self.comparison.written = <const Identity *>PyBytes_AsString(written)
        self.held = b""
        self.comparison.root_user = root_user
        self.roots = tree.tree.roots
        if tree.tree.absent:
            self.roots.device = os.fstat(self.roots.parent_fd).st_dev
        self.is_made = <uint8_t *>calloc(listing.listing.count + 1, 1)
        self.lines = <uint32_t *>malloc((listing.listing.count + 1) * sizeof(uint32_t))
        if self.is_made == NULL or self.lines == NULL:
            raise MemoryError()
        with nogil:
            result = compare_match(&self.comparison)
            if not result:
                result = compare_look(&self.comparison, threads, poll, <void *>context)
        self.comparison.written = NULL
        context.settle(result)

    def __dealloc__(self):
        compare_free(&self.comparison)
        free(self.is_made)
        free(self.lines)

    cdef int hold(self) except -1:
        """Have room for what is made."""
        cdef size_t size = self.listing.listing.count * sizeof(Identity)
        if self.identities == NULL:
            self.held = PyBytes_FromStringAndSize(NULL, size)
            self.identities = <Identity *>PyBytes_AsString(self.held)
            memset(self.identities, 0, size)
        return 0

    cdef list _numbers(self, int state, int or_state):
        cdef size_t number
        return [
            number for number in range(self.listing.listing.count)
            if self.comparison.state[number] in (state, or_state) and not self.is_made[number]
        ]

    def undecided(self):
        """Numbers of lines that are left over, in order."""
        return self._numbers(LINE_UNDECIDED, LINE_UNDECIDED)

    def missing(self):
        """Numbers of lines that have no node, or are to be replaced, and that were not made, in order."""
        return self._numbers(LINE_MISSING, LINE_REPLACE)

    def extra(self):
        """Numbers of nodes that have no line, in order."""
        cdef size_t number
        return [self.comparison.extra[number] for number in range(self.comparison.extra_count)]

    def same(self, size_t number, st=None, /):
        """Whether the stat index proves that what is at the line's path is what was shadowed."""
        if number >= self.listing.listing.count:
            raise IndexError(number)
        if not self.listing.listing.has_stats or not self.comparison.node_of[number]:
            return False
        node = self.tree.tree.order[self.comparison.node_of[number] - 1]
        return line_is_same(&self.listing.listing, &self.listing.listing.lines[number], &node.st) != 0

    def misses(self, bytes path):
        """Whether the listing has a line for `path`, and the tree had no node."""
        number = self.listing.find(path)
        return number is not None and self.comparison.state[<size_t>number] == LINE_MISSING

    def counts(self):
        """Of what is missing: how many names, how many bytes their files have, and those without holes of them."""
        cdef size_t number, count = 0
        cdef int64_t total = 0, dense = 0
        for number in range(self.listing.listing.count):
            line = self.listing.listing.lines[number]
            if self.comparison.state[number] == LINE_MISSING:
                count += 1
                if line.kind == b"f":
                    total += line.size
                    if not line.sparse:
                        dense += line.size
        return count, total, dense

    cdef size_t _directories(self, bint made):
        cdef size_t number, count = 0
        for number in range(self.listing.listing.count):
            if (self.comparison.state[number] == LINE_MISSING and self.listing.listing.lines[number].kind == b"d"
                    and self.is_made[number] == made):
                self.lines[count] = <uint32_t>number
                count += 1
        return count

    cdef size_t _small_files(self):
        cdef size_t number, count = 0
        for number in range(self.listing.listing.count):
            line = self.listing.listing.lines[number]
            if (line.kind == b"f" and not line.sparse and line.size <= DEF_SMALL and not self.is_made[number]
                    and self.comparison.state[number] in (LINE_MISSING, LINE_REPLACE)):
                self.lines[count] = <uint32_t>number
                count += 1
        return count

    def replace(self, bytes path):
        """Have `make_files` replace what differs there; whether that is a file with one name, and is to be one."""
        cdef ssize_t number = listing_find(&self.listing.listing, path, len(path))
        cdef const Stat *st
        if number < 0 or self.comparison.state[number] != LINE_UNDECIDED or not self.comparison.node_of[number]:
            return False
        st = &self.tree.tree.order[self.comparison.node_of[number] - 1].st
        if (st.mode & 0o170000) != 0o100000 or st.nlink != 1 or self.listing.listing.lines[number].kind != b"f":
            return False
        self.comparison.state[number] = LINE_REPLACE
        return True

    def written(self):
        """What was made, for the Comparison that comes next: device, inode and ctime (8 bytes each) by line, or 0; or
        nothing."""
        return self.held


    def parents(self):
        """Paths of the directories that were there and miss something."""
        cdef size_t number
        found = set()
        for number in range(self.listing.listing.count):
            line = self.listing.listing.lines[number]
            if self.comparison.state[number] == LINE_MISSING and line.path_size:
                above = PyBytes_FromStringAndSize(line.path, line.path_size).rpartition(b"/")[0]
                if above not in found:
                    above_number = self.listing.find(above)
                    if self.comparison.state[<size_t>above_number] != LINE_MISSING:
                        found.add(above)
        return sorted(found)

    def make_directories(self):
        """Make the directories that are missing, so that only we may enter them."""
        cdef size_t number, made, count = self._directories(False)
        self.hold()
        with nogil:
            made = create_directories(&self.roots, &self.listing.listing, self.lines, count, self.identities)
        for number in range(made):
            self.is_made[self.lines[number]] = 1

    def make_files(self, Packs packs not None, bytes prefix, int threads, bint remember, /):
        """Make the small files that are missing, or to be replaced; `prefix` is that of temporary names. `remember`
        them in `written`. How many bytes they have."""
        cdef Caught context = Caught()
        cdef size_t number, count = self._small_files(), kept = 0
        cdef uint8_t *digests = <uint8_t *>malloc((count + 1) * DIGEST)
        cdef Place *places = <Place *>malloc((count + 1) * sizeof(Place))
        cdef uint8_t *done = <uint8_t *>calloc(count + 1, 1)
        cdef Create create
        cdef int64_t total = 0
        cdef int result
        try:
            if digests == NULL or places == NULL or done == NULL:
                raise MemoryError()
            self.hold()
            for number in range(count):
                read_hex(line_digest(&self.listing.listing.lines[self.lines[number]]), digests + number * DIGEST)
            packs_find(packs.packs, packs.count, digests, count, places)
            for number in range(count):
                if places[number].pack >= 0:
                    places[kept], self.lines[kept] = places[number], self.lines[number]
                    kept += 1
            create.roots, create.listing, create.packs = &self.roots, &self.listing.listing, packs.packs
            create.pack_count, create.lines, create.places, create.count = packs.count, self.lines, places, kept
            create.tree, create.node_of = &self.tree.tree, self.comparison.node_of
            create.done, create.prefix, create.made = done, prefix, self.identities
            create.remember = remember
            with nogil:
                result = create_files(&create, threads, poll, <void *>context)
            for number in range(kept):
                if done[number]:
                    total += self.listing.listing.lines[self.lines[number]].size
                    self.is_made[self.lines[number]] = 1
            context.settle(result)
            return total
        finally:
            free(digests)
            free(places)
            free(done)

    def _path(self, size_t number):
        line = self.listing.listing.lines[number]
        return PyBytes_FromStringAndSize(line.path, line.path_size)

    def made(self):
        """Device and inode of the directories that were made, by path."""
        cdef size_t number, at, count = self._directories(True)
        found = {}
        for number in range(count):
            at = self.lines[number]
            found[self._path(at)] = (self.identities[at].dev, self.identities[at].ino)
        return found

    def finish(self):
        """Give the directories that were made their metadata; the paths of those that are left over."""
        cdef size_t number, count = self._directories(True)
        cdef uint8_t *done = <uint8_t *>calloc(count + 1, 1)
        try:
            if done == NULL:
                raise MemoryError()
            for number in range(count // 2):  # what is in a directory comes first
                self.lines[number], self.lines[count - 1 - number] = self.lines[count - 1 - number], self.lines[number]
            with nogil:
                finish_directories(&self.roots, &self.listing.listing, self.lines, count, self.identities, done)
            return [self._path(self.lines[number]) for number in range(count) if not done[number]]
        finally:
            free(done)


# --- files

def stream(int source, int target, int direct, int64_t size, /):
    """SHA-256 (32 bytes) of the first `size` bytes of `source`, which are written to `target` unless that is -1, but
    for holes; past the page cache if `direct` is another descriptor of the same file, and not -1. How many they are, and
    the errno of writing, or 0. Raises OSError of reading."""
    cdef uint8_t digest[32]
    cdef Caught context = Caught()
    cdef int refused = 0
    cdef int64_t done
    with nogil:
        done = stream_copy(source, target, direct, size, digest, &refused, poll, <void *>context)
    context.settle(0)
    if done < 0:
        fail(<int>-done)
    return PyBytes_FromStringAndSize(<char *>digest, DIGEST), done, refused


# --- graphs

include "graph.pxi"
