// SPDX-License-Identifier: GPL-2.0-or-later
// Memory operands through the software TLB, and plain instructions copied with re-encoded operands.
#include "core/cpu/interpret/avx512.h"
#include "core/cpu/translate/compile.h"

// ---- Guest registers that live in the context ---------------------------------------------------------------------

static struct mem high_register(unsigned guest)
{
    return MEM_CONTEXT_AT(offsetof(struct context, high) + 8 * (guest - 13));
}

unsigned guest_to_host(struct compiler *c, unsigned guest, unsigned scratch)
{
    if (guest < 13)
        return guest;
    emit_load(&c->e, scratch, high_register(guest));
    return scratch;
}

void store_guest(struct compiler *c, unsigned guest, unsigned host)
{
    if (guest < 13) {
        if (guest != host)
            emit_mov_reg(&c->e, guest, host);
    } else {
        emit_store(&c->e, host, high_register(guest));
    }
}

// ---- Addresses ------------------------------------------------------------------------------------------------------

void emit_effective(struct compiler *c)
{
    const struct guest_insn *i = &c->i->insn;
    struct emitter *e = &c->e;
    unsigned size = decode_address_size(i);
    int64_t displacement = i->displacement;
    if (i->encoding == ENCODING_EVEX && i->displacement_size == 1)
        displacement *= c->i->fact.displacement_unit;
    if (i->rip_relative) {
        uint64_t address = next_address(c) + (uint64_t)displacement;
        emit_guest_address(e, HOST_A, size == 4 ? (uint32_t)address : address);
        return;
    }
    struct mem m = {i->base, i->index, i->scale, false, (int32_t)displacement};
    if (i->map == 0 && (i->opcode & 0xfc) == 0xa0) { // MOV with an absolute offset
        uint64_t offset = load_le(c->i->bytes + i->immediate_at, i->immediate_size);
        emit_mov_imm(e, HOST_A, offset);
        return;
    }
    if (m.base == NO_REG && m.index == NO_REG) {
        emit_mov_imm(e, HOST_A, size == 8 ? (uint64_t)(int64_t)m.disp : (uint32_t)m.disp);
        return;
    }
    if (m.base != NO_REG)
        m.base = guest_to_host(c, m.base, HOST_A);
    if (m.index != NO_REG)
        m.index = guest_to_host(c, m.index, HOST_T);
    if (size == 8 && m.index == NO_REG && m.disp == 0) {
        if (m.base != HOST_A)
            emit_mov_reg(e, HOST_A, m.base);
        return;
    }
    emit_op_mem(e, size == 8 ? EMIT_W : 0, 0x8d, HOST_A, m);
}

static unsigned default_segment(const struct guest_insn *i)
{
    if (i->segment != NO_REG)
        return i->segment;
    return i->memory && (i->base == RSP || i->base == RBP) ? SS : DS;
}

void emit_address(struct compiler *c)
{
    emit_effective(c);
    unsigned segment = default_segment(&c->i->insn);
    if (segment != FS && segment != GS)
        return; // flat
    unsigned flags = c->bits == 64 ? EMIT_W : 0;
    emit_op_mem(&c->e, flags, 0x03, HOST_A, segment == FS ? MEM_CONTEXT(fs_base) : MEM_CONTEXT(gs_base));
}

// ---- The inline check ---------------------------------------------------------------------------------------------

struct mem check_entry(struct compiler *c, unsigned use, size_t member)
{
    unsigned table = fast_table(fast_kind_of(c), (use & USE_WRITE) != 0);
    return (struct mem){
        HOST_T, NO_REG, 0, true,
        (int32_t)(offsetof(struct context, tlb) + sizeof(struct fast_entry) * FAST_SIZE * table + member)};
}

