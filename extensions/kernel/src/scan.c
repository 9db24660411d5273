/* Copyright (c) 2026 The umbra.rollback authors
 * GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * A tree as it is now: every name with what stat says of it, in the order of a listing. Directories are walked by all
 * threads; each is opened below its parent, and no symlink is followed (tree/scan.py is the specification). */
#include "umbra.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define DIRECTORY (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
#define BATCH (64u << 10)
#define INSIDE 0x80000000u
#define TEMPORARY ".umbra-tmp-"
#define TEMPORARY_SIZE (sizeof TEMPORARY - 1 + 24)

struct entry { /* what getdents64 gives */
    uint64_t ino;
    int64_t offset;
    unsigned short size;
    unsigned char type;
    char name[];
};

typedef struct {
    Tree *tree;
    const ScanOptions *options;
    pthread_mutex_t lock;
    pthread_cond_t more;
    Dir *todo;
    int busy, odd, ended;
} Walk;

static int nanoseconds(const struct timespec *time, int64_t *to)
{
    return __builtin_mul_overflow((int64_t)time->tv_sec, 1000000000, to) || __builtin_add_overflow(*to, time->tv_nsec, to);
}

int stat_take(Stat *to, const void *from)
{
    const struct stat *st = from;

    to->dev = st->st_dev;
    to->ino = st->st_ino;
    to->rdev = st->st_rdev;
    to->size = st->st_size;
    to->blocks = st->st_blocks;
    to->mode = st->st_mode;
    to->nlink = (uint32_t)st->st_nlink;
    to->uid = st->st_uid;
    to->gid = st->st_gid;
    return nanoseconds(&st->st_mtim, &to->mtime) || nanoseconds(&st->st_ctim, &to->ctime) ? -1 : 0;
}

int stat_is_same(const Stat *one, const Stat *other)
{
    return one->dev == other->dev && one->ino == other->ino && one->size == other->size && one->mtime == other->mtime &&
           one->ctime == other->ctime;
}

static int name_order(const char *a, size_t a_size, int a_inside, const char *b, size_t b_size, int b_inside)
{
    size_t common = a_size < b_size ? a_size : b_size;
    int order = memcmp(a, b, common);
    int next_a, next_b;

    if (order)
        return order;
    next_a = a_size > common ? (unsigned char)a[common] : a_inside ? '/' : -1;
    next_b = b_size > common ? (unsigned char)b[common] : b_inside ? '/' : -1;
    return next_a - next_b;
}

static int item_order(const Dir *dir, uint32_t a, uint32_t b)
{
    const Node *one = &dir->nodes[a & ~INSIDE], *other = &dir->nodes[b & ~INSIDE];

    return name_order(one->name, one->name_size, (a & INSIDE) != 0, other->name, other->name_size, (b & INSIDE) != 0);
}

/* Merge sort: qsort has no place for `dir`, and what readdir gives is often half sorted. */
static int sort_items(Dir *dir)
{
    uint32_t *from = dir->order, *to = malloc(((size_t)dir->items + 1) * sizeof *to), *made = to;

    if (!to)
        return -1;
    for (size_t width = 1; width < dir->items; width *= 2) {
        uint32_t *swap;

        for (size_t start = 0; start < dir->items; start += 2 * width) {
            size_t middle = start + width < dir->items ? start + width : dir->items;
            size_t end = start + 2 * width < dir->items ? start + 2 * width : dir->items;
            size_t a = start, b = middle;

            for (size_t i = start; i < end; i++)
                to[i] = a < middle && (b == end || item_order(dir, from[a], from[b]) <= 0) ? from[a++] : from[b++];
        }
        swap = from;
        from = to;
        to = swap;
    }
    if (from == made) {
        free(dir->order);
        dir->order = made;
    } else
        free(made);
    for (uint32_t i = 1; i < dir->items; i++)
        if (item_order(dir, dir->order[i - 1], dir->order[i]) >= 0)
            return -1; /* a name that was renamed over may be listed twice */
    return 0;
}

static int read_names(Dir *dir, char *buffer)
{
    Text names = {0};
    long got;

    while ((got = syscall(SYS_getdents64, dir->fd, buffer, BATCH)) > 0)
        for (long at = 0; at < got;) {
            const struct entry *entry = (const struct entry *)(buffer + at);
            const char *name = entry->name;

            at += entry->size;
            if (name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2])))
                continue;
            if (text_add(&names, name, strlen(name) + 1))
                goto failed;
            dir->count++;
        }
    if (got < 0)
        goto failed;
    dir->names = names.data;
    return 0;
