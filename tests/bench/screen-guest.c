// SPDX-License-Identifier: GPL-2.0-or-later
// The guest's part of bench-screen: draws on /dev/dri/card0 by the kernel's own interface, as commands on standard
// input say:
//   mode WIDTH HEIGHT         three frame buffers of that size, the first one shown
//   flip|small|full SECONDS RATE    a load; RATE frames a second at most, 0: as fast as it goes; answers "frames N
//   SECONDS" lat COUNT                 a square changes now and then, "T<n>" is said before each change key COUNT each
//   byte from the console's keyboard changes the square
#include <drm.h>
#include <drm_mode.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define SMALL_COUNT 10
#define SMALL_SIDE  16

struct buffer {
    uint32_t id, pitch;
    uint8_t *pixels;
};

static int card;
static uint32_t connector, crtc, width, height;
#define BUFFERS 3 // page flips: neighbours differ however few of them a viewer samples
static struct buffer buffers[BUFFERS];

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void die(const char *what)
{
    printf("FAIL %s: %m\n", what);
    exit(1);
}

static void find_output(void)
{
    uint32_t connectors[8], crtcs[8];
    struct drm_mode_card_res resources = {.connector_id_ptr = (uintptr_t)connectors, .crtc_id_ptr = (uintptr_t)crtcs};
    resources.count_connectors = resources.count_crtcs = 8;
    if (ioctl(card, DRM_IOCTL_MODE_GETRESOURCES, &resources) || !resources.count_connectors || !resources.count_crtcs)
        die("resources");
    connector = connectors[0];
    crtc = crtcs[0];
}

static void make_buffer(struct buffer *buffer)
{
    struct drm_mode_create_dumb dumb = {.width = width, .height = height, .bpp = 32};
    if (ioctl(card, DRM_IOCTL_MODE_CREATE_DUMB, &dumb))
        die("dumb buffer");
    struct drm_mode_fb_cmd fb = {
        .width = width, .height = height, .pitch = dumb.pitch, .bpp = 32, .depth = 24, .handle = dumb.handle};
    struct drm_mode_map_dumb map = {.handle = dumb.handle};
    if (ioctl(card, DRM_IOCTL_MODE_ADDFB, &fb) || ioctl(card, DRM_IOCTL_MODE_MAP_DUMB, &map))
        die("frame buffer");
    buffer->id = fb.fb_id;
    buffer->pitch = dumb.pitch;
    buffer->pixels = mmap(NULL, dumb.size, PROT_READ | PROT_WRITE, MAP_SHARED, card, map.offset);
    if (buffer->pixels == MAP_FAILED)
        die("map");
}

static void set_mode(unsigned w, unsigned h)
{
    width = w;
    height = h;
    for (unsigned i = 0; i < BUFFERS; i++)
        make_buffer(&buffers[i]);
    struct drm_mode_crtc set = {.set_connectors_ptr = (uintptr_t)&connector,
                                .count_connectors = 1,
                                .crtc_id = crtc,
                                .fb_id = buffers[0].id,
                                .mode_valid = 1};
    struct drm_mode_modeinfo mode = {.hdisplay = w,
                                     .hsync_start = w + 16,
                                     .hsync_end = w + 48,
                                     .htotal = w + 160,
                                     .vdisplay = h,
                                     .vsync_start = h + 3,
                                     .vsync_end = h + 9,
                                     .vtotal = h + 25,
                                     .vrefresh = 60};
    mode.clock = mode.htotal * mode.vtotal * 60 / 1000;
    set.mode = mode;
    if (ioctl(card, DRM_IOCTL_MODE_SETCRTC, &set))
        die("mode");
    printf("mode %u %u\n", w, h);
}

static void tell(struct drm_clip_rect *clips, unsigned count)
{
    struct drm_mode_fb_dirty_cmd dirty = {.fb_id = buffers[0].id, .num_clips = count, .clips_ptr = (uintptr_t)clips};
    ioctl(card, DRM_IOCTL_MODE_DIRTYFB, &dirty); // adapters that notice by themselves refuse it
}

static void fill(struct buffer *buffer, uint32_t colour)
{
    for (uint32_t y = 0; y < height; y++) {
        uint32_t *row = (uint32_t *)(void *)(buffer->pixels + (size_t)y * buffer->pitch);
        for (uint32_t x = 0; x < width; x++)
            row[x] = colour;
    }
}

