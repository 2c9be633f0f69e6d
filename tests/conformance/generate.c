// SPDX-License-Identifier: GPL-2.0-or-later
// Random instances of a form: encodings, registers and memory with many edge values, addresses solved so that memory
// operands lie in the data area (or, now and then, where they fault).
#include "tests/conformance/conformance.h"

uint64_t random_next(struct random *r) // splitmix64
{
    uint64_t z = r->state += 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

static bool chance(struct random *r, unsigned one_in)
{
    return random_below(r, one_in) == 0;
}

// ---- Values ----

static uint64_t random_integer(struct random *r)
{
    static const uint64_t edges[] = {0,
                                     1,
                                     2,
                                     0x7f,
                                     0x80,
                                     0xff,
                                     0x7fff,
                                     0x8000,
                                     0xffff,
                                     0x7fffffff,
                                     0x80000000,
                                     0xffffffff,
                                     0x7fffffffffffffff,
                                     0x8000000000000000,
                                     0xffffffffffffffff,
                                     0x100000000,
                                     0x5555555555555555,
                                     0xaaaaaaaaaaaaaaaa};
    switch (random_below(r, 6)) {
    case 0:
        return edges[random_below(r, G_N_ELEMENTS(edges))];
    case 1:
        return edges[random_below(r, G_N_ELEMENTS(edges))] + random_below(r, 5) - 2;
    case 2:
        return random_next(r) & random_next(r) & random_next(r);
    case 3:
        return random_next(r) >> random_below(r, 64);
    default:
        return random_next(r);
    }
}

static uint64_t random_float(struct random *r, unsigned exponent_bits, unsigned fraction_bits)
{
    uint64_t bias = (1ull << (exponent_bits - 1)) - 1, all = 2 * bias + 1, fraction_mask = (1ull << fraction_bits) - 1;
    static const uint64_t patterns[] = {0, 1, 2, ~0ull, ~1ull, 0x8000000000000ull, 0x400000};
    uint64_t exponent, fraction = random_next(r);
    switch (random_below(r, 10)) {
    case 0:
        exponent = 0;
        break;
    case 1:
        exponent = all;
        break;
    case 2:
        exponent = 1 + random_below(r, 3);
        break;
    case 3:
        exponent = all - 1 - random_below(r, 3);
        break;
    case 4:
    case 5:
    case 6:
        exponent = bias + random_below(r, 70) - 3;
        break;
    default:
        exponent = bias + random_below(r, 9) - 4;
    }
    exponent &= all;
    if (chance(r, 3))
        fraction = patterns[random_below(r, G_N_ELEMENTS(patterns))];
    else if (chance(r, 3)) // few bits: exact results
        fraction = fraction << random_below(r, fraction_bits);
    else if (chance(r, 4))
        fraction = 1ull << (fraction_bits - 1);
    return (random_next(r) & 1) << (exponent_bits + fraction_bits) | exponent << fraction_bits |
           (fraction & fraction_mask);
}

static void random_float80(struct random *r, uint8_t *bytes)
{
    uint64_t x = random_float(r, 15, 48), significand = x << 15;
    uint16_t sign_exponent = (uint16_t)(x >> 48);
    if (chance(r, 3))
        significand |= random_next(r) & 0x7fff;
    if ((sign_exponent & 0x7fff && !chance(r, 40)) || chance(r, 20))
        significand |= 0x8000000000000000ull;
    else if (sign_exponent & 0x7fff)
        significand &= 0x7fffffffffffffffull;
    memcpy(bytes, &significand, 8);
    memcpy(bytes + 8, &sign_exponent, 2);
}

// Fills with one kind of element.
static void random_bytes(struct random *r, uint8_t *bytes, unsigned size)
{
    unsigned kind = random_below(r, 5);
    if (kind == 4) { // 80-bit values, for what looks for them
        for (unsigned k = 0; k + 10 <= size; k += 10)
            random_float80(r, bytes + k);
        return;
    }
    for (unsigned k = 0; k < size; k += 8) {
        uint64_t x = kind == 0   ? random_next(r)
                     : kind == 1 ? random_float(r, 11, 52)
                     : kind == 2 ? random_float(r, 8, 23) | random_float(r, 8, 23) << 32
                                 : random_integer(r);
        memcpy(bytes + k, &x, size - k < 8 ? size - k : 8);
    }
}

static uint64_t random_half(struct random *r)
{
    return (random_next(r) & 1) << 15 | (random_below(r, 3) ? 8 + random_below(r, 16) : random_next(r) & 31) << 10 |
           (random_next(r) & 0x3ff);
}

// Also numbers of 16 bits and masks of all densities.
static void random_avx512(struct random *r, struct avx512_state *s)
{
    for (unsigned k = 0; k < 8; k++) {
        uint64_t x = random_next(r);
        s->opmask[k] = chance(r, 6) ? ~0ull : chance(r, 8) ? 0 : chance(r, 3) ? x & random_next(r) & random_next(r) : x;
    }
    for (unsigned k = 0; k < 16; k++)
        random_bytes(r, s->zmmh[k], 32);
    for (unsigned k = 0; k < 16; k++)
        random_bytes(r, s->zmm16[k], 64);
}

static void random_halves(struct random *r, struct state *s)
{
    for (unsigned n = 0; n < 32; n++)
        for (unsigned piece = 0; piece < 4; piece++)
            for (unsigned k = 0; k < 16; k += 2) {
                uint64_t x = random_half(r);
                memcpy(state_vector(s, n, piece) + k, &x, 2);
            }
}

bool with_avx512;

uint8_t *state_vector(struct state *s, unsigned number, unsigned piece)
{
    if (number >= 16)
        return s->avx512.zmm16[number - 16] + 16 * piece;
    return piece == 0   ? s->xsave + 160 + 16 * number
           : piece == 1 ? s->xsave + 576 + 16 * number
                        : s->avx512.zmmh[number] + 16 * (piece - 2);
}

static void random_state(struct random *r, bool is_64, struct state *s)
{
    memset(s, 0, sizeof(*s));
    for (unsigned k = 0; k < (is_64 ? 16 : 8); k++)
        s->gpr[k] = is_64 ? random_integer(r) : (uint32_t)random_integer(r);
    s->rflags = FLAG_1 | FLAG_IF | (random_next(r) & FLAGS_STATUS) | (chance(r, 8) ? FLAG_DF : 0) |
                (chance(r, 32) ? FLAG_AC : 0);
    uint16_t fcw = (uint16_t)(0x40 | (random_next(r) & 0xc00) | random_below(r, 4) << 8), fsw;
    if (fcw >> 8 & 3)
        fcw |= 0x300;
    if (chance(r, 3))
        fcw = (uint16_t)((fcw & ~0x300) | (chance(r, 2) ? 0x200 : 0));
    fcw |= chance(r, 5) ? (uint16_t)(random_next(r) & 0x3f) : 0x3f;
    fsw = (uint16_t)(random_next(r) & 0x7f7f);
    if (chance(r, 2))
        fsw &= 0x7f00;
    if (fsw & ~fcw & 0x3f && !chance(r, 8))
        fsw &= (uint16_t)~0x3f;
    if (fsw & ~fcw & 0x3f)
        fsw |= 0x8080;
    uint8_t ftw = chance(r, 3) ? (uint8_t)random_next(r) : 0xff;
    if (chance(r, 3)) // free for a push
        ftw &= (uint8_t) ~(1u << ((((fsw >> 11) & 7) - 1) & 7));
    uint32_t mxcsr = (uint32_t)(random_next(r) & 0x603f) |
                     (chance(r, 5) ? (uint32_t)(random_next(r) & 0x1f80) : 0x1f80) | (chance(r, 4) ? 0x40 : 0) |
                     (chance(r, 4) ? 0x8000 : 0);
    uint32_t mask = 0xffff;
    memcpy(s->xsave, &fcw, 2);
    memcpy(s->xsave + 2, &fsw, 2);
    s->xsave[4] = ftw;
    memcpy(s->xsave + 24, &mxcsr, 4);
    memcpy(s->xsave + 28, &mask, 4);
    for (unsigned k = 0; k < 8; k++)
        random_float80(r, s->xsave + 32 + 16 * k);
    unsigned registers = is_64 ? 16 : 8;
    for (unsigned k = 0; k < registers; k++) {
        random_bytes(r, s->xsave + 160 + 16 * k, 16);
        random_bytes(r, s->xsave + 576 + 16 * k, 16);
    }
    if (with_avx512)
        random_avx512(r, &s->avx512);
    uint64_t bv = 7;
    memcpy(s->xsave + 512, &bv, 8);
}

// ---- Encoding ----

struct encoding {
    uint8_t bytes[32];
    unsigned size;
};

static void put(struct encoding *e, uint64_t value, unsigned size)
{
    memcpy(e->bytes + e->size, &value, size);
    e->size += size;
}

struct fields {
    unsigned reg, rm, vvvv, base, index, mod, scale;
    bool address32, no_base, no_index, rip_relative;
    unsigned mask, zeroing;
};

static void put_opcode(const struct form *f, const struct fields *x, struct encoding *e, struct random *r)
{
    bool rex_b = f->is_memory ? !x->no_base && !x->rip_relative && x->base > 7 : x->rm > 7, rex_r = x->reg > 7,
         rex_x = f->is_memory && !x->no_index && x->index >> 3 & 1;
    if (f->is_64 && x->address32)
        put(e, 0x67, 1);
    for (unsigned k = 0; k < 2; k++)
        if (f->prefix[k])
            put(e, f->prefix[k], 1);
    if (f->is_evex) {
        bool high_x = f->is_memory ? rex_x : x->rm >> 4 & 1, v2 = f->is_vsib ? x->index >> 4 & 1 : x->vvvv >> 4 & 1;
        put(e, 0x62, 1);
        put(e,
            (x->reg & 8 ? 0 : 0x80u) | (high_x ? 0 : 0x40u) | ((f->is_memory ? rex_b : x->rm & 8) ? 0 : 0x20u) |
                (x->reg & 16 ? 0 : 0x10u) | f->map,
            1);
        put(e, (unsigned)f->rex_w << 7 | (~x->vvvv & 15) << 3 | 4 | f->vex_pp, 1);
        put(e, x->zeroing << 7 | (unsigned)f->vex_l << 5 | (unsigned)f->evex_b << 4 | (v2 ? 0 : 8u) | x->mask, 1);
    } else if (f->is_vex) {
        unsigned inverted = (rex_r ? 0 : 0x80u) | (rex_x ? 0 : 0x40u) | (rex_b ? 0 : 0x20u);
        bool short_form = f->map == 1 && !f->rex_w && !rex_x && !rex_b && chance(r, 2);
        if (short_form) {
            put(e, 0xc5, 1);
            put(e, (rex_r ? 0 : 0x80u) | (~x->vvvv & 15) << 3 | (unsigned)f->vex_l << 2 | f->vex_pp, 1);
        } else {
            put(e, 0xc4, 1);
            put(e, inverted | f->map, 1);
            put(e, (unsigned)f->rex_w << 7 | (~x->vvvv & 15) << 3 | (unsigned)f->vex_l << 2 | f->vex_pp, 1);
        }
    } else {
        unsigned rex = (unsigned)f->rex_w << 3 | rex_r << 2 | rex_x << 1 | rex_b;
        if (f->is_64 && (rex || chance(r, 4)))
            put(e, 0x40 | rex, 1);
        if (f->map)
            put(e, 0x0f, 1);
        if (f->map > 1)
            put(e, f->map == 2 ? 0x38 : 0x3a, 1);
    }
    put(e, f->opcode, 1);
}

static void put_memory(const struct form *f, const struct fields *x, struct encoding *e, struct random *r)
{
    unsigned reg = (x->reg & 7) << 3;
    if (x->rip_relative) { // RIP-relative in 64-bit code, absolute in 32-bit code
        put(e, reg | 5, 1);
        put(e, random_next(r) & 0xfffff, 4);
        return;
    }
    bool sib = f->is_vsib || x->no_base || !x->no_index || (x->base & 7) == RSP;
    unsigned mod = x->no_base ? 0 : x->mod;
    if (mod == 0 && !x->no_base && (x->base & 7) == RBP)
        mod = 1;
    put(e, mod << 6 | reg | (sib ? 4 : (x->base & 7)), 1);
    if (sib)
        put(e, x->scale << 6 | ((x->no_index ? RSP : x->index) & 7) << 3 | ((x->no_base ? RBP : x->base) & 7), 1);
    if (mod == 1)
        put(e, random_next(r), 1);
    else if (mod == 2 || x->no_base)
        put(e, random_next(r) & (chance(r, 2) ? 0xfff : 0xffffff), 4);
}

// Fixed fields keep the template's; free ones vary.
static void encode(struct random *r, const struct form *f, struct encoding *e)
{
    unsigned registers = f->is_64 ? 16 : 8;
    struct fields x = {.reg = f->modrm >> 3 & 7, .rm = f->modrm & 7};
    e->size = 0;
    if (f->reg_free)
        x.reg = random_below(r, registers);
    if (f->rm_free)
        x.rm = random_below(r, registers);
    x.vvvv = (f->is_vex || f->is_evex) && chance(r, 8) == 0 ? random_below(r, registers) : 0;
    x.base = random_below(r, registers);
    x.index = random_below(r, registers);
    x.mod = random_below(r, 3);
    x.scale = random_below(r, 4);
    x.address32 = chance(r, 24);
    if (f->is_evex) {
        registers = f->is_64 ? 32 : 8;
        if (f->reg_free && chance(r, 2))
            x.reg = random_below(r, registers);
        if (f->rm_free && chance(r, 2))
            x.rm = random_below(r, registers);
        if (x.vvvv)
            x.vvvv = random_below(r, registers);
        if (f->is_vsib)
            x.index = random_below(r, registers);
        if (f->evex_mask && !chance(r, 4))
            x.mask = random_below(r, 8);
        x.zeroing = x.mask && chance(r, 2);
    }
    unsigned kind = random_below(r, 8);
    x.no_index = !f->is_vsib && (kind < 4 || x.index == RSP);
    x.no_base = kind == 7 && !f->is_vsib;
    x.rip_relative = kind == 0 && !f->is_vsib && chance(r, 2);
    put_opcode(f, &x, e, r);
    if (f->has_modrm) {
        if (f->is_memory)
            put_memory(f, &x, e, r);
        else
            put(e, 0xc0 | (x.reg & 7) << 3 | (x.rm & 7), 1);
    }
    while (e->size < 15)
        put(e, chance(r, 2) ? random_integer(r) : random_next(r), 1);
}

// vvvv that must be all ones decodes to nothing: encode() tries random values and 0 (inverted: 15) in turn.
static bool encode_form(struct random *r, const struct form *f, struct encoding *e, struct decoded *d)
{
    char key[160];
    for (unsigned attempt = 0; attempt < 40; attempt++) {
        encode(r, f, e);
        if (!decode_bytes(f->is_64, e->bytes, e->size < 15 ? e->size : 15, d))
            continue;
        form_key(d, f->is_64, key, sizeof(key));
        if (strcmp(key, f->key) == 0)
            return true;
    }
    return false;
}

// ---- Addresses ----

static uint64_t random_target(struct random *r, unsigned size, bool is_64)
{
    unsigned alignment = size >= 64 ? 64 : size >= 32 ? 32 : size >= 16 ? 16 : size >= 8 ? 8 : size ? size : 1;
    if (size > 64)
        alignment = 64;
    uint64_t middle = DATA_BASE + 0x1000 + random_below(r, 0x1800);
    switch (random_below(r, 24)) {
    case 0: // across a page
        return (DATA_BASE + 0x2000) - random_below(r, size + 1);
    case 1: // read-only
        return chance(r, 4) ? DATA_READONLY + (random_below(r, 0x400) & ~63u) : middle & ~(uint64_t)63;
    case 2: // not there, or partly
        return chance(r, 4) ? DATA_BASE + DATA_ALL - random_below(r, size + 1) : middle & ~(uint64_t)63;
    case 3: // not canonical
        return is_64 && chance(r, 6) ? 0x8000000000000000ull >> random_below(r, 16) : middle & ~(uint64_t)63;
    case 4:
    case 5:
    case 6:
        return middle; // any alignment
    default:
        return middle & ~(uint64_t)(alignment - 1);
    }
}

static unsigned gpr_of(ZydisRegister reg)
{
    int8_t id = ZydisRegisterGetId(reg);
    return id < 0 ? 0 : (unsigned)id & 15;
}

static bool is_pc(ZydisRegister reg)
{
    return reg == ZYDIS_REGISTER_RIP || reg == ZYDIS_REGISTER_EIP;
}

// Vector index registers get small elements.
static void place_vector_index(struct random *r, struct vector *v, const ZydisDecodedOperand *o)
{
    unsigned n = (unsigned)ZydisRegisterGetId(o->mem.index);
    bool wide = strstr(v->form->key, "gatherq") || strstr(v->form->key, "scatterq");
    for (unsigned piece = 0; piece < 4; piece++) {
        uint8_t *bytes = state_vector(&v->in, n, piece);
        for (unsigned k = 0; k < 16; k += wide ? 8 : 4) {
            int64_t x = (int64_t)random_below(r, 0x100) - 0x40;
            memcpy(bytes + k, &x, wide ? 8 : 4);
        }
    }
}

// Sets the registers (or the displacement in the bytes) so that O's address is TARGET. False: not possible.
static bool solve_operand(struct random *r, struct vector *v, const struct decoded *d, const ZydisDecodedOperand *o,
                          uint64_t target)
{
    const ZydisDecodedInstruction *z = &d->zydis;
    uint64_t displacement = o->mem.disp.has_displacement ? (uint64_t)o->mem.disp.value : 0;
    bool vsib = o->mem.type == ZYDIS_MEMOP_TYPE_VSIB;

    if (z->address_width == 16)
        return false;
    if (z->address_width == 32)
        target = (uint32_t)target;
    if (o->mem.base == ZYDIS_REGISTER_NONE && (o->mem.index == ZYDIS_REGISTER_NONE || o->mem.scale > 1 || vsib)) {
        if (z->raw.disp.size != 32) // a moffs
            return false;
        if (target >> 31)
            return false;
        if (o->mem.index != ZYDIS_REGISTER_NONE && !vsib) {
            uint64_t index = random_below(r, 64);
            v->in.gpr[gpr_of(o->mem.index)] = index;
            target -= index * o->mem.scale;
        }
        uint32_t value = (uint32_t)target;
        memcpy(v->bytes + z->raw.disp.offset, &value, 4);
        if (vsib)
            place_vector_index(r, v, o);
        return true;
    }
    if (is_pc(o->mem.base)) {
        uint64_t distance = target - (v->in.rip + z->length);
        if ((int64_t)distance != (int32_t)distance)
            return false;
        uint32_t value = (uint32_t)distance;
        memcpy(v->bytes + z->raw.disp.offset, &value, 4);
        return true;
    }
    uint64_t rest = target - displacement;
    if (vsib) {
        place_vector_index(r, v, o);
    } else if (o->mem.index != ZYDIS_REGISTER_NONE) {
        unsigned n = gpr_of(o->mem.index);
        if (o->mem.base == ZYDIS_REGISTER_NONE) { // scale 1
            v->in.gpr[n] = z->address_width == 32 ? (uint32_t)rest : rest;
            return true;
        }
        if (n == gpr_of(o->mem.base)) {
            if (rest % (o->mem.scale + 1u))
                return false;
            rest /= o->mem.scale + 1u;
            v->in.gpr[n] = z->address_width == 32 ? (uint32_t)rest : rest;
            return z->address_width == 64 || (uint32_t)rest * (o->mem.scale + 1u) == (uint32_t)(target - displacement);
        }
        uint64_t index = chance(r, 4) ? 0 - (uint64_t)random_below(r, 256) : random_below(r, 256);
        v->in.gpr[n] = z->address_width == 32 ? (uint32_t)index : index;
        rest -= index * o->mem.scale;
    }
    if (z->address_width == 32)
        rest = (uint32_t)rest | (v->is_64 && chance(r, 2) ? random_next(r) << 32 : 0);
    v->in.gpr[gpr_of(o->mem.base)] = rest;
    return true;
}

// Where O's address lies with the present registers.
static uint64_t operand_address(const struct vector *v, const struct decoded *d, const ZydisDecodedOperand *o)
{
    uint64_t address = o->mem.disp.has_displacement ? (uint64_t)o->mem.disp.value : 0;
    if (is_pc(o->mem.base))
        address += v->in.rip + d->zydis.length;
    else if (o->mem.base != ZYDIS_REGISTER_NONE)
        address += v->in.gpr[gpr_of(o->mem.base)];
    if (o->mem.index != ZYDIS_REGISTER_NONE && o->mem.type != ZYDIS_MEMOP_TYPE_VSIB)
        address += v->in.gpr[gpr_of(o->mem.index)] * o->mem.scale;
    return d->zydis.address_width == 32 ? (uint32_t)address : address;
}

static bool harmless(uint64_t address)
{
    bool near_data = address >= DATA_BASE - 0x8000 && address < DATA_BASE + DATA_ALL + 0x8000;
    return near_data || !vcpu_canonical(address);
}

// ---- Special operands ----

static void window_set(struct vector *v, unsigned which, uint64_t address, unsigned size)
{
    if (size > WINDOW_MAX)
        size = WINDOW_MAX;
    if (address < DATA_BASE || address >= DATA_BASE + DATA_ALL)
        return;
    if (address + size > DATA_BASE + DATA_ALL)
        size = (unsigned)(DATA_BASE + DATA_ALL - address);
    v->window[which].address = address;
    v->window[which].size = size;
}

static void poke(struct vector *v, unsigned which, unsigned offset, uint64_t value, unsigned size)
{
    if (offset + size <= v->window[which].size)
        memcpy(v->window[which].bytes + offset, &value, size);
}

static uint64_t code_target(struct random *r, const struct vector *v)
{
    uint64_t target;
    do
        target = CODE_BASE + 0x100 + random_below(r, CODE_SIZE - 0x200);
    while (target + 16 > v->in.rip && target < v->in.rip + 32);
    return target;
}

static void fix_branch(struct random *r, struct vector *v, const struct decoded *d)
{
    const ZydisDecodedOperand *o = &d->operands[0];
    unsigned width = v->is_64 ? 8 : d->zydis.operand_width / 8;
    uint64_t target = code_target(r, v);
    if (chance(r, 40) && v->is_64 && o->type != ZYDIS_OPERAND_TYPE_IMMEDIATE)
        target |= 0x8000000000000000ull;
    if (o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE && o->imm.is_relative) {
        uint64_t distance = target - (v->in.rip + d->zydis.length);
        unsigned offset = d->zydis.raw.imm[0].offset, size = d->zydis.raw.imm[0].size / 8;
        if (size == 1) // not into itself
            distance = chance(r, 2) ? 0x10 + random_below(r, 0x60) : 0x100 - 0x20 - random_below(r, 0x50);
        memcpy(v->bytes + offset, &distance, size);
    } else if (o->type == ZYDIS_OPERAND_TYPE_REGISTER) {
        v->in.gpr[gpr_of(o->reg.value)] = width == 8 || chance(r, 2) ? target : (target & 0xffffffff);
    } else if (o->type == ZYDIS_OPERAND_TYPE_MEMORY) {
        poke(v, 0, 0, target, width);
    }
    if (d->zydis.mnemonic == ZYDIS_MNEMONIC_RET)
        poke(v, 1, 0, target, width);
}

static bool is_mnemonic(const struct vector *v, const char *name)
{
    const char *key = v->form->key;
    size_t n = strlen(name);
    return strncmp(key, name, n) == 0;
}

// Instructions that read structured memory or take special registers.
static void fix_special(struct random *r, struct vector *v, const struct decoded *d)
{
    const ZydisDecodedInstruction *z = &d->zydis;
    if (is_mnemonic(v, "bt") && v->form->is_memory && d->operands[1].type == ZYDIS_OPERAND_TYPE_REGISTER) {
        unsigned n = gpr_of(d->operands[1].reg.value);
        bool used = n == gpr_of(d->operands[0].mem.base) || n == gpr_of(d->operands[0].mem.index);
        if (!used)
            v->in.gpr[n] = v->is_64 ? (uint64_t)((int64_t)random_below(r, 512) - 256)
                                    : (uint32_t)((int32_t)random_below(r, 512) - 256);
    }
    if (z->attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE))
        v->in.gpr[RCX] = random_below(r, 9);
    if (z->mnemonic == ZYDIS_MNEMONIC_ENTER) {
        uint16_t size = (uint16_t)random_below(r, 0x100);
        memcpy(v->bytes + z->raw.imm[0].offset, &size, 2);
        v->in.gpr[RBP] = DATA_BASE + 0x2000 + (random_below(r, 0x400) & ~7u);
    }
    if (z->mnemonic == ZYDIS_MNEMONIC_LEAVE)
        v->in.gpr[RBP] = DATA_BASE + 0x2000 + (random_below(r, 0x400) & ~7u);
    if (is_mnemonic(v, "popf")) {
        v->in.rflags &= ~(uint64_t)FLAG_AC;    // an alignment fault here leaves ID set on some hosts
        v->window[1].bytes[1] &= 0xfe & ~0x40; // no TF, no NT
        v->window[1].bytes[2] &= 0xf4;
    }
    if (is_mnemonic(v, "ldmxcsr") || is_mnemonic(v, "vldmxcsr"))
        if (!chance(r, 4))
            poke(v, 0, 2, 0, 2);
    if (is_mnemonic(v, "fxrstor") || is_mnemonic(v, "xrstor")) {
        if (!chance(r, 8))
            poke(v, 0, 26, 0, 2);
    }
    if (is_mnemonic(v, "xrstor") || is_mnemonic(v, "xsave")) {
        if (v->window[1].address + v->window[1].size > v->window[0].address &&
            v->window[1].address < v->window[0].address + v->window[0].size)
            v->window[1].size = 0; // else it may put components into the header that only the host has
        uint64_t high = with_avx512 ? XCR0_AVX512 : 0, all = 7 | high;
        v->in.gpr[RAX] = random_below(r, 8) | (random_next(r) & high);
        v->in.gpr[RDX] = 0;
        uint64_t bv = random_below(r, 8) | (random_next(r) & high), compacted = 0;
        if (chance(r, 4))
            compacted = 0x8000000000000000ull | (chance(r, 4) ? random_next(r) & all : all);
        if (chance(r, 16))
            compacted |= 1ull << random_below(r, 3);
        poke(v, 0, 512, bv, 8);
        poke(v, 0, 520, compacted, 8);
        for (unsigned k = 528; k < 576; k += 8)
            poke(v, 0, k, chance(r, 60) ? random_next(r) : 0, 8);
    }
    if (is_mnemonic(v, "cmpxchg") && chance(r, 2)) { // make it match
        for (unsigned k = 0; k < 2; k++)
            if (v->form->is_memory && is_mnemonic(v, "cmpxchg8b"))
                poke(v, 0, 4 * k, v->in.gpr[k ? RDX : RAX], 4);
            else if (v->form->is_memory && is_mnemonic(v, "cmpxchg16b"))
                poke(v, 0, 8 * k, v->in.gpr[k ? RDX : RAX], 8);
        if (v->form->is_memory && !is_mnemonic(v, "cmpxchg8b") && !is_mnemonic(v, "cmpxchg16b"))
            poke(v, 0, 0, v->in.gpr[RAX], 8);
    }
    if ((is_mnemonic(v, "div") || is_mnemonic(v, "idiv")) && !chance(r, 4)) { // else nearly all overflow
        v->in.gpr[RDX] = chance(r, 2) ? 0 : v->in.gpr[RDX] >> random_below(r, 64);
        if (z->operand_width == 8)
            v->in.gpr[RAX] &= 0x3ff;
        if (!v->is_64)
            v->in.gpr[RDX] = (uint32_t)v->in.gpr[RDX];
    }
}

