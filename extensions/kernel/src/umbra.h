/* Copyright (c) 2026 The umbra.rollback authors
 * GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The kernel's C part: what is hot when a tree is shadowed, compared and restored. Nothing here knows Python.
 *
 * One rule holds everywhere: the kernel decides the plain cases, and leaves every other one, errors above all, to the
 * pure twin, which is the specification. So a function either says what it found, or that it does not know. */
#ifndef UMBRA_H
#define UMBRA_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define DIGEST 32
#define SMALL (128u << 10) /* contents up to so many bytes go into packs */

/* --- threads.c */

typedef struct Job Job;
/* Called in each thread until `job_next` has nothing left, or the job is ended. */
typedef void (*Work)(Job *job, void *arg, int thread);
/* Called in the thread that waits, about ten times a second, with how much of the job is given out, of how much; anything
 * but 0 ends the job. */
typedef int (*Poll)(void *context, int64_t done, int64_t of);
/* 0; -1 when a thread could not be made, 1 when `poll` ended the job. */
int job_run(Work work, void *arg, int threads, Poll poll, void *context);
/* The next of `count` numbers, each given out once; -1 at the end. */
int64_t job_next(Job *job, int64_t count);
int job_ended(Job *job);
void job_end(Job *job);

/* --- sha256.c */

typedef struct Sha256 Sha256;
/* Take SHA-256 from the libcrypto at `path`, which the process has loaded already; 0 when that works. */
int sha256_use(const char *path);
/* Take none, and the processor's instructions only where that is asked for. For tests. */
void sha256_use_own(int instructions);
/* "libcrypto", "sha-ni", "portable". */
const char *sha256_name(void);
Sha256 *sha256_new(void); /* NULL: no memory, or libcrypto refuses */
void sha256_free(Sha256 *state);
int sha256_begin(Sha256 *state);
int sha256_add(Sha256 *state, const void *data, size_t size);
int sha256_end(Sha256 *state, uint8_t digest[DIGEST]);
int sha256_of(Sha256 *state, const void *data, size_t size, uint8_t digest[DIGEST]);

/* --- text.c: growing bytes, numbers, names */

typedef struct {
    char *data;
    size_t size, room;
} Text;
int text_room(Text *text, size_t more); /* 0, or -1 without memory */
int text_add(Text *text, const void *data, size_t size);
int text_number(Text *text, int64_t number);
int text_unsigned(Text *text, uint64_t number);
int text_octal(Text *text, unsigned number);
int text_escaped(Text *text, const char *data, size_t size);
int text_hex(Text *text, const uint8_t digest[DIGEST]);
void text_free(Text *text);
/* Numbers as the formats write them (no sign but "-", no zero in front); the end, or NULL. */
const char *read_unsigned(const char *at, const char *end, uint64_t most, uint64_t *number);
const char *read_signed(const char *at, const char *end, int64_t *number);
int read_hex(const char *at, uint8_t digest[DIGEST]);
/* What was escaped, into `out` (as long as the field); its size, or -1 when it is not written as it should be. */
ssize_t unescape(const char *field, size_t size, char *out);

/* --- scan.c: a tree as it is */

typedef struct {
    uint64_t dev, ino, rdev;
    int64_t size, mtime, ctime, blocks;
    uint32_t mode, nlink, uid, gid;
} Stat;

typedef struct Dir Dir;
typedef struct {
    const char *name;
    Dir *parent; /* NULL: the root */
    Dir *dir;    /* of a directory: what is in it */
    Stat st;
    uint32_t name_size;
    uint32_t state; /* what a pass over the tree has made of it */
} Node;

struct Dir {
    Dir *parent, *next;
    Node *node, *nodes;
    uint32_t *order; /* positions in `nodes`, twice for a directory: itself, and (| INSIDE) what is in it */
    char *names, *path;
    size_t path_size; /* relative to the root */
    uint32_t count, items;
    int fd, users, partial;
};

typedef struct {
    char kind; /* m: mounted there, x: excluded, t: a temporary of ours */
    char *path;
    size_t size;
} LeftOut;

typedef struct Roots {
    int parent_fd;
    const char *name;
    int one_device;
    uint64_t device;
} Roots;

