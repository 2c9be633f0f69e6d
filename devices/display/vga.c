// SPDX-License-Identifier: GPL-2.0-or-later
// VGA registers and the legacy memory window. (IBM PS/2 Hardware Interface Technical Reference, "Video Subsystem"; the
// VBE DISPI interface as Bochs' vbe_display_api.txt describes it)
#include "devices/display/vga.h"

#include <string.h>

#define VBE_ID5 0xb0c5

enum { MISC_COLOUR = 0x01, MISC_MEMORY = 0x02, MISC_CLOCK_28 = 0x04 };
enum {
    GR_SET_RESET,
    GR_ENABLE_SET_RESET,
    GR_COMPARE,
    GR_ROTATE,
    GR_READ_PLANE,
    GR_MODE,
    GR_MISC,
    GR_DONT_CARE,
    GR_BIT_MASK
};
enum { SR_MEMORY_EXTENDED = 0x02, SR_NO_ODD_EVEN = 0x04, SR_CHAIN4 = 0x08 };

// ---- The retrace clock: guest time against the programmed timings ----
struct beam {
    bool retrace, blanked;
};

static struct beam beam_now(const struct vga *vga)
{
    const struct vga_registers *r = &vga->r;
    const uint8_t *c = r->crtc;
    int64_t frame_ns = 16666667, now = clock_now(vga->machine->clock);
    unsigned total = 525, visible = 480, sync = 490, sync_end = 492, dots = 800, visible_dots = 640;
    if (!vga_vbe_enabled(r)) {
        unsigned dot_clock = (r->misc & MISC_CLOCK_28 ? 28322 : 25175) / (r->sequencer[1] & 8 ? 2 : 1); // kHz
        unsigned cell = r->sequencer[1] & 1 ? 8 : 9;
        dots = (c[0] + 5) * cell;
        visible_dots = (c[1] + 1) * cell;
        total = (c[6] | (c[7] & 1) << 8 | (c[7] & 0x20) << 4) + 2;
        visible = (c[0x12] | (c[7] & 2) << 7 | (c[7] & 0x40) << 3) + 1;
        sync = c[0x10] | (c[7] & 4) << 6 | (c[7] & 0x80) << 2;
        sync_end = (sync & ~15u) | (c[0x11] & 15);
        if (sync_end <= sync)
            sync_end += 16;
        frame_ns = (int64_t)dots * total * 1000000 / dot_clock;
        // Timings that no monitor shows still need a retrace, or guests wait for it for ever.
        if (frame_ns < 1000000 || frame_ns > 200000000 || sync >= total) {
            frame_ns = 14285714;
            total = 449;
            visible = 400;
            sync = 412;
            sync_end = 414;
        }
    }
    int64_t in_frame = now % frame_ns;
    unsigned line = in_frame * total / frame_ns;
    unsigned dot = in_frame * total % frame_ns * dots / frame_ns;
    return (struct beam){.retrace = line >= sync && line < sync_end, .blanked = line >= visible || dot >= visible_dots};
}

// ---- What the CPU sees at 0xA0000 ----
static bool legacy_linear(const struct vga_registers *r)
{
    if (!(r->misc & MISC_MEMORY))
        return false;
    if (vga_vbe_enabled(r) && r->vbe[VBE_BPP] >= 8)
        return true;
    const uint8_t *g = r->graphics;
    return r->sequencer[4] & SR_CHAIN4 && (r->sequencer[2] & 15) == 15 && (g[GR_MODE] & 3) == 0 &&
           (g[GR_ENABLE_SET_RESET] & 15) == 0 && (g[GR_ROTATE] & 0x1f) == 0 && g[GR_BIT_MASK] == 0xff;
}

// Where the window begins and how long it is, by graphics register 6.
static void legacy_extent(const struct vga_registers *r, uint32_t *start, uint32_t *length)
{
    static const uint32_t starts[] = {0, 0, 0x10000, 0x18000}, lengths[] = {0x20000, 0x10000, 0x8000, 0x8000};
    unsigned map = r->graphics[GR_MISC] >> 2 & 3;
    *start = starts[map];
    *length = lengths[map];
}

