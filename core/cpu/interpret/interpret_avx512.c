// SPDX-License-Identifier: GPL-2.0-or-later
// AVX-512 (SDM vol. 2, 2.7): nothing of it is computed here. An engine whose host has it runs each instruction on the
// host's processor, registers only; memory is ours: operands go through a buffer, element by element where a mask
// decides which of them exist. Gathers and scatters are done here altogether.
#include "core/cpu/interpret/avx512.h"
#include "core/cpu/interpret/flags.h"
#include "core/cpu/interpret/vector.h"
#include "core/cpu/model.h"

// ---- Registers ------------------------------------------------------------------------------------------------------

// Makes a component's bytes count.
static void component_use(struct vcpu *v, uint64_t component, void *bytes, size_t size)
{
    if (v->avx512.xstate_bv & component)
        return;
    memset(bytes, 0, size);
    v->avx512.xstate_bv |= component;
}

void avx512_use(struct vcpu *v, uint64_t components)
{
    if (components & XCR0_OPMASK)
        component_use(v, XCR0_OPMASK, v->avx512.opmask, sizeof(v->avx512.opmask));
    if (components & XCR0_ZMMH)
        component_use(v, XCR0_ZMMH, v->avx512.zmmh, sizeof(v->avx512.zmmh));
    if (components & XCR0_ZMM16)
        component_use(v, XCR0_ZMM16, v->avx512.zmm16, sizeof(v->avx512.zmm16));
}

static uint64_t opmask_read(const struct vcpu *v, unsigned n)
{
    return v->avx512.xstate_bv & XCR0_OPMASK ? v->avx512.opmask[n & 7] : 0;
}

static void opmask_write(struct vcpu *v, unsigned n, uint64_t mask)
{
    avx512_use(v, XCR0_OPMASK);
    v->avx512.opmask[n & 7] = mask;
}

static void zmm_read(const struct vcpu *v, unsigned n, uint8_t x[64])
{
    memset(x, 0, 64);
    if (n >= 16) {
        if (v->avx512.xstate_bv & XCR0_ZMM16)
            memcpy(x, v->avx512.zmm16[n - 16], 64);
        return;
    }
    memcpy(x, &v->xsave.xmm[n], 16);
    memcpy(x + 16, &v->xsave.ymmh[n], 16);
    if (v->avx512.xstate_bv & XCR0_ZMMH)
        memcpy(x + 32, v->avx512.zmmh[n], 32);
}

static void zmm_write(struct vcpu *v, unsigned n, const uint8_t x[64])
{
    if (n >= 16) {
        avx512_use(v, XCR0_ZMM16);
        memcpy(v->avx512.zmm16[n - 16], x, 64);
        return;
    }
    avx512_use(v, XCR0_ZMMH);
    memcpy(&v->xsave.xmm[n], x, 16);
    memcpy(&v->xsave.ymmh[n], x + 16, 16);
    memcpy(v->avx512.zmmh[n], x + 32, 32);
}

// ---- Forms: what a handler must know, in the place of the immediates ------------------------------------------------

enum memory_kind {
    MEMORY_NONE,
    MEMORY_WHOLE,     // all of it, whatever a mask says
    MEMORY_ELEMENTS,  // those that the mask lets through
    MEMORY_PROBED,    // the same, but all of it must be there
    MEMORY_BROADCAST, // one piece of COUNT elements for all: those that any mask bit needs
    MEMORY_DENSE,     // compress, expand: as many elements as the mask has bits
};

struct avx512_form {
    uint8_t code[7], length; // with RCX as the address, and RAX for the general register
    uint8_t kind;            // enum memory_kind; gathers: bytes of one index
    uint8_t size, element, count;
    uint8_t mask;         // opmask register
    uint8_t masked_count; // bits of the mask that count
    bool reads : 1, writes : 1, aligned : 1;
    bool exempt : 1; // from the alignment check that small operands have
    bool gpr_in : 1, gpr_out : 1, gpr_is_reg : 1, flags : 1;
    uint8_t index; // vector register
};
_Static_assert(sizeof(struct avx512_form) == 2 * sizeof(uint64_t), "imm and imm2");

