/* Copyright (c) 2026 The umbra.rollback authors
 * GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Packs: where contents are, and whether they are as their digests say (store/packs.py is the specification). */
#include "umbra.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAGIC "umbraidx"
#define VERSION 1
#define HEADER 24
#define PLACE 16
#define WINDOW (4u << 20)
#define GAP (64u << 10)

static uint64_t big_endian(const uint8_t *at)
{
    uint64_t value = 0;

    for (int i = 0; i < 8; i++)
        value = value << 8 | at[i];
    return value;
}

static uint8_t *put_big_endian(uint8_t *out, uint64_t value)
{
    for (int i = 0; i < 8; i++)
        *out++ = (uint8_t)(value >> (56 - 8 * i));
    return out;
}

uint8_t *index_begin(uint8_t *out, size_t rows)
{
    memcpy(out, MAGIC, 8);
    return put_big_endian(put_big_endian(out + 8, VERSION), rows);
}

uint8_t *index_place(uint8_t *out, uint64_t offset, uint64_t length)
{
    return put_big_endian(put_big_endian(out, offset), length);
}

size_t index_size(size_t rows)
{
    return HEADER + rows * (DIGEST + PLACE) + DIGEST;
}

int index_open(Index *index, const uint8_t *data, size_t size, uint64_t pack_size, int fd)
{
    uint64_t rows;

    if (size < HEADER + DIGEST || memcmp(data, MAGIC, 8) || big_endian(data + 8) != VERSION)
        return -1;
    rows = big_endian(data + 16);
    if (rows != (size - HEADER - DIGEST) / (DIGEST + PLACE) || (size - HEADER - DIGEST) % (DIGEST + PLACE))
        return -1;
    for (const uint8_t *at = data + HEADER; rows && at < data + HEADER + (rows - 1) * DIGEST; at += DIGEST)
        if (memcmp(at, at + DIGEST, DIGEST) >= 0)
            return -1; /* another way of searching would find something else in it */
    *index = (Index){data, rows, size, pack_size, fd};
    return 0;
}

/* Digests are spread evenly, so that a guess from the value lands near its row. */
static int64_t find(const Index *index, const uint8_t *digest)
{
    const uint8_t *column = index->data + HEADER;
    uint64_t key = big_endian(digest);
    size_t low = 0, high = index->rows;

    while (low < high) {
        uint64_t first = big_endian(column + low * DIGEST), last = big_endian(column + (high - 1) * DIGEST);
        size_t guess;
        int order;

        if (key < first || key > last)
            return -1;
        guess = low;
        if (high - low > 8 && last > first)
            guess += (size_t)((double)(key - first) / (double)(last - first) * (double)(high - low - 1));
        else
            guess += (high - low) / 2;
        if (guess >= high)
            guess = high - 1;
        order = memcmp(digest, column + guess * DIGEST, DIGEST);
        if (!order)
            return (int64_t)guess;
        if (order < 0)
            high = guess;
        else
            low = guess + 1;
    }
    return -1;
}

void packs_find(const Index *packs, size_t count, const uint8_t *digests, size_t wanted, Place *places)
{
    size_t last = 0;

    for (size_t i = 0; i < wanted; i++, digests += DIGEST) {
        places[i] = (Place){-1, 0, 0};
        for (size_t tried = 0; tried < count; tried++) {
            size_t pack = (last + tried) % count;
            int64_t row = find(&packs[pack], digests);

            if (row >= 0) {
                const uint8_t *at = packs[pack].data + HEADER + packs[pack].rows * DIGEST + (size_t)row * PLACE;
                uint64_t offset = big_endian(at), length = big_endian(at + 8);

                if (length > SMALL || offset > packs[pack].pack_size || length > packs[pack].pack_size - offset)
                    continue; /* the pure twin says what is wrong with it */
                places[i] = (Place){(int32_t)pack, (uint32_t)length, offset};
                last = pack;
                break;
            }
        }
    }
}

typedef struct {
    Place place;
    uint32_t number;
} Row;

typedef struct {
    const Index *packs;
    const uint8_t *digests;
    uint8_t *bad;
    int64_t good;
    Row *rows;
    Batch *windows;
    size_t count;
    int failed;
} Verify;

static int by_place(const void *a, const void *b)
{
    const Place *one = &((const Row *)a)->place, *other = &((const Row *)b)->place;

    if (one->pack != other->pack)
        return one->pack < other->pack ? -1 : 1;
    return one->offset < other->offset ? -1 : one->offset > other->offset;
}

