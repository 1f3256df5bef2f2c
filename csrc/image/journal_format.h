/* journal_format: the bytes of a journal file (layout: journal.h).
 *
 * Private to journal*.c.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_IMAGE_JOURNAL_FORMAT_H
#define OBD_IMAGE_JOURNAL_FORMAT_H

#include "image/journal.h"

#define JOURNAL_HEADER_SIZE 4096u
#define JOURNAL_RECORD_SIZE 64u
#define JOURNAL_HEADER_USED 180u /* the header's bytes up to its CRC, that included: less than a disk sector */
#define JOURNAL_HEADER_COPY 512u /* where it is once more: in the next sector */

struct journal_header {
    enum journal_state state;
    uint8_t boot_id[16];
    struct journal_owner owner;
    uint64_t nr_slots;
    uint64_t flushed_sequence;
    uint64_t index_length;
    char holder[JOURNAL_HOLDER_SIZE];
};

void journal_header_encode(const struct journal_header *header, uint8_t bytes[JOURNAL_HEADER_USED]);

/* Reads and checks the header of a journal file.  *damage says why the file cannot be
 * trusted, NULL that it can; *is_whole whether the header itself is there. */
enum obd_status journal_read_header(struct file *file, struct journal_header *header, bool *is_whole,
                                    const char **damage);

/* Writes both of it. */
enum obd_status journal_write_header(struct file *file, const struct journal_header *header);

/* Why the bytes are no header of a journal, or NULL. */
const char *journal_header_decode(struct journal_header *header, const uint8_t bytes[JOURNAL_HEADER_USED]);

/* What every record's CRC starts from, so that records of another upper are none here. */
uint32_t journal_record_seed(const struct journal_owner *owner);
void journal_record_encode(const struct journal_record *record, uint32_t seed, const uint8_t boot_id[16],
                           uint8_t bytes[JOURNAL_RECORD_SIZE]);
/* May the record be of this boot? */
bool journal_record_is_of_boot(const uint8_t bytes[JOURNAL_RECORD_SIZE], const uint8_t boot_id[16]);
/* False when the bytes are no record. */
bool journal_record_decode(struct journal_record *record, uint32_t seed, const uint8_t bytes[JOURNAL_RECORD_SIZE]);

static inline uint64_t journal_slot_offset(uint64_t sequence, uint64_t nr_slots)
{
    return JOURNAL_HEADER_SIZE + sequence % nr_slots * JOURNAL_RECORD_SIZE;
}

/* The running kernel's boot id. */
enum obd_status journal_boot_id(uint8_t id[16]);

#endif