// Maps video memory over the registers where it is plain memory, so that nothing but the first write to a page is slow.
static void update_window(struct vga *vga)
{
    bool mapped = legacy_linear(&vga->r);
    uint32_t start, length;
    legacy_extent(&vga->r, &start, &length);
    uint64_t ram = vga->ram_offset;
    if (vga_vbe_enabled(&vga->r)) {
        ram += (uint64_t)vga->r.vbe[VBE_BANK] << 16;
        length = MIN(length, 0x10000);
    }
    if (ram - vga->ram_offset + length > vga->size)
        mapped = false;
    uint64_t base = 0xa0000 + start;
    if (mapped == vga->window_mapped &&
        (!mapped || (base == vga->window_base && ram == vga->window_ram && vga->window.size == length)))
        return;
    address_space_begin(vga->machine->memory);
    if (vga->window_mapped)
        address_space_unmap(&vga->window);
    vga->window_mapped = mapped;
    if (mapped) {
        vga->window_base = base;
        vga->window_ram = ram;
        region_init_ram(&vga->window, "vga window", ram, length);
        address_space_map(vga->machine->memory, &vga->window, base, 2);
    }
    address_space_commit(vga->machine->memory);
}

// The planar address and the planes that CPU address OFFSET into the 128 KiB window reaches. False: none.
static bool decode(const struct vga *vga, uint32_t offset, bool odd_even, uint32_t *address, unsigned *planes)
{
    const struct vga_registers *r = &vga->r;
    uint32_t start, length;
    legacy_extent(r, &start, &length);
    if (!(r->misc & MISC_MEMORY) || offset < start || offset - start >= length)
        return false;
    offset -= start;
    *planes = 15;
    if (r->sequencer[4] & SR_CHAIN4) {
        *planes = 1u << (offset & 3);
        offset >>= 2;
    } else if (odd_even) {
        *planes = offset & 1 ? 10 : 5;
        offset &= ~1u;
    }
    offset &= VGA_PLANE_SIZE - 1;
    if (vga_vbe_enabled(r))
        offset += (uint32_t)r->vbe[VBE_BANK] << 16;
    *address = offset;
    return offset < vga->size / 4;
}

static uint32_t spread(unsigned planes)
{
    static const uint32_t masks[16] = {
        0x00000000, 0x000000ff, 0x0000ff00, 0x0000ffff, 0x00ff0000, 0x00ff00ff, 0x00ffff00, 0x00ffffff,
        0xff000000, 0xff0000ff, 0xff00ff00, 0xff00ffff, 0xffff0000, 0xffff00ff, 0xffffff00, 0xffffffff,
    };
    return masks[planes & 15];
}

static uint8_t planar_read(struct vga *vga, uint32_t offset)
{
    struct vga_registers *r = &vga->r;
    const uint8_t *g = r->graphics;
    bool odd_even = g[GR_MODE] & 0x10;
    uint32_t address;
    unsigned planes;
    if (!decode(vga, offset, odd_even, &address, &planes))
        return 0xff;
    r->latch = load_le(vga->memory + 4 * (size_t)address, 4);
    if (r->sequencer[4] & SR_CHAIN4)
        return r->latch >> 8 * (offset & 3);
    if (g[GR_MODE] & 8) { // read mode 1: where all planes that matter have the colour
        uint32_t differ = (r->latch ^ spread(g[GR_COMPARE])) & spread(g[GR_DONT_CARE]);
        return ~(differ | differ >> 8 | differ >> 16 | differ >> 24);
    }
    unsigned plane = g[GR_READ_PLANE] & 3;
    if (odd_even)
        plane = (plane & 2) | (offset & 1);
    return r->latch >> 8 * plane;
}

