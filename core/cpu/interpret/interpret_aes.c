// SPDX-License-Identifier: GPL-2.0-or-later
// AES-NI, GFNI, PCLMULQDQ and CRC32 (FIPS 197; SDM vol. 2).
#include "core/cpu/interpret/vector.h"

// ---- AES: the S-boxes are computed once from the field arithmetic
// ------------------------------------------------------

static uint8_t sbox[256], inverse_sbox[256];

static uint8_t times2(uint8_t x)
{
    return (uint8_t)(x << 1 ^ (x & 0x80 ? 0x1b : 0));
}

static uint8_t multiply(uint8_t x, uint8_t y)
{
    uint8_t product = 0;
    for (; y; y >>= 1, x = times2(x))
        if (y & 1)
            product ^= x;
    return product;
}

static __attribute__((constructor)) void build_sboxes(void)
{
    uint8_t power = 1, inverse = 1; // powers of 3 and of its inverse walk the field in step
    do {
        power = multiply(power, 3);
        inverse = multiply(inverse, 0xf6);
        uint8_t s = inverse;
        for (unsigned k = 1; k < 5; k++)
            s ^= (uint8_t)(inverse << k | inverse >> (8 - k));
        sbox[power] = s ^ 0x63;
    } while (power != 1);
    sbox[0] = 0x63;
    for (unsigned k = 0; k < 256; k++)
        inverse_sbox[sbox[k]] = (uint8_t)k;
}

static void substitute_and_shift(const uint8_t *from, uint8_t *to)
{
    for (unsigned k = 0; k < 16; k++)
        to[k] = sbox[from[(k + 4 * (k & 3)) & 15]];
}

static void substitute_and_shift_back(const uint8_t *from, uint8_t *to)
{
    for (unsigned k = 0; k < 16; k++)
        to[k] = inverse_sbox[from[(k - 4 * (k & 3)) & 15]];
}

static void mix_columns(uint8_t *state, const uint8_t factors[4])
{
    for (unsigned column = 0; column < 16; column += 4) {
        uint8_t mixed[4] = {0};
        for (unsigned k = 0; k < 4; k++)
            for (unsigned j = 0; j < 4; j++)
                mixed[k] ^= multiply(state[column + j], factors[(j - k) & 3]);
        memcpy(state + column, mixed, 4);
    }
}

static const uint8_t mix_forward[4] = {2, 3, 1, 1}, mix_back[4] = {14, 11, 13, 9};

#define ROUND(name, substitute, mix)                                                                                   \
    static void name(struct vector_call *c)                                                                            \
    {                                                                                                                  \
        for (unsigned lane = 0; lane < c->size; lane += 16) {                                                          \
            substitute(c->a.u8 + lane, c->d.u8 + lane);                                                                \
            mix;                                                                                                       \
            for (unsigned k = lane; k < lane + 16; k++)                                                                \
                c->d.u8[k] ^= c->b.u8[k];                                                                              \
        }                                                                                                              \
    }
ROUND(encrypt, substitute_and_shift, mix_columns(c->d.u8 + lane, mix_forward))
ROUND(encrypt_last, substitute_and_shift, (void)0)
ROUND(decrypt, substitute_and_shift_back, mix_columns(c->d.u8 + lane, mix_back))
ROUND(decrypt_last, substitute_and_shift_back, (void)0)

static void inverse_mix(struct vector_call *c) // AESIMC
{
    memcpy(&c->d, &c->b, 16);
    mix_columns(c->d.u8, mix_back);
}

static uint32_t substitute_word(uint32_t x)
{
    return sbox[x & 255] | sbox[x >> 8 & 255] << 8 | sbox[x >> 16 & 255] << 16 | (uint32_t)sbox[x >> 24] << 24;
}

static void key_assist(struct vector_call *c) // AESKEYGENASSIST
{
    for (unsigned k = 0; k < 2; k++) {
        uint32_t word = substitute_word(c->b.u32[2 * k + 1]);
        c->d.u32[2 * k] = word;
        c->d.u32[2 * k + 1] = (word >> 8 | word << 24) ^ c->imm;
    }
}

