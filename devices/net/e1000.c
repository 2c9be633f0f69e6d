// SPDX-License-Identifier: GPL-2.0-or-later
// Intel 82540EM gigabit card ("PCI/PCI-X Family of Gigabit Ethernet Controllers Software Developer's Manual", 317453).
// Received VLAN tags stay in the frame; everything else that drivers use of descriptors is done here.
#include "core/machine/pci.h"
#include "devices/net/card.h"
#include "devices/net/offload.h"

#include <string.h>

enum reg { // byte offsets, chapter 13
    CTRL = 0x0000,
    STATUS = 0x0008,
    EECD = 0x0010,
    EERD = 0x0014,
    MDIC = 0x0020,
    VET = 0x0038,
    ICR = 0x00c0,
    ICS = 0x00c8,
    IMS = 0x00d0,
    IMC = 0x00d8,
    RCTL = 0x0100,
    TCTL = 0x0400,
    RDBAL = 0x2800,
    RDBAH = 0x2804,
    RDLEN = 0x2808,
    RDH = 0x2810,
    RDT = 0x2818,
    TDBAL = 0x3800,
    TDBAH = 0x3804,
    TDLEN = 0x3808,
    TDH = 0x3810,
    TDT = 0x3818,
    STATISTICS = 0x4000,
    MPC = 0x4010,
    GPRC = 0x4074,
    GPTC = 0x4080,
    TPR = 0x40d0,
    TPT = 0x40d4,
    STATISTICS_END = 0x4100,
    RXCSUM = 0x5000,
    MTA = 0x5200,
    RAL = 0x5400,
    RAH = 0x5404,
    REGISTERS_END = 0x6000,
};

enum { CTRL_SLU = 0x40, CTRL_RST = 0x04000000, CTRL_PHY_RST = 0x80000000u };
enum { STATUS_BASE = 0x80080381, STATUS_LINK = 2 };
enum {
    EECD_SK = 1,
    EECD_CS = 2,
    EECD_DI = 4,
    EECD_DO = 8,
    EECD_REQUEST = 0x40,
    EECD_GRANT = 0x80,
    EECD_PRESENT = 0x100
};
enum {
    INTERRUPT_TXDW = 1,
    INTERRUPT_TXQE = 2,
    INTERRUPT_LSC = 4,
    INTERRUPT_RXDMT0 = 0x10,
    INTERRUPT_RXO = 0x40,
    INTERRUPT_RXT0 = 0x80
};
enum {
    RCTL_EN = 2,
    RCTL_UPE = 8,
    RCTL_MPE = 0x10,
    RCTL_LPE = 0x20,
    RCTL_BAM = 0x8000,
    RCTL_BSEX = 0x02000000,
    RCTL_SECRC = 0x04000000
};
enum { TCTL_EN = 2 };
enum { // second half of a transmit descriptor
    TX_EOP = 0x01000000,
    TX_IC_TSE = 0x04000000,
    TX_RS = 0x08000000,
    TX_DEXT = 0x20000000,
    TX_VLE = 0x40000000,
    TX_TYPE = 0x00f00000,
    TX_TYPE_DATA = 0x00100000,
    POPTS_IP = 1,
    POPTS_TCP = 2,
};
enum { RX_DD = 1, RX_EOP = 2, RX_IXSM = 4, RX_TCPCS = 0x20, RX_IPCS = 0x40 };

#define DESCRIPTOR   16u
#define EEPROM_SIZE  64
#define PHY_REGS     32
#define WORD(offset) ((offset) / 4)

// Of the last context descriptor, and the frame that is being put together. Machine lock.
struct transmit {
    uint8_t ip_start, ip_at, tcp_start, tcp_at, header;
    uint16_t ip_end, tcp_end, mss;
    bool segment;    // TSE of the frame
    uint8_t options; // POPTS of the frame
    bool vlan;
    uint16_t tag;
    uint32_t length;
    uint8_t *frame; // NIC_FRAME_MAX + 4
};

// Machine lock.
struct e1000 {
    struct pci_device pci; // first
    struct card card;
    struct region memory, ports;
    uint32_t regs[WORD(REGISTERS_END)];
    uint16_t eeprom[EEPROM_SIZE], phy[PHY_REGS];
    uint32_t io_address;
    uint16_t eeprom_in, eeprom_out; // bits shifted in since chip select; bit that is on the output
    uint8_t eeprom_count;
    bool eeprom_reading;
    struct transmit tx;
};

