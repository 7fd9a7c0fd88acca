/* Tidemark: continuous data protection of disks whose only database is a bucket.
 *
 * Made by cbindgen from tools/c-abi; do not edit. The manual is tidemark(3). */

#ifndef TIDEMARK_H
#define TIDEMARK_H

#include <stddef.h>
#include <stdint.h>

/**
 * The store is probed whenever a writer attaches to it; one that does not fence is refused.
 */
#define TIDEMARK_PROBE 0

/**
 * The caller vouches that there is only ever one writer, whatever the store does.
 */
#define TIDEMARK_ATTESTED 1

/**
 * Bytes of one write at most.
 */
#define TIDEMARK_WRITE_BYTES_MAX (32 << 20)

/**
 * A bookmark at which disks are as after pulling the plug.
 */
#define TIDEMARK_CRASH 0

/**
 * A bookmark at which the guest's file systems were flushed or frozen.
 */
#define TIDEMARK_FILE_SYSTEM 1

/**
 * A bookmark at which the guest's applications were quiesced.
 */
#define TIDEMARK_APPLICATION 2

/**
 * A list of disks.
 */
typedef struct tidemark_disks tidemark_disks;

/**
 * Why a call failed. Owned by whoever was given it: freed by tidemark_error_free. Immutable, so any thread may look at it.
 */
typedef struct tidemark_error tidemark_error;

/**
 * One disk at one point in time. It never changes, and outlives the reader that it came from. Any threads may use it at once.
 */
typedef struct tidemark_image tidemark_image;

/**
 * A domain opened for reading: its history as of the last look. Any threads may use it at once.
 */
typedef struct tidemark_reader tidemark_reader;

/**
 * Owns a domain and writes to it. Any threads may use it at once; closing it is the last use.
 */
typedef struct tidemark_writer tidemark_writer;

/**
 * How a call ended; one of the codes below. Codes are only ever added.
 */
typedef int32_t tidemark_code;

/**
 * Where a domain is. Set size to sizeof(tidemark_store) and what is not needed to zero. Only read during the call.
 */
typedef struct tidemark_store {
  /**
   * sizeof(tidemark_store).
   */
  size_t size;
  /**
   * A directory, or a URL as on the command line: file:///DIR, s3://BUCKET/PREFIX?endpoint=URL&region=R, ...
   */
  const char *url;
  /**
   * For s3://, the access key; NULL: the environment (AWS_*) or the AWS profile says it.
   */
  const char *s3_key_id;
  /**
   * Its secret; required where s3_key_id is given.
   */
  const char *s3_secret;
} tidemark_store;

/**
 * Limits of a reader. Set size to sizeof(tidemark_reader_options) and the rest to zero, which stands for the default. Only read
 * during the call.
 */
typedef struct tidemark_reader_options {
  /**
   * sizeof(tidemark_reader_options).
   */
  size_t size;
  /**
   * Bytes of disk contents kept ready. Default: 256 MiB.
   */
  uint64_t cache_bytes_max;
  /**
   * Longest time for one call, then it fails with TIDEMARK_RETRY. Default: 30000.
   */
  uint64_t deadline_ms;
  /**
   * Threads that do I/O and decode. Default: 2.
   */
  uint32_t threads_max;
} tidemark_reader_options;

/**
 * A disk as it was at some LSN. Belongs to the list that it came from. Members are only ever added, at the end.
 */
typedef struct tidemark_disk {
  /**
   * Its number, unique in the domain.
   */
  uint32_t disk;
  /**
   * The VM that it belongs to.
   */
  const char *vm;
  /**
   * Its name within the VM.
   */
  const char *name;
  /**
   * Its size then.
   */
  uint64_t size_bytes;
  /**
   * From which LSN on it can be restored; 0 if it cannot be at the LSN that was asked about.
   */
  uint64_t consistent_from;
} tidemark_disk;

/**
 * What an image shows. Set size to sizeof(tidemark_image_info) before the call.
 */
