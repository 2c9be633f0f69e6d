// SPDX-License-Identifier: GPL-2.0-or-later
// The 16550A UART (National Semiconductor PC16550D data sheet). Bytes leave at once, whatever the baud rate; the
// transmitter is busy only while the back end's buffer is full, so nothing is lost.
#include "devices/char/serial.h"

#include "core/machine/machine.h"
#include "devices/char/backend.h"

#define FIFO 16

enum { DATA, IER, IIR_FCR, LCR, MCR, LSR, MSR, SCRATCH };

#define IER_RX       0x01
#define IER_TX       0x02
#define IER_LINE     0x04
#define IER_MODEM    0x08
#define IIR_NONE     0x01
#define IIR_MODEM    0x00
#define IIR_TX       0x02
#define IIR_RX       0x04
#define IIR_LINE     0x06
#define IIR_TIMEOUT  0x0c
#define FCR_ON       0x01
#define FCR_CLEAR_RX 0x02
#define LCR_DLAB     0x80
#define MCR_DTR      0x01
#define MCR_RTS      0x02
#define MCR_OUT1     0x04
#define MCR_OUT2     0x08
#define MCR_LOOP     0x10
#define LSR_READY    0x01
#define LSR_OVERRUN  0x02
#define LSR_BREAK    0x10
#define LSR_EMPTY    0x60 // holding and shift register
#define MSR_CTS      0x10
#define MSR_DSR      0x20
#define MSR_RI       0x40
#define MSR_DCD      0x80

struct serial {
    struct device device;
    uint64_t port, irq;
    struct irq output; // a card's, in place of the ISA line
    struct char_backend *backend;
    uint8_t ier, lcr, mcr, scratch, fcr, msr_delta;
    uint16_t divisor;
    bool tx_interrupt; // the transmitter became empty and nobody was told yet
    bool tx_busy;      // the back end is full
    bool overrun, timed_out;
    uint8_t outside; // enum char_lines: what the other side drives
    bool uses_rts;   // the guest raised RTS once: low it means "wait"
    bool line;       // what this port drives; COM1 and COM3 share a line, so only changes are passed on
    uint8_t fifo[FIFO];
    uint8_t fifo_count;
    struct timer timeout; // four characters without a new one
    struct region ports;
};

// ---- Interrupts ----
static unsigned trigger_level(const struct serial *s)
{
    static const uint8_t levels[4] = {1, 4, 8, 14};
    return s->fcr & FCR_ON ? levels[s->fcr >> 6] : 1;
}

static uint8_t line_status(const struct serial *s)
{
    return (s->fifo_count ? LSR_READY : 0) | (s->overrun ? LSR_OVERRUN : 0) | (s->tx_busy ? 0 : LSR_EMPTY);
}

static uint8_t modem_lines(const struct serial *s)
{
    if (!(s->mcr & MCR_LOOP))
        return s->outside << 4; // enum char_lines has the register's order
    return (s->mcr & MCR_RTS ? MSR_CTS : 0) | (s->mcr & MCR_DTR ? MSR_DSR : 0) | (s->mcr & MCR_OUT1 ? MSR_RI : 0) |
           (s->mcr & MCR_OUT2 ? MSR_DCD : 0);
}

// The interrupt with the highest priority, as IIR shows it.
static uint8_t interrupt_id(const struct serial *s)
{
    if ((s->ier & IER_LINE) && s->overrun)
        return IIR_LINE;
    if ((s->ier & IER_RX) && s->fifo_count >= trigger_level(s))
        return IIR_RX;
    if ((s->ier & IER_RX) && s->fifo_count && s->timed_out)
        return IIR_TIMEOUT;
    if ((s->ier & IER_TX) && s->tx_interrupt)
        return IIR_TX;
    if ((s->ier & IER_MODEM) && (s->msr_delta & 15))
        return IIR_MODEM;
    return IIR_NONE;
}

static void update(struct serial *s)
{
    bool level = interrupt_id(s) != IIR_NONE && (s->mcr & (MCR_OUT2 | MCR_LOOP)) == MCR_OUT2;
    if (level == s->line)
        return;
    s->line = level;
    irq_set(s->output.fn ? &s->output : &s->device.machine->isa_irq[s->irq], level);
}

static void note_modem_change(struct serial *s, uint8_t before)
{
    uint8_t changed = (before ^ modem_lines(s)) >> 4;
    if (!(before & MSR_RI))
        changed &= ~4; // only the trailing edge of the ring counts
    s->msr_delta |= changed;
}

// ---- Receiving ----
static void arm_timeout(struct serial *s)
{
    int64_t character = 10 * 1000000000ll / (115200 / MAX(s->divisor, 1) + 1);
    timer_arm(&s->timeout, clock_now(s->device.machine->clock) + 4 * MIN(character, 10000000));
}