static uint32_t combine(unsigned function, uint32_t value, uint32_t latch)
{
    switch (function) {
    case 1:
        return value & latch;
    case 2:
        return value | latch;
    case 3:
        return value ^ latch;
    }
    return value;
}

// The four planes' new bytes by write mode. (Video Subsystem, "Graphics Mode Register")
static uint32_t write_value(const struct vga_registers *r, uint8_t value)
{
    const uint8_t *g = r->graphics;
    unsigned rotate = g[GR_ROTATE] & 7, function = g[GR_ROTATE] >> 3 & 3;
    uint8_t rotated = value >> rotate | value << (8 - rotate);
    uint32_t mask = g[GR_BIT_MASK] * 0x01010101u, data;
    switch (g[GR_MODE] & 3) {
    case 0: {
        uint32_t set = spread(g[GR_ENABLE_SET_RESET]);
        data = (rotated * 0x01010101u & ~set) | (spread(g[GR_SET_RESET]) & set);
        break;
    }
    case 1:
        return r->latch;
    case 2:
        data = spread(value);
        break;
    default:
        mask &= rotated * 0x01010101u;
        data = spread(g[GR_SET_RESET]);
    }
    return (combine(function, data, r->latch) & mask) | (r->latch & ~mask);
}

static void planar_write(struct vga *vga, uint32_t offset, uint8_t value)
{
    struct vga_registers *r = &vga->r;
    uint32_t address;
    unsigned planes;
    if (!decode(vga, offset, !(r->sequencer[4] & SR_NO_ODD_EVEN), &address, &planes))
        return;
    planes &= r->sequencer[2];
    uint32_t mask = spread(planes), data = write_value(r, value);
    uint8_t *at = vga->memory + 4 * (size_t)address;
    uint32_t old = load_le(at, 4), new = (old & ~mask) | (data & mask);
    if (old == new)
        return;
    struct ram *ram = vga->machine->ram;
    ram_write_begin(ram, vga->ram_offset + 4 * (uint64_t)address, 4);
    store_le(at, 4, new);
    ram_write_end(ram, vga->ram_offset + 4 * (uint64_t)address, 4);
    if (address < VGA_PLANE_SIZE)
        vga->chunks[address / VGA_CHUNK / 64] |= BIT(address / VGA_CHUNK % 64);
    if ((old ^ new) & 0x00ff0000 && !(r->graphics[GR_MISC] & 1))
        vga->changed = true; // a character's shape
}

static uint64_t legacy_read(void *opaque, uint64_t offset, unsigned size)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < size; i++)
        value |= (uint64_t)planar_read(opaque, offset + i) << 8 * i;
    return value;
}

static void legacy_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    for (unsigned i = 0; i < size; i++)
        planar_write(opaque, offset + i, value >> 8 * i);
}

// ---- VBE ----
uint16_t vga_vbe_read(struct vga *vga, unsigned index)
{
    const struct vga_registers *r = &vga->r;
    bool capabilities = r->vbe[VBE_ENABLE] & VBE_GETCAPS;
    switch (index) {
    case VBE_XRES:
        return capabilities ? SURFACE_MAX_WIDTH : r->vbe[index];
    case VBE_YRES:
        return capabilities ? SURFACE_MAX_HEIGHT : r->vbe[index];
    case VBE_BPP:
        return capabilities ? 32 : r->vbe[index];
    case VBE_MEMORY_64K:
        return vga->size >> 16;
    }
    return index < VBE_COUNT ? r->vbe[index] : 0;
}

static unsigned vbe_bytes(unsigned bits, uint32_t pixels)
{
    return bits == 4 ? pixels / 2 : pixels * ((bits + 7) / 8);
}

