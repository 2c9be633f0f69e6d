// SPDX-License-Identifier: GPL-2.0-or-later
// From bytes to struct insn: Zydis decodes, the instruction table gives the handler.
#include "core/cpu/interpret/avx512.h"
#include "core/cpu/interpret/cache.h"
#include "core/cpu/model.h"

// ---- What CPUID hides ----------------------------------------------------------------------------------------------

// ISA sets that need a feature; sets that are not listed here and not in `baseline` do not exist for the guest.
static const struct {
    uint8_t isa_set;
    uint16_t feature;
} isa_features[] = {
    {ZYDIS_ISA_SET_ADOX_ADCX, FEATURE_ADX},
    {ZYDIS_ISA_SET_AES, FEATURE_AES},
    {ZYDIS_ISA_SET_AVX, FEATURE_AVX},
    {ZYDIS_ISA_SET_AVX2, FEATURE_AVX2},
    {ZYDIS_ISA_SET_AVX2GATHER, FEATURE_AVX2},
    {ZYDIS_ISA_SET_AVXAES, FEATURE_AES},
    {ZYDIS_ISA_SET_BMI1, FEATURE_BMI1},
    {ZYDIS_ISA_SET_BMI2, FEATURE_BMI2},
    {ZYDIS_ISA_SET_CLFLUSHOPT, FEATURE_CLFLUSHOPT},
    {ZYDIS_ISA_SET_CLFSH, FEATURE_CLFLUSH},
    {ZYDIS_ISA_SET_CLWB, FEATURE_CLWB},
    {ZYDIS_ISA_SET_CMOV, FEATURE_CMOV},
    {ZYDIS_ISA_SET_CMPXCHG16B, FEATURE_CX16},
    {ZYDIS_ISA_SET_F16C, FEATURE_F16C},
    {ZYDIS_ISA_SET_FCMOV, FEATURE_CMOV},
    {ZYDIS_ISA_SET_FMA, FEATURE_FMA},
    {ZYDIS_ISA_SET_FXSAVE, FEATURE_FXSR},
    {ZYDIS_ISA_SET_FXSAVE64, FEATURE_FXSR},
    {ZYDIS_ISA_SET_INVPCID, FEATURE_INVPCID},
    {ZYDIS_ISA_SET_AVX_GFNI, FEATURE_GFNI},
    {ZYDIS_ISA_SET_AVX_VNNI, FEATURE_AVX_VNNI},
    {ZYDIS_ISA_SET_GFNI, FEATURE_GFNI},
    {ZYDIS_ISA_SET_VAES, FEATURE_VAES},
    {ZYDIS_ISA_SET_VPCLMULQDQ, FEATURE_VPCLMULQDQ},
    {ZYDIS_ISA_SET_LONGMODE, FEATURE_LM},
    {ZYDIS_ISA_SET_LZCNT, FEATURE_LZCNT},
    {ZYDIS_ISA_SET_MOVBE, FEATURE_MOVBE},
    {ZYDIS_ISA_SET_PCLMULQDQ, FEATURE_PCLMULQDQ},
    {ZYDIS_ISA_SET_PENTIUMMMX, FEATURE_MMX},
    {ZYDIS_ISA_SET_POPCNT, FEATURE_POPCNT},
    {ZYDIS_ISA_SET_RDPID, FEATURE_RDPID},
    {ZYDIS_ISA_SET_RDRAND, FEATURE_RDRAND},
    {ZYDIS_ISA_SET_RDSEED, FEATURE_RDSEED},
    {ZYDIS_ISA_SET_RDTSCP, FEATURE_RDTSCP},
    {ZYDIS_ISA_SET_RDWRFSGS, FEATURE_FSGSBASE},
    {ZYDIS_ISA_SET_SERIALIZE, FEATURE_SERIALIZE},
    {ZYDIS_ISA_SET_SHA, FEATURE_SHA},
    {ZYDIS_ISA_SET_SMAP, FEATURE_SMAP},
    {ZYDIS_ISA_SET_SSE, FEATURE_SSE},
    {ZYDIS_ISA_SET_SSE2, FEATURE_SSE2},
    {ZYDIS_ISA_SET_SSE2MMX, FEATURE_SSE2},
    {ZYDIS_ISA_SET_SSE3, FEATURE_SSE3},
    {ZYDIS_ISA_SET_SSE3X87, FEATURE_SSE3},
    {ZYDIS_ISA_SET_SSE4, FEATURE_SSE41},
    {ZYDIS_ISA_SET_SSE42, FEATURE_SSE42},
    {ZYDIS_ISA_SET_SSEMXCSR, FEATURE_SSE},
    {ZYDIS_ISA_SET_SSSE3, FEATURE_SSSE3},
    {ZYDIS_ISA_SET_SSSE3MMX, FEATURE_SSSE3},
    {ZYDIS_ISA_SET_X87, FEATURE_FPU},
    {ZYDIS_ISA_SET_XSAVE, FEATURE_XSAVE},
    {ZYDIS_ISA_SET_XSAVEC, FEATURE_XSAVEC},
    {ZYDIS_ISA_SET_XSAVEOPT, FEATURE_XSAVEOPT},
    {ZYDIS_ISA_SET_XSAVES, FEATURE_XSAVES},
};
static const uint8_t baseline[] = {
    ZYDIS_ISA_SET_I86,          ZYDIS_ISA_SET_I186,    ZYDIS_ISA_SET_I286PROTECTED, ZYDIS_ISA_SET_I286REAL,
    ZYDIS_ISA_SET_I386,         ZYDIS_ISA_SET_I486,    ZYDIS_ISA_SET_I486REAL,      ZYDIS_ISA_SET_PENTIUMREAL,
    ZYDIS_ISA_SET_PPRO,         ZYDIS_ISA_SET_FAT_NOP, ZYDIS_ISA_SET_PAUSE,         ZYDIS_ISA_SET_LAHF,
    ZYDIS_ISA_SET_PREFETCH_NOP, ZYDIS_ISA_SET_RDPMC,   ZYDIS_ISA_SET_SSE_PREFETCH,  ZYDIS_ISA_SET_AMD,
    ZYDIS_ISA_SET_PREFETCHWT1,  ZYDIS_ISA_SET_MOVDIR,
};