static struct avx512_form form_of(const struct insn *i)
{
    struct avx512_form f;
    memcpy(&f, &i->imm, sizeof f);
    return f;
}

static void put_code(struct avx512_form *f, uint8_t byte)
{
    f->code[f->length++] = byte;
}

// The instruction with its memory operand at [RCX] and its general register, if any, RAX.
static void encode_evex(const ZydisDecodedInstruction *z, bool code64, bool memory, bool reg_gpr, bool rm_gpr,
                        struct avx512_form *f)
{
    const ZydisDecodedInstructionRawEvex *e = &z->raw.evex;
    bool r = e->R || !code64 || reg_gpr, r2 = e->R2 || !code64 || reg_gpr;
    bool x = e->X || !code64 || memory || rm_gpr, b = e->B || !code64 || memory || rm_gpr;
    unsigned vvvv = code64 ? e->vvvv : e->vvvv | 8u, v2 = code64 ? e->V2 : 1;
    unsigned w = !code64 && (reg_gpr || rm_gpr || avx512_ignores_w(z->mnemonic)) ? 0 : e->W;
    put_code(f, 0x62);
    put_code(f, (uint8_t)(r << 7 | x << 6 | b << 5 | r2 << 4 | e->mmm));
    put_code(f, (uint8_t)(w << 7 | vvvv << 3 | 4 | e->pp));
    put_code(f, (uint8_t)(e->z << 7 | e->L2 << 6 | e->L << 5 | e->b << 4 | v2 << 3 | e->aaa));
    put_code(f, z->opcode);
    put_code(f, (uint8_t)((memory ? 0 : 0xc0) | (reg_gpr ? 0 : z->raw.modrm.reg << 3) |
                          (memory   ? RCX
                           : rm_gpr ? RAX
                                    : z->raw.modrm.rm)));
}

static void encode_vex(const ZydisDecodedInstruction *z, bool memory, bool reg_gpr, bool rm_gpr, struct avx512_form *f)
{
    const ZydisDecodedInstructionRawVex *e = &z->raw.vex;
    put_code(f, 0xc4);
    put_code(f, (uint8_t)(0xe0 | e->m_mmmm));
    put_code(f, (uint8_t)(e->W << 7 | (e->vvvv | 8u) << 3 | e->L << 2 | e->pp));
    put_code(f, z->opcode);
    put_code(f, (uint8_t)((memory ? 0 : 0xc0) | (reg_gpr ? 0 : z->raw.modrm.reg << 3) |
                          (memory   ? RCX
                           : rm_gpr ? RAX
                                    : z->raw.modrm.rm)));
}

static bool is_dense(ZydisMnemonic mnemonic)
{
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_VCOMPRESSPS:
    case ZYDIS_MNEMONIC_VCOMPRESSPD:
    case ZYDIS_MNEMONIC_VPCOMPRESSB:
    case ZYDIS_MNEMONIC_VPCOMPRESSW:
    case ZYDIS_MNEMONIC_VPCOMPRESSD:
    case ZYDIS_MNEMONIC_VPCOMPRESSQ:
    case ZYDIS_MNEMONIC_VEXPANDPS:
    case ZYDIS_MNEMONIC_VEXPANDPD:
    case ZYDIS_MNEMONIC_VPEXPANDB:
    case ZYDIS_MNEMONIC_VPEXPANDW:
    case ZYDIS_MNEMONIC_VPEXPANDD:
    case ZYDIS_MNEMONIC_VPEXPANDQ:
        return true;
    default:
        return false;
    }
}

