/* Tests of opening an upper: files of the reference, damaged, sealed and held ones. */
#define _GNU_SOURCE
#include "check.h"

#include "upper_pair.h"

static void fill_data_file(size_t sectors)
{
    static char sector[512];
    int fd = open(data_path, O_WRONLY | O_APPEND);
    for (size_t i = 0; i < sectors; i++) {
        memset(sector, (int)i + 1, sizeof sector);
        CHECK(write(fd, sector, sizeof sector) == sizeof sector);
    }
    close(fd);
}

TEST(upper_ignores_padding_zero_length_and_a_torn_entry_and_cuts_it_when_writable)
{
    new_pair();
    fill_data_file(8);
    struct segment entries[] = {{.offset = 0, .length = 8, .moffset = 8},
                                {.offset = SEGMENT_INVALID_OFFSET},
                                {.offset = 4, .length = 0, .moffset = 9},
                                {.offset = 2, .length = 1, .moffset = 15}};
    append_to_index(entries, sizeof entries);
    append_to_index("torn", 4);
    struct upper *upper = open_upper(OBD_UPPER_READ_ONLY);
    CHECK(upper_nr_segments(upper) == 3);
    CHECK(sector_byte(upper, 512) == 2 && sector_byte(upper, 1024) == 8);
    CHECK_OK(upper_close(upper));
    CHECK(size_of(index_path) == 4096 + 64 + 4);
    upper = open_upper(0);
    CHECK(size_of(index_path) == 4096 + 64);
    CHECK_OK(write_fill(upper, 0, 512, 9));
    CHECK_OK(upper_close(upper));
    CHECK(size_of(index_path) == 4096 + 80);
    upper = open_upper(0);
    CHECK(sector_byte(upper, 0) == 9 && sector_byte(upper, 512) == 2);
    CHECK_OK(upper_close(upper));
}

static void check_bad_entry(struct segment bad, const char *part)
{
    new_pair();
    fill_data_file(8);
    struct segment good = {.offset = 0, .length = 8, .moffset = 8};
    append_to_index(&good, sizeof good);
    append_to_index(&bad, sizeof bad);
    for (uint32_t flags = 0; flags <= OBD_UPPER_READ_ONLY; flags++) {
        struct obd_upper_params p = params(flags);
        struct upper *upper;
        CHECK_FAILS(upper_open(&p, &upper), OBD_E_CORRUPT, "entry 1");
        CHECK(strstr(status_text(), part) != NULL && strstr(status_text(), index_path) != NULL);
    }
}

TEST(upper_with_an_entry_whose_data_is_cut_off_is_refused)
{
    check_bad_entry((struct segment){.offset = 0, .length = 8, .moffset = 9}, "17");
    check_bad_entry((struct segment){.offset = 0, .length = 8, .moffset = 17, .zeroed = 1}, "17");
    struct upper *upper = open_upper(OBD_UPPER_DROP_UNFLUSHED);
    CHECK(sector_byte(upper, 0) == 1);
    CHECK_OK(upper_close(upper));
    CHECK(size_of(index_path) == 4096 + 16);
}

static void check_bad_entry_among_good_ones(struct segment bad)
{
    new_pair();
    fill_data_file(8);
    struct segment entries[] = {bad, {.offset = 0, .length = 8, .moffset = 8}};
    append_to_index(entries, sizeof entries);
    check_refused(0, OBD_E_CORRUPT, "entry 0");
    check_refused(OBD_UPPER_DROP_UNFLUSHED, OBD_E_CORRUPT, "entry 0");
}

TEST(upper_with_a_bad_entry_among_good_ones_is_refused)
{
    check_bad_entry_among_good_ones((struct segment){.offset = 0, .length = 8, .moffset = 9});
    check_bad_entry_among_good_ones((struct segment){.offset = 0, .length = 8, .moffset = 7});
    check_bad_entry_among_good_ones((struct segment){.offset = SEGMENT_MAX_OFFSET - 1, .length = 8, .moffset = 8});
}

TEST(upper_that_is_cut_short_is_refused)
{
    struct upper *upper;
    struct obd_upper_params p = params(0);
    new_pair();
    CHECK(truncate(index_path, 4095) == 0);
    CHECK_FAILS(upper_open(&p, &upper), OBD_E_CORRUPT, "4095");
    new_pair();
    CHECK(truncate(data_path, 100) == 0);
    CHECK_FAILS(upper_open(&p, &upper), OBD_E_CORRUPT, "100");
    new_pair();
    remove(index_path);
    CHECK_FAILS(upper_open(&p, &upper), OBD_E_NOT_FOUND, index_path);
    remove(data_path);
    CHECK_FAILS(upper_open(&p, &upper), OBD_E_NOT_FOUND, data_path);
}

/* ---- sealed ---- */

