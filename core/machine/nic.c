// SPDX-License-Identifier: GPL-2.0-or-later
#include "core/machine/nic.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define QUEUE_FRAMES 2048u // more are dropped
#define QUEUE_BYTES  (16 * MiB)
#define QUEUE_ROOM   512u // from here on the network is not read
#define MILLISECOND  1000000ll
#define POLL_MAX     1000 // milliseconds that the network's thread sleeps at most
#define LOCK_TRIES   200u // for a lock that is held for a register access

// ---- Queues and the cable ---------------------------------------------------------------------------------------

static void queue_init(struct nic_queue *queue)
{
    *queue = (struct nic_queue){.random = queue->random};
    queue->last = &queue->first;
}

static void queue_clear(struct nic_queue *queue)
{
    while (queue->first) {
        struct nic_frame *frame = queue->first;
        queue->first = frame->next;
        g_free(frame);
    }
    queue_init(queue);
}

void nic_seed(struct nic *nic, uint64_t seed)
{
    nic->to_guest.random = seed;
    nic->to_network.random = ~seed;
}

// 0 to 1, 1 excluded: SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
static double draw(struct nic_queue *queue)
{
    uint64_t z = queue->random += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return ((z ^ z >> 31) >> 11) * 0x1p-53;
}

// Lock held. When the frame comes out at the other end of the cable, or -1 when it is lost.
static int64_t shaped(struct nic *nic, struct nic_queue *queue, size_t length)
{
    const struct nic_shape *shape = &nic->shape;
    int64_t now = clock_now(nic->machine->clock), due = now;
    if (shape->loss && draw(queue) * 1000000 < shape->loss)
        return -1;
    if (shape->rate) {
        due = MAX(now, queue->line_free) + (int64_t)(length * 8 * 1000000000ull / shape->rate);
        queue->line_free = due;
    }
    due += shape->delay;
    if (shape->jitter)
        due += (int64_t)(draw(queue) * shape->jitter);
    return due;
}

// Lock held. Takes FRAME over.
static void enqueue(struct nic *nic, struct nic_queue *queue, struct nic_frame *frame)
{
    bool room = nic->link && queue->frames < QUEUE_FRAMES && queue->bytes < QUEUE_BYTES;
    frame->due = room ? shaped(nic, queue, frame->length) : -1; // what never gets onto the line takes none of its time
    if (frame->due < 0) {
        nic->dropped++;
        g_free(frame);
        return;
    }
    frame->next = NULL;
    *queue->last = frame;
    queue->last = &frame->next;
    queue->frames++;
    queue->bytes += frame->length;
}

// Lock held. The first frame if its time has come; else lowers *TIMEOUT to the milliseconds until then.
static struct nic_frame *dequeue(struct nic *nic, struct nic_queue *queue, int *timeout)
{
    struct nic_frame *frame = queue->first;
    if (!frame)
        return NULL;
    int64_t wait = frame->due - clock_now(nic->machine->clock);
    if (wait > 0) {
        *timeout = MIN((uint64_t)*timeout & INT32_MAX, (uint64_t)MIN((wait + MILLISECOND - 1) / MILLISECOND, 1000));
        return NULL;
    }
    queue->first = frame->next;
    if (!queue->first)
        queue->last = &queue->first;
    queue->frames--;
    queue->bytes -= frame->length;
    return frame;
}

// Lock held.
static void put_back(struct nic_queue *queue, struct nic_frame *frame)
{
    frame->next = queue->first;
    if (!queue->first)
        queue->last = &frame->next;
    queue->first = frame;
    queue->frames++;
    queue->bytes += frame->length;
}

static void wake(struct nic *nic)
{
    if (atomic_exchange(&nic->awake, true))
        return;
    uint64_t one = 1;
    if (write(nic->wake, &one, sizeof one) < 0 && errno != EAGAIN)
        log_error("net", "%s: the network's thread cannot be woken: %s", nic->id, g_strerror(errno));
}

