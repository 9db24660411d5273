/* Copyright (c) 2026 The umbra.rollback authors
 * GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Shadow a tree: what did not change is taken over from the last listing, what did is read, hashed and handed on in large
 * pieces, and the new listing is written (tree/capture.py is the specification). */
#include "umbra.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FORMAT "umbra-tree 1\n"
#define PIECE (1u << 20) /* of what is written, in memory */

static int path_order(const Text *path, const Line *line)
{
    size_t common = path->size < line->path_size ? path->size : line->path_size;
    int order = memcmp(path->data, line->path, common);

    return order ? order : path->size < line->path_size ? -1 : path->size > line->path_size;
}

int pair_up(const Tree *tree, const Listing *listing, Pair pair, void *context)
{
    Text path = {0};
    const Dir *parent = NULL;
    size_t at = 0, number = 0, prefix = 0;
    int result = text_room(&path, 1);

    while (!result && (at < tree->count || number < listing->count)) {
        const Node *node = at < tree->count ? tree->order[at] : NULL;
        int order = node ? -1 : 1;

        if (node) {
            if (node->parent != parent || !parent) {
                result = !node_path(node, &path) && node->parent ? -1 : 0;
                parent = node->parent;
                prefix = path.size - node->name_size;
            } else {
                path.size = prefix;
                result = text_add(&path, node->name, node->name_size);
            }
            if (number < listing->count)
                order = path_order(&path, &listing->lines[number]);
        }
        if (result)
            break;
        pair(context, order <= 0 ? (ssize_t)at : -1, order >= 0 ? (ssize_t)number : -1);
        at += order <= 0;
        number += order >= 0;
    }
    text_free(&path);
    return result;
}

static int is_plain(const Node *node)
{
    return S_ISDIR(node->st.mode) ||
           (node->st.nlink == 1 && (S_ISLNK(node->st.mode) || (S_ISREG(node->st.mode) && node->st.size <= SMALL)));
}

static void note(void *context, ssize_t position, ssize_t number)
{
    Capture *capture = context;
    Node *node;
    const Line *line;

    if (position < 0)
        return;
    node = capture->tree->order[position];
    node->state = is_plain(node) ? NODE_READ : NODE_OTHER;
    if (number < 0)
        return;
    line = &capture->previous->lines[number];
    if (line->kind == 'h' || !line_is_same(capture->previous, line, &node->st))
        return;
    capture->line_of[position] = (uint32_t)number + 1;
    if (S_ISDIR(node->st.mode) || node->st.nlink == 1) {
        node->state = NODE_SAME;
        capture->same++;
    }
}

int capture_match(Capture *capture)
{
    static const Listing none = {0};

    capture->same = 0;
    capture->line_of = calloc(capture->tree->count + 1, sizeof *capture->line_of);
    if (!capture->line_of)
        return -1;
    return pair_up(capture->tree, capture->previous ? capture->previous : &none, note, capture);
}

int capture_queue(Capture *capture)
{
    const Tree *tree = capture->tree;

    capture->read_count = 0;
    for (size_t i = 0; i < tree->count; i++)
        capture->read_count += tree->order[i]->state == NODE_READ;
    capture->read = malloc((capture->read_count + 1) * sizeof *capture->read);
    capture->found = calloc(capture->read_count + 1, sizeof *capture->found);
    if (!capture->read || !capture->found)
        return -1;
    for (size_t i = 0, at = 0; i < tree->count; i++)
        if (tree->order[i]->state == NODE_READ)
            capture->read[at++] = (uint32_t)i;
    return 0;
}

typedef struct {
    Capture *capture;
    Batch *batches;
    ssize_t count;
    int failed;
} Reading;

static const void *parent_of_read(void *context, size_t i)
{
    const Capture *capture = context;
    const Node *node = capture->tree->order[capture->read[i]];

    return node->parent;
}

static int hand_on(Capture *capture, Segment *segment)
{
    int result = segment->count ? capture->sink(capture->sink_context, segment) : 0;

    segment_clear(segment);
    return result;
}

static int keep(Capture *capture, Segment *segment, const uint8_t digest[DIGEST], const char *data, size_t size)
{
    if (!segment_add(segment, digest, data, size))
        return 0;
    return hand_on(capture, segment) ? -1 : segment_add(segment, digest, data, size);
}

/* 0: read; 1: left to the pure twin; -1: no memory, or the sink failed. */
static int read_one(Capture *capture, Reader *reader, Segment *segment, int dir, Node *node, Found *found)
{
    int failed;

    if (S_ISREG(node->st.mode)) {
        Stat st;

        failed = read_file(reader, dir, node->name, &st, found->digest);
        if (failed || st.size > SMALL || st.nlink != 1)
            return 1;
        node->st = st;
        if (keep(capture, segment, found->digest, reader->buffer, (size_t)st.size))
            return -1;
    } else if (S_ISDIR(node->st.mode))
        failed = read_directory(reader, dir, node->name, &node->st) ||
                 (node->parent && capture->tree->roots.one_device && node->st.dev != capture->tree->roots.device);
    else
        failed = read_symlink(reader, dir, node->name, &node->st);
    if (failed)
        return 1;
    if (reader->extra.size) {
        if (!(found->extra = malloc(reader->extra.size)))
            return -1;
        memcpy(found->extra, reader->extra.data, reader->extra.size);
        found->extra_size = (uint32_t)reader->extra.size;
    }
    return 0;
}

