/* miss_table: the chunks of one blob that somebody waits for, or holds.
 *
 *   wanted  a chunk that one origin was asked for: a fetch job and its waiters
 *   held    a chunk that came and that the cache cannot keep: its bytes in memory,
 *           until the last pin of it is given back
 *
 * cached_source.c works on it; the table is the blob's, because all sources of a
 * blob share it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_CACHE_MISS_TABLE_H
#define OBD_CACHE_MISS_TABLE_H

#include "base/status.h"

struct miss_table;

enum obd_status miss_table_open(struct miss_table **out);
void miss_table_close(struct miss_table *table); /* nothing is wanted or held any more */

#endif