// A width that fits, and the height that is left of the memory with it.
static void vbe_set_width(struct vga *vga, uint32_t width)
{
    uint16_t *v = vga->r.vbe;
    width = MAX(width, v[VBE_XRES]);
    if (v[VBE_BPP] == 4)
        width &= ~7u;
    uint32_t pitch = vbe_bytes(v[VBE_BPP], width);
    if (!pitch || width > 32768 || pitch * (uint64_t)MAX(v[VBE_YRES], 1) > vga->size) {
        width = v[VBE_XRES];
        pitch = MAX(vbe_bytes(v[VBE_BPP], width), 1);
    }
    v[VBE_VIRT_WIDTH] = width;
    v[VBE_VIRT_HEIGHT] = MIN(vga->size / pitch, 65535);
}

static void vbe_clear(struct vga *vga)
{
    uint16_t *v = vga->r.vbe;
    uint64_t length = MIN((uint64_t)vbe_bytes(v[VBE_BPP], v[VBE_VIRT_WIDTH]) * v[VBE_YRES], vga->size);
    for (uint64_t at = 0; at < length; at += PAGE_SIZE) {
        uint64_t part = MIN(PAGE_SIZE, length - at);
        ram_write_begin(vga->machine->ram, vga->ram_offset + at, part);
        memset(vga->memory + at, 0, part);
        ram_write_end(vga->machine->ram, vga->ram_offset + at, part);
    }
}

static void vbe_enable(struct vga *vga, uint16_t value)
{
    uint16_t *v = vga->r.vbe;
    bool was = v[VBE_ENABLE] & VBE_ENABLED;
    v[VBE_ENABLE] = value & (VBE_ENABLED | VBE_GETCAPS | VBE_DAC_8BIT | VBE_LFB | VBE_NOCLEAR);
    if (value & VBE_ENABLED && !was) {
        v[VBE_BANK] = v[VBE_X_OFFSET] = v[VBE_Y_OFFSET] = 0;
        vbe_set_width(vga, v[VBE_XRES]);
        if (!(value & VBE_NOCLEAR))
            vbe_clear(vga);
    } else if (!(value & VBE_ENABLED)) {
        v[VBE_BANK] = 0;
    }
}

static bool vbe_depth(uint16_t bits)
{
    return bits == 4 || bits == 8 || bits == 15 || bits == 16 || bits == 24 || bits == 32;
}

void vga_vbe_write(struct vga *vga, unsigned index, uint16_t value)
{
    uint16_t *v = vga->r.vbe;
    switch (index) {
    case VBE_ID:
        if (value >= 0xb0c0 && value <= VBE_ID5)
            v[VBE_ID] = value;
        return;
    case VBE_XRES:
        if (value && value <= SURFACE_MAX_WIDTH)
            v[index] = value & ~7u ? value & ~7u : 8;
        break;
    case VBE_YRES:
        if (value && value <= SURFACE_MAX_HEIGHT)
            v[index] = value;
        break;
    case VBE_BPP:
        if (value == 0)
            value = 8;
        if (vbe_depth(value))
            v[index] = value;
        break;
    case VBE_ENABLE:
        vbe_enable(vga, value);
        break;
    case VBE_BANK:
        v[index] = MIN(value, (vga->size >> 16) - 1);
        break;
    case VBE_VIRT_WIDTH:
        vbe_set_width(vga, value);
        break;
    case VBE_X_OFFSET:
    case VBE_Y_OFFSET:
        v[index] = value;
        break;
    default:
        return;
    }
    // Resolution and depth may be changed while enabled, by drivers that do not switch off first.
    if (vga_vbe_enabled(&vga->r) && (index == VBE_XRES || index == VBE_YRES || index == VBE_BPP))
        vbe_set_width(vga, v[VBE_XRES]);
    vga->changed = true;
    update_window(vga);
}

// Ports 0x1CE (index), 0x1CF (data), 0x1D0 (data again, aligned). A 16-bit access at 0x1CF arrives as its two bytes.
static uint64_t vbe_port_read(void *opaque, uint64_t offset, unsigned size)
{
    struct vga *vga = opaque;
    uint16_t data = vga_vbe_read(vga, vga->r.vbe_index);
    if (offset == 0)
        return size == 2 ? vga->r.vbe_index : vga->r.vbe_index & 0xff;
    if (offset == 1)
        return data & 0xff;
    return size == 2 ? data : data >> 8;
}

