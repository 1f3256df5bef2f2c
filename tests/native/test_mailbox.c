/* The mailbox against a kernel that is right, and one that is not.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "fake_kernel.h"

#include "front/mailbox.h"

#define RING_SIZE 4096

struct pair {
    struct kernel kernel;
    struct mailbox mailbox;
};

static struct pair pair_make(void)
{
    struct pair pair = {.kernel = kernel_make(RING_SIZE)};
    CHECK_OK(mailbox_open(&pair.mailbox, -1, pair.kernel.map, pair.kernel.size));
    return pair;
}

static void pair_drop(struct pair *pair)
{
    mailbox_close(&pair->mailbox);
    kernel_drop(&pair->kernel);
}

static enum mailbox_take take(struct pair *pair, struct mailbox_entry *entry)
{
    uint32_t head;
    publish_head(&pair->kernel, pair->kernel.head);
    return mailbox_head(&pair->mailbox, &head) ? mailbox_take(&pair->mailbox, head, entry) : MAILBOX_BROKEN;
}

static const struct cdb read_cdb = {{0x28, 0, 0, 0, 0, 7, 0, 0, 1, 0, 0xee, 0xee, 0xee, 0xee, 0xee, 0xee}};

TEST(a_command_is_copied_with_its_cdb_and_buffers)
{
    struct pair pair = pair_make();
    struct mailbox_entry entry;
    struct iovec iov[3];
    uint64_t length;
    kernel_put(&pair.kernel, 5, read_cdb.bytes, 9000);
    CHECK(take(&pair, &entry) == MAILBOX_COMMAND);
    CHECK(entry.id == 5 && entry.nr_iov == 3);
    CHECK(memcmp(entry.cdb, read_cdb.bytes, 10) == 0);
    CHECK(mailbox_copy_iov(&pair.mailbox, &entry, iov, &length));
    CHECK(length == 9000 && iov[2].iov_len == 808);
    CHECK(iov[2].iov_base == kernel_data(&pair.kernel, 5) && iov[0].iov_base == kernel_data(&pair.kernel, 5) + 8192);
    CHECK(take(&pair, &entry) == MAILBOX_EMPTY);
    pair_drop(&pair);
}

TEST(bytes_behind_the_cdb_are_not_taken_for_it)
{
    struct pair pair = pair_make();
    struct mailbox_entry entry;
    kernel_put(&pair.kernel, 0, read_cdb.bytes, 512);
    CHECK(take(&pair, &entry) == MAILBOX_COMMAND);
    for (int i = 10; i < 16; i++)
        CHECK(entry.cdb[i] == 0);
    pair_drop(&pair);
}

TEST(answers_fill_the_slots_in_order_and_name_their_command)
{
    struct pair pair = pair_make();
    struct mailbox_entry entry;
    struct answer answer;
    for (uint16_t id = 0; id < 3; id++) {
        kernel_put(&pair.kernel, id, read_cdb.bytes, 512);
        CHECK(take(&pair, &entry) == MAILBOX_COMMAND);
    }
    const struct mailbox_answer bad = {.id = 2, .scsi_status = SCSI_CHECK_CONDITION, .sense = SENSE_READ_ERROR};
    const struct mailbox_answer good = {.id = 0, .scsi_status = SCSI_GOOD, .read_length = 36};
    CHECK(mailbox_answer(&pair.mailbox, &bad) && mailbox_answer(&pair.mailbox, &good));
    CHECK(next_answer(&pair.kernel, &answer));
    CHECK(answer.id == 2 && answer.status == 2 && answer.sense == 0x031100 && answer.uflags == 0);
    CHECK(next_answer(&pair.kernel, &answer));
    CHECK(answer.id == 0 && answer.status == 0 && answer.sense == 0);
    CHECK(answer.uflags == TCMU_UFLAG_READ_LEN && answer.read_length == 36);
    CHECK(!next_answer(&pair.kernel, &answer));
    pair_drop(&pair);
}

TEST(padding_and_notices_are_passed_over_and_given_back)
{
    struct pair pair = pair_make();
    struct mailbox_entry entry;
    uint32_t pad = RING_SIZE - entry_length(1) * 2 - 24;
    put_entry(&pair.kernel, TCMU_OP_PAD, pad);
    kernel_put(&pair.kernel, 1, read_cdb.bytes, 512);
    put_entry(&pair.kernel, TCMU_OP_TMR, 24);
    CHECK(take(&pair, &entry) == MAILBOX_COMMAND && entry.id == 1);
    CHECK(take(&pair, &entry) == MAILBOX_EMPTY);
    const struct mailbox_answer good = {.id = 1};
    CHECK(mailbox_answer(&pair.mailbox, &good));
    CHECK(tail_of(&pair.kernel) == pad + entry_length(1));
    CHECK(mailbox_pass_padding(&pair.mailbox));
    CHECK(tail_of(&pair.kernel) == pair.kernel.head);
    CHECK(!mailbox_pass_padding(&pair.mailbox));
    pair_drop(&pair);
}

TEST(padding_in_front_of_a_command_that_runs_keeps_its_slot_order)
{
    struct pair pair = pair_make();
    struct mailbox_entry entry;
    kernel_put(&pair.kernel, 1, read_cdb.bytes, 512);
    put_entry(&pair.kernel, TCMU_OP_PAD, 64);
    CHECK(take(&pair, &entry) == MAILBOX_COMMAND);
    CHECK(take(&pair, &entry) == MAILBOX_EMPTY);
    CHECK(!mailbox_pass_padding(&pair.mailbox)); /* the command's slot is before it */
    CHECK(tail_of(&pair.kernel) == 0);
    pair_drop(&pair);
}

