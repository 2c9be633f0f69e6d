// SPDX-License-Identifier: GPL-2.0-or-later
// From video memory to pixels: what was damaged is converted line by line, compared with what the surface shows, and
// only the difference is written and reported. (IBM PS/2 Hardware Interface Technical Reference, "Video Subsystem")
//
// Pictures have the dots that the monitor would show: modes with doubled dots or lines are drawn doubled.
#include "devices/display/vga.h"

#include <string.h>

#define BLINK_CURSOR_NS 114285714 // 8 frames of 70 Hz on, 8 off
#define BLINK_TEXT_NS   228571429 // 16 and 16

enum { AR_MODE = 0x10, AR_OVERSCAN, AR_PLANES, AR_PANNING, AR_SELECT };
enum {
    ARM_GRAPHICS = 1,
    ARM_LINE_GRAPHICS = 4,
    ARM_BLINK = 8,
    ARM_PAN_COMPATIBLE = 0x20,
    ARM_256 = 0x40,
    ARM_P54 = 0x80
};

// ---- Geometry ----
static struct vga_geometry linear_geometry(const struct vga_registers *r, uint32_t memory_size)
{
    const uint16_t *v = r->vbe;
    struct vga_geometry g = {.linear = true, .width = v[VBE_XRES], .height = v[VBE_YRES], .bits = v[VBE_BPP]};
    unsigned bytes = (g.bits + 7) / 8;
    g.pitch = v[VBE_VIRT_WIDTH] * bytes;
    uint64_t start = (uint64_t)v[VBE_Y_OFFSET] * g.pitch + v[VBE_X_OFFSET] * bytes;
    // A picture that would reach beyond the memory starts at its beginning.
    if (start + (uint64_t)g.pitch * (g.height - 1) + g.width * bytes > memory_size)
        start = 0;
    g.blank = (uint64_t)g.pitch * (g.height - 1) + g.width * bytes > memory_size;
    g.start = start;
    return g;
}

struct vga_geometry vga_geometry(const struct vga_registers *r, uint32_t memory_size)
{
    const uint8_t *c = r->crtc;
    if (vga_vbe_enabled(r) && r->vbe[VBE_BPP] >= 8)
        return linear_geometry(r, memory_size);
    struct vga_geometry g = {.text = !(r->graphics[6] & 1)};
    if (vga_vbe_enabled(r)) { // 4 bits: planes, as long as the mode is wide
        g.text = false;
        g.cell = 8;
        g.columns = r->vbe[VBE_XRES] / 8;
        g.width = r->vbe[VBE_XRES];
        g.height = r->vbe[VBE_YRES];
        g.pitch = r->vbe[VBE_VIRT_WIDTH] / 8;
        g.start = r->vbe[VBE_Y_OFFSET] * g.pitch + r->vbe[VBE_X_OFFSET] / 8;
        return g;
    }
    g.columns = c[1] + 1;
    g.cell = (g.text && !(r->sequencer[1] & 1) ? 9 : 8) * (r->sequencer[1] & 8 ? 2 : 1);
    g.width = g.columns * g.cell;
    g.height = (c[0x12] | (c[7] & 2) << 7 | (c[7] & 0x40) << 3) + 1;
    if (c[0x17] & 4)
        g.height *= 2;
    g.pitch = c[0x13] * 2;
    g.start = c[0x0c] << 8 | c[0x0d];
    if (g.width < 160 || g.height < 100) { // nothing sensible was programmed yet
        g.width = 640;
        g.height = 400;
        g.columns = 80;
        g.cell = 8;
        g.blank = true;
        return g;
    }
    g.blank = !(r->attribute_index & 0x20) || r->sequencer[1] & 0x20 || !(c[0x17] & 0x80);
    return g;
}

// ---- Colours ----
static uint32_t dac_colour(const struct vga_registers *r, uint8_t index)
{
    const uint8_t *c = r->dac + 3 * (index & r->dac_mask);
    if (r->vbe[VBE_ENABLE] & VBE_DAC_8BIT)
        return c[0] << 16 | c[1] << 8 | c[2];
    uint32_t colour = 0;
    for (unsigned i = 0; i < 3; i++)
        colour = colour << 8 | (c[i] & 0x3f) << 2 | (c[i] & 0x3f) >> 4;
    return colour;
}

// The colour of a 4-bit pixel through the attribute controller.
static uint32_t attribute_colour(const struct vga_registers *r, unsigned pixel)
{
    const uint8_t *a = r->attribute;
    uint8_t index = a[pixel & a[AR_PLANES] & 15] & 0x3f;
    if (a[AR_MODE] & ARM_P54)
        index = (index & 15) | (a[AR_SELECT] & 3) << 4;
    return dac_colour(r, index | (a[AR_SELECT] & 0x0c) << 4);
}

