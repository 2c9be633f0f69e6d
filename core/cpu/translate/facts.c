// SPDX-License-Identifier: GPL-2.0-or-later
// Operand facts: which registers, flags and memory an encoding uses, and what the translator does with it. Computed
// once per encoding from Zydis and remembered.
#include "core/cpu/translate/decode.h"

#include "core/cpu/interpret/avx512.h"
#include "core/cpu/vcpu.h"

#include <Zydis/Zydis.h>

#define FACT_SLOTS 16384u

struct fact_table {
    struct fact slots[FACT_SLOTS];
    struct fact spare; // for keys whose slots are all taken
};

struct fact_table *fact_table_new(void)
{
    return g_new0(struct fact_table, 1);
}

void fact_table_free(struct fact_table *table)
{
    g_free(table);
}

// Mnemonics with a treatment of their own; all others are decided by their ISA extension.
static const struct {
    uint16_t mnemonic;
    uint8_t class;
} special[] = {
#define S(m, c)                                                                                                        \
    {                                                                                                                  \
        ZYDIS_MNEMONIC_##m, FACT_##c                                                                                   \
    }
    S(JMP, JMP),
    S(CALL, CALL),
    S(RET, RET),
    S(LOOP, LOOP),
    S(LOOPE, LOOP),
    S(LOOPNE, LOOP),
    S(JCXZ, LOOP),
    S(JECXZ, LOOP),
    S(JRCXZ, LOOP),
    S(JB, JCC),
    S(JBE, JCC),
    S(JL, JCC),
    S(JLE, JCC),
    S(JNB, JCC),
    S(JNBE, JCC),
    S(JNL, JCC),
    S(JNLE, JCC),
    S(JNO, JCC),
    S(JNP, JCC),
    S(JNS, JCC),
    S(JNZ, JCC),
    S(JO, JCC),
    S(JP, JCC),
    S(JS, JCC),
    S(JZ, JCC),
    S(PUSH, PUSH),
    S(POP, POP),
    S(LEAVE, LEAVE),
    S(PUSHFQ, PUSHF),
    S(PUSHFD, PUSHF),
    S(PUSHF, PUSHF),
    S(POPFQ, POPF),
    S(POPFD, POPF),
    S(POPF, POPF),
    S(MOVSB, STRING),
    S(MOVSW, STRING),
    S(MOVSQ, STRING),
    S(STOSB, STRING),
    S(STOSW, STRING),
    S(STOSD, STRING),
    S(STOSQ, STRING),
    S(LODSB, STRING),
    S(LODSW, STRING),
    S(LODSD, STRING),
    S(LODSQ, STRING),
    S(SCASB, STRING),
    S(SCASW, STRING),
    S(SCASD, STRING),
    S(SCASQ, STRING),
    S(CMPSB, STRING),
    S(CMPSW, STRING),
    S(CMPSQ, STRING),
    S(NOP, NOP),
    S(PREFETCH, NOP),
    S(PREFETCHNTA, NOP),
    S(PREFETCHT0, NOP),
    S(PREFETCHT1, NOP),
    S(PREFETCHT2, NOP),
    S(PREFETCHW, NOP),
    S(PREFETCHWT1, NOP),
    S(ENDBR32, NOP),
    S(ENDBR64, NOP),
    S(LEA, LEA),
    S(CLD, DF),
    S(STD, DF),
    S(CLI, IF),
    S(STI, IF),
    S(CLAC, AC),
    S(STAC, AC),
    S(SYSCALL, SYSCALL),
    S(SYSRET, SYSRET),
    S(IRETQ, IRET),
    S(SWAPGS, SWAPGS),
    S(RDFSBASE, FSGSBASE),
    S(RDGSBASE, FSGSBASE),
    S(WRFSBASE, FSGSBASE),
    S(WRGSBASE, FSGSBASE),
    S(RDTSC, RDTSC),
    S(RDTSCP, RDTSC),
    S(XLAT, XLAT),
    S(INVLPG, INVLPG),
    S(CPUID, CPUID),
    S(RDMSR, MSR),
    S(WRMSR, MSR),
    S(VMASKMOVPS, MASKED),
    S(VMASKMOVPD, MASKED),
    S(VPMASKMOVD, MASKED),
    S(VPMASKMOVQ, MASKED),
    S(MASKMOVQ, MASKED),
    S(MASKMOVDQU, MASKED),
    S(VMASKMOVDQU, MASKED),
    S(VPGATHERDD, MASKED),
    S(VPGATHERDQ, MASKED),
    S(VPGATHERQD, MASKED),
    S(VPGATHERQQ, MASKED),
    S(VGATHERDPS, MASKED),
    S(VGATHERDPD, MASKED),
    S(VGATHERQPS, MASKED),
    S(VGATHERQPD, MASKED),
    // No instruction of BASE that is named below may be copied.
    S(RDRAND, PLAIN),
    S(RDSEED, PLAIN),
    S(CLFLUSH, PLAIN),
    S(CLFLUSHOPT, PLAIN),
    S(CLWB, PLAIN),
    S(MOVDIRI, PLAIN),
    S(PAUSE, PLAIN),
#undef S
};

