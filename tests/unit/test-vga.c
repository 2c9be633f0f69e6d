// SPDX-License-Identifier: GPL-2.0-or-later
// VGA through the bus: each mode is programmed with IBM's register values, drawn into as programs of its day did, and
// the surface compared with a picture that is computed from the drawing alone. Then damage, the retrace clock,
// nonsense.
#include "core/machine/pci.h"
#include "core/screen/surface.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

extern const struct device_class vga_class;
const struct device_class *const device_classes[] = {&vga_class, NULL};

#define LFB 0xe0000000u

static struct machine *machine;
static struct clock *test_clock;
static struct device *device;
static struct surface *surface;
static struct pixels *pixels;

static void setup(void)
{
    GError *error = NULL;
    test_clock = clock_new_manual();
    machine = machine_create(4 * MiB, test_clock, &error);
    machine->screen = screen_new(NULL);
    device = device_new(machine, "vga", NULL, &error);
    ck_assert_msg(device_realize(device, &error), "%s", error ? error->message : "");
    vga_class.reset(device);
    uint8_t devfn = ((struct pci_device *)device)->devfn;
    pci_config_write(machine->pci, 0, devfn, 0x10, LFB, 4);
    pci_config_write(machine->pci, 0, devfn, 0x18, 0xfe000000, 4);
    pci_config_write(machine->pci, 0, devfn, 0x04, 3, 2);
    surface = screen_head(machine->screen, 0);
}

static void teardown(void)
{
    struct screen *screen = machine->screen;
    pixels_unref(pixels);
    pixels = NULL;
    machine_destroy(machine);
    screen_free(screen);
}

static void out(unsigned port, unsigned value)
{
    address_space_store(machine->ports, port, value, 1);
}

static void out16(unsigned port, unsigned value)
{
    address_space_store(machine->ports, port, value, 2);
}

static unsigned in(unsigned port)
{
    return address_space_load(machine->ports, port, 1);
}

static void poke(uint32_t address, unsigned value)
{
    address_space_store(machine->memory, address, value, 1);
}

static unsigned peek(uint32_t address)
{
    return address_space_load(machine->memory, address, 1);
}

static void indexed(unsigned port, unsigned index, unsigned value)
{
    out16(port, value << 8 | index);
}

static void vbe(unsigned index, unsigned value)
{
    out16(0x1ce, index);
    out16(0x1cf, value);
}

static unsigned vbe_get(unsigned index)
{
    out16(0x1ce, index);
    return address_space_load(machine->ports, 0x1cf, 2);
}

// ---- Modes, as IBM's BIOS programs them ----
struct mode {
    uint8_t misc, sequencer[4], crtc[25], graphics[9], attribute[21];
};

static const struct mode mode_03 = {0x67,
                                    {0x00, 0x03, 0x00, 0x02},
                                    {0x5f, 0x4f, 0x50, 0x82, 0x55, 0x81, 0xbf, 0x1f, 0x00, 0x4f, 0x0d, 0x0e, 0x00,
                                     0x00, 0x00, 0x50, 0x9c, 0x8e, 0x8f, 0x28, 0x1f, 0x96, 0xb9, 0xa3, 0xff},
                                    {0, 0, 0, 0, 0, 0x10, 0x0e, 0x00, 0xff},
                                    {0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x14, 0x07, 0x38, 0x39, 0x3a,
                                     0x3b, 0x3c, 0x3d, 0x3e, 0x3f, 0x0c, 0x00, 0x0f, 0x08, 0x00}};
static const struct mode mode_07 = {0x66,
                                    {0x00, 0x03, 0x00, 0x02},
                                    {0x5f, 0x4f, 0x50, 0x82, 0x55, 0x81, 0xbf, 0x1f, 0x00, 0x4f, 0x0d, 0x0e, 0x00,
                                     0x00, 0x00, 0x00, 0x9c, 0x8e, 0x8f, 0x28, 0x0d, 0x96, 0xb9, 0xa3, 0xff},
                                    {0, 0, 0, 0, 0, 0x10, 0x0a, 0x00, 0xff},
                                    {0x00, 0x08, 0x08, 0x08, 0x08, 0x08, 0x08, 0x08, 0x10, 0x18, 0x18,
                                     0x18, 0x18, 0x18, 0x18, 0x18, 0x0e, 0x00, 0x0f, 0x08, 0x00}};