struct palette {
    uint32_t full[256], sixteen[16];
};

static void build_palette(const struct vga_registers *r, struct palette *palette)
{
    for (unsigned i = 0; i < 256; i++)
        palette->full[i] = dac_colour(r, i);
    for (unsigned i = 0; i < 16; i++)
        palette->sixteen[i] = attribute_colour(r, i);
}

// ---- From a drawn line to the surface ----
struct canvas {
    struct surface *surface;
    struct pixels *pixels;
    struct rectangle pending; // width 0: none
};

static void flush_pending(struct canvas *canvas)
{
    if (canvas->pending.width)
        surface_damage(canvas->surface, &canvas->pending);
    canvas->pending.width = 0;
}

// Lines below each other become one rectangle as long as it does not cover much more than they do.
static void note_span(struct canvas *canvas, int x, int y, int width)
{
    struct rectangle *p = &canvas->pending;
    if (p->width && y == p->y + p->height) {
        int left = MIN(x, p->x), right = MAX(x + width, p->x + p->width);
        if (right - left <= MAX(width, p->width) + 64) {
            *p = (struct rectangle){left, p->y, right - left, p->height + 1};
            return;
        }
    }
    flush_pending(canvas);
    *p = (struct rectangle){x, y, width, 1};
}

// Brings WIDTH pixels at X, Y to what LINE holds, but for its X bytes.
static void show_span(struct canvas *canvas, int x, int y, int width, const uint32_t *line)
{
    uint32_t *to = (uint32_t *)(void *)(canvas->pixels->data + (size_t)y * canvas->pixels->stride) + x;
    int first = -1, end = 0;
    for (int i = 0; i < width; i += PIXELS_BLOCK) {
        int part = MIN(PIXELS_BLOCK, width - i);
        if (!pixels_merge(to + i, line + i, part))
            continue;
        if (first < 0)
            first = i;
        end = i + part;
    }
    if (first >= 0)
        note_span(canvas, x + first, y, end - first);
}

// ---- Linear modes ----
static void convert(const struct vga_geometry *g, const struct palette *palette, const uint8_t *from, uint32_t *to,
                    unsigned count)
{
    switch (g->bits) {
    case 8:
        for (unsigned i = 0; i < count; i++)
            to[i] = palette->full[from[i]];
        break;
    case 15:
        for (unsigned i = 0; i < count; i++) {
            unsigned v = from[2 * i] | from[2 * i + 1] << 8;
            unsigned r = v >> 10 & 31, gr = v >> 5 & 31, b = v & 31;
            to[i] = (r << 3 | r >> 2) << 16 | (gr << 3 | gr >> 2) << 8 | (b << 3 | b >> 2);
        }
        break;
    case 16:
        for (unsigned i = 0; i < count; i++) {
            unsigned v = from[2 * i] | from[2 * i + 1] << 8;
            unsigned r = v >> 11 & 31, gr = v >> 5 & 63, b = v & 31;
            to[i] = (r << 3 | r >> 2) << 16 | (gr << 2 | gr >> 4) << 8 | (b << 3 | b >> 2);
        }
        break;
    case 24:
        for (unsigned i = 0; i < count; i++)
            to[i] = from[3 * i + 2] << 16 | from[3 * i + 1] << 8 | from[3 * i];
        break;
    default: // only where the host cannot show guest memory as it is
        for (unsigned i = 0; i < count; i++)
            to[i] = load_le(from + 4 * (size_t)i, 4) & 0xffffff;
    }
}

// Draws the pixels whose bytes lie in [BEGIN, END) of video memory.
static void draw_linear_bytes(struct vga *vga, const struct vga_geometry *g, const struct palette *palette,
                              struct canvas *canvas, uint64_t begin, uint64_t end)
{
    unsigned bytes = (g->bits + 7) / 8;
    uint64_t shown_end = g->start + (uint64_t)g->pitch * (g->height - 1) + g->width * bytes;
    begin = MAX(begin, g->start) - g->start;
    end = MIN(end, shown_end);
    if (end <= begin + g->start)
        return;
    end -= g->start;
    for (uint32_t y = begin / g->pitch; y < g->height && (uint64_t)y * g->pitch < end; y++) {
        uint64_t row = (uint64_t)y * g->pitch;
        uint32_t x0 = begin > row ? (begin - row) / bytes : 0;
        uint32_t x1 = MIN((end - row + bytes - 1) / bytes, g->width);
        if (x0 >= x1)
            continue;
        const uint8_t *from = vga->memory + g->start + row + x0 * bytes;
        bool as_is = g->bits == 32 && !((uintptr_t)from & 3) && G_BYTE_ORDER == G_LITTLE_ENDIAN;
        if (!as_is)
            convert(g, palette, from, vga->line, x1 - x0);
        show_span(canvas, x0, y, x1 - x0, as_is ? (const uint32_t *)(const void *)from : vga->line);
    }
}