failed:
    text_free(&names);
    return -1;
}

static int is_temporary(const Node *node)
{
    if (node->name_size != TEMPORARY_SIZE || memcmp(node->name, TEMPORARY, sizeof TEMPORARY - 1))
        return 0;
    for (size_t i = sizeof TEMPORARY - 1; i < TEMPORARY_SIZE; i++)
        if (!strchr("0123456789abcdef", node->name[i]))
            return 0;
    return 1;
}

static int is_foreign(const Walk *walk, const Stat *st)
{
    const ScanOptions *options = walk->options;

    if (walk->tree->roots.one_device && st->dev != walk->tree->roots.device)
        return 1;
    for (size_t i = 0; i < options->untouched_count; i++)
        if (options->untouched[i][0] == st->dev && options->untouched[i][1] == st->ino)
            return 1;
    return 0;
}

size_t node_path(const Node *node, Text *out)
{
    out->size = 0;
    if (!node->parent)
        return 0;
    if (node->parent->path_size && (text_add(out, node->parent->path, node->parent->path_size) || text_add(out, "/", 1)))
        return 0;
    return text_add(out, node->name, node->name_size) ? 0 : out->size;
}

/* -1: no memory to find out. */
static int is_mount(const Walk *walk, const Node *node)
{
    const ScanOptions *options = walk->options;
    Text path = {0};
    int found = 0;

    if (!options->mount_count)
        return 0;
    if (!node_path(node, &path))
        found = -1;
    for (size_t i = 0; i < options->mount_count && !found; i++)
        found = options->mount_sizes[i] == path.size && !memcmp(options->mounts[i], path.data, path.size);
    text_free(&path);
    return found;
}

/* With the lock held. */
static int leave_out(Tree *tree, const Node *node, char kind)
{
    Text path = {0};
    LeftOut *list = tree->left_out;

    if (tree->left_out_count == tree->left_out_room) {
        size_t room = tree->left_out_room ? 2 * tree->left_out_room : 64;

        list = realloc(list, room * sizeof *list);
        if (!list)
            return -1;
        tree->left_out = list;
        tree->left_out_room = room;
    }
    if (!node_path(node, &path))
        return -1;
    list[tree->left_out_count++] = (LeftOut){kind, path.data, path.size};
    if (kind != 't')
        node->parent->partial = 1;
    return 0;
}

static Dir *new_dir(Node *node)
{
    Dir *dir = calloc(1, sizeof *dir);
    Text path = {0};

    if (!dir)
        return NULL;
    node_path(node, &path);
    if (node->parent && !path.size) {
        free(dir);
        return NULL;
    }
    dir->parent = node->parent;
    dir->node = node;
    dir->path = path.data;
    dir->path_size = path.size;
    dir->fd = -1;
    return dir;
}