struct stub *check_inline(struct compiler *c, unsigned size, unsigned use)
{
    struct emitter *e = &c->e;
    emit_mov_reg(e, HOST_T, HOST_A);
    emit_op_reg(e, EMIT_W, 0xc1, 5, HOST_T); // shr
    emit8(e, PAGE_SHIFT - 4);
    emit_alu_imm(e, 0, 4, HOST_T, (FAST_SIZE - 1) << 4);
    emit_op_mem(e, EMIT_W, 0x33, HOST_A, check_entry(c, use, offsetof(struct fast_entry, tag))); // xor
    emit_op_reg(e, EMIT_W, 0x81, 7, HOST_A);                                                     // cmp
    emit32(e, (uint32_t)(PAGE_SIZE - size));
    struct stub *s = stub_new(c, STUB_SLOW, emit_jcc_forward(e, 7));
    s->size = (uint16_t)size;
    s->use = (uint8_t)use;
    return s;
}

void check_begin(struct compiler *c, unsigned size, unsigned use)
{
    struct emitter *e = &c->e;
    struct stub *s = check_inline(c, size, use);
    emit_op_mem(e, EMIT_W, 0x03, HOST_A, check_entry(c, use, offsetof(struct fast_entry, host)));
    s->guest = c->i->offset;
    s->length = c->i->insn.length;
    s->core = e->at;
}

// The address of the current instruction's memory operand, if it is known now; MOVES: it does with the block.
static bool constant_address(const struct compiler *c, uint64_t *address, bool *moves)
{
    const struct guest_insn *i = &c->i->insn;
    unsigned segment = default_segment(i);
    bool scaled = i->encoding == ENCODING_EVEX && i->displacement_size == 1;
    if (segment == FS || segment == GS || !i->memory || i->base != NO_REG || i->index != NO_REG ||
        decode_address_size(i) * 8 != c->bits || scaled)
        return false;
    *moves = i->rip_relative;
    *address = (i->rip_relative ? next_address(c) : 0) + (uint64_t)i->displacement;
    if (c->bits != 64)
        *address = (uint32_t)*address;
    return true;
}

// Of the TLB's entry for ADDRESS, or where that lies when the block moves.
static void emit_entry_op(struct compiler *c, unsigned opcode, unsigned use, uint64_t address, size_t member,
                          bool moves)
{
    struct emitter *e = &c->e;
    unsigned table = fast_table(fast_kind_of(c), (use & USE_WRITE) != 0),
             slot = address >> PAGE_SHIFT & (FAST_SIZE - 1);
    size_t entry = table * FAST_SIZE + slot;
    emit_op_mem(e, EMIT_W, opcode, HOST_A,
                MEM_CONTEXT_AT(offsetof(struct context, tlb) + sizeof(struct fast_entry) * entry + member));
    e->at -= 4;
    if (moves)
        reloc_note(e, RELOC_TLB);
    e->at += 4;
}

// Where the address is known, so is its entry: no need to look for it.
static struct stub *check_constant(struct compiler *c, uint64_t address, bool moves, unsigned use)
{
    struct emitter *e = &c->e;
    uint64_t page = address & PAGE_MASK;
    if (moves)
        emit_guest_address(e, HOST_A, page);
    else
        emit_mov_imm(e, HOST_A, page);
    emit_entry_op(c, 0x3b, use, address, offsetof(struct fast_entry, tag), moves); // cmp
    struct stub *s = stub_new(c, STUB_SLOW, emit_jcc_forward(e, 5));
    emit_entry_op(c, 0x8b, use, address, offsetof(struct fast_entry, host), moves); // mov
    s->constant = true;
    s->moves = moves;
    s->target = address;
    return s;
}