// Complex numbers count as one element.
static bool is_complex(ZydisMnemonic mnemonic)
{
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_VFMULCPH:
    case ZYDIS_MNEMONIC_VFMULCSH:
    case ZYDIS_MNEMONIC_VFCMULCPH:
    case ZYDIS_MNEMONIC_VFCMULCSH:
    case ZYDIS_MNEMONIC_VFMADDCPH:
    case ZYDIS_MNEMONIC_VFMADDCSH:
    case ZYDIS_MNEMONIC_VFCMADDCPH:
    case ZYDIS_MNEMONIC_VFCMADDCSH:
        return true;
    default:
        return false;
    }
}

// Elements of what a broadcast fills.
static unsigned broadcast_count(ZydisBroadcastMode mode)
{
    switch (mode) {
    case ZYDIS_BROADCAST_MODE_1_TO_2:
        return 2;
    case ZYDIS_BROADCAST_MODE_1_TO_4:
    case ZYDIS_BROADCAST_MODE_2_TO_4:
        return 4;
    case ZYDIS_BROADCAST_MODE_1_TO_8:
    case ZYDIS_BROADCAST_MODE_2_TO_8:
    case ZYDIS_BROADCAST_MODE_4_TO_8:
        return 8;
    case ZYDIS_BROADCAST_MODE_1_TO_32:
        return 32;
    case ZYDIS_BROADCAST_MODE_1_TO_64:
        return 64;
    default:
        return 16;
    }
}

// How the mask divides the memory operand O. The mask's own elements are those of the first operand, or of the other
// side where that is memory or a mask.
static void memory_form(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *operands,
                        const ZydisDecodedOperand *o, struct avx512_form *f)
{
    f->size = (uint8_t)(o->size / 8);
    f->reads = (o->actions & ZYDIS_OPERAND_ACTION_MASK_READ) != 0;
    f->writes = (o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) != 0;
    f->aligned =
        z->meta.exception_class == ZYDIS_EXCEPTION_CLASS_E1 || z->meta.exception_class == ZYDIS_EXCEPTION_CLASS_E1NF;
    f->exempt = z->mnemonic == ZYDIS_MNEMONIC_VCVTPH2PS || z->mnemonic == ZYDIS_MNEMONIC_VCVTPS2PH;
    f->mask = z->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX ? z->raw.evex.aaa : 0;
    f->kind = MEMORY_WHOLE;
    bool suppresses = avx512_suppresses_faults(z);
    if (!f->mask || (!suppresses && !f->writes))
        return;
    unsigned count = o->element_count, masked = 0;
    for (unsigned n = 0; n < z->operand_count_visible; n++) {
        const ZydisDecodedOperand *other = &operands[n];
        ZydisRegisterClass class = other->type == ZYDIS_OPERAND_TYPE_REGISTER ? ZydisRegisterGetClass(other->reg.value)
                                                                              : ZYDIS_REGCLASS_INVALID;
        if (class == ZYDIS_REGCLASS_XMM || class == ZYDIS_REGCLASS_YMM || class == ZYDIS_REGCLASS_ZMM) {
            masked = other->element_count;
            break;
        }
    }
    if (is_complex(z->mnemonic)) {
        count = MAX(f->size / 4, 1);
        masked /= 2;
    }
    bool broadcast = z->avx.broadcast.mode != ZYDIS_BROADCAST_MODE_INVALID;
    if (z->mnemonic == ZYDIS_MNEMONIC_VPSHUFBITQMB)
        count = f->size; // a mask bit for each byte
    else if (!broadcast && masked && masked < count)
        count = masked;
    f->count = (uint8_t)count;
    f->element = (uint8_t)(f->size / count);
    f->masked_count = (uint8_t)(broadcast ? broadcast_count(z->avx.broadcast.mode) : count);
    f->kind = !suppresses             ? MEMORY_PROBED
              : broadcast             ? MEMORY_BROADCAST
              : is_dense(z->mnemonic) ? MEMORY_DENSE
                                      : MEMORY_ELEMENTS;
}

// ---- Memory through the buffer --------------------------------------------------------------------------------------

