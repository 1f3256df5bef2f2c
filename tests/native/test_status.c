/* The sentence a thread keeps about its last failure.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <pthread.h>

#include "check.h"

TEST(status_set_keeps_the_sentence_and_returns_the_status)
{
    CHECK(status_set(OBD_E_LIMIT, "%d segments", 7) == OBD_E_LIMIT);
    CHECK(strcmp(status_text(), "7 segments") == 0);
}

TEST(status_set_errno_appends_the_reason_and_chooses_the_status)
{
    static const struct {
        int error;
        enum obd_status status;
    } rows[] = {
        {ENOSPC, OBD_E_NO_SPACE},  {EDQUOT, OBD_E_NO_SPACE}, {EFBIG, OBD_E_NO_SPACE}, {ENOMEM, OBD_E_NO_MEMORY},
        {ENOENT, OBD_E_NOT_FOUND}, {EROFS, OBD_E_READ_ONLY}, {EIO, OBD_E_IO},         {EACCES, OBD_E_IO},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        CHECK_FAILS(status_set_errno(rows[i].error, "cannot open x"), rows[i].status, "cannot open x: ");
    status_set_errno(ENOSPC, "cannot write");
    CHECK(strcmp(status_text(), "cannot write: No space left on device") == 0);
}

TEST(status_prefix_puts_a_name_in_front)
{
    status_set(OBD_E_CORRUPT, "block 3 is damaged");
    CHECK(status_prefix(OBD_E_CORRUPT, "layer %d", 2) == OBD_E_CORRUPT);
    CHECK(strcmp(status_text(), "layer 2: block 3 is damaged") == 0);
}

TEST(status_text_may_be_an_argument_of_the_next_sentence)
{
    status_set(OBD_E_IO, "first");
    status_set(OBD_E_IO, "[%s]", status_text());
    CHECK(strcmp(status_text(), "[first]") == 0);
}

TEST(a_sentence_too_long_is_cut)
{
    char text[2 * STATUS_TEXT_SIZE];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    status_set(OBD_E_IO, "%s", text);
    CHECK(strlen(status_text()) == STATUS_TEXT_SIZE - 1);
    status_prefix(OBD_E_IO, "%s", text);
    CHECK(strlen(status_text()) == STATUS_TEXT_SIZE - 1);
    status_set_errno(EIO, "%s", text);
    CHECK(strlen(status_text()) == STATUS_TEXT_SIZE - 1);
}

static void *fail_elsewhere(void *unused)
{
    (void)unused;
    CHECK(status_text()[0] == '\0');
    status_set(OBD_E_IO, "another thread's");
    return NULL;
}

TEST(each_thread_has_its_own_sentence)
{
    pthread_t thread;
    status_set(OBD_E_IO, "mine");
    CHECK(pthread_create(&thread, NULL, fail_elsewhere, NULL) == 0);
    pthread_join(thread, NULL);
    CHECK(strcmp(status_text(), "mine") == 0);
}

TEST(every_status_has_a_name_of_its_own)
{
    for (int status = 0; status < OBD_NR_STATUS; status++) {
        const char *name = obd_status_name(status);
        CHECK(name != NULL && strncmp(name, "OBD_", 4) == 0);
        for (int other = 0; other < status; other++)
            CHECK(strcmp(name, obd_status_name(other)) != 0);
    }
    CHECK(strcmp(obd_status_name(OBD_NR_STATUS), "?") == 0);
    CHECK(strcmp(obd_status_name(-1), "?") == 0);
}

TEST_MAIN(T(status_set_keeps_the_sentence_and_returns_the_status),
          T(status_set_errno_appends_the_reason_and_chooses_the_status), T(status_prefix_puts_a_name_in_front),
          T(status_text_may_be_an_argument_of_the_next_sentence), T(a_sentence_too_long_is_cut),
          T(each_thread_has_its_own_sentence), T(every_status_has_a_name_of_its_own))
