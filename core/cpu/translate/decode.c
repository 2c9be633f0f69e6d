// SPDX-License-Identifier: GPL-2.0-or-later
// Instruction fields: prefixes, REX, VEX, EVEX, opcode, ModRM, SIB, displacement, immediate.
#include "core/cpu/translate/decode.h"

#include "core/cpu/vcpu.h"

// What follows an opcode. '.' nothing, 'm' ModRM, 'b' imm8, 'w' imm16, 'z' imm16/32, 'v' imm16/32/64, 'r' ModRM + imm8,
// 'i' ModRM + imm16/32, 'o' moffs, 'e' imm16 + imm8, 'f' far pointer, 'j' rel16/32, 'g' group 3 (imm8 for /0, /1),
// 'G' group 3 (imm16/32), 'c' control register (ModRM, always registers), 'x' invalid, 'p' prefix or escape
// clang-format off
static const char one_byte[] =
    "mmmmbz..mmmmbz.p" "mmmmbz..mmmmbz.." "mmmmbzp.mmmmbzp." "mmmmbzp.mmmmbzp."
    "................" "................" "..mmppppzibr...." "bbbbbbbbbbbbbbbb"
    "rirrmmmmmmmmmmmm" "..........f....." "oooo....bz......" "bbbbbbbbvvvvvvvv"
    "rrw.mmrie.w..b.." "mmmmbb..mmmmmmmm" "bbbbbbbbjjfb...." "p.pp..gG......mm";
static const char two_byte[] =
    "mmmmx.....x.xm.r" "mmmmmmmmmmmmmmmm" "ccccxxxxmmmmmmmm" "........pxpxxxxx"
    "mmmmmmmmmmmmmmmm" "mmmmmmmmmmmmmmmm" "mmmmmmmmmmmmmmmm" "rrrrmmm.mmmmmmmm"
    "jjjjjjjjjjjjjjjj" "mmmmmmmmmmmmmmmm" "...mrmxx...mrmmm" "mmmmmmmmmmrmmmmm"
    "mmrmrrrm........" "mmmmmmmmmmmmmmmm" "mmmmmmmmmmmmmmmm" "mmmmmmmmmmmmmmmm";
// clang-format on

// One-byte opcodes that do not exist in 64-bit mode.
static bool invalid_in_64(uint8_t opcode)
{
    switch (opcode) {
    case 0x06:
    case 0x07:
    case 0x0e:
    case 0x16:
    case 0x17:
    case 0x1e:
    case 0x1f:
    case 0x27:
    case 0x2f:
    case 0x37:
    case 0x3f:
    case 0x60:
    case 0x61:
    case 0x62:
    case 0x82:
    case 0x9a:
    case 0xc4:
    case 0xc5:
    case 0xce:
    case 0xd4:
    case 0xd5:
    case 0xd6:
    case 0xea:
        return true;
    }
    return false;
}

struct cursor {
    const uint8_t *bytes;
    unsigned at, available;
    bool truncated;
};

static uint8_t next_byte(struct cursor *c)
{
    if (c->at >= c->available) {
        c->truncated = true;
        return 0;
    }
    return c->bytes[c->at++];
}

static int64_t next_signed(struct cursor *c, unsigned size)
{
    if (c->at + size > c->available) {
        c->truncated = true;
        return 0;
    }
    uint64_t v = 0;
    for (unsigned i = 0; i < size; i++)
        v |= (uint64_t)c->bytes[c->at + i] << 8 * i;
    c->at += size;
    return size == 0 || size == 8 ? (int64_t)v : (int64_t)(v << (64 - 8 * size)) >> (64 - 8 * size);
}

// Legacy prefixes and REX. Returns the first byte after them.
static uint8_t decode_prefixes(struct guest_insn *i, struct cursor *c)
{
    for (;;) {
        uint8_t b = next_byte(c);
        if (c->truncated)
            return 0;
        switch (b) {
        case 0x26:
            i->segment = ES;
            break;
        case 0x2e:
            i->segment = CS;
            break;
        case 0x36:
            i->segment = SS;
            break;
        case 0x3e:
            i->segment = DS;
            break;
        case 0x64:
            i->segment = FS;
            break;
        case 0x65:
            i->segment = GS;
            break;
        case 0x66:
            i->opsize = true;
            break;
        case 0x67:
            i->addrsize = true;
            break;
        case 0xf0:
            i->lock = true;
            break;
        case 0xf2:
        case 0xf3:
            i->rep = b;
            break;
        default:
            if (i->bits == 64 && (b & 0xf0) == 0x40) {
                i->rex = b;
                continue;
            }
            return b;
        }
        i->rex = 0; // a REX that does not come last is ignored
    }
}

