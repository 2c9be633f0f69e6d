// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/conformance/random-code.h"

static uint64_t state;
static unsigned bits;
static bool segmented, vex_allowed;

void random_seed(uint64_t seed)
{
    state = seed;
}

uint64_t random_next(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}
unsigned pick(unsigned n)
{
    return (unsigned)(random_next() >> 20) % n;
}

// ---- The generator: pointers stay in P, small indexes in I, everything else is fair game ----------------------------

static const uint8_t pointers64[] = {RBX, R13, RBP}, pointers32[] = {RBX, RBP, RBX};
static const uint8_t indexes64[] = {RSI, R14}, indexes32[] = {RSI, RSI};
static const uint8_t any[] = {RAX, RCX, RDX, RDI, R8, R9, R10, R11, R12, R15};
#define pointers (bits == 64 ? pointers64 : pointers32)
#define indexes  (bits == 64 ? indexes64 : indexes32)

static uint8_t *code;
static unsigned length;

static void put(uint8_t b)
{
    code[length++] = b;
}
static void put32(uint32_t v)
{
    for (unsigned i = 0; i < 4; i++)
        put((uint8_t)(v >> 8 * i));
}

static unsigned destination(void)
{
    return any[pick(bits == 64 ? G_N_ELEMENTS(any) : 3)]; // DI would be BH
}
static unsigned source(void)
{
    return pick(8) ? destination() : pick(bits / 4 < 16 ? 8 : 16);
}

// An immediate of the operand size (at most 4 bytes), after PREFIX.
static void put_immediate(unsigned prefix)
{
    uint32_t v = (uint32_t)random_next();
    if ((bits == 16) == (prefix == 0x66)) {
        put32(v);
    } else {
        put((uint8_t)v);
        put((uint8_t)(v >> 8));
    }
}

static unsigned size_prefix(unsigned one_in)
{
    return pick(one_in) == 0 ? 0x66 : 0;
}

// What else may stand in front of a memory operand: segment, address size. Returns whether addresses have 16 bits.
static bool put_memory_prefixes(void)
{
    static const uint8_t overrides[] = {0x26, 0x36, 0x3e};
    bool other = segmented && pick(4) == 0;
    if (segmented && pick(4) == 0)
        put(overrides[pick(3)]);
    if (other)
        put(0x67);
    return (bits == 16) != other;
}

// ModRM and displacement of [BX], [BP], [BX+SI], [BP+SI].
static void put_memory16(unsigned reg)
{
    static const uint8_t forms[] = {7, 6, 0, 2};
    bool wide = pick(2);
    int displacement = (int)pick(256) - 128;
    put((wide ? 0x80 : 0x40) | (reg & 7) << 3 | forms[pick(4)]);
    put((uint8_t)displacement);
    if (wide)
        put((uint8_t)(displacement >> 8));
}

// [66] REX opcode ModRM: REG with a register or memory operand. EXTRA: 0x0f escapes in the high bytes.
static void operand_insn(unsigned prefix, unsigned w, unsigned opcode, unsigned reg, bool memory, unsigned rm,
                         bool byte)
{
    uint8_t base = pointers[pick(3)], index = indexes[pick(2)];
    bool use_index = pick(3) == 0, memory16 = memory && put_memory_prefixes();
    if (prefix)
        put((uint8_t)prefix);
    unsigned rex = w << 3 | (reg >> 3) << 2;
    rex |= memory ? (use_index ? (unsigned)(index >> 3) << 1 : 0u) | base >> 3 : rm >> 3;
    if (bits == 64 && (rex || byte))
        put(0x40 | rex);
    if (opcode > 0xffff)
        put((uint8_t)(opcode >> 16));
    if (opcode > 0xff)
        put((uint8_t)(opcode >> 8));
    put((uint8_t)opcode);
    if (!memory) {
        put(0xc0 | (reg & 7) << 3 | (rm & 7));
        return;
    }
    if (memory16) {
        put_memory16(reg);
        return;
    }
    bool wide = pick(2);
    put((wide ? 0x80 : 0x40) | (reg & 7) << 3 | (use_index ? 4 : base & 7));
    if (use_index)
        put(pick(4) << 6 | (index & 7) << 3 | (base & 7));
    int displacement = (int)pick(256) - 128;
    if (wide)
        put32((uint32_t)displacement * 4);
    else
        put((uint8_t)displacement);
}

static void insn_alu(bool memory)
{
    unsigned operation = pick(8), form = pick(4), w = pick(2), prefix = pick(6) == 0 ? 0x66 : 0;
    if (memory && form < 2)
        operand_insn(prefix, w, operation << 3 | (form & 1), source(), true, 0, !(form & 1)); // to memory
    else if (memory)
        operand_insn(prefix, w, operation << 3 | 2 | (form & 1), destination(), true, 0, !(form & 1));
    else
        operand_insn(prefix, w, operation << 3 | (form & 1), source(), false, destination(), !(form & 1));
}

