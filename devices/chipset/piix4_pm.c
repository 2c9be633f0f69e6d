// SPDX-License-Identifier: GPL-2.0-or-later
// The power-management function of the 82371AB (PIIX4): PM timer, power button, soft-off, SCI; an SMBus host on which
// no device answers (Intel 82371AB data sheet, chapter 7; ACPI 6.4, chapter 4).
#include "devices/chipset/chipset.h"

#define PM_TIMER_HZ 3579545

#define PMBASE    0x40
#define SMBBASE   0x90
#define PMREGMISC 0x80
#define SMBHSTCFG 0xd2

#define STS_TIMER  0x0001
#define STS_BUTTON 0x0100
#define STS_RTC    0x0400
#define STS_WAKE   0x8000
#define STS_ALL    (STS_TIMER | 0x0020 | STS_BUTTON | STS_RTC | STS_WAKE)
#define EN_ALL     (STS_TIMER | 0x0020 | STS_BUTTON | STS_RTC)
#define CNT_SCI_EN 0x0001
#define CNT_SLP_EN 0x2000

enum { SLEEP_OFF = 0, SLEEP_SUSPEND = 1 }; // SLP_TYP; \_S5 of the DSDT says the first

struct piix4_pm {
    struct pci_device pci;
    uint16_t status, enable, control;
    uint8_t smbus[16];
    bool sci;
    struct timer overflow; // when bit 23 of the PM timer changes
    struct region pm, smb;
    uint64_t pm_base, smb_base; // where they are mapped, 0: not
};

// ---- PM timer: 24 bits ----
static uint64_t pm_ticks(const struct piix4_pm *s)
{
    return (unsigned __int128)clock_now(s->pci.device.machine->clock) * PM_TIMER_HZ / 1000000000;
}

static void update_sci(struct piix4_pm *s)
{
    bool level = (s->control & CNT_SCI_EN) && (s->status & s->enable & EN_ALL);
    if (level != s->sci) {
        s->sci = level;
        irq_set(&s->pci.device.machine->isa_irq[ISA_IRQ_SCI], level);
    }
    if (!(s->enable & STS_TIMER) || (s->status & STS_TIMER)) {
        timer_cancel(&s->overflow);
        return;
    }
    uint64_t next = (pm_ticks(s) / 0x800000 + 1) * 0x800000;
    timer_arm(&s->overflow, ((unsigned __int128)next * 1000000000 + PM_TIMER_HZ - 1) / PM_TIMER_HZ);
}

static void overflow_due(void *opaque)
{
    struct piix4_pm *s = opaque;
    s->status |= STS_TIMER;
    update_sci(s);
}

// ---- Registers at PMBASE ----
static void write_control(struct piix4_pm *s, uint16_t value)
{
    s->control = (value & ~CNT_SLP_EN) | CNT_SCI_EN; // without SMM there is no legacy mode to go back to
    if (!(value & CNT_SLP_EN))
        return;
    unsigned type = value >> 10 & 7;
    if (type == SLEEP_OFF)
        machine_request_shutdown(s->pci.device.machine, "guest-shutdown");
    else if (type == SLEEP_SUSPEND)
        s->status |= STS_WAKE; // S1 and awake again at once
    else
        log_guest("acpi", "The guest asked for sleep type %u, which this board does not have.", type);
}

static uint64_t pm_read(void *opaque, uint64_t offset, unsigned size)
{
    struct piix4_pm *s = opaque;
    uint8_t registers[16] = {0};
    store_le(registers + 0, 2, s->status);
    store_le(registers + 2, 2, s->enable);
    store_le(registers + 4, 2, s->control);
    store_le(registers + 8, 4, pm_ticks(s) & 0xffffff);
    return offset + size <= sizeof(registers) ? load_le(registers + offset, size) : 0;
}

static void write_byte(struct piix4_pm *s, uint64_t offset, uint8_t value)
{
    unsigned shift = (offset & 1) * 8;
    uint16_t mask = 0xff << shift, wide = value << shift;
    switch (offset & ~1ull) {
    case 0:
        s->status &= ~(wide & STS_ALL);
        break;
    case 2:
        s->enable = ((s->enable & ~mask) | wide) & EN_ALL;
        break;
    case 4:
        write_control(s, (s->control & ~mask) | wide);
        break;
    }
}

static void pm_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct piix4_pm *s = opaque;
    if (offset == 4 && size >= 2)
        write_control(s, value);
    else
        for (unsigned i = 0; i < size; i++)
            write_byte(s, offset + i, value >> 8 * i);
    update_sci(s);
}

// ---- SMBus host: every transaction ends with a device error ----
#define SMB_STATUS    0
#define SMB_CONTROL   2
#define SMB_DEV_ERROR 0x04
#define SMB_START     0x40

static uint64_t smb_read(void *opaque, uint64_t offset, unsigned size)
{
    return ((struct piix4_pm *)opaque)->smbus[offset];
}

