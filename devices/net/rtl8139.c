// SPDX-License-Identifier: GPL-2.0-or-later
// Realtek RTL8139C (datasheet revision 1.4): ring-buffer reception, four transmit slots. With the property "cplus" it
// is an 8139C+, which has descriptor rings too (rtl8139_cplus.c); drivers tell the two by the PCI revision.
#include "devices/net/rtl8139.h"

#include <string.h>

enum reg {
    IDR0 = 0x00,
    MAR0 = 0x08,
    TSD0 = 0x10,
    TSAD0 = 0x20,
    RBSTART = 0x30,
    CR = 0x37,
    CAPR = 0x38,
    CBR = 0x3a,
    IMR = 0x3c,
    ISR = 0x3e,
    TCR = 0x40,
    RCR = 0x44,
    TCTR = 0x48,
    MPC = 0x4c,
    EECR = 0x50, // 9346CR
    CONFIG0 = 0x51,
    CONFIG1 = 0x52,
    TIMER_INTERRUPT = 0x54,
    MSR = 0x58,
    CONFIG3 = 0x59,
    CONFIG4 = 0x5a,
    TSAD = 0x60, // summary of the transmit slots
    BMCR = 0x62,
    BMSR = 0x64,
    ANAR = 0x66,
    ANLPAR = 0x68,
    ANER = 0x6a,
    CPLUS = 0x80, // from here on: registers of the 8139C+ alone
};
enum { CR_EMPTY = 0x01, CR_TE = 0x04, CR_RE = 0x08, CR_RST = 0x10 };
enum { ISR_ROK = RTL8139_ISR_ROK, ISR_TOK = RTL8139_ISR_TOK, ISR_LINK = 0x20 };
enum { TSD_OWN = 0x2000, TSD_TUN = 0x4000, TSD_TOK = 0x8000 };
enum { RCR_AAP = 1, RCR_APM = 2, RCR_AM = 4, RCR_AB = 8, RCR_WRAP = 0x80 };
enum {
    RX_OK = 0x01,
    RX_BROADCAST = RTL8139_RX_BROADCAST,
    RX_PHYSICAL = RTL8139_RX_PHYSICAL,
    RX_MULTICAST = RTL8139_RX_MULTICAST,
};
enum { TNPDS = 0x20, RDSAR = 0xe4, TPPOLL_NORMAL = 0x40 }; // 8139C+
enum { EECR_DO = 1, EECR_DI = 2, EECR_SK = 4, EECR_CS = 8, EECR_MODE = 0xc0 };

#define TCR_VERSION  0x74000000 // RTL8139C
#define TCR_CPLUS    0x00800000 // in the version of an 8139C+
#define FRAME_MAX    1792u      // a transmit slot holds up to 0x1fff bytes, the wire less
#define EEPROM_SIZE  RTL8139_EEPROM_SIZE
#define EEPROM_DUMMY 0xffff // the zero bit between address and data

static uint32_t get(const struct rtl8139 *rtl, unsigned offset, unsigned size)
{
    return load_le(rtl->regs + offset, size);
}

static void set(struct rtl8139 *rtl, unsigned offset, uint32_t value, unsigned size)
{
    store_le(rtl->regs + offset, size, value);
}

static void update_interrupt(struct rtl8139 *rtl)
{
    pci_set_intx(&rtl->pci, get(rtl, ISR, 2) & get(rtl, IMR, 2));
}

void rtl8139_add_causes(struct rtl8139 *rtl, uint16_t causes)
{
    set(rtl, ISR, get(rtl, ISR, 2) | causes, 2);
    update_interrupt(rtl);
}

// ---- Sending ----------------------------------------------------------------------------------------------------

static void transmit(struct rtl8139 *rtl, unsigned slot)
{
    uint32_t status = get(rtl, TSD0 + 4 * slot, 4), length = status & 0x1fff;
    uint8_t frame[0x2000];
    if (!(rtl->regs[CR] & CR_TE) || (status & TSD_OWN))
        return;
    length = MIN(length, FRAME_MAX);
    pci_dma_read(&rtl->pci, get(rtl, TSAD0 + 4 * slot, 4), frame, length);
    struct iovec iov = {frame, length};
    nic_send(rtl->card.nic, &iov, 1);
    nic_settle(rtl->card.nic);
    set(rtl, TSD0 + 4 * slot, (status & 0x003fffff) | TSD_OWN | TSD_TOK, 4);
    rtl8139_add_causes(rtl, ISR_TOK);
}

