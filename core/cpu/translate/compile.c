// SPDX-License-Identifier: GPL-2.0-or-later
// Compiles one block: collects a trace, computes which status flags are live where, emits each instruction, then the
// stubs (slow paths, links) behind it.
#include <Zydis/Zydis.h>

#include "core/cpu/interpret/avx512.h"
#include "core/cpu/model.h"
#include "core/cpu/translate/compile.h"
#include "core/cpu/translate/system.h"

struct stub *stub_new(struct compiler *c, unsigned kind, uint8_t *field)
{
    g_assert(c->stub_count < STUBS_MAX);
    struct stub *s = &c->stubs[c->stub_count++];
    *s = (struct stub){.kind = kind, .field = field};
    return s;
}

// ---- The trace --------------------------------------------------------------------------------------------------

static bool ends_trace(const struct trace_insn *i)
{
    switch (i->fact.class) {
    case FACT_PLAIN:
    case FACT_NOP:
    case FACT_LEA:
    case FACT_DF:
    case FACT_PUSH:
    case FACT_POP:
    case FACT_LEAVE:
    case FACT_JCC:
    case FACT_LOOP:
    case FACT_IF:
    case FACT_SWAPGS:
    case FACT_PUSHF:
    case FACT_POPF:
    case FACT_STRING:
    case FACT_RDTSC:
    case FACT_MOV_SEG: // what is not translated leaves the block by itself
        return false;
    default:
        return true;
    }
}

static bool needs_avx512(const struct trace_insn *i)
{
    return i->insn.encoding == ENCODING_EVEX || i->fact.isa == ZYDIS_ISA_EXT_AVX512VEX;
}

// Extensions that the guest's CPU model may hide: the interpreter raises #UD then.
static bool hidden(const struct compiler *c, const struct trace_insn *i)
{
    const struct fact *f = &i->fact;
    static const struct {
        uint8_t isa;
        uint16_t feature;
    } gates[] = {
        {ZYDIS_ISA_EXT_ADOX_ADCX, FEATURE_ADX},     {ZYDIS_ISA_EXT_AVX2, FEATURE_AVX2},
        {ZYDIS_ISA_EXT_BMI1, FEATURE_BMI1},         {ZYDIS_ISA_EXT_BMI2, FEATURE_BMI2},
        {ZYDIS_ISA_EXT_F16C, FEATURE_F16C},         {ZYDIS_ISA_EXT_FMA, FEATURE_FMA},
        {ZYDIS_ISA_EXT_RDRAND, FEATURE_RDRAND},     {ZYDIS_ISA_EXT_RDSEED, FEATURE_RDSEED},
        {ZYDIS_ISA_EXT_SHA, FEATURE_SHA},           {ZYDIS_ISA_EXT_GFNI, FEATURE_GFNI},
        {ZYDIS_ISA_EXT_VAES, FEATURE_VAES},         {ZYDIS_ISA_EXT_VPCLMULQDQ, FEATURE_VPCLMULQDQ},
        {ZYDIS_ISA_EXT_AVX_VNNI, FEATURE_AVX_VNNI}, {ZYDIS_ISA_EXT_MOVDIR, FEATURE_MOVDIRI},
    };
    if (needs_avx512(i))
        return !avx512_shown(c->t->set->model, f->isa_set);
    for (unsigned n = 0; n < G_N_ELEMENTS(gates); n++)
        if (gates[n].isa == f->isa)
            return !cpu_has(c->t->set->model, gates[n].feature);
    return false;
}

// VMASKMOVPS, VMASKMOVPD, VPMASKMOVD, VPMASKMOVQ.
static bool is_masked_move(const struct guest_insn *i)
{
    return i->encoding == ENCODING_VEX && i->map == 2 && i->memory &&
           ((i->opcode >= 0x2c && i->opcode <= 0x2f) || i->opcode == 0x8c || i->opcode == 0x8e);
}