static void insn_alu_imm(bool memory)
{
    unsigned w = pick(2), small = pick(2), prefix = segmented ? size_prefix(3) : 0;
    operand_insn(prefix, w, small ? 0x83 : 0x81, pick(8), memory, destination(), false);
    if (small)
        put((uint8_t)random_next());
    else
        put_immediate(prefix);
}

static void insn_mov(bool memory)
{
    static const unsigned opcodes[] = {0x88, 0x89, 0x8a, 0x8b};
    unsigned opcode = opcodes[pick(4)];
    bool load = opcode & 2;
    operand_insn(pick(6) == 0 ? 0x66 : 0, pick(2), opcode, load || !memory ? destination() : source(), memory,
                 destination(), !(opcode & 1));
}

static void insn_extend(bool memory)
{
    static const unsigned opcodes[] = {0x0fb6, 0x0fb7, 0x0fbe, 0x0fbf};
    operand_insn(0, pick(2), opcodes[pick(4)], destination(), memory, destination(), true);
}

static void insn_shift(bool memory)
{
    unsigned form = pick(3), byte = pick(4) == 0;
    static const unsigned operations[] = {0, 1, 2, 3, 4, 5, 7};
    operand_insn(0, pick(2),
                 (form == 0   ? 0xc0
                  : form == 1 ? 0xd0
                              : 0xd2) |
                     !byte,
                 operations[pick(7)], memory, destination(), byte);
    if (form == 0)
        put((uint8_t)random_next());
}

static void insn_unary(bool memory)
{
    unsigned operation = pick(6); // NOT, NEG, MUL, IMUL; INC, DEC
    if (operation < 4)
        operand_insn(0, pick(2), 0xf7, 2 + operation, memory, destination(), false);
    else
        operand_insn(0, pick(2), 0xff, operation - 4, memory, destination(), false);
}

static void insn_two_byte(bool memory)
{
    static const unsigned opcodes[] = {0x0faf, 0x0fbc, 0x0fbd, 0x0fc1, 0x0fb1};
    unsigned n = pick(5), condition = pick(16);
    switch (pick(4)) {
    case 0:
        operand_insn(0, pick(2), 0x0f40 | condition, destination(), memory, destination(), false);
        break;
    case 1:
        operand_insn(0, 0, 0x0f90 | condition, 0, memory, destination(), true);
        break;
    case 2:
        operand_insn(0, pick(2), 0x0fba, 4 + pick(4), memory, destination(), false);
        put((uint8_t)random_next());
        break;
    default:
        operand_insn(0, pick(2), opcodes[n], destination(), memory, destination(), false);
    }
}

static void insn_bmi(bool memory)
{
    // VEX: ANDN, BEXTR, BZHI, SARX, SHLX, SHRX, PDEP, PEXT, MULX
    static const struct {
        uint8_t pp, opcode;
    } forms[] = {{0, 0xf2}, {0, 0xf7}, {0, 0xf5}, {2, 0xf7}, {1, 0xf7}, {3, 0xf7}, {3, 0xf5}, {2, 0xf5}, {3, 0xf6}};
    unsigned n = pick(G_N_ELEMENTS(forms)), reg = destination(), v = n == 8 ? destination() : source();
    unsigned rm = memory ? pointers[pick(3)] : source();
    put(0xc4);
    put((reg & 8 ? 0 : 0x80) | 0x40 | (rm & 8 ? 0 : 0x20) | 2);
    put((uint8_t)((bits == 64 ? pick(2) : 0) << 7 | (~v & 15) << 3 | forms[n].pp));
    put(forms[n].opcode);
    if (memory) {
        put(0x40 | (reg & 7) << 3 | (rm & 7));
        put((uint8_t)pick(128));
    } else {
        put(0xc0 | (reg & 7) << 3 | (rm & 7));
    }
}

static void insn_lea(bool memory)
{
    operand_insn(segmented ? size_prefix(3) : 0, pick(2), 0x8d, destination(), true, 0, false);
}

static void insn_stack(bool memory)
{
    unsigned reg = destination();
    switch (pick(4)) {
    case 0:
        put(0x68);
        put_immediate(0);
        break;
    case 1:
        operand_insn(0, 0, 0xff, 6, memory, destination(), false);
        break;
    default:
        if (reg >= 8)
            put(0x41);
        put(0x50 | (reg & 7));
    }
    reg = destination();
    if (pick(4)) {
        if (reg >= 8)
            put(0x41);
        put(0x58 | (reg & 7));
    }
}