static uint16_t transmit_summary(const struct rtl8139 *rtl)
{
    uint16_t summary = 0;
    for (unsigned slot = 0; slot < 4; slot++) {
        uint32_t status = get(rtl, TSD0 + 4 * slot, 4);
        summary |= (status & TSD_OWN ? 1u << slot : 0) | (status & TSD_TOK ? 0x1000u << slot : 0);
    }
    return summary;
}

// ---- Receiving --------------------------------------------------------------------------------------------------

static uint32_t ring_size(const struct rtl8139 *rtl)
{
    return 8192u << (get(rtl, RCR, 4) >> 11 & 3);
}

// What kind of frame it is for us; 0: none.
static uint16_t accept(const struct rtl8139 *rtl, const uint8_t *frame)
{
    uint32_t rcr = get(rtl, RCR, 4);
    if (memcmp(frame, "\xff\xff\xff\xff\xff\xff", 6) == 0)
        return rcr & (RCR_AB | RCR_AAP) ? RX_BROADCAST : 0;
    if (frame[0] & 1) {
        unsigned hash = card_hash(frame) >> 26;
        bool in = rtl->regs[MAR0 + hash / 8] >> (hash % 8) & 1;
        return rcr & RCR_AAP || (rcr & RCR_AM && in) ? RX_MULTICAST : 0;
    }
    bool ours = memcmp(frame, rtl->regs + IDR0, 6) == 0;
    return (ours && (rcr & RCR_APM)) || (rcr & RCR_AAP) ? (ours ? RX_PHYSICAL : RX_OK) : 0;
}

// With WRAP set a frame may run past the end of the ring; else it goes on at its start.
static void ring_write(struct rtl8139 *rtl, uint32_t *at, const void *data, uint32_t length)
{
    uint32_t size = ring_size(rtl), base = get(rtl, RBSTART, 4);
    bool straight = (get(rtl, RCR, 4) & RCR_WRAP) && size < 65536;
    uint32_t first = straight ? length : MIN(length, size - *at % size);
    pci_dma_write(&rtl->pci, (uint64_t)base + (straight ? *at : *at % size), data, first);
    if (first < length)
        pci_dma_write(&rtl->pci, base, (const uint8_t *)data + first, length - first);
    *at += length;
}

static bool receive(void *opaque, const uint8_t *frame, size_t length)
{
    struct rtl8139 *rtl = opaque;
    uint16_t kind = accept(rtl, frame);
    if (rtl8139_receives_by_ring(rtl) && rtl->regs[CR] & CR_RE && kind && pci_bus_master(&rtl->pci))
        return rtl8139_receive_ring(rtl, frame, length, kind);
    uint32_t size = ring_size(rtl), at = get(rtl, CBR, 2) % size;
    uint32_t total = ALIGN_UP(length + 4 + 4, 4u); // header, checksum
    if (!(rtl->regs[CR] & CR_RE) || !kind || length > FRAME_MAX || !pci_bus_master(&rtl->pci))
        return true; // dropped
    uint32_t read = (get(rtl, CAPR, 2) + 16) % size, room = (read + size - at) % size;
    if (room && room <= total) {
        rtl8139_add_causes(rtl, ISR_ROK); // no overflow: the frame waits in the cable until the driver has read others
        return false;
    }
    uint8_t header[4], fcs[4];
    store_le(header, 2, kind | RX_OK);
    store_le(header + 2, 2, length + 4);
    store_le(fcs, 4, card_fcs(frame, length));
    uint32_t to = at;
    ring_write(rtl, &to, header, sizeof header);
    ring_write(rtl, &to, frame, length);
    ring_write(rtl, &to, fcs, sizeof fcs);
    set(rtl, CBR, (at + total) % size, 2);
    rtl->regs[CR] &= ~CR_EMPTY;
    rtl8139_add_causes(rtl, ISR_ROK);
    return true;
}

