/* Copyright (c) 2026 The umbra.rollback authors
 * GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * A listing and its stat index, read as strictly as the pure twin does (tree/entry.py, tree/statindex.py). */
#include "umbra.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define FORMAT "umbra-tree 1\n"
#define STAT_FORMAT "umbra-stat 1\n"
#define SECOND 1000000000
#define MARGIN 20000000
#define MARGIN_WHOLE (2 * (uint64_t)SECOND)

/* Directories by path, so that each line finds its parent. */
typedef struct {
    const Listing *listing;
    uint32_t *slots; /* number of the line + 1 */
    size_t mask;
} Table;

static uint64_t hash(const char *data, size_t size)
{
    uint64_t value = 0xcbf29ce484222325u;

    for (size_t i = 0; i < size; i++)
        value = (value ^ (unsigned char)data[i]) * 0x100000001b3u;
    return value ^ value >> 32;
}

static uint32_t *slot(const Table *table, const char *path, size_t size)
{
    size_t at = hash(path, size) & table->mask;

    for (;; at = (at + 1) & table->mask) {
        uint32_t number = table->slots[at];
        const Line *line = number ? &table->listing->lines[number - 1] : NULL;

        if (!line || (line->path_size == size && !memcmp(line->path, path, size)))
            return &table->slots[at];
    }
}

const char *line_digest(const Line *line)
{
    const char *at = memchr(line_tail(line) + 1, ' ', line->tail_size - 1);

    return at + 1;
}

size_t line_own_size(const Line *line)
{
    return (size_t)(line_digest(line) - line_tail(line)) + 2 * DIGEST + 2;
}

static const char *field_end(const char *at, const char *end)
{
    while (at < end && *at >= '!' && *at <= '~')
        at++;
    return at;
}

/* The fields behind the kind's own are pairs of names, ascending, and values. */
static int check_xattrs(const char *at, const char *end, char *scratch)
{
    char *last = NULL;
    size_t last_size = 0;

    while (at < end) {
        const char *stop;
        ssize_t size;

        if (*at != ' ')
            return -1;
        stop = field_end(++at, end);
        size = unescape(at, (size_t)(stop - at), scratch);
        if (size <= 0 || memchr(scratch, 0, (size_t)size))
            return -1;
        if (last) {
            size_t common = last_size < (size_t)size ? last_size : (size_t)size;
            int order = memcmp(last, scratch, common);

            if (order > 0 || (!order && last_size >= (size_t)size))
                return -1;
        }
        last = scratch;
        last_size = (size_t)size;
        scratch += size;
        if (stop >= end || *stop != ' ')
            return -1;
        at = stop + 1;
        stop = field_end(at, end);
        if (stop == at || unescape(at, (size_t)(stop - at), scratch) < 0)
            return -1;
        at = stop;
    }
    return 0;
}

static int read_tail(Line *line, char *scratch)
{
    const char *at = line_tail(line), *end = at + line->tail_size;
    uint64_t number;
    uint8_t digest[DIGEST];

    if (line->kind == 'f') {
        if (at == end || !(at = read_unsigned(at + 1, end, INT64_MAX, &number)) || end - at < 2 * DIGEST + 3 ||
            *at != ' ' || read_hex(at + 1, digest) || at[2 * DIGEST + 1] != ' ')
            return -1;
        line->size = (int64_t)number;
        at += 2 * DIGEST + 2;
        if (*at != '0' && *at != '1')
            return -1;
        line->sparse = *at++ == '1';
        if (at < end && *at != ' ')
            return -1;
    } else if (line->kind == 'l' || line->kind == 'h') {
        const char *stop = at < end ? field_end(at + 1, end) : at;
        ssize_t size;

        if (stop <= at + 1 || (size = unescape(at + 1, (size_t)(stop - at - 1), scratch)) < 0 ||
            memchr(scratch, 0, (size_t)size) || (line->kind == 'l' && !size))
            return -1;
        if (line->kind == 'h' && (stop != end || line->mode || line->uid || line->gid || line->mtime))
            return -1;
        at = stop;
    } else if (line->kind == 'c' || line->kind == 'b') {
        if (at == end || !(at = read_unsigned(at + 1, end, INT_MAX, &number)) || at == end || *at != ':' ||
            !(at = read_unsigned(at + 1, end, INT_MAX, &number)) || (at < end && *at != ' '))
            return -1;
    }
    return check_xattrs(at, end, scratch);
}