TRACE_POINT(e1000_write);

static uint32_t *reg(struct e1000 *e, unsigned offset)
{
    return &e->regs[WORD(offset)];
}

// ---- Interrupts and link ----------------------------------------------------------------------------------------

static void update_interrupt(struct e1000 *e)
{
    pci_set_intx(&e->pci, *reg(e, ICR) & *reg(e, IMS));
}

static void raise_causes(struct e1000 *e, uint32_t causes)
{
    *reg(e, ICR) |= causes;
    update_interrupt(e);
}

static void set_link(struct e1000 *e, bool up)
{
    *reg(e, STATUS) = STATUS_BASE | (up ? STATUS_LINK : 0);
    e->phy[1] = 0x7949 | (up ? 0x0024 : 0);  // link, negotiation complete
    e->phy[17] = 0xa800 | (up ? 0x0400 : 0); // 1000 Mbit/s full duplex, link
    e->phy[5] = up ? 0x41e1 : 0;
    e->phy[10] = up ? 0x3c00 : 0;
}

static void link_changed(void *opaque, bool up)
{
    struct e1000 *e = opaque;
    set_link(e, up);
    raise_causes(e, INTERRUPT_LSC);
}

// ---- EEPROM (microwire, 5.3) and PHY ----------------------------------------------------------------------------

static void write_eecd(struct e1000 *e, uint32_t value)
{
    uint32_t before = *reg(e, EECD);
    *reg(e, EECD) = value & (EECD_SK | EECD_CS | EECD_DI | EECD_REQUEST | 0x30);
    if (!(value & EECD_CS)) {
        e->eeprom_count = 0;
        e->eeprom_reading = false;
        return;
    }
    if (!((before ^ value) & EECD_SK))
        return;
    if (!(value & EECD_SK)) { // the output moves with the falling edge
        e->eeprom_out = (e->eeprom_out + 1) % (EEPROM_SIZE * 16);
        return;
    }
    e->eeprom_in = e->eeprom_in << 1 | !!(value & EECD_DI);
    if (e->eeprom_count < 9 && ++e->eeprom_count == 9) { // start bit, operation, address
        e->eeprom_reading = (e->eeprom_in >> 6 & 7) == 6;
        e->eeprom_out = (e->eeprom_in & 0x3f) * 16 + EEPROM_SIZE * 16 - 1;
    }
}

static uint32_t read_eecd(struct e1000 *e)
{
    uint32_t value = *reg(e, EECD) | EECD_PRESENT;
    unsigned bit = e->eeprom_out % (EEPROM_SIZE * 16);
    if (value & EECD_REQUEST)
        value |= EECD_GRANT;
    if (!e->eeprom_reading || e->eeprom[bit / 16] >> (15 - bit % 16) & 1)
        value |= EECD_DO;
    return value;
}

static void write_eerd(struct e1000 *e, uint32_t value)
{
    unsigned address = value >> 8 & 0xff;
    *reg(e, EERD) = value;
    if (value & 1) // start: done at once
        *reg(e, EERD) = (value & 0xff00) | 0x10 | (uint32_t)(address < EEPROM_SIZE ? e->eeprom[address] : 0xffff) << 16;
}

static void write_mdic(struct e1000 *e, uint32_t value)
{
    unsigned address = value >> 16 & 31, operation = value >> 26 & 3;
    value |= 0x10000000; // ready
    if ((value >> 21 & 31) != 1) {
        value |= 0x40000000; // no PHY there
    } else if (operation == 2) {
        value = (value & ~0xffffu) | e->phy[address];
    } else if (operation == 1 && (address == 0 || address == 4 || address == 9 || address == 16 || address == 20)) {
        e->phy[address] = address == 0 ? value & ~0x8200u : value; // reset and restart are over at once
        if (address == 0 && (value & 0x0200))
            raise_causes(e, INTERRUPT_LSC);
    }
    *reg(e, MDIC) = value;
    if (value & 0x20000000)
        raise_causes(e, 0x200); // MDIO access complete
}