static void set_link(struct rtl8139 *rtl, bool up)
{
    rtl->regs[MSR] = up ? 0x10 : 0x14; // link is good when bit 2 is clear
    set(rtl, BMSR, up ? 0x782d : 0x7809, 2);
    set(rtl, ANLPAR, up ? 0x45e1 : 0, 2);
}

static void link_changed(void *opaque, bool up)
{
    struct rtl8139 *rtl = opaque;
    set_link(rtl, up);
    rtl8139_add_causes(rtl, ISR_LINK);
}

static const struct nic_client nic_client = {.receive = receive, .link_changed = link_changed};

// ---- EEPROM (93C46) ---------------------------------------------------------------------------------------------

static void write_eecr(struct rtl8139 *rtl, uint8_t value)
{
    uint8_t before = rtl->regs[EECR];
    rtl->regs[EECR] = value & ~EECR_DO;
    if ((value & EECR_MODE) != 0x80 || !(value & EECR_CS)) {
        rtl->eeprom_count = 0;
        rtl->eeprom_reading = false;
        rtl->eeprom_in = 0;
        return;
    }
    if (!((before ^ value) & EECR_SK) || !(value & EECR_SK))
        return;
    if (rtl->eeprom_reading) {
        bool first = rtl->eeprom_out == EEPROM_DUMMY;
        rtl->eeprom_out = (first ? (rtl->eeprom_in & 0x3f) * 16 : rtl->eeprom_out + 1) % (EEPROM_SIZE * 16);
        return;
    }
    bool bit = value & EECR_DI;
    if (!rtl->eeprom_count && !bit)
        return; // before the start bit
    rtl->eeprom_in = rtl->eeprom_in << 1 | bit;
    if (++rtl->eeprom_count == 9) {
        rtl->eeprom_reading = (rtl->eeprom_in >> 6 & 7) == 6;
        rtl->eeprom_out = EEPROM_DUMMY;
        rtl->eeprom_count = rtl->eeprom_reading ? 9 : 0;
    }
}

static uint8_t read_eecr(const struct rtl8139 *rtl)
{
    unsigned bit = rtl->eeprom_out % (EEPROM_SIZE * 16);
    bool out =
        !rtl->eeprom_reading || (rtl->eeprom_out != EEPROM_DUMMY && (rtl->eeprom[bit / 16] >> (15 - bit % 16) & 1));
    return rtl->regs[EECR] | (out ? EECR_DO : 0);
}

// ---- Registers --------------------------------------------------------------------------------------------------

static uint32_t tcr_version(const struct rtl8139 *rtl)
{
    return TCR_VERSION | (rtl->cplus ? TCR_CPLUS : 0);
}

static void soft_reset(struct rtl8139 *rtl)
{
    memset(rtl->regs + MAR0, 0, RTL8139_REGISTERS - MAR0);
    memcpy(rtl->regs + IDR0, rtl->card.nic->mac, 6);
    for (unsigned slot = 0; slot < 4; slot++)
        set(rtl, TSD0 + 4 * slot, TSD_OWN, 4);
    rtl->regs[CR] = CR_EMPTY;
    set(rtl, CAPR, 0xfff0, 2);
    set(rtl, TCR, tcr_version(rtl), 4);
    rtl->send_at = rtl->receive_at = 0;
    rtl->regs[CONFIG1] = 0x0c; // I/O and memory space
    rtl->regs[CONFIG3] = 0x01;
    set(rtl, BMCR, 0x1100, 2);
    set(rtl, ANAR, 0x05e1, 2);
    set_link(rtl, rtl->card.nic->link);
    update_interrupt(rtl);
}

static uint8_t read_byte(struct rtl8139 *rtl, unsigned offset)
{
    switch (offset) {
    case EECR:
        return read_eecr(rtl);
    case CR:
        return (rtl->regs[CR] & ~CR_EMPTY) |
               ((get(rtl, CAPR, 2) + 16) % ring_size(rtl) == get(rtl, CBR, 2) % ring_size(rtl) ? CR_EMPTY : 0);
    case TSAD:
        return transmit_summary(rtl);
    case TSAD + 1:
        return transmit_summary(rtl) >> 8;
    case TCTR:
    case TCTR + 1:
    case TCTR + 2:
    case TCTR + 3: // 33 MHz
        return (clock_now(rtl->pci.device.machine->clock) - rtl->timer_start) / 30 >> 8 * (offset - TCTR);
    }
    return rtl->regs[offset];
}