// The network's thread looks at queues and back end once more before it sleeps.
static void look_again(struct nic *nic)
{
    if (g_thread_self() == nic->thread)
        atomic_store(&nic->awake, true);
    else
        wake(nic);
}

static struct nic_frame *frame_new(size_t length)
{
    struct nic_frame *frame = g_malloc(sizeof *frame + MAX(length, NIC_FRAME_MIN));
    frame->length = length;
    return frame;
}

static void capture(struct nic *nic, bool from_guest, const uint8_t *data, size_t length)
{
    if (nic->capture)
        capture_frame(nic->capture, clock_wall(nic->machine->clock), from_guest, data, length);
}

// ---- The straight way: no thread in between ----------------------------------------------------------------------
//
// Waking another thread takes longer than most frames do. Whoever has a frame carries it over by himself where nothing
// is in its way: no shape of the cable, no frame before it, and every lock free. No lock is ever waited for here (a
// vCPU's thread may not, and the holder may be waiting for us); otherwise the frame is queued for the network's thread.

// Lock held.
static bool shapeless(const struct nic *nic)
{
    return !nic->shape.rate && !nic->shape.delay && !nic->shape.jitter && !nic->shape.loss;
}

static void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static bool client_trylock(struct nic *nic)
{
    if (nic->client->lockless)
        return true;
    for (unsigned tries = 0; tries < LOCK_TRIES; tries++) {
        if (g_rec_mutex_trylock(&nic->machine->lock))
            return true;
        relax();
    }
    return false;
}

static void client_unlock(struct nic *nic)
{
    if (!nic->client->lockless)
        g_rec_mutex_unlock(&nic->machine->lock);
}

// Deliver lock and the client's held. False: it was not even tried.
static bool receive_straight_locked(struct nic *nic, const uint8_t *data, size_t length)
{
    g_mutex_lock(&nic->lock);
    bool possible = nic->running && nic->link && !nic->stalled && !nic->to_guest.first && shapeless(nic);
    nic->stalled |= possible; // unless it is taken; nic_resume() meanwhile clears it
    g_mutex_unlock(&nic->lock);
    if (!possible)
        return false;
    bool taken = nic->client->receive(nic->client_opaque, data, length);
    g_mutex_lock(&nic->lock);
    if (taken) {
        nic->stalled = false;
        nic->received++;
        nic->received_bytes += length;
        capture(nic, false, data, length);
    }
    g_mutex_unlock(&nic->lock);
    return taken;
}

static bool receive_straight(struct nic *nic, const uint8_t *data, size_t length)
{
    bool done = false;
    if (!nic->client || !client_trylock(nic))
        return false;
    if (g_mutex_trylock(&nic->deliver_lock)) {
        done = receive_straight_locked(nic, data, length);
        g_mutex_unlock(&nic->deliver_lock);
    }
    client_unlock(nic);
    return done;
}

void nic_receive(struct nic *nic, const uint8_t *data, size_t length)
{
    uint8_t padded[NIC_FRAME_MIN] = {0};
    if (length < NIC_HEADER || length > NIC_FRAME_MAX)
        return;
    if (length < NIC_FRAME_MIN) {
        memcpy(padded, data, length);
        data = padded;
        length = NIC_FRAME_MIN;
    }
    if (receive_straight(nic, data, length))
        return;
    struct nic_frame *frame = frame_new(length);
    memcpy(frame->data, data, length);
    g_mutex_lock(&nic->lock);
    enqueue(nic, &nic->to_guest, frame);
    g_mutex_unlock(&nic->lock);
    look_again(nic);
}

bool nic_guest_takes_large(struct nic *nic)
{
    g_mutex_lock(&nic->lock);
    bool large = shapeless(nic) && nic->client && nic->client->takes_large;
    g_mutex_unlock(&nic->lock);
    return large && nic->client->takes_large(nic->client_opaque);
}

