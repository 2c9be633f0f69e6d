// SPDX-License-Identifier: GPL-2.0-or-later
#include "core/state/ram_image.h"
#include "core/state/ram_faults.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define RUN_PAGES 256        // pages written with one call
#define CHUNK     (16 * MiB) // between two looks at progress
// Pages that the guest is about to change are set aside in memory up to this much: a write to the file may wait for the
// host's disk, a processor of the guest must not.
#define SHARE_ASIDE 4 // of the memory that the host has free
#define TRIM_PAGES  1024

// Copying ahead: rounds over what changed meanwhile, until so little is left that the guest may wait for it, or it
// writes faster than that.
#define ROUNDS 12
#define ENOUGH 2048 // pages

enum page_state { PAGE_PENDING, PAGE_COPYING, PAGE_DONE };
enum method { BY_TRACKING, BY_FAULTS, BY_LOG, STANDING };

struct aside {
    struct aside *next;
    uint64_t page;
    uint8_t data[PAGE_SIZE];
};

// STATES, counters and FAILED: any thread. The tracker runs on writers' threads, STAGE belongs to who copies the rest.
struct ram_image {
    struct ram *ram;
    int fd;
    uint64_t pages;
    _Atomic uint8_t *states;
    _Atomic uint64_t written, early;
    _Atomic int failed; // errno of the first failed write
    struct aside *_Atomic aside;
    _Atomic uint64_t bytes_aside;
    uint64_t most_aside;
    uint8_t *stage; // RUN_PAGES
    enum method method;
    struct ram_faults *faults; // BY_FAULTS
    void (*report)(void *opaque);
    void *report_opaque;
    _Atomic uint64_t *dirty; // BY_LOG, until all is copied: pages written since they were copied, a bit each
};

static bool page_is_zero(const uint8_t *page)
{
    const uint64_t *words = (const uint64_t *)page;
    for (unsigned i = 0; i < PAGE_SIZE / 8; i += 8)
        if (words[i] | words[i + 1] | words[i + 2] | words[i + 3] | words[i + 4] | words[i + 5] | words[i + 6] |
            words[i + 7])
            return false;
    return true;
}

static bool claim(struct ram_image *image, uint64_t page)
{
    uint8_t pending = PAGE_PENDING;
    return atomic_compare_exchange_strong(&image->states[page], &pending, PAGE_COPYING);
}

static void write_pages(struct ram_image *image, uint64_t page, const uint8_t *data, uint64_t count)
{
    uint64_t offset = page << PAGE_SHIFT, length = count << PAGE_SHIFT;
    atomic_fetch_add(&image->written, length);
    while (length) {
        ssize_t n = pwrite(image->fd, data, length, offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            int none = 0;
            atomic_compare_exchange_strong(&image->failed, &none, n ? errno : ENOSPC);
            return;
        }
        data += n;
        offset += n;
        length -= n;
    }
}

static void end_page(struct ram_image *image, uint64_t page)
{
    atomic_store(&image->states[page], PAGE_DONE);
    ram_untrack(image->ram, page << PAGE_SHIFT, TRACK_COW);
}

// False: too much is set aside already.
static bool set_aside(struct ram_image *image, uint64_t page)
{
    if (atomic_load(&image->bytes_aside) >= image->most_aside)
        return false;
    struct aside *aside = g_try_new(struct aside, 1);
    if (!aside)
        return false;
    aside->page = page;
    memcpy(aside->data, image->ram->host + (page << PAGE_SHIFT), PAGE_SIZE);
    atomic_fetch_add(&image->bytes_aside, PAGE_SIZE);
    aside->next = atomic_load(&image->aside);
    while (!atomic_compare_exchange_weak(&image->aside, &aside->next, aside))
        ;
    return true;
}

static void write_aside(struct ram_image *image)
{
    struct aside *list = atomic_exchange(&image->aside, NULL);
    while (list) {
        struct aside *done = list;
        write_pages(image, done->page, done->data, 1);
        list = done->next;
        g_free(done);
        atomic_fetch_sub(&image->bytes_aside, PAGE_SIZE);
    }
}

