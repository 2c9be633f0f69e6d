// SPDX-License-Identifier: GPL-2.0-or-later
// The SHA extensions (FIPS 180-4; SDM vol. 2). Their registers hold words from the top: A or W0 in element 3.
#include "core/cpu/interpret/vector.h"

static uint32_t left(uint32_t x, unsigned n)
{
    return x << n | x >> (32 - n);
}

static uint32_t right(uint32_t x, unsigned n)
{
    return x >> n | x << (32 - n);
}

static uint32_t choose(uint32_t x, uint32_t y, uint32_t z)
{
    return (x & y) ^ (~x & z);
}

static uint32_t majority(uint32_t x, uint32_t y, uint32_t z)
{
    return (x & y) ^ (x & z) ^ (y & z);
}

// ---- SHA-1 ----------------------------------------------------------------------------------------------------------

static uint32_t parity(uint32_t x, uint32_t y, uint32_t z)
{
    return x ^ y ^ z;
}

static void sha1_rounds(struct vector_call *c) // SHA1RNDS4; E was added to the first word by SHA1NEXTE
{
    static const struct {
        uint32_t (*mix)(uint32_t x, uint32_t y, uint32_t z);
        uint32_t constant;
    } stages[4] = {{choose, 0x5a827999}, {parity, 0x6ed9eba1}, {majority, 0x8f1bbcdc}, {parity, 0xca62c1d6}};
    uint32_t a = c->a.u32[3], b = c->a.u32[2], x = c->a.u32[1], d = c->a.u32[0], e = 0;
    unsigned stage = c->imm & 3;
    for (unsigned k = 4; k-- > 0;) {
        uint32_t next = stages[stage].mix(b, x, d) + left(a, 5) + c->b.u32[k] + e + stages[stage].constant;
        e = d;
        d = x;
        x = left(b, 30);
        b = a;
        a = next;
    }
    c->d.u32[3] = a;
    c->d.u32[2] = b;
    c->d.u32[1] = x;
    c->d.u32[0] = d;
}

static void sha1_next_e(struct vector_call *c)
{
    c->d = c->b;
    c->d.u32[3] += left(c->a.u32[3], 30);
}

static void sha1_message1(struct vector_call *c)
{
    c->d.u32[3] = c->a.u32[1] ^ c->a.u32[3];
    c->d.u32[2] = c->a.u32[0] ^ c->a.u32[2];
    c->d.u32[1] = c->b.u32[3] ^ c->a.u32[1];
    c->d.u32[0] = c->b.u32[2] ^ c->a.u32[0];
}

static void sha1_message2(struct vector_call *c)
{
    for (unsigned k = 3; k > 0; k--)
        c->d.u32[k] = left(c->a.u32[k] ^ c->b.u32[k - 1], 1);
    c->d.u32[0] = left(c->a.u32[0] ^ c->d.u32[3], 1);
}

// ---- SHA-256 --------------------------------------------------------------------------------------------------------

static void sha256_rounds(struct vector_call *c) // the words with their constants are in XMM0
{
    uint32_t s[8] = {c->b.u32[3], c->b.u32[2], c->a.u32[3], c->a.u32[2],
                     c->b.u32[1], c->b.u32[0], c->a.u32[1], c->a.u32[0]};
    for (unsigned k = 0; k < 2; k++) {
        uint32_t sum1 = right(s[4], 6) ^ right(s[4], 11) ^ right(s[4], 25);
        uint32_t sum0 = right(s[0], 2) ^ right(s[0], 13) ^ right(s[0], 22);
        uint32_t x = choose(s[4], s[5], s[6]) + sum1 + c->m.u32[k] + s[7];
        uint32_t y = x + majority(s[0], s[1], s[2]) + sum0;
        memmove(s + 1, s, 7 * sizeof(*s));
        s[4] += x; // what was D
        s[0] = y;
    }
    c->d.u32[3] = s[0];
    c->d.u32[2] = s[1];
    c->d.u32[1] = s[4];
    c->d.u32[0] = s[5];
}

static uint32_t message0(uint32_t w)
{
    return right(w, 7) ^ right(w, 18) ^ w >> 3;
}

static uint32_t message1(uint32_t w)
{
    return right(w, 17) ^ right(w, 19) ^ w >> 10;
}

static void sha256_message1(struct vector_call *c)
{
    for (unsigned k = 0; k < 4; k++)
        c->d.u32[k] = c->a.u32[k] + message0(k < 3 ? c->a.u32[k + 1] : c->b.u32[0]);
}

static void sha256_message2(struct vector_call *c)
{
    for (unsigned k = 0; k < 4; k++)
        c->d.u32[k] = c->a.u32[k] + message1(k < 2 ? c->b.u32[k + 2] : c->d.u32[k - 2]);
}

const struct insn_row interpret_rows_sha[] = {
    VECTOR_LEGACY(SHA1RNDS4, sha1_rounds),
    VECTOR_LEGACY(SHA1NEXTE, sha1_next_e),
    VECTOR_LEGACY(SHA1MSG1, sha1_message1),
    VECTOR_LEGACY(SHA1MSG2, sha1_message2),
    VECTOR_LEGACY(SHA256RNDS2, sha256_rounds, .third = THIRD_MASK),
    VECTOR_LEGACY(SHA256MSG1, sha256_message1),
    VECTOR_LEGACY(SHA256MSG2, sha256_message2),
    VECTOR_END,
};