void check_operand(struct compiler *c, unsigned size, unsigned use, struct place *place)
{
    uint64_t address;
    bool moves;
    *place = (struct place){HOST_A, 0};
    flags_clobber(c);
    if (!constant_address(c, &address, &moves) || (address & ~PAGE_MASK) + size > PAGE_SIZE) {
        emit_address(c);
        check_begin(c, size, use);
        return;
    }
    struct stub *s = check_constant(c, address, moves, use);
    s->size = (uint16_t)size;
    s->use = (uint8_t)(use | USE_PAGE);
    s->guest = c->i->offset;
    s->length = c->i->insn.length;
    s->core = c->e.at;
    place->disp = (int32_t)(address & ~PAGE_MASK);
}

void check_end(struct compiler *c, bool boundary)
{
    struct stub *s = &c->stubs[c->stub_count - 1];
    s->core_end = c->e.at;
    s->boundary_after = boundary;
    s->flags_after = c->host_valid ? FLAGS_HOST : FLAGS_SAVED;
}

// ---- Copies ---------------------------------------------------------------------------------------------------------

// The registers that the copy names: numbers as in the host.
struct operands {
    unsigned reg, rm, vvvv, opcode; // rm: base of the memory operand, or a register
    int32_t disp;                   // of the memory operand
};

static void copy_legacy(struct compiler *c, const struct operands *o)
{
    const struct guest_insn *i = &c->i->insn;
    struct emitter *e = &c->e;
    unsigned opcode = i->opcode, reg = o->reg, rm = o->rm;
    bool modrm = i->has_modrm, opcode_register = c->i->fact.opcode_use != 0;
    unsigned immediate = i->immediate_size;
    if (i->map == 0 && (opcode & 0xfc) == 0xa0) { // MOV AL/eAX with an absolute offset
        static const uint8_t forms[4] = {0x8a, 0x8b, 0x88, 0x89};
        opcode = forms[opcode & 3];
        modrm = true;
        reg = RAX;
        immediate = 0;
    } else if (i->map == 0 && i->bits != 64 && (opcode & 0xf0) == 0x40) { // INC, DEC: prefixes in 64-bit code
        modrm = true;
        rm = o->opcode;
        reg = opcode >> 3 & 1;
        opcode = 0xff;
        opcode_register = false;
    } else if (i->map == 0 && opcode == 0x82) {
        opcode = 0x80;
    }
    if (i->opsize)
        emit8(e, 0x66);
    if (i->rep)
        emit8(e, i->rep);
    if (i->lock)
        emit8(e, 0xf0);
    unsigned rex = i->w << 3 | (i->rex ? 0x40 : 0);
    if (modrm)
        rex |= (reg >> 3 & 1) << 2 | (rm >> 3 & 1);
    if (opcode_register)
        rex |= o->opcode >> 3 & 1;
    if (rex)
        emit8(e, 0x40 | rex);
    if (i->map)
        emit8(e, 0x0f);
    if (i->map >= 2)
        emit8(e, i->map == 2 ? 0x38 : 0x3a);
    emit8(e, opcode_register ? (opcode & ~7u) | (o->opcode & 7) : opcode);
    if (modrm && (i->memory || c->i->fact.memory_use))
        emit_modrm_mem(e, reg, MEM_BASE((uint8_t)rm, o->disp));
    else if (modrm)
        emit8(e, 0xc0 | (reg & 7) << 3 | (rm & 7));
    emit_bytes(e, c->i->bytes + i->immediate_at, immediate);
}

// The register in the immediate of VPBLENDVB and its kin has three bits outside 64-bit code.
static bool short_register_immediate(const struct compiler *c)
{
    const struct guest_insn *i = &c->i->insn;
    return i->encoding == ENCODING_VEX && i->map == 3 && i->opcode >= 0x4a && i->opcode <= 0x4c && !(c->mode & MODE_64);
}