// What the mode forbids goes to the interpreter, which raises the right exception.
static void apply_mode(const struct compiler *c, struct trace_insn *i)
{
    struct fact *f = &i->fact;
    if (f->class == FACT_MASKED && is_masked_move(&i->insn)) {
        f->class = FACT_PLAIN;
        f->masked = true;
    }
    if (f->class == FACT_MASKED || (f->class == FACT_PLAIN && hidden(c, i)))
        f->class = FACT_SENSITIVE;
    if (f->class == FACT_PLAIN && f->vector) {
        bool allowed = f->x87                                ? c->mode & MODE_X87
                       : i->insn.encoding == ENCODING_LEGACY ? c->mode & MODE_SSE
                       : needs_avx512(i)                     ? c->mode & MODE_AVX512
                                                             : c->mode & MODE_AVX;
        if (!allowed)
            f->class = FACT_SENSITIVE;
    }
    if (c->bits != 64 && (decode_address_size(&i->insn) == 2) && i->insn.memory)
        f->class = FACT_SENSITIVE;
    bool high_byte = f->reg_byte && !i->insn.rex && i->insn.reg >= 4 && i->insn.reg < 8;
    if (f->class == FACT_PLAIN && i->insn.memory && high_byte && i->insn.encoding != ENCODING_LEGACY)
        f->class = FACT_SENSITIVE;
}

static bool trace_append(struct compiler *c, uint64_t at)
{
    unsigned in_page = at & ~PAGE_MASK;
    const uint8_t *bytes = c->host_page + in_page;
    struct trace_insn *i = &c->insns[c->count];
    *i = (struct trace_insn){.bytes = bytes, .offset = (uint16_t)(at - c->address)};
    enum decode_result r = decode_fields(&i->insn, bytes, (unsigned)(PAGE_SIZE - in_page), c->bits);
    if (r == DECODE_TRUNCATED && c->count)
        return false;
    if (r == DECODE_TRUNCATED && c->second_page != NO_PAGE) {
        unsigned here = (unsigned)(PAGE_SIZE - in_page);
        memcpy(c->joined, bytes, here);
        memcpy(c->joined + here, c->t->set->host.ram->host + c->second_page, sizeof c->joined - here);
        i->bytes = bytes = c->joined;
        r = decode_fields(&i->insn, bytes, 15, c->bits);
        c->block->second_page = c->second_page;
    }
    if (r == DECODE_OK) {
        i->fact = *fact_find(c->t->facts, &i->insn, bytes);
    } else {
        i->insn.length = 1;
        i->fact.class = FACT_SENSITIVE;
    }
    if (i->fact.class == FACT_SENSITIVE) {
        i->fact.flags_read = FLAGS_ALL;
        i->fact.flags_touched = FLAGS_ALL;
    }
    apply_mode(c, i);
    c->count++;
    return true;
}

static void trace_collect(struct compiler *c)
{
    uint64_t at = c->address;
    unsigned jumps = 0;
    while (c->count < TRACE_MAX && (at & PAGE_MASK) == c->page) {
        if (!trace_append(c, at))
            break;
        struct trace_insn *i = &c->insns[c->count - 1];
        at += i->insn.length;
        if (ends_trace(i) || c->block->second_page != NO_PAGE || (c->checks && writes_memory(i)))
            break;
        if ((i->fact.class == FACT_JCC || i->fact.class == FACT_LOOP) && ++jumps >= TRACE_JUMPS)
            break;
    }
}

static uint64_t branch_target(const struct compiler *c, const struct guest_insn *i, uint64_t address)
{
    uint64_t target = address + i->length + (uint64_t)i->immediate;
    return c->bits == 64 ? target : decode_operand_size(i) == 2 ? (uint16_t)target : (uint32_t)target;
}

// The guest page of ADDRESS as it is mapped now, or NULL.
static const uint8_t *peek_page(struct compiler *c, uint64_t address)
{
    if ((address & PAGE_MASK) == c->page)
        return c->host_page;
    if ((address & PAGE_MASK) == c->peeked)
        return c->peeked_host;
    uint64_t gpa;
    c->peeked = address & PAGE_MASK;
    c->peeked_host = NULL;
    if (page_peek(c->context->vcpu, c->peeked, &gpa))
        c->peeked_host = address_space_dma(c->t->set->host.memory, gpa & PAGE_MASK, PAGE_SIZE, NULL);
    return c->peeked_host;
}

