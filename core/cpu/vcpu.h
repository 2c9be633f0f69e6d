// SPDX-License-Identifier: GPL-2.0-or-later
// The virtual processor: architectural state, its thread, and what an engine is. (Intel SDM vol. 3; AMD APM vol. 2)
//
// Threads: a vCPU's architectural state belongs to its own thread while it runs; others may touch it only while the
// vCPU is stopped (vcpu_pause_all()), except the members marked "any thread".
#ifndef CLOCHE_VCPU_H
#define CLOCHE_VCPU_H

#include "core/base/base.h"
#include "core/base/clock.h"
#include "core/base/fields.h"
#include "core/memory/memory.h"

#define VCPU_MAX 16

enum gpr { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 };
enum segment_register { ES, CS, SS, DS, FS, GS, SEGMENT_COUNT };

// Hidden part of a segment register, as loaded. ATTR holds descriptor bits 40..55 as they stand there: type 0-3, S 4,
// DPL 5-6, P 7, limit 8-11 (ignored here), AVL 12, L 13, D/B 14, G 15; plus SEG_UNUSABLE.
struct segment {
    uint16_t selector;
    uint16_t attr;
    uint32_t limit; // in bytes, granularity applied
    uint64_t base;
    bool unusable; // null selector loaded (VMX's notion)
};
#define SEG_TYPE(attr) ((attr)&15)
#define SEG_S          0x0010
#define SEG_DPL(attr)  ((attr) >> 5 & 3)
#define SEG_P          0x0080
#define SEG_L          0x2000
#define SEG_DB         0x4000
#define SEG_G          0x8000

struct table_register {
    uint64_t base;
    uint32_t limit;
};

// RFLAGS
#define FLAG_CF      0x1u
#define FLAG_1       0x2u
#define FLAG_PF      0x4u
#define FLAG_AF      0x10u
#define FLAG_ZF      0x40u
#define FLAG_SF      0x80u
#define FLAG_TF      0x100u
#define FLAG_IF      0x200u
#define FLAG_DF      0x400u
#define FLAG_OF      0x800u
#define FLAG_IOPL    0x3000u
#define FLAG_NT      0x4000u
#define FLAG_RF      0x10000u
#define FLAG_VM      0x20000u
#define FLAG_AC      0x40000u
#define FLAG_VIF     0x80000u
#define FLAG_VIP     0x100000u
#define FLAG_ID      0x200000u
#define FLAGS_STATUS (FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_OF)

#define CR0_PE 0x1u
#define CR0_MP 0x2u
#define CR0_EM 0x4u
#define CR0_TS 0x8u
#define CR0_ET 0x10u
#define CR0_NE 0x20u
#define CR0_WP 0x10000u
#define CR0_AM 0x40000u
#define CR0_NW 0x20000000u
#define CR0_CD 0x40000000u
#define CR0_PG 0x80000000u

#define CR4_VME        0x1u
#define CR4_PVI        0x2u
#define CR4_TSD        0x4u
#define CR4_DE         0x8u
#define CR4_PSE        0x10u
#define CR4_PAE        0x20u
#define CR4_MCE        0x40u
#define CR4_PGE        0x80u
#define CR4_PCE        0x100u
#define CR4_OSFXSR     0x200u
#define CR4_OSXMMEXCPT 0x400u
#define CR4_UMIP       0x800u
#define CR4_FSGSBASE   0x10000u
#define CR4_PCIDE      0x20000u
#define CR4_OSXSAVE    0x40000u
#define CR4_SMEP       0x100000u
#define CR4_SMAP       0x200000u

#define EFER_SCE 0x1u
#define EFER_LME 0x100u
#define EFER_LMA 0x400u
#define EFER_NXE 0x800u

#define XCR0_X87    0x1u
#define XCR0_SSE    0x2u
#define XCR0_AVX    0x4u
#define XCR0_OPMASK 0x20u
#define XCR0_ZMMH   0x40u // upper halves of ZMM0-15
#define XCR0_ZMM16  0x80u // ZMM16-31
#define XCR0_AVX512 (XCR0_OPMASK | XCR0_ZMMH | XCR0_ZMM16)

enum exception {
    EXCEPTION_DE = 0,
    EXCEPTION_DB = 1,
    EXCEPTION_NMI = 2,
    EXCEPTION_BP = 3,
    EXCEPTION_OF = 4,
    EXCEPTION_BR = 5,
    EXCEPTION_UD = 6,
    EXCEPTION_NM = 7,
    EXCEPTION_DF = 8,
    EXCEPTION_TS = 10,
    EXCEPTION_NP = 11,
    EXCEPTION_SS = 12,
    EXCEPTION_GP = 13,
    EXCEPTION_PF = 14,
    EXCEPTION_MF = 16,
    EXCEPTION_AC = 17,
    EXCEPTION_MC = 18,
    EXCEPTION_XM = 19,
};

