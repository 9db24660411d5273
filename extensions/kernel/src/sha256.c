/* Copyright (c) 2026 The umbra.rollback authors
 * GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * SHA-256 (FIPS 180-4): by the libcrypto that the process has, so that a host in FIPS mode stays in it; where there is
 * none, by the processor's instructions, or else plainly. */
#include "umbra.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

static struct {
    void *(*new)(void);
    void (*free)(void *);
    int (*begin)(void *, const void *, void *);
    int (*add)(void *, const void *, size_t);
    int (*end)(void *, unsigned char *, unsigned int *);
    const void *kind;
} crypto;

struct Sha256 {
    void *foreign;
    uint32_t state[8];
    uint64_t size;
    uint8_t block[64];
};

int sha256_use(const char *path)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_NOLOAD);
    const void *(*fetch)(void *, const char *, const char *);
    const void *(*by_name)(const char *);

    if (!library)
        return -1;
    *(void **)&crypto.new = dlsym(library, "EVP_MD_CTX_new");
    *(void **)&crypto.free = dlsym(library, "EVP_MD_CTX_free");
    *(void **)&crypto.begin = dlsym(library, "EVP_DigestInit_ex");
    *(void **)&crypto.add = dlsym(library, "EVP_DigestUpdate");
    *(void **)&crypto.end = dlsym(library, "EVP_DigestFinal_ex");
    *(void **)&fetch = dlsym(library, "EVP_MD_fetch");
    *(void **)&by_name = dlsym(library, "EVP_get_digestbyname");
    if (!crypto.new || !crypto.free || !crypto.begin || !crypto.add || !crypto.end || (!fetch && !by_name))
        return -1;
    crypto.kind = fetch ? fetch(NULL, "SHA256", NULL) : by_name("SHA256");
    return crypto.kind ? 0 : -1;
}

static int no_instructions;

void sha256_use_own(int instructions)
{
    crypto.kind = NULL;
    no_instructions = !instructions;
}

static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t turn(uint32_t word, int by)
{
    return word >> by | word << (32 - by);
}

static void plain(uint32_t state[8], const uint8_t *data, size_t blocks)
{
    for (; blocks--; data += 64) {
        uint32_t w[64], v[8];

        for (int i = 0; i < 16; i++)
            w[i] = (uint32_t)data[4 * i] << 24 | (uint32_t)data[4 * i + 1] << 16 | (uint32_t)data[4 * i + 2] << 8 |
                   data[4 * i + 3];
        for (int i = 16; i < 64; i++) {
            uint32_t a = turn(w[i - 15], 7) ^ turn(w[i - 15], 18) ^ w[i - 15] >> 3;
            uint32_t b = turn(w[i - 2], 17) ^ turn(w[i - 2], 19) ^ w[i - 2] >> 10;
            w[i] = w[i - 16] + a + w[i - 7] + b;
        }
        memcpy(v, state, sizeof v);
        for (int i = 0; i < 64; i++) {
            uint32_t one = v[7] + (turn(v[4], 6) ^ turn(v[4], 11) ^ turn(v[4], 25)) + ((v[4] & v[5]) ^ (~v[4] & v[6])) +
                           K[i] + w[i];
            uint32_t two = (turn(v[0], 2) ^ turn(v[0], 13) ^ turn(v[0], 22)) +
                           ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));

            memmove(v + 1, v, 7 * sizeof *v);
            v[4] += one;
            v[0] = one + two;
        }
        for (int i = 0; i < 8; i++)
            state[i] += v[i];
    }
}

