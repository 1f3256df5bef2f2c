/* upper_fail: the failed state of an upper (upper.h): what was flushed, for ever.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>

#include "base/hook.h"
#include "base/log.h"
#include "image/upper_state.h"

enum obd_status upper_refuse(const struct upper *upper)
{
    if (upper->seal_state != UPPER_OPEN && !upper->is_failed)
        return status_set(OBD_E_READ_ONLY, "upper %s is sealed: it is a lower now and never written again",
                          upper->name);
    return status_set(OBD_E_READ_ONLY, "%s", upper->why_read_only);
}

/* The map as the index file's flushed part says. */
static void show_flushed_state(struct upper *upper)
{
    struct loaded_index flushed;
    struct upper_index_bounds bounds = {
        .length = upper->index_length, .flushed_length = upper->index_length, .is_flushed_known = true};
    if (upper_index_load(upper, &bounds, &flushed) != OBD_OK) {
        /* Nothing better is known than what was acknowledged; writes are refused all the same. */
        log_write(OBD_LOG_ERROR, "upper %s: its flushed state cannot be read back: %s", upper->name, status_text());
        return;
    }
    pthread_mutex_lock(&upper->map_lock);
    struct segment_map *before = upper->map;
    upper->map = flushed.map;
    pthread_mutex_unlock(&upper->map_lock);
    segment_map_free(before);
}

enum obd_status upper_fail(struct upper *upper, enum obd_status status)
{
    char why[STATUS_TEXT_SIZE];
    snprintf(why, sizeof why, "%s", status_text());
    pthread_mutex_lock(&upper->map_lock);
    upper->is_failed = true;
    /* Two long paths do not fit; what is cut is the end of the reason. */
    snprintf(upper->why_read_only, sizeof upper->why_read_only,
             "upper %.200s is read-only and shows what was flushed last: %.250s", upper->name, why);
    /* The mark comes first: from then on no start believes more than index_length. */
    if (journal_set_state(upper->journal, JOURNAL_FAILED) != OBD_OK)
        log_write(OBD_LOG_ERROR, "upper %s: its journal cannot be marked as failed: %s", upper->name, status_text());
    pthread_mutex_unlock(&upper->map_lock);
    log_write(OBD_LOG_ERROR, "upper %s is read-only from now on: %s", upper->name, why);
    HOOK("upper.flush.failed");
    if (file_truncate(upper->index, upper->index_length) != OBD_OK)
        log_write(OBD_LOG_ERROR, "upper %s: %s", upper->name, status_text());
    show_flushed_state(upper);
    return status_set(status, "upper %s: %s", upper->name, why);
}