static uint64_t low_bits(unsigned n)
{
    return n >= 64 ? UINT64_MAX : BIT(n) - 1;
}

// Which of the COUNT elements of the memory operand are touched.
static uint64_t touched(const struct vcpu *v, const struct avx512_form *f)
{
    uint64_t mask = opmask_read(v, f->mask) & low_bits(f->masked_count), which = 0;
    switch (f->kind) {
    case MEMORY_BROADCAST:
        for (unsigned n = 0; n < f->masked_count; n += f->count)
            which |= mask >> n & low_bits(f->count);
        return which;
    case MEMORY_DENSE:
        return low_bits((unsigned)__builtin_popcountll(mask));
    default:
        return mask;
    }
}

static bool load_elements(struct vcpu *v, const struct avx512_form *f, uint64_t linear, uint8_t *data)
{
    uint64_t which = touched(v, f);
    memset(data, 0, f->size);
    if (which && f->size <= 8 && !f->exempt && !alignment_checked(v, linear, f->size))
        return false;
    for (unsigned n = 0; n < f->count; n++)
        if (which >> n & 1 && !linear_load_exempt(v, linear + n * f->element, data + n * f->element, f->element))
            return false;
    return true;
}

static bool store_elements(struct vcpu *v, const struct avx512_form *f, uint64_t linear, const uint8_t *data)
{
    uint8_t sign[64] = {0};
    uint64_t which = touched(v, f);
    if (f->kind == MEMORY_PROBED && !linear_probe_write(v, linear, f->size))
        return false;
    if (which && f->size <= 8 && !f->exempt && !alignment_checked(v, linear, f->size))
        return false;
    for (unsigned n = 0; n < f->count; n++)
        if (which >> n & 1)
            sign[n * f->element + f->element - 1] = 0x80;
    return masked_store(v, linear, data, sign, f->size, f->element);
}

static bool memory_load(struct vcpu *v, const struct avx512_form *f, uint64_t linear, uint8_t *data)
{
    if (f->kind == MEMORY_WHOLE)
        return f->exempt ? linear_load_exempt(v, linear, data, f->size) : linear_load(v, linear, data, f->size);
    return load_elements(v, f, linear, data);
}

static bool memory_store(struct vcpu *v, const struct avx512_form *f, uint64_t linear, const uint8_t *data)
{
    uint8_t sign[64];
    if (f->kind == MEMORY_WHOLE && f->exempt)
        return masked_store(v, linear, data, memset(sign, 0x80, sizeof sign), f->size, f->size);
    if (f->kind == MEMORY_WHOLE)
        return linear_store(v, linear, data, f->size);
    return store_elements(v, f, linear, data);
}

static const struct insn *run_native(struct vcpu *v, const struct insn *i)
{
    struct avx512_form f = form_of(i);
    uint8_t buffer[128] __attribute__((aligned(64)));
    struct native_insn n = {.code = f.code, .length = f.length, .flags = flags_get(v)};
    uint64_t linear = 0;
    unsigned gpr = f.gpr_is_reg ? i->reg : i->rm;
    if (i->is_memory) {
        if (!insn_linear(v, i, f.size, f.writes ? ACCESS_WRITE : ACCESS_READ, &linear))
            return NULL;
        if (f.aligned && linear & (f.size - 1u) && (f.kind == MEMORY_WHOLE || touched(v, &f)))
            return insn_fault(v, EXCEPTION_GP, 0);
        n.memory = buffer + (linear & 63);
        if (f.reads && !memory_load(v, &f, linear, n.memory))
            return NULL;
    }
    if (f.gpr_in)
        n.rax = v->gpr[gpr & 15];
    int vector = v->set->engine->run_native(v, &n);
    if (vector)
        return insn_fault(v, (unsigned)vector, vector == EXCEPTION_GP ? 0 : -1);
    if (f.writes && !memory_store(v, &f, linear, n.memory))
        return NULL;
    if (f.gpr_out)
        v->gpr[gpr & 15] = n.rax;
    if (f.flags)
        flags_set(v, n.flags);
    return i + 1;
}

