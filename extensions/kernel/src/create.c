/* Copyright (c) 2026 The umbra.rollback authors
 * GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Make what is missing in a tree: directories that only we may enter, then files, each made whole beside its name and
 * renamed; and files that differ in the same way. A directory that we made is known by its inode: who may rename it could
 * put another in its place. A file is put only where there is nothing if there was nothing when we looked, and else over
 * nothing but what was there then: what came or changed since is nowhere kept.
 * Metadata is put back in the order of tree/metadata.py. What does not go smoothly is taken back, and left to the pure
 * twin. */
#include "umbra.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#define NOREPLACE 1 /* RENAME_NOREPLACE */
#define NEW (O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC)
#define DIRECTORY (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)

typedef struct {
    Create *create;
    Batch *batches;
    ssize_t count;
    int failed;
} Creating;

typedef struct {
    char *buffer;
    Text extra, scratch;
    Sha256 *sha;
    uint64_t number; /* of the next temporary */
    int plain;       /* the directory passes nothing on to what is made in it */
} Maker;

static size_t parent_size(const Line *line)
{
    size_t size = line->path_size;

    while (size && line->path[size - 1] != '/')
        size--;
    return size ? size - 1 : 0;
}

/* The name of the line, in its directory. */
static int name_of(const Roots *roots, const Line *line, char name[256])
{
    size_t skip = parent_size(line), size;
    const char *from = line->path;

    if (!line->path_size)
        return snprintf(name, 256, "%s", roots->name) < 256 ? 0 : -1;
    skip += skip || *line->path == '/';
    size = line->path_size - skip;
    if (size > 255)
        return -1;
    memcpy(name, from + skip, size);
    name[size] = 0;
    return 0;
}

static int open_parent(const Roots *roots, const Line *line)
{
    return line->path_size ? open_below(roots, line->path, parent_size(line)) : fcntl(roots->parent_fd, F_DUPFD_CLOEXEC, 0);
}

/* The attributes that the line has and the file has not. Others, as a parent's default ACL gives, are not ours here. */
static int put_xattrs(int fd, const Line *line, size_t own, Maker *maker)
{
    const char *at = line_tail(line) + own, *end = line_tail(line) + line->tail_size;
    char name[256];

    maker->extra.size = 0;
    if (xattrs_read(fd, geteuid() == 0, &maker->extra, &maker->scratch))
        return -1;
    if (maker->extra.size == (size_t)(end - at) && (at == end || !memcmp(maker->extra.data, at, maker->extra.size)))
        return 0;
    if (maker->extra.size)
        return -1;
    while (at < end) {
        const char *stop;
        ssize_t size;

        at++;
        stop = memchr(at, ' ', (size_t)(end - at));
        if (!stop || stop - at > 255 || (size = unescape(at, (size_t)(stop - at), name)) < 0)
            return -1;
        name[size] = 0;
        at = stop + 1;
        stop = memchr(at, ' ', (size_t)(end - at));
        stop = stop ? stop : end;
        if ((size_t)(stop - at) > BUFFER || (size = unescape(at, (size_t)(stop - at), maker->buffer)) < 0 ||
            fsetxattr(fd, name, maker->buffer, (size_t)size, 0))
            return -1;
        at = stop;
    }
    return 0;
}

static int has_acl(const char *attributes, size_t size)
{
    static const char name[] = " system.posix_acl_access ";

    return memmem(attributes, size, name, sizeof name - 1) != NULL;
}

static int put_back(int fd, const Line *line, size_t own, Maker *maker, Identity *held)
{
    struct timespec times[2] = {{0, UTIME_OMIT}, {0, 0}};
    struct stat st;
    int chown, chmod, acl;

    if (fstat(fd, &st))
        return -1;
    if (held)
        *held = (Identity){st.st_dev, st.st_ino, 0};
    chown = st.st_uid != line->uid || st.st_gid != line->gid;
    chmod = chown || (st.st_mode & 07777) != line->mode;
    acl = line->tail_size > own && has_acl(line_tail(line) + own, line->tail_size - own);
    /* The group's bits are the mask of an ACL, and until that is there they would be the group's rights. */
    if ((chown && fchown(fd, line->uid, line->gid)) || (chmod && fchmod(fd, acl ? line->mode & 0700 : line->mode)) ||
        put_xattrs(fd, line, own, maker) || (chmod && acl && fchmod(fd, line->mode)))
        return -1;
    times[1].tv_sec = line->mtime / 1000000000;
    times[1].tv_nsec = line->mtime % 1000000000;
    if (times[1].tv_nsec < 0) {
        times[1].tv_sec--;
        times[1].tv_nsec += 1000000000;
    }
    return futimens(fd, times);
}