// ---- One instruction ----

static bool place_operands(struct random *r, struct vector *v, const struct decoded *d)
{
    for (unsigned k = 0; k < d->zydis.operand_count; k++) {
        const ZydisDecodedOperand *o = &d->operands[k];
        if (o->type != ZYDIS_OPERAND_TYPE_MEMORY || o->mem.type == ZYDIS_MEMOP_TYPE_AGEN)
            continue;
        if (o->mem.segment == ZYDIS_REGISTER_FS || o->mem.segment == ZYDIS_REGISTER_GS)
            return false;
        unsigned bytes = o->size / 8 ? o->size / 8 : 1;
        bool is_stack = o->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN && o->mem.base != ZYDIS_REGISTER_NONE &&
                        gpr_of(o->mem.base) == RSP;
        if (is_stack)
            continue;
        uint64_t target = random_target(r, bytes, v->is_64);
        if (v->form->evex_mask && chance(r, 4)) // a mask may hide what is not there, or not writable
            target = (chance(r, 2) ? DATA_READONLY : DATA_BASE + DATA_ALL) - random_below(r, bytes + 1);
        if (strstr(v->form->key, "maskmov"))
            target = DATA_BASE + 0x1000 + random_below(r, 0x1800); // which of two bad pages faults first is not defined
        if (!solve_operand(r, v, d, o, target))
            return false;
    }
    return true;
}

