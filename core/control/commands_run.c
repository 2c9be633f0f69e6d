// SPDX-License-Identifier: GPL-2.0-or-later
// Run state, power, processors, memory, counters.
#include "core/control/hold.h"
#include "core/control/jobs.h"
#include "core/control/server.h"
#include "core/machine/drive.h"

#include <inttypes.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static JsonNode *query_status(struct qmp_call *call, GError **error)
{
    struct machine *machine = call_machine(call);
    JsonObject *status = json_object_new();
    json_object_set_boolean_member(status, "running", machine->state == RUN_STATE_RUNNING);
    json_object_set_boolean_member(status, "singlestep", FALSE);
    json_object_set_string_member(status, "status", run_state_name(machine->state));
    if (machine->stop_reason)
        json_object_set_string_member(status, "x-cloche-reason", machine->stop_reason);
    return qmp_node_object(status);
}

static JsonNode *do_stop(struct qmp_call *call, GError **error)
{
    struct machine *machine = call_machine(call);
    if (machine->state == RUN_STATE_PAUSED)
        return NULL; // as the schema has it: stopping twice is no error
    machine_pause(machine, RUN_STATE_PAUSED, NULL, error);
    return NULL;
}

static JsonNode *do_cont(struct qmp_call *call, GError **error)
{
    struct machine *machine = call_machine(call);
    if (machine->state != RUN_STATE_RUNNING)
        machine_start(machine, error);
    return NULL;
}

static JsonNode *do_reset(struct qmp_call *call, GError **error)
{
    machine_reset(call_machine(call), error);
    return NULL;
}

static JsonNode *do_powerdown(struct qmp_call *call, GError **error)
{
    machine_power_button(call_machine(call), error);
    return NULL;
}

static void quit_now(void *opaque)
{
    struct machine *machine = opaque;
    machine_request_shutdown(machine, "host-qmp-quit");
}

static JsonNode *do_quit(struct qmp_call *call, GError **error)
{
    machine_defer(call_machine(call), quit_now, call_machine(call)); // the reply leaves first
    return NULL;
}

// Suspends to disk and ends the process. What holds it up (writing the memory) is over when the reply comes.
static JsonNode *do_suspend(struct qmp_call *call, GError **error)
{
    struct control_server *server = call_server(call);
    if (!server->hold)
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_UNSUPPORTED,
                    "Only a defined machine can be saved; this one was started by hand");
    else if (control_jobs_busy(server->jobs))
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_BUSY,
                    "A job works on this machine (query-jobs shows it); wait until it is done, or cancel it");
    else if (machine_hold_suspend(server->hold, server->machine, error))
        machine_defer(server->machine, quit_now, server->machine);
    return NULL;
}

static JsonNode *do_nmi(struct qmp_call *call, GError **error)
{
    struct machine *machine = call_machine(call);
    for (unsigned i = 0; machine->cpus && i < machine->cpus->count; i++)
        vcpu_raise(machine->cpus->vcpu[i], ATTENTION_NMI);
    return NULL;
}

static JsonNode *query_cpus(struct qmp_call *call, GError **error)
{
    struct machine *machine = call_machine(call);
    JsonArray *list = json_array_new();
    for (unsigned i = 0; machine->cpus && i < machine->cpus->count; i++) {
        JsonObject *cpu = json_object_new(), *props = json_object_new();
        g_autofree char *path = g_strdup_printf("/machine/cpu[%u]", i);
        json_object_set_int_member(props, "socket-id", 0);
        json_object_set_int_member(props, "core-id", i);
        json_object_set_int_member(props, "thread-id", 0);
        json_object_set_int_member(cpu, "cpu-index", i);
        json_object_set_string_member(cpu, "qom-path", path);
        json_object_set_int_member(cpu, "thread-id", vcpu_thread_id(machine->cpus->vcpu[i]));
        json_object_set_object_member(cpu, "props", props);
        json_object_set_string_member(cpu, "target", "x86_64");
        json_array_add_object_element(list, cpu);
    }
    return qmp_node_array(list);
}

static JsonNode *query_memory(struct qmp_call *call, GError **error)
{
    JsonObject *summary = json_object_new();
    json_object_set_int_member(summary, "base-memory", call_machine(call)->ram_size);
    json_object_set_int_member(summary, "plugged-memory", 0);
    return qmp_node_object(summary);
}

// Bytes of this process that are in memory (/proc/self/statm, second field: pages, once for each mapping).
static uint64_t resident_bytes(struct cpu_set *cpus)
{
    uint64_t all = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (file && fscanf(file, "%" SCNu64 " %" SCNu64, &all, &resident) != 2)
        resident = 0;
    if (file)
        fclose(file);
    resident *= sysconf(_SC_PAGESIZE);
    uint64_t twice = cpus && cpus->engine_ready && cpus->engine->mapped_twice ? cpus->engine->mapped_twice(cpus) : 0;
    return resident - MIN(twice, resident);
}

