/* A healthy server: eight threads accept and answer, each answer made under two locks.

     idle        nobody asks
     busy        a child process asks over eight connections, as fast as it gets answers

   It says READY once every connection has been answered, and while somebody asks `SERVED n` once a second. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define WORKERS 8

static pthread_mutex_t accounts = PTHREAD_MUTEX_INITIALIZER, journal = PTHREAD_MUTEX_INITIALIZER;
static int listener;
static struct sockaddr_in address;
static atomic_ulong served, met;

static void fail(const char *what)
{
    perror(what);
    exit(2);
}

static void work(unsigned rounds)
{
    for (volatile unsigned n = 0; n < rounds; n++)
        ;
}

static void *serving(void *argument)
{
    char request[16];

    prctl(PR_SET_NAME, "serving");
    for (;;) {
        int client = accept(listener, NULL, NULL), first = 1;

        while (client >= 0 && read(client, request, sizeof request) > 0) {
            pthread_mutex_lock(&accounts);
            work(3000);
            pthread_mutex_lock(&journal);
            work(1000);
            pthread_mutex_unlock(&journal);
            pthread_mutex_unlock(&accounts);
            work(10000);
            if (write(client, "done", 4) != 4)
                break;
            served++;
            met += first;
            first = 0;
        }
        close(client);
    }
    return argument;
}

static void *asking(void *argument)
{
    char answer[16];
    int server = socket(AF_INET, SOCK_STREAM, 0);

    prctl(PR_SET_NAME, "asking");
    if (connect(server, (struct sockaddr *)&address, sizeof address))
        fail("connect");
    while (write(server, "please", 6) == 6 && read(server, answer, sizeof answer) > 0)
        ;
    exit(2);
    return argument;
}

int main(int count, char **arguments)
{
    int busy = count > 1 && !strcmp(arguments[1], "busy");
    socklen_t size = sizeof address;
    pthread_t thread;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setbuf(stdout, NULL);
    listener = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 64))
        fail("listen");
    if (getsockname(listener, (struct sockaddr *)&address, &size))
        fail("getsockname");
    if (busy && fork() == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (long n = 0; n < WORKERS; n++)
            pthread_create(&thread, NULL, asking, (void *)n);
        for (;;)
            pause();
    }
    for (long n = 0; n < WORKERS; n++)
        pthread_create(&thread, NULL, serving, (void *)n);
    while (busy && met < WORKERS)
        usleep(1000);
    puts("READY");
    for (;;) {
        sleep(1);
        if (busy)
            printf("SERVED %lu\n", atomic_load(&served));
    }
}