static const struct mode mode_04 = {0x63,
                                    {0x09, 0x03, 0x00, 0x02},
                                    {0x2d, 0x27, 0x28, 0x90, 0x2b, 0x80, 0xbf, 0x1f, 0x00, 0xc1, 0x00, 0x00, 0x00,
                                     0x00, 0x00, 0x00, 0x9c, 0x8e, 0x8f, 0x14, 0x00, 0x96, 0xb9, 0xa2, 0xff},
                                    {0, 0, 0, 0, 0, 0x30, 0x0f, 0x0f, 0xff},
                                    {0x00, 0x13, 0x15, 0x17, 0x02, 0x04, 0x06, 0x07, 0x10, 0x11, 0x12,
                                     0x13, 0x14, 0x15, 0x16, 0x17, 0x01, 0x00, 0x03, 0x00, 0x00}};
static const struct mode mode_06 = {0x63,
                                    {0x01, 0x01, 0x00, 0x06},
                                    {0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0xbf, 0x1f, 0x00, 0xc1, 0x00, 0x00, 0x00,
                                     0x00, 0x00, 0x00, 0x9c, 0x8e, 0x8f, 0x28, 0x00, 0x96, 0xb9, 0xc2, 0xff},
                                    {0, 0, 0, 0, 0, 0x00, 0x0d, 0x0f, 0xff},
                                    {0x00, 0x17, 0x17, 0x17, 0x17, 0x17, 0x17, 0x17, 0x17, 0x17, 0x17,
                                     0x17, 0x17, 0x17, 0x17, 0x17, 0x01, 0x00, 0x01, 0x00, 0x00}};
static const struct mode mode_0d = {0x63,
                                    {0x09, 0x0f, 0x00, 0x06},
                                    {0x2d, 0x27, 0x28, 0x90, 0x2b, 0x80, 0xbf, 0x1f, 0x00, 0xc0, 0x00, 0x00, 0x00,
                                     0x00, 0x00, 0x00, 0x9c, 0x8e, 0x8f, 0x14, 0x00, 0x96, 0xb9, 0xe3, 0xff},
                                    {0, 0, 0, 0, 0, 0x00, 0x05, 0x0f, 0xff},
                                    {0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x10, 0x11, 0x12,
                                     0x13, 0x14, 0x15, 0x16, 0x17, 0x01, 0x00, 0x0f, 0x00, 0x00}};
static const struct mode mode_10 = {0xa3,
                                    {0x01, 0x0f, 0x00, 0x06},
                                    {0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0xbf, 0x1f, 0x00, 0x40, 0x00, 0x00, 0x00,
                                     0x00, 0x00, 0x00, 0x83, 0x85, 0x5d, 0x28, 0x0f, 0x63, 0xba, 0xe3, 0xff},
                                    {0, 0, 0, 0, 0, 0x00, 0x05, 0x0f, 0xff},
                                    {0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x14, 0x07, 0x38, 0x39, 0x3a,
                                     0x3b, 0x3c, 0x3d, 0x3e, 0x3f, 0x01, 0x00, 0x0f, 0x00, 0x00}};
static const struct mode mode_12 = {0xe3,
                                    {0x01, 0x0f, 0x00, 0x06},
                                    {0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0x0b, 0x3e, 0x00, 0x40, 0x00, 0x00, 0x00,
                                     0x00, 0x00, 0x00, 0xea, 0x8c, 0xdf, 0x28, 0x00, 0xe7, 0x04, 0xe3, 0xff},
                                    {0, 0, 0, 0, 0, 0x00, 0x05, 0x0f, 0xff},
                                    {0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x14, 0x07, 0x38, 0x39, 0x3a,
                                     0x3b, 0x3c, 0x3d, 0x3e, 0x3f, 0x01, 0x00, 0x0f, 0x00, 0x00}};
static const struct mode mode_13 = {0x63,
                                    {0x01, 0x0f, 0x00, 0x0e},
                                    {0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0xbf, 0x1f, 0x00, 0x41, 0x00, 0x00, 0x00,
                                     0x00, 0x00, 0x00, 0x9c, 0x8e, 0x8f, 0x28, 0x40, 0x96, 0xb9, 0xa3, 0xff},
                                    {0, 0, 0, 0, 0, 0x40, 0x05, 0x0f, 0xff},
                                    {0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0a,
                                     0x0b, 0x0c, 0x0d, 0x0e, 0x0f, 0x41, 0x00, 0x0f, 0x00, 0x00}};

// The test's DAC: entry N has these 6-bit components, and that is the colour they must show.
static void dac_components(unsigned n, uint8_t rgb[3])
{
    rgb[0] = (n * 7 + 1) & 63;
    rgb[1] = (n * 13 + 2) & 63;
    rgb[2] = (n * 29 + 3) & 63;
}

static uint32_t colour(unsigned n)
{
    uint8_t c[3];
    dac_components(n, c);
    uint32_t value = 0;
    for (unsigned i = 0; i < 3; i++)
        value = value << 8 | (c[i] * 255 * 2 + 63) / 126; // nearest of 256 steps
    return value;
}