// Instructions of the BASE and LONGMODE sets that must never be copied.
static const uint16_t base_sensitive[] = {
#define S(m) ZYDIS_MNEMONIC_##m
    S(AAA),   S(AAD),    S(AAM),  S(AAS),    S(DAA),   S(DAS),      S(ARPL),    S(BOUND), S(ENTER),
    S(HLT),   S(IN),     S(INSB), S(INSW),   S(INSD),  S(INT),      S(INT1),    S(INT3),  S(INTO),
    S(INVD),  S(INVLPG), S(IRET), S(IRETD),  S(LAR),   S(LDS),      S(LES),     S(LFS),   S(LGS),
    S(LSS),   S(LGDT),   S(LIDT), S(LLDT),   S(LMSW),  S(LSL),      S(LTR),     S(OUT),   S(OUTSB),
    S(OUTSW), S(OUTSD),  S(POPA), S(POPAD),  S(PUSHA), S(PUSHAD),   S(RDPMC),   S(RSM),   S(SALC),
    S(SGDT),  S(SIDT),   S(SLDT), S(SMSW),   S(STR),   S(SYSENTER), S(SYSEXIT), S(UD0),   S(UD1),
    S(UD2),   S(VERR),   S(VERW), S(WBINVD), S(CLTS),  S(XABORT),   S(MONITOR), S(MWAIT), S(RDPID),
#undef S
};

static bool listed(const uint16_t *list, unsigned n, unsigned mnemonic)
{
    for (unsigned i = 0; i < n; i++)
        if (list[i] == mnemonic)
            return true;
    return false;
}

static bool copied_extension(unsigned isa)
{
    switch (isa) {
    case ZYDIS_ISA_EXT_BASE:
    case ZYDIS_ISA_EXT_LONGMODE:
    case ZYDIS_ISA_EXT_ADOX_ADCX:
    case ZYDIS_ISA_EXT_AES:
    case ZYDIS_ISA_EXT_AVX:
    case ZYDIS_ISA_EXT_AVX2:
    case ZYDIS_ISA_EXT_AVX512EVEX:
    case ZYDIS_ISA_EXT_AVX512VEX:
    case ZYDIS_ISA_EXT_AVXAES:
    case ZYDIS_ISA_EXT_AVX_VNNI:
    case ZYDIS_ISA_EXT_BMI1:
    case ZYDIS_ISA_EXT_BMI2:
    case ZYDIS_ISA_EXT_F16C:
    case ZYDIS_ISA_EXT_FMA:
    case ZYDIS_ISA_EXT_GFNI:
    case ZYDIS_ISA_EXT_LZCNT:
    case ZYDIS_ISA_EXT_MMX:
    case ZYDIS_ISA_EXT_MOVBE:
    case ZYDIS_ISA_EXT_PCLMULQDQ:
    case ZYDIS_ISA_EXT_SHA:
    case ZYDIS_ISA_EXT_SSE:
    case ZYDIS_ISA_EXT_SSE2:
    case ZYDIS_ISA_EXT_SSE3:
    case ZYDIS_ISA_EXT_SSE4:
    case ZYDIS_ISA_EXT_SSSE3:
    case ZYDIS_ISA_EXT_VAES:
    case ZYDIS_ISA_EXT_VPCLMULQDQ:
    case ZYDIS_ISA_EXT_X87:
        return true;
    }
    return false;
}

