// SPDX-License-Identifier: GPL-2.0-or-later
// Tables for people, JSON for scripts, progress bars.
#include "ui/cli/cli.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct progress *cli_interruptible;
volatile sig_atomic_t cli_whole;

void cli_keep_whole(void)
{
    cli_whole = 1;
}

bool cli_interrupted(void)
{
    return cli_interruptible && atomic_load(&cli_interruptible->cancelled);
}

// ---- Tables ----

struct cli_table {
    unsigned columns;
    GPtrArray *cells; // char *, row after row, titles first
};

struct cli_table *cli_table_new(const char *first_title, ...)
{
    struct cli_table *table = g_new0(struct cli_table, 1);
    table->cells = g_ptr_array_new_with_free_func(g_free);
    va_list args;
    va_start(args, first_title);
    for (const char *title = first_title; title; title = va_arg(args, const char *), table->columns++)
        g_ptr_array_add(table->cells, g_strdup(title));
    va_end(args);
    return table;
}

void cli_table_add(struct cli_table *table, const char *first, ...)
{
    va_list args;
    va_start(args, first);
    const char *cell = first;
    for (unsigned i = 0; i < table->columns; i++) {
        g_ptr_array_add(table->cells, g_strdup(cell ? cell : ""));
        if (cell)
            cell = va_arg(args, const char *);
    }
    va_end(args);
}

static unsigned cell_width(const char *text)
{
    return g_utf8_validate(text, -1, NULL) ? (unsigned)g_utf8_strlen(text, -1) : strlen(text);
}

void cli_table_print(struct cli_table *table)
{
    g_autofree unsigned *widths = g_new0(unsigned, table->columns);
    for (unsigned i = 0; i < table->cells->len; i++)
        widths[i % table->columns] = MAX(widths[i % table->columns], cell_width(table->cells->pdata[i]));
    for (unsigned i = 0; i < table->cells->len; i++) {
        const char *cell = table->cells->pdata[i];
        bool last = i % table->columns == table->columns - 1;
        printf("%s%*s%s", cell, last ? 0 : (int)(widths[i % table->columns] - cell_width(cell) + 2), "",
               last ? "\n" : "");
    }
    g_ptr_array_unref(table->cells);
    g_free(table);
}

void cli_print_json(JsonNode *node)
{
    g_autofree char *text = json_to_string(node, TRUE);
    puts(text);
    json_node_unref(node);
}

char *cli_size(uint64_t bytes)
{
    return g_format_size_full(bytes, G_FORMAT_SIZE_IEC_UNITS);
}

char *cli_time(int64_t seconds)
{
    if (seconds <= 0)
        return g_strdup("");
    g_autoptr(GDateTime) time = g_date_time_new_from_unix_local(seconds);
    return g_date_time_format(time, "%F %H:%M:%S");
}

void cli_say(struct cli *cli, const char *format, ...)
{
    if (cli->json || cli->quiet)
        return;
    va_list args;
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
}

// ---- Long work ----

struct running_work {
    cli_work *work;
    void *opaque;
    struct progress progress;
    GMutex lock;
    GCond ended;
    bool over; // under LOCK
    bool good;
    GError *error;
};

static gpointer work_thread(gpointer data)
{
    struct running_work *running = data;
    running->good = running->work(running->opaque, &running->progress, &running->error);
    g_mutex_lock(&running->lock);
    running->over = true;
    g_cond_signal(&running->ended);
    g_mutex_unlock(&running->lock);
    return NULL;
}

static void print_bar(const char *title, const struct progress *progress, gint64 since)
{
    uint64_t done = atomic_load(&((struct progress *)progress)->done),
             total = atomic_load(&((struct progress *)progress)->total);
    double seconds = (g_get_monotonic_time() - since) / 1e6;
    if (!total)
        return;
    unsigned percent = MIN(done, total) * 100 / total;
    static const char bar[] = "########################################";
    g_autofree char *rate = cli_size(seconds > 0.1 ? done / seconds : 0);
    fprintf(stderr, "\r%s [%-40.*s] %3u %%  %s/s ", title, (int)(percent * 40 / 100), bar, percent, rate);
    if (done && done < total)
        fprintf(stderr, "%.0f s left   ", (total - done) * seconds / done);
}

bool cli_run_work(struct cli *cli, const char *title, cli_work *work, void *opaque, GError **error)
{
    struct running_work running = {.work = work, .opaque = opaque};
    bool bar = isatty(STDERR_FILENO) && !cli->quiet && !cli->json;
    gint64 since = g_get_monotonic_time();
    cli_interruptible = &running.progress;
    GThread *thread = g_thread_new("work", work_thread, &running);
    bool shown = false;
    g_mutex_lock(&running.lock);
    while (!running.over) {
        g_cond_wait_until(&running.ended, &running.lock, g_get_monotonic_time() + 100 * G_TIME_SPAN_MILLISECOND);
        if (bar && g_get_monotonic_time() - since > 300000) {
            print_bar(title, &running.progress, since);
            shown = true;
        }
    }
    g_mutex_unlock(&running.lock);
    g_thread_join(thread);
    g_mutex_clear(&running.lock);
    g_cond_clear(&running.ended);
    cli_interruptible = NULL;
    if (shown)
        fputs("\r\033[K", stderr);
    if (!running.good)
        g_propagate_error(error, running.error);
    return running.good;
}
