// SPDX-License-Identifier: GPL-2.0-or-later
// test-conformance: runs vectors on the host and on an engine and compares. See --help.
#include "tests/conformance/conformance.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static struct {
    char *engine, *filter, *excluded;
    int64_t vectors;
    int seed, workers, show;
    gboolean list, quiet;
} options = {.seed = 1, .workers = 2, .show = 3};

static const GOptionEntry entries[] = {
    {"engine", 'e', 0, G_OPTION_ARG_STRING, &options.engine, "Engine to test (interpret)", "NAME"},
    {"vectors", 'n', 0, G_OPTION_ARG_INT64, &options.vectors, "Vectors in all (CLOCHE_VECTORS, else 1000000)", "N"},
    {"filter", 'f', 0, G_OPTION_ARG_STRING, &options.filter, "Only forms that match this glob", "GLOB"},
    {"excluded", 0, 0, G_OPTION_ARG_FILENAME, &options.excluded, "List of excluded forms", "FILE"},
    {"seed", 's', 0, G_OPTION_ARG_INT, &options.seed, "Seed of the random inputs", "N"},
    {"workers", 'j', 0, G_OPTION_ARG_INT, &options.workers, "Worker processes", "N"},
    {"show", 0, 0, G_OPTION_ARG_INT, &options.show, "Failures shown per form", "N"},
    {"list", 'l', 0, G_OPTION_ARG_NONE, &options.list, "Print the forms and stop", NULL},
    {NULL},
};

// Shared with the workers.
struct tally {
    _Atomic uint64_t vectors, failures, failed_forms, unreachable;
    _Atomic unsigned form[8]; // form that a worker is at, for when it dies
};

// ---- Excluded forms
// ---------------------------------------------------------------------------------------------------

struct exclusion {
    char *pattern, *reason;
    bool whole, used;
};

static void exclusion_free(void *p)
{
    struct exclusion *x = p;
    g_free(x->pattern);
    g_free(x->reason);
    g_free(x);
}

static struct exclusion *exclusion_parse(const char *line)
{
    struct exclusion *x = g_new0(struct exclusion, 1);
    x->whole = *line == '"';
    const char *start = line + x->whole, *end = x->whole ? strchr(start, '"') : start + strcspn(start, " \t");
    if (!end || end == start || !end[0]) {
        exclusion_free(x);
        return NULL;
    }
    x->pattern = g_strndup(start, (gsize)(end - start));
    x->reason = g_strstrip(g_strdup(end + x->whole));
    return x;
}

static GPtrArray *exclusions_load(const char *path, GError **error)
{
    g_autofree char *text = NULL;
    if (!g_file_get_contents(path, &text, NULL, error))
        return NULL;
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    GPtrArray *list = g_ptr_array_new_with_free_func(exclusion_free);
    for (unsigned k = 0; lines[k]; k++) {
        char *line = g_strstrip(lines[k]);
        if (!*line || *line == '#')
            continue;
        struct exclusion *x = exclusion_parse(line);
        if (!x || !*x->reason) {
            g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, "%s line %u needs a form and a reason.", path,
                        k + 1);
            g_ptr_array_unref(list);
            return NULL;
        }
        g_ptr_array_add(list, x);
    }
    return list;
}

static bool matches(const struct exclusion *x, const char *key)
{
    size_t n = strlen(x->pattern);
    if (x->whole)
        return g_pattern_match_simple(x->pattern, key);
    return strncmp(key, x->pattern, n) == 0 && (key[n] == ' ' || key[n] == '\0');
}

static unsigned exclude_forms(GPtrArray *forms, GPtrArray *exclusions)
{
    unsigned count = 0;
    for (unsigned k = 0; k < forms->len; k++) {
        struct form *f = forms->pdata[k];
        for (unsigned j = 0; j < exclusions->len && !f->excluded; j++) {
            struct exclusion *x = exclusions->pdata[j];
            if (matches(x, f->key)) {
                x->used = true;
                f->excluded = x->reason;
                count++;
            }
        }
    }
    return count;
}

// ---- A worker
// ---------------------------------------------------------------------------------------------------------

static void fill_windows(const struct vector *v, uint8_t *data)
{
    for (unsigned k = 0; k < 2; k++)
        if (v->window[k].size && v->window[k].address + v->window[k].size <= DATA_READONLY)
            memcpy(data + (v->window[k].address - DATA_BASE), v->window[k].bytes, v->window[k].size);
}

static bool run_vector(struct guest *guest, const struct vector *v, GString *text)
{
    struct outcome expected, got;
    fill_windows(v, native_data());
    fill_windows(v, guest_data(guest));
    native_run(v, &expected);
    guest_run(guest, v, &got);
    return compare_outcomes(v, &expected, &got, native_data(), guest_data(guest), text);
}

static void run_form(struct guest *guest, struct form *f, uint64_t count, struct random *r, struct tally *tally)
{
    static struct vector v;
    for (uint64_t n = 0; n < count; n++) {
        if (!generate(r, f, &v))
            continue;
        g_autoptr(GString) text = g_string_new(NULL);
        f->vectors++;
        if (run_vector(guest, &v, text))
            continue;
        if (f->failures++ < (unsigned)options.show) {
            g_autoptr(GString) whole = g_string_new(NULL);
            describe_vector(&v, whole);
            g_string_append(whole, text->str);
            fwrite(whole->str, 1, whole->len, stdout);
        }
    }
    atomic_fetch_add(&tally->vectors, f->vectors);
    atomic_fetch_add(&tally->failures, f->failures);
    if (f->failures) {
        atomic_fetch_add(&tally->failed_forms, 1);
        printf("FAILED %s: %u of %u\n", f->key, f->failures, f->vectors);
    }
    if (!f->vectors) {
        atomic_fetch_add(&tally->unreachable, 1);
        printf("NO VECTOR %s: give a reason in the list of excluded forms\n", f->key);
    }
}