static void timeout_due(void *opaque)
{
    struct serial *s = opaque;
    s->timed_out = true;
    update(s);
}

static void push_byte(struct serial *s, uint8_t byte)
{
    unsigned capacity = s->fcr & FCR_ON ? FIFO : 1;
    if (s->fifo_count >= capacity) {
        s->overrun = true;
        return;
    }
    s->fifo[s->fifo_count++] = byte;
}

static unsigned can_receive(void *opaque)
{
    const struct serial *s = opaque;
    unsigned capacity = s->fcr & FCR_ON ? FIFO : 1;
    bool held = s->uses_rts && !(s->mcr & MCR_RTS); // the guest asks the other side to wait
    return s->mcr & MCR_LOOP || held || s->fifo_count >= capacity ? 0 : capacity - s->fifo_count;
}

static void receive(void *opaque, const uint8_t *data, unsigned length)
{
    struct serial *s = opaque;
    for (unsigned i = 0; i < length; i++)
        push_byte(s, data[i]);
    s->timed_out = false;
    arm_timeout(s);
    update(s);
}

static uint8_t pop_byte(struct serial *s)
{
    if (!s->fifo_count)
        return 0;
    uint8_t byte = s->fifo[0];
    s->fifo_count--;
    for (unsigned i = 0; i < s->fifo_count; i++)
        s->fifo[i] = s->fifo[i + 1];
    s->timed_out = false;
    if (s->fifo_count)
        arm_timeout(s);
    else if (s->backend)
        char_backend_accept_input(s->backend);
    return byte;
}

// ---- Sending ----
static void send_byte(struct serial *s, uint8_t byte)
{
    s->tx_interrupt = false;
    if (s->mcr & MCR_LOOP) {
        push_byte(s, byte);
        s->timed_out = true;
    } else if (s->backend) {
        char_backend_write(s->backend, &byte, 1);
        s->tx_busy = char_backend_busy(s->backend);
    }
    s->tx_interrupt = !s->tx_busy;
}

static void drained(void *opaque)
{
    struct serial *s = opaque;
    if (!s->tx_busy)
        return;
    s->tx_busy = false;
    s->tx_interrupt = true;
    update(s);
}

static void connected(void *opaque, bool is_connected)
{
    struct serial *s = opaque;
    uint8_t before = modem_lines(s);
    s->outside = CHAR_CTS | CHAR_DSR | (is_connected ? CHAR_DCD : 0);
    note_modem_change(s, before);
    update(s);
}

static void lines(void *opaque, uint8_t now)
{
    struct serial *s = opaque;
    uint8_t before = modem_lines(s);
    s->outside = now;
    note_modem_change(s, before);
    update(s);
}

static const struct char_frontend frontend = {can_receive, receive, drained, connected, lines};

// ---- Registers ----
static void write_fifo_control(struct serial *s, uint8_t value)
{
    if ((s->fcr ^ value) & FCR_ON || value & FCR_CLEAR_RX) {
        s->fifo_count = 0;
        s->timed_out = false;
        if (s->backend)
            char_backend_accept_input(s->backend);
    }
    s->fcr = value & (FCR_ON | 0xc8);
}

static void write_modem_control(struct serial *s, uint8_t value)
{
    uint8_t before = modem_lines(s);
    bool was_loop = s->mcr & MCR_LOOP;
    s->mcr = value & 0x1f;
    note_modem_change(s, before);
    if (s->mcr & MCR_LOOP || !s->backend)
        return;
    s->uses_rts |= s->mcr & MCR_RTS;
    char_backend_set_lines(s->backend, s->mcr & MCR_DTR, s->mcr & MCR_RTS);
    if (was_loop || (s->uses_rts && s->mcr & MCR_RTS))
        char_backend_accept_input(s->backend);
}

static void set_format(struct serial *s)
{
    const struct char_format format = {.baud = 115200 / MAX(s->divisor, 1),
                                       .bits = (s->lcr & 3) + 5,
                                       .two_stops = s->lcr & 4,
                                       .parity = s->lcr & 8,
                                       .odd = !(s->lcr & 16)};
    if (s->backend && !(s->lcr & LCR_DLAB))
        char_backend_set_format(s->backend, &format);
}

static void serial_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct serial *s = opaque;
    bool dlab = s->lcr & LCR_DLAB;
    switch (offset) {
    case DATA:
        if (dlab)
            s->divisor = (s->divisor & 0xff00) | value;
        else
            send_byte(s, value);
        break;
    case IER:
        if (dlab) {
            s->divisor = (s->divisor & 0x00ff) | value << 8;
            break;
        }
        if ((value & IER_TX) && !(s->ier & IER_TX) && !s->tx_busy)
            s->tx_interrupt = true;
        s->ier = value & 15;
        break;
    case IIR_FCR:
        write_fifo_control(s, value);
        break;
    case LCR:
        s->lcr = value;
        set_format(s);
        break;
    case MCR:
        write_modem_control(s, value);
        break;
    case SCRATCH:
        s->scratch = value;
        break;
    }
    update(s);
}

