// SPDX-License-Identifier: GPL-2.0-or-later
// The machine's life: creation, run states, requests, deferred work, listeners.
#include "core/machine/machine.h"
#include "core/machine/pci.h"

#include <string.h>

// Address space beside main memory for video memory, option ROMs and firmware: sparse, costs nothing until touched.
#define EXTRA_RAM   (512 * MiB)
#define BELOW_4G    (3 * GiB)
#define MEMORY_BITS 40
#define PORTS       0x10000

struct listener {
    machine_listener *fn;
    void *opaque;
};

struct deferred {
    void (*fn)(void *opaque);
    void *opaque;
};

// Everything here is under QUEUE_LOCK but the regions, which belong to the machine lock.
struct machine_private {
    struct region low, high;
    GMutex queue_lock;
    GQueue queue;     // struct deferred *
    GSource *wake;    // runs QUEUE
    GSource *request; // serves what is wanted:
    bool reset_wanted, end_wanted;
    enum run_state end_state;
    char *end_reason;
    int end_status;
};

// ---- Lock ----
void machine_lock(struct machine *machine)
{
    io_lock_take(&machine->lock);
}

void machine_unlock(struct machine *machine)
{
    io_lock_release(&machine->lock);
}

// ---- Creation ----
static void map_ram(struct machine *machine)
{
    struct machine_private *p = machine->private;
    machine->ram_below_4g = MIN(machine->ram_size, BELOW_4G);
    machine->ram_offset = ram_alloc(machine->ram, machine->ram_size);
    region_init_ram(&p->low, "ram", machine->ram_offset, machine->ram_below_4g);
    address_space_map(machine->memory, &p->low, 0, 0);
    if (machine->ram_size > machine->ram_below_4g) {
        region_init_ram(&p->high, "ram", machine->ram_offset + machine->ram_below_4g,
                        machine->ram_size - machine->ram_below_4g);
        address_space_map(machine->memory, &p->high, 4 * GiB, 0);
    }
}

struct machine *machine_create(uint64_t ram_size, struct clock *clock, GError **error)
{
    struct ram *ram = ram_new(ram_size + EXTRA_RAM, error);
    if (!ram) {
        clock_free(clock);
        return NULL;
    }
    struct machine *machine = g_new0(struct machine, 1);
    struct machine_private *p = machine->private = g_new0(struct machine_private, 1);
    g_rec_mutex_init(&machine->lock);
    g_mutex_init(&p->queue_lock);
    g_queue_init(&p->queue);
    machine->context = g_main_context_ref_thread_default();
    machine->clock = clock ? clock : clock_new(&machine->lock);
    machine->ram = ram;
    machine->ram_size = ram_size;
    machine->memory = address_space_new("memory", ram, BIT(MEMORY_BITS), &machine->lock);
    machine->ports = address_space_new("ports", NULL, PORTS, &machine->lock);
    machine->a20 = true;
    map_ram(machine);
    machine->pci = pci_bus_new(machine);
    return machine;
}

static void drop_requests(struct machine *machine)
{
    struct machine_private *p = machine->private;
    g_mutex_lock(&p->queue_lock);
    GSource **sources[] = {&p->wake, &p->request};
    for (unsigned i = 0; i < G_N_ELEMENTS(sources); i++)
        if (*sources[i]) {
            g_source_destroy(*sources[i]);
            g_clear_pointer(sources[i], g_source_unref);
        }
    g_queue_clear_full(&p->queue, g_free);
    g_mutex_unlock(&p->queue_lock);
}

static void free_devices(struct machine *machine)
{
    while (machine->devices) {
        struct device *last = machine->devices;
        while (last->next)
            last = last->next;
        device_free(last);
    }
}

void machine_destroy(struct machine *machine)
{
    if (!machine)
        return;
    struct machine_private *p = machine->private;
    cpu_set_free(machine->cpus);
    machine->cpus = NULL;
    clock_stop(machine->clock);
    // Nobody reads the maps any more: they are not made anew for each device that goes, from regions that are gone.
    address_space_begin(machine->memory);
    address_space_begin(machine->ports);
    free_devices(machine);
    drop_requests(machine);
    pci_bus_free(machine->pci);
    clock_free(machine->clock);
    address_space_free(machine->memory);
    address_space_free(machine->ports);
    ram_free(machine->ram);
    g_list_free_full(machine->listeners, g_free);
    g_main_context_unref(machine->context);
    g_free(machine->stop_reason);
    g_free(p->end_reason);
    g_mutex_clear(&p->queue_lock);
    g_rec_mutex_clear(&machine->lock);
    g_free(p);
    g_free(machine);
}