/* Look at every name of an open directory, and note what counts; what is to be entered is queued. */
static int look(Walk *walk, Dir *dir)
{
    const char *name = dir->names;
    uint8_t *flags = calloc((size_t)dir->count + 1, 1);
    uint32_t kept = 0, inside = 0;
    int result = -1;

    dir->nodes = calloc((size_t)dir->count + 1, sizeof *dir->nodes);
    if (!flags || !dir->nodes)
        goto end;
    for (uint32_t i = 0; i < dir->count; i++) {
        Node *node = &dir->nodes[i];

        *node = (Node){.name = name, .name_size = (uint32_t)strlen(name), .parent = dir};
        name += node->name_size + 1;
    }
    if (walk->options->exclude && walk->options->exclude(walk->options->context, dir, flags)) {
        result = 1;
        goto end;
    }
    for (uint32_t i = 0; i < dir->count; i++) {
        Node *node = &dir->nodes[i];
        struct stat st;
        int directory, mount;
        char kind = 0;

        if (fstatat(dir->fd, node->name, &st, AT_SYMLINK_NOFOLLOW)) {
            if (errno == ENOENT)
                continue;
            goto end;
        }
        if (stat_take(&node->st, &st))
            goto end;
        directory = S_ISDIR(st.st_mode);
        mount = is_mount(walk, node);
        if (mount < 0)
            goto end;
        if (!directory && is_temporary(node))
            kind = 't';
        else if (mount || (directory && is_foreign(walk, &node->st)))
            kind = 'm';
        else if (flags[i])
            kind = 'x';
        if (kind) {
            int failed;

            pthread_mutex_lock(&walk->lock);
            failed = leave_out(walk->tree, node, kind);
            pthread_mutex_unlock(&walk->lock);
            if (failed)
                goto end;
            continue;
        }
        dir->nodes[kept++] = *node;
        inside += (uint32_t)directory;
    }
    dir->count = kept;
    dir->order = malloc(((size_t)kept + inside + 1) * sizeof *dir->order);
    if (!dir->order || kept >= INSIDE)
        goto end;
    for (uint32_t i = 0; i < kept; i++) {
        dir->order[dir->items++] = i;
        if (S_ISDIR(dir->nodes[i].st.mode)) {
            dir->order[dir->items++] = i | INSIDE;
            if (!(dir->nodes[i].dir = new_dir(&dir->nodes[i])))
                goto end;
        }
    }
    result = sort_items(dir);
end:
    free(flags);
    return result;
}

static int open_dir(const Walk *walk, Dir *dir)
{
    const Tree *tree = walk->tree;
    struct stat st;

    dir->fd = dir->parent ? openat(dir->parent->fd, dir->node->name, DIRECTORY)
                          : openat(tree->roots.parent_fd, tree->roots.name, DIRECTORY);
    if (dir->fd < 0 || fstat(dir->fd, &st))
        return -1;
    return st.st_dev == dir->node->st.dev && st.st_ino == dir->node->st.ino ? 0 : -1;
}

/* With the lock held: the directory was read, or one below it is done. */
static void let_go(Dir *dir)
{
    while (dir && !--dir->users) {
        if (dir->fd >= 0)
            close(dir->fd);
        dir->fd = -1;
        dir = dir->parent;
    }
}

static void queue(Walk *walk, Dir *dir)
{
    for (uint32_t i = dir->count; i--;) {
        Dir *below = dir->nodes[i].dir;

        if (below) {
            below->next = walk->todo;
            walk->todo = below;
            dir->users++;
        }
    }
}

static Dir *take(Walk *walk)
{
    Dir *dir;

    pthread_mutex_lock(&walk->lock);
    while (!walk->todo && walk->busy && !walk->ended)
        pthread_cond_wait(&walk->more, &walk->lock);
    dir = walk->ended ? NULL : walk->todo;
    if (dir) {
        walk->todo = dir->next;
        walk->busy++;
        dir->next = walk->tree->dirs;
        walk->tree->dirs = dir;
        dir->users = 1;
    }
    pthread_mutex_unlock(&walk->lock);
    return dir;
}

static void walk_some(Job *job, void *arg, int thread)
{
    Walk *walk = arg;
    char *buffer = malloc(BATCH);
    Dir *dir;

    (void)thread;
    while (buffer && (dir = take(walk))) {
        int failed = open_dir(walk, dir) || read_names(dir, buffer) ? -1 : look(walk, dir);

        pthread_mutex_lock(&walk->lock);
        if (dir->nodes)
            queue(walk, dir); /* if it failed, to be freed */
        walk->odd |= failed < 0;
        walk->ended |= failed || job_ended(job);
        let_go(dir);
        walk->busy--;
        pthread_cond_broadcast(&walk->more);
        pthread_mutex_unlock(&walk->lock);
    }
    if (!buffer) {
        pthread_mutex_lock(&walk->lock);
        walk->odd = walk->ended = 1;
        pthread_cond_broadcast(&walk->more);
        pthread_mutex_unlock(&walk->lock);
    }
    free(buffer);
}

/* Depth first, each directory in its own order. */
static int arrange(Tree *tree)
{
    Node **order;
    Dir *dir;
    size_t total = 1, at = 0;

    for (dir = tree->dirs; dir; dir = dir->next)
        total += dir->count;
    order = tree->order = malloc(total * sizeof *order);
    if (!order)
        return -1;
    order[at++] = &tree->root;
    dir = tree->root.dir;
    if (dir)
        dir->users = 0; /* from here on: how many of its items are done */
    while (dir) {
        uint32_t item;

        if ((uint32_t)dir->users == dir->items) {
            dir = dir->parent;
            continue;
        }
        item = dir->order[dir->users++];
        if (item & INSIDE) {
            dir = dir->nodes[item & ~INSIDE].dir;
            dir->users = 0;
        } else
            order[at++] = &dir->nodes[item];
    }
    tree->count = at;
    return at == total ? 0 : -1;
}

