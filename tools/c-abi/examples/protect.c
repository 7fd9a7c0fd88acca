/* Protects a disk: makes a domain in DIRECTORY, writes to it from several threads, flushes, bookmarks, closes, and reads
 * the disk back as it was at the bookmark.
 *
 *   cc -Wall -Wextra -Werror protect.c -o protect $(pkg-config --cflags --libs tidemark) -lpthread
 *   mkdir /tmp/domain && ./protect /tmp/domain && tidemark verify /tmp/domain
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tidemark.h>

enum {
    THREADS = 4,
    WRITES = 32, /* of each thread */
    WRITE_BYTES = 4096,
    THREAD_BYTES = WRITES * WRITE_BYTES,
    DISK_BYTES = (THREADS + 1) * THREAD_BYTES
};

/* Reports an error and ends: in an example nobody can do better. */
static void must(tidemark_code code, tidemark_error *error, const char *what)
{
    if (code == TIDEMARK_OK)
        return;
    fprintf(stderr, "%s: %s\n", what, tidemark_error_message(error));
    if (tidemark_error_hint(error) != NULL)
        fprintf(stderr, "hint: %s\n", tidemark_error_hint(error));
    tidemark_error_free(error);
    exit(1);
}

/* What the callbacks have told. They come one at a time, but the main thread looks on. */
struct progress {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned durable, failed;
    uint64_t last_lsn;
};

/* A request is durable, or will never be. Called on a thread of the library. */
static void on_done(void *user, uint64_t lsn, const tidemark_error *error)
{
    struct progress *progress = user;
    pthread_mutex_lock(&progress->lock);
    if (error == NULL && lsn > progress->last_lsn)
        progress->durable++;
    else
        progress->failed++;
    progress->last_lsn = lsn;
    pthread_cond_signal(&progress->changed);
    pthread_mutex_unlock(&progress->lock);
}

struct job {
    const tidemark_writer *writer;
    struct progress *progress;
    uint32_t disk;
    unsigned number;
};

/* What thread `number` writes in its `i`th write. */
static void fill(unsigned char *data, unsigned number, unsigned i)
{
    memset(data, (int)(1 + number * WRITES + i), WRITE_BYTES);
}

/* One of the guest's queues: many writes under way, none of them waited for. */
static void *write_much(void *argument)
{
    struct job *job = argument;
    unsigned char data[WRITE_BYTES];
    for (unsigned i = 0; i < WRITES; i++) {
        tidemark_error *error = NULL;
        uint64_t offset = (uint64_t)job->number * THREAD_BYTES + (uint64_t)i * WRITE_BYTES;
        fill(data, job->number, i);
        /* The library has copied `data` when this returns. */
        must(tidemark_submit_write(job->writer, job->disk, offset, data, sizeof data, on_done, job->progress,
                                   NULL, &error),
             error, "submit a write");
    }
    return NULL;
}