static void place_windows(struct random *r, struct vector *v, const struct decoded *d)
{
    bool first = true;
    for (unsigned k = 0; k < d->zydis.operand_count; k++) {
        const ZydisDecodedOperand *o = &d->operands[k];
        if (o->type != ZYDIS_OPERAND_TYPE_MEMORY || o->mem.type == ZYDIS_MEMOP_TYPE_AGEN)
            continue;
        uint64_t address = operand_address(v, d, o);
        bool vsib = o->mem.type == ZYDIS_MEMOP_TYPE_VSIB;
        unsigned size = vsib ? 1024 : o->size / 8 ? o->size / 8 : 1;
        unsigned area = with_avx512 ? 2688 : 832;
        if (d->zydis.mnemonic >= ZYDIS_MNEMONIC_XRSTOR && size < area && strncmp(v->form->key, "x", 1) == 0)
            size = area;
        if (first)
            window_set(v, 0, vsib ? address - 512 : address, size);
        first = false;
    }
    window_set(v, 1, v->in.gpr[RSP], 64);
    for (unsigned k = 0; k < 2; k++)
        random_bytes(r, v->window[k].bytes, v->window[k].size);
}

static bool addresses_harmless(const struct vector *v, const struct decoded *d)
{
    for (unsigned k = 0; k < d->zydis.operand_count; k++)
        if (d->operands[k].type == ZYDIS_OPERAND_TYPE_MEMORY && d->operands[k].mem.type != ZYDIS_MEMOP_TYPE_AGEN &&
            !harmless(operand_address(v, d, &d->operands[k])))
            return false;
    return true;
}