static bool vector_extension(unsigned isa)
{
    switch (isa) {
    case ZYDIS_ISA_EXT_BASE:
    case ZYDIS_ISA_EXT_LONGMODE:
    case ZYDIS_ISA_EXT_ADOX_ADCX:
    case ZYDIS_ISA_EXT_BMI1:
    case ZYDIS_ISA_EXT_BMI2:
    case ZYDIS_ISA_EXT_LZCNT:
    case ZYDIS_ISA_EXT_MOVBE:
    case ZYDIS_ISA_EXT_RDRAND:
    case ZYDIS_ISA_EXT_RDSEED:
    case ZYDIS_ISA_EXT_CLFLUSHOPT:
    case ZYDIS_ISA_EXT_CLFSH:
    case ZYDIS_ISA_EXT_CLWB:
    case ZYDIS_ISA_EXT_MOVDIR:
    case ZYDIS_ISA_EXT_PAUSE:
        return false;
    }
    return true;
}

static unsigned classify(const ZydisDecodedInstruction *z)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(special); i++)
        if (special[i].mnemonic == z->mnemonic)
            return special[i].class;
    if (z->meta.category == ZYDIS_CATEGORY_STRINGOP &&
        (z->mnemonic == ZYDIS_MNEMONIC_MOVSD || z->mnemonic == ZYDIS_MNEMONIC_CMPSD))
        return FACT_STRING;
    if (z->attributes & ZYDIS_ATTRIB_IS_PRIVILEGED || !copied_extension(z->meta.isa_ext) ||
        listed(base_sensitive, G_N_ELEMENTS(base_sensitive), z->mnemonic))
        return FACT_SENSITIVE;
    if (z->mnemonic == ZYDIS_MNEMONIC_CRC32 || z->mnemonic == ZYDIS_MNEMONIC_POPCNT)
        return FACT_PLAIN;
    if (z->mnemonic == ZYDIS_MNEMONIC_FXSAVE || z->mnemonic == ZYDIS_MNEMONIC_FXRSTOR ||
        z->mnemonic == ZYDIS_MNEMONIC_FXSAVE64 || z->mnemonic == ZYDIS_MNEMONIC_FXRSTOR64)
        return FACT_SENSITIVE;
    return FACT_PLAIN;
}

static unsigned use_of(const ZydisDecodedOperand *o)
{
    unsigned use = 0;
    if (o->actions & ZYDIS_OPERAND_ACTION_MASK_READ)
        use |= USE_READ;
    if (o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
        use |= USE_WRITE;
    if (o->actions & (ZYDIS_OPERAND_ACTION_CONDWRITE | ZYDIS_OPERAND_ACTION_CONDREAD))
        use |= USE_READ;
    if ((use & USE_WRITE) && o->size < 32)
        use |= USE_READ; // a partial register keeps its other bits
    return use;
}

static unsigned gpr_number(ZydisRegister reg)
{
    if (reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH)
        return (unsigned)(reg - ZYDIS_REGISTER_AH);
    return (unsigned)ZydisRegisterGetId(ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg)) & 15;
}