static const uint8_t implied_prefix[4] = {0, 0x66, 0xf3, 0xf2};

static void set_implied(struct guest_insn *i, unsigned pp)
{
    i->opsize = pp == 1;
    i->rep = pp >= 2 ? implied_prefix[pp] : 0;
}

// REX-like extension bits are kept as a REX byte in *EXTENSION.
static bool decode_vex(struct guest_insn *i, struct cursor *c, uint8_t first, unsigned *extension)
{
    if (i->rex || i->opsize || i->rep || i->lock)
        return false;
    i->encoding = ENCODING_VEX;
    i->payload[0] = next_byte(c);
    unsigned p = i->payload[0];
    if (first == 0xc5) {
        i->map = 1;
        *extension = p & 0x80 ? 0 : 4;
    } else {
        i->map = p & 31;
        *extension = (~p >> 5) & 7;
        i->payload[1] = p = next_byte(c);
        i->w = p >> 7;
    }
    i->vvvv = (~p >> 3) & 15;
    i->vector_length = p >> 2 & 1;
    set_implied(i, p & 3);
    if (i->bits != 64) {
        *extension = 0;
        i->vvvv &= 7;
    }
    i->opcode = next_byte(c);
    return i->map >= 1 && i->map <= 3;
}

static bool decode_evex(struct guest_insn *i, struct cursor *c, unsigned *extension)
{
    if (i->rex || i->opsize || i->rep || i->lock)
        return false;
    i->encoding = ENCODING_EVEX;
    for (unsigned n = 0; n < 3; n++)
        i->payload[n] = next_byte(c);
    unsigned p0 = i->payload[0], p1 = i->payload[1], p2 = i->payload[2];
    i->map = p0 & 7;
    *extension = (~p0 >> 5) & 7;
    i->w = p1 >> 7;
    i->vvvv = ((~p1 >> 3) & 15) | (p2 & 8 ? 0 : 16);
    set_implied(i, p1 & 3);
    i->vector_length = p2 >> 5 & 3;
    if (i->bits != 64) {
        *extension = 0;
        i->vvvv &= 7;
    }
    i->opcode = next_byte(c);
    return !(p0 & 8) && (p1 & 4) && (i->map == 1 || i->map == 2 || i->map == 3 || i->map == 5 || i->map == 6);
}

static void decode_memory16(struct guest_insn *i, struct cursor *c)
{
    static const uint8_t bases[8] = {RBX, RBX, RBP, RBP, RSI, RDI, RBP, RBX};
    static const uint8_t indexes[8] = {RSI, RDI, RSI, RDI, NO_REG, NO_REG, NO_REG, NO_REG};
    unsigned rm = i->modrm & 7;
    i->base = bases[rm];
    i->index = indexes[rm];
    i->displacement_size = i->mod == 1 ? 1 : i->mod == 2 ? 2 : 0;
    if (i->mod == 0 && rm == 6) {
        i->base = NO_REG;
        i->displacement_size = 2;
    }
    i->displacement = next_signed(c, i->displacement_size);
}

static void decode_memory(struct guest_insn *i, struct cursor *c, unsigned extension)
{
    unsigned rm = i->modrm & 7;
    i->displacement_size = i->mod == 1 ? 1 : i->mod == 2 ? 4 : 0;
    if (rm == 4) {
        i->has_sib = true;
        i->sib = next_byte(c);
        i->scale = i->sib >> 6;
        i->index = (i->sib >> 3 & 7) | (extension & 2) << 2;
        if (i->index == 4)
            i->index = NO_REG;
        i->base = (i->sib & 7) | (extension & 1) << 3;
        if ((i->sib & 7) == 5 && i->mod == 0) {
            i->base = NO_REG;
            i->displacement_size = 4;
        }
    } else if (rm == 5 && i->mod == 0) {
        i->displacement_size = 4;
        i->rip_relative = i->bits == 64;
    } else {
        i->base = rm | (extension & 1) << 3;
    }
    i->displacement = next_signed(c, i->displacement_size);
}

unsigned decode_operand_size(const struct guest_insn *i)
{
    if (i->w)
        return 8;
    if (i->bits == 16)
        return i->opsize ? 4 : 2;
    return i->opsize ? 2 : 4;
}

unsigned decode_address_size(const struct guest_insn *i)
{
    if (i->bits == 64)
        return i->addrsize ? 4 : 8;
    return (i->bits == 32) != i->addrsize ? 4 : 2;
}