static bool peeks_at_rewritten(struct compiler *c, const uint8_t *page)
{
    return c->t->rewritten && page != c->host_page &&
           page_rewritten(c->t, (uint64_t)(page - c->t->set->host.ram->host));
}

// A write to what was looked at within the page undoes the block. In other pages it would not be seen: what jumps there
// by JMP and CALL is taken not to pass flags to code that changes.
static void note_peek(struct compiler *c, uint64_t address, unsigned length)
{
    unsigned from = address & ~PAGE_MASK;
    for (unsigned i = from >> 3; (address & PAGE_MASK) == c->page && i <= (from + length - 1) >> 3 && i < 512; i++)
        c->peeks[i >> 6] |= BIT(i & 63);
}

static uint16_t live_at(struct compiler *c, uint64_t address, bool far)
{
    uint16_t live = 0, dead = 0;
    uint64_t here = far ? address & PAGE_MASK : c->page;
    for (unsigned n = 0; n < 8; n++) {
        const uint8_t *page = (address & PAGE_MASK) == here ? peek_page(c, address) : NULL;
        if (!page || peeks_at_rewritten(c, page))
            break;
        unsigned in_page = address & ~PAGE_MASK;
        struct guest_insn i;
        if (decode_fields(&i, page + in_page, (unsigned)(PAGE_SIZE - in_page), c->bits) != DECODE_OK)
            break;
        note_peek(c, address, i.length);
        const struct fact *f = fact_find(c->t->facts, &i, page + in_page);
        if (f->class == FACT_SENSITIVE || (f->class > FACT_LOOP && f->class < FACT_PUSH))
            break;
        live |= f->flags_read & ~dead;
        dead |= f->flags_set;
        if (dead == FLAGS_ALL)
            return live;
        if ((f->class == FACT_JMP || f->class == FACT_CALL) && !i.has_modrm && i.opcode >= 0xe8) {
            address = branch_target(c, &i, address);
            here = address & PAGE_MASK;
            continue;
        }
        if (f->class != FACT_PLAIN && f->class != FACT_LEA && f->class != FACT_PUSH && f->class != FACT_POP &&
            f->class != FACT_NOP && f->class != FACT_LEAVE)
            break;
        address += i.length;
    }
    return live | (FLAGS_ALL & ~dead);
}

// Which status flags the code at ADDRESS may read before it sets them. FAR: a JMP or CALL leads there. The same targets
// are asked for twice.
uint16_t flags_live_at(struct compiler *c, uint64_t address, bool far)
{
    if (c->t->exact_flags || c->checks)
        return FLAGS_ALL; // what is there now may be something else when it runs
    for (unsigned n = 0; n < c->known_count; n++)
        if (c->known[n].address == address && c->known[n].far == far)
            return c->known[n].live;
    uint16_t live = live_at(c, address, far);
    if (c->known_count < G_N_ELEMENTS(c->known)) {
        c->known[c->known_count].address = address;
        c->known[c->known_count].far = far;
        c->known[c->known_count++].live = live;
    }
    return live;
}

static void trace_liveness(struct compiler *c)
{
    struct trace_insn *last = &c->insns[c->count - 1];
    uint16_t live = FLAGS_ALL;
    uint64_t end = c->address + last->offset + last->insn.length;
    if (!ends_trace(last))
        live = flags_live_at(c, end, false);
    else if ((last->fact.class == FACT_JMP || last->fact.class == FACT_CALL) && !last->insn.has_modrm)
        live = flags_live_at(c, branch_target(c, &last->insn, c->address + last->offset), true);
    for (unsigned n = c->count; n-- > 0;) {
        struct trace_insn *i = &c->insns[n];
        if (i->fact.class == FACT_JCC || i->fact.class == FACT_LOOP)
            live |= flags_live_at(c, branch_target(c, &i->insn, c->address + i->offset), false);
        i->live_after = live;
        live = c->t->exact_flags ? FLAGS_ALL : (live & ~i->fact.flags_set) | i->fact.flags_read;
        i->live_before = live;
    }
}

// ---- Flags --------------------------------------------------------------------------------------------------------