static int write_all(int fd, const char *data, size_t size)
{
    while (size) {
        ssize_t some = write(fd, data, size);

        if (some <= 0)
            return -1;
        data += some;
        size -= (size_t)some;
    }
    return 0;
}

static int fetch(const Create *create, const Place *place, const Line *line, Maker *maker)
{
    uint8_t digest[DIGEST], wanted[DIGEST];
    const Index *pack = &create->packs[place->pack];

    return place->length == (uint64_t)line->size &&
                   pread(pack->fd, maker->buffer, place->length, (off_t)place->offset) == (ssize_t)place->length &&
                   !sha256_of(maker->sha, maker->buffer, place->length, digest) &&
                   !read_hex(line_digest(line), wanted) && !memcmp(digest, wanted, DIGEST)
               ? 0
               : -1;
}

static int rename_new(int dir, const char *temporary, const char *name)
{
    if (!syscall(SYS_renameat2, dir, temporary, dir, name, NOREPLACE))
        return 0;
    if (errno != ENOSYS && errno != EINVAL)
        return -1;
    if (linkat(dir, temporary, dir, name, 0))
        return -1;
    unlinkat(dir, temporary, 0); /* it is in its place; a temporary that stays, the next run removes */
    return 0;
}

/* `node` is what was there when we looked, or NULL. */
static int put_in_place(int dir, const char *temporary, const char *name, const Node *node)
{
    struct stat st;
    Stat now;

    if (!node)
        return rename_new(dir, temporary, name);
    return fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) || stat_take(&now, &st) || !stat_is_same(&now, &node->st)
               ? -1
               : renameat(dir, temporary, dir, name);
}

/* Note the file in its place, unless something else is there already. */
static void remember(int dir, const char *name, Identity *held, Identity *made)
{
    struct stat st;
    Stat now;

    if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) || stat_take(&now, &st) || now.dev != held->dev ||
        now.ino != held->ino)
        return;
    *made = (Identity){now.dev, now.ino, now.ctime};
}

/* The mode to make a file with: where it gets no owner and nothing is passed on to it, it may have its own at once. */
static mode_t first_mode(const Line *line, const Maker *maker)
{
    int own = maker->plain && line->uid == geteuid() && line->gid == getegid() && line->tail_size == line_own_size(line);

    return own ? line->mode & 0777 : 0600;
}

static int make_file(Create *create, int dir, uint32_t number, const Place *place, Maker *maker)
{
    const Line *line = &create->listing->lines[number];
    uint32_t position = create->node_of[number];
    char name[256], temporary[64];
    Identity held;
    int fd, failed;

    if (name_of(create->roots, line, name) || fetch(create, place, line, maker))
        return -1;
    snprintf(temporary, sizeof temporary, "%s%016llx", create->prefix, (unsigned long long)maker->number++);
    fd = openat(dir, temporary, NEW, first_mode(line, maker));
    if (fd < 0)
        return -1;
    failed = write_all(fd, maker->buffer, place->length) || put_back(fd, line, line_own_size(line), maker, &held);
    failed |= close(fd);
    if (!failed)
        failed = put_in_place(dir, temporary, name, position ? create->tree->order[position - 1] : NULL);
    if (failed)
        unlinkat(dir, temporary, 0);
    else if (create->remember)
        remember(dir, name, &held, &create->made[number]);
    return failed ? -1 : 0;
}

/* Whether what is made in the directory has no other group and no ACL than what is made elsewhere. */
static int is_plain(int fd)
{
    struct stat st;

    return !fstat(fd, &st) && !(st.st_mode & S_ISGID) && fgetxattr(fd, "system.posix_acl_default", NULL, 0) < 0 &&
           (errno == ENODATA || errno == ENOTSUP);
}

static int is_made(int fd, const Identity *made)
{
    struct stat st;

    return !fstat(fd, &st) && st.st_dev == made->dev && st.st_ino == made->ino;
}

typedef struct {
    const Create *create;
    const Line *last;
} Cutting;

/* Lines of one directory lie together, but each has a path of its own: the first one stands for all. */
static const void *parent_of_line(void *context, size_t i)
{
    Cutting *cutting = context;
    const Line *line = &cutting->create->listing->lines[cutting->create->lines[i]];
    size_t size = parent_size(line);

    if (!cutting->last || parent_size(cutting->last) != size || memcmp(cutting->last->path, line->path, size))
        cutting->last = line;
    return cutting->last;
}