TEST(an_unknown_operation_is_marked_and_passed_over)
{
    struct pair pair = pair_make();
    struct mailbox_entry entry;
    struct tcmu_cmd_entry *strange = put_entry(&pair.kernel, 5, 64);
    kernel_put(&pair.kernel, 3, read_cdb.bytes, 0);
    CHECK(take(&pair, &entry) == MAILBOX_COMMAND && entry.id == 3);
    CHECK(strange->hdr.uflags == TCMU_UFLAG_UNKNOWN_OP);
    pair_drop(&pair);
}

TEST(entries_go_round_the_ring_many_times)
{
    struct pair pair = pair_make();
    struct mailbox_entry entry;
    struct answer answer;
    for (unsigned i = 0; i < 1000; i++) {
        uint16_t id = (uint16_t)(i % KERNEL_IDS);
        kernel_put(&pair.kernel, id, read_cdb.bytes, 512 * (i % 9) * 8);
        CHECK(take(&pair, &entry) == MAILBOX_COMMAND && entry.id == id);
        const struct mailbox_answer good = {.id = id};
        CHECK(mailbox_answer(&pair.mailbox, &good));
        CHECK(next_answer(&pair.kernel, &answer) && answer.id == id);
    }
    pair_drop(&pair);
}

/* ---- a kernel that is not right ---- */

/* One entry on the ring, changed by the case, must break the mailbox. */
static void expect_broken(void (*spoil)(struct kernel *kernel, struct tcmu_cmd_entry *entry), const char *sentence)
{
    struct pair pair = pair_make();
    struct mailbox_entry entry;
    spoil(&pair.kernel, kernel_put(&pair.kernel, 1, read_cdb.bytes, 8192));
    CHECK(take(&pair, &entry) == MAILBOX_BROKEN);
    CHECK(strstr(status_text(), sentence) != NULL);
    pair_drop(&pair);
}

static void length_zero(struct kernel *kernel, struct tcmu_cmd_entry *entry)
{
    (void)kernel;
    entry->hdr.len_op = (0) | TCMU_OP_CMD;
}

static void length_of_a_header(struct kernel *kernel, struct tcmu_cmd_entry *entry)
{
    (void)kernel;
    entry->hdr.len_op = (8) | TCMU_OP_CMD;
}

static void length_over_head(struct kernel *kernel, struct tcmu_cmd_entry *entry)
{
    entry->hdr.len_op = (kernel->head + 8) | TCMU_OP_CMD;
}

static void length_huge(struct kernel *kernel, struct tcmu_cmd_entry *entry)
{
    (void)kernel;
    entry->hdr.len_op = 0xfffffff8 | TCMU_OP_CMD;
}

static void buffers_behind_the_entry(struct kernel *kernel, struct tcmu_cmd_entry *entry)
{
    (void)kernel;
    entry->req.iov_cnt = 100;
}

static void buffers_that_overflow(struct kernel *kernel, struct tcmu_cmd_entry *entry)
{
    (void)kernel;
    entry->req.iov_cnt = 0x10000001; /* times 16 is 16 in 32 bits */
}

