/* Copyright (c) 2026 The umbra.rollback authors
 * GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Counts the system calls of a process, its threads and its children that change something (or only read, or take a
 * name), and strikes just before one of them: all are killed, or that one call fails without being made, or something
 * else is done first. tracer.py says what for. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef __x86_64__
#error "registers are read as those of x86_64"
#endif

#define COUNTED 1 /* what the filter tells of a call */
#define MOST 4096

#define OUTPUT -2

/* A call, and the argument (from 0) that has flags of open(2), or -1: only some of its calls change something. OUTPUT:
 * what a program says goes to memory of ours, where no write is refused; it is not counted. */
typedef struct {
    int number, flags;
} Call;

static const Call CHANGING[] = {
    {SYS_open, 1},         {SYS_openat, 2},        {SYS_creat, -1},      {SYS_mkdir, -1},
    {SYS_mkdirat, -1},     {SYS_mknod, -1},        {SYS_mknodat, -1},    {SYS_rename, -1},
    {SYS_renameat, -1},    {SYS_renameat2, -1},    {SYS_link, -1},       {SYS_linkat, -1},
    {SYS_symlink, -1},     {SYS_symlinkat, -1},    {SYS_unlink, -1},     {SYS_unlinkat, -1},
    {SYS_rmdir, -1},       {SYS_write, OUTPUT},        {SYS_pwrite64, -1},   {SYS_writev, OUTPUT},
    {SYS_pwritev, -1},     {SYS_copy_file_range, -1}, {SYS_sendfile, -1}, {SYS_truncate, -1},
    {SYS_ftruncate, -1},   {SYS_fallocate, -1},    {SYS_chmod, -1},      {SYS_fchmod, -1},
    {SYS_fchmodat, -1},    {SYS_chown, -1},        {SYS_fchown, -1},     {SYS_lchown, -1},
    {SYS_fchownat, -1},    {SYS_utimensat, -1},    {SYS_setxattr, -1},   {SYS_fsetxattr, -1},
    {SYS_lsetxattr, -1},   {SYS_removexattr, -1},  {SYS_fremovexattr, -1}, {SYS_lremovexattr, -1},
    {SYS_fsync, -1},       {SYS_fdatasync, -1},    {SYS_sync, -1},       {SYS_syncfs, -1},
};
static const Call READING[] = {
    {SYS_open, -1},      {SYS_openat, -1},    {SYS_read, -1},      {SYS_pread64, -1},  {SYS_preadv, -1},
    {SYS_readlink, -1},  {SYS_readlinkat, -1}, {SYS_getdents64, -1}, {SYS_stat, -1},    {SYS_lstat, -1},
    {SYS_fstat, -1},     {SYS_newfstatat, -1}, {SYS_statx, -1},     {SYS_getxattr, -1}, {SYS_fgetxattr, -1},
    {SYS_listxattr, -1}, {SYS_flistxattr, -1}, {SYS_flock, -1},     {SYS_statfs, -1},  {SYS_fstatfs, -1},
    {SYS_lseek, -1},
};
static const Call NAMING[] = {
    {SYS_open, -1},      {SYS_openat, -1},     {SYS_stat, -1},      {SYS_lstat, -1},     {SYS_newfstatat, -1},
    {SYS_statx, -1},     {SYS_mkdir, -1},      {SYS_mkdirat, -1},   {SYS_mknod, -1},     {SYS_mknodat, -1},
    {SYS_rename, -1},    {SYS_renameat, -1},   {SYS_renameat2, -1}, {SYS_link, -1},      {SYS_linkat, -1},
    {SYS_symlink, -1},   {SYS_symlinkat, -1},  {SYS_unlink, -1},    {SYS_unlinkat, -1},  {SYS_rmdir, -1},
    {SYS_readlink, -1},  {SYS_readlinkat, -1}, {SYS_chmod, -1},     {SYS_fchmodat, -1},  {SYS_chown, -1},
    {SYS_lchown, -1},    {SYS_fchownat, -1},   {SYS_utimensat, -1}, {SYS_setxattr, -1},  {SYS_lsetxattr, -1},
    {SYS_getxattr, -1},  {SYS_lgetxattr, -1},  {SYS_listxattr, -1}, {SYS_llistxattr, -1}, {SYS_removexattr, -1},
    {SYS_lremovexattr, -1}, {SYS_truncate, -1},
};
static const struct {
    const Call *calls;
    size_t count;
} SETS[] = {
    {CHANGING, sizeof CHANGING / sizeof *CHANGING},
    {READING, sizeof READING / sizeof *READING},
    {NAMING, sizeof NAMING / sizeof *NAMING},
};

