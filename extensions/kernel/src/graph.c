/* Copyright (c) 2026 The umbra.rollback authors
 * GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Components, waves and dependents (module_utils/kernel/graph.py is the specification), without recursion. */
#include "graph.h"

#include <stdlib.h>
#include <string.h>

#define NONE UINT32_MAX
#define WORDS 8 /* of a set: one line of the cache */
#define BITS (64 * WORDS)
#define BUDGET ((size_t)192 << 20) /* bytes that the sets of all threads may take */

typedef struct {
    uint64_t words[WORDS];
} Set;

static uint32_t *numbers(size_t count)
{
    return calloc(count + 1, sizeof(uint32_t));
}

/* What the edges of each node lead to, in their order. */
static void sort_edges(Graph *graph, const Edge *edges, uint32_t count)
{
    uint32_t *first = graph->first;

    for (uint32_t i = 0; i < count; i++)
        first[edges[i].node + 1]++;
    for (uint32_t node = 0; node < graph->nodes; node++)
        first[node + 1] += first[node];
    /* Each beginning moves to its end, which is the next one's beginning. */
    for (uint32_t i = 0; i < count; i++)
        graph->needs[first[edges[i].node]++] = edges[i].need;
    memmove(first + 1, first, graph->nodes * sizeof *first);
    first[0] = 0;
}

/* What one search needs to know of each node. */
typedef struct {
    uint32_t index; /* when it was found; 0: not yet */
    uint32_t low;   /* the earliest that it leads back to */
    uint32_t next;  /* of its needs, to be looked at */
    uint32_t path;  /* by depth: the nodes from the start to here */
    uint32_t open;  /* stack of nodes whose group is not known yet */
} Search;

static void close_group(Graph *graph, const Search *at, uint32_t node, uint32_t *open)
{
    uint32_t member;

    do {
        member = at[--*open].open;
        graph->group_of[member] = graph->groups;
    } while (member != node);
    graph->groups++;
}

/* Tarjan 1972, SIAM J. Comput. 1(2). */
static void search(Graph *graph, Search *at, uint32_t start, uint32_t *found, uint32_t *open)
{
    uint32_t depth = 0, enter = start;

    for (;;) {
        uint32_t node, need;

        if (enter != NONE) {
            at[enter].index = at[enter].low = ++*found;
            at[enter].next = graph->first[enter];
            at[(*open)++].open = enter;
            at[depth++].path = enter;
            enter = NONE;
        }
        node = at[depth - 1].path;
        if (at[node].next < graph->first[node + 1]) {
            need = graph->needs[at[node].next++];
            if (!at[need].index)
                enter = need;
            else if (graph->group_of[need] == NONE && at[need].index < at[node].low)
                at[node].low = at[need].index;
            continue;
        }
        if (at[node].low == at[node].index)
            close_group(graph, at, node, open);
        if (!--depth)
            return;
        if (at[node].low < at[at[depth - 1].path].low)
            at[at[depth - 1].path].low = at[node].low;
    }
}

static void sort_members(Graph *graph)
{
    uint32_t *start = graph->start;

    for (uint32_t node = 0; node < graph->nodes; node++)
        start[graph->group_of[node] + 1]++;
    for (uint32_t group = 0; group < graph->groups; group++)
        start[group + 1] += start[group];
    for (uint32_t node = 0; node < graph->nodes; node++)
        graph->members[start[graph->group_of[node]]++] = node;
    memmove(start + 1, start, graph->groups * sizeof *start);
    start[0] = 0;
}

int graph_read(Graph *graph, uint32_t nodes, const Edge *edges, uint32_t count)
{
    Search *at = calloc((size_t)nodes + 1, sizeof *at);
    uint32_t found = 0, open = 0;
    int failed;

    memset(graph, 0, sizeof *graph);
    graph->nodes = nodes;
    graph->first = numbers(nodes);
    graph->needs = numbers(count);
    graph->group_of = numbers(nodes);
    graph->start = numbers(nodes);
    graph->members = numbers(nodes);
    failed = !at || !graph->first || !graph->needs || !graph->group_of || !graph->start || !graph->members;
    if (!failed) {
        sort_edges(graph, edges, count);
        memset(graph->group_of, 0xff, nodes * sizeof *graph->group_of);
        for (uint32_t node = 0; node < nodes; node++)
            if (!at[node].index)
                search(graph, at, node, &found, &open);
        sort_members(graph);
    }
    free(at);
    return failed ? -1 : 0;
}

void graph_free(Graph *graph)
{
    free(graph->first);
    free(graph->needs);
    free(graph->group_of);
    free(graph->start);
    free(graph->members);
    memset(graph, 0, sizeof *graph);
}