static void cdb_outside(struct kernel *kernel, struct tcmu_cmd_entry *entry)
{
    entry->req.cdb_off = kernel->size - 15;
}

static void cdb_that_wraps(struct kernel *kernel, struct tcmu_cmd_entry *entry)
{
    (void)kernel;
    entry->req.cdb_off = UINT64_MAX - 7;
}

TEST(an_entry_that_makes_no_sense_breaks_the_mailbox)
{
    expect_broken(length_zero, "an entry of 0 bytes");
    expect_broken(length_of_a_header, "an entry of 8 bytes");
    expect_broken(length_over_head, "where 112 to");
    expect_broken(length_huge, "an entry of 4294967288 bytes");
    expect_broken(buffers_behind_the_entry, "100 buffers");
    expect_broken(buffers_that_overflow, "268435457 buffers");
    expect_broken(cdb_outside, "CDB at");
    expect_broken(cdb_that_wraps, "CDB at 18446744073709551608");
}

/* The first buffer of a command, changed by the case, must be refused. */
static void expect_bad_buffer(uint64_t base, uint64_t length)
{
    struct pair pair = pair_make();
    struct mailbox_entry entry;
    struct iovec iov[2];
    uint64_t total;
    struct tcmu_cmd_entry *put = kernel_put(&pair.kernel, 1, read_cdb.bytes, 8192);
    put->req.iov[0] = (struct iovec){(void *)(uintptr_t)base, length};
    CHECK(take(&pair, &entry) == MAILBOX_COMMAND);
    CHECK(!mailbox_copy_iov(&pair.mailbox, &entry, iov, &total));
    CHECK(strstr(status_text(), "outside the data area") != NULL);
    pair_drop(&pair);
}

TEST(a_buffer_outside_the_data_area_is_refused)
{
    struct kernel kernel = kernel_make(RING_SIZE);
    uint64_t begin = data_offset(&kernel, 0), size = kernel.size;
    kernel_drop(&kernel);
    expect_bad_buffer(0, 512);
    expect_bad_buffer(begin - 1, 512);
    expect_bad_buffer(size - 511, 512);
    expect_bad_buffer(size, 1);
    expect_bad_buffer(begin, size);
    expect_bad_buffer(UINT64_MAX, 2);
    expect_bad_buffer(begin, UINT64_MAX);
}

TEST(a_head_that_went_back_or_outside_breaks_the_mailbox)
{
    static const uint32_t heads[] = {4, RING_SIZE, RING_SIZE + 8, UINT32_MAX, 8, 0};
    for (size_t i = 0; i < sizeof heads / sizeof heads[0]; i++) {
        struct pair pair = pair_make();
        struct mailbox_entry entry;
        uint32_t head;
        kernel_put(&pair.kernel, 1, read_cdb.bytes, 512);
        CHECK(take(&pair, &entry) == MAILBOX_COMMAND);
        publish_head(&pair.kernel, heads[i]);
        CHECK(!mailbox_head(&pair.mailbox, &head));
        CHECK(strstr(status_text(), "mailbox: head") != NULL);
        pair_drop(&pair);
    }
}

TEST(an_answer_without_a_slot_is_refused)
{
    struct pair pair = pair_make();
    const struct mailbox_answer answer = {.id = 1};
    CHECK(!mailbox_answer(&pair.mailbox, &answer));
    CHECK(strstr(status_text(), "no slot") != NULL);
    pair_drop(&pair);
}

TEST(a_slot_that_changed_behind_our_back_is_refused)
{
    struct pair pair = pair_make();
    struct mailbox_entry entry;
    struct tcmu_cmd_entry *put = kernel_put(&pair.kernel, 1, read_cdb.bytes, 512);
    CHECK(take(&pair, &entry) == MAILBOX_COMMAND);
    put->hdr.len_op = (RING_SIZE * 2) | TCMU_OP_CMD;
    const struct mailbox_answer answer = {.id = 1};
    CHECK(!mailbox_answer(&pair.mailbox, &answer));
    pair_drop(&pair);
}

/* ---- layouts ---- */