static void smb_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct piix4_pm *s = opaque;
    if (offset == SMB_STATUS)
        s->smbus[SMB_STATUS] &= ~value;
    else
        s->smbus[offset] = offset == SMB_CONTROL ? value & ~SMB_START : value;
    if (offset == SMB_CONTROL && (value & SMB_START))
        s->smbus[SMB_STATUS] |= SMB_DEV_ERROR;
}

static const struct io_ops pm_ops = {pm_read, pm_write, 1, 4};
static const struct io_ops smb_ops = {smb_read, smb_write, 1, 1};

// ---- Placement ----
static void place(struct address_space *ports, struct region *region, uint64_t *base, uint64_t to)
{
    if (*base == to)
        return;
    address_space_unmap(region);
    *base = to;
    if (to)
        address_space_map(ports, region, to, 0);
}

static void update_placement(struct piix4_pm *s)
{
    struct address_space *ports = s->pci.device.machine->ports;
    const uint8_t *c = s->pci.config;
    place(ports, &s->pm, &s->pm_base, c[PMREGMISC] & 1 ? load_le(c + PMBASE, 2) & 0xffc0 : 0);
    place(ports, &s->smb, &s->smb_base, c[SMBHSTCFG] & 1 ? load_le(c + SMBBASE, 2) & 0xfff0 : 0);
}

static void config_written(struct pci_device *pci, unsigned offset, uint32_t value, unsigned size)
{
    update_placement((struct piix4_pm *)pci);
}

void piix4_pm_set_base(struct device *pm, uint16_t pm_base, uint16_t smbus_base)
{
    struct piix4_pm *s = (struct piix4_pm *)pm;
    store_le(s->pci.config + PMBASE, 2, pm_base | 1);
    store_le(s->pci.config + SMBBASE, 2, smbus_base | 1);
    s->pci.config[PMREGMISC] = 1;
    s->pci.config[SMBHSTCFG] = 9;
    s->pci.config[PCI_INTERRUPT_LINE] = ISA_IRQ_SCI;
    update_placement(s);
}

static void power_event(void *opaque, struct machine *machine, enum machine_event event, const char *text)
{
    struct piix4_pm *s = opaque;
    if (event != MACHINE_EVENT_POWERDOWN)
        return;
    s->status |= STS_BUTTON;
    update_sci(s);
}

// ---- Life ----
static bool realize(struct device *device, GError **error)
{
    struct piix4_pm *s = (struct piix4_pm *)device;
    static const struct pci_ids ids = {.vendor = 0x8086,
                                       .device = 0x7113,
                                       .subsystem_vendor = 0x1af4,
                                       .subsystem = 0x1100,
                                       .revision = 3,
                                       .subclass = 0x80,
                                       .class_code = 0x06,
                                       .interrupt_pin = 1};
    timer_init(&s->overflow, device->machine->clock, overflow_due, s);
    if (!pci_device_init(&s->pci, &ids, 1 << 3 | 3, error))
        return false;
    for (unsigned offset = 0x40; offset < 0xe0; offset++)
        s->pci.write_mask[offset] = 0xff;
    s->pci.config_written = config_written;
    region_init_io(&s->pm, "acpi pm", &pm_ops, s, 64);
    region_init_io(&s->smb, "smbus", &smb_ops, s, 16);
    machine_add_listener(device->machine, power_event, s);
    return true;
}

static void unrealize(struct device *device)
{
    struct piix4_pm *s = (struct piix4_pm *)device;
    machine_remove_listener(device->machine, power_event, s);
    timer_destroy(&s->overflow);
    pci_device_exit(&s->pci);
}

static void reset(struct device *device)
{
    struct piix4_pm *s = (struct piix4_pm *)device;
    for (unsigned offset = 0x40; offset < 0xe0; offset++)
        s->pci.config[offset] = 0;
    store_le(s->pci.config + PMBASE, 4, 1);
    store_le(s->pci.config + SMBBASE, 4, 1);
    s->pci.config[0x5b] = 0x02; // APMC_EN: firmware must not look for SMM, there is none
    s->status = s->enable = 0;
    s->control = CNT_SCI_EN;
    for (unsigned i = 0; i < sizeof(s->smbus); i++)
        s->smbus[i] = 0;
    update_placement(s);
    update_sci(s);
}

static bool loaded(struct device *device, GError **error)
{
    update_placement((struct piix4_pm *)device);
    return true;
}

static const struct field fields[] = {
    FIELD_STRUCT(struct piix4_pm, pci, pci_device_fields),
    FIELD_U16(struct piix4_pm, status),
    FIELD_U16(struct piix4_pm, enable),
    FIELD_U16(struct piix4_pm, control),
    FIELD_BYTES(struct piix4_pm, smbus),
    FIELD_BOOL(struct piix4_pm, sci),
    FIELD_TIMER(struct piix4_pm, overflow),
    FIELD_END,
};

const struct device_class piix4_pm_class = {
    .name = "piix4-pm",
    .help = "ACPI power management of the 82371AB",
    .size = sizeof(struct piix4_pm),
    .realize = realize,
    .unrealize = unrealize,
    .reset = reset,
    .loaded = loaded,
    .fields = fields,
    .internal = true,
};
