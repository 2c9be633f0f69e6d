// SPDX-License-Identifier: GPL-2.0-or-later
// Model-specific registers (SDM vol. 4; kvmclock: Linux Documentation/virt/kvm/x86/msr.rst). An unknown MSR raises #GP.
#include "core/cpu/arch.h"
#include "core/cpu/descriptor.h"
#include "core/cpu/lapic.h"
#include "core/cpu/model.h"

#include <string.h>

enum msr_check {
    CHECK_NONE,
    CHECK_READ_ONLY, // writes: #GP
    CHECK_CANONICAL,
    CHECK_32, // upper half must be 0
    CHECK_PAT,
    CHECK_ZERO, // only 0 may be written
};

// MSRs that are just a register: value at OFFSET, or the constant where OFFSET is 0.
struct msr_row {
    uint32_t first, count;
    uint16_t offset;
    enum msr_check check;
    uint64_t constant;
    uint64_t allowed; // bits that may be written; 0: all
};
#define REG(member) ((uint16_t)offsetof(struct vcpu, member))

// What ARCH_CAPABILITIES says: none of these flaws exists, because guest code does not run on the silicon's predictors
// as the guest wrote it. RDCL_NO, IBRS_ALL, SKIP_L1DFL_VMENTRY, SSB_NO, MDS_NO, PSCHANGE_MC_NO, TAA_NO, SBDR_SSDP_NO,
// FBSDP_NO, PSDP_NO, BHI_NO, PBRSB_NO, GDS_NO, RFDS_NO, ITS_NO.
#define ARCH_CAPABILITIES                                                                                              \
    (BIT(0) | BIT(1) | BIT(3) | BIT(4) | BIT(5) | BIT(6) | BIT(8) | BIT(13) | BIT(14) | BIT(15) | BIT(20) | BIT(24) |  \
     BIT(26) | BIT(27) | BIT(62))