static void flags_save_sequence(struct emitter *e)
{
    emit_mov_reg(e, HOST_T, RAX);
    emit8(e, 0x9f);                                 // lahf
    emit8(e, 0x0f), emit8(e, 0x90), emit8(e, 0xc0); // seto al
    emit_op_mem(e, EMIT_66, 0x89, RAX, MEM_CONTEXT(saved_flags));
    emit_mov_reg(e, RAX, HOST_T);
}

void flags_restore_sequence(struct emitter *e)
{
    emit_mov_reg(e, HOST_T, RAX);
    emit_op_mem(e, 0, 0x0fb7, RAX, MEM_CONTEXT(saved_flags));
    emit8(e, 0x04), emit8(e, 0x7f); // add al, 0x7f
    emit8(e, 0x9e);                 // sahf
    emit_mov_reg(e, RAX, HOST_T);
}

void flags_need_saved(struct compiler *c)
{
    if (!c->saved_valid && c->host_valid)
        flags_save_sequence(&c->e);
    c->saved_valid = true;
}

void flags_clobber(struct compiler *c)
{
    if (c->i->live_before)
        flags_need_saved(c);
    c->host_valid = false;
    c->clobbered = true;
}

void flags_need_host(struct compiler *c)
{
    if (!c->host_valid && c->saved_valid)
        flags_restore_sequence(&c->e);
    c->host_valid = true;
}

// ---- Emission -----------------------------------------------------------------------------------------------------

static void boundary_add(struct compiler *c, unsigned guest)
{
    struct boundary *b = &c->boundaries[c->boundary_count++];
    *b = (struct boundary){.host = (uint32_t)(emit_here(&c->e) - c->block->host),
                           .flags = c->host_valid ? FLAGS_HOST : FLAGS_SAVED,
                           .guest = (uint16_t)guest};
    b->fault = b->flags;
}

static void check_vector(struct compiler *c)
{
    if (c->vector_checked)
        return;
    flags_clobber(c);
    emit_op_mem(&c->e, 0, 0x83, 7, MEM_CONTEXT(vector_loaded));
    emit8(&c->e, 0);
    stub_new(c, STUB_VECTOR, emit_jcc_forward(&c->e, 4));
    c->vector_checked = true;
}

// RDRAND, RDSEED: where the state is compared, their results must be known.
static bool random_number(const struct guest_insn *i)
{
    return i->encoding == ENCODING_LEGACY && i->map == 1 && i->opcode == 0xc7 && !i->memory;
}

static void translate_one(struct compiler *c)
{
    const struct fact *f = &c->i->fact;
    switch (f->class) {
    case FACT_PLAIN:
        if (c->t->single && random_number(&c->i->insn))
            break;
        if (c->checks && translate_loose(c))
            return;
        if (f->vector)
            check_vector(c);
        translate_plain(c);
        return;
    case FACT_NOP:
        return;
    case FACT_LEA:
        translate_lea(c);
        return;
    case FACT_DF:
        emit_store_imm32(&c->e, c->i->insn.opcode == 0xfd ? FLAG_DF : 0, MEM_CONTEXT(direction));
        return;
    case FACT_JCC:
        translate_jcc(c);
        return;
    case FACT_LOOP:
        translate_loop(c);
        return;
    case FACT_JMP:
        translate_jmp(c);
        return;
    case FACT_CALL:
        translate_call(c);
        return;
    case FACT_RET:
        translate_ret(c);
        return;
    case FACT_PUSH:
        if (translate_push(c))
            return;
        break;
    case FACT_POP:
        if (translate_pop(c))
            return;
        break;
    case FACT_LEAVE:
        translate_leave(c);
        return;
    case FACT_SENSITIVE:
        break;
    default:
        if (translate_system(c))
            return;
    }
    translate_interpret(c);
}