static void vbe_port_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct vga *vga = opaque;
    if (offset == 0)
        vga->r.vbe_index = value;
    else if (offset == 1)
        vga->r.vbe_low = value;
    else if (size == 2)
        vga_vbe_write(vga, vga->r.vbe_index, value);
    else if (offset == 2)
        vga_vbe_write(vga, vga->r.vbe_index, (value & 0xff) << 8 | vga->r.vbe_low);
}

// ---- IBM's ports ----
// CRTC and input status answer at 0x3Bx or 0x3Dx, by the miscellaneous register.
static bool port_decoded(const struct vga *vga, unsigned port)
{
    bool colour = vga->r.misc & MISC_COLOUR;
    if (port >= 0x3b0 && port <= 0x3bf)
        return !colour;
    return port < 0x3d0 || port > 0x3df || colour;
}

static uint8_t dac_read(struct vga_registers *r)
{
    uint8_t value = r->dac[3 * r->dac_read_index + r->dac_component];
    if (++r->dac_component == 3) {
        r->dac_component = 0;
        r->dac_read_index++;
    }
    return value;
}

static void dac_write(struct vga *vga, uint8_t value)
{
    struct vga_registers *r = &vga->r;
    r->dac_latch[r->dac_component] = r->vbe[VBE_ENABLE] & VBE_DAC_8BIT ? value : value & 0x3f;
    if (++r->dac_component < 3)
        return;
    memcpy(r->dac + 3 * r->dac_write_index, r->dac_latch, 3);
    r->dac_component = 0;
    r->dac_write_index++;
    vga->changed = true;
}

static uint8_t input_status(struct vga *vga)
{
    vga->r.attribute_data = false;
    struct beam beam = beam_now(vga);
    return (beam.blanked || beam.retrace) | beam.retrace << 3;
}

uint8_t vga_port_read(struct vga *vga, unsigned port)
{
    struct vga_registers *r = &vga->r;
    if (!port_decoded(vga, port))
        return 0xff;
    if (port < 0x3c0)
        port += 0x20; // 0x3Bx is 0x3Dx
    switch (port) {
    case 0x3c0:
        return r->attribute_index;
    case 0x3c1:
        return (r->attribute_index & 31) < 0x15 ? r->attribute[r->attribute_index & 31] : 0;
    case 0x3c2:
        return 0x10; // a colour monitor is there
    case 0x3c4:
        return r->sequencer_index;
    case 0x3c5:
        return r->sequencer[r->sequencer_index & 7];
    case 0x3c6:
        return r->dac_mask;
    case 0x3c7:
        return r->dac_state;
    case 0x3c8:
        return r->dac_write_index;
    case 0x3c9:
        return dac_read(r);
    case 0x3ca:
        return r->feature;
    case 0x3cc:
        return r->misc;
    case 0x3ce:
        return r->graphics_index;
    case 0x3cf:
        return r->graphics[r->graphics_index & 15];
    case 0x3d4:
        return r->crtc_index;
    case 0x3d5:
        return r->crtc_index < sizeof(r->crtc) ? r->crtc[r->crtc_index] : 0xff;
    case 0x3da:
        return input_status(vga);
    }
    return 0xff;
}

static void attribute_write(struct vga *vga, uint8_t value)
{
    static const uint8_t masks[0x15] = {0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f,
                                        0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0xef, 0xff, 0x3f, 0x0f, 0x0f};
    struct vga_registers *r = &vga->r;
    unsigned index = r->attribute_index & 31;
    if (!r->attribute_data)
        r->attribute_index = value & 0x3f;
    else if (index >= 0x10 ? index < 0x15 : !(r->attribute_index & 0x20)) // the palette only while it is not shown
        r->attribute[index] = value & masks[index];
    r->attribute_data = !r->attribute_data;
}

