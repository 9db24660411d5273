/* Copyright (c) 2026 The umbra.rollback authors
 * GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Growing bytes; numbers and names as the formats write them (module_utils/tree/entry.py is the specification). */
#include "umbra.h"

#include <stdlib.h>
#include <string.h>

int text_room(Text *text, size_t more)
{
    size_t room = text->room ? text->room : 4096;
    char *data;

    if (text->room - text->size >= more)
        return 0;
    while (room - text->size < more)
        room += room / 2;
    data = realloc(text->data, room);
    if (!data)
        return -1;
    text->data = data;
    text->room = room;
    return 0;
}

int text_add(Text *text, const void *data, size_t size)
{
    if (text_room(text, size))
        return -1;
    if (size)
        memcpy(text->data + text->size, data, size);
    text->size += size;
    return 0;
}

int text_unsigned(Text *text, uint64_t number)
{
    char digits[20];
    int at = sizeof digits;

    do
        digits[--at] = (char)('0' + number % 10);
    while (number /= 10);
    return text_add(text, digits + at, sizeof digits - (size_t)at);
}

int text_number(Text *text, int64_t number)
{
    if (number >= 0)
        return text_unsigned(text, (uint64_t)number);
    return text_add(text, "-", 1) || text_unsigned(text, 0 - (uint64_t)number) ? -1 : 0;
}

int text_octal(Text *text, unsigned number)
{
    char digits[12];
    int at = sizeof digits;

    do
        digits[--at] = (char)('0' + number % 8);
    while (number /= 8);
    return text_add(text, digits + at, sizeof digits - (size_t)at);
}

static int is_special(unsigned char byte)
{
    return byte < '!' || byte > '~' || byte == '%';
}

int text_escaped(Text *text, const char *data, size_t size)
{
    static const char digits[] = "0123456789ABCDEF";
    char *out;

    if (!size)
        return text_add(text, ".", 1);
    if (size == 1 && *data == '.')
        return text_add(text, "%2E", 3);
    if (text_room(text, 3 * size))
        return -1;
    out = text->data + text->size;
    for (size_t i = 0; i < size; i++) {
        unsigned char byte = (unsigned char)data[i];

        if (is_special(byte)) {
            *out++ = '%';
            *out++ = digits[byte >> 4];
            *out++ = digits[byte & 15];
        } else
            *out++ = (char)byte;
    }
    text->size = (size_t)(out - text->data);
    return 0;
}

int text_hex(Text *text, const uint8_t digest[DIGEST])
{
    static const char digits[] = "0123456789abcdef";

    if (text_room(text, 2 * DIGEST))
        return -1;
    for (int i = 0; i < DIGEST; i++) {
        text->data[text->size++] = digits[digest[i] >> 4];
        text->data[text->size++] = digits[digest[i] & 15];
    }
    return 0;
}

void text_free(Text *text)
{
    free(text->data);
    memset(text, 0, sizeof *text);
}

const char *read_unsigned(const char *at, const char *end, uint64_t most, uint64_t *number)
{
    const char *start = at;
    uint64_t found = 0;

    while (at < end && *at >= '0' && *at <= '9') {
        unsigned digit = (unsigned)(*at++ - '0');

        if (found > (most - digit) / 10)
            return NULL;
        found = found * 10 + digit;
    }
    if (at == start || (*start == '0' && at > start + 1))
        return NULL;
    *number = found;
    return at;
}

const char *read_signed(const char *at, const char *end, int64_t *number)
{
    uint64_t found;
    int minus = at < end && *at == '-';

    at = read_unsigned(at + minus, end, INT64_MAX, &found);
    if (!at || (minus && !found))
        return NULL;
    *number = minus ? -(int64_t)found : (int64_t)found;
    return at;
}

/* The value of a digit, letters in lower case only; 128 for what is none. */
static const uint8_t digits_of[256] = {
    [0 ... '0' - 1] = 128,      ['0'] = 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, [':' ... 'a' - 1] = 128,
    ['a'] = 10, 11, 12, 13, 14, 15, ['g' ... 255] = 128,
};

int read_hex(const char *at, uint8_t digest[DIGEST])
{
    unsigned wrong = 0;

    for (int i = 0; i < DIGEST; i++) {
        unsigned high = digits_of[(unsigned char)at[2 * i]], low = digits_of[(unsigned char)at[2 * i + 1]];

        wrong |= high | low;
        digest[i] = (uint8_t)(high << 4 | low);
    }
    return wrong & 128 ? -1 : 0;
}

static int upper_hex(char digit)
{
    return digit >= '0' && digit <= '9' ? digit - '0' : digit >= 'A' && digit <= 'F' ? digit - 'A' + 10 : -1;
}

ssize_t unescape(const char *field, size_t size, char *out)
{
    char *to = out;

    if (size == 1 && *field == '.')
        return 0;
    if (size == 3 && !memcmp(field, "%2E", 3)) {
        *out = '.';
        return 1;
    }
    for (size_t i = 0; i < size; i++) {
        int high, low;

        if (field[i] != '%') {
            if (is_special((unsigned char)field[i]))
                return -1;
            *to++ = field[i];
            continue;
        }
        if (size - i < 3 || (high = upper_hex(field[i + 1])) < 0 || (low = upper_hex(field[i + 2])) < 0 ||
            !is_special((unsigned char)(high << 4 | low)))
            return -1;
        *to++ = (char)(high << 4 | low);
        i += 2;
    }
    return to - out;
}
