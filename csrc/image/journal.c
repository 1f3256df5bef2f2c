/* journal: see journal.h.  Here: the journal of an open upper.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "image/journal.h"

#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hook.h"
#include "image/journal_format.h"

struct journal {
    struct file *file; /* NULL: in memory only */
    struct journal_header header;
    uint32_t seed; /* of the records' CRCs */
    uint64_t last_sequence;
    struct journal_record *ring; /* record s in place s % nr_slots */
};

static enum obd_status write_header(struct journal *journal)
{
    return journal->file == NULL ? OBD_OK : journal_write_header(journal->file, &journal->header);
}

/* A file of its full size, every block of it allocated: an append must not meet
 * a full disk. */
static enum obd_status make_file(struct journal *journal, const char *path)
{
    enum obd_status status = file_open(path, O_RDWR | O_CREAT | O_TRUNC, 0600, &journal->file);
    if (status != OBD_OK)
        return status;
    uint64_t size = JOURNAL_HEADER_SIZE + journal->header.nr_slots * JOURNAL_RECORD_SIZE;
    status = file_truncate(journal->file, size);
    if (status == OBD_OK)
        status = file_reserve(journal->file, 0, size);
    if (status == OBD_OK)
        status = write_header(journal);
    return status == OBD_OK ? file_sync_data(journal->file) : status;
}

/* The finished file to its place, in one step; opened again, so that messages
 * name it by that.  The name must survive a power cut: the header tells the next
 * start how much of the index file was surely flushed. */
static enum obd_status move_file(struct journal *journal, const char *new_path, const char *path)
{
    enum obd_status status = file_rename(new_path, path);
    if (status != OBD_OK)
        return status;
    file_close(journal->file);
    journal->file = NULL;
    status = file_open(path, O_RDWR, 0, &journal->file);
    return status == OBD_OK ? file_sync_folder_of(path) : status;
}

static enum obd_status make_file_at(struct journal *journal, const char *path)
{
    size_t size = strlen(path) + sizeof ".new";
    char *new_path = malloc(size);
    if (new_path == NULL)
        return status_set(OBD_E_NO_MEMORY, "no memory to make the journal %s", path);
    snprintf(new_path, size, "%s.new", path);
    enum obd_status status = make_file(journal, new_path);
    HOOK("journal.made");
    if (status == OBD_OK)
        status = move_file(journal, new_path, path);
    if (status != OBD_OK)
        file_remove(new_path);
    free(new_path);
    return status;
}

/* Takes over the journal file that lies at path, whose records have all been dealt
 * with: on a full disk there may be no room for another.  One write of the header
 * makes it empty, and the sequence jumps over whatever its slots may hold.  False
 * when there is none that could be used. */
static bool take_file_over(struct journal *journal, const char *path)
{
    struct journal_header before;
    if (file_open(path, O_RDWR, 0, &journal->file) != OBD_OK)
        return false;
    bool is_whole;
    const char *damage;
    if (journal_read_header(journal->file, &before, &is_whole, &damage) != OBD_OK || damage != NULL) {
        file_close(journal->file);
        journal->file = NULL;
        return false;
    }
    journal->header.nr_slots = before.nr_slots;
    journal->header.flushed_sequence = before.flushed_sequence + 2 * before.nr_slots;
    journal->last_sequence = journal->header.flushed_sequence;
    return true;
}

static enum obd_status use_file_again(struct journal *journal, const char *path)
{
    enum obd_status status = write_header(journal);
    HOOK("journal.taken_over");
    if (status == OBD_OK)
        status = file_sync_data(journal->file);
    return status == OBD_OK ? file_sync_folder_of(path) : status;
}

static enum obd_status make_ring(struct journal *journal)
{
    journal->ring = calloc(journal->header.nr_slots, sizeof *journal->ring);
    return journal->ring != NULL ? OBD_OK
                                 : status_set(OBD_E_NO_MEMORY, "no memory for a journal of %llu slots",
                                              (unsigned long long)journal->header.nr_slots);
}