// A writer is about to change the page: the old bytes are kept first. When another thread is at it, wait for it;
// that takes microseconds.
static void before_write(void *opaque, uint64_t ram_offset, uint64_t length, enum ram_write_phase phase)
{
    struct ram_image *image = opaque;
    uint64_t page = ram_offset >> PAGE_SHIFT;
    if (phase != RAM_WRITE_BEFORE || page >= image->pages)
        return;
    if (claim(image, page)) {
        const uint8_t *data = image->ram->host + (page << PAGE_SHIFT);
        if (!page_is_zero(data) && !set_aside(image, page))
            write_pages(image, page, data, 1);
        atomic_fetch_add(&image->early, 1);
        end_page(image, page);
    }
    while (atomic_load(&image->states[page]) == PAGE_COPYING)
        sched_yield();
}

struct ram_image *ram_image_new(struct ram *ram, int fd, GError **error)
{
    struct ram_image *image = g_new0(struct ram_image, 1);
    image->ram = ram;
    image->fd = fd;
    image->pages = ram->used >> PAGE_SHIFT;
    image->most_aside = (uint64_t)sysconf(_SC_AVPHYS_PAGES) / SHARE_ASIDE * PAGE_SIZE;
    image->states = g_try_malloc0(image->pages);
    image->stage = g_try_malloc(RUN_PAGES * PAGE_SIZE);
    if (image->states && image->stage && ftruncate(fd, ram->used) == 0)
        return image;
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_FAILED, "Cannot prepare the memory image: %s",
                g_strerror(image->states && image->stage ? errno : ENOMEM));
    ram_image_free(image);
    return NULL;
}

static void on_fault(void *opaque, uint64_t ram_offset)
{
    before_write(opaque, ram_offset, PAGE_SIZE, RAM_WRITE_BEFORE);
}

void ram_image_set_report(struct ram_image *image, void (*report)(void *opaque), void *opaque)
{
    image->report = report;
    image->report_opaque = opaque;
    image->faults = ram_faults_new(image->ram, on_fault, image);
    image->method = image->faults ? BY_FAULTS : BY_LOG;
}

const char *ram_image_method(const struct ram_image *image)
{
    static const char *const names[] = {"write tracking", "page faults", "the dirty log", "standing still"};
    return names[image->method];
}

// The next run of memory that may hold data, from OFFSET on: holes of the memfd are skipped without touching them.
static uint64_t next_data(const struct ram *ram, uint64_t offset, uint64_t *end)
{
    *end = ram->used;
    if (ram->from_file)
        return offset;
    off_t data = lseek(ram->memfd, offset, SEEK_DATA);
    if (data < 0)
        return errno == ENXIO ? ram->used : offset;
    off_t hole = lseek(ram->memfd, data, SEEK_HOLE);
    if (hole > data)
        *end = MIN(ram->used, ALIGN_UP((uint64_t)hole, PAGE_SIZE));
    return ALIGN_DOWN((uint64_t)data, PAGE_SIZE);
}

// Copies the claimable pages of [page, end) in runs.
static void copy_run(struct ram_image *image, uint64_t page, uint64_t end)
{
    while (page < end) {
        if (!claim(image, page)) {
            page++;
            continue;
        }
        if (page_is_zero(image->ram->host + (page << PAGE_SHIFT))) {
            end_page(image, page++);
            continue;
        }
        uint64_t run = 1;
        while (run < RUN_PAGES && page + run < end && !page_is_zero(image->ram->host + ((page + run) << PAGE_SHIFT)) &&
               claim(image, page + run))
            run++;
        // Nobody waits for the disk: the pages are the guest's again before they are written.
        memcpy(image->stage, image->ram->host + (page << PAGE_SHIFT), run << PAGE_SHIFT);
        for (uint64_t i = 0; i < run; i++)
            end_page(image, page + i);
        if (image->faults)
            ram_faults_release(image->faults, page << PAGE_SHIFT, run << PAGE_SHIFT);
        write_pages(image, page, image->stage, run);
        page += run;
    }
}