// ---- Gathers and scatters: elements in order; a fault leaves what was done, with their mask bits cleared ------------

static bool element_linear(struct vcpu *v, const struct insn *i, int64_t index, unsigned size, unsigned access,
                           uint64_t *linear)
{
    uint64_t offset = insn_offset(v, i) + ((uint64_t)index << i->scale);
    if (i->ea_flags & INSN_ADDRESS32)
        offset = (uint32_t)offset;
    else if (i->ea_flags & INSN_ADDRESS16)
        offset = (uint16_t)offset;
    return segment_linear(v, i, i->segment, offset, size, access, linear);
}

static int64_t element_index(const uint8_t *indexes, unsigned size, unsigned n)
{
    uint64_t x = load_le(indexes + n * size, size);
    return size == 4 ? (int32_t)x : (int64_t)x;
}

// The mask goes as the elements go; its bits beyond them when all are done.
static const struct insn *finish_elements(struct vcpu *v, const struct insn *i, const struct avx512_form *f,
                                          uint64_t mask, bool good)
{
    opmask_write(v, f->mask, good ? 0 : mask);
    return good ? i + 1 : NULL;
}

static const struct insn *run_gather(struct vcpu *v, const struct insn *i)
{
    struct avx512_form f = form_of(i);
    uint8_t indexes[64], data[64];
    uint64_t mask = opmask_read(v, f.mask), linear;
    bool good = true, any = false;
    zmm_read(v, f.index, indexes);
    zmm_read(v, i->reg, data);
    for (unsigned n = 0; n < f.count && good; n++) {
        if (mask >> n & 1)
            any |= good = element_linear(v, i, element_index(indexes, f.kind, n), f.element, ACCESS_READ, &linear) &&
                          linear_load_exempt(v, linear, data + n * f.element, f.element);
        if (good)
            mask &= ~BIT(n);
    }
    unsigned kept = good ? f.count * f.element : f.size;
    memset(data + kept, 0, sizeof data - kept);
    if (good || any)
        zmm_write(v, i->reg, data);
    return finish_elements(v, i, &f, mask, good);
}

static const struct insn *run_scatter(struct vcpu *v, const struct insn *i)
{
    struct avx512_form f = form_of(i);
    uint8_t indexes[64], data[64];
    uint64_t mask = opmask_read(v, f.mask), linear;
    bool good = true;
    uint8_t sign[8];
    memset(sign, 0x80, sizeof sign);
    zmm_read(v, f.index, indexes);
    zmm_read(v, i->reg, data);
    for (unsigned n = 0; n < f.count && good; n++) {
        if (mask >> n & 1)
            good = element_linear(v, i, element_index(indexes, f.kind, n), f.element, ACCESS_WRITE, &linear) &&
                   masked_store(v, linear, data + n * f.element, sign, f.element, f.element);
        if (good)
            mask &= ~BIT(n);
    }
    return finish_elements(v, i, &f, mask, good);
}