static void draw_linear(struct vga *vga, const struct vga_geometry *g, const struct palette *palette,
                        struct canvas *canvas)
{
    struct vga_frame *frame = &vga->frame;
    uint64_t pages = vga->size / PAGE_SIZE;
    if (frame->all) {
        draw_linear_bytes(vga, g, palette, canvas, 0, vga->size);
        return;
    }
    uint64_t first = g->start / PAGE_SIZE;
    uint64_t last = MIN((g->start + (uint64_t)g->pitch * g->height) / PAGE_SIZE, pages - 1);
    for (uint64_t page = first; page <= last; page++) {
        if (!(frame->pages[page / 64] & BIT(page % 64)))
            continue;
        uint64_t end = page + 1;
        while (end <= last && frame->pages[end / 64] & BIT(end % 64))
            end++;
        draw_linear_bytes(vga, g, palette, canvas, page * PAGE_SIZE, end * PAGE_SIZE);
        page = end;
    }
}

// ---- Planes and text ----
// One line as the CRT controller goes through it.
struct scan {
    uint32_t address; // memory address counter at the line's beginning
    unsigned row;     // row scan counter
    unsigned pan;     // dots to the left
};

// The planar address that counter value MA reaches. ("Mode Control Register", "Underline Location Register")
static uint32_t display_address(const struct vga_registers *r, uint32_t ma, unsigned row)
{
    const uint8_t *c = r->crtc;
    if (vga_vbe_enabled(r))
        return ma;
    ma &= 0xffff;
    if (c[0x14] & 0x40) {
        if (!(r->sequencer[4] & 8)) // with chain-4, memory is packed already
            ma = ma << 2 | ma >> 14;
    } else if (!(c[0x17] & 0x40)) {
        ma = ma << 1 | (c[0x17] & 0x20 ? ma >> 15 : ma >> 13 & 1);
    }
    if (!(c[0x17] & 1))
        ma = (ma & ~0x2000u) | (row & 1) << 13;
    if (!(c[0x17] & 2))
        ma = (ma & ~0x4000u) | (row & 2) << 13;
    return ma & 0xffff;
}

// How many character clocks one step of the counter takes.
static unsigned count_by(const struct vga_registers *r)
{
    if (vga_vbe_enabled(r))
        return 1;
    return r->crtc[0x14] & 0x20 ? 4 : r->crtc[0x17] & 8 ? 2 : 1;
}

static uint32_t planes_at(const struct vga *vga, uint32_t address)
{
    size_t at = 4 * (size_t)address;
    return at + 4 <= vga->size ? load_le(vga->memory + at, 4) : 0;
}

// What one character clock shows in graphics modes: the shift registers as GR5 loads them. Returns the dots made.
static unsigned graphics_cell(const struct vga_registers *r, const struct palette *palette, uint32_t planes,
                              uint32_t *to)
{
    if (r->graphics[5] & 0x40) { // 256 colours: a byte is one pixel of two dots
        for (unsigned i = 0; i < 4; i++)
            to[2 * i] = to[2 * i + 1] = palette->full[planes >> 8 * i & 255];
    } else if (r->graphics[5] & 0x20) { // CGA: two bits a pixel, even and odd bytes in turn
        for (unsigned i = 0; i < 8; i++) {
            unsigned pair = i / 4, shift = 6 - 2 * (i % 4);
            unsigned low = planes >> (8 * pair + shift) & 3, high = planes >> (16 + 8 * pair + shift) & 3;
            to[i] = palette->sixteen[low | high << 2];
        }
    } else {
        for (unsigned i = 0; i < 8; i++) {
            uint32_t bits = planes >> (7 - i);
            to[i] = palette->sixteen[(bits & 1) | (bits >> 7 & 2) | (bits >> 14 & 4) | (bits >> 21 & 8)];
        }
    }
    return 8;
}