// One frame in one piece; GATHERED is NIC_FRAME_MAX bytes.
static const uint8_t *flatten(const struct iovec *iov, unsigned count, uint8_t *gathered)
{
    if (count == 1)
        return iov->iov_base;
    size_t at = 0;
    for (unsigned i = 0; i < count; i++) {
        memcpy(gathered + at, iov[i].iov_base, iov[i].iov_len);
        at += iov[i].iov_len;
    }
    return gathered;
}

// Lock held. The frame leaves the card.
static void note_sent(struct nic *nic, const uint8_t *data, size_t length)
{
    nic->sent++;
    nic->sent_bytes += length;
    nic_addresses_note(&nic->addresses, data, length);
    capture(nic, true, data, length);
}

static bool send_straight(struct nic *nic, const struct iovec *iov, unsigned count, size_t length)
{
    if (!g_mutex_trylock(&nic->backend_lock))
        return false;
    g_mutex_lock(&nic->lock);
    bool possible = nic->running && nic->link && !nic->to_network.first && shapeless(nic);
    g_mutex_unlock(&nic->lock);
    if (possible) {
        const uint8_t *data = flatten(iov, count, nic->gathered);
        g_mutex_lock(&nic->lock);
        note_sent(nic, data, length);
        g_mutex_unlock(&nic->lock);
        nic->backend->send(nic, data, length);
        atomic_store(&nic->unsettled, true);
    }
    g_mutex_unlock(&nic->backend_lock);
    return possible;
}

void nic_send(struct nic *nic, const struct iovec *iov, unsigned count)
{
    size_t length = 0;
    for (unsigned i = 0; i < count; i++)
        length += iov[i].iov_len;
    if (length < NIC_HEADER || length > NIC_FRAME_MAX || send_straight(nic, iov, count, length))
        return;
    struct nic_frame *frame = frame_new(length);
    const uint8_t *data = flatten(iov, count, frame->data);
    if (data != frame->data)
        memcpy(frame->data, data, length);
    g_mutex_lock(&nic->lock);
    note_sent(nic, frame->data, length);
    enqueue(nic, &nic->to_network, frame);
    g_mutex_unlock(&nic->lock);
    wake(nic);
}

static bool same_descriptors(const GArray *a, const GArray *b)
{
    if (a->len != b->len)
        return false;
    for (unsigned i = 0; i < a->len; i++) {
        const struct pollfd *left = &g_array_index(a, struct pollfd, i), *right = &g_array_index(b, struct pollfd, i);
        if (left->fd != right->fd || left->events != right->events)
            return false;
    }
    return true;
}

static void new_list(struct nic *nic, GArray *descriptors)
{
    struct pollfd own = {.fd = nic->wake, .events = POLLIN};
    g_array_set_size(descriptors, 0);
    g_array_append_val(descriptors, own);
}

void nic_settle(struct nic *nic)
{
    if (!atomic_load(&nic->unsettled) || !g_mutex_trylock(&nic->backend_lock))
        return; // whoever holds the lock has a look afterwards
    int timeout = POLL_MAX;
    atomic_store(&nic->unsettled, false);
    new_list(nic, nic->wanted);
    nic->backend->prepare(nic, nic->wanted, &timeout);
    bool other = !same_descriptors(nic->wanted, nic->polled);
    nic->stale |= other;
    if (other || g_get_monotonic_time() + timeout * 1000ll < nic->poll_end)
        wake(nic);
    g_mutex_unlock(&nic->backend_lock);
}

void nic_resume(struct nic *nic)
{
    g_mutex_lock(&nic->lock);
    bool stalled = nic->stalled;
    nic->stalled = false;
    g_mutex_unlock(&nic->lock);
    if (stalled)
        wake(nic);
}

void nic_count_dropped(struct nic *nic)
{
    g_mutex_lock(&nic->lock);
    nic->dropped++;
    g_mutex_unlock(&nic->lock);
}

bool nic_has_room(struct nic *nic)
{
    g_mutex_lock(&nic->lock);
    bool room = nic->to_guest.frames < QUEUE_ROOM;
    g_mutex_unlock(&nic->lock);
    return room;
}

// ---- The network's thread ---------------------------------------------------------------------------------------