// The DAC widens by repeating the top bits, which is within one step of the exact ratio.
static bool same_colour(uint32_t a, uint32_t b)
{
    for (unsigned shift = 0; shift < 24; shift += 8)
        if (abs((int)(a >> shift & 255) - (int)(b >> shift & 255)) > 1)
            return false;
    return (a >> 24) == 0;
}

static void program(const struct mode *mode)
{
    unsigned base = mode->misc & 1 ? 0x3d0 : 0x3b0;
    out(0x3c2, mode->misc);
    indexed(0x3c4, 0, 1);
    for (unsigned i = 0; i < 4; i++)
        indexed(0x3c4, i + 1, mode->sequencer[i]);
    indexed(0x3c4, 0, 3);
    indexed(base + 4, 0x11, 0);
    for (unsigned i = 0; i < 25; i++)
        indexed(base + 4, i, mode->crtc[i]);
    for (unsigned i = 0; i < 9; i++)
        indexed(0x3ce, i, mode->graphics[i]);
    in(base + 0xa);
    for (unsigned i = 0; i < 21; i++) {
        out(0x3c0, i);
        out(0x3c0, mode->attribute[i]);
    }
    out(0x3c0, 0x20);
    out(0x3c6, 0xff);
    out(0x3c8, 0);
    for (unsigned i = 0; i < 256; i++) {
        uint8_t c[3];
        dac_components(i, c);
        for (unsigned k = 0; k < 3; k++)
            out(0x3c9, c[k]);
    }
}

static void look(unsigned width, unsigned height)
{
    surface_refresh(surface);
    pixels_unref(pixels);
    pixels = surface_pixels(surface);
    ck_assert_uint_eq(pixels->width, width);
    ck_assert_uint_eq(pixels->height, height);
}

static uint32_t pixel(unsigned x, unsigned y)
{
    uint32_t value;
    memcpy(&value, pixels->data + y * pixels->stride + 4 * x, 4);
    return value;
}

#define check_dot(x, y, expected)                                                                                      \
    ck_assert_msg(same_colour(pixel(x, y), expected), "dot %u, %u is %06x, not %06x", x, y, pixel(x, y), expected)

// A picture to draw: any function of the pixel will do.
static unsigned drawing(unsigned x, unsigned y)
{
    return x * 3 + y * 5 + (x * y >> 5);
}

// ---- Text ----
static uint8_t glyph(unsigned character, unsigned row)
{
    return character * 37 + row * 11 + (character >> 3);
}

// Loads the test's font into block SET the way BIOSes do: plane 2 alone, sequential.
static void load_font(unsigned offset, unsigned flip)
{
    indexed(0x3c4, 2, 4);
    indexed(0x3c4, 4, 7);
    indexed(0x3ce, 4, 2);
    indexed(0x3ce, 5, 0);
    indexed(0x3ce, 6, 4);
    for (unsigned c = 0; c < 256; c++)
        for (unsigned row = 0; row < 16; row++)
            poke(0xa0000 + offset + 32 * c + row, glyph(c, row) ^ flip);
    indexed(0x3c4, 2, 3);
    indexed(0x3c4, 4, 2);
    indexed(0x3ce, 4, 0);
    indexed(0x3ce, 5, 0x10);
    indexed(0x3ce, 6, 0x0e);
}

static unsigned cell_character(unsigned column, unsigned row)
{
    return (column + row * 80) % 256;
}

static unsigned cell_attribute(unsigned column, unsigned row)
{
    return (column * 5 + row * 3) & 0x7f; // no blinking ones
}

static const uint8_t ega_palette[16] = {0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x14, 0x07,
                                        0x38, 0x39, 0x3a, 0x3b, 0x3c, 0x3d, 0x3e, 0x3f};

static void fill_text(uint32_t base)
{
    for (unsigned row = 0; row < 25; row++)
        for (unsigned column = 0; column < 80; column++) {
            poke(base + (row * 80 + column) * 2, cell_character(column, row));
            poke(base + (row * 80 + column) * 2 + 1, cell_attribute(column, row));
        }
}

START_TEST(text_with_nine_dots)
{
    program(&mode_03);
    load_font(0, 0);
    fill_text(0xb8000);
    indexed(0x3d4, 0x0a, 0x20); // no cursor
    look(720, 400);
    for (unsigned y = 0; y < 400; y++)
        for (unsigned x = 0; x < 720; x++) {
            unsigned c = cell_character(x / 9, y / 16), a = cell_attribute(x / 9, y / 16), dot = x % 9;
            bool line = c >= 0xc0 && c <= 0xdf;
            bool ink = dot < 8 ? glyph(c, y % 16) << dot & 0x80 : line && glyph(c, y % 16) & 1;
            check_dot(x, y, colour(ega_palette[ink ? a & 15 : a >> 4]));
        }
    // Read back as programs do
    ck_assert_uint_eq(peek(0xb8000 + 2 * 81), cell_character(1, 1));
    ck_assert_uint_eq(peek(0xb8000 + 2 * 81 + 1), cell_attribute(1, 1));
}
END_TEST