// ---- GFNI: the same field -------------------------------------------------------------------------------------------

static uint8_t invert(uint8_t x)
{
    uint8_t power = x; // to the 254th
    for (unsigned k = 0; k < 6; k++)
        power = multiply(multiply(power, power), x);
    return multiply(power, power);
}

// Row K of the matrix is byte 7 - K of its quadword.
static uint8_t transform(uint64_t matrix, uint8_t x, unsigned constant)
{
    unsigned y = constant;
    for (unsigned k = 0; k < 8; k++)
        y ^= (unsigned)__builtin_parity(matrix >> (8 * (7 - k)) & x) << k;
    return (uint8_t)y;
}

static void affine(struct vector_call *c)
{
    for (unsigned k = 0; k < c->size; k++)
        c->d.u8[k] = transform(c->b.u64[k / 8], c->a.u8[k], c->imm);
}

static void affine_inverse(struct vector_call *c)
{
    for (unsigned k = 0; k < c->size; k++)
        c->d.u8[k] = transform(c->b.u64[k / 8], invert(c->a.u8[k]), c->imm);
}

static void field_multiply(struct vector_call *c)
{
    for (unsigned k = 0; k < c->size; k++)
        c->d.u8[k] = multiply(c->a.u8[k], c->b.u8[k]);
}

// ---- Carry-less multiplication ------------------------------------------------------------------------------------

static void carryless(struct vector_call *c)
{
    for (unsigned lane = 0; lane < c->size / 8; lane += 2) {
        uint64_t x = c->a.u64[lane + (c->imm & 1)], y = c->b.u64[lane + (c->imm >> 4 & 1)], low = 0, high = 0;
        for (unsigned k = 0; k < 64; k++) {
            if (y >> k & 1) {
                low ^= x << k;
                high ^= k ? x >> (64 - k) : 0;
            }
        }
        c->d.u64[lane] = low;
        c->d.u64[lane + 1] = high;
    }
}

// ---- CRC32 (polynomial 11EDC6F41h, reflected) -----------------------------------------------------------------------

static uint32_t crc_table[256];

static __attribute__((constructor)) void build_crc_table(void)
{
    for (uint32_t k = 0; k < 256; k++) {
        uint32_t crc = k;
        for (unsigned bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
        crc_table[k] = crc;
    }
}

static const struct insn *run_crc32(struct vcpu *v, const struct insn *i)
{
    unsigned size = (unsigned)i->imm2;
    uint64_t data = 0;
    if (!i->is_memory)
        data = slot_get(v, i->rm_offset, size);
    else if (!insn_load(v, i, &data, size))
        return NULL;
    uint32_t crc = (uint32_t)v->gpr[i->reg & 15];
    for (unsigned k = 0; k < size; k++)
        crc = crc >> 8 ^ crc_table[(crc ^ data >> 8 * k) & 255];
    v->gpr[i->reg & 15] = crc;
    return i + 1;
}

static insn_handler *bind_crc32(struct vcpu *v, const struct decoded *d, struct insn *i)
{
    i->imm2 = d->operands[1].size / 8;
    return run_crc32;
}

const struct insn_row interpret_rows_crypto[] = {
    VECTOR(AESENC, encrypt),
    VECTOR(AESENCLAST, encrypt_last),
    VECTOR(AESDEC, decrypt),
    VECTOR(AESDECLAST, decrypt_last),
    VECTOR(AESIMC, inverse_mix),
    VECTOR(AESKEYGENASSIST, key_assist),
    VECTOR(GF2P8AFFINEQB, affine),
    VECTOR(GF2P8AFFINEINVQB, affine_inverse),
    VECTOR(GF2P8MULB, field_multiply),
    VECTOR(PCLMULQDQ, carryless),
    {.mnemonic = ZYDIS_MNEMONIC_CRC32, .class = CLASS_PLAIN, .gate = GATE_NONE, .bind = bind_crc32},
    VECTOR_END,
};