static void fill_eeprom(struct e1000 *e)
{
    static const uint16_t words[EEPROM_SIZE] = {
        [3] = 0x0000,  [8] = 0x3000,  [9] = 0x1000,  [10] = 0x6403, [11] = 0x100e, [12] = 0x8086, [13] = 0x100e,
        [14] = 0x8086, [15] = 0x3040, [16] = 0x0008, [17] = 0x2000, [18] = 0x7e14, [19] = 0x0048, [20] = 0x1000,
        [21] = 0x00d8, [23] = 0x2700, [24] = 0x6cc9, [25] = 0x3150, [26] = 0x0722, [27] = 0x040b, [28] = 0x0984,
        [30] = 0xc000, [31] = 0x0706, [32] = 0x1008, [34] = 0x0f04, [35] = 0x7fff, [36] = 0x4d01,
    };
    uint16_t sum = 0;
    memcpy(e->eeprom, words, sizeof words);
    for (unsigned i = 0; i < 3; i++)
        e->eeprom[i] = load_le(e->card.nic->mac + 2 * i, 2);
    for (unsigned i = 0; i < EEPROM_SIZE - 1; i++)
        sum += e->eeprom[i];
    e->eeprom[EEPROM_SIZE - 1] = 0xbaba - sum;
}

// ---- Sending (3.3) ----------------------------------------------------------------------------------------------

static void send_piece(void *opaque, const uint8_t *frame, size_t length)
{
    struct e1000 *e = opaque;
    struct iovec iov[3] = {{(void *)frame, length}};
    uint8_t tag[4] = {*reg(e, VET) >> 8, *reg(e, VET), e->tx.tag >> 8, e->tx.tag};
    ++*reg(e, GPTC);
    ++*reg(e, TPT);
    ++*reg(e, TPR + 4);
    if (!e->tx.vlan) {
        nic_send(e->card.nic, iov, 1);
        return;
    }
    iov[0].iov_len = 12;
    iov[1] = (struct iovec){tag, 4};
    iov[2] = (struct iovec){(uint8_t *)frame + 12, length - 12};
    nic_send(e->card.nic, iov, 3);
}

static void send_frame(struct e1000 *e)
{
    struct transmit *tx = &e->tx;
    uint32_t length = tx->length;
    if (length < NIC_HEADER)
        return;
    if (tx->segment) {
        if (nic_takes_large(e->card.nic) && finish_large(tx->frame, length))
            send_piece(e, tx->frame, length);
        else if (!segment_tcp(tx->frame, length, tx->header, tx->mss, send_piece, e))
            log_guest("e1000", "%s: a frame cannot be segmented", e->pci.device.id);
        return;
    }
    if (tx->options & POPTS_TCP)
        checksum_store(tx->frame, tx->tcp_end && tx->tcp_end < length ? tx->tcp_end + 1u : length, tx->tcp_start,
                       tx->tcp_at);
    if (tx->options & POPTS_IP)
        checksum_store(tx->frame, tx->ip_end && tx->ip_end < length ? tx->ip_end + 1u : length, tx->ip_start,
                       tx->ip_at);
    send_piece(e, tx->frame, length);
}

static void take_context(struct transmit *tx, const uint8_t *d)
{
    tx->ip_start = d[0];
    tx->ip_at = d[1];
    tx->ip_end = load_le(d + 2, 2);
    tx->tcp_start = d[4];
    tx->tcp_at = d[5];
    tx->tcp_end = load_le(d + 6, 2);
    tx->header = d[13];
    tx->mss = load_le(d + 14, 2);
}

static void take_data(struct e1000 *e, const uint8_t *d, uint32_t command)
{
    struct transmit *tx = &e->tx;
    bool extended = command & TX_DEXT;
    uint32_t length = command & (extended ? 0xfffff : 0xffff), room = NIC_FRAME_MAX - tx->length;
    if (tx->length == 0) {
        tx->options = extended ? d[13] : 0;
        tx->segment = extended && (command & TX_IC_TSE);
        tx->vlan = (command & TX_VLE) && (*reg(e, CTRL) & 0x40000000);
        tx->tag = load_le(d + 14, 2);
    }
    length = MIN(length, room);
    pci_dma_read(&e->pci, load_le(d, 8), tx->frame + tx->length, length);
    tx->length += length;
    if (!(command & TX_EOP))
        return;
    if (!extended && (command & TX_IC_TSE)) // legacy: checksum from CSS at CSO
        checksum_store(tx->frame, tx->length, d[13], d[10]);
    send_frame(e);
    tx->length = 0;
}