static void write_byte(struct rtl8139 *rtl, unsigned offset, uint8_t value)
{
    switch (offset) {
    case CR:
        if (value & CR_RST)
            soft_reset(rtl);
        else
            rtl->regs[CR] = (rtl->regs[CR] & CR_EMPTY) | (value & (CR_TE | CR_RE));
        nic_resume(rtl->card.nic);
        return;
    case EECR:
        write_eecr(rtl, value);
        return;
    case CONFIG1:
        rtl->regs[CONFIG1] = (value & 0xf0) | 0x0c;
        return;
    case CBR:
    case CBR + 1:
    case CONFIG0:
    case MSR:
    case BMSR:
    case BMSR + 1:
    case TSAD:
    case TSAD + 1:
    case ANLPAR:
    case ANLPAR + 1:
        return; // read-only
    case BMCR + 1:
        rtl->regs[offset] = value & ~0x82; // reset and restart are over at once
        return;
    }
    if (offset == RTL8139_TPPOLL) {
        if (rtl8139_sends_by_ring(rtl) && rtl->regs[CR] & CR_TE && value & TPPOLL_NORMAL)
            rtl8139_send_ring(rtl);
    } else if (offset < CPLUS || rtl->cplus) {
        rtl->regs[offset] = value;
    }
}

// In the mode of the 8139C+ other registers lie where the transmit slots' were. False: it is none of them.
static bool write_cplus(struct rtl8139 *rtl, unsigned offset, uint32_t value, unsigned size)
{
    bool ring = rtl8139_sends_by_ring(rtl) || rtl8139_receives_by_ring(rtl);
    if (!ring || offset < TSD0 || offset >= TSAD0)
        return false;
    for (unsigned i = 0; i < size; i++)
        rtl->regs[offset + i] = value >> 8 * i;
    if (offset == RTL8139_DTCCR)
        rtl8139_dump_tally(rtl);
    return true;
}

static void write_wide(struct rtl8139 *rtl, unsigned offset, uint32_t value, unsigned size)
{
    if (rtl->cplus && write_cplus(rtl, offset, value, size))
        return;
    if (offset >= TSD0 && offset < TSAD0 && size == 4) {
        unsigned slot = (offset - TSD0) / 4;
        set(rtl, TSD0 + 4 * slot, value & 0x003f3fff, 4);
        transmit(rtl, slot);
        return;
    }
    if (offset == ISR && size >= 2) {
        set(rtl, ISR, get(rtl, ISR, 2) & ~value, 2); // written ones clear
        update_interrupt(rtl);
        nic_resume(rtl->card.nic);
        return;
    }
    if (offset == TCTR) {
        rtl->timer_start = clock_now(rtl->pci.device.machine->clock);
        return;
    }
    if (offset == MPC) {
        set(rtl, MPC, 0, 4);
        return;
    }
    if (offset == TCR && size == 4)
        value = (value & 0x030f0ff0) | tcr_version(rtl);
    if (offset == IMR && size == 4) { // together with ISR
        write_wide(rtl, IMR, value & 0xffff, 2);
        write_wide(rtl, ISR, value >> 16, 2);
        return;
    }
    for (unsigned i = 0; i < size; i++)
        write_byte(rtl, offset + i, value >> 8 * i);
    if (offset == TNPDS)
        rtl->send_at = 0;
    if (offset == RDSAR)
        rtl->receive_at = 0;
    if (offset == IMR)
        update_interrupt(rtl);
    if (offset == CAPR || offset == RCR || (offset == IMR && rtl->cplus)) // the driver may have made room
        nic_resume(rtl->card.nic);
}

static uint64_t rtl8139_read(void *opaque, uint64_t offset, unsigned size)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < size; i++)
        value |= (uint64_t)read_byte(opaque, offset + i) << 8 * i;
    return value;
}

static void rtl8139_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    write_wide(opaque, offset, value, size);
}