static void operand_facts(struct fact *f, const ZydisDecodedOperand *o, bool is_modrm_memory)
{
    if (o->type == ZYDIS_OPERAND_TYPE_MEMORY) {
        if (o->mem.type == ZYDIS_MEMOP_TYPE_AGEN || o->mem.type == ZYDIS_MEMOP_TYPE_MIB)
            return;
        if (is_modrm_memory && (o->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM)) {
            f->memory_use |= use_of(o) & (USE_READ | USE_WRITE);
            if (!(o->actions & (ZYDIS_OPERAND_ACTION_MASK_READ)))
                f->memory_use &= ~USE_READ;
            f->memory_size = o->size / 8;
            if (o->mem.type == ZYDIS_MEMOP_TYPE_VSIB)
                f->class = FACT_MASKED;
        } else {
            f->implicit_memory = true;
        }
        return;
    }
    if (o->type != ZYDIS_OPERAND_TYPE_REGISTER)
        return;
    ZydisRegisterClass class = ZydisRegisterGetClass(o->reg.value);
    bool gpr = class == ZYDIS_REGCLASS_GPR8 || class == ZYDIS_REGCLASS_GPR16 || class == ZYDIS_REGCLASS_GPR32 ||
               class == ZYDIS_REGCLASS_GPR64;
    if (!gpr) {
        if (class == ZYDIS_REGCLASS_SEGMENT && o->visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT)
            f->class = f->class == FACT_PLAIN ? FACT_MOV_SEG : f->class;
        if (class == ZYDIS_REGCLASS_CONTROL && o->visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT)
            f->class = FACT_MOV_CR;
        if (class == ZYDIS_REGCLASS_DEBUG && o->visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT)
            f->class = FACT_SENSITIVE;
        return;
    }
    if (o->visibility != ZYDIS_OPERAND_VISIBILITY_EXPLICIT || o->encoding == ZYDIS_OPERAND_ENCODING_NONE) {
        if (o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
            f->implicit_written |= 1u << gpr_number(o->reg.value);
    }
    switch (o->encoding) {
    case ZYDIS_OPERAND_ENCODING_MODRM_REG:
        f->reg_use = use_of(o);
        f->reg_byte = class == ZYDIS_REGCLASS_GPR8;
        break;
    case ZYDIS_OPERAND_ENCODING_MODRM_RM:
        f->rm_use = use_of(o);
        f->rm_byte = class == ZYDIS_REGCLASS_GPR8;
        break;
    case ZYDIS_OPERAND_ENCODING_NDSNDD:
        f->vvvv_use = use_of(o);
        break;
    case ZYDIS_OPERAND_ENCODING_OPCODE:
        f->opcode_use = use_of(o);
        break;
    default:
        break;
    }
}

// Shifts and rotates by a count that may be zero change no flag then; REP SCAS and CMPS likewise.
static bool flags_conditional(const ZydisDecodedInstruction *z)
{
    switch (z->mnemonic) {
    case ZYDIS_MNEMONIC_SHL:
    case ZYDIS_MNEMONIC_SHR:
    case ZYDIS_MNEMONIC_SAR:
    case ZYDIS_MNEMONIC_ROL:
    case ZYDIS_MNEMONIC_ROR:
    case ZYDIS_MNEMONIC_RCL:
    case ZYDIS_MNEMONIC_RCR:
    case ZYDIS_MNEMONIC_SHLD:
    case ZYDIS_MNEMONIC_SHRD:
    case ZYDIS_MNEMONIC_SCASB:
    case ZYDIS_MNEMONIC_SCASW:
    case ZYDIS_MNEMONIC_SCASD:
    case ZYDIS_MNEMONIC_SCASQ:
    case ZYDIS_MNEMONIC_CMPSB:
    case ZYDIS_MNEMONIC_CMPSW:
    case ZYDIS_MNEMONIC_CMPSD:
    case ZYDIS_MNEMONIC_CMPSQ:
    case ZYDIS_MNEMONIC_CMPXCHG8B:
    case ZYDIS_MNEMONIC_CMPXCHG16B:
        break;
    default:
        return false;
    }
    // A constant count of one in the opcode itself (D0, D1) always shifts.
    return !(z->opcode == 0xd0 || z->opcode == 0xd1) || z->opcode_map != ZYDIS_OPCODE_MAP_DEFAULT;
}

// Flags that these leave undefined are overwritten by real processors; others keep theirs.
static bool flags_overwriting(const ZydisDecodedInstruction *z)
{
    return z->mnemonic == ZYDIS_MNEMONIC_AND || z->mnemonic == ZYDIS_MNEMONIC_OR || z->mnemonic == ZYDIS_MNEMONIC_XOR ||
           z->mnemonic == ZYDIS_MNEMONIC_TEST || z->mnemonic == ZYDIS_MNEMONIC_MUL ||
           z->mnemonic == ZYDIS_MNEMONIC_IMUL;
}

static void flag_facts(struct fact *f, const ZydisDecodedInstruction *z)
{
    if (!z->cpu_flags)
        return;
    const ZydisAccessedFlags *a = z->cpu_flags;
    f->flags_read = a->tested & FLAGS_STATUS;
    f->flags_touched = (a->modified | a->set_0 | a->set_1 | a->undefined) & FLAGS_STATUS;
    f->flags_set = flags_conditional(z) ? 0 : f->flags_touched;
    if (!flags_overwriting(z))
        f->flags_set &= ~(uint16_t)a->undefined;
}

// Seen by decoding the instruction with a displacement of 1. (SDM vol. 2, 2.7.5)
static uint8_t displacement_unit(const ZydisDecoder *decoder, const struct guest_insn *i, const uint8_t *bytes)
{
    uint8_t code[16];
    ZydisDecodedInstruction z;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    unsigned n = i->modrm_at;
    memcpy(code, bytes, n);
    code[n++] = 0x40 | (i->modrm & 0x38) | (i->has_sib ? 4 : 0);
    if (i->has_sib)
        code[n++] = i->sib;
    code[n++] = 1;
    memcpy(code + n, bytes + i->immediate_at, i->immediate_size);
    n += i->immediate_size;
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(decoder, code, n, &z, operands)))
        return 0;
    for (unsigned k = 0; k < z.operand_count_visible; k++)
        if (operands[k].type == ZYDIS_OPERAND_TYPE_MEMORY)
            return (uint8_t)operands[k].mem.disp.value;
    return 0;
}