static bool isa_exists(const struct vcpu *v, const ZydisDecodedInstruction *z)
{
    ZydisISASet isa_set = z->meta.isa_set;
    if (is_avx512(z))
        return avx512_shown(v->set->model, isa_set);
    for (unsigned i = 0; i < G_N_ELEMENTS(isa_features); i++)
        if (isa_features[i].isa_set == isa_set)
            return cpu_has(v->set->model, (enum cpu_feature)isa_features[i].feature);
    for (unsigned i = 0; i < G_N_ELEMENTS(baseline); i++)
        if (baseline[i] == isa_set)
            return true;
    return false;
}

// SSE4.2's POPCNT and CRC32 have sets of their own; prefetches and MONITOR depend on more than the set.
static bool mnemonic_exists(const struct vcpu *v, const ZydisDecodedInstruction *z)
{
    const struct cpu_model *m = v->set->model;
    if (is_avx512(z))
        return true;
    switch (z->mnemonic) {
    case ZYDIS_MNEMONIC_MOVDIRI:
        return cpu_has(m, FEATURE_MOVDIRI);
    case ZYDIS_MNEMONIC_MOVDIR64B:
        return cpu_has(m, FEATURE_MOVDIR64B);
    case ZYDIS_MNEMONIC_VAESENC:
    case ZYDIS_MNEMONIC_VAESENCLAST:
    case ZYDIS_MNEMONIC_VAESDEC:
    case ZYDIS_MNEMONIC_VAESDECLAST:
    case ZYDIS_MNEMONIC_VAESIMC:
    case ZYDIS_MNEMONIC_VAESKEYGENASSIST:
        return cpu_has(m, FEATURE_AES) && cpu_has(m, FEATURE_AVX);
    case ZYDIS_MNEMONIC_VPCLMULQDQ:
        return cpu_has(m, FEATURE_PCLMULQDQ) && cpu_has(m, FEATURE_AVX);
    case ZYDIS_MNEMONIC_XGETBV:
    case ZYDIS_MNEMONIC_XSETBV:
        return cpu_has(m, FEATURE_XSAVE);
    default:
        return true;
    }
}

// ---- Gates: facilities that system software must switch on
// ------------------------------------------------------------

static bool uses_mmx(const struct decoded *d)
{
    for (unsigned n = 0; n < d->zydis.operand_count; n++)
        if (d->operands[n].type == ZYDIS_OPERAND_TYPE_REGISTER &&
            ZydisRegisterGetClass(d->operands[n].reg.value) == ZYDIS_REGCLASS_MMX)
            return true;
    return false;
}