// The entry of indirect jumps: HOST_A must be this block's address, and its page mapped as when it was translated.
static void emit_indirect_entry(struct compiler *c, uint16_t live)
{
    struct emitter *e = &c->e;
    c->block->indirect = emit_here(e);
    if ((uint64_t)(int64_t)(int32_t)c->address == c->address) {
        emit_op_reg(e, EMIT_W, 0x81, 7, HOST_A);
        emit32(e, (uint32_t)c->address);
        e->fixed = true;
    } else {
        emit_guest_address(e, HOST_T, c->address);
        emit_op_reg(e, EMIT_W, 0x3b, HOST_A, HOST_T);
    }
    emit_jcc(e, 5, c->t->thunks.lookup);
    emit_op_mem(e, 0, 0x81, 7,
                MEM_CONTEXT_AT(offsetof(struct context, fetch) + 4 * fetch_slot(c->t, c->page, c->mode)));
    e->at -= 4;
    reloc_note(e, RELOC_FETCH);
    e->at += 4;
    emit32(e, c->block->page_id);
    emit_jcc(e, 5, c->t->thunks.lookup);
    if (live)
        flags_restore_sequence(e);
}

// Bytes of the mapping check in front of a link to another page: without and with flags that live across it.
#define CHECK_DEAD 24
#define CHECK_LIVE 48

static void emit_link_stub(struct compiler *c, struct stub *s)
{
    struct emitter *e = &c->e;
    uint8_t *check = NULL;
    bool cross = (s->target & PAGE_MASK) != c->page;
    if (cross) { // filled in by link_make()
        check = emit_here(e);
        for (unsigned n = 0; n < (s->live ? CHECK_LIVE : CHECK_DEAD); n += 8)
            emit_nop(e, 8);
    }
    uint32_t begin = s->field ? host32(emit_here(e)) : 0;
    if (s->field)
        emit_patch(e, s->field);
    if (cross && s->live)
        flags_restore_sequence(e);
    emit8(e, 0x4c), emit8(e, 0x8d), emit8(e, 0x35), emit32(e, 5); // lea r14, [rip + 5]
    emit_jmp(e, c->t->thunks.link);
    struct link_site site = {.target = s->target,
                             .field = s->field ? host32(s->field + e->shift) : host32(c->block->host + 1),
                             .check = host32(check),
                             .stub = begin,
                             .block = (uint32_t)(c->block - c->t->blocks),
                             .live = s->live,
                             .noshare = s->noshare};
    reloc_note(e, RELOC_LINK);
    emit_bytes(e, &site, sizeof site);
}

static void emit_slow_stub(struct compiler *c, struct stub *s)
{
    struct emitter *e = &c->e;
    emit_patch(e, s->field);
    if (s->constant && s->moves)
        emit_guest_address(e, HOST_A, s->target);
    else if (s->constant)
        emit_mov_imm(e, HOST_A, s->target);
    else // the address again
        emit_op_mem(e, EMIT_W, 0x33, HOST_A, check_entry(c, s->use, offsetof(struct fast_entry, tag)));
    emit8(e, 0x4c), emit8(e, 0x8d), emit8(e, 0x35), emit32(e, 5);
    emit_jmp(e, c->t->thunks.slow);
    uint8_t *site_at = e->at;
    struct slow_site site = {.resume = host32(s->core + e->shift),
                             .after = host32(s->core_end + e->shift),
                             .size = s->size,
                             .use = s->use,
                             .kind = (uint8_t)fast_kind_of(c),
                             .guest = s->guest,
                             .length = s->boundary_after ? s->length : 0,
                             .flags_after = s->flags_after,
                             .block = (uint32_t)(c->block - c->t->blocks)};
    uint8_t *copy_at = e->at + sizeof site;
    site.copy = host32(copy_at + e->shift);
    reloc_note(e, RELOC_SLOW);
    emit_bytes(e, &site, sizeof site);
    reloc_copy(e, s->core, s->core_end);
    emit_bytes(e, s->core, (unsigned)(s->core_end - s->core));
    emit_lea_code(e, HOST_T, site_at + e->shift);
    emit_jmp(e, c->t->thunks.commit);
}

