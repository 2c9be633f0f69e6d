// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/display/edid.h"

#include <string.h>

static void put_name(uint8_t *descriptor, const char *name)
{
    descriptor[3] = 0xfc;
    memset(descriptor + 5, ' ', 13);
    memcpy(descriptor + 5, name, strlen(name));
    descriptor[5 + strlen(name)] = '\n';
}

// A detailed timing with reduced blanking (VESA CVT 1.2, section 3.4): 160 dots, and about 460 us of lines.
static void put_timing(uint8_t *d, unsigned width, unsigned height)
{
    unsigned blank_x = 160, blank_y = MAX(height * 3 / 100, 12), front_x = 48, sync_x = 32, front_y = 3, sync_y = 6;
    uint64_t clock = (uint64_t)(width + blank_x) * (height + blank_y) * 60 / 10000;
    store_le(d, 2, MIN(clock, 65535));
    d[2] = width;
    d[3] = blank_x;
    d[4] = (width >> 8) << 4 | blank_x >> 8;
    d[5] = height;
    d[6] = blank_y;
    d[7] = (height >> 8) << 4 | blank_y >> 8;
    d[8] = front_x;
    d[9] = sync_x;
    d[10] = front_y << 4 | sync_y;
    d[11] = 0;
    unsigned mm_x = width * 254 / 960, mm_y = height * 254 / 960; // 96 dots an inch
    d[12] = mm_x;
    d[13] = mm_y;
    d[14] = (mm_x >> 8 & 15) << 4 | (mm_y >> 8 & 15);
    d[17] = 0x1a; // digital separate sync, horizontal positive
}

static void put_range(uint8_t *descriptor)
{
    descriptor[3] = 0xfd;
    descriptor[5] = 48; // Hz
    descriptor[6] = 85;
    descriptor[7] = 30; // kHz
    descriptor[8] = 160;
    descriptor[9] = 66; // 10 MHz
    descriptor[10] = 1; // no timing formula
    descriptor[11] = '\n';
    memset(descriptor + 12, ' ', 6);
}

// Standard timings: 60 Hz, by width and aspect (0: 16:10, 1: 4:3, 2: 5:4, 3: 16:9).
static void put_standard(uint8_t *edid, unsigned width, unsigned height)
{
    static const struct {
        uint16_t width, height;
        uint8_t aspect;
    } modes[] = {{1920, 1080, 3}, {1680, 1050, 0}, {1600, 900, 3}, {1440, 900, 0},
                 {1280, 1024, 2}, {1280, 800, 0},  {1280, 720, 3}, {1152, 864, 1}};
    for (unsigned i = 0, slot = 0; slot < 8; i++) {
        uint8_t *at = edid + 38 + 2 * slot;
        if (i >= G_N_ELEMENTS(modes)) {
            at[0] = at[1] = 1; // unused
            slot++;
        } else if (modes[i].width <= width && modes[i].height <= height) {
            at[0] = modes[i].width / 8 - 31;
            at[1] = modes[i].aspect << 6;
            slot++;
        }
    }
}

void edid_make(uint8_t edid[EDID_SIZE], unsigned width, unsigned height, unsigned serial)
{
    static const uint8_t header[8] = {0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0};
    // sRGB primaries and white, as ten-bit fractions
    static const uint8_t chromaticity[10] = {0xee, 0x91, 0xa3, 0x54, 0x4c, 0x99, 0x26, 0x0f, 0x50, 0x54};
    width = CLAMP(width, 64, 4095);
    height = CLAMP(height, 64, 4095);
    memset(edid, 0, EDID_SIZE);
    memcpy(edid, header, sizeof(header));
    unsigned vendor = ('C' - '@') << 10 | ('L' - '@') << 5 | ('O' - '@');
    edid[8] = vendor >> 8;
    edid[9] = vendor;
    store_le(edid + 10, 2, 1);
    store_le(edid + 12, 4, serial);
    edid[16] = 1;  // week
    edid[17] = 36; // 2026
    edid[18] = 1;
    edid[19] = 4;
    edid[20] = 0xa5; // digital, 8 bits a colour, DisplayPort
    edid[21] = MIN(width * 254 / 9600, 255);
    edid[22] = MIN(height * 254 / 9600, 255);
    edid[23] = 120;  // gamma 2.2
    edid[24] = 0x06; // sRGB, the first timing is the preferred one
    memcpy(edid + 25, chromaticity, sizeof(chromaticity));
    edid[35] = 0x21; // 640 x 480, 800 x 600 at 60 Hz
    edid[36] = width >= 1024 && height >= 768 ? 0x08 : 0;
    put_standard(edid, width, height);
    put_timing(edid + 54, width, height);
    put_range(edid + 72);
    put_name(edid + 90, "Cloche");
    edid[108 + 3] = 0x10; // unused descriptor
    uint8_t sum = 0;
    for (unsigned i = 0; i < EDID_SIZE - 1; i++)
        sum += edid[i];
    edid[127] = -sum;
}
