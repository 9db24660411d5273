/* Copyright (c) 2026 The umbra.rollback authors
 * GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Extended attributes, ACLs, capabilities and labels among them, as the fields of a listing (tree/metadata.py). */
#include "umbra.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

#define MOST (64u << 10) /* what the kernel gives at most */

typedef struct {
    int fd;
    const char *path;
} Target;

static int is_kept(const char *name)
{
    static const char *const kept[] = {"user.", "trusted.", "security.", "system.posix_acl_access",
                                       "system.posix_acl_default"};

    if (!strcmp(name, "security.evm"))
        return 0;
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        if (!strncmp(name, kept[i], strlen(kept[i])))
            return 1;
    return 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static ssize_t get(const Target *target, const char *name, char *value, size_t room)
{
    return target->path ? getxattr(target->path, name, value, room) : fgetxattr(target->fd, name, value, room);
}

/* Nothing is there to be read but for its name: who may not see it could not put it back. */
static int is_gone(const char *name, int root_user)
{
    return errno == ENODATA || ((errno == EPERM || errno == EACCES) && !strncmp(name, "security.", 9) && !root_user);
}

static int read_all(const Target *target, ssize_t listed, int root_user, Text *out, Text *scratch)
{
    const char *sorted[512];
    size_t count = 0;
    char *value = scratch->data + listed;

    for (const char *name = scratch->data; name < scratch->data + listed; name += strlen(name) + 1)
        if (is_kept(name)) {
            if (count == sizeof sorted / sizeof *sorted)
                return -1;
            sorted[count++] = name;
        }
    qsort(sorted, count, sizeof *sorted, by_name);
    for (size_t i = 0; i < count; i++) {
        ssize_t size = get(target, sorted[i], value, MOST);

        if (size < 0 && is_gone(sorted[i], root_user))
            continue;
        if (size < 0 || text_add(out, " ", 1) || text_escaped(out, sorted[i], strlen(sorted[i])) ||
            text_add(out, " ", 1) || text_escaped(out, value, (size_t)size))
            return -1;
    }
    return 0;
}

static int read_target(const Target *target, int root_user, Text *out, Text *scratch)
{
    ssize_t listed;

    scratch->size = 0;
    if (text_room(scratch, 2 * MOST))
        return -1;
    listed = target->path ? listxattr(target->path, scratch->data, MOST) : flistxattr(target->fd, scratch->data, MOST);
    if (listed <= 0)
        return listed && errno != ENOTSUP ? -1 : 0;
    return read_all(target, listed, root_user, out, scratch);
}

int xattrs_read(int fd, int root_user, Text *out, Text *scratch)
{
    return read_target(&(Target){fd, NULL}, root_user, out, scratch);
}

int xattrs_read_path(const char *path, int root_user, Text *out, Text *scratch)
{
    return read_target(&(Target){-1, path}, root_user, out, scratch);
}