// A check of a whole range failed: try to fill the TLB and check again. Else go on in a translation without sharing, or
// with a masked move in the interpreter, which knows the bytes that count.
static void emit_share_stub(struct compiler *c, struct stub *s)
{
    struct emitter *e = &c->e;
    emit_patch(e, s->field);
    // The right page, but the range runs over its end: no need to ask.
    emit_op_reg(e, EMIT_W, 0x81, 7, HOST_A);
    emit32(e, PAGE_SIZE);
    uint8_t *crosses = emit_jcc_forward(e, 2);
    emit_op_mem(e, EMIT_W, 0x33, HOST_A, check_entry(c, s->use, offsetof(struct fast_entry, tag))); // the address again
    emit8(e, 0x4c), emit8(e, 0x8d), emit8(e, 0x35), emit32(e, 5);
    emit_jmp(e, c->t->thunks.slow);
    struct slow_site site = {.resume = host32(s->core + e->shift),
                             .size = s->size,
                             .use = s->use | USE_SHARED,
                             .kind = (uint8_t)fast_kind_of(c),
                             .guest = s->guest,
                             .block = (uint32_t)(c->block - c->t->blocks)};
    site.copy = host32(e->at + sizeof site + e->shift);
    reloc_note(e, RELOC_SLOW);
    emit_bytes(e, &site, sizeof site);
    emit_patch(e, crosses);
    if (s->kind == STUB_MASKED) {
        emit_guest_address(e, HOST_A, s->target);
        emit_jmp(e, c->t->thunks.interpret_saved);
        return;
    }
    if (s->live)
        flags_restore_sequence(e);
    emit_align_field(e, 1);
    uint8_t *field = emit_jmp_forward(e); // to that translation, once it is linked
    struct stub link = {.kind = STUB_LINK, .field = field, .target = s->target, .live = 0, .noshare = true};
    emit_link_stub(c, &link);
}

static void emit_system_stub(struct compiler *c, struct stub *s)
{
    struct emitter *e = &c->e;
    emit_patch(e, s->field);
    for (unsigned n = 0; n < s->more_count; n++)
        emit_patch(e, s->more[n]);
    emit8(e, 0x4c), emit8(e, 0x8d), emit8(e, 0x35), emit32(e, 5);
    emit_jmp(e, c->t->thunks.system);
    struct system_site site = {.after = host32(s->core + e->shift),
                               .op = s->op,
                               .size = (uint8_t)s->size,
                               .opcode = s->opcode,
                               .rep = s->rep,
                               .rip = s->target,
                               .next = s->next};
    reloc_note(e, RELOC_SYSTEM);
    emit_bytes(e, &site, sizeof site);
}

static void emit_stubs(struct compiler *c)
{
    struct emitter *e = &c->e;
    for (unsigned n = 0; n < c->stub_count; n++) {
        struct stub *s = &c->stubs[n];
        switch (s->kind) {
        case STUB_SLOW:
            emit_slow_stub(c, s);
            break;
        case STUB_LINK:
            emit_link_stub(c, s);
            break;
        case STUB_SYSTEM:
            emit_system_stub(c, s);
            break;
        case STUB_SHARE:
        case STUB_MASKED:
            emit_share_stub(c, s);
            break;
        case STUB_LOOKUP: // exit_reason is EXIT_LOOKUP unless set
            emit_patch(e, s->field);
            emit_store_imm32(e, EXIT_LOOKUP, MEM_CONTEXT(exit_reason));
            emit_guest_address(e, HOST_A, s->target);
            emit_jmp(e, c->t->thunks.exit_saved);
            break;
        case STUB_STALE:
            emit_patch(e, s->field);
            emit_store_imm32(e, (uint32_t)(c->block - c->t->blocks), MEM_CONTEXT(stale));
            emit_store_imm32(e, EXIT_STALE, MEM_CONTEXT(exit_reason));
            emit_guest_address(e, HOST_A, c->address);
            emit_jmp(e, c->t->thunks.exit_saved);
            break;
        case STUB_INTERPRET:
            emit_patch(e, s->field);
            emit_guest_address(e, HOST_A, s->target);
            emit_jmp(e, c->t->thunks.interpret_saved);
            break;
        case STUB_VECTOR:
            emit_patch(e, s->field);
            emit_lea_code(e, HOST_T, s->field + 4 + e->shift);
            emit_jmp(e, c->t->thunks.vector);
            break;
        }
    }
}