// x87, SSE and AVX state in the processor's own standard XSAVE layout (SDM vol. 1, 13.4), so that the translator can
// XSAVE/XRSTOR it whole and the interpreter can address each register.
struct xsave_area {
    uint16_t fcw, fsw;
    uint8_t ftw; // abridged: one bit per physical register, 1 = not empty
    uint8_t reserved0;
    uint16_t fop;
    uint64_t fip, fdp;
    uint32_t mxcsr, mxcsr_mask;
    struct {
        uint8_t bytes[16]; // 80-bit value in bytes 0-9; ST(i) order, not physical
    } st[8];
    union {
        uint8_t bytes[16];
        uint32_t u32[4];
        uint64_t u64[2];
        float f32[4];
        double f64[2];
    } xmm[16];
    uint8_t reserved1[96];
    uint64_t xstate_bv, xcomp_bv, reserved2[6]; // header, offset 512
    union {
        uint8_t bytes[16];
        uint32_t u32[4];
        uint64_t u64[2];
    } ymmh[16];             // offset 576
    uint8_t extended[3264]; // up to 4096 bytes in all
} __attribute__((aligned(64)));
_Static_assert(offsetof(struct xsave_area, xmm) == 160, "XSAVE legacy region");
_Static_assert(offsetof(struct xsave_area, xstate_bv) == 512, "XSAVE header");
_Static_assert(offsetof(struct xsave_area, ymmh) == 576, "XSAVE AVX component");
_Static_assert(sizeof(struct xsave_area) == 4096, "XSAVE area");

// AVX-512 state in the compacted XSAVE layout of just its components, which is the same on every processor. What a
// component that is not in XSTATE_BV has here means nothing: it is zero.
struct avx512_area {
    uint8_t legacy[512]; // XSAVEC and XRSTOR of these components leave it alone
    uint64_t xstate_bv, xcomp_bv, reserved[6];
    uint64_t opmask[8];
    uint8_t zmmh[16][32];
    uint8_t zmm16[16][64];
} __attribute__((aligned(64)));
#define AVX512_COMPACTED (0x8000000000000000ull | XCR0_AVX512)
_Static_assert(offsetof(struct avx512_area, opmask) == 576, "XSAVE extended region");
_Static_assert(offsetof(struct avx512_area, zmm16) == 1152, "XSAVE Hi16_ZMM component");

// What asks for the vCPU's attention before its next instruction. Bits are or-ed by any thread, then vcpu_kick().
enum vcpu_attention {
    ATTENTION_STOP = 1 << 0,      // pause, save, quit: leave engine->run()
    ATTENTION_INTERRUPT = 1 << 1, // the local APIC or the 8259 has an interrupt to offer
    ATTENTION_NMI = 1 << 2,
    ATTENTION_INIT = 1 << 3,
    ATTENTION_SIPI = 1 << 4,
    ATTENTION_FLUSH = 1 << 5, // work queued with vcpu_run_on(): TLB flush, page revocation
    ATTENTION_SMI = 1 << 6,
    ATTENTION_RESET = 1 << 7,
};

// Where the vCPU thread stands.
enum vcpu_activity {
    VCPU_RUNNING,       // executing guest instructions
    VCPU_HALTED,        // HLT: waits for an interrupt
    VCPU_WAIT_FOR_SIPI, // after INIT on an application processor
    VCPU_SHUTDOWN,      // triple fault
};

struct lapic;
struct engine;
struct cpu_set;
struct interpreter;
struct interpret_set;