static void decode_modrm(struct guest_insn *i, struct cursor *c, unsigned extension, bool registers_only)
{
    i->modrm_at = c->at;
    i->has_modrm = true;
    i->modrm = next_byte(c);
    i->mod = registers_only ? 3 : i->modrm >> 6;
    i->reg = (i->modrm >> 3 & 7) | (extension & 4) << 1;
    i->rm = (i->modrm & 7) | (extension & 1) << 3;
    if (i->mod == 3)
        return;
    i->memory = true;
    if (decode_address_size(i) == 2)
        decode_memory16(i, c);
    else
        decode_memory(i, c, extension);
}

// Bytes of immediates after the operands for opcode kind KIND.
static unsigned immediate_bytes(const struct guest_insn *i, char kind)
{
    unsigned osize = decode_operand_size(i), z = osize == 2 ? 2 : 4;
    switch (kind) {
    case 'b':
    case 'r':
        return 1;
    case 'w':
        return 2;
    case 'z':
    case 'i':
        return z;
    case 'v':
        return osize;
    case 'o':
        return decode_address_size(i);
    case 'e':
        return 3;
    case 'f':
        return z + 2;
    case 'j':
        return i->bits == 64 ? 4 : z;
    case 'g':
        return (i->modrm >> 3 & 7) < 2 ? 1 : 0;
    case 'G':
        return (i->modrm >> 3 & 7) < 2 ? z : 0;
    }
    return 0;
}

static char vector_kind(const struct guest_insn *i)
{
    if (i->map == 3)
        return 'r';
    if (i->map != 1)
        return 'm';
    if (i->opcode == 0x77)
        return i->encoding == ENCODING_VEX ? '.' : 'm';
    return (i->opcode >= 0x70 && i->opcode <= 0x73) || i->opcode == 0xc2 || (i->opcode >= 0xc4 && i->opcode <= 0xc6)
               ? 'r'
               : 'm';
}

// The opcode and its map; returns its kind.
static char decode_opcode(struct guest_insn *i, struct cursor *c, uint8_t b, unsigned *extension)
{
    i->opcode_at = c->at - 1;
    uint8_t ahead = c->at < c->available ? c->bytes[c->at] : 0;
    bool wide = i->bits == 64 || (ahead & 0xc0) == 0xc0;
    if ((b == 0xc4 || b == 0xc5 || b == 0x62) && c->at >= c->available)
        c->truncated = true;
    if ((b == 0xc4 || b == 0xc5) && wide)
        return decode_vex(i, c, b, extension) ? vector_kind(i) : 'x';
    if (b == 0x62 && wide)
        return decode_evex(i, c, extension) ? vector_kind(i) : 'x';
    *extension = i->rex & 7;
    i->w = i->rex >> 3 & 1;
    if (b != 0x0f) {
        i->opcode = b;
        char kind = one_byte[b];
        if (i->bits == 64 && invalid_in_64(b))
            return 'x';
        if (b == 0x62)
            kind = 'm';
        return kind;
    }
    b = next_byte(c);
    i->map = 1;
    if (b == 0x38 || b == 0x3a) {
        i->map = b == 0x38 ? 2 : 3;
        b = next_byte(c);
    }
    i->opcode_at = c->at - 1;
    i->opcode = b;
    if (i->map == 1 && b == 0x78 && (i->opsize || i->rep))
        return 'x'; // SSE4A
    return i->map == 2 ? 'm' : i->map == 3 ? 'r' : two_byte[b];
}

enum decode_result decode_fields(struct guest_insn *i, const uint8_t *bytes, unsigned available, unsigned bits)
{
    struct cursor c = {bytes, 0, MIN(available, 15u), false};
    unsigned extension = 0;
    *i = (struct guest_insn){.bits = bits, .segment = NO_REG, .base = NO_REG, .index = NO_REG, .vvvv = NO_REG};
    uint8_t b = decode_prefixes(i, &c);
    char kind = c.truncated ? '.' : decode_opcode(i, &c, b, &extension);
    if (!c.truncated && (kind == 'x' || kind == 'p'))
        return DECODE_INVALID;
    if (kind == 'm' || kind == 'r' || kind == 'i' || kind == 'c' || kind == 'g' || kind == 'G')
        decode_modrm(i, &c, extension, kind == 'c');
    i->immediate_size = immediate_bytes(i, kind);
    i->immediate_at = c.at;
    if (i->immediate_size <= 4 && i->immediate_size != 3)
        i->immediate = next_signed(&c, i->immediate_size);
    else if (i->immediate_size == 8)
        i->immediate = next_signed(&c, 8);
    else
        next_signed(&c, i->immediate_size);
    if (c.truncated)
        return available >= 15 ? DECODE_INVALID : DECODE_TRUNCATED;
    i->length = c.at;
    return DECODE_OK;
}