typedef struct {
    Roots roots;
    Node root;
    Dir *dirs; /* all, to be freed */
    Node **order;
    size_t count;
    LeftOut *left_out;
    size_t left_out_count, left_out_room;
    int absent;
} Tree;

typedef struct {
    const char *const *mounts; /* relative paths */
    const size_t *mount_sizes;
    size_t mount_count;
    const uint64_t (*untouched)[2]; /* device, inode */
    size_t untouched_count;
    /* Sets flags[i] for each name of `dir` that is excluded; anything but 0 ends the scan. NULL: nothing is. */
    int (*exclude)(void *context, const Dir *dir, uint8_t *flags);
    void *context;
} ScanOptions;

/* 0: all of it is in `tree`; 1: ended by `poll` or `exclude`; -1: something is odd, let the pure twin look. */
int tree_scan(Tree *tree, const Roots *roots, const ScanOptions *options, int threads, Poll poll, void *context);
void tree_free(Tree *tree);
/* The path of a node into `out`; its size. */
size_t node_path(const Node *node, Text *out);
/* -1: a time that 64 bits of nanoseconds don't hold (before 1677, after 2262); the pure twin knows such. */
int stat_take(Stat *to, const void *from);
/* Whether it is the same thing, and was not changed. */
int stat_is_same(const Stat *one, const Stat *other);
/* A descriptor of the directory `path` below the root, opened name by name, or -1; the caller closes it. */
int open_below(const Roots *roots, const char *path, size_t size);
const Node *tree_find(const Tree *tree, const char *path, size_t size);

/* --- xattrs.c */

/* The attributes that are kept, as the fields of a listing (" name value ..."); 0, or -1: let the pure twin look. */
int xattrs_read(int fd, int root_user, Text *out, Text *scratch);
int xattrs_read_path(const char *path, int root_user, Text *out, Text *scratch);

/* --- listing.c: a listing and its stat index, read */

typedef struct {
    const char *text, *path, *stat; /* stat: its line in the index, or NULL */
    int64_t mtime, size;
    uint32_t text_size, path_size, tail_size, uid, gid; /* the tail is what is behind the path */
    uint16_t mode;
    char kind;
    uint8_t sparse;
} Line;

typedef struct {
    Line *lines;
    size_t count;
    char *names; /* paths that had to be unescaped */
    int64_t started;
    int has_stats, has_links;
} Listing;

/* 0, or -1 when it is not just as the pure twin writes it. The texts must outlive the listing. */
int listing_read(Listing *listing, const char *data, size_t size);
/* 0, or -1 when the index does not belong to it. */
int listing_index(Listing *listing, const char *data, size_t size, const char *tree_hex);
void listing_free(Listing *listing);
ssize_t listing_find(const Listing *listing, const char *path, size_t size);
/* Whether the line's stat in the index is this one, and proves that nothing changed. */
int line_is_same(const Listing *listing, const Line *line, const Stat *st);
static inline const char *line_tail(const Line *line)
{
    return line->text + line->text_size - line->tail_size;
}
const char *line_digest(const Line *line); /* of a file: 64 hexadecimal digits */
size_t line_own_size(const Line *line);    /* of a file's tail, without attributes */

/* --- batch.c: things of one directory, looked at together */

typedef struct {
    uint32_t start, end;
} Batch;

/* Cut `count` things into batches that share a parent; how many, or -1. `parent(context, i)` is the same for the same;
 * `size`, unless NULL, says how many bytes a thing has, so that large ones are shared out too. */
ssize_t batch_cut(size_t count, const void *(*parent)(void *context, size_t i), int64_t (*size)(void *context, size_t i),
                  void *context, Batch **batches);

/* What one thread reads with. */
typedef struct {
    Job *job;
    Sha256 *sha;
    char *buffer; /* BUFFER bytes */
    Text extra, scratch;
    int root_user;
} Reader;
#define BUFFER (256u << 10)
int reader_open(Reader *reader, Job *job, int root_user);
void reader_close(Reader *reader);

/* Read a node in the directory `fd`. A file is read and hashed whole, by its size in `st`, which becomes what it was
 * before; its data is in `buffer` when it fits. `extra` are the fields behind its own: of a symlink its text, and
 * attributes. 0, or -1: let the pure twin look. */