static void transmit(struct e1000 *e)
{
    uint32_t size = *reg(e, TDLEN) & 0xfff80, causes = INTERRUPT_TXQE;
    uint64_t base = (uint64_t)*reg(e, TDBAH) << 32 | (*reg(e, TDBAL) & ~15u);
    if (!(*reg(e, TCTL) & TCTL_EN) || !size)
        return;
    for (unsigned n = 0; *reg(e, TDH) != *reg(e, TDT) && n < size / DESCRIPTOR; n++) {
        uint64_t at = base + DESCRIPTOR * (uint64_t)*reg(e, TDH);
        uint8_t d[DESCRIPTOR];
        pci_dma_read(&e->pci, at, d, sizeof d);
        uint32_t command = load_le(d + 8, 4);
        if ((command & TX_DEXT) && (command & TX_TYPE) == 0)
            take_context(&e->tx, d);
        else if (!(command & TX_DEXT) || (command & TX_TYPE) == TX_TYPE_DATA)
            take_data(e, d, command);
        if (command & TX_RS) {
            uint8_t status = d[12] | 1;
            pci_dma_write(&e->pci, at + 12, &status, 1);
            causes |= INTERRUPT_TXDW;
        }
        *reg(e, TDH) = (*reg(e, TDH) + 1) % (size / DESCRIPTOR);
    }
    nic_settle(e->card.nic);
    raise_causes(e, causes);
}

// ---- Receiving (3.2) --------------------------------------------------------------------------------------------

static bool wanted(struct e1000 *e, const uint8_t *frame)
{
    static const uint8_t shifts[] = {4, 3, 2, 0};
    uint32_t rctl = *reg(e, RCTL);
    if ((frame[0] & 1) && memcmp(frame, "\xff\xff\xff\xff\xff\xff", 6) == 0)
        return rctl & RCTL_BAM || rctl & RCTL_MPE;
    if (rctl & (frame[0] & 1 ? RCTL_MPE : RCTL_UPE))
        return true;
    for (unsigned i = 0; i < 16; i++) {
        uint8_t address[8];
        store_le(address, 4, *reg(e, RAL + 8 * i));
        store_le(address + 4, 4, *reg(e, RAH + 8 * i));
        if ((address[7] & 0x80) && memcmp(frame, address, 6) == 0)
            return true;
    }
    unsigned hash = (frame[5] << 8 | frame[4]) >> shifts[rctl >> 12 & 3] & 0xfff;
    return (frame[0] & 1) && (*reg(e, MTA + hash / 32 * 4) >> (hash % 32) & 1);
}

static unsigned buffer_size(uint32_t rctl)
{
    unsigned size = 2048 >> (rctl >> 16 & 3);
    return rctl & RCTL_BSEX && size < 2048 ? size * 16 : size;
}

static uint8_t receive_status(struct e1000 *e, const uint8_t *frame, size_t length)
{
    bool ip_good;
    if (!(*reg(e, RXCSUM) & 0x300))
        return RX_IXSM;
    bool tcp_good = checksum_verify(frame, length, &ip_good);
    uint8_t status = (ip_good ? RX_IPCS : 0) | (tcp_good && (*reg(e, RXCSUM) & 0x200) ? RX_TCPCS : 0);
    return status ? status : RX_IXSM;
}

static uint32_t free_descriptors(struct e1000 *e, uint32_t count)
{
    return (*reg(e, RDT) + count - *reg(e, RDH)) % count;
}