static void put_trailer(uint64_t index_offset, uint64_t index_size, char uuid_digit)
{
    static const uint8_t magic[24] = {0x4c, 0x53, 0x4d, 0x54, 0x00, 0x01, 0x02, 0x00, 0x65, 0x7e, 0x63, 0xd2,
                                      0x94, 0x44, 0x08, 0x4c, 0xa2, 0xd2, 0xc8, 0xec, 0x4f, 0xcf, 0xae, 0x8a};
    uint8_t block[4096] = {[28] = 6};
    memcpy(block, magic, sizeof magic);
    memcpy(block + 32, &index_offset, 8);
    memcpy(block + 40, &index_size, 8);
    memset(block + 56, uuid_digit, 36);
    int fd = open(data_path, O_WRONLY | O_APPEND);
    CHECK(write(fd, block, sizeof block) == sizeof block);
    close(fd);
}

/* A data file with a UUID of 1s and 8 sectors. */
static void new_data_with_uuid(void)
{
    uint8_t header[4096] = {0};
    memset(header + 56, '1', 36);
    new_pair();
    write_file(data_path, header, sizeof header);
    fill_data_file(8);
}

TEST(upper_that_is_sealed_is_never_opened_for_writing)
{
    struct upper *upper;
    struct obd_upper_params p = params(0);
    new_data_with_uuid();
    put_trailer(8192 - 512, 20, '1');
    CHECK_FAILS(upper_open(&p, &upper), OBD_E_READ_ONLY, "sealed");
    CHECK_OK(upper_close(open_upper(OBD_UPPER_READ_ONLY)));
}

TEST(upper_whose_last_write_looks_like_a_trailer_is_not_sealed)
{
    new_data_with_uuid();
    put_trailer(8192 - 512, 20, '2'); /* of another file */
    CHECK_OK(upper_close(open_upper(0)));
    new_data_with_uuid();
    put_trailer(4096, 20, '1'); /* its index ends elsewhere */
    CHECK_OK(upper_close(open_upper(0)));
    new_data_with_uuid();
    put_trailer(UINT64_MAX, UINT64_MAX / 16 + 2, '1'); /* it wraps */
    CHECK_OK(upper_close(open_upper(0)));
}

/* ---- held ---- */

TEST(upper_that_is_held_names_its_holder)
{
    char pid[32];
    snprintf(pid, sizeof pid, "test, pid %d", getpid());
    new_pair();
    struct upper *upper = open_upper(0);
    check_refused(0, OBD_E_BUSY, pid);
    check_refused(OBD_UPPER_READ_ONLY, OBD_E_BUSY, pid);
    CHECK_OK(upper_close(upper));
    upper = open_upper(OBD_UPPER_READ_ONLY);
    check_refused(0, OBD_E_BUSY, "reads it");
    struct upper *second = open_upper(OBD_UPPER_READ_ONLY);
    CHECK_OK(upper_close(second));
    CHECK_OK(upper_close(upper));
    CHECK_OK(upper_close(open_upper(0)));
}

TEST(upper_holder_keeps_its_pid_however_long_its_name)
{
    char long_name[200], pid[32];
    memset(long_name, 'x', sizeof long_name - 1);
    long_name[sizeof long_name - 1] = '\0';
    snprintf(pid, sizeof pid, ", pid %d", getpid());
    new_pair();
    struct obd_upper_params p = params(0);
    p.holder = long_name;
    struct upper *upper;
    CHECK_OK(upper_open(&p, &upper));
    check_refused(0, OBD_E_BUSY, pid);
    CHECK_OK(upper_close(upper));
}

TEST(upper_index_on_a_device_is_refused_and_so_is_what_is_no_disk)
{
    struct upper *upper;
    struct obd_upper_params on_index = params(0), on_data = params(0);
    new_pair();
    on_data.data_path = "/dev/null";
    on_index.index_path = "/dev/null";
    CHECK_FAILS(upper_open(&on_data, &upper), OBD_E_UNSUPPORTED, "/dev/null is no file");
    CHECK_FAILS(upper_open(&on_index, &upper), OBD_E_UNSUPPORTED, "/dev/null is not a regular file");
}

TEST_MAIN(T(upper_has_a_folder), T(upper_ignores_padding_zero_length_and_a_torn_entry_and_cuts_it_when_writable),
          T(upper_with_an_entry_whose_data_is_cut_off_is_refused), T(upper_with_a_bad_entry_among_good_ones_is_refused),
          T(upper_that_is_cut_short_is_refused), T(upper_that_is_sealed_is_never_opened_for_writing),
          T(upper_whose_last_write_looks_like_a_trailer_is_not_sealed), T(upper_that_is_held_names_its_holder),
          T(upper_holder_keeps_its_pid_however_long_its_name),
          T(upper_index_on_a_device_is_refused_and_so_is_what_is_no_disk), T(upper_left_nothing_in_the_folder))
