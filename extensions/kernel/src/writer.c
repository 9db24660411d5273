/* Copyright (c) 2026 The umbra.rollback authors
 * GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * A pack that is being written (store/writer.py is the specification), by several threads: each fills segments of its own,
 * takes a place for one, and writes it there past the page cache. The writer knows a content once it is written, and
 * not before: so one that could not be written was never there. */
#include "umbra.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SEGMENT (2u << 20)
#define SLOTS (2 * SEGMENT_COUNT)
#define FEW 1024

typedef struct {
    uint8_t digest[DIGEST];
    uint64_t offset;
    uint32_t length;
} Entry;

struct Writer {
    pthread_mutex_t lock; /* for all below; never held while something is written */
    pthread_cond_t idle;
    Writer *previous;
    Entry *entries;
    uint32_t *slots; /* number of an entry + 1, at twice `room` places */
    size_t count, room;
    uint64_t end, bytes;
    int fd, direct, writing, closed;
};

static size_t hash(const uint8_t *digest)
{
    uint32_t key;

    memcpy(&key, digest, sizeof key);
    return key;
}

Segment *segment_new(void)
{
    Segment *segment = malloc(sizeof *segment);
    void *data = NULL;

    if (!segment || posix_memalign(&data, BLOCK, SEGMENT)) {
        free(segment);
        return NULL;
    }
    segment->data = data;
    segment_clear(segment);
    return segment;
}

void segment_free(Segment *segment)
{
    if (segment)
        free(segment->data);
    free(segment);
}

void segment_clear(Segment *segment)
{
    segment->count = segment->size = 0;
    memset(segment->slots, 0, sizeof segment->slots);
}

int segment_add(Segment *segment, const uint8_t digest[DIGEST], const void *data, size_t size)
{
    size_t slot = hash(digest) % SLOTS;

    for (; segment->slots[slot]; slot = (slot + 1) % SLOTS)
        if (!memcmp(segment->digests[segment->slots[slot] - 1], digest, DIGEST))
            return 0;
    if (segment->count == SEGMENT_COUNT || segment->size + size > SEGMENT)
        return 1;
    memcpy(segment->digests[segment->count], digest, DIGEST);
    memcpy(segment->data + segment->size, data, size);
    segment->sizes[segment->count] = (uint32_t)size;
    segment->size += size;
    segment->slots[slot] = (uint16_t)++segment->count;
    return 0;
}

/* Leave out what has a place already. */
static void drop_known(Segment *segment)
{
    size_t count = 0, size = 0, at = 0;

    for (size_t i = 0; i < segment->count; at += segment->sizes[i++]) {
        if (segment->places[i].pack >= 0)
            continue;
        if (count != i) {
            memcpy(segment->digests[count], segment->digests[i], DIGEST);
            memmove(segment->data + size, segment->data + at, segment->sizes[i]);
        }
        size += segment->sizes[i];
        segment->sizes[count++] = segment->sizes[i];
    }
    segment->count = count;
    segment->size = size;
}

Writer *writer_new(int fd, int direct, Writer *previous)
{
    Writer *writer = calloc(1, sizeof *writer);

    if (!writer)
        return NULL;
    if (pthread_mutex_init(&writer->lock, NULL)) {
        free(writer);
        return NULL;
    }
    if (pthread_cond_init(&writer->idle, NULL)) {
        pthread_mutex_destroy(&writer->lock);
        free(writer);
        return NULL;
    }
    writer->fd = fd;
    writer->direct = direct;
    writer->previous = previous;
    return writer;
}

void writer_free(Writer *writer)
{
    if (!writer)
        return;
    pthread_cond_destroy(&writer->idle);
    pthread_mutex_destroy(&writer->lock);
    free(writer->entries);
    free(writer->slots);
    free(writer);
}

/* Where the digest is in `slots`, or would be. */
static size_t slot_of(const Writer *writer, const uint8_t *digest)
{
    size_t mask = 2 * writer->room - 1, slot = hash(digest) & mask;

    while (writer->slots[slot] && memcmp(writer->entries[writer->slots[slot] - 1].digest, digest, DIGEST))
        slot = (slot + 1) & mask;
    return slot;
}

static int is_known(const Writer *writer, const uint8_t *digest)
{
    return writer->count && writer->slots[slot_of(writer, digest)];
}

static int make_room(Writer *writer, size_t more)
{
    size_t room = writer->room ? writer->room : FEW;
    uint32_t *slots;
    Entry *entries;

    while (room < writer->count + more)
        room *= 2;
    if (room == writer->room)
        return 0;
    if (room >= UINT32_MAX || !(slots = calloc(2 * room, sizeof *slots)))
        return ENOMEM;
    if (!(entries = realloc(writer->entries, room * sizeof *entries))) {
        free(slots);
        return ENOMEM;
    }
    free(writer->slots);
    writer->entries = entries;
    writer->slots = slots;
    writer->room = room;
    for (size_t i = 0; i < writer->count; i++)
        slots[slot_of(writer, entries[i].digest)] = (uint32_t)i + 1;
    return 0;
}

/* What another thread has written meanwhile stays where that put it. */
static int know(Writer *writer, const Segment *segment, uint64_t offset)
{
    int error = make_room(writer, segment->count);

    for (size_t i = 0; i < segment->count && !error; offset += segment->sizes[i++]) {
        size_t slot = slot_of(writer, segment->digests[i]);
        Entry *entry = &writer->entries[writer->count];

        if (writer->slots[slot])
            continue;
        memcpy(entry->digest, segment->digests[i], DIGEST);
        entry->offset = offset;
        entry->length = segment->sizes[i];
        writer->slots[slot] = (uint32_t)++writer->count;
        writer->bytes += entry->length;
    }
    return error;
}