static unsigned text_cell(const struct vga *vga, const struct palette *palette, uint32_t planes, uint32_t ma,
                          unsigned row, uint32_t *to)
{
    const struct vga_frame *frame = &vga->frame;
    const struct vga_registers *r = &frame->r;
    const uint8_t *c = r->crtc;
    uint8_t character = planes, attribute = planes >> 8, map = r->sequencer[3];
    unsigned set = attribute & 8 ? (map >> 2 & 3) | (map >> 3 & 4) : (map & 3) | (map >> 2 & 4);
    uint32_t font = (set & 3) << 14 | (set & 4) << 11;
    uint8_t dots = planes_at(vga, font + character * 32 + (row & 31)) >> 16;
    unsigned foreground = attribute & 15, background = attribute >> 4;
    if (r->attribute[AR_MODE] & ARM_BLINK) {
        if (background & 8 && !frame->blink_on)
            dots = 0;
        background &= 7;
    }
    bool underline = (attribute & 0x77) == 1 && row == (c[0x14] & 31u);
    bool cursor = frame->cursor_on && !(c[0x0a] & 0x20) && ma == (uint32_t)(c[0x0e] << 8 | c[0x0f]) &&
                  row >= (c[0x0a] & 31u) && row <= (c[0x0b] & 31u);
    if (cursor || underline)
        dots = 0xff;
    uint32_t ink = palette->sixteen[foreground], paper = palette->sixteen[background];
    for (unsigned i = 0; i < 8; i++)
        to[i] = dots & 0x80 >> i ? ink : paper;
    if (r->sequencer[1] & 1)
        return 8;
    bool line =
        cursor || underline || (r->attribute[AR_MODE] & ARM_LINE_GRAPHICS && character >= 0xc0 && character <= 0xdf);
    to[8] = line ? to[7] : paper;
    return 9;
}

// Whether any of the line's cells was written since the last frame.
static bool line_damaged(const struct vga_frame *frame, const struct vga_geometry *g, const struct scan *scan)
{
    unsigned step = count_by(&frame->r);
    for (unsigned i = 0; i <= g->columns; i++) {
        uint32_t address = display_address(&frame->r, scan->address + i / step, scan->row);
        if (address >= VGA_PLANE_SIZE)
            return true;
        if (frame->chunks[address / VGA_CHUNK / 64] & BIT(address / VGA_CHUNK % 64))
            return true;
    }
    return false;
}

// Draws one line's dots into vga->line: one cell more than is seen, for panning.
static uint32_t *draw_line(struct vga *vga, const struct vga_geometry *g, const struct palette *palette,
                           const struct scan *scan)
{
    const struct vga_registers *r = &vga->frame.r;
    unsigned step = count_by(r), at = 0, repeat = !vga_vbe_enabled(r) && r->sequencer[1] & 8 ? 2 : 1;
    for (unsigned i = 0; i <= g->columns && at + 32 < SURFACE_MAX_WIDTH + 64; i++) {
        uint32_t ma = (scan->address + i / step) & (vga_vbe_enabled(r) ? ~0u : 0xffff);
        uint32_t planes = planes_at(vga, display_address(r, ma, scan->row));
        uint32_t *to = vga->line + at;
        unsigned dots =
            g->text ? text_cell(vga, palette, planes, ma, scan->row, to) : graphics_cell(r, palette, planes, to);
        if (repeat == 2) // half the dot clock: from the end, in place
            for (unsigned d = dots; d-- > 0;)
                to[2 * d] = to[2 * d + 1] = to[d];
        at += dots * repeat;
    }
    return vga->line + scan->pan * repeat;
}

// The panning register counts pixels its own way in each kind of mode. ("Horizontal PEL Panning Register")
static unsigned panning(const struct vga_registers *r, const struct vga_geometry *g)
{
    unsigned pan = r->attribute[AR_PANNING] & 15;
    if (vga_vbe_enabled(r))
        return r->vbe[VBE_X_OFFSET] & 7;
    if (g->text && !(r->sequencer[1] & 1))
        return pan >= 8 ? 0 : pan + 1;
    return pan & 7; // 256-colour modes count half pixels, which are dots here
}