// Backend lock held.
static void send_queued(struct nic *nic, int *timeout)
{
    for (;;) {
        g_mutex_lock(&nic->lock);
        struct nic_frame *frame = nic->running ? dequeue(nic, &nic->to_network, timeout) : NULL;
        g_mutex_unlock(&nic->lock);
        if (!frame)
            return;
        nic->backend->send(nic, frame->data, frame->length);
        g_free(frame);
    }
}

// Deliver lock held, and the client's.
static void receive_queued_locked(struct nic *nic, int *timeout)
{
    while (!nic->quit) {
        g_mutex_lock(&nic->lock);
        bool possible = nic->client && nic->running && !nic->stalled;
        struct nic_frame *frame = possible ? dequeue(nic, &nic->to_guest, timeout) : NULL;
        nic->stalled |= frame != NULL; // unless it is taken; nic_resume() meanwhile clears it
        g_mutex_unlock(&nic->lock);
        if (!frame)
            return;
        bool taken = nic->client->receive(nic->client_opaque, frame->data, frame->length);
        g_mutex_lock(&nic->lock);
        if (taken) {
            nic->stalled = false;
            nic->received++;
            nic->received_bytes += frame->length;
            capture(nic, false, frame->data, frame->length);
        } else {
            put_back(&nic->to_guest, frame);
        }
        bool room = taken && nic->to_guest.frames == QUEUE_ROOM - 1; // the network is read again
        g_mutex_unlock(&nic->lock);
        if (room)
            look_again(nic);
        if (taken)
            g_free(frame);
    }
}

static void receive_queued(struct nic *nic, int *timeout)
{
    if (g_mutex_trylock(&nic->deliver_lock)) {
        receive_queued_locked(nic, timeout);
        g_mutex_unlock(&nic->deliver_lock);
    } else {
        *timeout = 0; // somebody carries a frame over at this moment
    }
}

static void receive_deferred(void *opaque)
{
    struct nic *nic = opaque;
    int timeout = 1000;
    nic->deferred = false;
    receive_queued(nic, &timeout);
    wake(nic); // for frames whose time has not come
}

// The thread may not wait for the machine lock, whose holder may wait for the thread: if it is taken, the main loop
// delivers.
static void receive_on_thread(struct nic *nic, int *timeout)
{
    if (!nic->client || nic->client->lockless) {
        receive_queued(nic, timeout);
    } else if (!nic->to_guest.first) {
        return;
    } else if (client_trylock(nic)) {
        receive_queued(nic, timeout);
        client_unlock(nic);
    } else if (nic->to_guest.first && !atomic_exchange(&nic->deferred, true)) {
        machine_defer(nic->machine, receive_deferred, nic);
    }
}

static void drain_wake(struct nic *nic)
{
    uint64_t count;
    while (read(nic->wake, &count, sizeof count) > 0)
        ;
}

static void *nic_thread(void *opaque)
{
    struct nic *nic = opaque;
    while (!nic->quit) {
        int timeout = POLL_MAX;
        atomic_store(&nic->awake, false);
        atomic_store(&nic->unsettled, false);
        g_mutex_lock(&nic->backend_lock);
        send_queued(nic, &timeout);
        new_list(nic, nic->polled);
        nic->backend->prepare(nic, nic->polled, &timeout);
        nic->poll_end = g_get_monotonic_time() + timeout * 1000ll;
        nic->stale = false;
        g_mutex_unlock(&nic->backend_lock);
        receive_on_thread(nic, &timeout);
        if (atomic_load(&nic->awake))
            timeout = 0;
        struct pollfd *polled = (struct pollfd *)nic->polled->data;
        poll(polled, nic->polled->len, timeout);
        if (polled->revents)
            drain_wake(nic);
        g_mutex_lock(&nic->backend_lock);
        nic->poll_end = 0;
        nic->backend->dispatch(nic, nic->stale ? NULL : nic->polled, 1);
        g_mutex_unlock(&nic->backend_lock);
    }
    return NULL;
}

