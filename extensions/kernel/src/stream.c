/* Copyright (c) 2026 The umbra.rollback authors
 * GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * A large file, hashed while it is copied; holes are neither read nor written (store/stream.py is the specification). */
#include "umbra.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define CHUNK (1u << 20)

typedef struct {
    Sha256 *sha;
    char *buffer; /* CHUNK bytes, in whole blocks */
    int source, target, direct;
    int64_t at, size;
    int *refused;
    Poll poll;
    void *context;
    int64_t polled; /* tenths of a second */
} Stream;

static int64_t tenths(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (int64_t)now.tv_sec * 10 + now.tv_nsec / 100000000;
}

static int is_stopped(Stream *stream)
{
    int64_t now = tenths();

    if (now == stream->polled)
        return 0;
    stream->polled = now;
    return stream->poll(stream->context, stream->at, stream->size);
}

static int hash_zeros(Stream *stream, int64_t until)
{
    if (stream->at < until)
        memset(stream->buffer, 0, CHUNK);
    while (stream->at < until) {
        int64_t some = until - stream->at < (int64_t)CHUNK ? until - stream->at : (int64_t)CHUNK;

        if (sha256_add(stream->sha, stream->buffer, (size_t)some))
            return -EIO;
        stream->at += some;
        if (is_stopped(stream))
            return -EINTR;
    }
    return 0;
}

int write_direct(int fd, int *direct, const char *data, size_t size, int64_t at)
{
    while (size) {
        int past = __atomic_load_n(direct, __ATOMIC_RELAXED);
        ssize_t some = pwrite(past >= 0 ? past : fd, data, size, at);

        if (some < 0 && errno == EINTR)
            continue;
        if (some < 0 && past >= 0 && (errno == EINVAL || errno == EOPNOTSUPP)) {
            __atomic_store_n(direct, -1, __ATOMIC_RELAXED);
            continue;
        }
        if (some <= 0)
            return some ? errno : EIO;
        data += some;
        at += some;
        size -= (size_t)some;
    }
    return 0;
}

/* What is no whole block goes through the page cache. */
static int write_on(Stream *stream, size_t size)
{
    size_t whole = stream->at % BLOCK ? 0 : size / BLOCK * BLOCK;
    int none = -1, error = write_direct(stream->target, &stream->direct, stream->buffer, whole, stream->at);

    return error ? error : write_direct(stream->target, &none, stream->buffer + whole, size - whole,
                                        stream->at + (int64_t)whole);
}

/* 1: the file ends before, or can't be written; -errno of reading. */
static int copy_data(Stream *stream, int64_t until)
{
    while (stream->at < until) {
        int64_t some = until - stream->at < (int64_t)CHUNK ? until - stream->at : (int64_t)CHUNK;
        ssize_t got = pread(stream->source, stream->buffer, (size_t)some, stream->at);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -errno;
        if (!got)
            return 1;
        if (sha256_add(stream->sha, stream->buffer, (size_t)got))
            return -EIO;
        if (stream->target >= 0)
            *stream->refused = write_on(stream, (size_t)got);
        if (*stream->refused)
            return 1;
        stream->at += got;
        if (is_stopped(stream))
            return -EINTR;
    }
    return 0;
}

int64_t stream_copy(int source, int target, int direct, int64_t size, uint8_t digest[DIGEST], int *refused, Poll poll,
                    void *context)
{
    Stream stream = {sha256_new(), NULL, source, target, direct, 0, size, refused, poll, context, tenths()};
    void *buffer = NULL;
    int failed = stream.sha && !posix_memalign(&buffer, BLOCK, CHUNK) && !sha256_begin(stream.sha) ? 0 : -ENOMEM;

    stream.buffer = buffer;
    while (!failed && stream.at < size) {
        off_t data = lseek(source, stream.at, SEEK_DATA), hole = data < 0 ? -1 : lseek(source, data, SEEK_HOLE);

        if (data < 0 && errno == ENXIO) { /* a hole up to the end, which may be nearer than it was */
            off_t end = lseek(source, 0, SEEK_END);

            failed = end < 0 ? -errno : hash_zeros(&stream, end < size ? end : size);
            break;
        }
        if (data < 0 || hole < 0) /* this file system tells of no holes */
            data = stream.at, hole = size;
        failed = hash_zeros(&stream, data < size ? data : size);
        if (!failed)
            failed = copy_data(&stream, hole < size ? hole : size);
    }
    if (failed >= 0 && sha256_end(stream.sha, digest))
        failed = -EIO;
    sha256_free(stream.sha);
    free(buffer);
    return failed < 0 ? failed : stream.at;
}