typedef struct tidemark_image_info {
  /**
   * sizeof(tidemark_image_info).
   */
  size_t size;
  /**
   * Size of the disk at the point.
   */
  uint64_t size_bytes;
  /**
   * The point: the last LSN that the image includes.
   */
  uint64_t lsn;
  /**
   * When that was, in nanoseconds since 1970.
   */
  uint64_t time_ns;
  /**
   * The disk's number.
   */
  uint32_t disk;
} tidemark_image_info;

/**
 * Tells that a submitted request is durable (error is NULL) or that the writer stopped before (the request may or may not be
 * part of the domain then). user and lsn are those of the request; error is valid during the callback only.
 *
 * Called exactly once for each request that was accepted, on a thread of the library, one at a time and in the order of LSNs.
 * It must not wait, throw or jump out. It may submit further requests; where submitting would have to wait for room
 * among those in flight, it fails with TIDEMARK_RETRY instead.
 */
typedef void (*tidemark_done)(void *user, uint64_t lsn, const struct tidemark_error *error);

/**
 * Limits and habits of a writer. Set size to sizeof(tidemark_writer_options) and the rest to zero, which stands for the
 * default. Only read during the call.
 */
typedef struct tidemark_writer_options {
  /**
   * sizeof(tidemark_writer_options).
   */
  size_t size;
  /**
   * Written into the claim, for people: which machine or program this is. NULL: "tidemark-c".
   */
  const char *owner;
  /**
   * A segment is put into the bucket once it holds so many bytes of writes, at most 128 MiB. Default: 64 MiB.
   */
  uint64_t segment_bytes_max;
  /**
   * A segment is put into the bucket once its first write is this old: the RPO. Default: 5000.
   */
  uint64_t age_ms_max;
  /**
   * Bytes of writes held in memory; beyond it submitting waits. Default: 384 MiB, or what the segments need.
   */
  uint64_t buffer_bytes_max;
  /**
   * Submitted requests whose callback has not begun; beyond it submitting waits, and has what is there sent without waiting
   * for age_ms_max. At most 65536. Default: 1024.
   */
  uint32_t in_flight_max;
  /**
   * Threads that compress and do I/O. Default: 2.
   */
  uint32_t threads_max;
  /**
   * TIDEMARK_PROBE or TIDEMARK_ATTESTED.
   */
  uint32_t attach;
} tidemark_writer_options;

/**
 * How a writer is doing. Set size to sizeof(tidemark_status) before the call.
 */
typedef struct tidemark_status {
  /**
   * sizeof(tidemark_status).
   */
  size_t size;
  /**
   * Newest LSN given to a request.
   */
  uint64_t logged_lsn;
  /**
   * Everything through here is durable.
   */
  uint64_t committed_lsn;
  /**
   * Bytes held in memory for what is not durable.
   */
  uint64_t buffered_bytes;
  /**
   * How old the oldest write is that is not durable: the RPO in effect.
   */
  uint64_t rpo_ms;
  /**
   * Requests to the store that failed since one last succeeded; above 0 the writer is trying again.
   */
  uint32_t failures_in_a_row;
  /**
   * Why the writer stopped, if it did: then every request fails with this code.
   */
  tidemark_code stopped;
} tidemark_status;

/**
 * Reads what a disk holds, len bytes from offset on, into data. Returns 0, or an errno if it cannot.
 *
 * Called during tidemark_disk_seed, on the thread that called it, for one range after the other. It may wait; it must not throw
 * or jump out.
 */
typedef int (*tidemark_source)(void *user, uint64_t offset, void *data, size_t len);

/**
 * Done.
 */
#define TIDEMARK_OK 0

/**
 * It is proven not to be there: a domain, a disk, a bookmark.
 */
#define TIDEMARK_NOT_FOUND 1

/**
 * It may work later, unchanged: the store is slow or out of reach, the writer was closed, or a callback may not wait.
 */
#define TIDEMARK_RETRY 2

/**
 * It will never work as asked: a wrong argument, a point before the history, a store that cannot fence.
 */
#define TIDEMARK_FIX_REQUEST 3

/**
 * Credentials are missing or lack the right.
 */
#define TIDEMARK_DENIED 4

/**
 * Another writer has taken the domain over: stop.
 */
#define TIDEMARK_FENCED 5