static uint8_t read_register(struct serial *s, uint64_t offset)
{
    uint8_t value;
    switch (offset) {
    case DATA:
        return s->lcr & LCR_DLAB ? s->divisor & 0xff : pop_byte(s);
    case IER:
        return s->lcr & LCR_DLAB ? s->divisor >> 8 : s->ier;
    case IIR_FCR:
        value = interrupt_id(s);
        if (value == IIR_TX)
            s->tx_interrupt = false;
        return value | (s->fcr & FCR_ON ? 0xc0 : 0);
    case LCR:
        return s->lcr;
    case MCR:
        return s->mcr;
    case LSR:
        value = line_status(s);
        s->overrun = false;
        return value;
    case MSR:
        value = modem_lines(s) | s->msr_delta;
        s->msr_delta = 0;
        return value;
    default:
        return s->scratch;
    }
}

static uint64_t serial_read(void *opaque, uint64_t offset, unsigned size)
{
    struct serial *s = opaque;
    uint8_t value = read_register(s, offset);
    update(s);
    return value;
}

const struct io_ops serial_ops = {serial_read, serial_write, 1, 1};

void serial_set_output(struct device *serial, struct irq output)
{
    ((struct serial *)serial)->output = output;
}

// ---- Life ----
static bool realize(struct device *device, GError **error)
{
    struct serial *s = (struct serial *)device;
    timer_init(&s->timeout, device->machine->clock, timeout_due, s);
    region_init_io(&s->ports, "serial", &serial_ops, s, 8);
    if (s->port)
        address_space_map(device->machine->ports, &s->ports, s->port, 0);
    s->outside = s->backend ? char_backend_lines(s->backend) : CHAR_CTS | CHAR_DSR | CHAR_DCD;
    if (s->backend)
        char_backend_attach(s->backend, &frontend, s);
    return true;
}

static void unrealize(struct device *device)
{
    struct serial *s = (struct serial *)device;
    timer_destroy(&s->timeout);
    char_backend_free(s->backend);
}

static void reset(struct device *device)
{
    struct serial *s = (struct serial *)device;
    s->ier = s->lcr = s->mcr = s->scratch = s->fcr = s->msr_delta = 0;
    s->divisor = 12;
    s->tx_interrupt = s->overrun = s->timed_out = s->uses_rts = false;
    s->fifo_count = 0;
    s->tx_busy = s->backend && char_backend_busy(s->backend);
    timer_cancel(&s->timeout);
    update(s);
    if (s->backend)
        char_backend_accept_input(s->backend);
}

static bool loaded(struct device *device, GError **error)
{
    struct serial *s = (struct serial *)device;
    s->fifo_count = MIN(s->fifo_count, FIFO);
    // A guest that waited for a full back end to drain is told here: this one has room.
    bool waited = s->tx_busy;
    s->tx_busy = s->backend && char_backend_busy(s->backend);
    if (waited && !s->tx_busy)
        s->tx_interrupt = true;
    update(s);
    if (s->backend)
        char_backend_accept_input(s->backend);
    return true;
}

static const struct field fields[] = {
    FIELD_U8(struct serial, ier),
    FIELD_U8(struct serial, lcr),
    FIELD_U8(struct serial, mcr),
    FIELD_U8(struct serial, scratch),
    FIELD_U8(struct serial, fcr),
    FIELD_U8(struct serial, msr_delta),
    FIELD_U16(struct serial, divisor),
    FIELD_BOOL(struct serial, tx_interrupt),
    FIELD_BOOL(struct serial, tx_busy),
    FIELD_BOOL(struct serial, overrun),
    FIELD_BOOL(struct serial, timed_out),
    FIELD_BYTES(struct serial, fifo),
    FIELD_U8(struct serial, fifo_count),
    FIELD_TIMER(struct serial, timeout),
    FIELD_END,
};

static const struct property properties[] = {
    {"port", PROPERTY_UINT, offsetof(struct serial, port), "0x3f8", 0, 0xfff8, "first of eight ports"},
    {"irq", PROPERTY_UINT, offsetof(struct serial, irq), "4", 1, 15, "ISA interrupt"},
    {"backend", PROPERTY_POINTER, offsetof(struct serial, backend), NULL, 0, 0, NULL},
    PROPERTY_END,
};

const struct device_class serial_class = {
    .name = "serial",
    .help = "a 16550A serial port",
    .size = sizeof(struct serial),
    .properties = properties,
    .realize = realize,
    .unrealize = unrealize,
    .reset = reset,
    .loaded = loaded,
    .fields = fields,
    .internal = true,
};