// ---- Listeners ----
void machine_add_listener(struct machine *machine, machine_listener *listener, void *opaque)
{
    machine_lock(machine);
    struct listener *new = g_new0(struct listener, 1);
    *new = (struct listener){listener, opaque};
    machine->listeners = g_list_append(machine->listeners, new);
    machine_unlock(machine);
}

void machine_remove_listener(struct machine *machine, machine_listener *listener, void *opaque)
{
    machine_lock(machine);
    for (GList *l = machine->listeners; l; l = l->next) {
        struct listener *each = l->data;
        if (each->fn == listener && each->opaque == opaque) {
            machine->listeners = g_list_delete_link(machine->listeners, l);
            g_free(each);
            break;
        }
    }
    machine_unlock(machine);
}

void machine_notify(struct machine *machine, enum machine_event event, const char *text)
{
    machine_lock(machine);
    for (GList *l = machine->listeners, *next; l; l = next) {
        next = l->next; // a listener may remove itself
        struct listener *each = l->data;
        each->fn(each->opaque, machine, event, text);
    }
    machine_unlock(machine);
}

static void enter_state(struct machine *machine, enum run_state state, const char *reason)
{
    machine_lock(machine);
    machine->state = state;
    g_free(machine->stop_reason);
    machine->stop_reason = g_strdup(reason);
    machine_notify(machine, MACHINE_EVENT_STATE, run_state_name(state));
    machine_unlock(machine);
}

// ---- Deferred work ----
static gboolean run_deferred(gpointer data)
{
    struct machine *machine = data;
    struct machine_private *p = machine->private;
    for (;;) {
        g_mutex_lock(&p->queue_lock);
        struct deferred *work = g_queue_pop_head(&p->queue);
        if (!work) {
            g_source_unref(p->wake);
            p->wake = NULL;
        }
        g_mutex_unlock(&p->queue_lock);
        if (!work)
            return G_SOURCE_REMOVE;
        machine_lock(machine);
        work->fn(work->opaque);
        machine_unlock(machine);
        g_free(work);
    }
}

void machine_defer(struct machine *machine, void (*fn)(void *opaque), void *opaque)
{
    struct machine_private *p = machine->private;
    struct deferred *work = g_new0(struct deferred, 1);
    *work = (struct deferred){fn, opaque};
    g_mutex_lock(&p->queue_lock);
    g_queue_push_tail(&p->queue, work);
    if (!p->wake) {
        p->wake = g_idle_source_new();
        g_source_set_priority(p->wake, G_PRIORITY_HIGH);
        g_source_set_callback(p->wake, run_deferred, machine, NULL);
        g_source_attach(p->wake, machine->context);
    }
    g_mutex_unlock(&p->queue_lock);
}

// The same without the machine lock, for work that parks the processors.
static gboolean serve_requests(gpointer data);

// Queue lock held.
static void wake_requests(struct machine *machine)
{
    struct machine_private *p = machine->private;
    if (p->request)
        return;
    p->request = g_idle_source_new();
    g_source_set_priority(p->request, G_PRIORITY_HIGH);
    g_source_set_callback(p->request, serve_requests, machine, NULL);
    g_source_attach(p->request, machine->context);
}

// ---- Running and stopping ----
static void resume_processors(struct machine *machine)
{
    clock_start(machine->clock);
    if (machine->cpus)
        cpu_set_resume(machine->cpus);
}

static void park_processors(struct machine *machine)
{
    if (machine->cpus)
        cpu_set_pause(machine->cpus);
    clock_stop(machine->clock);
}

bool machine_start(struct machine *machine, GError **error)
{
    enum machine_request request =
        machine->state == RUN_STATE_PRELAUNCH ? MACHINE_REQUEST_START : MACHINE_REQUEST_RESUME;
    if (!machine_request_legal(machine, request, error))
        return false;
    enter_state(machine, RUN_STATE_RUNNING, NULL);
    resume_processors(machine);
    return true;
}

bool machine_pause(struct machine *machine, enum run_state why, const char *reason, GError **error)
{
    if (!machine_request_legal(machine, MACHINE_REQUEST_PAUSE, error))
        return false;
    park_processors(machine);
    enter_state(machine, why, reason);
    return true;
}