static void make_batch(Create *create, Maker *maker, const Batch *batch)
{
    const Line *first = &create->listing->lines[create->lines[batch->start]];
    int dir = open_parent(create->roots, first);
    ssize_t parent = first->path_size ? listing_find(create->listing, first->path, parent_size(first)) : -1;

    if (dir < 0)
        return;
    maker->plain = is_plain(dir);
    if (parent < 0 || !create->made[parent].ino || is_made(dir, &create->made[parent]))
        for (uint32_t i = batch->start; i < batch->end; i++)
            create->done[i] = !make_file(create, dir, create->lines[i], &create->places[i], maker);
    close(dir);
}

static int maker_open(Maker *maker, int thread)
{
    memset(maker, 0, sizeof *maker);
    maker->number = (uint64_t)thread << 48 | (uint64_t)getpid() << 24;
    maker->buffer = malloc(BUFFER);
    maker->sha = sha256_new();
    return maker->buffer && maker->sha ? 0 : -1;
}

static void maker_close(Maker *maker)
{
    free(maker->buffer);
    sha256_free(maker->sha);
    text_free(&maker->extra);
    text_free(&maker->scratch);
}

static void make_some(Job *job, void *arg, int thread)
{
    Creating *creating = arg;
    int64_t number;
    Maker maker;

    if (maker_open(&maker, thread)) {
        __atomic_store_n(&creating->failed, 1, __ATOMIC_RELAXED);
        job_end(job);
    }
    while ((number = job_next(job, creating->count)) >= 0)
        make_batch(creating->create, &maker, &creating->batches[number]);
    maker_close(&maker);
}

int create_files(Create *create, int threads, Poll poll, void *context)
{
    Creating creating = {.create = create};
    Cutting cutting = {create, NULL};
    int result;

    creating.count = batch_cut(create->count, parent_of_line, NULL, &cutting, &creating.batches);
    if (creating.count < 0)
        return -1;
    if (creating.count < threads)
        threads = (int)creating.count;
    result = creating.count ? job_run(make_some, &creating, threads, poll, context) : 0;
    free(creating.batches);
    return creating.failed ? -1 : result;
}

/* Whether the directory is one that was made just now, by us, with nobody else's rights, and note which it is. */
static int is_ours(int fd, Identity *made)
{
    char buffer[4096];
    struct stat st;
    long got;

    if (fstat(fd, &st) || st.st_uid != geteuid() || (st.st_mode & 0777) != 0700)
        return 0;
    while ((got = syscall(SYS_getdents64, fd, buffer, sizeof buffer)) > 0)
        for (long at = 0; at < got; at += *(const unsigned short *)(buffer + at + 16)) {
            const char *name = buffer + at + 19;

            if (name[0] != '.' || (name[1] && (name[1] != '.' || name[2])))
                return 0;
        }
    *made = (Identity){st.st_dev, st.st_ino, 0};
    return !got;
}

static int make_directory(const Roots *roots, const Line *line, Identity *made)
{
    int dir = open_parent(roots, line), fd = -1, result = -1;
    char name[256];

    if (dir < 0)
        return -1;
    if (!name_of(roots, line, name) && !mkdirat(dir, name, 0700) && (fd = openat(dir, name, DIRECTORY)) >= 0)
        result = is_ours(fd, made) ? 0 : -1;
    if (fd >= 0)
        close(fd);
    close(dir);
    return result;
}

size_t create_directories(const Roots *roots, const Listing *listing, const uint32_t *lines, size_t count, Identity *made)
{
    size_t number = 0;

    while (number < count && !make_directory(roots, &listing->lines[lines[number]], &made[lines[number]]))
        number++;
    return number;
}

void finish_directories(const Roots *roots, const Listing *listing, const uint32_t *lines, size_t count,
                        const Identity *made, uint8_t *done)
{
    Maker maker;

    memset(done, 0, count);
    if (!maker_open(&maker, 0))
        for (size_t i = 0; i < count; i++) {
            const Line *line = &listing->lines[lines[i]];
            int fd = open_below(roots, line->path, line->path_size);

            if (fd < 0)
                continue;
            done[i] = is_made(fd, &made[lines[i]]) && !put_back(fd, line, 0, &maker, NULL);
            close(fd);
        }
    maker_close(&maker);
}