static bool image_failure(struct ram_image *image, GError **error)
{
    int code = atomic_load(&image->failed);
    if (code)
        g_set_error(error, CLOCHE_ERROR, code == ENOSPC ? CLOCHE_ERROR_NO_SPACE : CLOCHE_ERROR_FAILED,
                    "Cannot write the memory image: %s",
                    code == ENOSPC ? "the host's disk is full; free some space" : g_strerror(code));
    return code != 0;
}

static bool copy_all(struct ram_image *image, struct progress *progress, GError **error)
{
    uint64_t used = image->pages << PAGE_SHIFT;
    if (progress)
        atomic_fetch_add(&progress->total, used);
    for (uint64_t offset = 0, end; offset < used; offset = end) {
        uint64_t data = MIN(next_data(image->ram, offset, &end), used);
        end = data < used ? MIN(MIN(end, data + CHUNK), used) : used;
        copy_run(image, data >> PAGE_SHIFT, end >> PAGE_SHIFT);
        write_aside(image);
        if (image_failure(image, error) || !progress_advance(progress, end - offset, error))
            return false;
    }
    return true;
}

// ---- Ahead of the moment ----

static void note_write(void *opaque, uint64_t ram_offset, uint64_t length, enum ram_write_phase phase)
{
    struct ram_image *image = opaque;
    uint64_t page = ram_offset >> PAGE_SHIFT;
    if (phase == RAM_WRITE_AFTER && page < image->pages)
        atomic_fetch_or(&image->dirty[page / 64], BIT(page % 64));
}

static void start_log(struct ram_image *image)
{
    image->dirty = (_Atomic uint64_t *)g_new0(uint64_t, image->pages / 64 + 1);
    ram_set_tracker(image->ram, TRACK_DIRTY, note_write, image);
    ram_track_range(image->ram, 0, image->ram->used, TRACK_DIRTY);
    image->report(image->report_opaque); // what it wrote before: all of it is copied below
    for (uint64_t word = 0; word <= image->pages / 64; word++)
        atomic_store(&image->dirty[word], 0);
}

static void stop_log(struct ram_image *image)
{
    for (uint64_t page = 0; page < image->pages; page++)
        ram_untrack(image->ram, page << PAGE_SHIFT, TRACK_DIRTY);
    ram_set_tracker(image->ram, TRACK_DIRTY, NULL, NULL);
    g_free((void *)image->dirty);
    image->dirty = NULL;
}

static uint64_t count_dirty(const struct ram_image *image)
{
    uint64_t count = 0;
    image->report(image->report_opaque);
    for (uint64_t word = 0; word <= image->pages / 64; word++)
        count += (unsigned)__builtin_popcountll(atomic_load(&image->dirty[word]));
    return count;
}

// Pages that changed after they were copied, zeroes too: the file may hold what was there before.
static void copy_dirty(struct ram_image *image)
{
    for (uint64_t word = 0; word <= image->pages / 64; word++)
        for (uint64_t bits = atomic_exchange(&image->dirty[word], 0); bits; bits &= bits - 1) {
            uint64_t page = word * 64 + (unsigned)__builtin_ctzll(bits);
            write_pages(image, page, image->ram->host + (page << PAGE_SHIFT), 1);
        }
}

bool ram_image_copy_ahead(struct ram_image *image, struct progress *progress, GError **error)
{
    if (image->method != BY_LOG)
        return true;
    start_log(image);
    if (!copy_all(image, progress, error))
        return false;
    uint64_t before = UINT64_MAX, left = count_dirty(image);
    for (unsigned round = 0; round < ROUNDS && left > ENOUGH && left < before; round++) {
        copy_dirty(image);
        if (image_failure(image, error) || !progress_advance(progress, 0, error))
            return false;
        before = left;
        left = count_dirty(image);
    }
    return true;
}

// ---- The moment ----

static void copy_standing(struct ram_image *image)
{
    image->method = STANDING;
    copy_all(image, NULL, NULL); // a failure is kept for ram_image_finish()
}

void ram_image_begin(struct ram_image *image)
{
    if (image->method == BY_LOG) {
        image->report(image->report_opaque);
        copy_dirty(image);
        stop_log(image);
        return;
    }
    if (image->faults && !ram_faults_protect(image->faults)) {
        g_clear_pointer(&image->faults, ram_faults_free);
        copy_standing(image);
        return;
    }
    ram_set_tracker(image->ram, TRACK_COW, before_write, image);
    ram_track_range(image->ram, 0, image->ram->used, TRACK_COW);
}

