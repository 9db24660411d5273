/* Copyright (c) 2026 The umbra.rollback authors
 * GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Hold a tree against a listing: what is proven equal, by the stat index or by reading it, and what is missing; all else
 * is left to the pure twin (tree/compare.py is the specification). */
#include "umbra.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char kind_of(uint32_t mode)
{
    switch (mode & S_IFMT) {
    case S_IFREG:
        return 'f';
    case S_IFDIR:
        return 'd';
    case S_IFLNK:
        return 'l';
    case S_IFIFO:
        return 'p';
    case S_IFCHR:
        return 'c';
    case S_IFBLK:
        return 'b';
    default:
        return 's';
    }
}

static int is_mounted_on(const Tree *tree, const Line *line)
{
    for (size_t i = 0; i < tree->left_out_count; i++) {
        const LeftOut *one = &tree->left_out[i];

        if (one->kind == 'm' && one->size == line->path_size && !memcmp(one->path, line->path, one->size))
            return 1;
    }
    return 0;
}

/* Whether it is the file that the last restore wrote there, and nothing changed it since. */
static int is_as_written(const Comparison *comparison, ssize_t number, const Line *line, const Stat *st)
{
    const Identity *written = comparison->written ? &comparison->written[number] : NULL;

    return written && line->kind == 'f' && written->ino && st->dev == written->dev && st->ino == written->ino &&
           st->ctime == written->ctime && st->size == line->size && st->mtime == line->mtime &&
           (st->mode & 07777) == line->mode && st->uid == line->uid && st->gid == line->gid;
}

static void note(void *context, ssize_t position, ssize_t number)
{
    Comparison *comparison = context;
    const Line *line;
    uint8_t *state;
    const Node *node;
    char kind;

    if (number < 0) {
        comparison->extra[comparison->extra_count++] = (uint32_t)position;
        return;
    }
    line = &comparison->listing->lines[number];
    state = &comparison->state[number];
    if (position < 0) {
        *state = is_mounted_on(comparison->tree, line) ? LINE_UNDECIDED : LINE_MISSING;
        return;
    }
    comparison->node_of[number] = (uint32_t)position + 1;
    node = comparison->tree->order[position];
    kind = kind_of(node->st.mode);
    *state = LINE_UNDECIDED;
    if (line->kind != kind || (kind != 'd' && node->st.nlink > 1))
        return;
    if (line_is_same(comparison->listing, line, &node->st) || is_as_written(comparison, number, line, &node->st))
        *state = LINE_PROVEN;
    else if (kind == 'f' || kind == 'l' || (kind == 'd' && !(node->dir && node->dir->partial)))
        *state = LINE_LOOK;
}

int compare_match(Comparison *comparison)
{
    comparison->state = calloc(comparison->listing->count + 1, sizeof *comparison->state);
    comparison->node_of = calloc(comparison->listing->count + 1, sizeof *comparison->node_of);
    comparison->extra = calloc(comparison->tree->count + 1, sizeof *comparison->extra);
    comparison->extra_count = 0;
    if (!comparison->state || !comparison->node_of || !comparison->extra)
        return -1;
    return pair_up(comparison->tree, comparison->listing, note, comparison);
}

typedef struct {
    Comparison *comparison;
    uint32_t *look;
    Batch *batches;
    ssize_t count;
    int failed;
} Looking;

static Node *node_at(const Comparison *comparison, uint32_t number)
{
    return comparison->tree->order[comparison->node_of[number] - 1];
}

static const void *parent_of_look(void *context, size_t i)
{
    const Looking *looking = context;

    return node_at(looking->comparison, looking->look[i])->parent;
}

static int64_t size_of_look(void *context, size_t i)
{
    const Looking *looking = context;

    return node_at(looking->comparison, looking->look[i])->st.size;
}

static int is_equal(Reader *reader, int dir, const char *name, const Node *node, const Line *line)
{
    const char *extra = line_tail(line);
    size_t own = 0;
    Stat st;

    if (node->st.uid != line->uid || node->st.gid != line->gid || node->st.mtime != line->mtime ||
        (line->kind != 'l' && (node->st.mode & 07777) != line->mode))
        return 0;
    if (line->kind == 'f') {
        uint8_t digest[DIGEST], wanted[DIGEST];

        if (node->st.size != line->size || line->sparse || read_file(reader, dir, name, &st, digest) ||
            read_hex(line_digest(line), wanted) || memcmp(digest, wanted, DIGEST))
            return 0;
        own = line_own_size(line);
    } else if (line->kind == 'd' ? read_directory(reader, dir, name, &st) : read_symlink(reader, dir, name, &st))
        return 0;
    if (st.dev != node->st.dev || st.ino != node->st.ino)
        return 0; /* something else has the name now */
    return reader->extra.size == line->tail_size - own &&
           (!reader->extra.size || !memcmp(reader->extra.data, extra + own, reader->extra.size));
}

static void look_at_batch(Looking *looking, Reader *reader, const Batch *batch)
{
    Comparison *comparison = looking->comparison;
    const Roots *roots = &comparison->tree->roots;
    const Dir *parent = node_at(comparison, looking->look[batch->start])->parent;
    int dir = parent ? open_below(roots, parent->path, parent->path_size) : fcntl(roots->parent_fd, F_DUPFD_CLOEXEC, 0);

    for (uint32_t i = batch->start; i < batch->end; i++) {
        const Line *line = &comparison->listing->lines[looking->look[i]];
        const Node *node = node_at(comparison, looking->look[i]);
        const char *name = node->parent ? node->name : roots->name;

        comparison->state[looking->look[i]] =
            dir >= 0 && is_equal(reader, dir, name, node, line) ? LINE_PROVEN : LINE_UNDECIDED;
    }
    if (dir >= 0)
        close(dir);
}

static void look_at_some(Job *job, void *arg, int thread)
{
    Looking *looking = arg;
    Reader reader;
    int64_t number;

    (void)thread;
    if (reader_open(&reader, job, looking->comparison->root_user)) {
        __atomic_store_n(&looking->failed, 1, __ATOMIC_RELAXED);
        job_end(job);
    }
    while ((number = job_next(job, looking->count)) >= 0)
        look_at_batch(looking, &reader, &looking->batches[number]);
    reader_close(&reader);
}

int compare_look(Comparison *comparison, int threads, Poll poll, void *context)
{
    Looking looking = {.comparison = comparison};
    const Listing *listing = comparison->listing;
    size_t wanted = 0;
    int result = -1;

    looking.look = malloc((listing->count + 1) * sizeof *looking.look);
    if (!looking.look)
        return -1;
    for (size_t i = 0; i < listing->count; i++)
        if (comparison->state[i] == LINE_LOOK)
            looking.look[wanted++] = (uint32_t)i;
    looking.count = batch_cut(wanted, parent_of_look, size_of_look, &looking, &looking.batches);
    if (looking.count >= 0) {
        if (looking.count < threads)
            threads = (int)looking.count;
        result = looking.count ? job_run(look_at_some, &looking, threads, poll, context) : 0;
        free(looking.batches);
    }
    free(looking.look);
    return looking.failed ? -1 : result;
}

void compare_free(Comparison *comparison)
{
    free(comparison->state);
    free(comparison->node_of);
    free(comparison->extra);
    memset(comparison, 0, sizeof *comparison);
}