START_TEST(text_with_eight_dots_two_fonts_and_blink)
{
    program(&mode_03);
    load_font(0, 0);
    load_font(0x4000, 0xff); // block 1
    indexed(0x3c4, 1, 1);    // 8 dots
    indexed(0x3c4, 3, 0x04); // attribute bit 3 picks block 1
    fill_text(0xb8000);
    indexed(0x3d4, 0x0a, 0x20);
    look(640, 400);
    for (unsigned y = 0; y < 400; y++)
        for (unsigned x = 0; x < 640; x++) {
            unsigned c = cell_character(x / 8, y / 16), a = cell_attribute(x / 8, y / 16);
            uint8_t dots = glyph(c, y % 16) ^ (a & 8 ? 0xff : 0);
            check_dot(x, y, colour(ega_palette[dots << x % 8 & 0x80 ? a & 15 : a >> 4]));
        }
    poke(0xb8001, 0x9e); // blinking yellow on blue
    unsigned seen = 0;
    for (unsigned i = 0; i < 16; i++) {
        look(640, 400);
        bool ink = false;
        for (unsigned x = 0; x < 8; x++) {
            check_dot(x, 3, same_colour(pixel(x, 3), colour(0x3e)) ? colour(0x3e) : colour(1));
            ink |= same_colour(pixel(x, 3), colour(0x3e));
        }
        seen |= ink ? 1 : 2;
        clock_advance(test_clock, 50000000);
    }
    ck_assert_uint_eq(seen, 3);
    in(0x3da); // without blinking the bit is brightness
    out(0x3c0, 0x30);
    out(0x3c0, 0x04);
    look(640, 400);
    for (unsigned x = 0; x < 8; x++)
        check_dot(x, 3, colour((glyph(0, 3) ^ 0xff) << x & 0x80 ? 0x3e : 0x39));
}
END_TEST

START_TEST(text_cursor_and_start_address)
{
    program(&mode_03);
    load_font(0, 0);
    fill_text(0xb8000);
    indexed(0x3d4, 0x0c, 0);
    indexed(0x3d4, 0x0d, 80); // scrolled by a row
    indexed(0x3d4, 0x0e, 0);
    indexed(0x3d4, 0x0f, 80 + 5);
    unsigned seen = 0;
    for (unsigned i = 0; i < 16; i++) {
        look(720, 400);
        unsigned full = 0;
        for (unsigned x = 45; x < 54; x++)
            full += same_colour(pixel(x, 13), colour(ega_palette[cell_attribute(5, 1) & 15]));
        unsigned c = cell_character(0, 1);
        for (unsigned x = 0; x < 8; x++)
            check_dot(
                x, 2,
                colour(ega_palette[glyph(c, 2) << x & 0x80 ? cell_attribute(0, 1) & 15 : cell_attribute(0, 1) >> 4]));
        seen |= full == 9 ? 1 : 2;
        clock_advance(test_clock, 30000000);
    }
    ck_assert_uint_eq(seen, 3);
}
END_TEST

START_TEST(monochrome_text_underlines)
{
    program(&mode_07);
    load_font(0, 0);
    indexed(0x3ce, 6, 0x0a);
    indexed(0x3b4, 0x0a, 0x20);
    ck_assert_uint_eq(in(0x3d4), 0xff); // the colour ports are silent now
    for (unsigned i = 0; i < 2000; i++) {
        poke(0xb0000 + 2 * i, 'A');
        poke(0xb0001 + 2 * i, i == 0 ? 0x01 : 0x07);
    }
    look(720, 400);
    for (unsigned x = 0; x < 18; x++) {
        check_dot(x, 13, colour(x < 9 || (x < 17 && glyph('A', 13) << (x - 9) & 0x80) ? 8 : 0));
        check_dot(x, 3, colour(x % 9 < 8 && glyph('A', 3) << x % 9 & 0x80 ? 8 : 0));
    }
}
END_TEST

// ---- Graphics ----
START_TEST(cga_four_colours)
{
    static const uint8_t palette[4] = {0x00, 0x13, 0x15, 0x17};
    program(&mode_04);
    for (unsigned y = 0; y < 200; y++)
        for (unsigned x = 0; x < 320; x += 4) {
            unsigned byte = 0;
            for (unsigned i = 0; i < 4; i++)
                byte = byte << 2 | (drawing(x + i, y) & 3);
            poke(0xb8000 + (y & 1) * 0x2000 + y / 2 * 80 + x / 4, byte);
        }
    look(640, 400);
    for (unsigned y = 0; y < 400; y++)
        for (unsigned x = 0; x < 640; x++)
            check_dot(x, y, colour(palette[drawing(x / 2, y / 2) & 3]));
}
END_TEST