static unsigned add(struct sock_filter *program, unsigned at, const Call *calls, size_t count)
{
    const unsigned write = O_WRONLY | O_RDWR | O_CREAT | O_TRUNC;

    for (size_t i = 0; i < count; i++) {
        if (calls[i].flags == OUTPUT) {
            program[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, calls[i].number, 0, 4);
            program[at++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args));
            program[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, STDERR_FILENO, 0, 1);
            program[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE | COUNTED);
            program[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
            continue;
        }
        if (calls[i].flags < 0) {
            program[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, calls[i].number, 0, 1);
            program[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE | COUNTED);
            continue;
        }
        program[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, calls[i].number, 0, 4);
        program[at++] = (struct sock_filter)BPF_STMT(
            BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args) + 8 * (unsigned)calls[i].flags);
        program[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, write, 0, 1);
        program[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE | COUNTED);
        program[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    }
    return at;
}

/* In the child: be traced from here on, at the calls of that set. 0, or -1. */
int tracer_enter(int set)
{
    struct sock_filter program[256] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
    };
    struct sock_fprog filter = {1, program};

    filter.len = (unsigned short)add(program, 1, SETS[set].calls, SETS[set].count);
    program[filter.len++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    if (geteuid() != 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        return -1;
    if (ptrace(PTRACE_TRACEME, 0, 0, 0) || raise(SIGSTOP))
        return -1;
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter);
}

typedef struct {
    long count;   /* calls that were counted */
    long number;  /* of the call that was struck, or -1 */
    int status;   /* how the process ended, as waitpid tells it */
} Told;

typedef struct {
    pid_t pids[MOST];
    size_t count;
} Known;

static int is_new(Known *known, pid_t pid)
{
    for (size_t i = 0; i < known->count; i++)
        if (known->pids[i] == pid)
            return 0;
    if (known->count < MOST)
        known->pids[known->count++] = pid;
    return 1;
}

static void forget(Known *known, pid_t pid)
{
    for (size_t i = 0; i < known->count; i++)
        if (known->pids[i] == pid)
            known->pids[i--] = known->pids[--known->count];
}

/* Follow `child`, which is about to enter, until it and all that it started have ended. At call number `at` (from 1, 0:
 * never) `meddle` is called first, unless it is NULL; or else all are killed (`error` 0), or the call fails with `error`.
 * 0, or -errno. */
int tracer_follow(pid_t child, long at, int error, void (*meddle)(void), Told *told)
{
    const long options = PTRACE_O_TRACESECCOMP | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE |
                         PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL;
    Known known = {{0}, 0};

    *told = (Told){0, -1, 0};
    for (;;) {
        int status, signal = 0;
        pid_t pid = waitpid(-1, &status, __WALL);

        if (pid < 0)
            return errno == ECHILD ? 0 : errno == EINTR ? -EINTR : -errno;
        if (WIFEXITED(status) || WIFSIGNALED(status)) {
            forget(&known, pid);
            if (pid == child)
                told->status = status;
            continue;
        }
        if (is_new(&known, pid)) {
            if (pid == child && ptrace(PTRACE_SETOPTIONS, pid, 0, options))
                return -errno;
            if (WSTOPSIG(status) == SIGSTOP) {
                ptrace(PTRACE_CONT, pid, 0, 0);
                continue;
            }
        }
        if (status >> 8 == (SIGTRAP | PTRACE_EVENT_SECCOMP << 8)) {
            told->count++;
            if (told->count == at) {
                struct user_regs_struct registers;

                ptrace(PTRACE_GETREGS, pid, 0, &registers);
                told->number = (long)registers.orig_rax;
                if (meddle)
                    meddle();
                else if (!error) {
                    for (size_t i = 0; i < known.count; i++)
                        kill(known.pids[i], SIGKILL);
                    continue;
                } else {
                    registers.orig_rax = (unsigned long long)-1;
                    registers.rax = (unsigned long long)-(long long)error;
                    ptrace(PTRACE_SETREGS, pid, 0, &registers);
                }
            }
        } else if (status >> 16 == 0 && WSTOPSIG(status) != SIGTRAP)
            signal = WSTOPSIG(status);
        ptrace(PTRACE_CONT, pid, 0, signal);
    }
}