static void crtc_write(struct vga_registers *r, uint8_t value)
{
    unsigned index = r->crtc_index;
    if (index > 0x18)
        return;
    if (index < 8 && r->crtc[0x11] & 0x80) { // protected, but for one bit of the line compare
        if (index == 7)
            r->crtc[7] = (r->crtc[7] & ~0x10) | (value & 0x10);
        return;
    }
    r->crtc[index] = value;
}

// Registers that change nothing on the screen. True: PORT was one.
static bool write_unseen(struct vga *vga, unsigned port, uint8_t value)
{
    struct vga_registers *r = &vga->r;
    switch (port) {
    case 0x3c4:
        r->sequencer_index = value & 7;
        return true;
    case 0x3c7:
        r->dac_read_index = value;
        r->dac_component = 0;
        r->dac_state = 3;
        return true;
    case 0x3c8:
        r->dac_write_index = value;
        r->dac_component = 0;
        r->dac_state = 0;
        return true;
    case 0x3c9:
        dac_write(vga, value);
        return true;
    case 0x3ce:
        r->graphics_index = value & 15;
        return true;
    case 0x3cf: {
        unsigned index = r->graphics_index & 15;
        bool seen = (index == GR_MODE && (r->graphics[index] ^ value) & 0x60) ||
                    (index == GR_MISC && (r->graphics[index] ^ value) & 1);
        r->graphics[index] = value;
        vga->changed |= seen;
        update_window(vga);
        return true;
    }
    case 0x3d4:
        r->crtc_index = value;
        return true;
    case 0x3da:
        r->feature = value;
        return true;
    }
    return false;
}

void vga_port_write(struct vga *vga, unsigned port, uint8_t value)
{
    struct vga_registers *r = &vga->r;
    if (!port_decoded(vga, port))
        return;
    if (port < 0x3c0)
        port += 0x20;
    if (write_unseen(vga, port, value))
        return;
    switch (port) {
    case 0x3c0:
        attribute_write(vga, value);
        break;
    case 0x3c2:
        r->misc = value & 0xef;
        update_window(vga);
        break;
    case 0x3c5: {
        static const uint8_t masks[8] = {0x03, 0x3d, 0x0f, 0x3f, 0x0e, 0, 0, 0xff};
        unsigned index = r->sequencer_index & 7;
        uint8_t before = r->sequencer[index];
        r->sequencer[index] = value & masks[index];
        update_window(vga);
        if (index == 2 || before == r->sequencer[index])
            return;
        break;
    }
    case 0x3c6:
        r->dac_mask = value;
        break;
    case 0x3d5:
        crtc_write(r, value);
        break;
    default:
        return;
    }
    vga->changed = true;
}

static uint64_t ports_read(void *opaque, uint64_t offset, unsigned size)
{
    return vga_port_read(opaque, 0x3c0 + offset);
}

static void ports_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    vga_port_write(opaque, 0x3c0 + offset, value);
}

static uint64_t mono_read(void *opaque, uint64_t offset, unsigned size)
{
    return vga_port_read(opaque, 0x3b4 + offset);
}

static void mono_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    vga_port_write(opaque, 0x3b4 + offset, value);
}

static const struct io_ops legacy_ops = {.read = legacy_read, .write = legacy_write, .min_size = 1, .max_size = 8};
static const struct io_ops ports_ops = {.read = ports_read, .write = ports_write, .min_size = 1, .max_size = 1};
static const struct io_ops mono_ops = {.read = mono_read, .write = mono_write, .min_size = 1, .max_size = 1};
static const struct io_ops vbe_ops = {.read = vbe_port_read, .write = vbe_port_write, .min_size = 1, .max_size = 2};