static void copy_vex(struct compiler *c, const struct operands *o)
{
    const struct guest_insn *i = &c->i->insn;
    struct emitter *e = &c->e;
    unsigned last = i->opcode_at + 1; // after C4 or C5
    unsigned p = i->payload[c->i->bytes[i->opcode_at] == 0xc5 ? 0 : 1];
    (void)last;
    emit8(e, 0xc4);
    emit8(e, (o->reg & 8 ? 0 : 0x80) | 0x40 | (o->rm & 8 ? 0 : 0x20) | i->map);
    emit8(e, i->w << 7 | (~o->vvvv & 15) << 3 | (p & 7));
    emit8(e, i->opcode);
    if (i->memory)
        emit_modrm_mem(e, o->reg, MEM_BASE((uint8_t)o->rm, o->disp));
    else if (i->has_modrm)
        emit8(e, 0xc0 | (o->reg & 7) << 3 | (o->rm & 7));
    if (short_register_immediate(c))
        emit8(e, c->i->bytes[i->immediate_at] & 0x7f);
    else
        emit_bytes(e, c->i->bytes + i->immediate_at, i->immediate_size);
}

static void copy_evex(struct compiler *c, const struct operands *o)
{
    const struct guest_insn *i = &c->i->insn;
    struct emitter *e = &c->e;
    // R' and the map stay; X: extends a register, none here for memory. Other code than 64-bit has eight registers.
    bool code64 = c->mode & MODE_64;
    unsigned p0 = i->payload[0] & 0x5f, p1 = i->payload[1] & ~0x78u;
    if (i->memory || !code64)
        p0 |= 0x40;
    if (!code64)
        p0 |= 0x10;
    if (!code64 && (c->i->fact.reg_use || c->i->fact.rm_use || avx512_ignores_w(c->i->fact.mnemonic)))
        p1 &= 0x7f; // no general registers of 64 bits either
    p0 |= (o->reg & 8 ? 0 : 0x80) | (o->rm & 8 ? 0 : 0x20);
    emit8(e, 0x62);
    emit8(e, p0);
    emit8(e, p1 | (~o->vvvv & 15) << 3);
    emit8(e, i->payload[2]);
    emit8(e, i->opcode);
    if (i->memory)
        emit_modrm_long(e, o->reg, o->rm, o->disp);
    else
        emit8(e, 0xc0 | (o->reg & 7) << 3 | (o->rm & 7));
    emit_bytes(e, c->i->bytes + i->immediate_at, i->immediate_size);
}

static void copy_insn(struct compiler *c, const struct operands *o)
{
    switch (c->i->insn.encoding) {
    case ENCODING_LEGACY:
        copy_legacy(c, o);
        break;
    case ENCODING_VEX:
        copy_vex(c, o);
        break;
    case ENCODING_EVEX:
        copy_evex(c, o);
        break;
    }
}

// Guest R13-R15 named by one field: a temporary stands in for it, loaded before and stored after the copy.
struct stand_in {
    uint8_t guest[3], host[3];
    uint8_t use[3];
    unsigned count;
};

static unsigned stand_in(struct stand_in *s, unsigned guest, unsigned use, const uint8_t *free_hosts)
{
    if (!use || guest < 13 || guest == NO_REG)
        return guest;
    for (unsigned n = 0; n < s->count; n++)
        if (s->guest[n] == guest) {
            s->use[n] |= use;
            return s->host[n];
        }
    unsigned n = s->count++;
    s->guest[n] = guest;
    s->host[n] = free_hosts[n];
    s->use[n] = use;
    return s->host[n];
}

