/* Healthy programs that look deadlocked to whoever looks carelessly, one for each KIND. Each says READY when it runs.

     crossing             threads take the same mutexes in the same order, as fast as they can
     backing-off          threads take two mutexes in opposite orders, with a time limit, and give up and try again
     semaphore            a mutex used as a semaphore: its holder waits for it, and another thread lets it go
     rare-semaphore       the same, let go every three seconds: two looks see nothing change
     gate-beside-work     the same, beside a thread that never stops working
     gate-beside-pipe     the same, beside a thread that reads from an empty pipe
     condition            idle workers, each with its condition and, behind it in memory, a thread id
     parked               idle workers with a lock of their own making, that looks like glibc's and names a neighbour
     handing-on           mutexes go round a ring of threads; each gives the one up only when it has the next
     writers              as `crossing`, with rwlocks
     joining              threads that are made, take a mutex and are joined, all the time
     shared-mutex         in a container, as root: one thread waits for a mutex whose holder waits for a mutex that
                          another process holds for three seconds; what it waits for looks like the first one's end
     two-containers       the same, with the other process in another container: there its holder has the id that the
                          first thread has here

   Where the process to be looked at is another one, READY names it. Progress goes to standard output once a second as `MOVED n`; what moves is never deadlocked. */

#define _GNU_SOURCE
#include <linux/futex.h>
#include <sched.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LOCKS 3
#define THREADS 4
#define WORKERS 8

struct worker {
    pthread_cond_t wake;
    int tid; /* where a mutex would hold its owner, when the condition is taken for one */
    pthread_mutex_t mutex;
};

/* A place to sleep. Each field stands where a mutex of glibc has another: lock, count, owner, users, kind. */
struct place {
    atomic_int state; /* 2: asleep */
    int woken;
    int neighbour; /* the thread to wake next */
    int sleepers;
    int flags;
};

static pthread_mutex_t mutexes[LOCKS] = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_MUTEX_INITIALIZER, PTHREAD_MUTEX_INITIALIZER};
static pthread_rwlock_t rwlocks[LOCKS] = {PTHREAD_RWLOCK_INITIALIZER, PTHREAD_RWLOCK_INITIALIZER, PTHREAD_RWLOCK_INITIALIZER};
static atomic_ulong moved;
static struct worker workers[WORKERS];
static struct place places[WORKERS];
static atomic_int parked_tids[WORKERS];
/* What several processes have. */
static struct common {
    pthread_mutex_t mutex;
    atomic_int holder, waiter; /* thread ids in their containers */
    atomic_ulong moved;
} *common;

static void work_a_little(unsigned rounds)
{
    for (volatile unsigned n = 0; n < rounds; n++)
        ;
}

static void nap(long us)
{
    struct timespec time = {us / 1000000, us % 1000000 * 1000};

    nanosleep(&time, NULL);
}

static void *crossing(void *argument)
{
    (void)argument;
    prctl(PR_SET_NAME, "crossing");
    for (unsigned n = 0;; n++) {
        int first = n % (LOCKS - 1);

        pthread_mutex_lock(&mutexes[first]);
        work_a_little(200);
        pthread_mutex_lock(&mutexes[first + 1]);
        work_a_little(200);
        /* The first is taken again and given up while the second is held by another: the owners look crossed to
           whoever reads one word before it changes and the other after. */
        pthread_mutex_unlock(&mutexes[first]);
        work_a_little(100);
        pthread_mutex_unlock(&mutexes[first + 1]);
        moved++;
    }
    return NULL;
}

static void *backing_off(void *argument)
{
    int mine = (int)(long)argument % 2;

    prctl(PR_SET_NAME, "backing-off");
    for (;;) {
        struct timespec until;

        pthread_mutex_lock(&mutexes[mine]);
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += 20 * 1000 * 1000;
        if (until.tv_nsec >= 1000000000) {
            until.tv_sec++;
            until.tv_nsec -= 1000000000;
        }
        if (pthread_mutex_timedlock(&mutexes[1 - mine], &until) == 0) {
            moved++;
            pthread_mutex_unlock(&mutexes[1 - mine]);
        }
        pthread_mutex_unlock(&mutexes[mine]);
        nap(mine ? 700 : 1100);
    }
    return NULL;
}

static void *semaphore_taker(void *argument)
{
    (void)argument;
    prctl(PR_SET_NAME, "taker");
    for (;;) {
        pthread_mutex_lock(&mutexes[0]);
        moved++;
    }
    return NULL;
}

static void *semaphore_poster(void *argument)
{
    prctl(PR_SET_NAME, "poster");
    for (;;) {
        nap((long)argument);
        pthread_mutex_unlock(&mutexes[0]);
    }
    return NULL;
}