static void insn_sse(bool memory)
{
    static const struct {
        uint8_t prefix;
        uint16_t opcode;
        bool aligned;
    } forms[] = {{0xf2, 0x0f58, 0}, {0xf3, 0x0f59, 0}, {0xf2, 0x0f10, 0}, {0xf3, 0x0f11, 0},
                 {0xf3, 0x0f6f, 0}, {0xf3, 0x0f7f, 0}, {0x66, 0x0f6e, 0}, {0x66, 0x0f7e, 0},
                 {0xf2, 0x0f2a, 0}, {0x66, 0x0fef, 1}, {0x66, 0x0f70, 1}, {0, 0x0f10, 0},
                 {0, 0x0f11, 0},    {0x66, 0x0f2e, 0}, {0, 0x0f57, 1},    {0x66, 0x0fd4, 1}};
    unsigned n = pick(G_N_ELEMENTS(forms));
    bool gpr = forms[n].opcode == 0x0f6e || forms[n].opcode == 0x0f7e || forms[n].opcode == 0x0f2a;
    if (forms[n].aligned)
        memory = false;
    operand_insn(forms[n].prefix, gpr ? pick(2) : 0, forms[n].opcode, pick(bits / 4 < 16 ? 8 : 16), memory,
                 gpr ? destination() : pick(bits / 4 < 16 ? 8 : 16), false);
    if (forms[n].opcode == 0x0f70)
        put((uint8_t)random_next());
}

static void insn_flags(bool memory)
{
    if (bits != 64 && pick(2)) { // INC, DEC
        put(0x40 | pick(2) << 3 | destination());
        return;
    }
    static const uint8_t opcodes[] = {0xf5, 0xf8, 0xf9, 0x98, 0x99, 0x9f, 0x9e};
    put(opcodes[pick(G_N_ELEMENTS(opcodes))]);
}

static void insn_bits(bool memory) // bit strings: the register moves the address
{
    static const unsigned opcodes[] = {0x0fa3, 0x0fab, 0x0fb3, 0x0fbb};
    operand_insn(0, pick(2), opcodes[pick(4)], memory ? indexes[0] : source(), memory, destination(), false);
}

static void insn_high_byte(bool memory)
{
    static const uint8_t bases[] = {RBX & 7, RBP};
    unsigned reg = 4 + pick(3); // AH, CH, DH
    put(pick(2) ? 0x88 | (memory ? pick(2) << 1 : 0) : pick(8) << 3 | (memory ? pick(2) << 1 : 0));
    if (memory && bits == 16) {
        put_memory16(reg);
    } else if (memory) {
        put(0x40 | reg << 3 | bases[pick(2)]);
        put((uint8_t)pick(128));
    } else {
        put(0xc0 | reg << 3 | (4 + pick(3)));
    }
}

static void put_load(unsigned reg, uint32_t value) // MOV of 32 bits
{
    if (bits == 16)
        put(0x66);
    put(0xb8 | reg);
    put32(value);
}

// Strings within the data segment, either way; SI is a small index again afterwards.
static void insn_string(bool memory)
{
    static const uint8_t opcodes[] = {0xa4, 0xa6, 0xaa, 0xac, 0xae};
    static const uint8_t repeats[] = {0, 0xf2, 0xf3};
    uint8_t repeat = repeats[pick(3)];
    bool down = pick(4) == 0;
    put_load(RSI, 0x3000 + pick(0x800));
    put_load(RDI, 0x4000 + pick(0x800));
    put_load(RCX, pick(24));
    if (down)
        put(0xfd);
    if (pick(3) == 0)
        put(0x66);
    put_memory_prefixes();
    if (repeat)
        put(repeat);
    put(opcodes[pick(5)] | pick(2));
    if (down)
        put(0xfc);
    put_load(RSI, pick(64));
}

static void insn_condition(bool memory) // CMOVcc, SETcc
{
    if (pick(2))
        operand_insn(segmented ? size_prefix(3) : 0, pick(2), 0x0f40 | pick(16), destination(), memory, destination(),
                     false);
    else
        operand_insn(0, 0, 0x0f90 | pick(16), 0, memory, destination(), true);
}

// BMI with flags that are all defined or untouched: SARX, SHLX, SHRX, PDEP, PEXT, MULX. Registers only.
static void insn_vex(bool memory)
{
    static const struct {
        uint8_t pp, opcode;
    } forms[] = {{2, 0xf7}, {1, 0xf7}, {3, 0xf7}, {3, 0xf5}, {2, 0xf5}, {3, 0xf6}};
    unsigned n = pick(G_N_ELEMENTS(forms)), reg = destination(), v = destination(), rm = source() & 7;
    if (!vex_allowed) {
        insn_flags(memory);
        return;
    }
    put(0xc4);
    put(0xe2);
    put((uint8_t)((~v & 15) << 3 | forms[n].pp));
    put(forms[n].opcode);
    put(0xc0 | (reg & 7) << 3 | rm);
}