// Machine lock held. While the machine stands still nothing moves.
static void machine_changed(void *opaque, struct machine *machine, enum machine_event event, const char *text)
{
    struct nic *nic = opaque;
    if (event != MACHINE_EVENT_STATE)
        return;
    g_mutex_lock(&nic->deliver_lock);
    g_mutex_lock(&nic->lock);
    nic->running = machine->state == RUN_STATE_RUNNING;
    nic->stalled = false;
    g_mutex_unlock(&nic->lock);
    g_mutex_unlock(&nic->deliver_lock);
    wake(nic);
}

// ---- The back end -----------------------------------------------------------------------------------------------

static bool open_backend(struct nic *nic, const char *text, GError **error)
{
    g_autofree char *name = g_strdup(text && *text ? text : "user");
    char *argument = strchr(name, ':');
    if (argument)
        *argument++ = '\0';
    for (unsigned i = 0; nic_backends[i]; i++) {
        if (strcmp(nic_backends[i]->name, name))
            continue;
        if (!nic_backends[i]->open(nic, argument ? argument : "", error))
            return false;
        nic->backend = nic_backends[i];
        return true;
    }
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                "%s: there is no network \"%s\": give user, team:NAME, tap:NAME or none.", nic->id, text);
    return false;
}

// ---- Life -------------------------------------------------------------------------------------------------------

struct nic *nic_new(struct machine *machine, const char *id, const char *backend, const char *mac, const char *forwards,
                    const char *settings, GError **error)
{
    struct nic *nic = g_new0(struct nic, 1);
    nic->machine = machine;
    nic->id = g_strdup(id);
    nic->link = true;
    nic->running = machine->state == RUN_STATE_RUNNING;
    nic->forwards = g_ptr_array_new_with_free_func(g_free);
    nic->settings = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    nic->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    nic->polled = g_array_new(false, true, sizeof(struct pollfd));
    nic->wanted = g_array_new(false, true, sizeof(struct pollfd));
    nic->gathered = g_malloc(NIC_FRAME_MAX);
    queue_init(&nic->to_guest);
    queue_init(&nic->to_network);
    nic_seed(nic, (uint64_t)g_random_int() << 32 | g_random_int());
    g_mutex_init(&nic->lock);
    g_mutex_init(&nic->backend_lock);
    g_mutex_init(&nic->deliver_lock);
    struct nic **end = &machine->nics;
    while (*end)
        end = &(*end)->next;
    *end = nic;
    machine_add_listener(machine, machine_changed, nic);
    bool done =
        nic_parse_mac(nic, mac, error) && nic_take_settings(nic, settings, error) && open_backend(nic, backend, error);
    g_auto(GStrv) each = g_strsplit(forwards ? forwards : "", " ", -1);
    for (char **forward = each; *forward && done; forward++)
        done = !**forward || nic_add_forward(nic, *forward, error);
    if (!done) {
        nic_free(nic);
        return NULL;
    }
    nic->thread = g_thread_new("net", nic_thread, nic);
    return nic;
}

static void stop_thread(struct nic *nic)
{
    nic->quit = true;
    nic->awake = false;
    g_mutex_lock(&nic->lock);
    nic->running = false;
    g_mutex_unlock(&nic->lock);
    wake(nic);
    g_thread_join(nic->thread);
}

void nic_free(struct nic *nic)
{
    if (!nic)
        return;
    struct machine *machine = nic->machine;
    for (struct nic **at = &machine->nics; *at; at = &(*at)->next) {
        if (*at == nic) {
            *at = nic->next;
            break;
        }
    }
    machine_remove_listener(machine, machine_changed, nic);
    if (nic->thread)
        stop_thread(nic);
    if (nic->backend)
        nic->backend->close(nic);
    queue_clear(&nic->to_guest);
    queue_clear(&nic->to_network);
    capture_close(nic->capture);
    g_free(nic->capture_file);
    close(nic->wake);
    g_array_unref(nic->polled);
    g_array_unref(nic->wanted);
    g_free(nic->gathered);
    g_hash_table_unref(nic->settings);
    g_ptr_array_unref(nic->forwards);
    g_mutex_clear(&nic->lock);
    g_mutex_clear(&nic->backend_lock);
    g_mutex_clear(&nic->deliver_lock);
    g_free(nic->id);
    g_free(nic);
}