static void note_known(Writer *writer, Segment *segment)
{
    for (size_t i = 0; i < segment->count; i++)
        if (segment->places[i].pack < 0 && is_known(writer, segment->digests[i]))
            segment->places[i].pack = 0;
}

static uint64_t in_blocks(uint64_t size)
{
    return (size + BLOCK - 1) / BLOCK * BLOCK;
}

int writer_add(Writer *writer, Segment *segment, const Index *packs, size_t pack_count, uint64_t limit)
{
    uint64_t offset, size = 0;
    int error;

    packs_find(packs, pack_count, segment->digests[0], segment->count, segment->places);
    for (Writer *one = writer->previous; one; one = one->previous) {
        pthread_mutex_lock(&one->lock);
        note_known(one, segment);
        pthread_mutex_unlock(&one->lock);
    }
    pthread_mutex_lock(&writer->lock);
    if (writer->closed || writer->end >= limit) {
        pthread_mutex_unlock(&writer->lock);
        return WRITER_FULL;
    }
    note_known(writer, segment);
    for (size_t i = 0; i < segment->count; i++)
        size += segment->places[i].pack < 0 ? segment->sizes[i] : 0;
    size = in_blocks(size);
    offset = writer->end;
    writer->end += size;
    writer->writing++;
    pthread_mutex_unlock(&writer->lock);

    drop_known(segment);
    memset(segment->data + segment->size, 0, size - segment->size);
    error = write_direct(writer->fd, &writer->direct, segment->data, size, (int64_t)offset);

    pthread_mutex_lock(&writer->lock);
    if (!error)
        error = know(writer, segment, offset);
    if (error && writer->end == offset + size)
        writer->end = offset;
    if (!--writer->writing)
        pthread_cond_broadcast(&writer->idle);
    pthread_mutex_unlock(&writer->lock);
    return error;
}

int writer_add_all(Writer *writer, const uint8_t *digests, const void *sizes, size_t count, const char *data,
                   size_t room)
{
    Segment *segment = segment_new();
    int error = segment ? 0 : ENOMEM;
    size_t i = 0, at = 0;

    while (!error && (i < count || segment->count)) {
        uint32_t size = 0;

        if (i < count)
            memcpy(&size, (const char *)sizes + i * sizeof size, sizeof size);
        if (size > SMALL || size > room - at)
            error = EINVAL;
        else if (i < count && !segment_add(segment, digests + i * DIGEST, data + at, size)) {
            at += size;
            i++;
        } else {
            error = writer_add(writer, segment, NULL, 0, UINT64_MAX);
            segment_clear(segment);
        }
    }
    segment_free(segment);
    return error == WRITER_FULL ? EINVAL : error;
}

void writer_look(Writer *writer, uint64_t *end, uint64_t *bytes, size_t *count)
{
    pthread_mutex_lock(&writer->lock);
    *end = writer->end;
    *bytes = writer->bytes;
    *count = writer->count;
    pthread_mutex_unlock(&writer->lock);
}

int writer_find(Writer *writer, const uint8_t digest[DIGEST], Place *place)
{
    int found;

    pthread_mutex_lock(&writer->lock);
    found = is_known(writer, digest);
    if (found) {
        const Entry *entry = &writer->entries[writer->slots[slot_of(writer, digest)] - 1];

        *place = (Place){0, entry->length, entry->offset};
    }
    pthread_mutex_unlock(&writer->lock);
    return found;
}

uint64_t writer_close(Writer *writer)
{
    uint64_t end = 0;

    pthread_mutex_lock(&writer->lock);
    writer->closed = 1;
    while (writer->writing)
        pthread_cond_wait(&writer->idle, &writer->lock);
    for (size_t i = 0; i < writer->count; i++)
        if (writer->entries[i].offset + writer->entries[i].length > end)
            end = writer->entries[i].offset + writer->entries[i].length;
    pthread_mutex_unlock(&writer->lock);
    return end;
}

static int by_digest(const void *a, const void *b)
{
    return memcmp((*(const Entry *const *)a)->digest, (*(const Entry *const *)b)->digest, DIGEST);
}

int writer_index(const Writer *writer, uint8_t *out)
{
    const Entry **rows = malloc((writer->count + 1) * sizeof *rows);
    Sha256 *sha = sha256_new();
    uint8_t *at = out;
    int failed = !rows || !sha;

    if (!failed) {
        for (size_t i = 0; i < writer->count; i++)
            rows[i] = &writer->entries[i];
        qsort(rows, writer->count, sizeof *rows, by_digest);
        at = index_begin(at, writer->count);
        for (size_t i = 0; i < writer->count; i++, at += DIGEST)
            memcpy(at, rows[i]->digest, DIGEST);
        for (size_t i = 0; i < writer->count; i++)
            at = index_place(at, rows[i]->offset, rows[i]->length);
        failed = sha256_of(sha, out, (size_t)(at - out), at);
    }
    sha256_free(sha);
    free(rows);
    return failed ? -1 : 0;
}

int packing_add(void *context, Segment *segment)
{
    Packing *packing = context;
    int error;

    for (;;) {
        Writer *writer = __atomic_load_n(&packing->writer, __ATOMIC_ACQUIRE);

        error = writer ? writer_add(writer, segment, packing->packs, packing->pack_count, packing->limit)
                       : WRITER_FULL;
        if (error != WRITER_FULL)
            break;
        writer = packing->next(packing->context);
        if (!writer)
            return -1;
        __atomic_store_n(&packing->writer, writer, __ATOMIC_RELEASE);
    }
    if (error)
        __atomic_store_n(&packing->error, error, __ATOMIC_RELAXED);
    return error ? -1 : 0;
}