struct vcpu {
    // -- architectural state, addressed by translated code through gs: keep the hot members first
    uint64_t gpr[16];
    uint64_t rip;
    uint64_t rflags; // always exact outside engine->run(); engines may keep status flags elsewhere while running
    // -- the interpreter's, while it runs (core/cpu/interpret)
    uint64_t flags_result, flags_aux; // status flags, see flags.h
    uint64_t zero;                    // always 0: operands without base or index
    void *tlb;                        // entries for the present privilege
    uint64_t tlb_space;
    struct interpreter *interpreter;
    // -- architectural state, continued
    uint64_t cr0, cr2, cr3, cr4;
    uint64_t efer;
    uint64_t xcr0;
    struct segment seg[SEGMENT_COUNT];
    struct segment ldtr, tr;
    struct table_register gdtr, idtr;
    uint64_t dr[4], dr6, dr7;
    uint8_t cpl;
    bool nmi_blocked;         // between NMI delivery and IRET
    uint8_t interrupt_shadow; // 1 after STI, 2 after MOV SS / POP SS: lasts one instruction
    uint8_t activity;         // enum vcpu_activity
    bool fpu_error_line;      // IGNNE# logic for CR0.NE = 0
    uint64_t tsc_offset;      // guest TSC = host TSC scaled + offset
    uint64_t tsc_aux;
    uint64_t star, lstar, cstar, fmask, kernel_gs_base;
    uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
    uint64_t pat, apic_base, misc_enable, tsc_adjust, feature_control, spec_ctrl, microcode_version, debugctl;
    uint64_t mtrr_def_type, mtrr_fixed[11], mtrr_base[8], mtrr_mask[8];
    uint64_t mcg_status, mcg_cap, mc_ctl[4], mc_status[4];
    uint64_t kvmclock_system_time, kvmclock_wall_clock; // paravirtual clock MSRs
    uint64_t pdpte[4];                                  // PAE page-directory pointers, loaded with CR3
    struct xsave_area xsave;
    struct avx512_area avx512;

    // -- event under delivery, for double faults and for saving in the middle
    bool event_pending;
    uint8_t event_vector;
    uint8_t event_type;
    bool event_has_error;
    uint32_t event_error;

    // -- any thread
    _Atomic uint32_t attention; // enum vcpu_attention

    // -- fixed after vcpu_new()
    unsigned index; // 0 is the boot processor
    uint32_t apic_id;
    struct cpu_set *set;
    struct lapic *lapic;
    const struct engine *engine;
    void *engine_state; // the engine's own, see engine->vcpu_init

    // -- counters of why and how much, for `info jit` and the benches (own thread writes, others read)
    uint64_t instructions; // retired by the interpreter
    uint64_t exceptions, interrupts, page_walks, tlb_misses, io_exits;

    struct vcpu_thread *thread;
    bool in_guest;     // own thread: within engine->run()
    bool engine_ready; // engine->vcpu_init() succeeded
};

// What the board gives to its processors. Filled in by the machine before cpu_set_new().
struct cpu_host {
    struct ram *ram;
    struct address_space *memory;
    struct address_space *ports;
    struct clock *clock;
    GRecMutex *lock; // machine lock
    void *opaque;
    // 8259 behind LINT0: vector of the interrupt to deliver now, or -1; called with the machine lock held.
    int (*pic_acknowledge)(void *opaque);
    // The x87 error line (IRQ 13) when CR0.NE = 0.
    void (*fpu_error)(void *opaque, bool level);
    // A processor shut down (triple fault) or hit an engine error; TEXT says what. Any thread.
    void (*shutdown)(void *opaque, struct vcpu *vcpu, const char *text);
    // End of interrupt for a level-triggered vector: the I/O APIC looks again.
    void (*eoi)(void *opaque, uint8_t vector);
};

struct cpu_model;
struct cpu_set {
    struct cpu_host host;
    const struct engine *engine;
    const struct cpu_model *model;
    unsigned count;
    struct vcpu *vcpu[VCPU_MAX];
    uint64_t tsc_khz;
    void *engine_state;    // shared by all vCPUs of the engine (translation cache)
    bool engine_ready;     // engine->set_init() succeeded
    GMutex exclusive_lock; // held by the vCPU that keeps all others out, see thread.c
    _Atomic bool exclusive;
    struct interpret_set *interpret; // shared by the interpreters: owners of code pages
};

// MODEL: x86-64-v1, -v2, -v3, host or max; ENGINE: interpret, translate, kvm, auto. Errors name the bad word and what
// is allowed.
struct cpu_set *cpu_set_new(const struct cpu_host *host, const char *model, const char *engine, unsigned count,
                            GError **error);
void cpu_set_free(struct cpu_set *set); // stops the threads first
// Power-on reset of every processor (SDM vol. 3, table 10-1); APs wait for SIPI. Only while paused.
void cpu_set_reset(struct cpu_set *set);
// Starts or resumes guest execution on all vCPU threads / stops them all; returns when every thread is parked. Never
// call pause on a vCPU thread (use the machine's deferred request). The machine lock is not held.
void cpu_set_resume(struct cpu_set *set);
void cpu_set_pause(struct cpu_set *set);