// AT: the host's memory operand, or NULL.
static void translate_operands(struct compiler *c, const struct place *at)
{
    static const uint8_t beside_address[3] = {HOST_T, HOST_D}, usual[3] = {HOST_T, HOST_A, HOST_D};
    const uint8_t *hosts = at && at->base == HOST_A ? beside_address : usual;
    const struct guest_insn *i = &c->i->insn;
    const struct fact *f = &c->i->fact;
    struct stand_in s = {.count = 0};
    struct operands o = {.reg = i->reg, .rm = i->rm, .vvvv = i->vvvv};
    o.reg = stand_in(&s, i->reg, f->reg_use, hosts);
    o.rm = at ? at->base : stand_in(&s, i->rm, f->rm_use, hosts);
    o.disp = at ? at->disp : 0;
    o.vvvv = stand_in(&s, i->vvvv, f->vvvv_use, hosts);
    o.opcode = stand_in(&s, (i->opcode & 7) | (i->rex & 1) << 3, f->opcode_use, hosts);
    for (unsigned n = 0; n < s.count; n++)
        if (s.use[n] & USE_READ)
            emit_load(&c->e, s.host[n], high_register(s.guest[n]));
    copy_insn(c, &o);
    for (unsigned n = 0; n < s.count; n++)
        if (s.use[n] & USE_WRITE)
            emit_store(&c->e, s.host[n], high_register(s.guest[n]));
}

// AH..BH cannot be named together with r15: RSI lends its place for one instruction.
static void translate_high_byte(struct compiler *c, const struct place *at)
{
    struct operands o = {.reg = c->i->insn.reg, .rm = RSI};
    if (at->base != HOST_A || at->disp)
        emit_op_mem(&c->e, EMIT_W, 0x8d, HOST_A, MEM_BASE(at->base, at->disp));
    emit_op_reg(&c->e, EMIT_W, 0x87, HOST_A, RSI);
    copy_insn(c, &o);
    emit_op_reg(&c->e, EMIT_W, 0x87, HOST_A, RSI);
}

static bool names_high_register(const struct trace_insn *i)
{
    const struct fact *f = &i->fact;
    return (f->reg_use && i->insn.reg >= 13) || (f->rm_use && i->insn.rm >= 13) ||
           (f->vvvv_use && i->insn.vvvv >= 13) ||
           (f->opcode_use && ((i->insn.opcode & 7) | (i->insn.rex & 1) << 3) >= 13);
}

// Native flags in and out of the copy.
static void flags_before_copy(struct compiler *c)
{
    const struct fact *f = &c->i->fact;
    if (f->flags_read || (f->flags_touched && (c->i->live_after & ~f->flags_set)))
        flags_need_host(c);
}

// BT, BTS, BTR, BTC of a bit string in memory: the register's high bits move the address, by whole operands.
static bool is_bit_string(const struct guest_insn *i)
{
    return i->encoding == ENCODING_LEGACY && i->map == 1 && (i->opcode & 0xe7) == 0xa3;
}

// HOST_A moves to the operand, HOST_D undoes it: the copied instruction moves by itself.
static void move_to_bit(struct compiler *c)
{
    struct emitter *e = &c->e;
    const struct guest_insn *i = &c->i->insn;
    unsigned size = decode_operand_size(i), reg = guest_to_host(c, i->reg, HOST_T);
    if (size == 2)
        emit_op_reg(e, EMIT_W, 0x0fbf, HOST_T, reg); // movsx
    else if (size == 4)
        emit_op_reg(e, EMIT_W, 0x63, HOST_T, reg); // movsxd
    else if (reg != HOST_T)
        emit_mov_reg(e, HOST_T, reg);
    emit_op_reg(e, EMIT_W, 0xc1, 7, HOST_T); // sar 3
    emit8(e, 3);
    emit_alu_imm(e, EMIT_W, 4, HOST_T, -(int)size);
    emit_op_mem(e, c->bits == 64 ? EMIT_W : 0, 0x8d, HOST_A, (struct mem){HOST_A, HOST_T, 0, false, 0});
    emit_mov_reg(e, HOST_D, HOST_T);
    emit_op_reg(e, EMIT_W, 0xf7, 3, HOST_D); // neg
}

// XCHG with memory locks without the prefix.
static bool is_locked(const struct guest_insn *i)
{
    return i->lock || (i->encoding == ENCODING_LEGACY && i->map == 0 && (i->opcode & 0xfe) == 0x86);
}