int read_file(Reader *reader, int fd, const char *name, Stat *st, uint8_t digest[DIGEST]);
int read_directory(Reader *reader, int fd, const char *name, Stat *st);
int read_symlink(Reader *reader, int fd, const char *name, Stat *st);

/* --- packs.c */

typedef struct {
    int32_t pack; /* -1: in none */
    uint32_t length;
    uint64_t offset;
} Place;

typedef struct {
    const uint8_t *data; /* the whole index, mapped */
    size_t rows, size;
    uint64_t pack_size;
    int fd; /* of the pack */
} Index;

/* 0, or -1 when it is no whole index. */
int index_open(Index *index, const uint8_t *data, size_t size, uint64_t pack_size, int fd);
/* Write an index: its head, then all digests (sorted), then all places, then its SHA-256; where to go on. */
uint8_t *index_begin(uint8_t *out, size_t rows);
uint8_t *index_place(uint8_t *out, uint64_t offset, uint64_t length);
size_t index_size(size_t rows);
void packs_find(const Index *packs, size_t count, const uint8_t *digests, size_t wanted, Place *places);
/* Read and check each content once; bad[i] is set for what could not be read or is something else, and `good` is how
 * many bytes the others have. */
int packs_verify(const Index *packs, size_t count, const uint8_t *digests, const Place *places, size_t wanted,
                 uint8_t *bad, int64_t *good, int threads, Poll poll, void *context);

/* --- writer.c: packs that are written */

#define BLOCK 4096 /* what direct I/O needs: of memory, of a file */
#define SEGMENT_COUNT 4096

/* Contents on their way into a pack, each once. */
typedef struct {
    char *data; /* one after the other, 2 MiB at most */
    size_t count, size;
    uint32_t sizes[SEGMENT_COUNT];
    Place places[SEGMENT_COUNT]; /* where they are already */
    uint8_t digests[SEGMENT_COUNT][DIGEST];
    uint16_t slots[2 * SEGMENT_COUNT]; /* by digest: number + 1 */
} Segment;
Segment *segment_new(void); /* NULL: no memory */
void segment_free(Segment *segment);
void segment_clear(Segment *segment);
/* 0, or 1 when there is no room. */
int segment_add(Segment *segment, const uint8_t digest[DIGEST], const void *data, size_t size);

typedef struct Writer Writer;
enum { WRITER_FULL = -1 };
/* Writes to `fd`, or past the page cache to `direct` (-1: there is none). What `previous` (or NULL) and those before it
 * have is not written again. */
Writer *writer_new(int fd, int direct, Writer *previous);
void writer_free(Writer *writer);
/* Write those contents that neither the writers nor `packs` have; the segment is to be cleared then. 0, an errno (nothing
 * was added), or WRITER_FULL: it is closed, or has `limit` bytes. */
int writer_add(Writer *writer, Segment *segment, const Index *packs, size_t pack_count, uint64_t limit);
/* The same for contents in `room` bytes of memory, of which many may be written when one can't be; 0 or an errno. `sizes`
 * are uint32_t. */
int writer_add_all(Writer *writer, const uint8_t *digests, const void *sizes, size_t count, const char *data,
                   size_t room);
/* Where the pack goes on, how many bytes its contents have, how many they are. */
void writer_look(Writer *writer, uint64_t *end, uint64_t *bytes, size_t *count);
int writer_find(Writer *writer, const uint8_t digest[DIGEST], Place *place); /* whether it is there */
/* Add nothing more, and wait until all is written; where the last content ends. */
uint64_t writer_close(Writer *writer);
/* The index of a closed one, of `index_size` bytes; 0, or -1 without memory. */
int writer_index(const Writer *writer, uint8_t *out);

/* A Sink that fills one pack after the other. */
typedef struct {
    const Index *packs;
    size_t pack_count;
    uint64_t limit;
    Writer *writer; /* NULL at first */
    Writer *(*next)(void *context); /* one that has room, or NULL: end */
    void *context;
    int error; /* an errno, or 0 */
} Packing;
int packing_add(void *packing, Segment *segment);

/* --- capture.c */

/* What a pass over the tree has made of a node: left to the pure twin, as last time, to be read, read, gone. */
enum { NODE_OTHER = 0, NODE_SAME, NODE_READ, NODE_DONE };