// Any thread:
void vcpu_raise(struct vcpu *vcpu, uint32_t attention_bits); // sets bits and kicks
void vcpu_kick(struct vcpu *vcpu);                           // makes run() return or HLT wake soon
// Runs FN on every vCPU of the set at its next block end (or here, for parked and halted ones), and returns when all
// have: TLB shoot-downs, page revocation. May be called with or without the machine lock, also on a vCPU thread.
void cpu_set_run_on_all(struct cpu_set *set, void (*fn)(struct vcpu *vcpu, void *opaque), void *opaque);
int vcpu_thread_id(const struct vcpu *vcpu); // of the host thread that runs it, as in /proc/PID/task
// Current vCPU of this thread or NULL.
struct vcpu *vcpu_current(void);

extern const struct field vcpu_fields[];
#define VCPU_VERSION 2 // of the saved state

// An instruction whose memory operand is at [RCX] and whose general register is RAX.
struct native_insn {
    const uint8_t *code;
    unsigned length;
    void *memory;
    uint64_t rax;
    uint64_t flags; // status flags, before and after
};

// ---- Engines ----------------------------------------------------------------------------------------------------

enum engine_exit {
    ENGINE_EXIT_ATTENTION, // attention bits that the engine does not serve itself
    ENGINE_EXIT_HALT,      // HLT executed; RIP is past it
    ENGINE_EXIT_SHUTDOWN,  // triple fault
    ENGINE_EXIT_ERROR,     // internal error, reported through cpu_host.shutdown
};

struct engine {
    const char *name;
    // Can it run here? If not, the error gives the measured reason.
    bool (*probe)(GError **error);
    bool obeys; // asked for by name, it runs even where probe() advises against it
    // Runs a vector instruction of the guest that is nowhere computed, on the vCPU's thread, with the guest's vector
    // state in struct vcpu. Returns 0, or the vector of the exception that it raised. NULL: it cannot.
    int (*run_native)(struct vcpu *vcpu, struct native_insn *insn);
    bool native; // the host's processor runs the guest's vector instructions, by itself or so
    bool (*set_init)(struct cpu_set *set, GError **error);
    void (*set_free)(struct cpu_set *set);
    bool (*vcpu_init)(struct vcpu *vcpu, GError **error);
    void (*vcpu_free)(struct vcpu *vcpu);
    // Runs guest code on the vCPU's own thread until an exit. Interrupts offered by vcpu_interrupt_pending() are taken
    // inside when they are deliverable.
    enum engine_exit (*run)(struct vcpu *vcpu);
    void (*kick)(struct vcpu *vcpu); // any thread
    // Moves state out of / into private registers around pause, save and engine change. NULL: struct vcpu is the state.
    void (*state_out)(struct vcpu *vcpu);
    void (*state_in)(struct vcpu *vcpu);
    // On the vCPU's thread or while it is parked: forget every translation of guest-virtual addresses.
    void (*flush_tlb)(struct vcpu *vcpu);
    // The same for the page of one linear address (INVLPG). NULL: flush_tlb is called.
    void (*flush_page)(struct vcpu *vcpu, uint64_t linear);
    // CR3 was loaded. KEEP: bit 63 was set with PCIDs, translations of the new PCID may stay. NULL: flush_tlb is
    // called.
    void (*switch_space)(struct vcpu *vcpu, bool keep);
    // Same contexts: forget writable translations to the page at RAM_OFFSET.
    void (*revoke_page)(struct vcpu *vcpu, uint64_t ram_offset);
    // NULL: every write of the guest comes through the trackers of RAM. Else it does not, and what it wrote since the
    // last call is reported to them here. Any thread.
    void (*report_writes)(struct cpu_set *set);
    // The engine keeps the local APICs itself: takes them over before the processors run, gives them back when all are
    // parked. In between MESSAGE serves what devices send (an MSI's address and data, SDM vol. 3, 11.11) and returns
    // how many processors accepted it, or -1 while the monitor's own APICs are in charge; run() waits in place of
    // VCPU_HALTED and VCPU_WAIT_FOR_SIPI. All three or none. MESSAGE: any thread.
    void (*apics_in)(struct cpu_set *set);
    void (*apics_out)(struct cpu_set *set);
    int (*apic_message)(struct cpu_set *set, uint64_t address, uint32_t data);
    // Bytes of memory that the process has mapped twice, so that the host counts them twice. NULL: none. Any thread.
    uint64_t (*mapped_twice)(struct cpu_set *set);
    // Text for `info jit`. Free with g_free(). May be NULL.
    char *(*describe)(struct cpu_set *set);
};

extern const struct engine engine_interpret;
#ifdef __x86_64__
extern const struct engine engine_translate;
extern const struct engine engine_kvm;
#endif
// NULL-terminated, in order of preference.
extern const struct engine *const engines[];

#endif