/**
 * Stored data is damaged or missing.
 */
#define TIDEMARK_DATA_LOSS 6

/**
 * A bug of the library. It went no further than this call.
 */
#define TIDEMARK_INTERNAL 7

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The code of an error; TIDEMARK_OK if there is none (NULL).
 */
tidemark_code tidemark_error_code(const struct tidemark_error *error);

/**
 * One line for people, in UTF-8: what failed, and why. Valid as long as the error; an empty text for NULL.
 */
const char *tidemark_error_message(const struct tidemark_error *error);

/**
 * What a person can do about it, or NULL if that is not known. Valid as long as the error.
 */
const char *tidemark_error_hint(const struct tidemark_error *error);

/**
 * Frees an error; NULL is fine.
 */
void tidemark_error_free(struct tidemark_error *error);

/**
 * The library's version, such as "0.1.0". Static.
 */
const char *tidemark_version(void);

/**
 * Opens the domain of a store for reading. Waits; options may be NULL. On success *reader is a handle, to be closed by
 * tidemark_reader_close; else it is NULL.
 */
tidemark_code tidemark_reader_open(const struct tidemark_store *store,
                                   const struct tidemark_reader_options *options,
                                   struct tidemark_reader **reader,
                                   struct tidemark_error **error);

/**
 * Closes a reader; its images stay. No other call on the handle may be under way. NULL is fine.
 */
void tidemark_reader_close(struct tidemark_reader *reader);

/**
 * Looks for what was written since. Waits.
 */
tidemark_code tidemark_reader_refresh(const struct tidemark_reader *reader,
                                      struct tidemark_error **error);

/**
 * The point that a text names: latest, lsn:N, an RFC 3339 time, a span back from now such as -10m, or bookmark:NAME. time_ns,
 * nanoseconds since 1970, may be NULL. Does not wait.
 */
tidemark_code tidemark_reader_resolve(const struct tidemark_reader *reader,
                                      const char *point,
                                      uint64_t *lsn,
                                      uint64_t *time_ns,
                                      struct tidemark_error **error);

/**
 * The disks that exist at an LSN, by number. On success *disks is a list, to be freed by tidemark_disks_free; else it is NULL. Does
 * not wait.
 */
tidemark_code tidemark_reader_disks(const struct tidemark_reader *reader,
                                    uint64_t lsn,
                                    struct tidemark_disks **disks,
                                    struct tidemark_error **error);

/**
 * How many disks there are in a list; 0 for NULL.
 */
size_t tidemark_disks_count(const struct tidemark_disks *disks);

/**
 * A disk of a list, counted from 0; NULL beyond its end. Valid as long as the list.
 */
const struct tidemark_disk *tidemark_disks_get(const struct tidemark_disks *disks, size_t index);

/**
 * Frees a list; NULL is fine.
 */
void tidemark_disks_free(struct tidemark_disks *disks);

/**
 * Opens a disk as it was at the point that a text names (see tidemark_reader_resolve). Does not wait. On success *image is a handle,
 * to be closed by tidemark_image_close; else it is NULL.
 */
tidemark_code tidemark_image_open(const struct tidemark_reader *reader,
                                  const char *vm,
                                  const char *name,
                                  const char *point,
                                  struct tidemark_image **image,
                                  struct tidemark_error **error);

/**
 * Closes an image. No other call on the handle may be under way. NULL is fine.
 */
void tidemark_image_close(struct tidemark_image *image);

/**
 * Tells what an image shows. Does not wait.
 */
tidemark_code tidemark_image_stat(const struct tidemark_image *image,
                                  struct tidemark_image_info *info,
                                  struct tidemark_error **error);

/**
 * Reads up to len bytes from offset on into buffer; every byte was verified. *read is how many: fewer than len only at the end of
 * the disk, 0 beyond it. Blocks that nobody knows are an error, never zeros. What buffer holds after an error is undefined.
 * Waits for the store where the bytes are not at hand.
 */
tidemark_code tidemark_read_at(const struct tidemark_image *image,
                               uint64_t offset,
                               void *buffer,
                               size_t len,
                               size_t *read,
                               struct tidemark_error **error);