void fact_compute(struct fact *f, const struct guest_insn *i, const uint8_t *bytes)
{
    ZydisDecoder decoder;
    ZydisDecodedInstruction z;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    if (i->bits == 64)
        ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    else if (i->bits == 32)
        ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
    else
        ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16);
    uint64_t key = f->key;
    *f = (struct fact){.key = key, .class = FACT_SENSITIVE};
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, bytes, i->length, &z, operands)) || z.length != i->length)
        return; // #UD: the architecture code says so
    f->mnemonic = z.mnemonic;
    f->isa = z.meta.isa_ext;
    f->isa_set = z.meta.isa_set;
    f->class = classify(&z);
    f->vector = vector_extension(z.meta.isa_ext);
    if (z.mnemonic == ZYDIS_MNEMONIC_CRC32 || z.mnemonic == ZYDIS_MNEMONIC_POPCNT)
        f->vector = false;
    f->x87 = z.meta.isa_ext == ZYDIS_ISA_EXT_X87 || z.meta.isa_ext == ZYDIS_ISA_EXT_MMX;
    for (unsigned n = 0; n < z.operand_count; n++)
        operand_facts(f, &operands[n], i->memory);
    if (z.mnemonic == ZYDIS_MNEMONIC_FNSTENV || z.mnemonic == ZYDIS_MNEMONIC_FLDENV)
        f->memory_size = decode_operand_size(i) == 2 ? 14 : 28;
    else if (z.mnemonic == ZYDIS_MNEMONIC_FNSAVE || z.mnemonic == ZYDIS_MNEMONIC_FRSTOR)
        f->memory_size = decode_operand_size(i) == 2 ? 94 : 108;
    if (z.mnemonic == ZYDIS_MNEMONIC_BSF || z.mnemonic == ZYDIS_MNEMONIC_BSR)
        f->reg_use |= USE_READ; // keeps its value when the source is zero
    flag_facts(f, &z);
    if (z.mnemonic == ZYDIS_MNEMONIC_DIV || z.mnemonic == ZYDIS_MNEMONIC_IDIV)
        f->flags_read = FLAGS_STATUS; // by the handler of a division error
    if (f->class == FACT_SYSCALL)
        f->flags_read = FLAGS_STATUS;                                                  // into R11
    if (i->encoding == ENCODING_LEGACY && i->map == 0 && (i->opcode & 0xfc) == 0xa0) { // MOV with an absolute offset
        f->implicit_memory = false;
        f->memory_use = i->opcode & 2 ? USE_WRITE : USE_READ;
        f->memory_size = i->opcode & 1 ? decode_operand_size(i) : 1;
    }
    if (f->class == FACT_PLAIN && (f->implicit_memory || (i->lock && !(z.attributes & ZYDIS_ATTRIB_HAS_LOCK))))
        f->class = FACT_SENSITIVE;
    if (i->encoding == ENCODING_EVEX && i->memory) {
        f->masked = (i->payload[2] & 7) && ((f->memory_use & USE_WRITE) || avx512_suppresses_faults(&z));
        f->displacement_unit = displacement_unit(&decoder, i, bytes);
    }
}

