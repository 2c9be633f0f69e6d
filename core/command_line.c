// SPDX-License-Identifier: GPL-2.0-or-later
#include "core/command_line.h"

#include <string.h>

typedef bool option_fn(struct command_line *line, const char *value, GError **error);

static bool invalid(GError **error, const char *format, ...) G_GNUC_PRINTF(2, 3);
static bool invalid(GError **error, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    g_autofree char *text = g_strdup_vprintf(format, args);
    va_end(args);
    g_set_error_literal(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, text);
    return false;
}

static bool set_text(char **target, const char *value)
{
    g_free(*target);
    *target = g_strdup(value);
    return true;
}

// ---- Machine ----
static bool set_memory(struct command_line *line, const char *value, GError **error)
{
    static const char units[] = "KMGT";
    char *end;
    uint64_t size = g_ascii_isdigit(*value) ? g_ascii_strtoull(value, &end, 10) : 0;
    unsigned shift = 20; // a bare number is MiB
    if (size && *end) {
        const char *unit = strchr(units, g_ascii_toupper(*end));
        shift = unit ? 10 * (unit - units + 1) : 0;
        end += unit ? 1 : 0;
    }
    if (!size || *end || !shift || size > UINT64_MAX >> shift)
        return invalid(error, "--memory %s is not a size: write for example 512M or 4G.", value);
    line->options->memory = size << shift;
    return true;
}

static bool set_cpus(struct command_line *line, const char *value, GError **error)
{
    guint64 count;
    if (!g_ascii_string_to_unsigned(value, 10, 1, 16, &count, NULL))
        return invalid(error, "--cpus %s is out of range: give 1 to 16.", value);
    line->options->cpus = count;
    return true;
}

static bool set_cpu(struct command_line *line, const char *value, GError **error)
{
    return set_text(&line->options->cpu_model, value);
}

static bool set_engine(struct command_line *line, const char *value, GError **error)
{
    return set_text(&line->options->engine, value);
}

static bool set_machine(struct command_line *line, const char *value, GError **error)
{
    return set_text(&line->machine_folder, value);
}

// ---- Drives: FILE[,format=F][,interface=I][,read-only][,id=ID][,on-error=E] ----
static bool set_drive_key(struct drive_options *drive, const char *key, const char *value)
{
    const struct {
        const char *key;
        char **target;
    } texts[] = {{"format", &drive->format},
                 {"interface", &drive->interface},
                 {"id", &drive->id},
                 {"on-error", &drive->on_error}};
    for (unsigned i = 0; i < G_N_ELEMENTS(texts); i++)
        if (value && *value && strcmp(key, texts[i].key) == 0)
            return set_text(texts[i].target, value);
    bool *flag = strcmp(key, "read-only") == 0 ? &drive->read_only : strcmp(key, "direct") == 0 ? &drive->direct : NULL;
    if (flag)
        *flag = !value || strcmp(value, "on") == 0;
    return flag != NULL;
}

static bool add_drive(struct command_line *line, enum drive_kind kind, const char *option, const char *value,
                      GError **error)
{
    static const char *const prefixes[] = {"disk", "cd", "floppy"};
    GPtrArray *drives = line->options->drives;
    struct drive_options *drive = g_new0(struct drive_options, 1);
    g_ptr_array_add(drives, drive);
    drive->kind = kind;
    drive->read_only = kind == DRIVE_CDROM;
    g_auto(GStrv) parts = g_strsplit(value, ",", -1);
    for (char **part = parts + 1; parts[0] && *part; part++) {
        char *equals = strchr(*part, '=');
        if (equals)
            *equals++ = '\0';
        if (!set_drive_key(drive, *part, equals))
            return invalid(
                error,
                "%s: %s is not a setting of a drive: use format=, interface=, id=, on-error=, read-only, direct.",
                option, *part);
    }
    drive->file = parts[0] && *parts[0] ? g_strdup(parts[0]) : NULL;
    if (!drive->file && kind == DRIVE_DISK)
        return invalid(error, "%s needs a file.", option);
    if (!drive->id) {
        unsigned n = 0;
        for (unsigned i = 0; i + 1 < drives->len; i++)
            n += ((struct drive_options *)drives->pdata[i])->kind == kind;
        drive->id = g_strdup_printf("%s%u", prefixes[kind], n);
    }
    return true;
}