static const struct msr_row rows[] = {
    {0x0, 2, 0, CHECK_NONE, 0, 0},                       // P5 machine check address and type
    {0x17, 1, 0, CHECK_READ_ONLY, 0, 0},                 // PLATFORM_ID
    {0x2a, 1, 0, CHECK_NONE, 0, 0},                      // EBL_CR_POWERON
    {0x34, 1, 0, CHECK_READ_ONLY, 0, 0},                 // SMI_COUNT
    {0x35, 1, 0, CHECK_READ_ONLY, 0, 0},                 // CORE_THREAD_COUNT, see below
    {0x3a, 1, REG(feature_control), CHECK_NONE, 0, 0},   // FEATURE_CONTROL
    {0x48, 1, REG(spec_ctrl), CHECK_NONE, 0, 7},         // SPEC_CTRL
    {0x49, 1, 0, CHECK_NONE, 0, 1},                      // PRED_CMD
    {0x79, 1, 0, CHECK_NONE, 0, 0},                      // BIOS_UPDT_TRIG
    {0x8b, 1, REG(microcode_version), CHECK_NONE, 0, 0}, // BIOS_SIGN_ID
    {0xce, 1, 0, CHECK_READ_ONLY, 0, 0},                 // PLATFORM_INFO
    {0xe2, 1, 0, CHECK_NONE, 0, 0},                      // PKG_CST_CONFIG_CONTROL
    {0xfe, 1, 0, CHECK_READ_ONLY, 0x508, 0},             // MTRRCAP: 8 variable ranges, fixed, WC
    {0x10a, 1, 0, CHECK_READ_ONLY, ARCH_CAPABILITIES, 0},
    {0x119, 1, 0, CHECK_NONE, 0, 0},          // BBL_CR_CTL
    {0x11e, 1, 0, CHECK_NONE, 0xbe702111, 0}, // BBL_CR_CTL3
    {0x140, 1, 0, CHECK_ZERO, 0, 0},          // MISC_FEATURES_ENABLES
    {0x174, 1, REG(sysenter_cs), CHECK_NONE, 0, 0},
    {0x175, 1, REG(sysenter_esp), CHECK_CANONICAL, 0, 0},
    {0x176, 1, REG(sysenter_eip), CHECK_CANONICAL, 0, 0},
    {0x179, 1, REG(mcg_cap), CHECK_READ_ONLY, 0, 0},
    {0x17a, 1, REG(mcg_status), CHECK_NONE, 0, 7},
    {0x186, 4, 0, CHECK_NONE, 0, 0},           // PERFEVTSEL: no counters
    {0xc1, 4, 0, CHECK_NONE, 0, 0},            // PMC
    {0x198, 1, 0, CHECK_READ_ONLY, 0x1000, 0}, // PERF_STATUS
    {0x199, 1, 0, CHECK_NONE, 0, 0},           // PERF_CTL
    {0x19a, 3, 0, CHECK_NONE, 0, 0},           // CLOCK_MODULATION, THERM_INTERRUPT, THERM_STATUS
    {0x1a0, 1, REG(misc_enable), CHECK_NONE, 0, 0},
    {0x1b0, 1, 0, CHECK_NONE, 0, 0}, // ENERGY_PERF_BIAS
    {0xda0, 1, 0, CHECK_ZERO, 0, 0}, // XSS: no supervisor components
    {0x1d9, 1, REG(debugctl), CHECK_NONE, 0, 3},
    {0x1db, 2, 0, CHECK_READ_ONLY, 0, 0}, // LASTBRANCH
    {0x1dd, 2, 0, CHECK_READ_ONLY, 0, 0}, // LASTINT
    {0x250, 1, REG(mtrr_fixed[0]), CHECK_NONE, 0, 0},
    {0x258, 2, REG(mtrr_fixed[1]), CHECK_NONE, 0, 0},
    {0x268, 8, REG(mtrr_fixed[3]), CHECK_NONE, 0, 0},
    {0x277, 1, REG(pat), CHECK_PAT, 0, 0},
    {0x2ff, 1, REG(mtrr_def_type), CHECK_NONE, 0, 0xcff},
    {0x345, 1, 0, CHECK_READ_ONLY, 0, 0}, // PERF_CAPABILITIES
    {0x606, 1, 0, CHECK_READ_ONLY, 0, 0}, // RAPL_POWER_UNIT
    {0xc0000081, 1, REG(star), CHECK_NONE, 0, 0},
    {0xc0000082, 1, REG(lstar), CHECK_CANONICAL, 0, 0},
    {0xc0000083, 1, REG(cstar), CHECK_CANONICAL, 0, 0},
    {0xc0000084, 1, REG(fmask), CHECK_32, 0, 0},
    {0xc0000100, 1, REG(seg[FS].base), CHECK_CANONICAL, 0, 0},
    {0xc0000101, 1, REG(seg[GS].base), CHECK_CANONICAL, 0, 0},
    {0xc0000102, 1, REG(kernel_gs_base), CHECK_CANONICAL, 0, 0},
    {0xc0000103, 1, REG(tsc_aux), CHECK_32, 0, 0},
};

// ---- MSRs with behaviour ------------------------------------------------------------------------------------------

VECTOR_FREE uint64_t vcpu_read_tsc(struct vcpu *vcpu)
{
    uint64_t now = (uint64_t)clock_now(vcpu->set->host.clock), khz = vcpu->set->tsc_khz;
    return now / 1000000 * khz + now % 1000000 * khz / 1000000 + vcpu->tsc_offset;
}

static bool read_tsc(struct vcpu *v, uint32_t msr, uint64_t *value)
{
    *value = vcpu_read_tsc(v);
    return true;
}
static bool write_tsc(struct vcpu *v, uint32_t msr, uint64_t value)
{
    uint64_t delta = value - vcpu_read_tsc(v);
    v->tsc_offset += delta;
    v->tsc_adjust += delta;
    return true;
}
static bool read_tsc_adjust(struct vcpu *v, uint32_t msr, uint64_t *value)
{
    *value = v->tsc_adjust;
    return true;
}
static bool write_tsc_adjust(struct vcpu *v, uint32_t msr, uint64_t value)
{
    v->tsc_offset += value - v->tsc_adjust;
    v->tsc_adjust = value;
    return true;
}

static bool read_apic_base(struct vcpu *v, uint32_t msr, uint64_t *value)
{
    *value = v->apic_base;
    return true;
}
static bool write_apic_base(struct vcpu *v, uint32_t msr, uint64_t value)
{
    return lapic_write_base(v->lapic, value) || fault(v, EXCEPTION_GP, 0);
}