static insn_handler *bind_elements(const struct decoded *d, const ZydisDecodedOperand *memory, struct avx512_form *f)
{
    static const struct {
        uint16_t mnemonic;
        uint8_t index, element;
        bool scatter;
    } rows[] = {
        {ZYDIS_MNEMONIC_VPGATHERDD, 4, 4, false}, {ZYDIS_MNEMONIC_VPGATHERDQ, 4, 8, false},
        {ZYDIS_MNEMONIC_VPGATHERQD, 8, 4, false}, {ZYDIS_MNEMONIC_VPGATHERQQ, 8, 8, false},
        {ZYDIS_MNEMONIC_VGATHERDPS, 4, 4, false}, {ZYDIS_MNEMONIC_VGATHERDPD, 4, 8, false},
        {ZYDIS_MNEMONIC_VGATHERQPS, 8, 4, false}, {ZYDIS_MNEMONIC_VGATHERQPD, 8, 8, false},
        {ZYDIS_MNEMONIC_VPSCATTERDD, 4, 4, true}, {ZYDIS_MNEMONIC_VPSCATTERDQ, 4, 8, true},
        {ZYDIS_MNEMONIC_VPSCATTERQD, 8, 4, true}, {ZYDIS_MNEMONIC_VPSCATTERQQ, 8, 8, true},
        {ZYDIS_MNEMONIC_VSCATTERDPS, 4, 4, true}, {ZYDIS_MNEMONIC_VSCATTERDPD, 4, 8, true},
        {ZYDIS_MNEMONIC_VSCATTERQPS, 8, 4, true}, {ZYDIS_MNEMONIC_VSCATTERQPD, 8, 8, true},
    };
    for (unsigned n = 0; n < G_N_ELEMENTS(rows); n++)
        if (rows[n].mnemonic == d->zydis.mnemonic) {
            f->kind = rows[n].index;
            f->element = rows[n].element;
            f->count = (uint8_t)(d->zydis.avx.vector_length / 8 / MAX(rows[n].index, rows[n].element));
            f->size = (uint8_t)(d->zydis.avx.vector_length / 8);
            f->mask = d->zydis.raw.evex.aaa;
            f->index = (uint8_t)ZydisRegisterGetId(memory->mem.index);
            return rows[n].scatter ? run_scatter : run_gather;
        }
    return NULL;
}

// ---- Binding --------------------------------------------------------------------------------------------------------

static bool is_gpr(const ZydisDecodedOperand *o)
{
    if (o->type != ZYDIS_OPERAND_TYPE_REGISTER)
        return false;
    ZydisRegisterClass class = ZydisRegisterGetClass(o->reg.value);
    return class == ZYDIS_REGCLASS_GPR8 || class == ZYDIS_REGCLASS_GPR16 || class == ZYDIS_REGCLASS_GPR32 ||
           class == ZYDIS_REGCLASS_GPR64;
}

static insn_handler *bind(struct vcpu *v, const struct decoded *d, struct insn *i)
{
    const ZydisDecodedInstruction *z = &d->zydis;
    struct avx512_form f = {0};
    bool reg_gpr = false, rm_gpr = false;
    insn_handler *handler = run_native;
    if (!v->set->engine->run_native)
        return NULL;
    for (unsigned n = 0; n < z->operand_count_visible; n++) {
        const ZydisDecodedOperand *o = &d->operands[n];
        if (o->type == ZYDIS_OPERAND_TYPE_MEMORY && o->mem.type == ZYDIS_MEMOP_TYPE_VSIB)
            handler = bind_elements(d, o, &f);
        else if (o->type == ZYDIS_OPERAND_TYPE_MEMORY)
            memory_form(z, d->operands, o, &f);
        if (!is_gpr(o))
            continue;
        f.gpr_in = (o->actions & ZYDIS_OPERAND_ACTION_MASK_READ) != 0;
        f.gpr_out = (o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) != 0;
        f.gpr_is_reg = reg_gpr = o->encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG;
        rm_gpr = !reg_gpr;
    }
    f.flags = z->cpu_flags && (z->cpu_flags->modified | z->cpu_flags->set_0 | z->cpu_flags->set_1);
    if (z->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX)
        encode_evex(z, i->code_size == 8, i->is_memory, reg_gpr, rm_gpr, &f);
    else
        encode_vex(z, i->is_memory, reg_gpr, rm_gpr, &f);
    if (z->raw.imm[0].size)
        put_code(&f, (uint8_t)z->raw.imm[0].value.u);
    memcpy(&i->imm, &f, sizeof f);
    return handler;
}

const struct insn_row interpret_row_avx512 = {.class = CLASS_PLAIN, .gate = GATE_AVX512, .bind = bind};