typedef struct {
    uint8_t digest[DIGEST];
    char *extra;
    uint32_t extra_size;
} Found;

/* Takes contents; anything but 0 ends the job. */
typedef int (*Sink)(void *context, Segment *segment);
/* Adds the line of a node that was left to the pure twin, or that of its stat; or none, when it is gone. */
typedef int (*Other)(void *context, size_t position, Text *out, int64_t *bytes);
/* Takes a piece of what is written; anything but 0 ends it. */
typedef int (*Take)(void *context, const char *data, size_t size);

typedef struct {
    Tree *tree;
    const Listing *previous; /* or NULL */
    uint32_t *line_of;       /* by position in tree->order: number of the line + 1, 0: none */
    Found *found;            /* of each in `read` */
    uint32_t *read;          /* positions in tree->order */
    size_t read_count, same;
    int root_user;
    Sink sink;
    void *sink_context;
} Capture;

int capture_match(Capture *capture);
int capture_queue(Capture *capture); /* what is to be read; after the match, and after some were found to be lost */
int capture_read(Capture *capture, int threads, Poll poll, void *context);
/* Write the listing, or with `stats` the lines of its stat index; `bytes` are how many the files have. */
int capture_write(Capture *capture, int stats, Other other, Take take, void *context, int64_t *bytes);
void capture_free(Capture *capture);

/* --- compare.c */

enum { LINE_PROVEN = 0, LINE_UNDECIDED, LINE_MISSING, LINE_LOOK, LINE_REPLACE };

/* Something that a restore has made; of a file, with its ctime in its place. */
typedef struct {
    uint64_t dev, ino; /* 0: not made */
    int64_t ctime;
} Identity;

typedef struct {
    const Tree *tree;
    const Listing *listing;
    const Identity *written; /* by line, of files that the last restore wrote, and hashed on the way; or NULL */
    uint8_t *state;          /* by line */
    uint32_t *node_of;       /* by line: position in tree->order + 1 */
    uint32_t *extra;   /* positions in tree->order that have no line */
    size_t extra_count;
    int root_user;
} Comparison;

int compare_match(Comparison *comparison);
int compare_look(Comparison *comparison, int threads, Poll poll, void *context);
void compare_free(Comparison *comparison);

/* Walks tree and listing side by side: each node (position, or -1) with its line (number, or -1), in order. */
typedef void (*Pair)(void *context, ssize_t position, ssize_t number);
int pair_up(const Tree *tree, const Listing *listing, Pair pair, void *context);

/* --- create.c */

typedef struct {
    const Roots *roots;
    const Tree *tree;
    const uint32_t *node_of; /* by line, as in Comparison: what was there when we looked, and may be replaced */
    const Listing *listing;
    const Index *packs;
    size_t pack_count;
    const uint32_t *lines; /* numbers of lines, ascending */
    const Place *places;   /* of each */
    size_t count;
    uint8_t *done;         /* set for what was made */
    const char *prefix;    /* of temporary names */
    Identity *made;        /* by line, of what this restore has made */
    int remember;          /* whether files are noted there, too */
} Create;

int create_files(Create *create, int threads, Poll poll, void *context);
/* Make directories that only we may enter, in the order given; how many, stopping at the first that fails. */
size_t create_directories(const Roots *roots, const Listing *listing, const uint32_t *lines, size_t count, Identity *made);
/* Give the directories that were made their metadata, in the order given; done[i] is set where that worked. */
void finish_directories(const Roots *roots, const Listing *listing, const uint32_t *lines, size_t count,
                        const Identity *made, uint8_t *done);

/* --- stream.c */

/* Write to `fd`; or to `*direct`, which is the same file past the page cache and becomes -1 when that can't be had (as it
 * may be before). 0, or an errno. */
int write_direct(int fd, int *direct, const char *data, size_t size, int64_t at);

/* Hash what `source` reads from 0 on, `size` bytes, and write it to `target` unless that is -1, and to `direct` as
 * write_direct has it; how many, or -errno of reading. `refused` becomes the errno of writing. */
int64_t stream_copy(int source, int target, int direct, int64_t size, uint8_t digest[DIGEST], int *refused, Poll poll,
                    void *context);

#endif
