/* journal_format: see journal_format.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "image/journal_format.h"

#include <ctype.h>
#include <endian.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "codec/crc32c.h"

#define BOOT_ID_PATH "/proc/sys/kernel/random/boot_id"

static const uint8_t magic[8] = {'O', 'B', 'D', 'J', 'R', 'N', 'L', 1};

static void put_u32(uint8_t *to, uint32_t value)
{
    value = htole32(value);
    memcpy(to, &value, sizeof value);
}

static void put_u64(uint8_t *to, uint64_t value)
{
    value = htole64(value);
    memcpy(to, &value, sizeof value);
}

static uint32_t get_u32(const uint8_t *from)
{
    uint32_t value;
    memcpy(&value, from, sizeof value);
    return le32toh(value);
}

static uint64_t get_u64(const uint8_t *from)
{
    uint64_t value;
    memcpy(&value, from, sizeof value);
    return le64toh(value);
}

void journal_header_encode(const struct journal_header *header, uint8_t bytes[JOURNAL_HEADER_USED])
{
    memset(bytes, 0, JOURNAL_HEADER_USED);
    memcpy(bytes, magic, sizeof magic);
    put_u32(bytes + 8, 1);
    put_u32(bytes + 12, header->state);
    memcpy(bytes + 16, header->boot_id, 16);
    memcpy(bytes + 32, header->owner.uuid, 36);
    put_u64(bytes + 72, header->owner.data_device);
    put_u64(bytes + 80, header->owner.data_inode);
    put_u64(bytes + 88, header->nr_slots);
    put_u64(bytes + 96, header->flushed_sequence);
    put_u64(bytes + 104, header->index_length);
    memcpy(bytes + 112, header->holder, JOURNAL_HOLDER_SIZE);
    put_u32(bytes + 176, crc32c_raw(bytes, 176, 0));
}

enum obd_status journal_write_header(struct file *file, const struct journal_header *header)
{
    uint8_t bytes[JOURNAL_HEADER_COPY + JOURNAL_HEADER_USED] = {0};
    journal_header_encode(header, bytes);
    memcpy(bytes + JOURNAL_HEADER_COPY, bytes, JOURNAL_HEADER_USED);
    return file_write(file, bytes, sizeof bytes, 0);
}

const char *journal_header_decode(struct journal_header *header, const uint8_t bytes[JOURNAL_HEADER_USED])
{
    if (memcmp(bytes, magic, sizeof magic) != 0)
        return "it has not the magic of a journal";
    if (get_u32(bytes + 176) != crc32c_raw(bytes, 176, 0))
        return "the checksum of its header is wrong";
    if (get_u32(bytes + 8) != 1)
        return "its version is not 1";
    uint32_t state = get_u32(bytes + 12);
    if (state < JOURNAL_OPEN || state > JOURNAL_SEALED)
        return "its state is none";
    header->state = (enum journal_state)state;
    memcpy(header->boot_id, bytes + 16, 16);
    memcpy(header->owner.uuid, bytes + 32, 36);
    header->owner.uuid[36] = '\0';
    header->owner.data_device = get_u64(bytes + 72);
    header->owner.data_inode = get_u64(bytes + 80);
    header->nr_slots = get_u64(bytes + 88);
    header->flushed_sequence = get_u64(bytes + 96);
    header->index_length = get_u64(bytes + 104);
    memcpy(header->holder, bytes + 112, JOURNAL_HOLDER_SIZE);
    header->holder[JOURNAL_HOLDER_SIZE - 1] = '\0';
    if (header->nr_slots == 0 || header->nr_slots > JOURNAL_MAX_SLOTS)
        return "its number of slots makes no sense";
    return NULL;
}

uint32_t journal_record_seed(const struct journal_owner *owner)
{
    return crc32c_raw(owner->uuid, 36, 0);
}

void journal_record_encode(const struct journal_record *record, uint32_t seed, const uint8_t boot_id[16],
                           uint8_t bytes[JOURNAL_RECORD_SIZE])
{
    memset(bytes, 0, JOURNAL_RECORD_SIZE);
    put_u64(bytes, record->sequence);
    put_u64(bytes + 8, record->offset);
    put_u64(bytes + 16, record->length);
    put_u64(bytes + 24, record->place);
    put_u32(bytes + 32, record->kind);
    memcpy(bytes + 36, boot_id, 16);
    put_u32(bytes + 60, crc32c_raw(bytes, 60, seed));
}

bool journal_record_is_of_boot(const uint8_t bytes[JOURNAL_RECORD_SIZE], const uint8_t boot_id[16])
{
    static const uint8_t of_earlier_versions[16];
    return memcmp(bytes + 36, boot_id, 16) == 0 || memcmp(bytes + 36, of_earlier_versions, 16) == 0;
}

bool journal_record_decode(struct journal_record *record, uint32_t seed, const uint8_t bytes[JOURNAL_RECORD_SIZE])
{
    uint32_t kind = get_u32(bytes + 32);
    if (get_u32(bytes + 60) != crc32c_raw(bytes, 60, seed) || kind < JOURNAL_DATA || kind > JOURNAL_REWRITE)
        return false;
    *record = (struct journal_record){
        .sequence = get_u64(bytes),
        .offset = get_u64(bytes + 8),
        .length = get_u64(bytes + 16),
        .place = get_u64(bytes + 24),
        .kind = (enum journal_kind)kind,
    };
    return true;
}

/* 36 characters of hex digits and dashes into 16 bytes; false when they are not that. */
static bool parse_boot_id(const char *text, uint8_t id[16])
{
    size_t nr = 0;
    for (; *text != '\0' && nr < 32; text++) {
        if (*text == '-')
            continue;
        if (!isxdigit((unsigned char)*text))
            return false;
        unsigned digit = isdigit((unsigned char)*text) ? (unsigned)(*text - '0')
                                                       : (unsigned)(tolower((unsigned char)*text) - 'a' + 10);
        id[nr / 2] = (uint8_t)(nr % 2 == 0 ? digit << 4 : id[nr / 2] | digit);
        nr++;
    }
    return nr == 32;
}

static enum obd_status read_boot_id(char text[37])
{
#ifdef OBD_TEST_BUILD
    const char *pretended = getenv("OBD_TEST_BOOT_ID"); /* a test "reboots" with it */
    if (pretended != NULL) {
        snprintf(text, 37, "%s", pretended);
        return OBD_OK;
    }
#endif
    struct file *file;
    enum obd_status status = file_open(BOOT_ID_PATH, 0, 0, &file);
    if (status != OBD_OK)
        return status;
    status = file_read(file, text, 36, 0);
    file_close(file);
    return status;
}

enum obd_status journal_boot_id(uint8_t id[16])
{
    char text[37] = "";
    enum obd_status status = read_boot_id(text);
    if (status == OBD_OK && !parse_boot_id(text, id))
        status = status_set(OBD_E_IO, "%s holds \"%s\", which is no boot id", BOOT_ID_PATH, text);
    return status;
}