static int read_batch(Capture *capture, Reader *reader, Segment *segment, const Batch *batch)
{
    const Node *first = capture->tree->order[capture->read[batch->start]];
    const Roots *roots = &capture->tree->roots;
    int dir = first->parent ? open_below(roots, first->parent->path, first->parent->path_size) : fcntl(roots->parent_fd, F_DUPFD_CLOEXEC, 0);
    int result = 0;

    for (uint32_t i = batch->start; i < batch->end && result >= 0; i++) {
        Node *node = capture->tree->order[capture->read[i]];
        Node root = {.name = roots->name};

        if (!node->parent) {
            root.st = node->st;
            result = dir < 0 ? 1 : read_one(capture, reader, segment, dir, &root, &capture->found[i]);
            node->st = root.st;
        } else
            result = dir < 0 ? 1 : read_one(capture, reader, segment, dir, node, &capture->found[i]);
        node->state = result ? NODE_OTHER : NODE_DONE;
    }
    if (dir >= 0)
        close(dir);
    return result < 0 ? -1 : 0;
}

static void read_some(Job *job, void *arg, int thread)
{
    Reading *reading = arg;
    Capture *capture = reading->capture;
    Segment *segment = segment_new();
    Reader reader;
    int failed = reader_open(&reader, job, capture->root_user) || !segment;
    int64_t number;

    (void)thread;
    while (!failed && (number = job_next(job, reading->count)) >= 0)
        failed = read_batch(capture, &reader, segment, &reading->batches[number]);
    if (!failed && !job_ended(job))
        failed = hand_on(capture, segment);
    if (failed) {
        __atomic_store_n(&reading->failed, 1, __ATOMIC_RELAXED);
        job_end(job);
    }
    reader_close(&reader);
    segment_free(segment);
}

int capture_read(Capture *capture, int threads, Poll poll, void *context)
{
    Reading reading = {.capture = capture};
    int result;

    reading.count = batch_cut(capture->read_count, parent_of_read, NULL, capture, &reading.batches);
    if (reading.count < 0)
        return -1;
    if (reading.count < threads)
        threads = (int)reading.count;
    result = reading.count ? job_run(read_some, &reading, threads, poll, context) : 0;
    free(reading.batches);
    return reading.failed ? -1 : result;
}

static char kind_of(uint32_t mode)
{
    return S_ISREG(mode) ? 'f' : S_ISDIR(mode) ? 'd' : 'l';
}

static int write_stat(Text *stats, const Stat *st)
{
    return text_unsigned(stats, st->dev) || text_add(stats, " ", 1) || text_unsigned(stats, st->ino) ||
           text_add(stats, " ", 1) || text_number(stats, st->size) || text_add(stats, " ", 1) ||
           text_number(stats, st->mtime) || text_add(stats, " ", 1) || text_number(stats, st->ctime) ||
           text_add(stats, "\n", 1);
}

static int write_line(Text *out, const Node *node, const Found *found, Text *path)
{
    char kind = kind_of(node->st.mode);

    if (!node_path(node, path) && node->parent)
        return -1;
    if (text_add(out, &kind, 1) || text_add(out, " ", 1) || text_octal(out, node->st.mode & 07777) ||
        text_add(out, " ", 1) || text_unsigned(out, node->st.uid) || text_add(out, " ", 1) ||
        text_unsigned(out, node->st.gid) || text_add(out, " ", 1) || text_number(out, node->st.mtime) ||
        text_add(out, " ", 1) || text_escaped(out, path->data, path->size))
        return -1;
    if (kind == 'f' && (text_add(out, " ", 1) || text_number(out, node->st.size) || text_add(out, " ", 1) ||
                        text_hex(out, found->digest) || text_add(out, " 0", 2)))
        return -1;
    return text_add(out, found->extra, found->extra_size) || text_add(out, "\n", 1);
}

static int write_node(Capture *capture, const Node *node, size_t position, const Found *found, int stats, Text *out,
                      Text *path)
{
    const Line *line;

    if (stats)
        return write_stat(out, &node->st);
    if (node->state == NODE_DONE)
        return write_line(out, node, found, path);
    line = &capture->previous->lines[capture->line_of[position] - 1];
    return text_add(out, line->text, line->text_size + 1);
}

int capture_write(Capture *capture, int stats, Other other, Take take, void *context, int64_t *bytes)
{
    const Tree *tree = capture->tree;
    Text path = {0}, out = {0};
    int result = stats ? 0 : text_add(&out, FORMAT, sizeof FORMAT - 1);

    *bytes = 0;
    for (size_t i = 0, read = 0; i < tree->count && !result; i++) {
        const Node *node = tree->order[i];
        const Found *found = NULL;

        if (read < capture->read_count && capture->read[read] == i)
            found = &capture->found[read++];
        if (node->state == NODE_SAME || (node->state == NODE_DONE && found)) {
            result = write_node(capture, node, i, found, stats, &out, &path);
            *bytes += S_ISREG(node->st.mode) ? node->st.size : 0;
        } else
            result = other(context, i, &out, bytes);
        if (!result && out.size >= PIECE) {
            result = take(context, out.data, out.size);
            out.size = 0;
        }
    }
    if (!result && out.size)
        result = take(context, out.data, out.size);
    text_free(&path);
    text_free(&out);
    return result;
}

void capture_free(Capture *capture)
{
    for (size_t i = 0; capture->found && i < capture->read_count; i++)
        free(capture->found[i].extra);
    free(capture->found);
    free(capture->read);
    free(capture->line_of);
    memset(capture, 0, sizeof *capture);
}