// ---- Life ----
void vga_init(struct vga *vga, struct machine *machine, uint32_t memory)
{
    vga->machine = machine;
    vga->size = memory;
    vga->ram_offset = ram_alloc(machine->ram, memory);
    vga->memory = machine->ram->host + vga->ram_offset;
    vga->damage = ram_damage_new(machine->ram, vga->ram_offset, memory);
    vga->frame.pages = g_new0(uint64_t, memory / PAGE_SIZE / 64 + 1);
    vga->line = g_new0(uint32_t, SURFACE_MAX_WIDTH + 64);
    region_init_ram(&vga->linear, "vga linear", vga->ram_offset, memory);
    region_init_io(&vga->legacy, "vga legacy", &legacy_ops, vga, 0x20000);
    region_init_io(&vga->ports, "vga", &ports_ops, vga, 0x20);
    region_init_io(&vga->ports_mono, "vga mono", &mono_ops, vga, 7);
    region_init_io(&vga->ports_vbe, "vga vbe", &vbe_ops, vga, 4);
    address_space_map(machine->memory, &vga->legacy, 0xa0000, 1);
    address_space_map(machine->ports, &vga->ports, 0x3c0, 0);
    address_space_map(machine->ports, &vga->ports_mono, 0x3b4, 0);
    address_space_map(machine->ports, &vga->ports_vbe, 0x1ce, 0);
}

void vga_exit(struct vga *vga)
{
    ram_damage_free(vga->damage);
    g_free(vga->frame.pages);
    g_free(vga->line);
}

void vga_reset(struct vga *vga)
{
    struct vga_registers *r = &vga->r;
    memset(r, 0, sizeof(*r));
    r->misc = MISC_COLOUR;
    r->dac_mask = 0xff;
    r->vbe[VBE_ID] = VBE_ID5;
    r->vbe[VBE_BPP] = 8;
    r->vbe[VBE_XRES] = 640;
    r->vbe[VBE_YRES] = 480;
    r->graphics[GR_BIT_MASK] = 0xff;
    vga->changed = true;
    update_window(vga);
}

void vga_loaded(struct vga *vga)
{
    struct vga_registers *r = &vga->r;
    // A state file is as hostile as a guest: bring all that indexes something into range.
    r->dac_component %= 3;
    r->vbe[VBE_XRES] = CLAMP(r->vbe[VBE_XRES], 8, SURFACE_MAX_WIDTH);
    r->vbe[VBE_YRES] = CLAMP(r->vbe[VBE_YRES], 1, SURFACE_MAX_HEIGHT);
    r->vbe[VBE_BANK] = MIN(r->vbe[VBE_BANK], (vga->size >> 16) - 1);
    if (!vbe_depth(r->vbe[VBE_BPP]))
        r->vbe[VBE_BPP] = 8;
    ram_damage_mark(vga->damage, 0, vga->size);
    vga->changed = true;
    update_window(vga);
}

const struct field vga_fields[] = {
    FIELD_U8(struct vga, r.misc),
    FIELD_U8(struct vga, r.feature),
    FIELD_U8(struct vga, r.sequencer_index),
    FIELD_BYTES(struct vga, r.sequencer),
    FIELD_U8(struct vga, r.crtc_index),
    FIELD_BYTES(struct vga, r.crtc),
    FIELD_U8(struct vga, r.graphics_index),
    FIELD_BYTES(struct vga, r.graphics),
    FIELD_U8(struct vga, r.attribute_index),
    FIELD_BYTES(struct vga, r.attribute),
    FIELD_BOOL(struct vga, r.attribute_data),
    FIELD_U8(struct vga, r.dac_mask),
    FIELD_U8(struct vga, r.dac_read_index),
    FIELD_U8(struct vga, r.dac_write_index),
    FIELD_U8(struct vga, r.dac_component),
    FIELD_U8(struct vga, r.dac_state),
    FIELD_BYTES(struct vga, r.dac_latch),
    FIELD_BYTES(struct vga, r.dac),
    FIELD_U32(struct vga, r.latch),
    FIELD_U16(struct vga, r.vbe_index),
    FIELD_ARRAY(U16, struct vga, r.vbe),
    FIELD_U8(struct vga, r.vbe_low),
    FIELD_END,
};