static struct block *finish(struct compiler *c)
{
    struct translator *t = c->t;
    struct block *b = c->block;
    struct trace_insn *last = &c->insns[c->count - 1];
    b->length = last->offset + last->insn.length;
    // The way out of a dead block: its entry is patched to jump here, later to its successor.
    uint8_t *leave = emit_here(&c->e);
    struct stub dead = {
        .kind = STUB_LINK, .target = c->address, .live = FLAGS_ALL, .noshare = (c->mode & MODE_NOSHARE) != 0};
    emit_link_stub(c, &dead);
    b->leave = leave;
    while ((uintptr_t)c->e.at & 7)
        emit8(&c->e, 0xcc);
    b->boundary = (struct boundary *)c->e.at;
    emit_bytes(&c->e, c->boundaries, c->boundary_count * sizeof *c->boundaries);
    b->boundaries = c->boundary_count;
    b->fixed = c->e.fixed;
    b->relocs = b->fixed ? 0 : (uint16_t)c->e.reloc_count;
    b->reloc = (struct reloc *)c->e.at;
    emit_bytes(&c->e, c->relocs, b->relocs * sizeof *b->reloc);
    b->end = emit_here(&c->e);
    if (c->e.overflow)
        return NULL;
    donor_add(t, b);
    c->context->counters.translations++;
    c->context->counters.translated_bytes += b->length;
    c->context->counters.host_bytes += b->end - b->indirect;
    t->used = ALIGN_UP((size_t)(b->end - t->code), (size_t)16);
    if (t->perf_map)
        fprintf(t->perf_map, "%lx %lx guest_%lx_%x\n", (unsigned long)(uintptr_t)b->indirect,
                (unsigned long)(b->end - b->indirect), (unsigned long)b->address, b->mode);
    block_publish(t, b);
    if (!b->checks) {
        struct code_page *page = code_page_get(t, b->ram_page, true);
        for (unsigned n = 0; n < G_N_ELEMENTS(page->bitmap); n++)
            page->bitmap[n] |= c->peeks[n];
    }
    return b;
}

bool insn_spans_pages(struct translator *t, uint64_t address, uint32_t mode, uint64_t ram_page)
{
    struct guest_insn i;
    unsigned in_page = address & ~PAGE_MASK;
    return in_page > PAGE_SIZE - 15 &&
           decode_fields(&i, t->set->host.ram->host + ram_page + in_page, (unsigned)(PAGE_SIZE - in_page),
                         mode & MODE_64 ? 64 : 32) == DECODE_TRUNCATED;
}

// An instruction that ends in the next page: is that page still the one that was translated?
static void check_second_page(struct compiler *c)
{
    uint64_t next = c->page + PAGE_SIZE;
    c->i = &c->insns[0];
    flags_clobber(c);
    emit_op_mem(&c->e, 0, 0x81, 7,
                MEM_CONTEXT_AT(offsetof(struct context, fetch) + 4 * fetch_slot(c->t, next, c->mode)));
    emit32(&c->e, code_page_id(c->t, next, c->mode, c->second_page));
    stub_new(c, STUB_LOOKUP, emit_jcc_forward(&c->e, 5))->target = c->address;
}

static bool jumps(const struct trace_insn *i)
{
    return i->fact.class == FACT_JCC || i->fact.class == FACT_LOOP;
}

// Counts instruction N and those behind it up to the next one that may leave.
static void count_retired(struct compiler *c, unsigned n)
{
    unsigned count = 1;
    if (!c->t->counting || (n && !jumps(&c->insns[n - 1])))
        return;
    while (n + count < c->count && !jumps(&c->insns[n + count - 1]))
        count++;
    emit_load(&c->e, HOST_T, MEM_CONTEXT(retired));
    emit_op_mem(&c->e, EMIT_W, 0x8d, HOST_T, MEM_BASE(HOST_T, (int32_t)count)); // lea: the flags stay
    emit_store(&c->e, HOST_T, MEM_CONTEXT(retired));
}

