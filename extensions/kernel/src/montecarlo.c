/* Copyright (c) 2026 The umbra.rollback authors
 * GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The simulation of a plan (module_utils/kernel/montecarlo.py is the specification). Results are equal to the last bit:
 * the generator is Python's (Matsumoto and Nishimura 1998, ACM TOMACS 8(1); two words for a number, Box and Muller's
 * normal numbers in pairs), and all is computed in the same order with the same library. */
#include "graph.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define WORDS 624
#define MIDDLE 397
#define SHARED 0.5
#define Z90 1.2815515655446004
#define TWO_PI (2.0 * 3.141592653589793)
#define BATCH 65536 /* normal numbers that a thread takes at once, or those of one draw */

typedef struct {
    uint32_t words[WORDS];
    uint32_t used;
    int has_second;
    double second; /* of a pair of normal numbers, when the first was taken */
} Stream;

static uint32_t mixed(uint32_t high, uint32_t low, uint32_t other)
{
    uint32_t both = (high & 0x80000000u) | (low & 0x7fffffffu);

    return other ^ both >> 1 ^ (both & 1 ? 0x9908b0dfu : 0);
}

static void refill(Stream *stream)
{
    uint32_t *words = stream->words;
    int i;

    for (i = 0; i < WORDS - MIDDLE; i++)
        words[i] = mixed(words[i], words[i + 1], words[i + MIDDLE]);
    for (; i < WORDS - 1; i++)
        words[i] = mixed(words[i], words[i + 1], words[i + MIDDLE - WORDS]);
    words[i] = mixed(words[i], words[0], words[MIDDLE - 1]);
    stream->used = 0;
}

static void skip(Stream *stream, uint64_t count)
{
    while (count) {
        uint64_t step;

        if (stream->used >= WORDS)
            refill(stream);
        step = WORDS - stream->used < count ? WORDS - stream->used : count;
        stream->used += (uint32_t)step;
        count -= step;
    }
}

static uint32_t next_word(Stream *stream)
{
    uint32_t word;

    if (stream->used >= WORDS)
        refill(stream);
    word = stream->words[stream->used++];
    word ^= word >> 11;
    word ^= word << 7 & 0x9d2c5680u;
    word ^= word << 15 & 0xefc60000u;
    return word ^ word >> 18;
}

static double uniform(Stream *stream)
{
    uint32_t high = next_word(stream) >> 5, low = next_word(stream) >> 6;

    return (high * 67108864.0 + low) * (1.0 / 9007199254740992.0);
}

static double normal(Stream *stream)
{
    double angle, radius;

    stream->has_second = !stream->has_second;
    if (!stream->has_second)
        return 0.0 + stream->second;
    angle = uniform(stream) * TWO_PI;
    radius = sqrt(-2.0 * log(1.0 - uniform(stream)));
    stream->second = sin(angle) * radius;
    return 0.0 + cos(angle) * radius;
}

/* --- the plan */

static int restore_order(const void *one, const void *other)
{
    const Restore *a = one, *b = other;

    if (a->wave != b->wave)
        return a->wave < b->wave ? -1 : 1;
    if (a->host != b->host)
        return a->host < b->host ? -1 : 1;
    return a->number < b->number ? -1 : a->number > b->number;
}

int totals_sort(Restore *restores, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        Restore *one = &restores[i];
        double ratio;

        one->median = one->median > 0.0 ? one->median : 0.0;
        ratio = one->median != 0.0 ? one->spread / one->median : 1.0;
        one->spread = log(ratio > 1.0 ? ratio : 1.0) / Z90;
        if (!isfinite(one->spread))
            return 1;
    }
    qsort(restores, count, sizeof *restores, restore_order);
    return 0;
}