static const struct io_ops ops = {rtl8139_read, rtl8139_write, 1, 4};

// ---- The device -------------------------------------------------------------------------------------------------

static void fill_eeprom(struct rtl8139 *rtl)
{
    rtl->eeprom[0] = 0x8129;
    rtl->eeprom[1] = 0x10ec;
    rtl->eeprom[2] = 0x8139;
    for (unsigned i = 0; i < 3; i++)
        rtl->eeprom[7 + i] = load_le(rtl->card.nic->mac + 2 * i, 2);
}

static void rtl8139_reset(struct device *device)
{
    struct rtl8139 *rtl = (struct rtl8139 *)device;
    memset(rtl->regs, 0, sizeof rtl->regs);
    rtl->timer_start = 0;
    rtl->eeprom_count = 0;
    rtl->eeprom_reading = false;
    soft_reset(rtl);
}

static bool rtl8139_realize(struct device *device, GError **error)
{
    struct rtl8139 *rtl = (struct rtl8139 *)device;
    const struct pci_ids ids = {.vendor = 0x10ec,
                                .device = 0x8139,
                                .subsystem_vendor = 0x1af4,
                                .subsystem = 0x1100,
                                .revision = rtl->cplus ? 0x20 : 0x10,
                                .class_code = 2,
                                .interrupt_pin = 1};
    if (!card_open(&rtl->card, device, error) || !pci_device_init(&rtl->pci, &ids, -1, error))
        return false;
    region_init_io(&rtl->ports, "rtl8139-ports", &ops, rtl, RTL8139_REGISTERS);
    region_init_io(&rtl->memory, "rtl8139", &ops, rtl, RTL8139_REGISTERS);
    pci_set_bar(&rtl->pci, 0, &rtl->ports, true, false, false);
    pci_set_bar(&rtl->pci, 1, &rtl->memory, false, false, false);
    if (!rtl->card.no_rom)
        pci_set_rom(&rtl->pci, IPXE_ROM("rtl8139"));
    fill_eeprom(rtl);
    rtl8139_reset(device);
    nic_set_client(rtl->card.nic, &nic_client, rtl);
    return true;
}

static void rtl8139_unrealize(struct device *device)
{
    struct rtl8139 *rtl = (struct rtl8139 *)device;
    card_close(&rtl->card);
    pci_device_exit(&rtl->pci);
}

static bool rtl8139_loaded(struct device *device, GError **error)
{
    struct rtl8139 *rtl = (struct rtl8139 *)device;
    set_link(rtl, rtl->card.nic->link);
    rtl->send_at %= RTL8139_RING_MAX;
    rtl->receive_at %= RTL8139_RING_MAX;
    return true;
}

static const struct property rtl8139_properties[] = {
    CARD_PROPERTIES(struct rtl8139, card),
    {"cplus", PROPERTY_BOOL, offsetof(struct rtl8139, cplus),
     .help = "an RTL8139C+ with descriptor rings, checksums and segmentation"},
    PROPERTY_END,
};

static const struct field rtl8139_fields[] = {
    FIELD_STRUCT(struct rtl8139, pci, pci_device_fields),
    FIELD_BYTES(struct rtl8139, regs),
    FIELD_U16(struct rtl8139, eeprom_in),
    FIELD_U16(struct rtl8139, eeprom_out),
    FIELD_U8(struct rtl8139, eeprom_count),
    FIELD_BOOL(struct rtl8139, eeprom_reading),
    FIELD_S64(struct rtl8139, timer_start),
    FIELD_SCALAR(FIELD_TYPE_U32, struct rtl8139, send_at, 2, 0),
    FIELD_SCALAR(FIELD_TYPE_U32, struct rtl8139, receive_at, 2, 0),
    FIELD_END,
};

const struct device_class rtl8139_class = {
    .name = "rtl8139",
    .help = "Realtek RTL8139C fast Ethernet card",
    .size = sizeof(struct rtl8139),
    .properties = rtl8139_properties,
    .realize = rtl8139_realize,
    .unrealize = rtl8139_unrealize,
    .reset = rtl8139_reset,
    .fields = rtl8139_fields,
    .version = 2,
    .loaded = rtl8139_loaded,
};