static void draw_planar(struct vga *vga, const struct vga_geometry *g, const struct palette *palette,
                        struct canvas *canvas)
{
    struct vga_frame *frame = &vga->frame;
    const struct vga_registers *r = &frame->r;
    const uint8_t *c = r->crtc;
    bool vbe = vga_vbe_enabled(r);
    unsigned rows = vbe ? 1 : (c[9] & 31) + 1, lines_per_row = vbe ? 1 : c[9] & 0x80 ? 2 : 1;
    if (!vbe && c[0x17] & 4)
        lines_per_row *= 2;
    uint32_t compare = vbe ? ~0u : c[0x18] | (c[7] & 0x10) << 4 | (c[9] & 0x40) << 3;
    uint32_t bytes_pan = vbe ? 0 : c[8] >> 5 & 3;
    struct scan scan = {.address = g->start + bytes_pan, .row = vbe ? 0 : (c[8] & 31u) % rows, .pan = panning(r, g)};
    unsigned repeats = 0;
    for (uint32_t y = 0; y < g->height; y++) {
        if (frame->all || line_damaged(frame, g, &scan))
            show_span(canvas, 0, y, g->width, draw_line(vga, g, palette, &scan));
        if (y == compare) { // the lower part of a split screen
            scan = (struct scan){.pan = r->attribute[AR_MODE] & ARM_PAN_COMPATIBLE ? 0 : scan.pan};
            repeats = 0;
            continue;
        }
        if (++repeats < lines_per_row)
            continue;
        repeats = 0;
        if (++scan.row >= rows) {
            scan.row = 0;
            scan.address += g->pitch;
        }
    }
}

static void draw_blank(struct vga *vga, const struct vga_geometry *g, struct canvas *canvas)
{
    memset(vga->line, 0, 4 * (size_t)g->width);
    for (uint32_t y = 0; y < g->height; y++)
        show_span(canvas, 0, y, g->width, vga->line);
}

void vga_draw(void *opaque)
{
    struct vga *vga = opaque;
    struct vga_frame *frame = &vga->frame;
    struct vga_geometry g = vga_geometry(&frame->r, vga->size);
    struct canvas canvas = {.surface = vga->surface, .pixels = surface_pixels(vga->surface)};
    g.width = CLAMP(g.width, 8, SURFACE_MAX_WIDTH);
    g.height = CLAMP(g.height, 1, SURFACE_MAX_HEIGHT);
    if (canvas.pixels->width != g.width || canvas.pixels->height != g.height || canvas.pixels->release) {
        pixels_unref(canvas.pixels);
        canvas.pixels = pixels_ref(surface_resize(vga->surface, g.width, g.height));
        frame->all = true;
    }
    if (canvas.pixels->width == g.width && canvas.pixels->height == g.height) {
        struct palette palette;
        build_palette(&frame->r, &palette);
        if (g.blank)
            draw_blank(vga, &g, &canvas);
        else if (g.linear)
            draw_linear(vga, &g, &palette, &canvas);
        else
            draw_planar(vga, &g, &palette, &canvas);
        flush_pending(&canvas);
    }
    pixels_unref(canvas.pixels);
    frame->all = false;
    memset(frame->pages, 0, (vga->size / PAGE_SIZE / 64 + 1) * sizeof(uint64_t));
    memset(frame->chunks, 0, sizeof(frame->chunks));
}

// ---- Taking over ----
// Pages that were written as plain memory, as chunks of planar addresses.
static void pages_to_chunks(struct vga_frame *frame)
{
    unsigned per_page = PAGE_SIZE / 4 / VGA_CHUNK;
    for (unsigned chunk = 0; chunk < VGA_CHUNKS; chunk++) {
        unsigned page = chunk / per_page;
        if (frame->pages[page / 64] & BIT(page % 64))
            frame->chunks[chunk / 64] |= BIT(chunk % 64);
    }
}

bool vga_refresh(void *opaque)
{
    struct vga *vga = opaque;
    struct vga_frame *frame = &vga->frame;
    const struct vga_registers *r = &vga->r;
    bool planar = !(vga_vbe_enabled(r) && r->vbe[VBE_BPP] >= 8), text = planar && !(r->graphics[6] & 1);
    unsigned pages = ram_damage_harvest(vga->damage, frame->pages);
    uint64_t chunks = 0;
    for (unsigned i = 0; i < VGA_CHUNKS / 64; i++) {
        chunks |= vga->chunks[i];
        frame->chunks[i] |= vga->chunks[i];
        vga->chunks[i] = 0;
    }
    int64_t now = clock_now(vga->machine->clock);
    bool cursor_on = now / BLINK_CURSOR_NS % 2 == 0, blink_on = now / BLINK_TEXT_NS % 2 == 0;
    bool blinked = text && (cursor_on != frame->cursor_on || blink_on != frame->blink_on);
    if (!pages && !chunks && !vga->changed && !blinked)
        return false;
    if (planar && pages)
        pages_to_chunks(frame);
    frame->all |= vga->changed || blinked;
    frame->cursor_on = cursor_on;
    frame->blink_on = blink_on;
    frame->r = *r;
    vga->changed = false;
    return true;
}

const struct surface_adapter_ops vga_surface_ops = {.refresh = vga_refresh, .draw = vga_draw};