static insn_handler *gate_closed(uint32_t key, const struct decoded *d, const struct insn_row *row)
{
    bool ts = key & KEY_TS, em = key & KEY_EM;
    unsigned gate = row->gate;
    if (gate == GATE_VECTOR)
        gate = uses_mmx(d) ? GATE_MMX : GATE_SSE;
    switch (gate) {
    case GATE_X87:
        return ts || em ? insn_no_math : NULL;
    case GATE_WAIT:
        return ts && (key & KEY_MP) ? insn_no_math : NULL;
    case GATE_MMX:
        return em ? insn_undefined : ts ? insn_no_math : NULL;
    case GATE_SSE:
        return em || !(key & KEY_OSFXSR) ? insn_undefined : ts ? insn_no_math : NULL;
    case GATE_AVX:
        return !(key & KEY_AVX) ? insn_undefined : ts ? insn_no_math : NULL;
    case GATE_AVX512:
        return !(key & KEY_AVX512) ? insn_undefined : ts ? insn_no_math : NULL;
    case GATE_XSAVE:
        return !(key & KEY_OSXSAVE) ? insn_undefined : ts ? insn_no_math : NULL;
    default:
        return NULL;
    }
}

// ---- Operands -------------------------------------------------------------------------------------------------------

static uint16_t register_slot(ZydisRegister reg)
{
    switch (ZydisRegisterGetClass(reg)) {
    case ZYDIS_REGCLASS_GPR64:
    case ZYDIS_REGCLASS_GPR32:
    case ZYDIS_REGCLASS_GPR16:
        return (uint16_t)(VCPU_OFFSET(gpr) + 8 * ZydisRegisterGetId(reg));
    case ZYDIS_REGCLASS_IP:
        return VCPU_OFFSET(rip);
    default:
        return VCPU_OFFSET(zero);
    }
}

// Byte offset of a general register operand, AH to BH included.
static uint8_t operand_slot(ZydisRegister reg)
{
    if (ZydisRegisterGetClass(reg) != ZYDIS_REGCLASS_GPR8)
        return (uint8_t)(8 * ZydisRegisterGetId(reg));
    unsigned n = (unsigned)(reg - ZYDIS_REGISTER_AL); // AL CL DL BL AH CH DH BH SPL BPL SIL DIL R8B ...
    return (uint8_t)(n < 4 ? 8 * n : n < 8 ? 8 * (n - 4) + 1 : 8 * (n - 4));
}

static uint8_t register_number(ZydisRegister reg)
{
    return ZydisRegisterGetClass(reg) == ZYDIS_REGCLASS_GPR8 ? operand_slot(reg) / 8 : (uint8_t)ZydisRegisterGetId(reg);
}

static const uint8_t segment_numbers[] = {ES, CS, SS, DS, FS, GS};

static void fill_memory(uint32_t key, const ZydisDecodedOperand *o, struct insn *i)
{
    const ZydisDecodedOperandMem *m = &o->mem;
    bool code64 = (key & KEY_CODE_SIZE) == 2;
    i->base = register_slot(m->base);
    i->index = register_slot(m->index);
    i->scale = m->index == ZYDIS_REGISTER_NONE || m->scale < 2 ? 0 : (uint8_t)__builtin_ctz(m->scale);
    i->disp = m->disp.value;
    i->segment = m->segment >= ZYDIS_REGISTER_ES && m->segment <= ZYDIS_REGISTER_GS
                     ? segment_numbers[m->segment - ZYDIS_REGISTER_ES]
                     : DS;
    i->segment_base = VCPU_OFFSET(zero);
    if (code64) {
        if (i->segment == FS || i->segment == GS)
            i->segment_base = (uint16_t)(VCPU_OFFSET(seg[0].base) + i->segment * sizeof(struct segment));
        i->ea_flags = i->address_size == 4 ? INSN_ADDRESS32 : 0;
        return;
    }
    i->ea_flags = INSN_LEGACY | (i->address_size == 4 ? INSN_ADDRESS32 : INSN_ADDRESS16);
    if (!(key & KEY_FLAT) || i->segment == FS || i->segment == GS || i->segment == CS) {
        i->ea_flags |= INSN_SEGMENT_CHECKED;
        i->segment_base = (uint16_t)(VCPU_OFFSET(seg[0].base) + i->segment * sizeof(struct segment));
    }
}

static void fill_register(const ZydisDecodedOperand *o, struct insn *i)
{
    ZydisRegister reg = o->reg.value;
    switch (o->encoding) {
    case ZYDIS_OPERAND_ENCODING_MODRM_REG:
        i->reg = register_number(reg);
        i->reg_offset = operand_slot(reg);
        break;
    case ZYDIS_OPERAND_ENCODING_MODRM_RM:
    case ZYDIS_OPERAND_ENCODING_OPCODE:
        i->rm = register_number(reg);
        i->rm_offset = operand_slot(reg);
        break;
    case ZYDIS_OPERAND_ENCODING_NDSNDD:
        i->vvvv = register_number(reg);
        break;
    case ZYDIS_OPERAND_ENCODING_IS4:
        i->mask_reg = register_number(reg);
        break;
    default:
        break;
    }
}