/**
 * Makes a domain in a bucket, or below a prefix, that holds none; a directory has to be there. Tests first whether the store
 * keeps the promises that a domain's safety rests on; attach is TIDEMARK_PROBE or TIDEMARK_ATTESTED. Waits.
 */
tidemark_code tidemark_domain_create(const struct tidemark_store *store,
                                     const char *name,
                                     uint32_t attach,
                                     struct tidemark_error **error);

/**
 * Submits a write: of two that overlap the one submitted later wins. Waits only for room. offset and len are multiples of
 * 512; len is at most TIDEMARK_WRITE_BYTES_MAX. data is copied. done and lsn may be NULL. Where this fails, done is not called.
 */
tidemark_code tidemark_submit_write(const struct tidemark_writer *writer,
                                    uint32_t disk,
                                    uint64_t offset,
                                    const void *data,
                                    size_t len,
                                    tidemark_done done,
                                    void *user,
                                    uint64_t *lsn,
                                    struct tidemark_error **error);

/**
 * Submits zeros. As tidemark_submit_write, with a len of any size.
 */
tidemark_code tidemark_submit_zero(const struct tidemark_writer *writer,
                                   uint32_t disk,
                                   uint64_t offset,
                                   uint64_t len,
                                   tidemark_done done,
                                   void *user,
                                   uint64_t *lsn,
                                   struct tidemark_error **error);

/**
 * Submits a discard: the range reads as zeros and counts as a hole. As tidemark_submit_zero.
 */
tidemark_code tidemark_submit_unmap(const struct tidemark_writer *writer,
                                    uint32_t disk,
                                    uint64_t offset,
                                    uint64_t len,
                                    tidemark_done done,
                                    void *user,
                                    uint64_t *lsn,
                                    struct tidemark_error **error);

/**
 * Submits a flush of a disk: done tells that it, and so everything before it, is durable. Sends what is there without waiting
 * for age_ms_max. Otherwise as tidemark_submit_write.
 */
tidemark_code tidemark_submit_flush(const struct tidemark_writer *writer,
                                    uint32_t disk,
                                    tidemark_done done,
                                    void *user,
                                    uint64_t *lsn,
                                    struct tidemark_error **error);

/**
 * Submits a name for this point in time, of a level as for tidemark_bookmark. As tidemark_submit_flush.
 */
tidemark_code tidemark_submit_bookmark(const struct tidemark_writer *writer,
                                       const char *name,
                                       uint32_t level,
                                       tidemark_done done,
                                       void *user,
                                       uint64_t *lsn,
                                       struct tidemark_error **error);

/**
 * Takes the domain of a store over: any other writer of it is fenced. Waits; options may be NULL. On success *writer is a
 * handle, to be closed by tidemark_writer_close or tidemark_writer_abort; else it is NULL.
 */
tidemark_code tidemark_writer_open(const struct tidemark_store *store,
                                   const struct tidemark_writer_options *options,
                                   struct tidemark_writer **writer,
                                   struct tidemark_error **error);

/**
 * Makes everything durable, has every callback called, and frees the handle, also if it fails. Waits: as long as the store is
 * out of reach, for one that must not, see tidemark_writer_abort. No other call on the handle may be under way. In a
 * callback it fails and the handle stays; NULL is fine.
 */
tidemark_code tidemark_writer_close(struct tidemark_writer *writer,
                                    struct tidemark_error **error);

/**
 * Frees the handle as a crash would: what is not durable may be lost, and its callbacks are called with TIDEMARK_RETRY. Waits for
 * callbacks only. Otherwise as tidemark_writer_close.
 */
tidemark_code tidemark_writer_abort(struct tidemark_writer *writer,
                                    struct tidemark_error **error);

/**
 * Tells how the writer is doing. Does not wait.
 */
tidemark_code tidemark_writer_status(const struct tidemark_writer *writer,
                                     struct tidemark_status *status,
                                     struct tidemark_error **error);

/**
 * Adds a disk that holds zeros, and waits until that is durable. *disk is its number in all other calls. size_bytes is a
 * multiple of 512.
 */
