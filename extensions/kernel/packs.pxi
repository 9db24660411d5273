# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Packs: read (store/packs.py is the specification), and written (store/writer.py).

cdef extern from "umbra.h" nogil:
    int index_open(Index *index, const uint8_t *data, size_t size, uint64_t pack_size, int fd)
    size_t index_size(size_t rows)
    int packs_verify(const Index *packs, size_t count, const uint8_t *digests, const Place *places, size_t wanted,
                     uint8_t *bad, int64_t *good, int threads, Poll poll, void *context)

    ctypedef struct Writer:
        pass
    Writer *writer_new(int fd, int direct, Writer *previous)
    void writer_free(Writer *writer)
    int writer_add_all(Writer *writer, const uint8_t *digests, const void *sizes, size_t count, const char *data,
                       size_t room)
    void writer_look(Writer *writer, uint64_t *end, uint64_t *bytes, size_t *count)
    int writer_find(Writer *writer, const uint8_t *digest, Place *place)
    uint64_t writer_close(Writer *writer)
    int writer_index(const Writer *writer, uint8_t *out)
    ctypedef struct Packing:
        const Index *packs
        size_t pack_count
        uint64_t limit
        Writer *(*next)(void *context)
        void *context
        int error
    int packing_add(void *packing, Segment *segment)


cdef class Packs:
    """Published packs, as they are now: `files` has for each the whole index (bytes), the size of the pack, its open
    file, which is held. An index that is not as it should be is left out."""
    cdef Index *packs
    cdef size_t count
    cdef list held

    def __init__(self, list files not None, /):
        cdef bytes data
        self.held = []
        self.packs = <Index *>calloc(len(files) + 1, sizeof(Index))
        if self.packs == NULL:
            raise MemoryError()
        for one in files:
            data = one[0]
            if index_open(&self.packs[self.count], data, len(data), one[1], one[2].fileno()) == 0:
                self.held.append(one)
                self.count += 1

    def __dealloc__(self):
        free(self.packs)

    def lacking(self, bytes digests not None):
        """A flag (a byte) for each of the digests (32 bytes each): 1 where no pack has it."""
        cdef size_t number, wanted = len(digests) // DIGEST
        cdef const uint8_t *at = digests
        cdef Place *places = <Place *>malloc((wanted + 1) * sizeof(Place))
        cdef bytes made = PyBytes_FromStringAndSize(NULL, wanted)
        cdef char *flags = PyBytes_AsString(made)
        if places == NULL:
            raise MemoryError()
        with nogil:
            packs_find(self.packs, self.count, at, wanted, places)
            for number in range(wanted):
                flags[number] = places[number].pack < 0
            free(places)
        return made

    def verify(self, bytes digests not None, int threads, /):
        """Read and check the contents: how many bytes the good ones have, each once, and a flag for each: 1 where it
        is in no pack, can't be read, or is something else."""
        cdef Caught context = Caught()
        cdef size_t wanted = len(digests) // DIGEST
        cdef const uint8_t *at = digests
        cdef Place *places = <Place *>malloc((wanted + 1) * sizeof(Place))
        cdef bytes made = PyBytes_FromStringAndSize(NULL, wanted)
        cdef uint8_t *bad = <uint8_t *>PyBytes_AsString(made)
        cdef int64_t total = 0
        cdef int result
        try:
            if places == NULL:
                raise MemoryError()
            with nogil:
                packs_find(self.packs, self.count, at, wanted, places)
                result = packs_verify(self.packs, self.count, at, places, wanted, bad, &total, threads, poll,
                                      <void *>context)
            context.settle(result)
            return total, made
        finally:
            free(places)


cdef class PackWriter:
    """A pack that is being written to the descriptor `fd`, and past the page cache to `direct`, which is the same file,
    or -1. What `previous` has, or those before it, is not written again."""
    cdef Writer *writer
    cdef PackWriter previous

    def __init__(self, int fd, int direct, PackWriter previous, /):
        self.previous = previous
        self.writer = writer_new(fd, direct, previous.writer if previous is not None else NULL)
        if self.writer == NULL:
            raise MemoryError()

    def __dealloc__(self):
        writer_free(self.writer)

    def look(self):
        """Where the pack goes on, how many bytes its contents have, how many they are."""
        cdef uint64_t end = 0, total = 0
        cdef size_t count = 0
        writer_look(self.writer, &end, &total, &count)
        return end, total, count

    def find(self, bytes digest not None):
        """Offset and length of the content with that digest (32 bytes), or None."""
        cdef Place place
        if len(digest) != DIGEST or not writer_find(self.writer, digest, &place):
            return None
        return place.offset, place.length

    def add(self, bytes digests not None, bytes sizes not None, bytes data not None, /):
        """Write contents, which lie one after the other, with their digests (32 bytes each) and sizes (numbers of 32
        bits, as the machine has them). Raises OSError; it may be repeated then."""
        cdef const uint8_t *digest = digests
        cdef const char *size = sizes
        cdef const char *at = data
        cdef size_t count = len(digests) // DIGEST, room = len(data)
        cdef int error
        if <size_t>len(sizes) != count * sizeof(uint32_t):
            raise ValueError(sizes)
        with nogil:
            error = writer_add_all(self.writer, digest, size, count, at, room)
        if error:
            fail(error)

    def close(self):
        """Write nothing more, and wait until all is written; where the last content ends."""
        cdef uint64_t end
        with nogil:
            end = writer_close(self.writer)
        return end

    def index(self):
        """The index (bytes) of a closed one."""
        cdef uint64_t end = 0, total = 0
        cdef size_t count = 0
        cdef uint8_t *at
        cdef int failed
        writer_look(self.writer, &end, &total, &count)
        made = PyBytes_FromStringAndSize(NULL, index_size(count))
        at = <uint8_t *>PyBytes_AsString(made)
        with nogil:
            failed = writer_index(self.writer, at)
        if failed:
            raise MemoryError()
        return made


cdef class Filling(Caught):
    cdef Packing packing
    cdef object give
    cdef list held  # threads may still look at a writer that is full


cdef Writer *next_writer(void *context) noexcept with gil:
    call = <Filling>context
    cdef PackWriter writer
    try:
        if call.error is None:  # else an interrupt: nothing is begun any more
            writer = call.give()
            call.held.append(writer)
            return writer.writer
    except BaseException as error:
        call.keep(error)
    return NULL


cdef int sink(void *context, Segment *segment) noexcept with gil:
    call = <Filling>context
    cdef size_t number, at = 0
    try:
        for number in range(segment.count):
            call.give(PyBytes_FromStringAndSize(segment.data + at, segment.sizes[number]))
            at += segment.sizes[number]
    except BaseException as error:
        call.keep(error)
        return 1
    return 0
