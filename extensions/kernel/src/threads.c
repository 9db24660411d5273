/* Copyright (c) 2026 The umbra.rollback authors
 * GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Threads that share one job, and one that waits for them. */
#include "umbra.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#define MOST 64

struct Job {
    Work work;
    void *arg;
    pthread_mutex_t lock;
    pthread_cond_t idle;
    int64_t next, count;
    int running, ended, numbered;
};

static void *run(void *given)
{
    Job *job = given;
    int thread = __atomic_fetch_add(&job->numbered, 1, __ATOMIC_RELAXED);

    job->work(job, job->arg, thread);
    pthread_mutex_lock(&job->lock);
    job->running--;
    pthread_cond_signal(&job->idle);
    pthread_mutex_unlock(&job->lock);
    return NULL;
}

int64_t job_next(Job *job, int64_t count)
{
    int64_t number;

    if (job_ended(job))
        return -1;
    __atomic_store_n(&job->count, count, __ATOMIC_RELAXED);
    number = __atomic_fetch_add(&job->next, 1, __ATOMIC_RELAXED);
    return number < count ? number : -1;
}

int job_ended(Job *job)
{
    return __atomic_load_n(&job->ended, __ATOMIC_RELAXED);
}

void job_end(Job *job)
{
    __atomic_store_n(&job->ended, 1, __ATOMIC_RELAXED);
}

static int ask(Job *job, Poll poll, void *context)
{
    int64_t of = __atomic_load_n(&job->count, __ATOMIC_RELAXED), done = __atomic_load_n(&job->next, __ATOMIC_RELAXED);

    return poll(context, done < of ? done : of, of) != 0;
}

static void in_a_moment(struct timespec *when)
{
    clock_gettime(CLOCK_MONOTONIC, when);
    when->tv_nsec += 100000000;
    if (when->tv_nsec >= 1000000000) {
        when->tv_nsec -= 1000000000;
        when->tv_sec++;
    }
}

int job_run(Work work, void *arg, int threads, Poll poll, void *context)
{
    Job job = {.work = work, .arg = arg};
    pthread_t made[MOST];
    pthread_condattr_t steady; /* an interrupt must not wait for a clock that was set back */
    int count, failed = 0, polled = 0;

    if (threads < 1)
        threads = 1;
    if (threads > MOST)
        threads = MOST;
    if (pthread_mutex_init(&job.lock, NULL))
        return -1;
    pthread_condattr_init(&steady);
    pthread_condattr_setclock(&steady, CLOCK_MONOTONIC);
    failed = pthread_cond_init(&job.idle, &steady);
    pthread_condattr_destroy(&steady);
    if (failed) {
        pthread_mutex_destroy(&job.lock);
        return -1;
    }
    pthread_mutex_lock(&job.lock);
    for (count = 0; count < threads; count++) {
        job.running++;
        if (pthread_create(&made[count], NULL, run, &job)) {
            job.running--;
            break;
        }
    }
    if (!count)
        failed = 1;
    while (job.running) {
        struct timespec when;

        in_a_moment(&when);
        if (pthread_cond_timedwait(&job.idle, &job.lock, &when) != ETIMEDOUT || !poll || polled)
            continue;
        pthread_mutex_unlock(&job.lock);
        polled = ask(&job, poll, context);
        if (polled)
            job_end(&job);
        pthread_mutex_lock(&job.lock);
    }
    pthread_mutex_unlock(&job.lock);
    while (count--)
        pthread_join(made[count], NULL);
    pthread_cond_destroy(&job.idle);
    pthread_mutex_destroy(&job.lock);
    return failed ? -1 : polled;
}