static void *condition_worker(void *argument)
{
    struct worker *me = argument;

    prctl(PR_SET_NAME, "worker");
    me->tid = (int)syscall(SYS_gettid);
    pthread_mutex_lock(&me->mutex);
    for (;;) {
        pthread_cond_wait(&me->wake, &me->mutex);
        moved++;
    }
    return NULL;
}

static void *condition_boss(void *argument)
{
    (void)argument;
    prctl(PR_SET_NAME, "boss");
    for (unsigned n = 0;; n++) {
        /* Seldom: a worker sleeps through a look and through the second one. */
        nap(400 * 1000);
        pthread_mutex_lock(&workers[n % 2].mutex);
        pthread_cond_signal(&workers[n % 2].wake);
        pthread_mutex_unlock(&workers[n % 2].mutex);
    }
    return NULL;
}

static void *parked_worker(void *argument)
{
    long index = (long)argument;
    struct place *mine = &places[index];

    prctl(PR_SET_NAME, "parked");
    parked_tids[index] = (int)syscall(SYS_gettid);
    while (!parked_tids[index ^ 1])
        nap(1000);
    mine->neighbour = parked_tids[index ^ 1];
    mine->sleepers = 1;
    for (;;) {
        mine->state = 2;
        while (mine->state == 2)
            syscall(SYS_futex, &mine->state, FUTEX_WAIT_PRIVATE, 2, NULL, NULL, 0);
        mine->woken++;
        moved++;
    }
    return NULL;
}