struct block *block_translate(struct context *context, uint64_t address, uint32_t mode, uint64_t ram_page,
                              uint64_t second_page, bool checks)
{
    struct translator *t = context->translator;
    struct block *block = second_page == NO_PAGE && !checks ? block_relocate(context, address, mode, ram_page) : NULL;
    if (block)
        return block;
    block = block_new(t, address, mode, ram_page);
    if (!block)
        return NULL;
    static _Thread_local struct compiler compiler; // large
    struct compiler *c = &compiler;
    c->context = context;
    c->t = t;
    c->block = block;
    c->address = address;
    c->page = address & PAGE_MASK;
    c->host_page = t->set->host.ram->host + ram_page;
    c->checks = block->checks = checks;
    if (checks)
        c->host_page = memcpy(c->copy, c->host_page, PAGE_SIZE);
    c->mode = mode;
    c->second_page = second_page;
    c->bits = mode & MODE_64 ? 64 : 32;
    c->count = c->boundary_count = c->stub_count = c->known_count = 0;
    c->peeked = 1;
    memset(c->shares, 0, sizeof c->shares);
    memset(c->peeks, 0, sizeof c->peeks);
    c->host_valid = true;
    c->saved_valid = c->vector_checked = c->ended = c->no_boundary = false;
    c->e = (struct emitter){.at = t->code_write + t->used,
                            .start = t->code_write + t->used,
                            .end = t->code_write + t->limit,
                            .shift = t->code - t->code_write,
                            .relocs = c->relocs};
    block->page_id = code_page_id(t, c->page, mode, ram_page);
    trace_collect(c);
    trace_liveness(c);
    emit_indirect_entry(c, checks ? FLAGS_ALL : c->insns[0].live_before);
    while ((uintptr_t)emit_here(&c->e) & 7)
        emit_nop(&c->e, 8 - ((uintptr_t)emit_here(&c->e) & 7));
    block->host = emit_here(&c->e);
    emit_nop(&c->e, 5); // where a dead block is cut off
    if (checks)
        check_own_bytes(c);
    if (block->second_page != NO_PAGE)
        check_second_page(c);
    for (unsigned n = 0; n < c->count; n++) {
        c->i = &c->insns[n];
        count_retired(c, n);
        if (!c->no_boundary)
            boundary_add(c, c->i->offset);
        c->no_boundary = c->clobbered = false;
        translate_one(c);
        if (c->clobbered)
            c->boundaries[c->boundary_count - 1].fault = FLAGS_SAVED;
        if (c->ended)
            break;
        share_step(c);
    }
    if (!c->ended) {
        uint64_t next = next_address(c);
        boundary_add(c, (unsigned)(next - address));
        if (c->i->live_after)
            flags_need_host(c);
        emit_link(c, next, false);
    }
    block->stubs = emit_here(&c->e);
    emit_stubs(c);
    return finish(c);
}

// ---- Links --------------------------------------------------------------------------------------------------------

// Lets the exit at SITE go straight to TARGET. Other vCPUs may run both.
void link_make(struct translator *t, const struct link_site *site, struct block *target)
{
    const struct block *from = &t->blocks[site->block];
    const uint8_t *go = target->host;
    uint64_t page = target->address & PAGE_MASK;
    if (page != (from->address & PAGE_MASK)) {
        if (!site->check)
            return;
        const uint8_t *check = (const uint8_t *)(uintptr_t)site->check;
        struct emitter e = {.at = writable(t, check), .shift = t->code - t->code_write};
        unsigned size = site->live ? CHECK_LIVE : CHECK_DEAD;
        e.end = e.at + size;
        if (*e.at == LINK_MADE)
            return; // made before, to another page that is mapped there in another address space
        const uint8_t *miss = check + size;
        emit_op_mem(&e, 0, 0x81, 7,
                    MEM_CONTEXT_AT(offsetof(struct context, fetch) + 4 * fetch_slot(t, page, target->mode)));
        emit32(&e, target->page_id);
        emit_jcc(&e, 5, miss);
        if (site->live)
            flags_restore_sequence(&e);
        emit_jmp(&e, target->host);
        g_assert(!e.overflow);
        go = check;
    }
    const uint8_t *field = (const uint8_t *)(uintptr_t)site->field;
    int32_t rel = (int32_t)(go - (field + 4));
    __atomic_store_n((int32_t *)writable(t, field), rel, __ATOMIC_RELEASE);
}
