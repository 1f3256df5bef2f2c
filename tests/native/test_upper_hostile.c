/* Tests of the upper on files that somebody else has had his hands in: whatever the
 * bytes are, it opens or says why not, and what it shows can be read. */
#define _GNU_SOURCE
#include "check.h"

#include "upper_pair.h"
#include "vector_files.h"

/* What a killed process left, to be damaged again and again. */
static struct bytes data, index_, journal;

static void flush_and_write(struct upper *upper)
{
    write_ten(upper);
    CHECK_OK(upper_flush(upper));
    for (int i = 0; i < 20; i++)
        CHECK_OK(write_fill(upper, (uint64_t)i * 512, 2048, i + 1));
}

/* The files as they were; the journal belongs to the data file's inode, which stays. */
static void restore(void)
{
    write_file(data_path, data.at, data.length);
    write_file(index_path, index_.at, index_.length);
    write_file(journal_path, journal.at, journal.length);
}

static void damage(const char *path, size_t length, size_t first)
{
    int fd = open(path, O_RDWR);
    for (int i = rand() % 3; i >= 0; i--) {
        uint8_t byte = (uint8_t)(rand() % 3 == 0 ? 0xff : rand());
        CHECK(pwrite(fd, &byte, 1, (off_t)(first + (size_t)rand() % (length - first))) == 1);
    }
    if (rand() % 5 == 0)
        CHECK(ftruncate(fd, (off_t)((size_t)rand() % length)) == 0);
    close(fd);
}

/* A header that says something else, and is sound. */
static void lie(struct journal_header *header)
{
    switch (rand() % 5) {
    case 0:
        header->flushed_sequence += (uint64_t)(rand() % 20 - 10);
        break;
    case 1:
        header->flushed_sequence = UINT64_MAX - (uint64_t)(rand() % 200);
        break;
    case 2:
        header->index_length = (uint64_t)rand() << (rand() % 40);
        break;
    case 3:
        header->nr_slots = 1 + (uint64_t)rand() % 64;
        break;
    default:
        header->state = 1 + (uint32_t)rand() % 4;
    }
}

/* A record that says something else, and is sound. */
static void lie_in_a_record(void)
{
    static const uint8_t of_any_boot[16];
    uint8_t bytes[JOURNAL_RECORD_SIZE];
    struct journal_owner owner = {.uuid = UUID};
    uint64_t sequence = 12 + (uint64_t)rand() % 20;
    struct journal_record record = {.sequence = sequence,
                                    .offset = (uint64_t)rand() << (rand() % 33),
                                    .length = (uint64_t)rand() << (rand() % 20),
                                    .place = (uint64_t)rand() << (rand() % 33),
                                    .kind = 1 + (uint32_t)rand() % 2};
    if (rand() % 2 == 0) {
        record.offset &= ~UINT64_C(511);
        record.length &= ~UINT64_C(511);
        record.place = 4096;
    }
    journal_record_encode(&record, journal_record_seed(&owner), of_any_boot, bytes);
    int fd = open(journal_path, O_WRONLY);
    CHECK(pwrite(fd, bytes, sizeof bytes, (off_t)journal_slot_offset(sequence, 64)) == sizeof bytes);
    close(fd);
}

static void do_some_damage(void)
{
    if (rand() % 2 == 0)
        damage(index_path, index_.length, rand() % 4 == 0 ? 0 : 4096);
    if (rand() % 2 == 0)
        damage(journal_path, journal.length, rand() % 4 == 0 ? 0 : 4096);
    else if (rand() % 2 == 0)
        change_journal(lie);
    else
        lie_in_a_record();
    if (rand() % 10 == 0)
        CHECK(truncate(data_path, (off_t)((size_t)rand() % data.length)) == 0);
}

/* Everything that is shown lies in the log. */
static void read_everything(struct upper *upper)
{
    struct segment s[64];
    char buffer[512];
    uint64_t from = 0;
    for (size_t nr = 64; nr == 64;) {
        nr = upper_lookup(upper, from, SEGMENT_MAX_OFFSET, s, 64);
        for (size_t i = 0; i < nr; i++) {
            struct iovec iov = {.iov_base = buffer, .iov_len = sizeof buffer};
            struct iov_cursor cursor = iov_cursor_at(&iov, 1);
            uint64_t last = segment_mapped_end(s[i]) - 1;
            if (!s[i].zeroed)
                CHECK_OK(upper_read_log(upper, &cursor, sizeof buffer, last * 512, false));
            from = segment_end(s[i]);
        }
    }
}

static void open_whatever_it_is(uint32_t flags)
{
    struct obd_upper_params p = params(flags);
    struct upper *upper;
    enum obd_status status = upper_open(&p, &upper);
    if (status != OBD_OK) {
        CHECK(status == OBD_E_CORRUPT || status == OBD_E_JOURNAL || status == OBD_E_READ_ONLY);
        CHECK(strlen(status_text()) > 20);
        return;
    }
    CHECK(segment_map_check(upper->map));
    read_everything(upper);
    if (!upper_is_read_only(upper))
        CHECK_OK(write_fill(upper, 0, 4096, 1));
    CHECK_OK(upper_close(upper));
}

TEST(upper_whatever_its_files_hold_opens_or_says_why_not)
{
    srand(7);
    new_pair();
    in_killed_process(flush_and_write);
    data = read_whole(data_path);
    index_ = read_whole(index_path);
    journal = read_whole(journal_path);
    for (int i = 0; i < 400; i++) {
        restore();
        do_some_damage();
        open_whatever_it_is(OBD_UPPER_READ_ONLY);
        open_whatever_it_is(0);
        open_whatever_it_is(OBD_UPPER_DROP_UNFLUSHED);
    }
    free(data.at);
    free(index_.at);
    free(journal.at);
}

TEST_MAIN(T(upper_has_a_folder), T(upper_whatever_its_files_hold_opens_or_says_why_not),
          T(upper_left_nothing_in_the_folder))
