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

#include "base/checked.h"
#include "image/journal_format.h"

/* Either copy; *damage NULL when one is whole. */
static enum obd_status read_either_header(struct file *file, uint64_t size, struct journal_header *header,
                                          const char **damage)
{
    uint8_t bytes[JOURNAL_HEADER_COPY + JOURNAL_HEADER_USED] = {0};
    enum obd_status status = file_read(file, bytes, min_u64(size, sizeof bytes), 0);
    if (status != OBD_OK)
        return status;
    *damage = journal_header_decode(header, bytes);
    if (*damage == NULL)
        return OBD_OK;
    const char *also = journal_header_decode(header, bytes + JOURNAL_HEADER_COPY);
    *damage = size < JOURNAL_HEADER_SIZE && also != NULL ? "it is shorter than its header"
              : also == NULL                             ? NULL
                                                         : *damage;
    return OBD_OK;
}

enum obd_status journal_read_header(struct file *file, struct journal_header *header, bool *is_whole,
                                    const char **damage)
{
    uint64_t size;
    enum obd_status status = file_size(file, &size);
    if (status == OBD_OK)
        status = read_either_header(file, size, header, damage);
    if (status != OBD_OK)
        return status;
    *is_whole = *damage == NULL;
    if (*is_whole && size < JOURNAL_HEADER_SIZE + header->nr_slots * JOURNAL_RECORD_SIZE)
        *damage = "it is shorter than its slots";
    return OBD_OK;
}

/* The slots as they lie in the file, as far as it is long, then zeros. */
static enum obd_status read_slots(struct file *file, const struct journal_header *header, uint8_t **out)
{
    uint64_t size;
    enum obd_status status = file_size(file, &size);
    if (status != OBD_OK)
        return status;
    uint8_t *slots = calloc(header->nr_slots, JOURNAL_RECORD_SIZE);
    if (slots == NULL)
        return status_set(OBD_E_NO_MEMORY, "no memory to read the journal %s", file_path(file));
    uint64_t there = max_u64(size, JOURNAL_HEADER_SIZE) - JOURNAL_HEADER_SIZE;
    status = file_read(file, slots, min_u64(there, header->nr_slots * JOURNAL_RECORD_SIZE), JOURNAL_HEADER_SIZE);
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

/* Whole records of this boot above sequence. */
static uint64_t count_records_above(const struct journal_header *header, const uint8_t *slots, uint64_t sequence,
                                    const uint8_t boot_id[16])
{
    uint32_t seed = journal_record_seed(&header->owner);
    uint64_t nr = 0;
    for (uint64_t i = 0; i < header->nr_slots; i++) {
        const uint8_t *slot = slots + i * JOURNAL_RECORD_SIZE;
        struct journal_record record;
        if (journal_record_decode(&record, seed, slot) && record.sequence > sequence &&
            journal_record_is_of_boot(slot, boot_id))
            nr++;
    }
    return nr;
}

static enum obd_status read_records(struct file *file, const struct journal_header *header, const uint8_t boot_id[16],
                                    struct journal_contents *contents)
{
    uint8_t *slots = NULL;
    enum obd_status status = read_slots(file, header, &slots);
    if (status != OBD_OK)
        return status;
    contents->records = calloc(header->nr_slots, sizeof *contents->records);
    if (contents->records == NULL) {
        free(slots);
        return status_set(OBD_E_NO_MEMORY, "no memory for the records of %s", file_path(file));
    }
    if (contents->has_header)
        take_records(contents, header, slots);
    if (contents->is_same_boot || !contents->has_header)
        contents->nr_lost =
            count_records_above(header, slots, contents->flushed_sequence + contents->nr_records, boot_id);
    if (contents->nr_lost > 0 && contents->damage == NULL)
        contents->damage = "a record before others is damaged";
    free(slots);
    return OBD_OK;
}

static void take_header(const struct journal_header *header, const struct journal_owner *owner,
                        const uint8_t boot_id[16], struct journal_contents *contents)
{
    contents->is_same_boot = memcmp(boot_id, header->boot_id, sizeof header->boot_id) == 0;
    contents->is_same_uuid = memcmp(owner->uuid, header->owner.uuid, sizeof owner->uuid) == 0;
    contents->is_same_file =
        owner->data_device == header->owner.data_device && owner->data_inode == header->owner.data_inode;
    contents->state = header->state;
    contents->flushed_sequence = header->flushed_sequence;
    contents->index_length = header->index_length;
    memcpy(contents->holder, header->holder, sizeof contents->holder);
}

/* A header for a file that has lost its own: our records are looked for wherever they may lie. */
static enum obd_status guess_header(struct file *file, const struct journal_owner *owner, struct journal_header *header)
{
    uint64_t size;
    enum obd_status status = file_size(file, &size);
    uint64_t nr = size < JOURNAL_HEADER_SIZE ? 0 : (size - JOURNAL_HEADER_SIZE) / JOURNAL_RECORD_SIZE;
    *header = (struct journal_header){.owner = *owner, .nr_slots = max_u64(1, min_u64(nr, JOURNAL_MAX_SLOTS))};
    return status;
}

static enum obd_status read_contents(struct file *file, const struct journal_owner *owner,
                                     struct journal_contents *contents)
{
    struct journal_header header;
    uint8_t boot_id[16];
    enum obd_status status = journal_read_header(file, &header, &contents->has_header, &contents->damage);
    if (status == OBD_OK)
        status = journal_boot_id(boot_id);
    if (status != OBD_OK)
        return status;
    if (contents->has_header)
        take_header(&header, owner, boot_id, contents);
    else
        status = guess_header(file, owner, &header);
    return status == OBD_OK ? read_records(file, &header, boot_id, contents) : status;
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
    bool is_whole;
    const char *damage;
    enum obd_status status = journal_read_header(file, &header, &is_whole, &damage);
    if (status != OBD_OK)
        return status;
    if (!is_whole)
        return status_set(OBD_E_JOURNAL, "%s cannot be marked: %s", file_path(file), damage);
    header.state = state;
    status = journal_write_header(file, &header);
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