void graph_waves(const Graph *graph, uint32_t *wave, uint8_t *cycle)
{
    for (uint32_t group = 0; group < graph->groups; group++) {
        uint32_t begin = graph->start[group], end = graph->start[group + 1], level = 0;

        cycle[group] = end - begin > 1;
        for (uint32_t i = begin; i < end; i++) {
            uint32_t node = graph->members[i];

            for (uint32_t k = graph->first[node]; k < graph->first[node + 1]; k++) {
                uint32_t need = graph->needs[k];

                if (need == node)
                    cycle[group] = 1;
                if (graph->group_of[need] != group && level <= wave[need])
                    level = wave[need] + 1;
            }
        }
        for (uint32_t i = begin; i < end; i++)
            wave[graph->members[i]] = level;
    }
}

/* --- dependents */

typedef struct {
    const Graph *graph;
    uint32_t *first, *users; /* by group: the groups that need it, ascending */
    uint32_t *counts;        /* by group */
    int64_t blocks;
    int failed;
} Counting;

static int find_users(Counting *counting)
{
    const Graph *graph = counting->graph;
    uint32_t edges = graph->first[graph->nodes], *first;

    first = counting->first = numbers(graph->groups);
    counting->users = numbers(edges);
    if (!first || !counting->users)
        return -1;
    for (uint32_t k = 0; k < edges; k++)
        first[graph->group_of[graph->needs[k]] + 1]++;
    for (uint32_t group = 0; group < graph->groups; group++)
        first[group + 1] += first[group];
    for (uint32_t i = 0; i < graph->nodes; i++) {
        uint32_t node = graph->members[i];

        for (uint32_t k = graph->first[node]; k < graph->first[node + 1]; k++)
            counting->users[first[graph->group_of[graph->needs[k]]]++] = graph->group_of[node];
    }
    memmove(first + 1, first, graph->groups * sizeof *first);
    first[0] = 0;
    return 0;
}

static uint32_t set_size(const Set *set)
{
    int size = 0;

    for (int i = 0; i < WORDS; i++)
        size += __builtin_popcountll(set->words[i]);
    return (uint32_t)size;
}

/* Which of BITS members each group is needed by. No group after theirs needs to be looked at: none of them needs it. */
static void count_block(const Counting *counting, uint32_t begin, Set *above, uint32_t *counts)
{
    const Graph *graph = counting->graph;
    uint32_t end = graph->nodes - begin > BITS ? begin + BITS : graph->nodes;
    uint32_t last = graph->group_of[graph->members[end - 1]];

    for (uint32_t group = last + 1; group-- > 0;) {
        Set set = {{0}};
        uint32_t from = graph->start[group], to = graph->start[group + 1];

        for (uint32_t i = from < begin ? begin : from; i < to && i < end; i++)
            set.words[(i - begin) / 64] |= (uint64_t)1 << (i - begin) % 64;
        for (uint32_t k = counting->first[group]; k < counting->first[group + 1]; k++) {
            uint32_t user = counting->users[k];

            if (user > last)
                break;
            if (user != group)
                for (int i = 0; i < WORDS; i++)
                    set.words[i] |= above[user].words[i];
        }
        above[group] = set;
        counts[group] += set_size(&set);
    }
}

static void count_some(Job *job, void *arg, int thread)
{
    Counting *counting = arg;
    uint32_t groups = counting->graph->groups, *counts = numbers(groups);
    void *above = NULL;
    int64_t number;

    (void)thread;
    if (!counts || posix_memalign(&above, sizeof(Set), groups * sizeof(Set))) {
        __atomic_store_n(&counting->failed, 1, __ATOMIC_RELAXED);
        job_end(job);
    } else {
        /* The last blocks take longest. */
        while ((number = job_next(job, counting->blocks)) >= 0)
            count_block(counting, (uint32_t)(counting->blocks - 1 - number) * BITS, above, counts);
        for (uint32_t group = 0; group < groups; group++)
            __atomic_fetch_add(&counting->counts[group], counts[group], __ATOMIC_RELAXED);
    }
    free(above);
    free(counts);
}

int graph_dependents(const Graph *graph, uint32_t *counts, int threads, Poll poll, void *context)
{
    Counting counting = {.graph = graph, .blocks = ((int64_t)graph->nodes + BITS - 1) / BITS};
    size_t affordable = BUDGET / ((size_t)(graph->groups + 1) * (sizeof(Set) + sizeof(uint32_t)));
    int result = -1;

    if ((size_t)threads > affordable)
        threads = (int)affordable;
    if (threads > counting.blocks)
        threads = (int)counting.blocks;
    counting.counts = numbers(graph->groups);
    if (counting.counts && !find_users(&counting))
        result = job_run(count_some, &counting, threads, poll, context);
    if (counting.failed)
        result = -1;
    if (!result)
        for (uint32_t node = 0; node < graph->nodes; node++)
            counts[node] = counting.counts[graph->group_of[node]] - 1;
    free(counting.first);
    free(counting.users);
    free(counting.counts);
    return result;
}