START_TEST(cga_two_colours)
{
    program(&mode_06);
    for (unsigned y = 0; y < 200; y++)
        for (unsigned x = 0; x < 640; x += 8) {
            unsigned byte = 0;
            for (unsigned i = 0; i < 8; i++)
                byte = byte << 1 | (drawing(x + i, y) & 1);
            poke(0xb8000 + (y & 1) * 0x2000 + y / 2 * 80 + x / 8, byte);
        }
    look(640, 400);
    for (unsigned y = 0; y < 400; y++)
        for (unsigned x = 0; x < 640; x++)
            check_dot(x, y, colour(drawing(x, y / 2) & 1 ? 0x17 : 0));
}
END_TEST

// Sets a 16-colour pixel with write mode 2 and the bit mask, the way of most drawing programs.
static void plot(unsigned x, unsigned y, unsigned width, unsigned value)
{
    uint32_t at = 0xa0000 + y * width / 8 + x / 8;
    indexed(0x3ce, 8, 0x80 >> x % 8);
    peek(at);
    poke(at, value);
}

static void check_sixteen(const struct mode *mode, unsigned width, unsigned height, unsigned double_x,
                          unsigned double_y)
{
    program(mode);
    indexed(0x3ce, 5, 2);
    for (unsigned y = 0; y < height; y++)
        for (unsigned x = 0; x < width; x++)
            plot(x, y, width, drawing(x, y) & 15);
    look(width * double_x, height * double_y);
    for (unsigned y = 0; y < height * double_y; y++)
        for (unsigned x = 0; x < width * double_x; x++)
            check_dot(x, y, colour(mode->attribute[drawing(x / double_x, y / double_y) & 15]));
}

START_TEST(sixteen_colours)
{
    check_sixteen(&mode_0d, 320, 200, 2, 2);
    check_sixteen(&mode_10, 640, 350, 1, 1);
    check_sixteen(&mode_12, 640, 480, 1, 1);
}
END_TEST

START_TEST(write_modes_and_latches)
{
    program(&mode_12);
    indexed(0x3ce, 0, 0x05); // set/reset: planes 0 and 2 set by force
    indexed(0x3ce, 1, 0x0f);
    poke(0xa0000, 0x00);
    indexed(0x3ce, 1, 0x00);
    indexed(0x3ce, 4, 0);
    ck_assert_uint_eq(peek(0xa0000), 0xff);
    indexed(0x3ce, 4, 1);
    ck_assert_uint_eq(peek(0xa0000), 0x00);
    indexed(0x3ce, 4, 2);
    ck_assert_uint_eq(peek(0xa0000), 0xff);
    indexed(0x3ce, 5, 1); // write mode 1 copies the latches
    poke(0xa0005, 0x55);
    indexed(0x3ce, 5, 0);
    ck_assert_uint_eq(peek(0xa0005), 0xff);
    indexed(0x3ce, 3, 0x18); // exclusive or
    poke(0xa0005, 0x0f);
    indexed(0x3ce, 3, 0x03); // rotate right by three
    ck_assert_uint_eq(peek(0xa0005), 0xf0);
    poke(0xa0006, 0x81);
    ck_assert_uint_eq(peek(0xa0006), 0x30);
    indexed(0x3ce, 3, 0);
    indexed(0x3ce, 5, 8); // read mode 1: where is colour 5?
    indexed(0x3ce, 2, 5);
    indexed(0x3ce, 7, 15);
    ck_assert_uint_eq(peek(0xa0000), 0xff);
    indexed(0x3ce, 2, 4);
    ck_assert_uint_eq(peek(0xa0000), 0x00);
    indexed(0x3ce, 7, 14); // plane 0 does not matter
    ck_assert_uint_eq(peek(0xa0000), 0xff);
    indexed(0x3ce, 5, 3); // write mode 3: the byte is a mask for set/reset
    indexed(0x3ce, 0, 0x0f);
    peek(0xa0010);
    poke(0xa0010, 0x3c);
    indexed(0x3ce, 5, 0);
    indexed(0x3ce, 4, 3);
    ck_assert_uint_eq(peek(0xa0010), 0x3c);
}
END_TEST

