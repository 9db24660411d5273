/* Copyright (c) 2026 The umbra.rollback authors
 * GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Graphs of what needs what, and how long a plan made from one takes. Nodes are numbered from 0; what comes in here was
 * checked, so that all numbers are within their bounds. */
#ifndef GRAPH_H
#define GRAPH_H

#include "umbra.h"

#define MOST (UINT32_MAX - 1) /* nodes, edges, draws */

/* --- graph.c */

typedef struct {
    uint32_t node, need;
} Edge;

typedef struct {
    uint32_t nodes, groups;
    uint32_t *first;    /* by node: where its needs begin; one more for the end */
    uint32_t *needs;    /* in the order of the edges */
    uint32_t *group_of; /* by node: its strongly connected component; what is needed has the smaller number */
    uint32_t *start;    /* by group: where its members begin; one more for the end */
    uint32_t *members;  /* ascending in each group */
} Graph;

/* 0, or -1 without memory; graph_free in either case. */
int graph_read(Graph *graph, uint32_t nodes, const Edge *edges, uint32_t count);
void graph_free(Graph *graph);
/* Wave of each node, and for each group whether it is a cycle. */
void graph_waves(const Graph *graph, uint32_t *wave, uint8_t *cycle);
/* How many other nodes need each node, directly or not; `counts` is by node. 0, -1 without memory, 1: ended by `poll`. */
int graph_dependents(const Graph *graph, uint32_t *counts, int threads, Poll poll, void *context);

/* --- montecarlo.c */

#define STATE 625 /* numbers: those of a Mersenne Twister, and how many of them were used */

typedef struct {
    int64_t wave;
    uint32_t host, number; /* number: as given, to keep that order */
    double median, spread; /* spread: the 90 % quantile, which `totals_sort` makes the sigma of the logarithm */
} Restore;

typedef struct {
    const Restore *restores; /* sorted */
    size_t count, hosts;
    int64_t workers, draws;
    uint32_t state[STATE];
    double *totals; /* one for each draw */
} Plan;

/* 0; 1 when a time has no finite spread. */
int totals_sort(Restore *restores, size_t count);
/* 0, -1 without memory, 1: ended by `poll`, 2: a time is too long for a double. */
int totals_draw(const Plan *plan, int threads, Poll poll, void *context);

#endif