static bool set_disk(struct command_line *line, const char *value, GError **error)
{
    return add_drive(line, DRIVE_DISK, "--disk", value, error);
}

static bool set_cdrom(struct command_line *line, const char *value, GError **error)
{
    return add_drive(line, DRIVE_CDROM, "--cdrom", value, error);
}

static bool set_floppy(struct command_line *line, const char *value, GError **error)
{
    return add_drive(line, DRIVE_FLOPPY, "--floppy", value, error);
}

// ---- Boot ----
static bool set_boot(struct command_line *line, const char *value, GError **error)
{
    g_auto(GStrv) parts = g_strsplit(value, ",", -1);
    for (char **part = parts; *part; part++) {
        if (strcmp(*part, "menu") == 0)
            line->options->boot_menu = true;
        else if (**part && strspn(*part, "acdn") == strlen(*part))
            set_text(&line->options->boot_order, *part);
        else
            return invalid(error, "--boot %s: give letters out of c (disk), d (CD), a (floppy), n (network), or menu.",
                           *part);
    }
    return true;
}

static bool set_bios(struct command_line *line, const char *value, GError **error)
{
    return set_text(&line->options->bios, value);
}

static bool set_kernel(struct command_line *line, const char *value, GError **error)
{
    return set_text(&line->options->kernel, value);
}

static bool set_initrd(struct command_line *line, const char *value, GError **error)
{
    return set_text(&line->options->initrd, value);
}

static bool set_append(struct command_line *line, const char *value, GError **error)
{
    return set_text(&line->options->append, value);
}

// ---- Devices ----
static bool set_serial(struct command_line *line, const char *value, GError **error)
{
    struct serial_options *serial = g_new0(struct serial_options, 1);
    serial->target = g_strdup(value);
    g_ptr_array_add(line->options->serials, serial);
    return true;
}

static bool set_display(struct command_line *line, const char *value, GError **error)
{
    if (strcmp(value, "none") == 0)
        return set_text(&line->options->vnc, NULL);
    if (g_str_has_prefix(value, "vnc=") && value[4])
        return set_text(&line->options->vnc, value + 4);
    return invalid(error, "--display %s: give none or vnc=ADDRESS:NUMBER, for example vnc=127.0.0.1:1.", value);
}

static bool set_adapter(struct command_line *line, const char *value, GError **error)
{
    return set_text(&line->options->display_adapter, value);
}

static bool set_vnc_password(struct command_line *line, const char *value, GError **error)
{
    return set_text(&line->options->vnc_password_file, value);
}

static bool set_device(struct command_line *line, const char *value, GError **error)
{
    g_ptr_array_add(line->options->devices, g_strdup(value));
    return true;
}

// BACKEND[,card=C][,mac=M][,forward=F]...[,further settings of the back end]
static bool set_net(struct command_line *line, const char *value, GError **error)
{
    struct nic_options *nic = g_new0(struct nic_options, 1);
    g_autoptr(GPtrArray) forwards = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GString) settings = g_string_new(NULL);
    g_auto(GStrv) parts = g_strsplit(value, ",", -1);
    for (char **part = parts + 1; parts[0] && *part; part++) {
        if (g_str_has_prefix(*part, "card="))
            set_text(&nic->card, *part + 5);
        else if (g_str_has_prefix(*part, "mac="))
            set_text(&nic->mac, *part + 4);
        else if (g_str_has_prefix(*part, "id="))
            set_text(&nic->id, *part + 3);
        else if (g_str_has_prefix(*part, "forward="))
            g_ptr_array_add(forwards, g_strdup(*part + 8));
        else
            g_string_append_printf(settings, "%s%s", settings->len ? "," : "", *part);
    }
    nic->backend = g_strdup(parts[0] ? parts[0] : "");
    if (!nic->id)
        nic->id = g_strdup_printf("net%u", line->options->nics->len);
    if (settings->len)
        nic->settings = g_strdup(settings->str);
    if (forwards->len) {
        g_ptr_array_add(forwards, NULL);
        nic->forwards = (char **)g_ptr_array_free(g_steal_pointer(&forwards), false);
    }
    g_ptr_array_add(line->options->nics, nic);
    return true;
}