/* `names` has room for a line; `scratch` too. */
static int read_line(Line *line, const char *at, const char *end, char **names, char *scratch)
{
    uint64_t number;
    const char *stop;
    int digits = 0;

    line->text = at;
    line->text_size = (uint32_t)(end - at);
    if (end - at < 2 || !*at || !strchr("fdlhpcbs", *at) || at[1] != ' ')
        return -1;
    line->kind = *at;
    for (at += 2; at < end && *at >= '0' && *at <= '7'; at++, digits++)
        line->mode = (uint16_t)(line->mode * 8 + (*at - '0'));
    if (!digits || digits > 4 || (digits > 1 && at[-digits] == '0') || at == end || *at++ != ' ' ||
        !(at = read_unsigned(at, end, UINT32_MAX, &number)))
        return -1;
    line->uid = (uint32_t)number;
    if (at == end || *at++ != ' ' || !(at = read_unsigned(at, end, UINT32_MAX, &number)))
        return -1;
    line->gid = (uint32_t)number;
    if (at == end || *at++ != ' ' || !(at = read_signed(at, end, &line->mtime)) || at == end || *at++ != ' ')
        return -1;
    stop = field_end(at, end);
    if (stop == at || (stop < end && *stop != ' '))
        return -1;
    line->path = at;
    line->path_size = (uint32_t)(stop - at);
    if (memchr(at, '%', line->path_size) || (line->path_size == 1 && *at == '.')) {
        ssize_t size = unescape(at, line->path_size, *names);

        if (size < 0)
            return -1;
        line->path = size ? *names : "";
        line->path_size = (uint32_t)size;
        *names += size;
    }
    line->tail_size = (uint32_t)(end - stop);
    return read_tail(line, scratch);
}

static int is_possible(const Line *line)
{
    const char *name = line->path, *end = name + line->path_size;

    if (memchr(name, 0, line->path_size))
        return 0;
    for (;;) {
        const char *slash = memchr(name, '/', (size_t)(end - name));
        size_t size = (size_t)((slash ? slash : end) - name);

        if (!size || (*name == '.' && (size == 1 || (size == 2 && name[1] == '.'))))
            return 0;
        if (!slash)
            return 1;
        name = slash + 1;
    }
}

static int path_order(const char *a, size_t a_size, const char *b, size_t b_size)
{
    size_t common = a_size < b_size ? a_size : b_size;
    int order = memcmp(a, b, common);

    return order ? order : a_size < b_size ? -1 : a_size > b_size;
}

static int check_places(const Listing *listing)
{
    Table table = {.listing = listing, .mask = 63};
    const Line *known = NULL;
    size_t directories = 0;
    int result = -1;

    for (size_t i = 0; i < listing->count; i++)
        directories += listing->lines[i].kind == 'd';
    while (table.mask < 2 * directories)
        table.mask = 2 * table.mask + 1;
    if (!(table.slots = calloc(table.mask + 1, sizeof *table.slots)))
        return -1;
    for (size_t i = 0; i < listing->count; i++) {
        const Line *line = &listing->lines[i], *before = i ? line - 1 : NULL;

        if (!before) {
            if (line->path_size)
                goto end;
        } else {
            size_t size = line->path_size;

            if (!is_possible(line) || path_order(before->path, before->path_size, line->path, line->path_size) >= 0)
                goto end;
            while (size && line->path[size - 1] != '/')
                size--;
            size -= size > 0;
            if (!known || known->path_size != size || memcmp(known->path, line->path, size)) {
                uint32_t number = *slot(&table, line->path, size);

                if (!number)
                    goto end;
                known = &listing->lines[number - 1];
            }
        }
        if (line->kind == 'd')
            *slot(&table, line->path, line->path_size) = (uint32_t)i + 1;
    }
    result = 0;
end:
    free(table.slots);
    return result;
}

ssize_t listing_find(const Listing *listing, const char *path, size_t size)
{
    size_t low = 0, high = listing->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const Line *line = &listing->lines[middle];
        int order = path_order(path, size, line->path, line->path_size);

        if (!order)
            return (ssize_t)middle;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return -1;
}