static void square(unsigned x, unsigned y, unsigned side, uint32_t colour)
{
    for (unsigned dy = 0; dy < side; dy++) {
        uint32_t *row = (uint32_t *)(void *)(buffers[0].pixels + (size_t)(y + dy) * buffers[0].pitch);
        for (unsigned dx = 0; dx < side; dx++)
            row[x + dx] = colour;
    }
}

static void flip(unsigned frame)
{
    struct drm_mode_crtc_page_flip request = {
        .crtc_id = crtc, .fb_id = buffers[frame % BUFFERS].id, .flags = DRM_MODE_PAGE_FLIP_EVENT};
    char event[256];
    if (ioctl(card, DRM_IOCTL_MODE_PAGE_FLIP, &request))
        die("flip");
    if (read(card, event, sizeof(event)) <= 0)
        die("flip event");
}

static void small(unsigned frame)
{
    struct drm_clip_rect clips[SMALL_COUNT];
    for (unsigned i = 0; i < SMALL_COUNT; i++) {
        unsigned n = frame * SMALL_COUNT + i, x = n * 7919 % (width - SMALL_SIDE),
                 y = n * 104729 % (height - SMALL_SIDE);
        x = i ? x : 0; // where the client looks
        y = i ? y : 0;
        square(x, y, SMALL_SIDE, n * 0x010307 & 0xffffff);
        clips[i] = (struct drm_clip_rect){x, y, x + SMALL_SIDE, y + SMALL_SIDE};
    }
    tell(clips, SMALL_COUNT);
}

static void full(unsigned frame)
{
    struct drm_clip_rect clip = {0, 0, width, height};
    fill(&buffers[0], frame * 0x010307 & 0xffffff);
    tell(&clip, 1);
}

static void load(void (*draw)(unsigned frame), double seconds, double rate)
{
    for (unsigned i = 0; i < BUFFERS && draw == flip; i++)
        fill(&buffers[i], 0x405060 * (i + 1));
    if (draw != flip)
        flip(0);
    double begin = now(), end = begin + seconds;
    unsigned frames = 0;
    printf("begin\n");
    for (double next = begin; now() < end; frames++) {
        draw(frames);
        next += rate > 0 ? 1 / rate : 0;
        double wait = next - now();
        if (wait > 0)
            usleep(wait * 1e6);
        else
            next = now();
    }
    printf("frames %u %.3f\n", frames, now() - begin);
}

static uint32_t nth_colour(unsigned n)
{
    return (n & 1 ? 0xffff00 : 0x204000) | (n * 7 & 255);
}

static void mark(unsigned n)
{
    struct drm_clip_rect clip = {100, 100, 164, 164};
    square(100, 100, 64, nth_colour(n));
    tell(&clip, 1);
}

static void latency(unsigned count)
{
    flip(0);
    fill(&buffers[0], 0);
    tell(&(struct drm_clip_rect){0, 0, width, height}, 1);
    printf("ready\n");
    sleep(1);
    for (unsigned n = 1; n <= count; n++) {
        printf("T%u\n", n);
        mark(n);
        usleep(100000 + n * 37 % 50 * 1000);
    }
    printf("end\n");
}

static void keys(unsigned count)
{
    int console = open("/dev/tty1", O_RDWR);
    struct termios raw;
    if (console < 0 || tcgetattr(console, &raw))
        die("console");
    cfmakeraw(&raw);
    tcsetattr(console, TCSANOW, &raw);
    printf("ready\n");
    char byte;
    for (unsigned n = 1; n <= count && read(console, &byte, 1) == 1; n++)
        mark(n);
    printf("end\n");
}

int main(void)
{
    static const struct {
        const char *name;
        void (*draw)(unsigned frame);
    } loads[] = {{"flip", flip}, {"small", small}, {"full", full}};
    char line[128], word[16];
    double a, b;
    setvbuf(stdout, NULL, _IOLBF, 0);
    card = open("/dev/dri/card0", O_RDWR);
    if (card < 0)
        die("/dev/dri/card0");
    find_output();
    printf("guest ready\n");
    while (fgets(line, sizeof(line), stdin)) {
        a = b = 0;
        if (sscanf(line, "%15s %lf %lf", word, &a, &b) < 1)
            continue;
        if (!strcmp(word, "mode"))
            set_mode(a, b);
        if (!strcmp(word, "lat"))
            latency(a);
        if (!strcmp(word, "key"))
            keys(a);
        for (unsigned i = 0; i < sizeof(loads) / sizeof(loads[0]); i++)
            if (!strcmp(word, loads[i].name))
                load(loads[i].draw, a, b);
    }
    return 0;
}