#if defined(__x86_64__)
/* Intel's SHA extensions: sha256rnds2 does two rounds on the state kept as ABEF and CDGH. */
__attribute__((target("sha,sse4.1,ssse3"))) static void fast(uint32_t state[8], const uint8_t *data, size_t blocks)
{
    const __m128i order = _mm_set_epi64x(0x0c0d0e0f08090a0bULL, 0x0405060700010203ULL);
    __m128i low = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)&state[0]), 0xB1);
    __m128i high = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)&state[4]), 0x1B);
    __m128i abef = _mm_alignr_epi8(low, high, 8), cdgh = _mm_blend_epi16(high, low, 0xF0);

    for (; blocks--; data += 64) {
        const __m128i old_abef = abef, old_cdgh = cdgh;
        __m128i w[4];

        for (int i = 0; i < 4; i++)
            w[i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(data + 16 * i)), order);
        for (int i = 0; i < 16; i++) {
            __m128i sum = _mm_add_epi32(w[i & 3], _mm_loadu_si128((const __m128i *)&K[4 * i]));

            cdgh = _mm_sha256rnds2_epu32(cdgh, abef, sum);
            abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(sum, 0x0E));
            if (i < 12) {
                __m128i next = _mm_sha256msg1_epu32(w[i & 3], w[(i + 1) & 3]);

                next = _mm_add_epi32(next, _mm_alignr_epi8(w[(i + 3) & 3], w[(i + 2) & 3], 4));
                w[i & 3] = _mm_sha256msg2_epu32(next, w[(i + 3) & 3]);
            }
        }
        abef = _mm_add_epi32(abef, old_abef);
        cdgh = _mm_add_epi32(cdgh, old_cdgh);
    }
    low = _mm_shuffle_epi32(abef, 0x1B);
    high = _mm_shuffle_epi32(cdgh, 0xB1);
    _mm_storeu_si128((__m128i *)&state[0], _mm_blend_epi16(low, high, 0xF0));
    _mm_storeu_si128((__m128i *)&state[4], _mm_alignr_epi8(high, low, 8));
}

static int has_instructions(void)
{
    static int known = -1; /* each thread that finds out finds the same */
    int found = __atomic_load_n(&known, __ATOMIC_RELAXED);
    unsigned a, b, c, d;

    if (found < 0) {
        int sse = __get_cpuid(1, &a, &b, &c, &d) && (c & 1u << 19) && (c & 1u << 9);

        found = sse && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & 1u << 29);
        __atomic_store_n(&known, found, __ATOMIC_RELAXED);
    }
    return found;
}
#else
static void fast(uint32_t state[8], const uint8_t *data, size_t blocks)
{
    plain(state, data, blocks);
}

static int has_instructions(void)
{
    return 0;
}
#endif

static void blocks(uint32_t state[8], const uint8_t *data, size_t count)
{
    (!no_instructions && has_instructions() ? fast : plain)(state, data, count);
}

const char *sha256_name(void)
{
    return crypto.kind ? "libcrypto" : !no_instructions && has_instructions() ? "sha-ni" : "portable";
}

Sha256 *sha256_new(void)
{
    Sha256 *made = calloc(1, sizeof *made);

    if (made && crypto.kind && !(made->foreign = crypto.new())) {
        free(made);
        return NULL;
    }
    return made;
}

void sha256_free(Sha256 *state)
{
    if (state && state->foreign)
        crypto.free(state->foreign);
    free(state);
}

int sha256_begin(Sha256 *state)
{
    static const uint32_t first[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

    if (state->foreign)
        return crypto.begin(state->foreign, crypto.kind, NULL) == 1 ? 0 : -1;
    memcpy(state->state, first, sizeof first);
    state->size = 0;
    return 0;
}

int sha256_add(Sha256 *state, const void *given, size_t size)
{
    const uint8_t *data = given;
    size_t held = state->size % 64;

    if (state->foreign)
        return crypto.add(state->foreign, data, size) == 1 ? 0 : -1;
    state->size += size;
    if (held) {
        size_t some = size < 64 - held ? size : 64 - held;

        memcpy(state->block + held, data, some);
        data += some;
        size -= some;
        if (held + some < 64)
            return 0;
        blocks(state->state, state->block, 1);
    }
    blocks(state->state, data, size / 64);
    memcpy(state->block, data + size / 64 * 64, size % 64);
    return 0;
}

int sha256_end(Sha256 *state, uint8_t digest[DIGEST])
{
    uint64_t bits = state->size * 8;
    uint8_t tail[72] = {0x80};
    size_t padding = (state->size % 64 < 56 ? 56 : 120) - state->size % 64;

    if (state->foreign)
        return crypto.end(state->foreign, digest, NULL) == 1 ? 0 : -1;
    for (int i = 0; i < 8; i++)
        tail[padding + i] = (uint8_t)(bits >> (56 - 8 * i));
    sha256_add(state, tail, padding + 8);
    for (int i = 0; i < 32; i++)
        digest[i] = (uint8_t)(state->state[i / 4] >> (24 - 8 * (i % 4)));
    return 0;
}

int sha256_of(Sha256 *state, const void *data, size_t size, uint8_t digest[DIGEST])
{
    return sha256_begin(state) || sha256_add(state, data, size) || sha256_end(state, digest) ? -1 : 0;
}