// ---- Running ----
static bool set_control(struct command_line *line, const char *value, GError **error)
{
    return set_text(&line->options->control_socket, value);
}

static bool set_debug_output(struct command_line *line, const char *value, GError **error)
{
    bool bare_path = strchr(value, '/') && !strchr(value, ':');
    g_free(line->options->debug_output);
    line->options->debug_output = bare_path ? g_strconcat("file:", value, NULL) : g_strdup(value);
    return true;
}

static bool set_screenshot(struct command_line *line, const char *value, GError **error)
{
    return set_text(&line->options->screenshot, value);
}

static bool set_load_state(struct command_line *line, const char *value, GError **error)
{
    return set_text(&line->options->load_state, value);
}

static bool set_trace(struct command_line *line, const char *value, GError **error)
{
    return set_text(&line->trace, value);
}

static bool set_rtc(struct command_line *line, const char *value, GError **error)
{
    line->options->rtc_local = strcmp(value, "local") == 0;
    return line->options->rtc_local || strcmp(value, "utc") == 0 ||
           invalid(error, "--rtc %s: give utc or local.", value);
}

static bool set_no_reboot(struct command_line *line, const char *value, GError **error)
{
    return line->options->no_reboot = true;
}

static bool set_pause(struct command_line *line, const char *value, GError **error)
{
    return line->options->start_paused = true;
}

static bool set_verbose(struct command_line *line, const char *value, GError **error)
{
    return line->verbose = true;
}

static bool set_help(struct command_line *line, const char *value, GError **error)
{
    line->action = COMMAND_LINE_HELP;
    return true;
}

static bool set_version(struct command_line *line, const char *value, GError **error)
{
    line->action = COMMAND_LINE_VERSION;
    return true;
}

static bool set_list_devices(struct command_line *line, const char *value, GError **error)
{
    line->action = COMMAND_LINE_LIST_DEVICES;
    return true;
}

static bool set_list_engines(struct command_line *line, const char *value, GError **error)
{
    line->action = COMMAND_LINE_LIST_ENGINES;
    return true;
}

// ---- The table ----
static const struct option {
    const char *name;
    char letter;          // 0: none
    const char *argument; // NULL: takes none
    option_fn *set;
    const char *help;
} options[] = {
    {"machine", 0, "FOLDER", set_machine, "run the machine that is defined in FOLDER"},
    {"memory", 'm', "SIZE", set_memory, "guest memory, for example 512M or 4G (1G)"},
    {"cpus", 0, "N", set_cpus, "processors, 1 to 16 (1)"},
    {"cpu", 0, "MODEL", set_cpu, "x86-64-v1, x86-64-v2, x86-64-v3, host or max (x86-64-v3)"},
    {"engine", 0, "ENGINE", set_engine, "auto, interpret, translate or kvm (auto)"},
    {"disk", 0, "FILE[,SETTING...]", set_disk,
     "a disk; settings: format=F, interface=ide|virtio, id=ID, read-only, direct"},
    {"cdrom", 0, "FILE", set_cdrom, "a CD image; an empty FILE is an empty drive"},
    {"floppy", 0, "FILE", set_floppy, "a floppy image"},
    {"boot", 0, "ORDER", set_boot, "c disk, d CD, a floppy, n network, in order; menu shows the boot menu (cda)"},
    {"bios", 0, "FILE", set_bios, "firmware image (SeaBIOS)"},
    {"kernel", 0, "FILE", set_kernel, "start this kernel (bzImage, PVH ELF, multiboot) without firmware"},
    {"initrd", 0, "FILE", set_initrd, "its initial RAM disk or multiboot module"},
    {"append", 0, "TEXT", set_append, "its command line"},
    {"serial", 0, "TARGET", set_serial,
     "a serial port: stdio, pty, null, file:PATH, socket:PATH, tcp:ADDRESS:PORT, telnet:ADDRESS:PORT, unix:PATH, "
     "tcp-client:HOST:PORT, device:PATH or program:COMMAND; up to four times"},
    {"display", 0, "WHERE", set_display, "none, or vnc=ADDRESS:NUMBER (none)"},
    {"display-adapter", 0, "NAME", set_adapter, "vga, virtio-gpu or none (vga)"},
    {"vnc-password-file", 0, "FILE", set_vnc_password, "a file whose first line is the VNC password"},
    {"net", 0, "BACKEND[,SETTING...]", set_net, "a network card; settings: card=C, mac=M, forward=F"},
    {"device", 0, "NAME[,PROPERTY=VALUE...]", set_device, "a further device of --list-devices"},
    {"control", 0, "SOCKET", set_control, "listen for control commands (QMP) at this path"},
    {"debug-output", 0, "TARGET", set_debug_output, "where firmware's debug ports 0x402 and 0xE9 go: stdio or a path"},
    {"screenshot", 0, "FILE", set_screenshot, "write the screen as PNG when the run ends"},
    {"load-state", 0, "FOLDER", set_load_state, "go on from the state saved in FOLDER"},
    {"rtc", 0, "BASE", set_rtc, "utc or local time in the clock (utc)"},
    {"no-reboot", 0, NULL, set_no_reboot, "end when the guest resets"},
    {"pause", 'S', NULL, set_pause, "do not start the processors yet"},
    {"trace", 0, "PATTERNS", set_trace, "trace points to print, for example 'ide_*,pci_*'"},
    {"verbose", 'v', NULL, set_verbose, "say more on standard error"},
    {"list-devices", 0, NULL, set_list_devices, "list the devices and their properties"},
    {"list-engines", 0, NULL, set_list_engines, "say which engines work on this host, and why not"},
    {"help", 'h', NULL, set_help, "this text"},
    {"version", 0, NULL, set_version, "the version"},
};