static void write_domain(const tidemark_store *store)
{
    tidemark_error *error = NULL;
    tidemark_writer *writer = NULL;
    tidemark_writer_options options = {.size = sizeof options, .owner = "protect.c", .in_flight_max = 16};
    struct progress progress = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0, 0};
    pthread_t threads[THREADS];
    struct job jobs[THREADS];
    uint32_t disk = 0;
    uint64_t lsn = 0;

    must(tidemark_domain_create(store, "example", TIDEMARK_PROBE, &error), error, "make a domain");
    must(tidemark_writer_open(store, &options, &writer, &error), error, "open it for writing");
    must(tidemark_disk_add(writer, "db", "vda", DISK_BYTES, &disk, &error), error, "add a disk");

    for (unsigned n = 0; n < THREADS; n++) {
        jobs[n] = (struct job){writer, &progress, disk, n};
        if (pthread_create(&threads[n], NULL, write_much, &jobs[n]) != 0)
            abort();
    }
    for (unsigned n = 0; n < THREADS; n++)
        pthread_join(threads[n], NULL);

    /* The first write of thread 0 is discarded, and that of thread 1 zeroed, before the bookmark. */
    must(tidemark_submit_unmap(writer, disk, 0, WRITE_BYTES, on_done, &progress, NULL, &error), error, "unmap");
    must(tidemark_submit_zero(writer, disk, THREAD_BYTES, WRITE_BYTES, on_done, &progress, NULL, &error), error,
         "zero");
    must(tidemark_flush(writer, disk, &lsn, &error), error, "flush");

    /* All that was submitted before the flush is durable; its callbacks may still be on their way. */
    pthread_mutex_lock(&progress.lock);
    while (progress.durable + progress.failed < THREADS * WRITES + 2)
        pthread_cond_wait(&progress.changed, &progress.lock);
    pthread_mutex_unlock(&progress.lock);
    printf("%u requests durable, %u failed, flushed at lsn %llu\n", progress.durable, progress.failed,
           (unsigned long long)lsn);
    if (progress.failed != 0)
        exit(1);

    must(tidemark_bookmark(writer, "done", TIDEMARK_CRASH, NULL, &error), error, "bookmark");
    /* Not part of the bookmark. Closing makes it durable and has its callback called. */
    must(tidemark_submit_zero(writer, disk, 0, DISK_BYTES, on_done, &progress, NULL, &error), error, "zero all");
    must(tidemark_writer_close(writer, &error), error, "close");
    if (progress.durable != THREADS * WRITES + 3)
        abort();
}

static void read_domain(const tidemark_store *store)
{
    tidemark_error *error = NULL;
    tidemark_reader *reader = NULL;
    tidemark_disks *disks = NULL;
    tidemark_image *image = NULL;
    tidemark_image_info info = {.size = sizeof info};
    unsigned char data[WRITE_BYTES], wanted[WRITE_BYTES];
    uint64_t lsn = 0;
    size_t got = 0;

    must(tidemark_reader_open(store, NULL, &reader, &error), error, "open it for reading");
    must(tidemark_reader_resolve(reader, "bookmark:done", &lsn, NULL, &error), error, "find the bookmark");
    must(tidemark_reader_disks(reader, lsn, &disks, &error), error, "list disks");
    for (size_t i = 0; i < tidemark_disks_count(disks); i++) {
        const tidemark_disk *disk = tidemark_disks_get(disks, i);
        printf("disk %s/%s, %llu bytes\n", disk->vm, disk->name, (unsigned long long)disk->size_bytes);
    }
    tidemark_disks_free(disks);

    must(tidemark_image_open(reader, "db", "vda", "bookmark:done", &image, &error), error, "open the disk");
    tidemark_reader_close(reader);
    must(tidemark_image_stat(image, &info, &error), error, "look at it");
    if (info.lsn != lsn || info.size_bytes != DISK_BYTES)
        abort();
    for (unsigned n = 0; n < THREADS + 1; n++) {
        for (unsigned i = 0; i < WRITES; i++) {
            uint64_t offset = (uint64_t)n * THREAD_BYTES + (uint64_t)i * WRITE_BYTES;
            must(tidemark_read_at(image, offset, data, sizeof data, &got, &error), error, "read");
            if (n == THREADS || (n < 2 && i == 0))
                memset(wanted, 0, sizeof wanted);
            else
                fill(wanted, n, i);
            if (got != sizeof data || memcmp(data, wanted, sizeof data) != 0) {
                fprintf(stderr, "byte %llu differs\n", (unsigned long long)offset);
                exit(1);
            }
        }
    }
    must(tidemark_read_at(image, DISK_BYTES, data, sizeof data, &got, &error), error, "read at the end");
    if (got != 0)
        abort();
    tidemark_image_close(image);
    printf("read back as written at lsn %llu\n", (unsigned long long)lsn);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: %s DIRECTORY\n", argv[0]);
        return 2;
    }
    tidemark_store store = {.size = sizeof store, .url = argv[1]};
    write_domain(&store);
    read_domain(&store);
    return 0;
}