struct nic *nic_find(struct machine *machine, const char *id)
{
    for (struct nic *nic = machine->nics; nic; nic = nic->next)
        if (!g_strcmp0(nic->id, id))
            return nic;
    return NULL;
}

void nic_set_client(struct nic *nic, const struct nic_client *client, void *opaque)
{
    g_mutex_lock(&nic->lock);
    nic->client_opaque = opaque;
    nic->client = client;
    g_mutex_unlock(&nic->lock);
    wake(nic);
}

// ---- For people and programs ------------------------------------------------------------------------------------

void nic_set_link(struct nic *nic, bool up)
{
    g_mutex_lock(&nic->lock);
    bool changed = nic->link != up;
    nic->link = up;
    if (!up) {
        queue_clear(&nic->to_guest);
        queue_clear(&nic->to_network);
    }
    g_mutex_unlock(&nic->lock);
    if (changed && nic->client && nic->client->link_changed)
        nic->client->link_changed(nic->client_opaque, up);
}

static bool find_forward(struct nic *nic, const char *forward, guint *index)
{
    return g_ptr_array_find_with_equal_func(nic->forwards, forward, g_str_equal, index);
}

bool nic_add_forward(struct nic *nic, const char *forward, GError **error)
{
    if (!nic->backend->add_forward) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_UNSUPPORTED,
                    "%s: the network \"%s\" has no port forwards; \"user\" has.", nic->id, nic->backend->name);
        return false;
    }
    if (find_forward(nic, forward, NULL)) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_EXISTS, "%s: %s is forwarded already.", nic->id, forward);
        return false;
    }
    g_mutex_lock(&nic->backend_lock);
    bool done = nic->backend->add_forward(nic, forward, error);
    g_mutex_unlock(&nic->backend_lock);
    if (done)
        g_ptr_array_add(nic->forwards, g_strdup(forward));
    wake(nic);
    return done;
}

bool nic_remove_forward(struct nic *nic, const char *forward, GError **error)
{
    guint index;
    if (!find_forward(nic, forward, &index)) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_NOT_FOUND, "%s: %s is not forwarded.", nic->id, forward);
        return false;
    }
    g_mutex_lock(&nic->backend_lock);
    bool done = nic->backend->remove_forward(nic, forward, error);
    g_mutex_unlock(&nic->backend_lock);
    if (done)
        g_ptr_array_remove_index(nic->forwards, index);
    wake(nic);
    return done;
}

bool nic_capture_start(struct nic *nic, const char *file, GError **error)
{
    struct nic_capture *opened = capture_open(file, nic->id, error);
    if (!opened)
        return false;
    g_mutex_lock(&nic->lock);
    struct nic_capture *old = nic->capture;
    nic->capture = opened;
    g_free(nic->capture_file);
    nic->capture_file = g_strdup(file);
    g_mutex_unlock(&nic->lock);
    capture_close(old);
    return true;
}

void nic_capture_stop(struct nic *nic)
{
    g_mutex_lock(&nic->lock);
    struct nic_capture *old = nic->capture;
    nic->capture = NULL;
    g_clear_pointer(&nic->capture_file, g_free);
    g_mutex_unlock(&nic->lock);
    capture_close(old);
}

char **nic_address_texts(struct nic *nic)
{
    g_mutex_lock(&nic->lock);
    struct nic_addresses now = nic->addresses;
    g_mutex_unlock(&nic->lock);
    return nic_addresses_text(&now);
}

char *nic_capture_path(struct nic *nic)
{
    g_mutex_lock(&nic->lock);
    char *path = g_strdup(nic->capture_file);
    g_mutex_unlock(&nic->lock);
    return path;
}