static const struct option *find_option(const char *word, const char **value)
{
    *value = NULL;
    for (unsigned i = 0; i < G_N_ELEMENTS(options); i++) {
        const struct option *o = &options[i];
        if (word[1] != '-' && word[1] && word[1] == o->letter && !word[2])
            return o;
        size_t length = strlen(o->name);
        if (word[1] != '-' || strncmp(word + 2, o->name, length) != 0)
            continue;
        if (!word[2 + length])
            return o;
        if (word[2 + length] == '=') {
            *value = word + 3 + length;
            return o;
        }
    }
    return NULL;
}

bool command_line_parse(struct command_line *line, int argc, char **argv, GError **error)
{
    *line = (struct command_line){.options = machine_options_new()};
    for (int i = 1; i < argc; i++) {
        const char *value;
        const struct option *option = argv[i][0] == '-' ? find_option(argv[i], &value) : NULL;
        if (!option)
            return invalid(error, "%s is not an option of cloche-vm: see cloche-vm --help.", argv[i]);
        if (option->argument && !value && ++i < argc)
            value = argv[i];
        if (option->argument && !value)
            return invalid(error, "--%s needs a value: %s.", option->name, option->argument);
        if (!option->argument && value)
            return invalid(error, "--%s takes no value.", option->name);
        if (!option->set(line, value, error))
            return false;
    }
    return true;
}

void command_line_clear(struct command_line *line)
{
    machine_options_free(line->options);
    g_free(line->machine_folder);
    g_free(line->trace);
}

char *command_line_help(void)
{
    GString *text = g_string_new("Usage: cloche-vm [OPTION]...\n"
                                 "Runs one virtual machine. It ends with status 0 when the guest powers off.\n\n");
    for (unsigned i = 0; i < G_N_ELEMENTS(options); i++) {
        const struct option *o = &options[i];
        g_autofree char *left =
            g_strdup_printf("  %s%c%s--%s%s%s", o->letter ? "-" : "", o->letter ? o->letter : ' ',
                            o->letter ? ", " : "   ", o->name, o->argument ? " " : "", o->argument ? o->argument : "");
        g_string_append_printf(text, strlen(left) < 34 ? "%-34s %s\n" : "%s\n                                   %s\n",
                               left, o->help);
    }
    g_string_append(text, "\nOn a terminal, --serial stdio passes every key to the guest; Ctrl-A x ends the run.\n");
    return g_string_free(text, false);
}