void machine_reset_devices(struct machine *machine)
{
    machine_lock(machine);
    pci_bus_reset(machine->pci);
    if (machine->cpus)
        cpu_set_reset(machine->cpus);
    for (struct device *device = machine->devices; device; device = device->next)
        if (device->class->reset)
            device->class->reset(device);
    machine_unlock(machine);
}

static void reset_now(struct machine *machine, const char *by)
{
    bool running = machine->state == RUN_STATE_RUNNING;
    if (running)
        park_processors(machine);
    machine_reset_devices(machine);
    machine_notify(machine, MACHINE_EVENT_RESET, by);
    if (running)
        resume_processors(machine);
    else if (machine->state != RUN_STATE_PRELAUNCH)
        enter_state(machine, RUN_STATE_PAUSED, NULL);
}

bool machine_reset(struct machine *machine, GError **error)
{
    if (!machine_request_legal(machine, MACHINE_REQUEST_RESET, error))
        return false;
    reset_now(machine, "host");
    return true;
}

bool machine_power_button(struct machine *machine, GError **error)
{
    if (!machine_request_legal(machine, MACHINE_REQUEST_POWER_BUTTON, error))
        return false;
    machine_notify(machine, MACHINE_EVENT_POWERDOWN, NULL);
    return true;
}

static void end_run(struct machine *machine, enum run_state state, const char *reason, int status)
{
    if (machine->state == RUN_STATE_SHUTDOWN)
        return;
    if (machine->state == RUN_STATE_RUNNING)
        park_processors(machine);
    machine->exit_status = status;
    enter_state(machine, state, reason);
    if (state == RUN_STATE_SHUTDOWN)
        machine_notify(machine, MACHINE_EVENT_SHUTDOWN, reason);
}

void machine_quit(struct machine *machine, const char *reason)
{
    end_run(machine, RUN_STATE_SHUTDOWN, reason, 0);
}

// ---- Requests from devices and vCPUs ----
static gboolean serve_requests(gpointer data)
{
    struct machine *machine = data;
    struct machine_private *p = machine->private;
    g_mutex_lock(&p->queue_lock);
    bool reset = p->reset_wanted, end = p->end_wanted;
    enum run_state state = p->end_state;
    int status = p->end_status;
    g_autofree char *reason = g_steal_pointer(&p->end_reason);
    p->reset_wanted = p->end_wanted = false;
    g_clear_pointer(&p->request, g_source_unref);
    g_mutex_unlock(&p->queue_lock);
    if (end)
        end_run(machine, state, reason, status);
    else if (reset && machine->state == RUN_STATE_RUNNING) {
        if (machine->no_reboot)
            end_run(machine, RUN_STATE_SHUTDOWN, "guest-reset", 0);
        else
            reset_now(machine, "guest");
    }
    return G_SOURCE_REMOVE;
}

void machine_request_reset(struct machine *machine)
{
    struct machine_private *p = machine->private;
    g_mutex_lock(&p->queue_lock);
    p->reset_wanted = true;
    wake_requests(machine);
    g_mutex_unlock(&p->queue_lock);
}

static void request_end(struct machine *machine, enum run_state state, const char *reason, int status)
{
    struct machine_private *p = machine->private;
    g_mutex_lock(&p->queue_lock);
    if (!p->end_wanted) {
        p->end_wanted = true;
        p->end_state = state;
        p->end_reason = g_strdup(reason);
        p->end_status = status;
    }
    wake_requests(machine);
    g_mutex_unlock(&p->queue_lock);
}

void machine_request_shutdown(struct machine *machine, const char *reason)
{
    request_end(machine, RUN_STATE_SHUTDOWN, reason, 0);
}

void machine_request_exit(struct machine *machine, const char *reason, int status)
{
    request_end(machine, RUN_STATE_SHUTDOWN, reason, status);
}

void machine_request_stop(struct machine *machine, enum run_state state, const char *reason)
{
    request_end(machine, state, reason, 0);
}

// ---- Others ----
bool machine_state_loaded(struct machine *machine, GError **error)
{
    machine_lock(machine);
    pci_bus_loaded(machine->pci);
    bool done = true;
    for (struct device *device = machine->devices; device && done; device = device->next)
        if (device->class->loaded)
            done = device->class->loaded(device, error);
    machine_unlock(machine);
    return done;
}

void machine_set_a20(struct machine *machine, bool open)
{
    machine->a20 = open;
    address_space_set_fold(machine->memory, !open);
}