static bool read_x2apic(struct vcpu *v, uint32_t msr, uint64_t *value)
{
    return lapic_read_msr(v->lapic, msr, value) || fault(v, EXCEPTION_GP, 0);
}
static bool write_x2apic(struct vcpu *v, uint32_t msr, uint64_t value)
{
    return lapic_write_msr(v->lapic, msr, value) || fault(v, EXCEPTION_GP, 0);
}

static bool read_deadline(struct vcpu *v, uint32_t msr, uint64_t *value)
{
    *value = lapic_tsc_deadline(v->lapic);
    return true;
}
static bool write_deadline(struct vcpu *v, uint32_t msr, uint64_t value)
{
    lapic_write_tsc_deadline(v->lapic, value);
    return true;
}

static bool read_mtrr(struct vcpu *v, uint32_t msr, uint64_t *value)
{
    unsigned i = (msr - 0x200) / 2;
    *value = msr & 1 ? v->mtrr_mask[i] : v->mtrr_base[i];
    return true;
}
static bool write_mtrr(struct vcpu *v, uint32_t msr, uint64_t value)
{
    unsigned i = (msr - 0x200) / 2;
    if (value & MASK_BITS(63, v->set->model->physical_bits))
        return fault(v, EXCEPTION_GP, 0);
    if (msr & 1)
        v->mtrr_mask[i] = value;
    else
        v->mtrr_base[i] = value;
    return true;
}

static bool read_mc(struct vcpu *v, uint32_t msr, uint64_t *value)
{
    unsigned bank = (msr - 0x400) / 4;
    *value = (msr & 3) == 0 ? v->mc_ctl[bank] : (msr & 3) == 1 ? v->mc_status[bank] : 0;
    return true;
}
static bool write_mc(struct vcpu *v, uint32_t msr, uint64_t value)
{
    unsigned bank = (msr - 0x400) / 4;
    if ((msr & 3) == 0) {
        v->mc_ctl[bank] = value;
        return true;
    }
    if (value)
        return fault(v, EXCEPTION_GP, 0);
    if ((msr & 3) == 1)
        v->mc_status[bank] = 0;
    return true;
}

static bool read_efer(struct vcpu *v, uint32_t msr, uint64_t *value)
{
    *value = v->efer;
    return true;
}
static bool write_efer(struct vcpu *v, uint32_t msr, uint64_t value)
{
    const struct cpu_model *m = v->set->model;
    uint64_t allowed = EFER_LMA | (cpu_has(m, FEATURE_SYSCALL) ? EFER_SCE : 0) |
                       (cpu_has(m, FEATURE_LM) ? EFER_LME : 0) | (cpu_has(m, FEATURE_NX) ? EFER_NXE : 0);
    if ((value & ~allowed) || (((value ^ v->efer) & EFER_LME) && (v->cr0 & CR0_PG)))
        return fault(v, EXCEPTION_GP, 0);
    bool flush = (value ^ v->efer) & EFER_NXE;
    v->efer = (value & ~(uint64_t)EFER_LMA) | (v->efer & EFER_LMA);
    if (flush)
        vcpu_flush_tlb(v);
    return true;
}

// ---- kvmclock -----------------------------------------------------------------------------------------------------

// Writes at GPA through the map, whatever lies there.
static void store_guest(struct vcpu *v, uint64_t gpa, const void *data, unsigned size)
{
    address_space_write(v->set->host.memory, gpa, data, size);
}

static bool write_system_time(struct vcpu *v, uint32_t msr, uint64_t value)
{
    v->kvmclock_system_time = value;
    if (!(value & 1))
        return true;
    struct {
        uint32_t version, pad;
        uint64_t tsc_timestamp, system_time;
        uint32_t mul;
        int8_t shift;
        uint8_t flags, pad2[2];
    } time = {.version = 2, .flags = 1};
    time.tsc_timestamp = vcpu_read_tsc(v);
    time.system_time = (uint64_t)clock_now(v->set->host.clock);
    // ns = (ticks << shift) * mul >> 32, with mul in [2^31, 2^32)
    uint64_t khz = v->set->tsc_khz;
    int shift = 0;
    double scale = 1e6 / (double)khz;
    while (scale >= 1.0) {
        scale /= 2;
        shift++;
    }
    while (scale < 0.5) {
        scale *= 2;
        shift--;
    }
    time.shift = (int8_t)shift;
    time.mul = (uint32_t)(scale * 4294967296.0);
    store_guest(v, value & ~1ull, &time, sizeof(time));
    return true;
}
static bool read_system_time(struct vcpu *v, uint32_t msr, uint64_t *value)
{
    *value = v->kvmclock_system_time;
    return true;
}