// String sources, XLAT and MASKMOV take a segment prefix; string destinations are always in ES.
static bool has_chosen_segment(const struct decoded *d, const ZydisDecodedOperand *o)
{
    if (o->mem.segment == ZYDIS_REGISTER_NONE)
        return false;
    if (o->mem.segment != ZYDIS_REGISTER_ES)
        return true;
    if (d->zydis.mnemonic == ZYDIS_MNEMONIC_MASKMOVQ || d->zydis.mnemonic == ZYDIS_MNEMONIC_MASKMOVDQU)
        return true;
    switch (o->mem.base) {
    case ZYDIS_REGISTER_SI:
    case ZYDIS_REGISTER_ESI:
    case ZYDIS_REGISTER_RSI:
    case ZYDIS_REGISTER_BX:
    case ZYDIS_REGISTER_EBX:
    case ZYDIS_REGISTER_RBX:
        return true;
    default:
        return false;
    }
}

static void fill_operands(uint32_t key, const struct decoded *d, struct insn *i)
{
    unsigned immediates = 0;
    for (unsigned n = 0; n < d->zydis.operand_count; n++) {
        const ZydisDecodedOperand *o = &d->operands[n];
        switch (o->type) {
        case ZYDIS_OPERAND_TYPE_MEMORY:
            if (o->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM || o->encoding == ZYDIS_OPERAND_ENCODING_DISP16_32_64) {
                i->is_memory = true;
                fill_memory(key, o, i);
            } else if (!i->is_memory && o->mem.type == ZYDIS_MEMOP_TYPE_MEM && has_chosen_segment(d, o)) {
                i->segment = segment_numbers[o->mem.segment - ZYDIS_REGISTER_ES]; // strings, XLAT, MASKMOV, stack
            }
            break;
        case ZYDIS_OPERAND_TYPE_REGISTER:
            fill_register(o, i);
            break;
        case ZYDIS_OPERAND_TYPE_IMMEDIATE:
            if (immediates++ == 0)
                i->imm = o->imm.value.u;
            else
                i->imm2 = o->imm.value.u;
            break;
        case ZYDIS_OPERAND_TYPE_POINTER:
            i->imm = o->ptr.offset;
            i->imm2 = o->ptr.segment;
            break;
        default:
            break;
        }
    }
}

static void fill_prefixes(const struct decoded *d, struct insn *i)
{
    for (unsigned n = 0; n < d->zydis.raw.prefix_count; n++)
        if (d->zydis.raw.prefixes[n].value == 0xf2 || d->zydis.raw.prefixes[n].value == 0xf3)
            i->rep = d->zydis.raw.prefixes[n].value;
    i->lock = d->zydis.attributes & ZYDIS_ATTRIB_HAS_LOCK;
}

static void fill_insn(uint32_t key, const struct decoded *d, struct insn *i)
{
    static const uint8_t code_sizes[] = {2, 4, 8};
    const ZydisDecodedInstruction *z = &d->zydis;
    i->length = z->length;
    i->operand_size = z->operand_width / 8;
    i->address_size = z->address_width / 8;
    i->code_size = code_sizes[key & KEY_CODE_SIZE];
    i->stack_size = i->code_size == 8 ? 8 : key & KEY_STACK32 ? 4 : 2;
    i->opcode = z->opcode;
    i->modrm = (uint8_t)(z->raw.modrm.mod << 6 | z->raw.modrm.reg << 3 | z->raw.modrm.rm);
    i->vector_length = (uint8_t)(z->avx.vector_length / 8);
    i->vex = z->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX;
    i->vex_w = i->vex ? z->raw.vex.W : z->raw.rex.W;
    // Of these the code's default size is not the operand's: 32 bits, without prefix, in 16-bit code too.
    if (i->operand_size == 2 && (i->vex || z->mnemonic == ZYDIS_MNEMONIC_MOVNTI))
        i->operand_size = 4;
    i->base = i->index = i->segment_base = VCPU_OFFSET(zero);
    i->segment = DS;
    fill_operands(key, d, i);
    fill_prefixes(d, i);
}

// ---- Decoding -------------------------------------------------------------------------------------------------------