static uint64_t fact_key(const struct guest_insn *i)
{
    uint64_t k = 1;
    k = k << 2 | (i->bits >> 5);
    k = k << 2 | i->encoding;
    k = k << 3 | i->map;
    k = k << 8 | i->opcode;
    k = k << 2 | (i->rep == 0 ? 0 : i->rep == 0xf2 ? 1 : 2);
    k = k << 1 | i->opsize;
    k = k << 1 | i->w;
    k = k << 2 | i->vector_length;
    k = k << 1 | i->lock;
    k = k << 1 | (i->rex != 0);
    k = k << 1 | (i->has_modrm && !i->memory);
    k = k << 3 | (i->has_modrm ? i->modrm >> 3 & 7 : 0);
    bool rm_matters = i->has_modrm && !i->memory && i->encoding == ENCODING_LEGACY &&
                      ((i->map == 0 && (i->opcode & 0xf8) == 0xd8) || (i->map == 1 && (i->opcode | 0xaf) == 0xaf) ||
                       (i->map == 1 && (i->opcode == 1 || i->opcode == 0x1e)));
    k = k << 3 | (rm_matters ? i->modrm & 7 : 0);
    k = k << 1 | (i->encoding == ENCODING_LEGACY && i->map == 0 && i->opcode == 0x90 && (i->rex & 1));
    k = k << 4 | (i->encoding == ENCODING_EVEX ? ((i->payload[2] & 7) != 0) << 1 | (i->payload[2] >> 4 & 1) : 0);
    k = k << 1 | i->has_sib;
    k = k << 1 | i->addrsize;
    return k;
}

const struct fact *fact_find(struct fact_table *table, const struct guest_insn *insn, const uint8_t *bytes)
{
    uint64_t key = fact_key(insn);
    unsigned slot = (unsigned)(key * 0x9e3779b97f4a7c15ull >> 50) & (FACT_SLOTS - 1);
    for (unsigned n = 0; n < 8; n++) {
        struct fact *f = &table->slots[(slot + n) & (FACT_SLOTS - 1)];
        if (f->key == key)
            return f;
        if (!f->key) {
            f->key = key;
            fact_compute(f, insn, bytes);
            return f;
        }
    }
    fact_compute(&table->spare, insn, bytes);
    return &table->spare;
}
