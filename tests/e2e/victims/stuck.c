/* Programs that are really stuck, one for each KIND; each says READY once nothing of it will move again:

     two three            threads that each hold a mutex and ask for the next one's
     self                 a thread that asks again for the mutex that it holds; the main thread waits for its end
     self-alone           the same, without any other thread
     self-watched         a thread that asks again for the mutex that it holds, beside one that could unlock it
     robust               as `two`, with robust mutexes
     pi                   one mutex hands its holder the priority of who waits (PI), the other does not
     recursive            as `two`, with recursive mutexes, each taken twice
     rwlock               as `two`, with rwlocks held for writing
     mixed                a reader waits for a writer, who waits for a mutex of the reader
     join                 a thread joins one that waits for its mutex
     among                `two`, and 98 threads: some wait, some work now and then
     beside-work          `two`, beside a thread that never stops working
     crossed-pi           as `two`, with PI mutexes: the kernel refuses, and glibc parks the thread that closed the ring
     read-held            two rwlocks held for reading; each reader asks to write the other's
     no-signal            two threads wait for a condition that nobody signals
     forked               a child, made while another thread of its parent held the mutex that it now asks for
     lost-wakeup          waits for a semaphore whose only post was taken by somebody else
     spin                 burns CPU
     spin-two             two threads burn CPU

   Where the process that is stuck is another one, READY names it. The threads of a ring are called ring-0, ring-1, ... */

#define _GNU_SOURCE
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#define RING_MAX 3
#define CROWD 98

enum lock_kind { MUTEX, RWLOCK_WRITE, RWLOCK_READ };

static pthread_mutex_t mutexes[RING_MAX];
static pthread_rwlock_t rwlocks[RING_MAX];
static pthread_barrier_t all_hold;
static pthread_t ring[RING_MAX];
static enum lock_kind kind;
static int ring_size;
static int times = 1;
/* Threads of a ring that are about to ask for what they will not get, and how many these will be. */
static atomic_int asking;
static int expected;
static volatile unsigned long work;
static sem_t never, one;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;

static void check(int error, const char *what)
{
    if (error) {
        fprintf(stderr, "%s: %s\n", what, strerror(error));
        exit(2);
    }
}

static void *ring_thread(void *argument)
{
    int index = (int)(long)argument, next = (index + 1) % ring_size;
    char name[16];

    snprintf(name, sizeof name, "ring-%d", index);
    prctl(PR_SET_NAME, name);
    for (int n = 0; n < times; n++) {
        if (kind == MUTEX)
            check(pthread_mutex_lock(&mutexes[index]), "lock");
        else if (kind == RWLOCK_WRITE)
            check(pthread_rwlock_wrlock(&rwlocks[index]), "wrlock");
        else
            check(pthread_rwlock_rdlock(&rwlocks[index]), "rdlock");
    }
    pthread_barrier_wait(&all_hold);
    asking++;
    if (kind == MUTEX)
        pthread_mutex_lock(&mutexes[next]);
    else
        pthread_rwlock_wrlock(&rwlocks[next]);
    fprintf(stderr, "ring-%d came through\n", index);
    exit(3);
}

static void start_ring(int size, enum lock_kind of, const pthread_mutexattr_t *first, const pthread_mutexattr_t *others)
{
    ring_size = expected = size;
    kind = of;
    pthread_barrier_init(&all_hold, NULL, size);
    for (long n = 0; n < size; n++) {
        check(pthread_mutex_init(&mutexes[n], n ? others : first), "mutex");
        check(pthread_rwlock_init(&rwlocks[n], NULL), "rwlock");
        check(pthread_create(&ring[n], NULL, ring_thread, (void *)n), "thread");
    }
}

static void *crowd_thread(void *argument)
{
    long index = (long)argument;
    char name[16];

    snprintf(name, sizeof name, "crowd-%ld", index);
    prctl(PR_SET_NAME, name);
    if (index % 10 == 0)
        for (;;) {
            usleep(20000);
            for (int n = 0; n < 10000; n++)
                work++;
        }
    if (index % 2)
        sem_wait(&never);
    pthread_mutex_t own = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&own);
    for (;;)
        pthread_cond_wait(&condition, &own);
    return NULL;
}

static void *spin_thread(void *argument)
{
    prctl(PR_SET_NAME, "spinner");
    for (;;)
        work++;
    return argument;
}

static void *self_thread(void *argument)
{
    prctl(PR_SET_NAME, "ring-0");
    pthread_mutex_lock(&mutexes[0]);
    asking++;
    pthread_mutex_lock(&mutexes[0]);
    return argument;
}

static void *joined_thread(void *argument)
{
    prctl(PR_SET_NAME, "ring-1");
    asking++;
    pthread_mutex_lock(&mutexes[0]);
    return argument;
}

static void *joining_thread(void *argument)
{
    pthread_t other;

    prctl(PR_SET_NAME, "ring-0");
    pthread_mutex_lock(&mutexes[0]);
    pthread_create(&other, NULL, joined_thread, NULL);
    asking++;
    pthread_join(other, NULL);
    return argument;
}