// ---- After it ----

bool ram_image_finish(struct ram_image *image, struct progress *progress, GError **error)
{
    bool ahead = image->method == BY_LOG || image->method == STANDING;
    bool good = ahead ? !image_failure(image, error) : copy_all(image, progress, error);
    // Writers that wait for nothing: every page that is still pending was a hole, or the image is given up.
    for (uint64_t page = 0; page < image->pages; page++)
        if (claim(image, page))
            end_page(image, page);
    for (uint64_t page = 0; page < image->pages; page++)
        while (atomic_load(&image->states[page]) == PAGE_COPYING)
            sched_yield();
    g_clear_pointer(&image->faults, ram_faults_free);
    write_aside(image);
    if (atomic_load(&image->early) > TRIM_PAGES)
        malloc_trim(0);
    if (good && image_failure(image, error))
        good = false;
    if (good && fdatasync(image->fd) != 0) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_FAILED, "Cannot sync the memory image: %s", g_strerror(errno));
        good = false;
    }
    return good;
}

void ram_image_free(struct ram_image *image)
{
    if (!image)
        return;
    ram_faults_free(image->faults);
    if (image->dirty)
        stop_log(image);
    close(image->fd);
    g_free((void *)image->states);
    g_free(image->stage);
    g_free(image);
}

uint64_t ram_image_length(const struct ram_image *image)
{
    return image->pages << PAGE_SHIFT;
}

uint64_t ram_image_written(const struct ram_image *image)
{
    return atomic_load(&image->written);
}

uint64_t ram_image_early(const struct ram_image *image)
{
    return atomic_load(&image->early);
}

bool ram_image_write(struct ram *ram, int fd, struct progress *progress, GError **error)
{
    struct ram_image *image = ram_image_new(ram, fd, error);
    if (!image)
        return false;
    bool good = ram_image_finish(image, progress, error);
    ram_image_free(image);
    return good;
}

// ---- Loading ----

// The new content where something was made of the old one (translated code, shadow tables, damage): to be told of pages
// that change. NULL where the file cannot be mapped.
static uint8_t *show_file(int fd, uint64_t length, GError **error)
{
    void *map = mmap(NULL, length, PROT_READ, MAP_PRIVATE | MAP_NORESERVE, fd, 0);
    if (map != MAP_FAILED)
        return map;
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_FAILED, "Cannot map the memory image: %s", g_strerror(errno));
    return NULL;
}

// Under a machine that has run: pages that nobody tracks are simply others from now on.
static bool remap(struct ram *ram, int fd, GError **error)
{
    uint64_t pages = ram->used >> PAGE_SHIFT;
    uint8_t *new = show_file(fd, ram->used, error);
    if (!new)
        return false;
    g_autofree uint64_t *changed = g_new0(uint64_t, pages / 64 + 1);
    for (uint64_t page = 0; page < pages; page++) {
        uint64_t offset = page << PAGE_SHIFT;
        if (!ram_tracked(ram, offset) || memcmp(ram->host + offset, new + offset, PAGE_SIZE) == 0)
            continue;
        changed[page / 64] |= BIT(page % 64);
        ram_write_begin(ram, offset, PAGE_SIZE);
    }
    munmap(new, ram->used);
    bool good = ram_map_file(ram, fd, ram->used, error);
    for (uint64_t page = 0; page < pages; page++)
        if (changed[page / 64] >> page % 64 & 1)
            ram_write_end(ram, page << PAGE_SHIFT, PAGE_SIZE);
    return good;
}

bool ram_image_load(struct ram *ram, int fd, bool fresh, GError **error)
{
    struct stat st;
    if (fstat(fd, &st) == 0 && (uint64_t)st.st_size == ram->used)
        return fresh ? ram_map_file(ram, fd, ram->used, error) : remap(ram, fd, error);
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_CORRUPT,
                "The memory image does not fit this machine: it has another amount of memory, or other devices");
    return false;
}