START_TEST(split_screen_and_panning)
{
    check_sixteen(&mode_12, 640, 480, 1, 1);
    indexed(0x3d4, 0x0d, 80 * 2 % 256); // start two lines down
    indexed(0x3d4, 0x18, 299 & 255);    // line 300 on shows address 0 again
    indexed(0x3d4, 0x07, 0x3e & ~0x10);
    indexed(0x3d4, 0x07, (0x3e & ~0x10) | (299 >> 4 & 0x10));
    indexed(0x3d4, 0x09, 0x00);
    in(0x3da);
    out(0x3c0, 0x33);
    out(0x3c0, 3); // three dots to the left
    look(640, 480);
    for (unsigned y = 0; y < 300; y++)
        for (unsigned x = 0; x < 630; x++)
            check_dot(x, y, colour(mode_12.attribute[drawing(x + 3, y + 2) & 15]));
    for (unsigned y = 300; y < 480; y++)
        for (unsigned x = 0; x < 630; x++)
            check_dot(x, y, colour(mode_12.attribute[drawing(x + 3, y - 300) & 15]));
    out(0x3c0, 0x30);
    out(0x3c0, 0x21); // the lower part does not pan
    look(640, 480);
    check_dot(100, 310, colour(mode_12.attribute[drawing(100, 10) & 15]));
    check_dot(100, 10, colour(mode_12.attribute[drawing(103, 12) & 15]));
}
END_TEST

START_TEST(mode_13_and_the_dac)
{
    program(&mode_13);
    for (unsigned i = 0; i < 64000; i++)
        poke(0xa0000 + i, drawing(i % 320, i / 320));
    look(640, 400);
    for (unsigned y = 0; y < 400; y++)
        for (unsigned x = 0; x < 640; x++)
            check_dot(x, y, colour(drawing(x / 2, y / 2) & 255));
    out(0x3c6, 0x0f); // the mask
    look(640, 400);
    check_dot(300, 200, colour(drawing(150, 100) & 15));
    out(0x3c6, 0xff);
    out(0x3c7, 77);
    uint8_t c[3];
    dac_components(77, c);
    for (unsigned i = 0; i < 3; i++)
        ck_assert_uint_eq(in(0x3c9), c[i]);
    indexed(0x3c4, 1, 0x21); // screen off
    look(640, 400);
    check_dot(300, 200, 0u);
}
END_TEST

START_TEST(mode_x)
{
    static const uint8_t tweak[][2] = {{0x06, 0x0d}, {0x07, 0x3e}, {0x09, 0x41}, {0x10, 0xea}, {0x11, 0xac},
                                       {0x12, 0xdf}, {0x14, 0x00}, {0x15, 0xe7}, {0x16, 0x06}, {0x17, 0xe3}};
    program(&mode_13);
    indexed(0x3c4, 4, 6);
    out(0x3c2, 0xe3);
    indexed(0x3d4, 0x11, 0);
    for (unsigned i = 0; i < G_N_ELEMENTS(tweak); i++)
        indexed(0x3d4, tweak[i][0], tweak[i][1]);
    for (unsigned page = 0; page < 2; page++)
        for (unsigned y = 0; y < 240; y++)
            for (unsigned x = 0; x < 320; x++) {
                indexed(0x3c4, 2, 1 << (x & 3));
                poke(0xa0000 + page * 19200 + y * 80 + x / 4, drawing(x, y) + page * 9);
            }
    for (unsigned page = 0; page < 2; page++) {
        indexed(0x3d4, 0x0c, page * 19200 >> 8);
        indexed(0x3d4, 0x0d, page * 19200 & 255);
        look(640, 480);
        for (unsigned y = 0; y < 480; y++)
            for (unsigned x = 0; x < 640; x++)
                check_dot(x, y, colour((drawing(x / 2, y / 2) + page * 9) & 255));
    }
}
END_TEST

// ---- VBE ----
static void vbe_mode(unsigned width, unsigned height, unsigned bits)
{
    vbe(4, 0);
    vbe(1, width);
    vbe(2, height);
    vbe(3, bits);
    vbe(4, 0x41);
}

static uint32_t deep_pixel(unsigned bits, unsigned x, unsigned y)
{
    uint32_t v = drawing(x, y) * 2654435761u;
    return bits == 32 ? v & 0xffffff : v & ((1u << bits) - 1);
}

static uint32_t deep_colour(unsigned bits, uint32_t v)
{
    if (bits == 8)
        return colour(v);
    if (bits >= 24)
        return v;
    unsigned green = bits == 16 ? 6 : 5;
    unsigned r = v >> (5 + green) & 31, g = v >> 5 & ((1 << green) - 1), b = v & 31;
    return (r * 255 + 15) / 31 << 16 | (g * 255 + (1 << green) / 2) / ((1 << green) - 1) << 8 | (b * 255 + 15) / 31;
}