/* Put `end` in the place of the smallest, which is the first. */
static void heap_replace(double *heap, size_t size, double end)
{
    size_t at = 0, child;

    while ((child = 2 * at + 1) < size) {
        if (child + 1 < size && heap[child + 1] < heap[child])
            child++;
        if (heap[child] >= end)
            break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = end;
}

/* What one thread draws with. */
typedef struct {
    Stream stream;
    double *luck;    /* by host */
    double *seconds; /* of the resources of one host in one wave */
    double *heap;    /* when each worker is free */
} Drawing;

static double makespan(const double *seconds, size_t count, int64_t workers, double *heap)
{
    double longest = 0.0;
    int is_each_alone = count <= (uint64_t)workers;

    if (!is_each_alone)
        memset(heap, 0, (size_t)workers * sizeof *heap);
    for (size_t i = 0; i < count; i++) {
        double end = is_each_alone ? seconds[i] : heap[0] + seconds[i];

        if (!is_each_alone)
            heap_replace(heap, (size_t)workers, end);
        if (end > longest)
            longest = end;
    }
    return longest;
}

/* 0, or 2 when a time is too long for a double. */
static int draw(const Plan *plan, Drawing *drawing, double *total)
{
    const double common = sqrt(SHARED), own = sqrt(1 - SHARED);
    double slowest = 0.0;

    *total = 0.0;
    for (size_t host = 0; host < plan->hosts; host++)
        drawing->luck[host] = common * normal(&drawing->stream);
    for (size_t at = 0; at < plan->count;) {
        const Restore *first = &plan->restores[at], *one = first;
        size_t count = 0;
        double span;

        do {
            double factor = exp(one->spread * (drawing->luck[one->host] + own * normal(&drawing->stream)));

            if (isinf(factor))
                return 2;
            drawing->seconds[count++] = one->median * factor;
            one++;
        } while (++at < plan->count && one->wave == first->wave && one->host == first->host);
        span = makespan(drawing->seconds, count, plan->workers, drawing->heap);
        slowest = span > slowest ? span : slowest;
        if (at == plan->count || one->wave != first->wave) {
            *total += slowest;
            slowest = 0.0;
        }
    }
    return 0;
}

/* --- threads: each takes the next draws, and the stream where it is at the first of them */

typedef struct {
    const Plan *plan;
    Stream stream;
    pthread_mutex_t lock;
    uint64_t position; /* words that `stream` has given */
    int64_t batch, batches;
    int failed; /* what the result is to be */
} Simulation;

static int64_t take(Job *job, Simulation *simulation, Drawing *drawing)
{
    const Plan *plan = simulation->plan;
    int64_t number;
    uint64_t normals, position;

    pthread_mutex_lock(&simulation->lock);
    number = job_next(job, simulation->batches);
    if (number >= 0) {
        normals = (uint64_t)(number * simulation->batch) * (plan->hosts + plan->count);
        position = normals / 2 * 4;
        skip(&simulation->stream, position - simulation->position);
        simulation->position = position;
        drawing->stream = simulation->stream;
        if (normals % 2)
            normal(&drawing->stream);
    }
    pthread_mutex_unlock(&simulation->lock);
    return number;
}

static int draw_batch(Job *job, const Simulation *simulation, Drawing *drawing, int64_t number)
{
    const Plan *plan = simulation->plan;
    int64_t begin = number * simulation->batch, end = begin + simulation->batch;
    int failed = 0;

    for (int64_t i = begin; i < end && i < plan->draws && !failed && !job_ended(job); i++)
        failed = draw(plan, drawing, &plan->totals[i]);
    return failed;
}

static void draw_some(Job *job, void *arg, int thread)
{
    Simulation *simulation = arg;
    const Plan *plan = simulation->plan;
    Drawing *drawing = calloc(1, sizeof *drawing);
    int failed = -1;
    int64_t number;

    (void)thread;
    if (drawing) {
        drawing->luck = malloc((plan->hosts + 1) * sizeof(double));
        drawing->seconds = malloc((plan->count + 1) * sizeof(double));
        drawing->heap = malloc((plan->count + 1) * sizeof(double));
        failed = drawing->luck && drawing->seconds && drawing->heap ? 0 : -1;
        while (!failed && (number = take(job, simulation, drawing)) >= 0)
            failed = draw_batch(job, simulation, drawing, number);
        free(drawing->luck);
        free(drawing->seconds);
        free(drawing->heap);
        free(drawing);
    }
    if (failed) {
        __atomic_store_n(&simulation->failed, failed, __ATOMIC_RELAXED);
        job_end(job);
    }
}

int totals_draw(const Plan *plan, int threads, Poll poll, void *context)
{
    Simulation *simulation = calloc(1, sizeof *simulation);
    size_t each = plan->hosts + plan->count + 1;
    int result;

    if (!simulation || pthread_mutex_init(&simulation->lock, NULL)) {
        free(simulation);
        return -1;
    }
    simulation->plan = plan;
    memcpy(simulation->stream.words, plan->state, sizeof simulation->stream.words);
    simulation->stream.used = plan->state[WORDS];
    simulation->batch = each < BATCH ? (int64_t)(BATCH / each) : 1;
    simulation->batches = (plan->draws + simulation->batch - 1) / simulation->batch;
    if (threads > simulation->batches)
        threads = (int)simulation->batches;
    result = job_run(draw_some, simulation, threads, poll, context);
    if (simulation->failed)
        result = simulation->failed;
    pthread_mutex_destroy(&simulation->lock);
    free(simulation);
    return result;
}