static JsonObject *vcpu_counters(const struct vcpu *vcpu)
{
    JsonObject *counters = json_object_new();
    json_object_set_int_member(counters, "instructions", vcpu->instructions);
    json_object_set_int_member(counters, "exceptions", vcpu->exceptions);
    json_object_set_int_member(counters, "interrupts", vcpu->interrupts);
    json_object_set_int_member(counters, "page-walks", vcpu->page_walks);
    json_object_set_int_member(counters, "tlb-misses", vcpu->tlb_misses);
    json_object_set_int_member(counters, "io-exits", vcpu->io_exits);
    return counters;
}

// Ever-growing counters; a graph takes differences.
static JsonNode *query_stats(struct qmp_call *call, GError **error)
{
    struct machine *machine = call_machine(call);
    struct timespec used;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    uint64_t read_bytes = 0, written_bytes = 0, operations = 0;
    for (struct drive *drive = machine->drives; drive; drive = drive->next) {
        g_mutex_lock(&drive->lock);
        read_bytes += drive->counts[DRIVE_READS].bytes;
        written_bytes += drive->counts[DRIVE_WRITES].bytes;
        operations += drive->counts[DRIVE_READS].operations + drive->counts[DRIVE_WRITES].operations;
        g_mutex_unlock(&drive->lock);
    }
    JsonObject *stats = json_object_new();
    JsonArray *cpus = json_array_new();
    json_object_set_int_member(stats, "guest-ns", clock_now(machine->clock));
    json_object_set_int_member(stats, "host-cpu-ns", (int64_t)used.tv_sec * 1000000000 + used.tv_nsec);
    json_object_set_int_member(stats, "resident-bytes", resident_bytes(machine->cpus));
    json_object_set_int_member(stats, "memory-bytes", machine->ram_size);
    json_object_set_int_member(stats, "disk-read-bytes", read_bytes);
    json_object_set_int_member(stats, "disk-written-bytes", written_bytes);
    json_object_set_int_member(stats, "disk-operations", operations);
    for (unsigned i = 0; machine->cpus && i < machine->cpus->count; i++)
        json_array_add_object_element(cpus, vcpu_counters(machine->cpus->vcpu[i]));
    json_object_set_array_member(stats, "cpus", cpus);
    if (machine->cpus)
        json_object_set_string_member(stats, "engine", machine->cpus->engine->name);
    return qmp_node_object(stats);
}

// What menus and the command line need to grey an action out with the reason.
static JsonNode *query_rules(struct qmp_call *call, GError **error)
{
    struct machine *machine = call_machine(call);
    JsonArray *list = json_array_new();
    for (unsigned i = 0; i < MACHINE_REQUEST_COUNT; i++) {
        const struct machine_request_rule *rule = &machine_request_rules[i];
        JsonObject *entry = json_object_new();
        json_object_set_string_member(entry, "request", rule->name);
        json_object_set_boolean_member(entry, "legal", rule->legal_states >> machine->state & 1);
        json_object_set_string_member(entry, "sentence", rule->sentence);
        json_array_add_object_element(list, entry);
    }
    return qmp_node_array(list);
}

const struct qmp_command control_run_commands[] = {
    QMP_COMMAND("query-status", query_status, NULL, "Run state."),
    QMP_REQUEST("stop", do_stop, NULL, QMP_ANY_STATE, "Pauses the machine."),
    QMP_REQUEST("cont", do_cont, NULL, QMP_ANY_STATE, "Starts or resumes the machine."),
    QMP_REQUEST("system_reset", do_reset, NULL, MACHINE_REQUEST_RESET, "Presses the reset button."),
    QMP_REQUEST("system_powerdown", do_powerdown, NULL, MACHINE_REQUEST_POWER_BUTTON, "Presses the power button."),
    QMP_REQUEST("quit", do_quit, NULL, MACHINE_REQUEST_QUIT, "Switches the machine off at once; the process ends."),
    QMP_REQUEST("x-cloche-suspend", do_suspend, NULL, MACHINE_REQUEST_SAVE,
                "Saves the machine to disk; the process ends."),
    QMP_COMMAND("inject-nmi", do_nmi, NULL, "Raises a non-maskable interrupt on every processor."),
    QMP_COMMAND("query-cpus-fast", query_cpus, NULL, "The virtual processors."),
    QMP_COMMAND("query-memory-size-summary", query_memory, NULL, "Size of main memory."),
    QMP_COMMAND("x-cloche-stats", query_stats, NULL, "Counters for graphs."),
    QMP_COMMAND("x-cloche-query-rules", query_rules, NULL, "Which requests are legal now, and why not."),
    QMP_END,
};