static bool generate_once(struct random *r, const struct form *f, struct vector *v)
{
    struct encoding e;
    struct decoded d;
    if (!encode_form(r, f, &e, &d))
        return false;
    v->form = f;
    v->is_64 = f->is_64;
    v->length = d.zydis.length;
    memset(v->bytes, 0xcc, sizeof(v->bytes));
    memcpy(v->bytes, e.bytes, v->length);
    v->window[0].size = v->window[1].size = 0;
    random_state(r, f->is_64, &v->in);
    if (f->is_evex && f->map >= 5 && !chance(r, 4))
        random_halves(r, &v->in);
    v->in.rip = CODE_BASE + 0x1000 + random_below(r, CODE_SIZE - 0x2000);
    if (chance(r, 32)) // across a page
        v->in.rip = CODE_BASE + 0x1000 * (1 + random_below(r, 14)) - random_below(r, v->length + 1u);
    v->in.gpr[RSP] = DATA_BASE + 0x1000 + random_below(r, 0x1800);
    if (!chance(r, 4))
        v->in.gpr[RSP] &= ~15ull;
    if (f->is_64 && chance(r, 100))
        v->in.gpr[RSP] = 0x8000000000000000ull >> random_below(r, 16);
    if (!place_operands(r, v, &d))
        return false;
    if (!decode_bytes(f->is_64, v->bytes, 15, &d)) // displacements may have changed
        return false;
    place_windows(r, v, &d);
    fix_special(r, v, &d);
    if (d.zydis.meta.category == ZYDIS_CATEGORY_UNCOND_BR || d.zydis.meta.category == ZYDIS_CATEGORY_COND_BR ||
        d.zydis.meta.category == ZYDIS_CATEGORY_CALL || d.zydis.meta.category == ZYDIS_CATEGORY_RET)
        fix_branch(r, v, &d);
    if (!decode_bytes(f->is_64, v->bytes, 15, &d) || !addresses_harmless(v, &d))
        return false;
    return mark_undefined(&d, v);
}

bool generate(struct random *r, const struct form *f, struct vector *v)
{
    for (unsigned attempt = 0; attempt < 12; attempt++)
        if (generate_once(r, f, v))
            return true;
    return false;
}