enum { DECODER_REAL, DECODER_16, DECODER_32, DECODER_COMPAT16, DECODER_COMPAT32, DECODER_64 };

void decode_init(struct interpreter *n)
{
    static const struct {
        ZydisMachineMode mode;
        ZydisStackWidth width;
    } modes[] = {
        {ZYDIS_MACHINE_MODE_REAL_16, ZYDIS_STACK_WIDTH_16},
        {ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16},
        {ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32},
        {ZYDIS_MACHINE_MODE_LONG_COMPAT_16, ZYDIS_STACK_WIDTH_16},
        {ZYDIS_MACHINE_MODE_LONG_COMPAT_32, ZYDIS_STACK_WIDTH_32},
        {ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64},
    };
    const struct cpu_model *m = n->vcpu->set->model;
    for (unsigned i = 0; i < G_N_ELEMENTS(modes); i++) {
        ZydisDecoder *d = &n->decoders[i];
        ZydisDecoderInit(d, modes[i].mode, modes[i].width);
        ZydisDecoderEnableMode(d, ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
        ZydisDecoderEnableMode(d, ZYDIS_DECODER_MODE_CET, ZYAN_FALSE);
        ZydisDecoderEnableMode(d, ZYDIS_DECODER_MODE_CLDEMOTE, ZYAN_FALSE);
        ZydisDecoderEnableMode(d, ZYDIS_DECODER_MODE_LZCNT, cpu_has(m, FEATURE_LZCNT));
        ZydisDecoderEnableMode(d, ZYDIS_DECODER_MODE_TZCNT, cpu_has(m, FEATURE_BMI1));
    }
}

static const ZydisDecoder *decoder_for(const struct interpreter *n, uint32_t key)
{
    unsigned size = key & KEY_CODE_SIZE;
    if (key & KEY_REAL)
        return &n->decoders[DECODER_REAL];
    if (size == 2)
        return &n->decoders[DECODER_64];
    return &n->decoders[key & KEY_LONG ? (size ? DECODER_COMPAT32 : DECODER_COMPAT16)
                                       : (size ? DECODER_32 : DECODER_16)];
}

static insn_handler *choose_handler(struct vcpu *v, uint32_t key, const struct decoded *d, struct insn *i)
{
    const struct insn_row *row = i->row;
    if (!row || !isa_exists(v, &d->zydis) || !mnemonic_exists(v, &d->zydis))
        return insn_undefined;
    insn_handler *closed = gate_closed(key, d, row);
    if (closed)
        return closed;
    insn_handler *handler = row->bind ? row->bind(v, d, i) : i->is_memory ? row->mem : row->reg;
    if (!handler)
        return insn_undefined;
    if (row->class == CLASS_SENSITIVE && handler != insn_undefined) {
        i->sensitive = handler;
        return insn_sensitive;
    }
    return handler;
}

enum decode_status decode_insn(struct vcpu *v, uint32_t key, const uint8_t *bytes, unsigned available, unsigned offset,
                               unsigned position, struct insn *i)
{
    struct decoded d;
    memset(i, 0, sizeof(*i));
    i->offset = (uint16_t)offset;
    i->position = (uint16_t)position;
    available = MIN(available, 15);
    ZyanStatus status =
        ZydisDecoderDecodeFull(decoder_for(v->interpreter, key), bytes, available, &d.zydis, d.operands);
    if (status == ZYDIS_STATUS_NO_MORE_DATA)
        return available < 15 ? DECODE_MORE : DECODE_TOO_LONG;
    if (status == ZYDIS_STATUS_INSTRUCTION_TOO_LONG)
        return DECODE_TOO_LONG;
    if (!ZYAN_SUCCESS(status))
        return DECODE_UD;
    fill_insn(key, &d, i);
    i->row = interpret_row(&d);
    i->run = choose_handler(v, key, &d, i);
    if (i->base == VCPU_OFFSET(rip)) // relative to the start of the block; sensitive handlers see their own RIP
        i->disp += i->length + (i->run == insn_sensitive ? 0 : offset);
    return DECODE_OK;
}

void decode_terminator(struct insn *i, unsigned offset, unsigned position)
{
    memset(i, 0, sizeof(*i));
    i->run = insn_block_end;
    i->offset = (uint16_t)offset;
    i->position = (uint16_t)position;
    i->direct = true;
    i->code_size = 8;
}

bool insn_ends_block(const struct insn *i)
{
    return !i->row || i->row->class == CLASS_FLOW || i->row->class == CLASS_SENSITIVE || i->run == insn_undefined ||
           i->run == insn_no_math || i->run == insn_sensitive;
}