static bool write_wall_clock(struct vcpu *v, uint32_t msr, uint64_t value)
{
    v->kvmclock_wall_clock = value;
    uint64_t boot = (uint64_t)(clock_wall(v->set->host.clock) - clock_now(v->set->host.clock));
    uint32_t wall[3] = {2, (uint32_t)(boot / 1000000000), (uint32_t)(boot % 1000000000)};
    store_guest(v, value, wall, sizeof(wall));
    return true;
}
static bool read_wall_clock(struct vcpu *v, uint32_t msr, uint64_t *value)
{
    *value = v->kvmclock_wall_clock;
    return true;
}

static const struct msr_special {
    uint32_t first, count;
    bool (*read)(struct vcpu *v, uint32_t msr, uint64_t *value);
    bool (*write)(struct vcpu *v, uint32_t msr, uint64_t value);
} specials[] = {
    {0x10, 1, read_tsc, write_tsc},
    {0x11, 1, read_wall_clock, write_wall_clock},
    {0x12, 1, read_system_time, write_system_time},
    {0x1b, 1, read_apic_base, write_apic_base},
    {0x3b, 1, read_tsc_adjust, write_tsc_adjust},
    {0x200, 16, read_mtrr, write_mtrr},
    {0x400, 16, read_mc, write_mc},
    {0x6e0, 1, read_deadline, write_deadline},
    {0x800, 0x100, read_x2apic, write_x2apic},
    {0x4b564d00, 1, read_wall_clock, write_wall_clock},
    {0x4b564d01, 1, read_system_time, write_system_time},
    {0xc0000080, 1, read_efer, write_efer},
};

static const struct msr_special *special_find(uint32_t msr)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(specials); i++)
        if (msr - specials[i].first < specials[i].count)
            return &specials[i];
    return NULL;
}

static const struct msr_row *row_find(uint32_t msr)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++)
        if (msr - rows[i].first < rows[i].count)
            return &rows[i];
    return NULL;
}

static bool pat_valid(uint64_t value)
{
    for (unsigned i = 0; i < 8; i++) {
        unsigned type = value >> 8 * i & 0xff;
        if (type > 7 || type == 2 || type == 3)
            return false;
    }
    return true;
}

static bool write_allowed(const struct msr_row *row, uint64_t value)
{
    switch (row->check) {
    case CHECK_READ_ONLY:
        return false;
    case CHECK_CANONICAL:
        return vcpu_canonical(value);
    case CHECK_32:
        return !(value >> 32);
    case CHECK_PAT:
        return pat_valid(value);
    case CHECK_ZERO:
        return value == 0;
    default:
        return !row->allowed || !(value & ~row->allowed);
    }
}

bool vcpu_write_msr(struct vcpu *vcpu, uint32_t msr, uint64_t value)
{
    const struct msr_special *special = special_find(msr);
    if (special)
        return special->write(vcpu, msr, value);
    const struct msr_row *row = row_find(msr);
    if (!row || !write_allowed(row, value)) {
        if (!row)
            log_guest("cpu", "write of unknown MSR %#x (value %#" G_GINT64_MODIFIER "x)", msr, value);
        return fault(vcpu, EXCEPTION_GP, 0);
    }
    if (msr == 0x8b)
        return true; // writing 0 only announces a CPUID; the version stays
    if (row->offset)
        memcpy((char *)vcpu + row->offset + 8 * (msr - row->first), &value, 8);
    return true;
}

bool vcpu_read_msr(struct vcpu *vcpu, uint32_t msr, uint64_t *value)
{
    const struct msr_special *special = special_find(msr);
    if (special)
        return special->read(vcpu, msr, value);
    const struct msr_row *row = row_find(msr);
    if (!row) {
        log_guest("cpu", "read of unknown MSR %#x", msr);
        return fault(vcpu, EXCEPTION_GP, 0);
    }
    *value = row->constant;
    if (msr == 0x35)
        *value = vcpu->set->count << 16 | vcpu->set->count;
    if (row->offset)
        memcpy(value, (char *)vcpu + row->offset + 8 * (msr - row->first), 8);
    return true;
}