// Results of 32 bits whatever the code size: CVTTSD2SI, MOVMSKPD, PMOVMSKB, ADCX, ADOX, MOVNTI.
static void insn_wide(bool memory)
{
    switch (pick(6)) {
    case 0:
        operand_insn(0xf2, 0, 0x0f2c, destination(), memory, pick(8), false);
        break;
    case 1:
        operand_insn(0x66, 0, 0x0f50, destination(), false, pick(8), false);
        break;
    case 2:
        operand_insn(0x66, 0, 0x0fd7, destination(), false, pick(8), false);
        break;
    case 3:
    case 4:
        operand_insn(pick(2) ? 0x66 : 0xf3, 0, 0x0f38f6, destination(), memory, destination(), false);
        break;
    default:
        operand_insn(0, 0, 0x0fc3, destination(), true, 0, false);
    }
}

typedef void insn_maker(bool memory);
static insn_maker *const makers[] = {insn_alu,   insn_alu,   insn_alu_imm,  insn_mov,       insn_mov, insn_extend,
                                     insn_shift, insn_unary, insn_two_byte, insn_bmi,       insn_lea, insn_stack,
                                     insn_sse,   insn_sse,   insn_flags,    insn_high_byte, insn_bits};

// A division by zero, for sequences that may fault; rare.
static void insn_divide(bool memory)
{
    if (pick(4)) {
        insn_mov(memory);
        return;
    }
    put(0xb9); // mov ecx, 0
    put32(0);
    operand_insn(0, pick(2), 0xf7, 6 + pick(2), false, RCX, false);
}

// Of these the flags are defined, but for AF of AND, OR and XOR, which nothing here looks at.
static insn_maker *const defined[] = {insn_alu, insn_alu,    insn_alu_imm,   insn_mov,   insn_mov,   insn_lea,
                                      insn_sse, insn_extend, insn_high_byte, insn_stack, insn_divide};

static insn_maker *const in_segments[] = {insn_alu,   insn_alu,   insn_alu_imm, insn_alu_imm,   insn_mov,
                                          insn_mov,   insn_lea,   insn_sse,     insn_extend,    insn_high_byte,
                                          insn_stack, insn_flags, insn_flags,   insn_condition, insn_string,
                                          insn_vex,   insn_wide};

// A displacement of 16 or 32 bits to the present end.
static void close_jump(unsigned field)
{
    unsigned distance = length - field - (bits == 16 ? 2 : 4);
    code[field] = (uint8_t)distance;
    code[field + 1] = (uint8_t)(distance >> 8);
}

// Forward jumps and calls over a few instructions; loops are left to real programs.
static void generate(insn_maker *const *from, unsigned makers_count)
{
    unsigned count = 2 + pick(39);
    length = 0;
    unsigned open_field = 0, open_left = 0;
    for (unsigned n = 0; n < count; n++) {
        if (!open_left && pick(5) == 0) {
            unsigned kind = pick(4);
            if (kind < 3) { // conditional jump
                put(0x0f);
                put(0x80 | pick(16));
            } else { // call
                put(0xe8);
            }
            open_field = length;
            put(0), put(0);
            if (bits != 16)
                put(0), put(0);
            open_left = 1 + pick(4);
        }
        from[pick(makers_count)](pick(2));
        if (open_left && --open_left == 0)
            close_jump(open_field);
    }
    if (open_left)
        close_jump(open_field);
}

unsigned random_code(unsigned code_bits, uint8_t to[RANDOM_CODE_MAX])
{
    bits = code_bits;
    segmented = false;
    code = to;
    generate(makers, G_N_ELEMENTS(makers));
    return length;
}

unsigned random_code_defined(unsigned code_bits, uint8_t to[RANDOM_CODE_MAX])
{
    bits = code_bits;
    segmented = false;
    code = to;
    generate(defined, G_N_ELEMENTS(defined));
    return length;
}

unsigned random_code_segmented(unsigned code_bits, bool vex, uint8_t to[RANDOM_CODE_MAX])
{
    bits = code_bits;
    segmented = true;
    vex_allowed = vex;
    code = to;
    generate(in_segments, G_N_ELEMENTS(in_segments));
    return length;
}

const uint8_t *random_pointers(unsigned code_bits)
{
    return code_bits == 64 ? pointers64 : pointers32;
}

const uint8_t *random_indexes(unsigned code_bits)
{
    return code_bits == 64 ? indexes64 : indexes32;
}
