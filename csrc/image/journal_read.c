/* journal_read: what lies in a journal file that nobody has open.
 *
 * The bytes may be of any age and from anywhere (a copied folder, a damaged
 * disk), so everything is checked here.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "image/journal_format.h"

static enum obd_status not_a_journal(const struct file *file, const char *why)
{
    return status_set(OBD_E_JOURNAL, "%s is no journal that can be trusted: %s", file_path(file), why);
}

enum obd_status journal_read_header(struct file *file, struct journal_header *header)
{
    uint64_t size;
    enum obd_status status = file_size(file, &size);
    if (status != OBD_OK)
        return status;
    if (size < JOURNAL_HEADER_SIZE)
        return not_a_journal(file, "it is shorter than its header");
    uint8_t bytes[JOURNAL_HEADER_USED];
    status = file_read(file, bytes, sizeof bytes, 0);
    if (status != OBD_OK)
        return status;
    const char *why = journal_header_decode(header, bytes);
    if (why != NULL)
        return not_a_journal(file, why);
    if (size < JOURNAL_HEADER_SIZE + header->nr_slots * JOURNAL_RECORD_SIZE)
        return not_a_journal(file, "it is shorter than its slots");
    return OBD_OK;
}

/* The slots as they lie in the file; owned by the caller. */
static enum obd_status read_slots(struct file *file, const struct journal_header *header, uint8_t **out)
{
    size_t size = header->nr_slots * JOURNAL_RECORD_SIZE;
    uint8_t *slots = malloc(size);
    if (slots == NULL)
        return status_set(OBD_E_NO_MEMORY, "no memory to read the journal %s", file_path(file));
    enum obd_status status = file_read(file, slots, size, JOURNAL_HEADER_SIZE);
    if (status != OBD_OK) {
        free(slots);
        return status;
    }
    *out = slots;
    return OBD_OK;
}

static const uint8_t *slot_of(const uint8_t *slots, const struct journal_header *header, uint64_t sequence)
{
    return slots + sequence % header->nr_slots * JOURNAL_RECORD_SIZE;
}

/* Is the slot of this sequence still waiting for it: never written, or holding a
 * record of an earlier round? */
static bool is_free_slot(const uint8_t *slot, uint64_t sequence, uint32_t seed)
{
    static const uint8_t zeros[JOURNAL_RECORD_SIZE];
    if (memcmp(slot, zeros, sizeof zeros) == 0)
        return true;
    struct journal_record record;
    return journal_record_decode(&record, seed, slot) && record.sequence < sequence;
}

static void take_records(struct journal_contents *contents, const struct journal_header *header, const uint8_t *slots)
{
    uint32_t seed = journal_record_seed(&header->owner);
    uint64_t first = header->flushed_sequence + 1;
    for (uint64_t sequence = first; contents->nr_records < header->nr_slots; sequence++) {
        struct journal_record *record = &contents->records[contents->nr_records];
        if (!journal_record_decode(record, seed, slot_of(slots, header, sequence)) || record->sequence != sequence)
            break;
        contents->nr_records++;
    }
    contents->is_provably_empty = contents->nr_records == 0 && is_free_slot(slot_of(slots, header, first), first, seed);
}

static enum obd_status read_records(struct file *file, const struct journal_header *header,
                                    struct journal_contents *contents)
{
    uint8_t *slots = NULL;
    enum obd_status status = read_slots(file, header, &slots);
    if (status != OBD_OK)
        return status;
    contents->records = calloc(header->nr_slots, sizeof *contents->records);
    if (contents->records == NULL)
        status = status_set(OBD_E_NO_MEMORY, "no memory for the records of %s", file_path(file));
    else
        take_records(contents, header, slots);
    free(slots);
    return status;
}

static enum obd_status read_contents(struct file *file, const struct journal_owner *owner,
                                     struct journal_contents *contents)
{
    struct journal_header header;
    uint8_t boot_id[16];
    enum obd_status status = journal_read_header(file, &header);
    if (status == OBD_OK)
        status = journal_boot_id(boot_id);
    if (status != OBD_OK)
        return status;
    contents->is_same_boot = memcmp(boot_id, header.boot_id, sizeof boot_id) == 0;
    contents->is_same_uuid = memcmp(owner->uuid, header.owner.uuid, sizeof owner->uuid) == 0;
    contents->is_same_file =
        owner->data_device == header.owner.data_device && owner->data_inode == header.owner.data_inode;
    contents->state = header.state;
    contents->flushed_sequence = header.flushed_sequence;
    contents->index_length = header.index_length;
    memcpy(contents->holder, header.holder, sizeof contents->holder);
    return read_records(file, &header, contents);
}

enum obd_status journal_read(const char *path, const struct journal_owner *owner, struct journal_contents *contents)
{
    memset(contents, 0, sizeof *contents);
    struct file *file;
    enum obd_status status = file_open(path, O_RDONLY, 0, &file);
    if (status == OBD_E_NOT_FOUND)
        return OBD_OK;
    if (status != OBD_OK)
        return status;
    contents->exists = true;
    status = read_contents(file, owner, contents);
    file_close(file);
    return status;
}

void journal_contents_free(struct journal_contents *contents)
{
    free(contents->records);
    contents->records = NULL;
    contents->nr_records = 0;
}

static enum obd_status rewrite_state(struct file *file, enum journal_state state)
{
    struct journal_header header;
    enum obd_status status = journal_read_header(file, &header);
    if (status != OBD_OK)
        return status;
    header.state = state;
    uint8_t bytes[JOURNAL_HEADER_USED];
    journal_header_encode(&header, bytes);
    status = file_write(file, bytes, sizeof bytes, 0);
    return status == OBD_OK ? file_sync_data(file) : status;
}

enum obd_status journal_mark(const char *path, enum journal_state state)
{
    struct file *file;
    enum obd_status status = file_open(path, O_RDWR, 0, &file);
    if (status != OBD_OK)
        return status;
    status = rewrite_state(file, state);
    file_close(file);
    return status;
}