START_TEST(vbe_depths)
{
    static const unsigned depths[] = {8, 15, 16, 24, 32};
    program(&mode_13);
    ck_assert_uint_eq(vbe_get(0), 0xb0c5);
    ck_assert_uint_eq(vbe_get(10), 256);
    for (unsigned d = 0; d < G_N_ELEMENTS(depths); d++) {
        unsigned bits = depths[d], bytes = (bits + 7) / 8;
        vbe_mode(800, 600, bits);
        ck_assert_uint_eq(vbe_get(3), bits);
        vbe(6, 1000); // a wider virtual screen
        ck_assert_uint_eq(vbe_get(6), 1000);
        vbe(8, 16);
        vbe(9, 7);
        for (unsigned y = 0; y < 600; y++)
            for (unsigned x = 0; x < 800; x++)
                address_space_store(machine->memory, LFB + (y + 7) * 1000 * bytes + (x + 16) * bytes,
                                    deep_pixel(bits, x, y), bytes == 3 ? 4 : bytes);
        look(800, 600);
        for (unsigned y = 0; y < 600; y++)
            for (unsigned x = 0; x < (bits == 24 ? 799 : 800); x++)
                check_dot(x, y, deep_colour(bits, deep_pixel(bits, x, y)));
    }
    vbe_mode(2560, 1600, 32);
    look(2560, 1600);
    vbe_mode(800, 600, 32);
    look(800, 600);
    check_dot(5, 5, 0u); // cleared
}
END_TEST

START_TEST(vbe_planar_and_banks)
{
    program(&mode_12);
    vbe_mode(800, 600, 4);
    out(0x3c0, 0x20);
    indexed(0x3ce, 5, 2);
    for (unsigned y = 0; y < 600; y++)
        for (unsigned x = 0; x < 800; x++)
            plot(x, y, 800, drawing(x, y) & 15);
    look(800, 600);
    for (unsigned y = 0; y < 600; y++)
        for (unsigned x = 0; x < 800; x++)
            check_dot(x, y, colour(mode_12.attribute[drawing(x, y) & 15]));
    vbe_mode(1024, 768, 8);
    for (unsigned bank = 0; bank < 12; bank++) {
        vbe(5, bank);
        poke(0xa0000, bank + 1);
        poke(0xaffff, bank + 101);
    }
    look(1024, 768);
    for (unsigned bank = 0; bank < 12; bank++) {
        check_dot(0, bank * 64, colour(bank + 1));
        check_dot(1023, bank * 64 + 63, colour(bank + 101));
    }
}
END_TEST

// ---- Damage ----
struct seen {
    int64_t area;
    unsigned count;
    struct rectangle bounds;
};

static void on_damage(void *opaque, struct surface *s, const struct rectangle *r)
{
    struct seen *seen = opaque;
    if (!seen->count)
        seen->bounds = *r;
    int x = MIN(seen->bounds.x, r->x), y = MIN(seen->bounds.y, r->y);
    seen->bounds = (struct rectangle){x, y, MAX(seen->bounds.x + seen->bounds.width, r->x + r->width) - x,
                                      MAX(seen->bounds.y + seen->bounds.height, r->y + r->height) - y};
    seen->area += r->width * r->height;
    seen->count++;
}

START_TEST(small_changes_yield_small_damage)
{
    static const struct surface_listener_ops ops = {.damaged = on_damage, .pulls = true};
    struct seen seen = {0};
    struct surface_listener *listener = surface_attach(surface, &ops, &seen);
    program(&mode_13);
    vbe_mode(1920, 1080, 32);
    look(1920, 1080);
    seen = (struct seen){0};
    look(1920, 1080);
    ck_assert_uint_eq(seen.count, 0);
    for (unsigned y = 501; y < 509; y++)
        for (unsigned x = 1003; x < 1011; x++)
            address_space_store(machine->memory, LFB + (y * 1920 + x) * 4, 0xffffff, 4);
    look(1920, 1080);
    ck_assert_uint_ge(seen.count, 1);
    ck_assert_int_le(seen.bounds.width, 64);
    ck_assert_int_le(seen.bounds.height, 64);
    ck_assert(seen.bounds.x <= 1003 && seen.bounds.x + seen.bounds.width >= 1011);
    check_dot(1003, 501, 0xffffffu);
    vbe(4, 0);
    program(&mode_03);
    load_font(0, 0);
    fill_text(0xb8000);
    indexed(0x3d4, 0x0a, 0x20);
    look(720, 400);
    seen = (struct seen){0};
    poke(0xb8000 + 2 * (80 * 10 + 40), 'x');
    poke(0xb8001 + 2 * (80 * 10 + 40), 0x1e);
    look(720, 400);
    ck_assert_uint_ge(seen.count, 1);
    ck_assert_int_le(seen.bounds.width, 64);
    ck_assert_int_le(seen.bounds.height, 64);
    surface_detach(listener);
}
END_TEST

