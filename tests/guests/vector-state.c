// SPDX-License-Identifier: GPL-2.0-or-later
// A guest's program: processes that keep patterns of their own in all vector and opmask registers and look whether they
// are still there, over context switches, system calls, page faults and signals whose handler overwrites them all.
// A parent also takes the registers of a stopped child by ptrace, as the kernel has them.
#define _GNU_SOURCE
#include <cpuid.h>
#include <elf.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct vectors {
    uint8_t zmm[32][64];
    uint64_t k[8]; // k0 stays unused
} __attribute__((aligned(64)));

#define EACH_ZMM(X)                                                                                                    \
    X(0)                                                                                                               \
    X(1)                                                                                                               \
    X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15) X(16) X(17) X(18) X(19) X(20) X(21)    \
        X(22) X(23) X(24) X(25) X(26) X(27) X(28) X(29) X(30) X(31)
#define LOAD(n)   "vmovdqa64 64*" #n "(%0), %%zmm" #n "\n\t"
#define STORE(n)  "vmovdqa64 %%zmm" #n ", 64*" #n "(%0)\n\t"
#define EACH_K(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7)
#define LOADK(n)  "kmovq 2048+8*" #n "(%0), %%k" #n "\n\t"
#define STOREK(n) "kmovq %%k" #n ", 2048+8*" #n "(%0)\n\t"

// A system call between: nothing else of this program's may touch the registers.
static __attribute__((noinline, target("avx512bw"))) void load_call_store(const struct vectors *in, struct vectors *out,
                                                                          long number, long a, unsigned spin)
{
    __asm__ volatile(EACH_ZMM(LOAD) EACH_K(LOADK)::"r"(in) : "memory");
    long result = number;
    if (number >= 0)
        __asm__ volatile("syscall" : "+a"(result) : "D"(a), "S"(0), "d"(0) : "rcx", "r11", "memory");
    __asm__ volatile("1: dec %0; jnz 1b" : "+r"(spin));
    __asm__ volatile(EACH_ZMM(STORE) EACH_K(STOREK)::"r"(out) : "memory");
}

static void fill(struct vectors *v, uint64_t seed)
{
    uint64_t *word = (uint64_t *)v;
    for (unsigned n = 0; n < sizeof *v / 8; n++) {
        seed = seed * 6364136223846793005ull + 1442695040888963407ull;
        word[n] = seed ^ seed >> 29;
    }
    v->k[0] = 0;
}

static struct vectors other;
static volatile unsigned signals;

static __attribute__((target("avx512bw"))) void on_signal(int number)
{
    (void)number;
    signals++;
    __asm__ volatile(EACH_ZMM(LOAD) EACH_K(LOADK)::"r"(&other) : "memory");
}

static int work(unsigned who, double seconds)
{
    struct vectors in, out;
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    struct itimerval timer = {.it_interval = {.tv_usec = 1500 + 100 * who}, .it_value = {.tv_usec = 1000}};
    struct timespec start, now;
    unsigned rounds = 0;
    fill(&other, 99 + who);
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &timer, NULL);
    clock_gettime(CLOCK_MONOTONIC, &start);
    do {
        fill(&in, (uint64_t)who << 32 | rounds);
        memset(&out, 0, sizeof out);
        unsigned way = rounds++ % 4;
        load_call_store(&in, &out,
                        way == 0   ? 24 /* sched_yield */
                        : way == 1 ? 39 /* getpid */
                                   : -1,
                        0, 1 + (way > 1 ? 100000 * who % 300000 : 10));
        if (memcmp(&in, &out, sizeof in)) {
            for (unsigned n = 0; n < sizeof in; n++)
                if (((uint8_t *)&in)[n] != ((uint8_t *)&out)[n]) {
                    printf("process %u round %u way %u: byte %u is %02x, was %02x\n", who, rounds, way, n,
                           ((uint8_t *)&out)[n], ((uint8_t *)&in)[n]);
                    break;
                }
            return 1;
        }
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while ((double)(now.tv_sec - start.tv_sec) + (double)(now.tv_nsec - start.tv_nsec) / 1e9 < seconds);
    if (!signals || rounds < 20) {
        printf("process %u: %u rounds, %u signals\n", who, rounds, signals);
        return 1;
    }
    return 0;
}

// What the kernel's XSAVE area of a stopped process has is what it loaded.
static __attribute__((target("avx512bw"))) int kept_by_the_kernel(void)
{
    static struct vectors in;
    static uint8_t area[16384];
    uint32_t eax, opmask = 0, high = 0, sixteen = 0, ecx, edx;
    __get_cpuid_count(0xd, 5, &eax, &opmask, &ecx, &edx);
    __get_cpuid_count(0xd, 6, &eax, &high, &ecx, &edx);
    __get_cpuid_count(0xd, 7, &eax, &sixteen, &ecx, &edx);
    fill(&in, 4711);
    pid_t child = fork();
    if (!child) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        __asm__ volatile(EACH_ZMM(LOAD) EACH_K(LOADK)::"r"(&in) : "memory");
        __asm__ volatile("int3");
        _exit(0);
    }
    int status;
    struct iovec io = {area, sizeof area};
    waitpid(child, &status, 0);
    long got = ptrace(PTRACE_GETREGSET, child, (void *)(long)NT_X86_XSTATE, &io);
    int good =
        got == 0 && memcmp(area + opmask + 8, &in.k[1], 56) == 0 && memcmp(area + sixteen, in.zmm[16], 1024) == 0;
    for (unsigned n = 0; n < 16; n++)
        good &= memcmp(area + 160 + 16 * n, in.zmm[n], 16) == 0 &&
                memcmp(area + 576 + 16 * n, in.zmm[n] + 16, 16) == 0 &&
                memcmp(area + high + 32 * n, in.zmm[n] + 32, 32) == 0;
    ptrace(PTRACE_CONT, child, 0, 0);
    waitpid(child, &status, 0);
    return !good;
}

int main(int argc, char **argv)
{
    unsigned count = argc > 1 ? (unsigned)atoi(argv[1]) : 4;
    double seconds = argc > 2 ? atof(argv[2]) : 5;
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx512bw")) {
        puts("vectors: none");
        return 0;
    }
    for (unsigned who = 1; who <= count; who++)
        if (fork() == 0)
            exit(work(who, seconds));
    int status, bad = 0;
    while (wait(&status) > 0)
        bad |= status;
    bad |= kept_by_the_kernel();
    puts(bad ? "vectors: LOST" : "vectors: kept");
    return bad != 0;
}
