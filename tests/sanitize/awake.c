/* Copyright (c) 2026 The umbra.rollback authors
 * GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Bugs that a sanitizer has to find, or else it is asleep: a race between two threads, or a read behind the end. */
#include <pthread.h>
#include <stdlib.h>

static volatile int shared;

#ifdef __SANITIZE_THREAD__
static void *race(void *unused)
{
    shared++;
    return unused;
}

void awake(void)
{
    pthread_t one, other;

    pthread_create(&one, NULL, race, NULL);
    pthread_create(&other, NULL, race, NULL);
    pthread_join(one, NULL);
    pthread_join(other, NULL);
}
#else
void awake(void)
{
    volatile char *memory = malloc(8);

    shared = memory[8];
    free((void *)memory);
}
#endif
