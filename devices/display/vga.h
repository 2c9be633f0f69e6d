// SPDX-License-Identifier: GPL-2.0-or-later
// The VGA core: IBM's registers, planes and text, with the Bochs VBE extension (ports 0x1CE/0x1CF) and a linear frame
// buffer. Display adapters embed a struct vga: the plain PCI card (vga_pci.c) and virtio-gpu in its VGA-compatible
// mode.
//
// Video memory holds plane P of planar address A at byte 4 * A + P; chain-4 and linear modes see it as plain bytes.
// Deviation from silicon: chain-4 bytes are packed (address A is plane A & 3 of planar address A / 4, where IBM's card
// leaves gaps), so that they can be mapped as RAM.
//
// Threads: registers under the machine lock; struct vga_frame belongs to whoever holds the surface's refresh lock.
#ifndef CLOCHE_VGA_H
#define CLOCHE_VGA_H

#include "core/base/clock.h"
#include "core/base/fields.h"
#include "core/machine/machine.h"
#include "core/screen/surface.h"

#define VGA_MEMORY_DEFAULT (16 * MiB)
#define VGA_PLANE_SIZE     65536 // planar addresses of a plain VGA
#define VGA_CHUNK          64    // planar addresses per bit of the fine damage map
#define VGA_CHUNKS         (VGA_PLANE_SIZE / VGA_CHUNK)

enum vbe_index {
    VBE_ID,
    VBE_XRES,
    VBE_YRES,
    VBE_BPP,
    VBE_ENABLE,
    VBE_BANK,
    VBE_VIRT_WIDTH,
    VBE_VIRT_HEIGHT,
    VBE_X_OFFSET,
    VBE_Y_OFFSET,
    VBE_MEMORY_64K,
    VBE_COUNT,
};
#define VBE_ENABLED  0x01
#define VBE_GETCAPS  0x02
#define VBE_DAC_8BIT 0x20
#define VBE_LFB      0x40
#define VBE_NOCLEAR  0x80

// All that the guest programs.
struct vga_registers {
    uint8_t misc, feature;
    uint8_t sequencer_index, sequencer[8];
    uint8_t crtc_index, crtc[32];
    uint8_t graphics_index, graphics[16];
    uint8_t attribute_index, attribute[32]; // index bit 5: palette enabled
    bool attribute_data;                    // the flip-flop of port 0x3C0
    uint8_t dac_mask, dac_read_index, dac_write_index, dac_component, dac_state;
    uint8_t dac_latch[3], dac[768];
    uint32_t latch;
    uint16_t vbe_index, vbe[VBE_COUNT];
    uint8_t vbe_low; // first half of a 16-bit write to the odd port
};

// One picture as the drawing side sees it: registers taken over under the machine lock.
struct vga_frame {
    struct vga_registers r;
    bool all; // everything changed
    bool cursor_on, blink_on;
    uint64_t *pages; // damaged pages of video memory
    uint64_t chunks[VGA_CHUNKS / 64];
};

struct vga {
    struct machine *machine;
    struct surface *surface;
    uint8_t *memory;
    uint64_t ram_offset;
    uint32_t size; // of video memory: a power of two, 1 MiB at least
    struct ram_damage *damage;
    struct region legacy, window; // 0xA0000: registers, and RAM over them in linear modes
    bool window_mapped;
    uint64_t window_base, window_ram;
    struct region ports_mono, ports, ports_vbe, linear;
    struct vga_registers r;
    bool changed;                     // a register that shows was written since the last frame
    uint64_t chunks[VGA_CHUNKS / 64]; // written through the legacy window since the last frame
    struct vga_frame frame;
    uint32_t *line; // one line of the picture, SURFACE_MAX_WIDTH + a cell
};

// MEMORY bytes (a power of two from 1 to 256 MiB) are allocated; LINEAR is ready to become a BAR.
void vga_init(struct vga *vga, struct machine *machine, uint32_t memory);
void vga_exit(struct vga *vga);
void vga_reset(struct vga *vga);
void vga_loaded(struct vga *vga);
extern const struct surface_adapter_ops vga_surface_ops; // opaque: struct vga
extern const struct field vga_fields[];

// The same registers for adapters that also map them in memory (offset of port 0x3C0 + PORT - 0x3C0; VBE by index).
uint8_t vga_port_read(struct vga *vga, unsigned port);
void vga_port_write(struct vga *vga, unsigned port, uint8_t value);
uint16_t vga_vbe_read(struct vga *vga, unsigned index);
void vga_vbe_write(struct vga *vga, unsigned index, uint16_t value);

// What is shown now, in physical dots: vga_draw.c and the retrace clock agree on it.
struct vga_geometry {
    bool linear; // VBE with 8 or more bits
    bool text, blank;
    uint32_t width, height;
    unsigned bits;  // linear: 8, 15, 16, 24, 32
    uint32_t pitch; // linear: bytes per line; else planar addresses
    uint32_t start; // linear: byte of the first pixel
    unsigned cell;  // dots per character clock as shown
    unsigned columns;
};
struct vga_geometry vga_geometry(const struct vga_registers *r, uint32_t memory_size);
static inline bool vga_vbe_enabled(const struct vga_registers *r)
{
    return r->vbe[VBE_ENABLE] & VBE_ENABLED;
}
bool vga_refresh(void *opaque); // see struct surface_adapter_ops
void vga_draw(void *opaque);

#endif