static enum obd_status open_journal(struct journal *journal, const char *path)
{
    enum obd_status status = journal_boot_id(journal->header.boot_id);
    if (status != OBD_OK)
        return status;
    bool is_taken_over = path != NULL && take_file_over(journal, path);
    status = make_ring(journal);
    if (status != OBD_OK || path == NULL)
        return status;
    return is_taken_over ? use_file_again(journal, path) : make_file_at(journal, path);
}

enum obd_status journal_create(const char *path, const struct journal_owner *owner, const char *holder,
                               uint64_t nr_slots, uint64_t index_length, struct journal **out)
{
    if (nr_slots == 0 || nr_slots > JOURNAL_MAX_SLOTS)
        return status_set(OBD_E_INVALID, "a journal has 1 to %u slots, not %llu", JOURNAL_MAX_SLOTS,
                          (unsigned long long)nr_slots);
    struct journal *journal = calloc(1, sizeof *journal);
    if (journal == NULL)
        return status_set(OBD_E_NO_MEMORY, "no memory for a journal");
    journal->header = (struct journal_header){
        .state = JOURNAL_OPEN, .owner = *owner, .nr_slots = nr_slots, .index_length = index_length};
    snprintf(journal->header.holder, sizeof journal->header.holder, "%s", holder);
    journal->seed = journal_record_seed(owner);
    enum obd_status status = open_journal(journal, path);
    if (status != OBD_OK) {
        journal_close(journal);
        return status;
    }
    *out = journal;
    return OBD_OK;
}

uint64_t journal_nr_slots(const struct journal *journal)
{
    return journal->header.nr_slots;
}

uint64_t journal_nr_free(const struct journal *journal)
{
    return journal->header.nr_slots - (journal->last_sequence - journal->header.flushed_sequence);
}

uint64_t journal_last_sequence(const struct journal *journal)
{
    return journal->last_sequence;
}

uint64_t journal_flushed_sequence(const struct journal *journal)
{
    return journal->header.flushed_sequence;
}

enum obd_status journal_append(struct journal *journal, struct journal_record *record)
{
    assert(journal_nr_free(journal) > 0);
    record->sequence = journal->last_sequence + 1;
    if (journal->file != NULL) {
        uint8_t bytes[JOURNAL_RECORD_SIZE];
        journal_record_encode(record, journal->seed, journal->header.boot_id, bytes);
        enum obd_status status = file_write(journal->file, bytes, sizeof bytes,
                                            journal_slot_offset(record->sequence, journal->header.nr_slots));
        if (status != OBD_OK)
            return status;
    }
    journal->ring[record->sequence % journal->header.nr_slots] = *record;
    journal->last_sequence = record->sequence;
    return OBD_OK;
}

const struct journal_record *journal_at(const struct journal *journal, uint64_t sequence)
{
    return &journal->ring[sequence % journal->header.nr_slots];
}

enum obd_status journal_trim(struct journal *journal, uint64_t sequence, uint64_t index_length)
{
    assert(sequence <= journal->last_sequence);
    struct journal_header before = journal->header;
    journal->header.flushed_sequence = sequence;
    journal->header.index_length = index_length;
    /* A slot may be used again only when the header says that its record is
     * flushed: replay would take the new one for a gap and stop there. */
    enum obd_status status = write_header(journal);
    if (status != OBD_OK)
        journal->header = before;
    return status;
}

enum obd_status journal_set_state(struct journal *journal, enum journal_state state)
{
    journal->header.state = state;
    enum obd_status status = write_header(journal);
    return status == OBD_OK && journal->file != NULL ? file_sync_data(journal->file) : status;
}

void journal_close(struct journal *journal)
{
    file_close(journal->file);
    free(journal->ring);
    free(journal);
}