static void *writer_thread(void *argument)
{
    prctl(PR_SET_NAME, "ring-1");
    pthread_rwlock_wrlock(&rwlocks[0]);
    pthread_barrier_wait(&all_hold);
    asking++;
    pthread_mutex_lock(&mutexes[0]);
    return argument;
}

static void *reader_thread(void *argument)
{
    prctl(PR_SET_NAME, "ring-0");
    pthread_mutex_lock(&mutexes[0]);
    pthread_barrier_wait(&all_hold);
    asking++;
    pthread_rwlock_rdlock(&rwlocks[0]);
    return argument;
}

static void *waiting_thread(void *argument)
{
    prctl(PR_SET_NAME, "waiting");
    pthread_mutex_lock(&mutexes[0]);
    for (;;)
        pthread_cond_wait(&condition, &mutexes[0]);
    return argument;
}

static void *thief_thread(void *argument)
{
    sem_wait(&one);
    return argument;
}

static void *robbed_thread(void *argument)
{
    prctl(PR_SET_NAME, "waiting");
    sem_wait(&one);
    return argument;
}

static void *holding_thread(void *argument)
{
    pthread_mutex_lock(&mutexes[0]);
    asking++;
    for (;;)
        pause();
    return argument;
}

static pthread_t start(void *(*body)(void *), long argument)
{
    pthread_t thread;
    pthread_attr_t attributes;

    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 128 * 1024);
    check(pthread_create(&thread, &attributes, body, (void *)argument), "thread");
    return thread;
}

int main(int count, char **arguments)
{
    const char *name = count > 1 ? arguments[1] : "";
    pthread_mutexattr_t plain, other;
    pthread_t itself = 0;
    pid_t child = 0;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setbuf(stdout, NULL);
    pthread_mutexattr_init(&plain);
    pthread_mutexattr_init(&other);
    sem_init(&never, 0, 0);
    sem_init(&one, 0, 1);
    if (!strcmp(name, "two"))
        start_ring(2, MUTEX, &plain, &plain);
    else if (!strcmp(name, "three"))
        start_ring(3, MUTEX, &plain, &plain);
    else if (!strcmp(name, "self") || !strcmp(name, "self-watched")) {
        expected = 1;
        itself = start(self_thread, 0);
    } else if (!strcmp(name, "self-alone")) {
        puts("READY");
        self_thread(NULL);
    } else if (!strcmp(name, "robust")) {
        pthread_mutexattr_setrobust(&other, PTHREAD_MUTEX_ROBUST);
        start_ring(2, MUTEX, &other, &other);
    } else if (!strcmp(name, "pi")) {
        pthread_mutexattr_setprotocol(&other, PTHREAD_PRIO_INHERIT);
        start_ring(2, MUTEX, &plain, &other);
    } else if (!strcmp(name, "recursive")) {
        times = 2;
        pthread_mutexattr_settype(&other, PTHREAD_MUTEX_RECURSIVE);
        start_ring(2, MUTEX, &other, &other);
    } else if (!strcmp(name, "rwlock"))
        start_ring(2, RWLOCK_WRITE, &plain, &plain);
    else if (!strcmp(name, "mixed")) {
        expected = 2;
        pthread_barrier_init(&all_hold, NULL, 2);
        start(writer_thread, 0);
        start(reader_thread, 0);
    } else if (!strcmp(name, "join"))
        start(joining_thread, 0);
    else if (!strcmp(name, "among")) {
        for (long n = 0; n < CROWD; n++) {
            if (n == CROWD / 2)
                start_ring(2, MUTEX, &plain, &plain);
            start(crowd_thread, n);
        }
    } else if (!strcmp(name, "beside-work")) {
        start_ring(2, MUTEX, &plain, &plain);
        start(spin_thread, 0);
    } else if (!strcmp(name, "crossed-pi")) {
        pthread_mutexattr_setprotocol(&other, PTHREAD_PRIO_INHERIT);
        start_ring(2, MUTEX, &other, &other);
    } else if (!strcmp(name, "read-held"))
        start_ring(2, RWLOCK_READ, &plain, &plain);
    else if (!strcmp(name, "no-signal")) {
        start(waiting_thread, 0);
        start(waiting_thread, 0);
    } else if (!strcmp(name, "lost-wakeup")) {
        pthread_join(start(thief_thread, 0), NULL);
        start(robbed_thread, 0);
    } else if (!strcmp(name, "forked")) {
        start(holding_thread, 0);
        while (!asking)
            usleep(1000);
        child = fork();
        if (child == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            pthread_mutex_lock(&mutexes[0]);
            exit(3);
        }
    } else if (!strcmp(name, "spin"))
        start(spin_thread, 0);
    else if (!strcmp(name, "spin-two")) {
        start(spin_thread, 0);
        start(spin_thread, 0);
    } else {
        fprintf(stderr, "no such kind: %s\n", name);
        return 2;
    }
    while (asking < expected)
        usleep(1000);
    usleep(50000);
    printf(child ? "READY %d\n" : "READY\n", child);
    if (!strcmp(name, "self"))
        pthread_join(itself, NULL);
    for (;;)
        pause();
}