static void expect_layout(void (*spoil)(struct tcmu_mailbox *mailbox), enum obd_status expected, const char *sentence)
{
    struct kernel kernel = kernel_make(RING_SIZE);
    struct mailbox mailbox;
    spoil(kernel_mailbox(&kernel));
    CHECK_FAILS(mailbox_open(&mailbox, -1, kernel.map, kernel.size), expected, sentence);
    kernel_drop(&kernel);
}

static void version_3(struct tcmu_mailbox *mailbox)
{
    mailbox->version = 3;
}

static void answers_in_order(struct tcmu_mailbox *mailbox)
{
    mailbox->flags &= (uint16_t)~TCMU_MAILBOX_FLAG_CAP_OOOC;
}

static void ring_over_the_end(struct tcmu_mailbox *mailbox)
{
    mailbox->cmdr_size = UINT32_MAX & ~7u;
}

static void ring_over_the_mailbox(struct tcmu_mailbox *mailbox)
{
    mailbox->cmdr_off = 64;
}

static void ring_of_nothing(struct tcmu_mailbox *mailbox)
{
    mailbox->cmdr_size = 0;
}

static void ring_not_aligned(struct tcmu_mailbox *mailbox)
{
    mailbox->cmdr_size = RING_SIZE - 4;
}

static void tail_outside(struct tcmu_mailbox *mailbox)
{
    mailbox->cmd_tail = RING_SIZE;
}

TEST(a_layout_that_makes_no_sense_is_refused)
{
    expect_layout(version_3, OBD_E_UNSUPPORTED, "version 3");
    expect_layout(answers_in_order, OBD_E_UNSUPPORTED, "in order");
    expect_layout(ring_over_the_end, OBD_E_CORRUPT, "a ring of");
    expect_layout(ring_over_the_mailbox, OBD_E_CORRUPT, "a ring of");
    expect_layout(ring_of_nothing, OBD_E_CORRUPT, "a ring of 0 bytes");
    expect_layout(ring_not_aligned, OBD_E_CORRUPT, "a ring of 4092 bytes");
    expect_layout(tail_outside, OBD_E_CORRUPT, "tail 4096");
}

/* Every byte of an entry and of the mailbox, each with some values: whatever the
 * kernel says, nothing outside the memory is touched (the sanitizer looks). */
TEST(no_byte_of_the_shared_memory_leads_outside_it)
{
    static const uint8_t values[] = {0x00, 0x01, 0x07, 0x7f, 0x80, 0xff};
    struct kernel kernel = kernel_make(RING_SIZE);
    kernel_put(&kernel, 1, read_cdb.bytes, 8192);
    kernel_put(&kernel, 2, read_cdb.bytes, 4096);
    publish_head(&kernel, kernel.head);
    size_t nr_bytes = sizeof(struct tcmu_mailbox) + kernel.head;
    for (size_t at = 0; at < nr_bytes; at++)
        for (size_t v = 0; v < sizeof values; v++) {
            static struct iovec iov[RING_SIZE / sizeof(struct iovec)];
            uint8_t before = kernel.map[at];
            struct mailbox mailbox;
            struct mailbox_entry entry;
            uint32_t head;
            uint64_t length;
            kernel.map[at] = values[v];
            if (mailbox_open(&mailbox, -1, kernel.map, kernel.size) == OBD_OK && mailbox_head(&mailbox, &head))
                while (mailbox_take(&mailbox, head, &entry) == MAILBOX_COMMAND)
                    mailbox_copy_iov(&mailbox, &entry, iov, &length);
            kernel.map[at] = before;
        }
    kernel_drop(&kernel);
}

TEST_MAIN(T(a_command_is_copied_with_its_cdb_and_buffers), T(bytes_behind_the_cdb_are_not_taken_for_it),
          T(answers_fill_the_slots_in_order_and_name_their_command),
          T(padding_and_notices_are_passed_over_and_given_back),
          T(padding_in_front_of_a_command_that_runs_keeps_its_slot_order),
          T(an_unknown_operation_is_marked_and_passed_over), T(entries_go_round_the_ring_many_times),
          T(an_entry_that_makes_no_sense_breaks_the_mailbox), T(a_buffer_outside_the_data_area_is_refused),
          T(a_head_that_went_back_or_outside_breaks_the_mailbox), T(an_answer_without_a_slot_is_refused),
          T(a_slot_that_changed_behind_our_back_is_refused), T(a_layout_that_makes_no_sense_is_refused),
          T(no_byte_of_the_shared_memory_leads_outside_it))