START_TEST(the_beam_moves_with_guest_time)
{
    program(&mode_03);
    unsigned retraces = 0, displayed = 0;
    bool before = false;
    for (unsigned i = 0; i < 100000; i++) { // a second in steps of 10 us
        unsigned status = in(0x3da);
        retraces += (status & 8) && !before;
        before = status & 8;
        displayed += !(status & 1);
        ck_assert(!(status & 8) || (status & 1));
        clock_advance(test_clock, 10000);
    }
    ck_assert_uint_ge(retraces, 69);
    ck_assert_uint_le(retraces, 71);
    ck_assert_uint_ge(displayed, 60000);
}
END_TEST

START_TEST(the_cards_own_registers)
{
    ck_assert_uint_eq(address_space_load(machine->memory, 0xfe000000, 8), 0x00ffffffffffff00ull); // EDID
    unsigned sum = 0;
    for (unsigned i = 0; i < 128; i++)
        sum += peek(0xfe000000 + i);
    ck_assert_uint_eq(sum & 255, 0);
    ck_assert_uint_eq(peek(0xfe000000 + 56) | (peek(0xfe000000 + 58) >> 4) << 8, 1280);
    address_space_store(machine->memory, 0xfe000502, 1024, 2);
    address_space_store(machine->memory, 0xfe000504, 768, 2);
    address_space_store(machine->memory, 0xfe000506, 32, 2);
    address_space_store(machine->memory, 0xfe000508, 0x41, 2);
    ck_assert_uint_eq(address_space_load(machine->memory, 0xfe000500, 2), 0xb0c5);
    look(1024, 768);
}
END_TEST

// Anything at all in any register: no crash, and a mode set afterwards works.
START_TEST(nonsense_gives_a_garbled_picture_at_worst)
{
    g_autoptr(GRand) random = g_rand_new_with_seed(42);
    unsigned rounds = g_getenv("CLOCHE_LONG_TESTS") ? 20000 : 1500;
    for (unsigned round = 0; round < rounds; round++) {
        if (round % 50 == 0)
            program(round % 100 ? &mode_12 : &mode_03);
        for (unsigned i = 0; i < 40; i++) {
            unsigned what = g_rand_int_range(random, 0, 10), value = g_rand_int(random);
            if (what < 3)
                out(0x3b0 + g_rand_int_range(random, 0, 0x30), value);
            else if (what == 3)
                in(0x3b0 + g_rand_int_range(random, 0, 0x30));
            else if (what == 4)
                indexed(0x3d4, value & 0x1f, value >> 8 & 255);
            else if (what == 5)
                indexed(g_rand_boolean(random) ? 0x3c4 : 0x3ce, value & 15, value >> 8 & 255);
            else if (what == 6)
                address_space_store(machine->memory, 0xa0000 + (value & 0x1ffff), value, 1 << (value >> 20 & 3));
            else if (what == 7)
                address_space_load(machine->memory, 0xa0000 + (value & 0x1ffff), 1 << (value >> 20 & 3));
            else if (what == 8)
                vbe(g_rand_int_range(random, 0, 14), value >> (value & 16 ? 4 : 20));
            else
                address_space_store(machine->memory, LFB + (value & 0xffffff), value, 4);
        }
        clock_advance(test_clock, g_rand_int_range(random, 0, 30000000));
        surface_refresh(surface);
    }
    vga_class.reset(device);
    check_sixteen(&mode_12, 640, 480, 1, 1);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("vga");
    TCase *tcase = tcase_create("vga");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 300);
    tcase_add_test(tcase, text_with_nine_dots);
    tcase_add_test(tcase, text_with_eight_dots_two_fonts_and_blink);
    tcase_add_test(tcase, text_cursor_and_start_address);
    tcase_add_test(tcase, monochrome_text_underlines);
    tcase_add_test(tcase, cga_four_colours);
    tcase_add_test(tcase, cga_two_colours);
    tcase_add_test(tcase, sixteen_colours);
    tcase_add_test(tcase, write_modes_and_latches);
    tcase_add_test(tcase, split_screen_and_panning);
    tcase_add_test(tcase, mode_13_and_the_dac);
    tcase_add_test(tcase, mode_x);
    tcase_add_test(tcase, vbe_depths);
    tcase_add_test(tcase, vbe_planar_and_banks);
    tcase_add_test(tcase, small_changes_yield_small_damage);
    tcase_add_test(tcase, the_beam_moves_with_guest_time);
    tcase_add_test(tcase, the_cards_own_registers);
    tcase_add_test(tcase, nonsense_gives_a_garbled_picture_at_worst);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