static int worker(GPtrArray *forms, unsigned index, uint64_t per_form, struct tally *tally)
{
    g_autoptr(GError) error = NULL;
    // First the host's fixed addresses: the translator takes what is left.
    struct guest *guest = native_init(&error) ? guest_new(options.engine, &error) : NULL;
    if (!guest) {
        fprintf(stderr, "test-conformance: %s\n", error->message);
        return 2;
    }
    if (strcmp(options.engine, "interpret") != 0)
        native_share_signals();
    struct random pattern = {42};
    for (unsigned k = 0; k < DATA_ALL; k++)
        native_data()[k] = guest_data(guest)[k] = (uint8_t)random_next(&pattern);
    native_seal();
    for (unsigned k = index; k < forms->len; k += (unsigned)options.workers) {
        struct form *f = forms->pdata[k];
        struct random r = {(uint64_t)options.seed * 1000003 + k};
        atomic_store(&tally->form[index], k + 1);
        if (!f->excluded)
            run_form(guest, f, per_form, &r, tally);
    }
    atomic_store(&tally->form[index], 0);
    fflush(stdout);
    guest_free(guest);
    return 0;
}

// ---- All of them
// ------------------------------------------------------------------------------------------------------

static int run_all(GPtrArray *forms, uint64_t per_form, struct tally *tally)
{
    pid_t children[8];
    int bad = 0;
    fflush(stdout);
    for (int k = 0; k < options.workers; k++) {
        children[k] = fork();
        if (children[k] == 0) {
            setvbuf(stdout, NULL, _IOLBF, 0);
            _exit(worker(forms, (unsigned)k, per_form, tally));
        }
    }
    for (int k = 0; k < options.workers; k++) {
        int status = 0;
        waitpid(children[k], &status, 0);
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
            continue;
        unsigned at = atomic_load(&tally->form[k]);
        fprintf(stderr, "test-conformance: a worker ended with status %#x at %s\n", status,
                at ? ((struct form *)forms->pdata[at - 1])->key : "its start");
        bad = 1;
    }
    return bad;
}

static bool parse_options(int *argc, char ***argv, GError **error)
{
    g_autoptr(GOptionContext) context = g_option_context_new("- instruction conformance against the host processor");
    g_option_context_add_main_entries(context, entries, NULL);
    if (!g_option_context_parse(context, argc, argv, error))
        return false;
    const char *wanted = g_getenv("CLOCHE_VECTORS");
    if (!options.vectors)
        options.vectors = wanted ? g_ascii_strtoll(wanted, NULL, 10) : 1000000;
    if (!options.engine)
        options.engine = g_strdup("interpret");
    if (!options.excluded)
        options.excluded = g_build_filename(g_getenv("srcdir") ?: ".", "tests/conformance/excluded.txt", NULL);
    options.workers = CLAMP(options.workers, 1, 8);
    return true;
}

static void keep_matching(GPtrArray *forms)
{
    if (!options.filter)
        return;
    for (unsigned k = forms->len; k-- > 0;)
        if (!g_pattern_match_simple(options.filter, ((struct form *)forms->pdata[k])->key))
            g_ptr_array_remove_index(forms, k);
}

int main(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    if (!parse_options(&argc, &argv, &error)) {
        fprintf(stderr, "test-conformance: %s\n", error->message);
        return 2;
    }
    g_autoptr(GPtrArray) exclusions = exclusions_load(options.excluded, &error);
    if (!exclusions) {
        fprintf(stderr, "test-conformance: %s\n", error->message);
        return 2;
    }
    g_autoptr(GPtrArray) forms = forms_enumerate();
    keep_matching(forms);
    unsigned excluded = exclude_forms(forms, exclusions), stale = 0, active = forms->len - excluded;
    if (options.list) {
        for (unsigned k = 0; k < forms->len; k++) {
            struct form *f = forms->pdata[k];
            printf("%s%s%s\n", f->key, f->excluded ? "  excluded: " : "", f->excluded ?: "");
        }
        return 0;
    }
    for (unsigned k = 0; !options.filter && k < exclusions->len; k++) {
        struct exclusion *x = exclusions->pdata[k];
        if (!x->used) {
            printf("STALE exclusion of %s: no such form\n", x->pattern);
            stale++;
        }
    }
    if (!active) {
        fprintf(stderr, "test-conformance: no form matches.\n");
        return 2;
    }
    struct tally *tally = mmap(NULL, sizeof(*tally), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    uint64_t per_form = ((uint64_t)options.vectors + active - 1) / active;
    struct timespec a, b;
    clock_gettime(CLOCK_MONOTONIC, &a);
    int bad = run_all(forms, per_form, tally);
    clock_gettime(CLOCK_MONOTONIC, &b);
    printf("engine %s: %" PRIu64 " vectors of %u forms in %.1f s; %u forms excluded with a reason; %" PRIu64
           " vectors of %" PRIu64 " forms differ; %" PRIu64 " forms without a vector\n",
           options.engine, atomic_load(&tally->vectors), active,
           (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) / 1e9, excluded,
           atomic_load(&tally->failures), atomic_load(&tally->failed_forms), atomic_load(&tally->unreachable));
    return bad || stale || atomic_load(&tally->failures) || atomic_load(&tally->unreachable);
}