static int cut_windows(Verify *verify, size_t count)
{
    size_t room = 64;

    if (!(verify->windows = malloc(room * sizeof *verify->windows)))
        return -1;
    for (size_t i = 0; i < count; i++) {
        const Place *place = &verify->rows[i].place;
        Batch *window = verify->count ? &verify->windows[verify->count - 1] : NULL;

        if (window) {
            const Place *first = &verify->rows[window->start].place, *last = &verify->rows[i - 1].place;

            if (first->pack == place->pack && place->offset + place->length - first->offset <= WINDOW &&
                place->offset <= last->offset + last->length + GAP) {
                window->end = (uint32_t)i + 1;
                continue;
            }
        }
        if (verify->count == room) {
            Batch *larger = realloc(verify->windows, 2 * room * sizeof *larger);

            if (!larger)
                return -1;
            verify->windows = larger;
            room *= 2;
        }
        verify->windows[verify->count++] = (Batch){(uint32_t)i, (uint32_t)i + 1};
    }
    return 0;
}

/* Whether the row before has the same content. */
static int is_again(const Verify *verify, const Row *row)
{
    return row > verify->rows && !by_place(row - 1, row) &&
           !memcmp(verify->digests + (size_t)DIGEST * row[-1].number, verify->digests + (size_t)DIGEST * row->number, DIGEST);
}

static void verify_window(Job *job, Verify *verify, const Batch *window, Sha256 *sha, char *buffer)
{
    int64_t good = 0;
    const Place *first = &verify->rows[window->start].place;
    size_t size = 0, got = 0;

    for (uint32_t i = window->start; i < window->end; i++) {
        const Place *place = &verify->rows[i].place;

        if (place->offset + place->length - first->offset > size)
            size = place->offset + place->length - first->offset;
    }
    while (got < size) {
        ssize_t some = pread(verify->packs[first->pack].fd, buffer + got, size - got, (off_t)(first->offset + got));

        if (some <= 0)
            break;
        got += (size_t)some;
    }
    for (uint32_t i = window->start; i < window->end && !job_ended(job); i++) {
        const Row *row = &verify->rows[i];
        size_t at = row->place.offset - first->offset;
        uint8_t digest[DIGEST];

        if (i > window->start && is_again(verify, row)) {
            verify->bad[row->number] = verify->bad[row[-1].number];
            continue;
        }
        verify->bad[row->number] = at + row->place.length > got ||
                                   sha256_of(sha, buffer + at, row->place.length, digest) ||
                                   memcmp(digest, verify->digests + (size_t)DIGEST * row->number, DIGEST);
        good += verify->bad[row->number] ? 0 : row->place.length;
    }
    __atomic_fetch_add(&verify->good, good, __ATOMIC_RELAXED);
}

static void verify_some(Job *job, void *arg, int thread)
{
    Verify *verify = arg;
    Sha256 *sha = sha256_new();
    char *buffer = malloc(WINDOW + SMALL);
    int64_t number;

    (void)thread;
    if (!sha || !buffer) {
        __atomic_store_n(&verify->failed, 1, __ATOMIC_RELAXED);
        job_end(job);
    }
    while ((number = job_next(job, (int64_t)verify->count)) >= 0)
        verify_window(job, verify, &verify->windows[number], sha, buffer);
    sha256_free(sha);
    free(buffer);
}

int packs_verify(const Index *packs, size_t count, const uint8_t *digests, const Place *places, size_t wanted,
                 uint8_t *bad, int64_t *good, int threads, Poll poll, void *context)
{
    Verify verify = {.packs = packs, .digests = digests, .bad = bad};
    size_t known = 0;
    int result = -1;

    (void)count;
    *good = 0;
    memset(bad, 1, wanted);
    if (wanted > UINT32_MAX || !(verify.rows = malloc((wanted + 1) * sizeof *verify.rows)))
        return -1;
    for (size_t i = 0; i < wanted; i++)
        if (places[i].pack >= 0)
            verify.rows[known++] = (Row){places[i], (uint32_t)i};
    qsort(verify.rows, known, sizeof *verify.rows, by_place);
    if (!cut_windows(&verify, known))
        result = verify.count ? job_run(verify_some, &verify, threads, poll, context) : 0;
    free(verify.rows);
    free(verify.windows);
    *good = verify.good;
    return verify.failed ? -1 : result;
}