int tree_scan(Tree *tree, const Roots *roots, const ScanOptions *options, int threads, Poll poll, void *context)
{
    Walk walk = {.tree = tree, .options = options};
    struct stat st;
    int failed;

    memset(tree, 0, sizeof *tree);
    tree->roots = *roots;
    if (fstatat(roots->parent_fd, roots->name, &st, AT_SYMLINK_NOFOLLOW)) {
        tree->absent = errno == ENOENT;
        return tree->absent ? 0 : -1;
    }
    if (stat_take(&tree->root.st, &st))
        return -1;
    tree->roots.device = tree->root.st.dev;
    if (!S_ISDIR(st.st_mode))
        return arrange(tree);
    if (!(walk.todo = tree->root.dir = new_dir(&tree->root)))
        return -1;
    pthread_mutex_init(&walk.lock, NULL);
    pthread_cond_init(&walk.more, NULL);
    failed = job_run(walk_some, &walk, threads, poll, context);
    while (walk.todo) { /* what was not taken is freed with the rest */
        Dir *dir = walk.todo;

        walk.todo = dir->next;
        dir->next = tree->dirs;
        tree->dirs = dir;
        dir->users = 0;
    }
    for (Dir *dir = tree->dirs; dir; dir = dir->next)
        if (dir->fd >= 0) {
            close(dir->fd);
            dir->fd = -1;
        }
    pthread_cond_destroy(&walk.more);
    pthread_mutex_destroy(&walk.lock);
    if (failed < 0 || walk.odd)
        return -1;
    if (failed || walk.ended)
        return 1;
    return arrange(tree);
}

void tree_free(Tree *tree)
{
    while (tree->dirs) {
        Dir *dir = tree->dirs;

        tree->dirs = dir->next;
        free(dir->nodes);
        free(dir->names);
        free(dir->order);
        free(dir->path);
        free(dir);
    }
    for (size_t i = 0; i < tree->left_out_count; i++)
        free(tree->left_out[i].path);
    free(tree->left_out);
    free(tree->order);
    memset(tree, 0, sizeof *tree);
}

const Node *tree_find(const Tree *tree, const char *path, size_t size)
{
    const Node *node = tree->count ? &tree->root : NULL;

    while (node && size) {
        const char *slash = memchr(path, '/', size);
        size_t name_size = slash ? (size_t)(slash - path) : size;
        const Dir *dir = node->dir;
        uint32_t low = 0, high = dir ? dir->items : 0;

        node = NULL;
        while (low < high && !node) {
            uint32_t middle = low + (high - low) / 2, item = dir->order[middle];
            const Node *found = &dir->nodes[item & ~INSIDE];
            int order = name_order(path, name_size, 0, found->name, found->name_size, (item & INSIDE) != 0);

            if (!order)
                node = found;
            else if (order < 0)
                high = middle;
            else
                low = middle + 1;
        }
        path += name_size + (slash != NULL);
        size -= name_size + (slash != NULL);
    }
    return node;
}

int open_below(const Roots *roots, const char *path, size_t size)
{
    int fd = openat(roots->parent_fd, roots->name, DIRECTORY);

    while (fd >= 0 && size) {
        const char *slash = memchr(path, '/', size);
        size_t name_size = slash ? (size_t)(slash - path) : size;
        char name[256];
        struct stat st;
        int deeper = -1;

        if (name_size < sizeof name) {
            memcpy(name, path, name_size);
            name[name_size] = 0;
            deeper = openat(fd, name, DIRECTORY);
        }
        close(fd);
        fd = deeper;
        if (fd >= 0 && roots->one_device && (fstat(fd, &st) || (uint64_t)st.st_dev != roots->device)) {
            close(fd);
            fd = -1;
        }
        path += name_size + (slash != NULL);
        size -= name_size + (slash != NULL);
    }
    return fd;
}