// Where all of the operand is plain memory, it does not matter which of its elements the mask lets through.
static void translate_masked(struct compiler *c)
{
    const struct fact *f = &c->i->fact;
    struct place at = {HOST_A, 0};
    flags_clobber(c);
    uint8_t *again = c->e.at;
    emit_address(c);
    struct stub *stub = check_inline(c, f->memory_size, f->memory_use);
    stub->kind = STUB_MASKED;
    stub->core = again;
    stub->guest = c->i->offset;
    stub->target = insn_address(c);
    emit_op_mem(&c->e, EMIT_W, 0x03, HOST_A, check_entry(c, f->memory_use, offsetof(struct fast_entry, host)));
    translate_operands(c, &at);
}

void translate_plain(struct compiler *c)
{
    const struct guest_insn *i = &c->i->insn;
    const struct fact *f = &c->i->fact;
    if (f->masked) {
        translate_masked(c);
        return;
    }
    bool memory = f->memory_use != 0;
    if (memory) {
        struct place at = {HOST_A, 0};
        bool shared = share_access(c, &at);
        if (!shared) {
            bool x87 = f->x87 || f->mnemonic == ZYDIS_MNEMONIC_VCVTPS2PH;
            unsigned use = f->memory_use | (x87 ? USE_X87 : 0) | (is_locked(i) ? USE_LOCKED : 0);
            if (is_bit_string(i)) {
                flags_clobber(c);
                emit_address(c);
                move_to_bit(c);
                check_begin(c, f->memory_size, use);
                emit_op_mem(&c->e, EMIT_W, 0x8d, HOST_A, (struct mem){HOST_A, HOST_D, 0, false, 0});
            } else {
                check_operand(c, f->memory_size, use, &at);
            }
        }
        // The core begins after the flags are back: both ways into it have lost them.
        flags_before_copy(c);
        bool high_byte = f->reg_byte && !i->rex && i->reg >= 4 && i->reg < 8;
        if (high_byte)
            translate_high_byte(c, &at);
        else
            translate_operands(c, &at);
        if (f->flags_touched)
            flags_changed(c);
        if (!shared)
            check_end(c, true);
        return;
    }
    flags_before_copy(c);
    if (!names_high_register(&c->insns[c->i - c->insns]) &&
        (c->bits == 64 || (i->encoding == ENCODING_LEGACY && (i->opcode_at == 0 || i->map))) &&
        !short_register_immediate(c) &&
        !(i->bits != 64 && i->map == 0 && ((i->opcode & 0xf0) == 0x40 || i->opcode == 0x82)))
        emit_bytes(&c->e, c->i->bytes, i->length);
    else
        translate_operands(c, NULL);
    if (f->flags_touched)
        flags_changed(c);
}

void translate_lea(struct compiler *c)
{
    const struct guest_insn *i = &c->i->insn;
    struct emitter *e = &c->e;
    unsigned flags = i->w ? EMIT_W : decode_operand_size(i) == 2 ? EMIT_66 : 0;
    bool high = i->reg >= 13 || (i->base != NO_REG && i->base >= 13) || (i->index != NO_REG && i->index >= 13);
    if (c->bits == 64 && !high && !i->rip_relative) {
        emit_bytes(e, c->i->bytes, i->length);
        return;
    }
    if (i->rip_relative && i->w && !i->addrsize) {
        uint64_t address = next_address(c) + (uint64_t)i->displacement;
        unsigned to = i->reg < 13 ? i->reg : HOST_A;
        emit_guest_address(e, to, address);
        if (i->reg >= 13)
            store_guest(c, i->reg, HOST_A);
        return;
    }
    emit_effective(c);
    if (i->reg < 13) {
        emit_op_reg(e, flags, 0x8b, i->reg, HOST_A);
        return;
    }
    if (flags & EMIT_66)
        emit_load(e, HOST_T, high_register(i->reg));
    emit_op_reg(e, flags, 0x8b, HOST_T, HOST_A);
    store_guest(c, i->reg, HOST_T);
}