tidemark_code tidemark_disk_add(const struct tidemark_writer *writer,
                                const char *vm,
                                const char *name,
                                uint64_t size_bytes,
                                uint32_t *disk,
                                struct tidemark_error **error);

/**
 * Adds a disk that holds something already: its blocks are unknown, and it is not restorable, until tidemark_disk_seed has
 * brought them. Otherwise as tidemark_disk_add. Its guest may write from now on.
 */
tidemark_code tidemark_disk_add_existing(const struct tidemark_writer *writer,
                                         const char *vm,
                                         const char *name,
                                         uint64_t size_bytes,
                                         uint32_t *disk,
                                         struct tidemark_error **error);

/**
 * Brings the existing contents of a disk into the domain, and waits until it is restorable: from *lsn on, which may be NULL. Its
 * guest may go on writing, if each write is on the disk before it is submitted: then what read finds has it, or it wins over
 * what read found. A seed that failed, or was cut short by a crash, is started again by the same call.
 */
tidemark_code tidemark_disk_seed(const struct tidemark_writer *writer,
                                 uint32_t disk,
                                 tidemark_source read,
                                 void *user,
                                 uint64_t *lsn,
                                 struct tidemark_error **error);

/**
 * Finds a disk of the domain by its names: its number, and its size now. size_bytes may be NULL. Does not wait.
 */
tidemark_code tidemark_disk_find(const struct tidemark_writer *writer,
                                 const char *vm,
                                 const char *name,
                                 uint32_t *disk,
                                 uint64_t *size_bytes,
                                 struct tidemark_error **error);

/**
 * Changes the size of a disk, a multiple of 512, and waits until that is durable. What it gains is zeros; what it loses is
 * gone for good. lsn may be NULL.
 */
tidemark_code tidemark_disk_resize(const struct tidemark_writer *writer,
                                   uint32_t disk,
                                   uint64_t size_bytes,
                                   uint64_t *lsn,
                                   struct tidemark_error **error);

/**
 * Takes a disk out of the domain, and waits until that is durable; its history stays. lsn may be NULL.
 */
tidemark_code tidemark_disk_remove(const struct tidemark_writer *writer,
                                   uint32_t disk,
                                   uint64_t *lsn,
                                   struct tidemark_error **error);

/**
 * Writes bytes and waits until they are durable, which takes up to age_ms_max unless somebody flushes. offset and len are
 * multiples of 512; len is at most TIDEMARK_WRITE_BYTES_MAX. data is copied. lsn may be NULL.
 */
tidemark_code tidemark_write(const struct tidemark_writer *writer,
                             uint32_t disk,
                             uint64_t offset,
                             const void *data,
                             size_t len,
                             uint64_t *lsn,
                             struct tidemark_error **error);

/**
 * Writes zeros and waits until they are durable. offset and len are multiples of 512, len of any size. lsn may be NULL.
 */
tidemark_code tidemark_zero(const struct tidemark_writer *writer,
                            uint32_t disk,
                            uint64_t offset,
                            uint64_t len,
                            uint64_t *lsn,
                            struct tidemark_error **error);

/**
 * Discards a range, which reads as zeros and counts as a hole, and waits until that is durable. As tidemark_zero.
 */
tidemark_code tidemark_unmap(const struct tidemark_writer *writer,
                             uint32_t disk,
                             uint64_t offset,
                             uint64_t len,
                             uint64_t *lsn,
                             struct tidemark_error **error);

/**
 * Records a flush of a disk and waits until it, and so everything before it, is durable. Does not wait for age_ms_max. lsn may
 * be NULL.
 */
tidemark_code tidemark_flush(const struct tidemark_writer *writer,
                             uint32_t disk,
                             uint64_t *lsn,
                             struct tidemark_error **error);

/**
 * Names this point in time and waits until that, and so everything before it, is durable. level is TIDEMARK_CRASH,
 * TIDEMARK_FILE_SYSTEM or TIDEMARK_APPLICATION. lsn may be NULL.
 */
tidemark_code tidemark_bookmark(const struct tidemark_writer *writer,
                                const char *name,
                                uint32_t level,
                                uint64_t *lsn,
                                struct tidemark_error **error);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* TIDEMARK_H */
