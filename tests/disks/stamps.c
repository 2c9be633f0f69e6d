// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/disks/stamps.h"

#include <string.h>
#include <sys/mman.h>

static void *shared(size_t size)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    g_assert(p != MAP_FAILED);
    return p;
}

struct stamps *stamps_new(uint64_t sectors)
{
    struct stamps *s = shared(sizeof *s);
    s->sectors = sectors;
    s->done = shared(sectors * sizeof *s->done);
    s->flushed = shared(sectors * sizeof *s->flushed);
    s->issued = shared(sectors * 4);
    s->zero_issued = shared(sectors * 4);
    s->flush_clock = shared(sectors * 4);
    s->clock = 1;
    for (uint64_t i = 0; i < sectors; i++)
        s->done[i] = s->flushed[i] = (struct sector_state){.may_be_zero = true};
    return s;
}

void stamps_free(struct stamps *s)
{
    munmap(s->done, s->sectors * sizeof *s->done);
    munmap(s->flushed, s->sectors * sizeof *s->flushed);
    munmap(s->issued, s->sectors * 4);
    munmap(s->zero_issued, s->sectors * 4);
    munmap(s->flush_clock, s->sectors * 4);
    munmap(s, sizeof *s);
}

static void fill(uint8_t *out, uint64_t sector, uint32_t stamp)
{
    uint64_t words[2] = {sector ^ 0xc10c4ec10c4eull, stamp};
    for (unsigned i = 0; i < 512; i += 16)
        memcpy(out + i, words, 16);
}

// 0: zeroes; UINT32_MAX: neither zeroes nor a whole stamped sector.
static uint32_t stamp_of(const uint8_t *data, uint64_t sector)
{
    static const uint8_t zeroes[512];
    uint8_t expected[512];
    uint64_t stamp;
    if (memcmp(data, zeroes, 512) == 0)
        return 0;
    memcpy(&stamp, data + 8, 8);
    fill(expected, sector, stamp);
    return memcmp(data, expected, 512) == 0 && stamp < UINT32_MAX ? stamp : UINT32_MAX;
}

void stamps_adopt(struct stamps *s, struct disk *disk)
{
    uint8_t data[512];
    uint32_t now = s->clock++;
    for (uint64_t i = 0; i < s->sectors; i++) {
        g_assert_cmpint(disk_read(disk, i * 512, data, 512), ==, 0);
        uint32_t stamp = stamp_of(data, i);
        s->done[i] = s->flushed[i] = (struct sector_state){stamp, stamp != 0, stamp == 0};
        s->issued[i] = MAX(s->issued[i], stamp);
        s->flush_clock[i] = now;
    }
}

static int operate_write(struct stamps *s, struct disk *disk, GRand *random, uint64_t first, uint64_t count)
{
    uint32_t stamp = s->clock++;
    g_autofree uint8_t *data = g_malloc(count * 512);
    for (uint64_t i = 0; i < count; i++) {
        s->issued[first + i] = stamp;
        fill(data + i * 512, first + i, stamp);
    }
    int rc = disk_write(disk, first * 512, data, count * 512);
    for (uint64_t i = 0; i < count && !rc; i++)
        s->done[first + i] = (struct sector_state){stamp, true, false};
    return rc;
}

static int operate_clear(struct stamps *s, struct disk *disk, GRand *random, uint64_t first, uint64_t count)
{
    uint32_t now = s->clock++;
    bool discard = g_rand_boolean(random);
    for (uint64_t i = 0; i < count; i++)
        s->zero_issued[first + i] = now;
    int rc = discard ? disk_discard(disk, first * 512, count * 512)
                     : disk_write_zeroes(disk, first * 512, count * 512, g_rand_boolean(random) ? DISK_MAY_UNMAP : 0);
    for (uint64_t i = 0; i < count && !rc; i++) {
        s->done[first + i].may_be_zero = true;
        s->done[first + i].may_be_data &= discard;
    }
    return rc;
}

int stamps_operate(struct stamps *s, struct disk *disk, GRand *random, uint64_t first, uint64_t count)
{
    uint64_t at = g_rand_int(random) % count, length = 1 + g_rand_int(random) % (count - at);
    unsigned dice = g_rand_int(random) % 10;
    if (dice < 3) // whole
        at = 0, length = count;
    else if (dice < 6) {
        at = ALIGN_DOWN(at, 8);
        length = MIN(8, count - at);
    }
    return g_rand_int(random) % 10 < 7 ? operate_write(s, disk, random, first + at, length)
                                       : operate_clear(s, disk, random, first + at, length);
}

int stamps_flush(struct stamps *s, struct disk *disk, bool (*covers)(uint64_t sector, void *opaque), void *opaque)
{
    uint32_t now = s->clock++;
    int rc = disk_flush(disk);
    for (uint64_t i = 0; i < s->sectors && !rc; i++)
        if (!covers || covers(i, opaque)) {
            s->flushed[i] = s->done[i];
            s->flush_clock[i] = now;
        }
    return rc;
}

char *stamps_judge(struct stamps *s, const struct sector_state *flushed, const uint32_t *flush_clock, struct disk *disk)
{
    g_autofree uint8_t *data = g_malloc(s->sectors * 512);
    int rc = disk_read(disk, 0, data, s->sectors * 512);
    if (rc)
        return g_strdup_printf("reading: %s", g_strerror(-rc));
    for (uint64_t i = 0; i < s->sectors; i++) {
        uint32_t stamp = stamp_of(data + i * 512, i);
        const struct sector_state *f = &flushed[i];
        bool later = stamp > f->stamp && stamp <= s->issued[i];
        bool ok = stamp == 0 ? f->may_be_zero || s->zero_issued[i] > flush_clock[i]
                             : stamp != UINT32_MAX && ((f->may_be_data && stamp == f->stamp) || later);
        if (!ok)
            return g_strdup_printf("sector %u has stamp %u, flushed were %u (data %d, zero %d), issued up to %u",
                                   (unsigned)i, stamp, f->stamp, f->may_be_data, f->may_be_zero, s->issued[i]);
    }
    return NULL;
}
