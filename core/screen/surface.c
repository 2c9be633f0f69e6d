// SPDX-License-Identifier: GPL-2.0-or-later
#include "core/screen/surface.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define FRAME_NS      16000000ll   // a little more than 60 Hz
#define QUIET_NS      2000000000ll // after this long without a change, look less often
#define QUIET_TICK_NS 50000000ll

// LOCK guards everything below it; callbacks run with it held.
struct surface {
    struct screen *screen;
    unsigned index;
    GMutex refresh_lock;
    GRecMutex lock;
    const struct surface_adapter_ops *ops; // changed with the refresh lock held
    void *opaque;
    struct pixels *pixels;
    struct cursor *cursor;
    int cursor_x, cursor_y;
    GPtrArray *listeners;
    _Atomic unsigned changes; // counts damage and resizes
};

struct surface_listener {
    struct surface *surface;
    const struct surface_listener_ops *ops;
    void *opaque;
    struct damage damage;
};

// WAIT_LOCK guards the refresher thread's own state.
struct screen {
    GRecMutex *machine_lock;
    GPtrArray *heads;
    GMutex wait_lock;
    GCond wake;
    GThread *refresher;
    unsigned pushed; // listeners that do not pull
    bool quit, expect;
};

// ---- Pixels ----
struct pixels *pixels_new(uint32_t width, uint32_t height)
{
    width = CLAMP(width, 1, SURFACE_MAX_WIDTH);
    height = CLAMP(height, 1, SURFACE_MAX_HEIGHT);
    size_t size = ALIGN_UP((size_t)width * 4 * height, PAGE_SIZE);
    int memfd = memfd_create("cloche-surface", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (memfd < 0)
        return NULL;
    void *data = MAP_FAILED;
    if (ftruncate(memfd, size) == 0 && fcntl(memfd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0)
        data = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
    if (data == MAP_FAILED) {
        int e = errno;
        close(memfd);
        errno = e;
        return NULL;
    }
    struct pixels *pixels = g_new0(struct pixels, 1);
    *pixels = (struct pixels){.references = 1,
                              .memfd = memfd,
                              .data = data,
                              .width = width,
                              .height = height,
                              .stride = width * 4,
                              .size = size};
    return pixels;
}

struct pixels *pixels_ref(struct pixels *pixels)
{
    atomic_fetch_add(&pixels->references, 1);
    return pixels;
}

void pixels_unref(struct pixels *pixels)
{
    if (!pixels || atomic_fetch_sub(&pixels->references, 1) != 1)
        return;
    if (pixels->release) {
        pixels->release(pixels);
    } else {
        munmap(pixels->data, pixels->size);
        close(pixels->memfd);
    }
    g_free(pixels);
}

// ---- Cursors ----
struct cursor *cursor_new(uint32_t width, uint32_t height, uint32_t hot_x, uint32_t hot_y)
{
    struct cursor *cursor = g_new0(struct cursor, 1);
    cursor->references = 1;
    cursor->width = CLAMP(width, 1, CURSOR_MAX);
    cursor->height = CLAMP(height, 1, CURSOR_MAX);
    cursor->hot_x = MIN(hot_x, cursor->width - 1);
    cursor->hot_y = MIN(hot_y, cursor->height - 1);
    cursor->argb = g_new0(uint32_t, (size_t)cursor->width * cursor->height);
    return cursor;
}

struct cursor *cursor_ref(struct cursor *cursor)
{
    atomic_fetch_add(&cursor->references, 1);
    return cursor;
}

void cursor_unref(struct cursor *cursor)
{
    if (!cursor || atomic_fetch_sub(&cursor->references, 1) != 1)
        return;
    g_free(cursor->argb);
    g_free(cursor);
}

// ---- Damage ----
static int64_t rectangle_area(const struct rectangle *r)
{
    return (int64_t)r->width * r->height;
}

static struct rectangle rectangle_union(const struct rectangle *a, const struct rectangle *b)
{
    int x = MIN(a->x, b->x), y = MIN(a->y, b->y);
    int right = MAX(a->x + a->width, b->x + b->width), bottom = MAX(a->y + a->height, b->y + b->height);
    return (struct rectangle){x, y, right - x, bottom - y};
}

// How many pixels the union of A and B covers that neither did (overlap counts for the union).
static int64_t merge_waste(const struct rectangle *a, const struct rectangle *b)
{
    struct rectangle both = rectangle_union(a, b);
    return rectangle_area(&both) - rectangle_area(a) - rectangle_area(b);
}

static unsigned cheapest_merge(const struct damage *damage, const struct rectangle *r, int64_t *waste)
{
    unsigned best = 0;
    *waste = INT64_MAX;
    for (unsigned i = 0; i < damage->count; i++) {
        int64_t w = merge_waste(&damage->rectangles[i], r);
        if (w < *waste) {
            *waste = w;
            best = i;
        }
    }
    return best;
}

void damage_add(struct damage *damage, const struct rectangle *rectangle)
{
    if (rectangle->width <= 0 || rectangle->height <= 0)
        return;
    struct rectangle r = *rectangle;
    // A merged rectangle may now be worth merging with another one; each round removes one, so this ends.
    while (damage->count) {
        int64_t waste;
        unsigned best = cheapest_merge(damage, &r, &waste);
        if (waste > 0 && damage->count < DAMAGE_MAX)
            break;
        r = rectangle_union(&damage->rectangles[best], &r);
        damage->rectangles[best] = damage->rectangles[--damage->count];
    }
    damage->rectangles[damage->count++] = r;
}

// ---- The screen and its refresher ----
struct screen *screen_new(GRecMutex *machine_lock)
{
    struct screen *screen = g_new0(struct screen, 1);
    screen->machine_lock = machine_lock;
    screen->heads = g_ptr_array_new();
    g_mutex_init(&screen->wait_lock);
    g_cond_init(&screen->wake);
    return screen;
}

static void surface_free(struct surface *surface)
{
    for (unsigned i = 0; i < surface->listeners->len; i++)
        g_free(surface->listeners->pdata[i]);
    g_ptr_array_free(surface->listeners, TRUE);
    pixels_unref(surface->pixels);
    cursor_unref(surface->cursor);
    g_rec_mutex_clear(&surface->lock);
    g_mutex_clear(&surface->refresh_lock);
    g_free(surface);
}

static void stop_refresher(struct screen *screen)
{
    g_mutex_lock(&screen->wait_lock);
    GThread *thread = g_steal_pointer(&screen->refresher);
    screen->quit = true;
    g_cond_broadcast(&screen->wake);
    g_mutex_unlock(&screen->wait_lock);
    if (thread)
        g_thread_join(thread);
}

void screen_free(struct screen *screen)
{
    if (!screen)
        return;
    stop_refresher(screen);
    for (unsigned i = 0; i < screen->heads->len; i++)
        surface_free(screen->heads->pdata[i]);
    g_ptr_array_free(screen->heads, TRUE);
    g_cond_clear(&screen->wake);
    g_mutex_clear(&screen->wait_lock);
    g_free(screen);
}

unsigned screen_heads(struct screen *screen)
{
    return screen->heads->len;
}

struct surface *screen_head(struct screen *screen, unsigned index)
{
    return index < screen->heads->len ? screen->heads->pdata[index] : NULL;
}

void screen_expect_change(struct screen *screen)
{
    g_mutex_lock(&screen->wait_lock);
    screen->expect = true;
    g_cond_broadcast(&screen->wake);
    g_mutex_unlock(&screen->wait_lock);
}

static unsigned refresh_all(struct screen *screen)
{
    unsigned changes = 0;
    for (unsigned i = 0; i < screen->heads->len; i++) {
        struct surface *surface = screen->heads->pdata[i];
        if (surface_listeners(surface))
            surface_refresh(surface);
        changes += atomic_load(&surface->changes);
    }
    return changes;
}

static void *refresher(void *opaque)
{
    struct screen *screen = opaque;
    int64_t changed_at = g_get_monotonic_time() * 1000, next = changed_at;
    unsigned seen = 0;
    g_mutex_lock(&screen->wait_lock);
    while (!screen->quit) {
        if (!screen->pushed) {
            g_cond_wait(&screen->wake, &screen->wait_lock);
            continue;
        }
        int64_t now = g_get_monotonic_time() * 1000;
        if (screen->expect) {
            screen->expect = false;
            changed_at = now;
            next = MIN(next, now + FRAME_NS);
        }
        if (now < next) {
            g_cond_wait_until(&screen->wake, &screen->wait_lock, next / 1000);
            continue;
        }
        g_mutex_unlock(&screen->wait_lock);
        unsigned changes = refresh_all(screen);
        if (changes != seen)
            changed_at = now;
        seen = changes;
        next = MAX(next + FRAME_NS, now + FRAME_NS / 2);
        if (now - changed_at > QUIET_NS)
            next = now + QUIET_TICK_NS;
        g_mutex_lock(&screen->wait_lock);
    }
    g_mutex_unlock(&screen->wait_lock);
    return NULL;
}

static void count_pushed(struct screen *screen, int change)
{
    g_mutex_lock(&screen->wait_lock);
    screen->pushed += change;
    if (screen->pushed && !screen->refresher && !screen->quit)
        screen->refresher = g_thread_new("display", refresher, screen);
    screen->expect = true;
    g_cond_broadcast(&screen->wake);
    g_mutex_unlock(&screen->wait_lock);
}

// ---- Adapter side ----
struct surface *surface_new(struct screen *screen, const struct surface_adapter_ops *ops, void *opaque)
{
    struct pixels *pixels = pixels_new(640, 400);
    if (!pixels)
        g_error("no memory for the first picture: %s", g_strerror(errno)); // at start-up only
    struct surface *surface = g_new0(struct surface, 1);
    surface->screen = screen;
    surface->index = screen->heads->len;
    surface->ops = ops;
    surface->opaque = opaque;
    surface->pixels = pixels;
    surface->listeners = g_ptr_array_new();
    g_mutex_init(&surface->refresh_lock);
    g_rec_mutex_init(&surface->lock);
    g_ptr_array_add(screen->heads, surface);
    return surface;
}

void surface_set_adapter(struct surface *surface, const struct surface_adapter_ops *ops, void *opaque)
{
    g_mutex_lock(&surface->refresh_lock);
    surface->ops = ops;
    surface->opaque = opaque;
    g_mutex_unlock(&surface->refresh_lock);
}

static struct rectangle whole(const struct pixels *pixels)
{
    return (struct rectangle){0, 0, pixels->width, pixels->height};
}

// NAME: a member of surface_listener_ops; the rest are its arguments after OPAQUE. Surface lock held.
#define NOTIFY(surface, name, ...)                                                                                     \
    do {                                                                                                               \
        for (unsigned notify_i = 0; notify_i < (surface)->listeners->len; notify_i++) {                                \
            struct surface_listener *notified = (surface)->listeners->pdata[notify_i];                                 \
            if (notified->ops->name)                                                                                   \
                notified->ops->name(notified->opaque, surface, __VA_ARGS__);                                           \
        }                                                                                                              \
    } while (0)

void surface_show(struct surface *surface, struct pixels *pixels)
{
    g_rec_mutex_lock(&surface->lock);
    struct pixels *old = surface->pixels;
    surface->pixels = pixels;
    if (old != pixels) {
        atomic_fetch_add(&surface->changes, 1);
        for (unsigned i = 0; i < surface->listeners->len; i++) {
            struct surface_listener *listener = surface->listeners->pdata[i];
            listener->damage = (struct damage){.count = 1, .rectangles = {whole(pixels)}};
        }
        NOTIFY(surface, resized, pixels);
    }
    g_rec_mutex_unlock(&surface->lock);
    pixels_unref(old);
}

struct pixels *surface_resize(struct surface *surface, uint32_t width, uint32_t height)
{
    struct pixels *pixels = pixels_new(width, height);
    if (pixels)
        surface_show(surface, pixels);
    else
        log_warning("screen", "No memory for a picture of %u x %u (%s); the old size stays", width, height,
                    g_strerror(errno));
    return surface->pixels;
}

void surface_damage(struct surface *surface, const struct rectangle *rectangle)
{
    g_rec_mutex_lock(&surface->lock);
    int64_t left = MAX(rectangle->x, 0), top = MAX(rectangle->y, 0);
    int64_t right = MIN((int64_t)rectangle->x + rectangle->width, surface->pixels->width);
    int64_t bottom = MIN((int64_t)rectangle->y + rectangle->height, surface->pixels->height);
    if (left < right && top < bottom) {
        struct rectangle clipped = {left, top, right - left, bottom - top};
        atomic_fetch_add(&surface->changes, 1);
        for (unsigned i = 0; i < surface->listeners->len; i++)
            damage_add(&((struct surface_listener *)surface->listeners->pdata[i])->damage, &clipped);
        NOTIFY(surface, damaged, &clipped);
    }
    g_rec_mutex_unlock(&surface->lock);
}

void surface_set_cursor(struct surface *surface, struct cursor *cursor)
{
    g_rec_mutex_lock(&surface->lock);
    struct cursor *old = surface->cursor;
    surface->cursor = cursor;
    NOTIFY(surface, cursor_changed, cursor);
    g_rec_mutex_unlock(&surface->lock);
    cursor_unref(old);
}

void surface_move_cursor(struct surface *surface, int x, int y)
{
    g_rec_mutex_lock(&surface->lock);
    surface->cursor_x = x;
    surface->cursor_y = y;
    NOTIFY(surface, cursor_moved, x, y);
    g_rec_mutex_unlock(&surface->lock);
}

// ---- Listener side ----
struct surface_listener *surface_attach(struct surface *surface, const struct surface_listener_ops *ops, void *opaque)
{
    struct surface_listener *listener = g_new0(struct surface_listener, 1);
    listener->surface = surface;
    listener->ops = ops;
    listener->opaque = opaque;
    g_rec_mutex_lock(&surface->lock);
    listener->damage = (struct damage){.count = 1, .rectangles = {whole(surface->pixels)}};
    g_ptr_array_add(surface->listeners, listener);
    g_rec_mutex_unlock(&surface->lock);
    if (!ops->pulls)
        count_pushed(surface->screen, 1);
    return listener;
}

void surface_detach(struct surface_listener *listener)
{
    if (!listener)
        return;
    struct surface *surface = listener->surface;
    g_rec_mutex_lock(&surface->lock);
    g_ptr_array_remove(surface->listeners, listener);
    g_rec_mutex_unlock(&surface->lock);
    if (!listener->ops->pulls)
        count_pushed(surface->screen, -1);
    g_free(listener);
}

void surface_take_damage(struct surface_listener *listener, struct damage *damage)
{
    g_rec_mutex_lock(&listener->surface->lock);
    *damage = listener->damage;
    listener->damage.count = 0;
    g_rec_mutex_unlock(&listener->surface->lock);
}

struct pixels *surface_pixels(struct surface *surface)
{
    g_rec_mutex_lock(&surface->lock);
    struct pixels *pixels = pixels_ref(surface->pixels);
    g_rec_mutex_unlock(&surface->lock);
    return pixels;
}

struct cursor *surface_cursor(struct surface *surface, int *x, int *y)
{
    g_rec_mutex_lock(&surface->lock);
    struct cursor *cursor = surface->cursor ? cursor_ref(surface->cursor) : NULL;
    *x = surface->cursor_x;
    *y = surface->cursor_y;
    g_rec_mutex_unlock(&surface->lock);
    return cursor;
}

void surface_refresh(struct surface *surface)
{
    GRecMutex *machine_lock = surface->screen->machine_lock;
    if (machine_lock)
        g_rec_mutex_lock(machine_lock);
    g_mutex_lock(&surface->refresh_lock);
    const struct surface_adapter_ops *ops = surface->ops;
    void *opaque = surface->opaque;
    bool draw = ops && ops->refresh && ops->refresh(opaque);
    if (machine_lock)
        g_rec_mutex_unlock(machine_lock);
    if (draw && ops->draw)
        ops->draw(opaque);
    g_mutex_unlock(&surface->refresh_lock);
}

void surface_wish_size(struct surface *surface, unsigned width, unsigned height)
{
    GRecMutex *machine_lock = surface->screen->machine_lock;
    if (machine_lock)
        g_rec_mutex_lock(machine_lock);
    g_mutex_lock(&surface->refresh_lock);
    const struct surface_adapter_ops *ops = surface->ops;
    void *opaque = surface->opaque;
    g_mutex_unlock(&surface->refresh_lock);
    if (ops && ops->ui_size)
        ops->ui_size(opaque, MIN(width, SURFACE_MAX_WIDTH), MIN(height, SURFACE_MAX_HEIGHT));
    if (machine_lock)
        g_rec_mutex_unlock(machine_lock);
}

bool surface_resizable(struct surface *surface)
{
    g_mutex_lock(&surface->refresh_lock);
    bool resizable = surface->ops && surface->ops->ui_size;
    g_mutex_unlock(&surface->refresh_lock);
    return resizable;
}

bool surface_polled(struct surface *surface)
{
    g_mutex_lock(&surface->refresh_lock);
    bool polled = surface->ops && surface->ops->refresh;
    g_mutex_unlock(&surface->refresh_lock);
    return polled;
}

unsigned surface_listeners(struct surface *surface)
{
    g_rec_mutex_lock(&surface->lock);
    unsigned count = surface->listeners->len;
    g_rec_mutex_unlock(&surface->lock);
    return count;
}

unsigned surface_index(struct surface *surface)
{
    return surface->index;
}