static bool receive(void *opaque, const uint8_t *frame, size_t length)
{
    struct e1000 *e = opaque;
    uint32_t rctl = *reg(e, RCTL), count = (*reg(e, RDLEN) & 0xfff80) / DESCRIPTOR;
    uint64_t base = (uint64_t)*reg(e, RDBAH) << 32 | (*reg(e, RDBAL) & ~15u);
    unsigned size = buffer_size(rctl);
    bool keeps_fcs = !(rctl & RCTL_SECRC);
    if (!(rctl & RCTL_EN) || !count || *reg(e, RDH) >= count || *reg(e, RDT) >= count || !pci_bus_master(&e->pci) ||
        !wanted(e, frame) || (length > 1522 && !(rctl & RCTL_LPE)) || length > 16384)
        return true; // dropped
    size_t total = length + (keeps_fcs ? 4 : 0), done = 0;
    if (free_descriptors(e, count) < (total + size - 1) / size) {
        ++*reg(e, MPC);
        raise_causes(e, INTERRUPT_RXO);
        return false;
    }
    uint8_t fcs[4], status = receive_status(e, frame, length);
    if (keeps_fcs)
        store_le(fcs, 4, card_fcs(frame, length));
    while (done < total) {
        uint64_t at = base + DESCRIPTOR * (uint64_t)*reg(e, RDH);
        uint8_t d[DESCRIPTOR];
        size_t part = MIN(size, total - done), data = done < length ? MIN(part, length - done) : 0;
        pci_dma_read(&e->pci, at, d, sizeof d);
        uint64_t buffer = load_le(d, 8);
        pci_dma_write(&e->pci, buffer, frame + done, data);
        if (part > data)
            pci_dma_write(&e->pci, buffer + data, fcs + (done + data - length), part - data);
        done += part;
        memset(d + 8, 0, 8);
        store_le(d + 8, 2, part);
        d[12] = RX_DD | status | (done == total ? RX_EOP : 0);
        pci_dma_write(&e->pci, at + 8, d + 8, 4);
        pci_dma_write(&e->pci, at + 12, d + 12, 4); // the status last
        *reg(e, RDH) = (*reg(e, RDH) + 1) % count;
    }
    ++*reg(e, GPRC);
    ++*reg(e, TPR);
    bool low = free_descriptors(e, count) <= count >> ((rctl >> 8 & 3) + 1);
    raise_causes(e, INTERRUPT_RXT0 | (low ? INTERRUPT_RXDMT0 : 0));
    return true;
}

static const struct nic_client nic_client = {.receive = receive, .link_changed = link_changed};

// ---- Registers --------------------------------------------------------------------------------------------------

static void soft_reset(struct e1000 *e)
{
    static const uint16_t phy[PHY_REGS] = {
        [0] = 0x1140, [2] = 0x0141,  [3] = 0x0c20,  [4] = 0x0de1,  [6] = 0x0001,
        [9] = 0x0e00, [15] = 0x3000, [16] = 0x0360, [20] = 0x0d60,
    };
    memset(e->regs, 0, sizeof e->regs);
    memcpy(e->phy, phy, sizeof phy);
    e->tx.length = 0;
    e->eeprom_count = 0;
    e->eeprom_reading = false;
    *reg(e, CTRL) = 0x00140249;
    *reg(e, VET) = 0x8100;
    *reg(e, RAL) = load_le(e->card.nic->mac, 4);
    *reg(e, RAH) = load_le(e->card.nic->mac + 4, 2) | 0x80000000u;
    *reg(e, 0x1000) = 0x00100030; // packet buffer allocation
    *reg(e, 0x0e00) = 0x00000602; // LEDs
    *reg(e, 0x5820) = 0x00000002; // no management
    set_link(e, e->card.nic->link);
    update_interrupt(e);
}

static uint32_t read_register(struct e1000 *e, unsigned offset)
{
    if (offset >= REGISTERS_END)
        return 0;
    uint32_t value = *reg(e, offset);
    switch (offset) {
    case ICR:
        *reg(e, ICR) = 0;
        update_interrupt(e);
        return value;
    case EECD:
        return read_eecd(e);
    case ICS:
    case IMC:
        return 0;
    }
    if (offset >= STATISTICS && offset < STATISTICS_END)
        *reg(e, offset) = 0; // counters clear when read
    return value;
}

static void write_register(struct e1000 *e, unsigned offset, uint32_t value)
{
    TRACE(e1000_write, "%04x = %08x", offset, value);
    if (offset >= REGISTERS_END || (offset >= STATISTICS && offset < STATISTICS_END))
        return;
    switch (offset) {
    case CTRL:
        if (value & CTRL_RST) {
            soft_reset(e);
            return;
        }
        *reg(e, CTRL) = value & ~CTRL_PHY_RST;
        return;
    case STATUS:
        return;
    case EECD:
        write_eecd(e, value);
        return;
    case EERD:
        write_eerd(e, value);
        return;
    case MDIC:
        write_mdic(e, value);
        return;
    case ICR:
        *reg(e, ICR) &= ~value;
        update_interrupt(e);
        return;
    case ICS:
        raise_causes(e, value);
        return;
    case IMS:
        *reg(e, IMS) |= value;
        update_interrupt(e);
        return;
    case IMC:
        *reg(e, IMS) &= ~value;
        update_interrupt(e);
        return;
    case RDH:
    case TDH:
        *reg(e, offset) = value & 0xffff;
        return;
    case RDT:
        *reg(e, RDT) = value & 0xffff;
        nic_resume(e->card.nic);
        return;
    case TDT:
        *reg(e, TDT) = value & 0xffff;
        transmit(e);
        return;
    }
    *reg(e, offset) = value;
    if (offset == RCTL)
        nic_resume(e->card.nic);
    if (offset == TCTL)
        transmit(e);
}