static void *parked_boss(void *argument)
{
    (void)argument;
    prctl(PR_SET_NAME, "boss");
    for (;;) {
        /* Seldom: the neighbours sleep through two looks. */
        nap(3 * 1000 * 1000);
        places[0].state = 0;
        syscall(SYS_futex, &places[0].state, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    }
    return NULL;
}

static void *handing_on(void *argument)
{
    int at = (int)(long)argument;

    /* One thread fewer than locks: each always finds a free one in the end. */
    prctl(PR_SET_NAME, "handing-on");
    pthread_mutex_lock(&mutexes[at]);
    for (;;) {
        int next = (at + 1) % LOCKS;

        pthread_mutex_lock(&mutexes[next]);
        pthread_mutex_unlock(&mutexes[at]);
        at = next;
        work_a_little(300);
        moved++;
    }
    return NULL;
}

static void *writers(void *argument)
{
    (void)argument;
    prctl(PR_SET_NAME, "writer");
    for (unsigned n = 0;; n++) {
        int first = n % (LOCKS - 1);

        pthread_rwlock_wrlock(&rwlocks[first]);
        work_a_little(200);
        pthread_rwlock_wrlock(&rwlocks[first + 1]);
        work_a_little(200);
        pthread_rwlock_unlock(&rwlocks[first]);
        pthread_rwlock_unlock(&rwlocks[first + 1]);
        moved++;
    }
    return NULL;
}

static void *joined(void *argument)
{
    pthread_mutex_lock(&mutexes[0]);
    work_a_little(1000);
    pthread_mutex_unlock(&mutexes[0]);
    return argument;
}

static void *joining(void *argument)
{
    prctl(PR_SET_NAME, "joining");
    for (;;) {
        pthread_t other;

        pthread_mutex_lock(&mutexes[0]);
        if (pthread_create(&other, NULL, joined, argument))
            exit(2);
        work_a_little(1000);
        pthread_mutex_unlock(&mutexes[0]);
        pthread_join(other, NULL);
        moved++;
    }
    return NULL;
}

static void *pipe_reader(void *argument)
{
    int ends[2];
    char byte;

    prctl(PR_SET_NAME, "reader");
    if (pipe(ends) || read(ends[0], &byte, 1) < 1)
        exit(2);
    return argument;
}

static void *spinner(void *argument)
{
    prctl(PR_SET_NAME, "spinner");
    for (;;)
        moved++;
    return argument;
}

/* Holds the common mutex nearly all the time. */
static void *common_holder(void *argument)
{
    prctl(PR_SET_NAME, "holder");
    common->holder = (int)syscall(SYS_gettid);
    for (;;) {
        pthread_mutex_lock(&common->mutex);
        nap(3 * 1000 * 1000);
        pthread_mutex_unlock(&common->mutex);
        nap(20 * 1000);
    }
    return argument;
}

static void *own_waiter(void *argument)
{
    prctl(PR_SET_NAME, "waiter");
    common->waiter = (int)syscall(SYS_gettid);
    for (;;) {
        nap(5000);
        pthread_mutex_lock(&mutexes[0]);
        common->moved++;
        pthread_mutex_unlock(&mutexes[0]);
    }
    return argument;
}

static void *common_waiter(void *argument)
{
    prctl(PR_SET_NAME, "between");
    for (;;) {
        pthread_mutex_lock(&mutexes[0]);
        pthread_mutex_lock(&common->mutex);
        pthread_mutex_unlock(&common->mutex);
        pthread_mutex_unlock(&mutexes[0]);
        nap(10 * 1000);
    }
    return argument;
}

static void start(void *(*body)(void *), void *argument);

/* What runs in a container beside others that have the same memory. */
static void contained(int holds, int waits)
{
    if (waits) {
        start(own_waiter, NULL); /* the first thread, with the id 2 */
        nap(20 * 1000);
        start(common_waiter, NULL);
    }
    if (holds == 1 && fork() == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        common_holder(NULL);
    }
    if (holds == 2)
        start(common_holder, NULL); /* its id is 2 here */
    for (;;)
        pause();
}

/* A process with thread ids of its own, from 1 on; its id here. */
static pid_t contain(int holds, int waits)
{
    int told[2];
    pid_t pid = 0;

    if (pipe(told))
        exit(2);
    if (fork() == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (unshare(CLONE_NEWPID)) {
            perror("unshare");
            exit(2);
        }
        pid = fork();
        if (pid == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            contained(holds, waits);
        }
        if (write(told[1], &pid, sizeof pid) != sizeof pid)
            exit(2);
        wait(NULL);
        exit(2);
    }
    close(told[1]);
    if (read(told[0], &pid, sizeof pid) != sizeof pid)
        exit(2);
    close(told[0]);
    return pid;
}

/* The one to be looked at. */
static pid_t share(int containers)
{
    pthread_mutexattr_t shared;
    pid_t pid;

    common = mmap(NULL, sizeof *common, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (common == MAP_FAILED)
        exit(2);
    pthread_mutexattr_init(&shared);
    pthread_mutexattr_setpshared(&shared, PTHREAD_PROCESS_SHARED);
    pthread_mutex_init(&common->mutex, &shared);
    if (containers == 2)
        contain(2, 0);
    pid = contain(containers == 1, 1);
    while (!common->holder || !common->waiter)
        nap(1000);
    if (common->waiter != 2 || (containers == 2 && common->holder != 2)) {
        fprintf(stderr, "ids %d and %d\n", common->waiter, common->holder);
        exit(2);
    }
    return pid;
}

static void start(void *(*body)(void *), void *argument)
{
    pthread_t thread;

    if (pthread_create(&thread, NULL, body, argument))
        exit(2);
}

int main(int count, char **arguments)
{
    const char *name = count > 1 ? arguments[1] : "";
    pid_t other = 0;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setbuf(stdout, NULL);
    if (!strcmp(name, "crossing"))
        for (long n = 0; n < THREADS; n++)
            start(crossing, NULL);
    else if (!strcmp(name, "backing-off"))
        for (long n = 0; n < THREADS; n++)
            start(backing_off, (void *)n);
    else if (!strcmp(name, "semaphore") || !strcmp(name, "rare-semaphore")) {
        start(semaphore_taker, NULL);
        start(semaphore_poster, (void *)(*name == 's' ? 50000L : 3000000L));
    } else if (!strncmp(name, "gate-", 5)) {
        start(semaphore_taker, NULL);
        start(semaphore_poster, (void *)3000000L);
        start(!strcmp(name, "gate-beside-work") ? spinner : pipe_reader, NULL);
    } else if (!strcmp(name, "shared-mutex"))
        other = share(1);
    else if (!strcmp(name, "two-containers"))
        other = share(2);
    else if (!strcmp(name, "condition")) {
        for (int n = 0; n < WORKERS; n++) {
            pthread_cond_init(&workers[n].wake, NULL);
            pthread_mutex_init(&workers[n].mutex, NULL);
            start(condition_worker, &workers[n]);
        }
        start(condition_boss, NULL);
    } else if (!strcmp(name, "parked")) {
        for (long n = 0; n < WORKERS; n++)
            start(parked_worker, (void *)n);
        start(parked_boss, NULL);
    } else if (!strcmp(name, "handing-on"))
        for (long n = 0; n < LOCKS - 1; n++)
            start(handing_on, (void *)n);
    else if (!strcmp(name, "writers"))
        for (long n = 0; n < THREADS; n++)
            start(writers, NULL);
    else if (!strcmp(name, "joining"))
        for (long n = 0; n < THREADS; n++)
            start(joining, NULL);
    else {
        fprintf(stderr, "no such kind: %s\n", name);
        return 2;
    }
    printf(other ? "READY %d\n" : "READY\n", other);
    for (;;) {
        sleep(1);
        if (printf("MOVED %lu\n", atomic_load(common ? &common->moved : &moved)) < 0)
            return 0;
    }
}