static int check_links(const Listing *listing)
{
    for (size_t i = 0; listing->has_links && i < listing->count; i++) {
        const Line *line = &listing->lines[i];
        char *target;
        ssize_t size, found;

        if (line->kind != 'h')
            continue;
        if (!(target = malloc(line->tail_size)))
            return -1;
        size = unescape(line_tail(line) + 1, line->tail_size - 1, target);
        found = size < 0 ? -1 : listing_find(listing, target, (size_t)size);
        free(target);
        if (found < 0 || (size_t)found >= i || strchr("dh", listing->lines[found].kind))
            return -1;
    }
    return 0;
}

int listing_read(Listing *listing, const char *data, size_t size)
{
    const char *at = data + sizeof FORMAT - 1, *end = data + size;
    size_t longest = 0, number = 0;
    char *names, *scratch = NULL;
    int result = -1;

    memset(listing, 0, sizeof *listing);
    if (size < sizeof FORMAT - 1 || memcmp(data, FORMAT, sizeof FORMAT - 1) || end[-1] != '\n')
        return -1;
    for (const char *line = at; line < end; listing->count++) {
        const char *stop = memchr(line, '\n', (size_t)(end - line));

        if ((size_t)(stop - line) > longest)
            longest = (size_t)(stop - line);
        line = stop + 1;
    }
    if (listing->count >= UINT32_MAX || longest > (1u << 24))
        return -1;
    listing->lines = calloc(listing->count + 1, sizeof *listing->lines);
    names = listing->names = malloc(size);
    scratch = malloc(longest + 1);
    if (!listing->lines || !names || !scratch)
        goto end;
    for (; at < end; number++) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));

        if (read_line(&listing->lines[number], at, stop, &names, scratch))
            goto end;
        listing->has_links |= listing->lines[number].kind == 'h';
        at = stop + 1;
    }
    result = check_places(listing) || check_links(listing) ? -1 : 0;
end:
    free(scratch);
    if (result)
        listing_free(listing);
    else if (names == listing->names) {
        free(listing->names);
        listing->names = NULL;
    }
    return result;
}

int listing_index(Listing *listing, const char *data, size_t size, const char *tree_hex)
{
    const char *at = data + sizeof STAT_FORMAT - 1, *end = data + size;

    listing->has_stats = 0;
    for (size_t i = 0; i < listing->count; i++)
        listing->lines[i].stat = NULL;
    if (size < sizeof STAT_FORMAT + 2 * DIGEST + 1 || memcmp(data, STAT_FORMAT, sizeof STAT_FORMAT - 1) ||
        end[-1] != '\n' || memcmp(at, tree_hex, 2 * DIGEST) || at[2 * DIGEST] != ' ')
        return -1;
    at = read_signed(at + 2 * DIGEST + 1, end, &listing->started);
    if (!at || *at++ != '\n')
        return -1;
    for (size_t i = 0; i < listing->count; i++) {
        const char *stop = at < end ? memchr(at, '\n', (size_t)(end - at)) : NULL;

        if (!stop)
            return -1;
        listing->lines[i].stat = at;
        at = stop + 1;
    }
    listing->has_stats = at == end;
    return at == end ? 0 : -1;
}

void listing_free(Listing *listing)
{
    free(listing->lines);
    free(listing->names);
    memset(listing, 0, sizeof *listing);
}

/* The fields end at a space or at the end of the line, which stops the numbers. */
static const char *same_unsigned(const char *at, uint64_t value, char behind)
{
    uint64_t number;

    at = at ? read_unsigned(at, at + 21, UINT64_MAX, &number) : NULL;
    return at && number == value && *at == behind ? at + 1 : NULL;
}

static const char *same_signed(const char *at, int64_t value, char behind)
{
    int64_t number;

    at = at ? read_signed(at, at + 22, &number) : NULL;
    return at && number == value && *at == behind ? at + 1 : NULL;
}

int line_is_same(const Listing *listing, const Line *line, const Stat *st)
{
    const char *at;
    uint64_t margin = st->ctime % SECOND ? MARGIN : MARGIN_WHOLE;

    if (!listing->has_stats)
        return 0;
    at = same_unsigned(line->stat, st->dev, ' ');
    at = same_unsigned(at, st->ino, ' ');
    at = same_signed(at, st->size, ' ');
    at = same_signed(at, st->mtime, ' ');
    return same_signed(at, st->ctime, '\n') && st->ctime <= listing->started &&
           (uint64_t)listing->started - (uint64_t)st->ctime >= margin;
}
