/* Copyright (c) 2026 The umbra.rollback authors
 * GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Things of one directory, read together: it is opened once. A thing is read as the pure twin reads it (tree/capture.py);
 * what is not plain is left to it. */
#include "umbra.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define DIRECTORY (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
#define HELD (O_PATH | O_NOFOLLOW | O_CLOEXEC)
/* O_NONBLOCK: a fifo or a device that took the place of a file must not make us wait. */
#define FILE_READ (O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)
#define MOST 256
#define MOST_BYTES (8 << 20)
#define FRESH 20000000

ssize_t batch_cut(size_t count, const void *(*parent)(void *context, size_t i), int64_t (*size)(void *context, size_t i),
                  void *context, Batch **batches)
{
    int64_t bytes = 0;
    size_t made = 0, room = count / 32 + 16;
    Batch *list = malloc(room * sizeof *list);
    const void *last = NULL;

    for (size_t i = 0; list && i < count; i++) {
        const void *now = parent(context, i);

        bytes += size ? size(context, i) : 0;
        if (made && now == last && i - list[made - 1].start < MOST && bytes <= MOST_BYTES) {
            list[made - 1].end = (uint32_t)i + 1;
            continue;
        }
        if (made == room) {
            Batch *larger = realloc(list, 2 * room * sizeof *list);

            if (!larger) {
                free(list);
                return -1;
            }
            list = larger;
            room *= 2;
        }
        list[made++] = (Batch){(uint32_t)i, (uint32_t)i + 1};
        last = now;
        bytes = size ? size(context, i) : 0;
    }
    *batches = list;
    return list ? (ssize_t)made : -1;
}

int reader_open(Reader *reader, Job *job, int root_user)
{
    memset(reader, 0, sizeof *reader);
    reader->job = job;
    reader->root_user = root_user;
    reader->sha = sha256_new();
    reader->buffer = malloc(BUFFER);
    return reader->sha && reader->buffer ? 0 : -1;
}

void reader_close(Reader *reader)
{
    sha256_free(reader->sha);
    free(reader->buffer);
    text_free(&reader->extra);
    text_free(&reader->scratch);
}

/* Whether the next change may leave the ctime as it is now. */
static int is_fresh(const Stat *st)
{
    struct timespec now;
    int64_t age;

    clock_gettime(CLOCK_REALTIME, &now);
    age = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec - st->ctime;
    return age >= 0 && age < FRESH;
}

static int has_holes(int fd, const Stat *st)
{
    return st->blocks * 512 < st->size && lseek(fd, 0, SEEK_HOLE) < st->size;
}

static int is_unchanged(int fd, const Stat *before)
{
    struct stat st;
    Stat now;

    return !fstat(fd, &st) && !stat_take(&now, &st) && stat_is_same(&now, before);
}

static int hash_whole(Reader *reader, int fd, int64_t size, uint8_t digest[DIGEST])
{
    int64_t at = 0;

    if (sha256_begin(reader->sha))
        return -1;
    for (;;) {
        size_t held = size < BUFFER ? (size_t)at : 0; /* what fits stays whole, however little a read gives */
        ssize_t got = pread(fd, reader->buffer + held, BUFFER - held, at);

        if (got < 0 || at + got > size || job_ended(reader->job))
            return -1;
        if (!got || sha256_add(reader->sha, reader->buffer + held, (size_t)got))
            break;
        at += got;
        if (at == size && (size_t)got < BUFFER - held)
            break;
    }
    return at == size ? sha256_end(reader->sha, digest) : -1;
}

int read_file(Reader *reader, int dir, const char *name, Stat *st, uint8_t digest[DIGEST])
{
    int fd = openat(dir, name, FILE_READ), result = -1;
    struct stat now;

    if (fd < 0)
        return -1;
    reader->extra.size = 0;
    if (!fstat(fd, &now) && S_ISREG(now.st_mode) && !stat_take(st, &now) && !is_fresh(st) && !has_holes(fd, st) &&
        !xattrs_read(fd, reader->root_user, &reader->extra, &reader->scratch) &&
        !hash_whole(reader, fd, st->size, digest) && is_unchanged(fd, st))
        result = 0;
    close(fd);
    return result;
}

int read_directory(Reader *reader, int dir, const char *name, Stat *st)
{
    int fd = openat(dir, name, DIRECTORY), result = -1;
    struct stat now;

    if (fd < 0)
        return -1;
    reader->extra.size = 0;
    if (!fstat(fd, &now) && !stat_take(st, &now))
        result = xattrs_read(fd, reader->root_user, &reader->extra, &reader->scratch);
    close(fd);
    return result;
}

int read_symlink(Reader *reader, int dir, const char *name, Stat *st)
{
    int fd = openat(dir, name, HELD), result = -1;
    struct stat now;
    char magic[32];
    ssize_t size;

    if (fd < 0)
        return -1;
    reader->extra.size = 0;
    snprintf(magic, sizeof magic, "/proc/self/fd/%d", fd);
    if (!fstat(fd, &now) && S_ISLNK(now.st_mode) && !stat_take(st, &now) &&
        (size = readlinkat(fd, "", reader->buffer, BUFFER)) > 0) {
        if (!text_add(&reader->extra, " ", 1) && !text_escaped(&reader->extra, reader->buffer, (size_t)size))
            result = xattrs_read_path(magic, reader->root_user, &reader->extra, &reader->scratch);
    }
    close(fd);
    return result;
}
