// SPDX-License-Identifier: GPL-2.0-or-later
// test-conformance: runs vectors on the host and on an engine and compares. See --help.
#include "tests/conformance/conformance.h"

#include "core/cpu/interpret/avx512.h"
#include "core/cpu/model.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static struct {
    char *engine, *filter, *excluded, *record, *replay;
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
    {"record", 0, 0, G_OPTION_ARG_FILENAME, &options.record, "Write the host's results to FILE", "FILE"},
    {"replay", 0, 0, G_OPTION_ARG_FILENAME, &options.replay, "Compare with results recorded on another host", "FILE"},
    {"list", 'l', 0, G_OPTION_ARG_NONE, &options.list, "Print the forms and stop", NULL},
    {NULL},
};

// ---- All of them ----

// AVX-512 is only run, never computed: by an engine on the host's processor, as far as that has it.
static void choose_avx512(GPtrArray *forms)
{
    g_autofree struct cpu_model *model = cpu_model_new("max", strcmp(options.engine, "interpret") != 0, NULL);
    unsigned lacking = 0;
    with_avx512 = cpu_has(model, FEATURE_AVX512F);
    for (unsigned k = forms->len; k-- > 0;) {
        struct form *f = forms->pdata[k];
        if (!f->is_avx512 || avx512_shown(model, f->isa_set))
            continue;
        if (with_avx512 && options.list)
            printf("not on this host: %s\n", f->key);
        lacking++;
        g_ptr_array_remove_index(forms, k);
    }
    if (lacking && !options.list)
        printf("%u forms of AVX-512 are not tested: %s\n", lacking,
               with_avx512 ? "the host has them not (--list says which)" : "the engine or the host has none");
}

static int run_all(struct work work)
{
    GPtrArray *forms = work.forms;
    struct tally *tally = work.tally;
    pid_t children[WORKERS_MAX];
    int bad = 0;
    fflush(stdout);
    for (int k = 0; k < options.workers; k++) {
        children[k] = fork();
        if (children[k] == 0) {
            setvbuf(stdout, NULL, _IOLBF, 0);
            work.index = (unsigned)k;
            _exit(worker_run(&work));
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
    options.workers = CLAMP(options.workers, 1, WORKERS_MAX);
    if (options.record || options.replay)
        options.workers = 1; // the file has one order
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

// A recording says itself how it was made.
static bool header_of(const char *path, unsigned forms, uint64_t *seed, uint64_t *per_form, GError **error)
{
    struct recording_header header;
    struct recording *r = recording_open(path, &header, error);
    if (!r)
        return false;
    recording_close(r);
    if (header.forms != forms) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                    "\"%s\" was recorded with %u forms, this program has %u: record it again.", path,
                    (unsigned)header.forms, forms);
        return false;
    }
    *seed = header.seed;
    *per_form = header.per_form;
    return true;
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
    choose_avx512(forms);
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
    uint64_t per_form = ((uint64_t)options.vectors + active - 1) / active, seed = (uint64_t)options.seed;
    if (options.replay && !header_of(options.replay, forms->len, &seed, &per_form, &error)) {
        fprintf(stderr, "test-conformance: %s\n", error->message);
        return 2;
    }
    struct timespec a, b;
    clock_gettime(CLOCK_MONOTONIC, &a);
    struct work work = {.engine = options.engine,
                        .record = options.record,
                        .replay = options.replay,
                        .forms = forms,
                        .seed = seed,
                        .per_form = per_form,
                        .workers = (unsigned)options.workers,
                        .show = (unsigned)options.show,
                        .tally = tally};
    int bad = run_all(work);
    clock_gettime(CLOCK_MONOTONIC, &b);
    printf("engine %s: %" PRIu64 " vectors of %u forms in %.1f s; %u forms excluded with a reason; %" PRIu64
           " vectors of %" PRIu64 " forms differ; %" PRIu64 " forms without a vector\n",
           options.engine, atomic_load(&tally->vectors), active,
           (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) / 1e9, excluded,
           atomic_load(&tally->failures), atomic_load(&tally->failed_forms), atomic_load(&tally->unreachable));
    return bad || stale || atomic_load(&tally->failures) || atomic_load(&tally->unreachable);
}