static uint64_t memory_read(void *opaque, uint64_t offset, unsigned size)
{
    return read_register(opaque, offset & ~3u);
}

static void memory_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    write_register(opaque, offset & ~3u, value);
}

// IOADDR and IODATA (13.2).
static uint64_t ports_read(void *opaque, uint64_t offset, unsigned size)
{
    struct e1000 *e = opaque;
    return offset == 0 ? e->io_address : offset == 4 ? read_register(e, e->io_address & ~3u) : 0;
}

static void ports_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct e1000 *e = opaque;
    if (offset == 0)
        e->io_address = value;
    else if (offset == 4)
        write_register(e, e->io_address & ~3u, value);
}

static const struct io_ops memory_ops = {memory_read, memory_write, 4, 4};
static const struct io_ops ports_ops = {ports_read, ports_write, 4, 4};

// ---- The device -------------------------------------------------------------------------------------------------

static bool e1000_realize(struct device *device, GError **error)
{
    struct e1000 *e = (struct e1000 *)device;
    const struct pci_ids ids = {.vendor = 0x8086,
                                .device = 0x100e,
                                .subsystem_vendor = 0x8086,
                                .subsystem = 0x001e,
                                .revision = 3,
                                .class_code = 2,
                                .interrupt_pin = 1};
    e->tx.frame = g_malloc0(NIC_FRAME_MAX);
    if (!card_open(&e->card, device, error) || !pci_device_init(&e->pci, &ids, -1, error))
        return false;
    region_init_io(&e->memory, "e1000", &memory_ops, e, 0x20000);
    region_init_io(&e->ports, "e1000-ports", &ports_ops, e, 64);
    pci_set_bar(&e->pci, 0, &e->memory, false, false, false);
    pci_set_bar(&e->pci, 1, &e->ports, true, false, false);
    if (!e->card.no_rom)
        pci_set_rom(&e->pci, IPXE_ROM("e1000"));
    fill_eeprom(e);
    soft_reset(e);
    nic_set_client(e->card.nic, &nic_client, e);
    return true;
}

static void e1000_unrealize(struct device *device)
{
    struct e1000 *e = (struct e1000 *)device;
    card_close(&e->card);
    pci_device_exit(&e->pci);
    g_free(e->tx.frame);
}

static void e1000_reset(struct device *device)
{
    soft_reset((struct e1000 *)device);
}

static bool e1000_loaded(struct device *device, GError **error)
{
    struct e1000 *e = (struct e1000 *)device;
    e->tx.length = 0; // a frame in the making is dropped
    set_link(e, e->card.nic->link);
    return true;
}

static const struct property e1000_properties[] = {CARD_PROPERTIES(struct e1000, card), PROPERTY_END};

static const struct field transmit_fields[] = {
    FIELD_U8(struct transmit, ip_start), FIELD_U8(struct transmit, ip_at),  FIELD_U8(struct transmit, tcp_start),
    FIELD_U8(struct transmit, tcp_at),   FIELD_U8(struct transmit, header), FIELD_U16(struct transmit, ip_end),
    FIELD_U16(struct transmit, tcp_end), FIELD_U16(struct transmit, mss),   FIELD_END,
};

static const struct field e1000_fields[] = {
    FIELD_STRUCT(struct e1000, pci, pci_device_fields),
    FIELD_ARRAY(U32, struct e1000, regs),
    FIELD_ARRAY(U16, struct e1000, phy),
    FIELD_U32(struct e1000, io_address),
    FIELD_U16(struct e1000, eeprom_in),
    FIELD_U16(struct e1000, eeprom_out),
    FIELD_U8(struct e1000, eeprom_count),
    FIELD_BOOL(struct e1000, eeprom_reading),
    FIELD_STRUCT(struct e1000, tx, transmit_fields),
    FIELD_END,
};

const struct device_class e1000_class = {
    .name = "e1000",
    .help = "Intel 82540EM gigabit card",
    .size = sizeof(struct e1000),
    .properties = e1000_properties,
    .realize = e1000_realize,
    .unrealize = e1000_unrealize,
    .reset = e1000_reset,
    .fields = e1000_fields,
    .version = 1,
    .loaded = e1000_loaded,
};
