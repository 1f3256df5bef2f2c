/* cache_folder: who owns the folder, and which blobs are in it.
 *
 * The owner has an exclusive flock on DIR/lock.  A process that may not write there
 * shares the lock with others like it, so that no owner evicts what it reads; where
 * there is no lock file, nobody has ever kept anything.
 *
 * What a folder cannot do (be written, hold a file more, give space back) makes the
 * cache keep nothing new; it never makes an image unreadable.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/log.h"
#include "cache/cache_state.h"

#define VERSION_TEXT "1"
#define HEX_LENGTH   64
#define MAP_SUFFIX   ".map"

/* ---- claiming -------------------------------------------------------------------- */

static void keep_nothing(struct cache *cache, const char *why)
{
    cache->is_read_only = true;
    log_write(OBD_LOG_WARNING, "cache %s keeps nothing new: %s", cache->folder, why);
}

static enum obd_status path_in(const struct cache *cache, const char *name, char path[PATH_MAX])
{
    int length = snprintf(path, PATH_MAX, "%s/%s", cache->folder, name);
    if (length > 0 && length < PATH_MAX)
        return OBD_OK;
    return status_set(OBD_E_INVALID, "cache %s: its path is too long", cache->folder);
}

/* The first line of a small file; "" when there is none. */
static void read_line(const char *path, char *line, size_t size)
{
    FILE *stream = fopen(path, "re");
    line[0] = '\0';
    if (stream == NULL)
        return;
    if (fgets(line, (int)size, stream) == NULL)
        line[0] = '\0';
    line[strcspn(line, "\n")] = '\0';
    fclose(stream);
}

static enum obd_status write_line(struct file *file, const char *line)
{
    enum obd_status status = file_truncate(file, 0);
    return status == OBD_OK ? file_write(file, line, strlen(line), 0) : status;
}

static enum obd_status name_owner(const struct cache *cache, const char *path)
{
    char owner[128];
    read_line(path, owner, sizeof owner);
    return status_set(OBD_E_BUSY, "cache %s is in use by %s", cache->folder,
                      owner[0] != '\0' ? owner : "another process");
}

static void sign(struct file *lock)
{
    char name[32], line[80];
    read_line("/proc/self/comm", name, sizeof name);
    snprintf(line, sizeof line, "process %ld (%s)\n", (long)getpid(), name);
    write_line(lock, line); /* a lock without a name locks as well */
}

static enum obd_status take_lock(struct cache *cache)
{
    char path[PATH_MAX];
    enum obd_status status = path_in(cache, "lock", path);
    if (status != OBD_OK)
        return status;
    int flags = cache->is_read_only ? O_RDONLY : O_RDWR | O_CREAT;
    status = file_open(path, flags | O_NOFOLLOW, 0600, &cache->owner_lock);
    if (status != OBD_OK)
        return cache->is_read_only && status == OBD_E_NOT_FOUND ? OBD_OK : status;
    status = file_lock(cache->owner_lock, cache->is_read_only ? FILE_SHARED : FILE_EXCLUSIVE);
    if (status == OBD_E_BUSY)
        return name_owner(cache, path);
    if (status == OBD_OK && !cache->is_read_only)
        sign(cache->owner_lock);
    return status;
}

static enum obd_status write_version(const char *path)
{
    struct file *file;
    enum obd_status status = file_open(path, O_RDWR | O_CREAT | O_NOFOLLOW, 0600, &file);
    if (status != OBD_OK)
        return status;
    status = write_line(file, VERSION_TEXT "\n");
    file_close(file);
    return status;
}

static enum obd_status check_version(struct cache *cache)
{
    char path[PATH_MAX], version[16];
    enum obd_status status = path_in(cache, "version", path);
    if (status != OBD_OK)
        return status;
    read_line(path, version, sizeof version);
    if (strcmp(version, VERSION_TEXT) == 0)
        return OBD_OK;
    if (version[0] != '\0')
        return status_set(OBD_E_UNSUPPORTED, "cache %s is of version %s; this program knows version %s", cache->folder,
                          version, VERSION_TEXT);
    if (!cache->is_read_only && write_version(path) != OBD_OK)
        keep_nothing(cache, status_text());
    return OBD_OK;
}

/* Punches behind the end of a file: nothing changes, but we know whether it can be done. */
static void check_punching(struct cache *cache)
{
    if (!cache->is_read_only && file_punch(cache->owner_lock, ROOM_UNIT, ROOM_UNIT) != OBD_OK)
        keep_nothing(cache, status_text());
}

static enum obd_status make_folder(const char *path)
{
    if (mkdir(path, 0700) == 0 || errno == EEXIST)
        return OBD_OK;
    return status_set_errno(errno, "cannot make the folder %s", path);
}

static void make_blobs_folder(struct cache *cache)
{
    char path[PATH_MAX];
    if (path_in(cache, "blobs", path) == OBD_OK && !cache->is_read_only && make_folder(path) != OBD_OK)
        keep_nothing(cache, status_text());
}

enum obd_status cache_folder_claim(struct cache *cache)
{
    enum obd_status status = make_folder(cache->folder);
    if (status != OBD_OK)
        return status;
    if (faccessat(AT_FDCWD, cache->folder, W_OK, AT_EACCESS) != 0)
        keep_nothing(cache, strerror(errno));
    status = take_lock(cache);
    if (status == OBD_OK)
        status = check_version(cache);
    if (status != OBD_OK)
        return status;
    check_punching(cache);
    make_blobs_folder(cache);
    return OBD_OK;
}

/* ---- loading --------------------------------------------------------------------------- */

struct found {
    char path[PATH_MAX]; /* of the data file */
    struct timespec used;
};

struct finds {
    struct found *all;
    size_t nr, capacity;
};

static int hex_value(char digit)
{
    return isdigit((unsigned char)digit) ? digit - '0' : digit - 'a' + 10;
}

static bool is_digest(const char *name)
{
    return strspn(name, "0123456789abcdef") == HEX_LENGTH;
}

static bool is_digest_of(const char *hex, const uint8_t digest[32])
{
    for (int i = 0; i < 32; i++)
        if (hex_value(hex[2 * i]) * 16 + hex_value(hex[2 * i + 1]) != digest[i])
            return false;
    return true;
}

/* The path of a blob's map; "" when it is too long to have been made by us. */
static void map_path_of(const char *data_path, char map_path[PATH_MAX])
{
    if (snprintf(map_path, PATH_MAX, "%s" MAP_SUFFIX, data_path) >= PATH_MAX)
        map_path[0] = '\0';
}

static enum obd_status grow(struct finds *finds, const char *folder)
{
    size_t capacity = finds->capacity * 2 + 16;
    struct found *all = realloc(finds->all, capacity * sizeof *all);
    if (all == NULL)
        return status_set(OBD_E_NO_MEMORY, "no memory for the blobs of %s", folder);
    finds->all = all;
    finds->capacity = capacity;
    return OBD_OK;
}

/* Each blob once: by its map, or by data that has none. */
static enum obd_status add_find(struct finds *finds, const char *folder, const char *name)
{
    struct stat st;
    char map_path[PATH_MAX];
    bool is_map = is_digest(name) && strcmp(name + HEX_LENGTH, MAP_SUFFIX) == 0;
    bool is_data = is_digest(name) && name[HEX_LENGTH] == '\0';
    enum obd_status status = finds->nr == finds->capacity ? grow(finds, folder) : OBD_OK;
    if (status != OBD_OK || !(is_map || is_data))
        return status;
    struct found *found = &finds->all[finds->nr];
    if (snprintf(found->path, sizeof found->path, "%s/%.64s", folder, name) >= PATH_MAX)
        return OBD_OK;
    map_path_of(found->path, map_path);
    bool has_map = stat(map_path, &st) == 0;
    if (is_data && has_map)
        return OBD_OK;
    found->used = has_map ? st.st_mtim : (struct timespec){0};
    finds->nr++;
    return OBD_OK;
}

static enum obd_status find_all(const char *folder, struct finds *finds)
{
    DIR *directory = opendir(folder);
    enum obd_status status = OBD_OK;
    struct dirent *entry;
    if (directory == NULL)
        return errno == ENOENT ? OBD_OK : status_set_errno(errno, "cannot list %s", folder);
    while (status == OBD_OK && (entry = readdir(directory)) != NULL)
        status = add_find(finds, folder, entry->d_name);
    closedir(directory);
    return status;
}

static int compare_finds(const void *a, const void *b)
{
    const struct timespec *x = &((const struct found *)a)->used, *y = &((const struct found *)b)->used;
    if (x->tv_sec != y->tv_sec)
        return x->tv_sec < y->tv_sec ? -1 : 1;
    return (x->tv_nsec > y->tv_nsec) - (x->tv_nsec < y->tv_nsec);
}

/* What a kill has left behind: bytes in the data file of chunks that are absent. */
static void trim(struct blob *blob, uint64_t allocated)
{
    uint64_t present = 0, nr_chunks = chunk_map_nr_chunks(blob->map);
    for (uint64_t chunk = 0; chunk < nr_chunks; chunk++)
        if (chunk_map_is_present(blob->map, chunk))
            present += blob_chunk_room(blob, chunk);
    if (allocated <= present || blob_files_use(blob) != OBD_OK)
        return;
    for (uint64_t chunk = 0; chunk < nr_chunks; chunk++)
        if (!chunk_map_is_present(blob->map, chunk))
            file_punch(blob->data, chunk * chunk_map_shape(blob->map)->chunk_size, blob_chunk_room(blob, chunk));
    blob_files_leave(blob);
}

static enum obd_status enter_chunks(struct blob *blob)
{
    struct cache *cache = blob->cache;
    enum obd_status status = OBD_OK;
    cache->used_bytes += round_up(chunk_map_file_size(blob->map), ROOM_UNIT);
    for (uint64_t chunk = 0; chunk < chunk_map_nr_chunks(blob->map) && status == OBD_OK; chunk++) {
        if (!chunk_map_is_present(blob->map, chunk))
            continue;
        cache->used_bytes += blob_chunk_room(blob, chunk);
        status = blob_enter_chunk(blob, chunk);
    }
    return status;
}

/* OBD_E_CORRUPT when what is there is no blob of a cache. */
static enum obd_status load_map(const char *path, struct chunk_map **map, struct stat *st)
{
    char map_path[PATH_MAX];
    map_path_of(path, map_path);
    enum obd_status status = chunk_map_load(map_path, map);
    if (status != OBD_OK)
        return status;
    const struct chunk_map_shape *shape = chunk_map_shape(*map);
    if (lstat(path, st) == 0 && S_ISREG(st->st_mode) && (uint64_t)st->st_size == shape->blob_size &&
        is_digest_of(strrchr(path, '/') + 1, shape->digest))
        return OBD_OK;
    chunk_map_free(*map);
    return status_set(OBD_E_CORRUPT, "%s does not belong to the data beside it", map_path);
}

static void remove_find(struct cache *cache, const char *path)
{
    char map_path[PATH_MAX];
    if (cache->is_read_only)
        return;
    map_path_of(path, map_path);
    unlink(map_path);
    unlink(path);
}

static enum obd_status load_blob(struct cache *cache, const char *path)
{
    struct chunk_map *map;
    struct blob *blob;
    struct stat st;
    enum obd_status status = load_map(path, &map, &st);
    if (status == OBD_OK && chunk_map_nr_present(map) == 0) {
        chunk_map_free(map);
        status = OBD_E_NOT_FOUND;
    }
    if (status == OBD_E_CORRUPT || status == OBD_E_UNSUPPORTED || status == OBD_E_NOT_FOUND) {
        remove_find(cache, path);
        return OBD_OK;
    }
    if (status != OBD_OK)
        return status;
    status = blob_make(cache, path, map, &blob);
    if (status != OBD_OK)
        return status;
    blob->has_files = true;
    status = enter_chunks(blob);
    if (status == OBD_OK && !cache->is_read_only)
        trim(blob, (uint64_t)st.st_blocks * 512);
    return status;
}

enum obd_status cache_folder_load(struct cache *cache)
{
    char folder[PATH_MAX];
    struct finds finds = {.nr = 0};
    enum obd_status status = path_in(cache, "blobs", folder);
    if (status == OBD_OK && cache->owner_lock != NULL)
        status = find_all(folder, &finds);
    if (finds.nr > 0)
        qsort(finds.all, finds.nr, sizeof *finds.all, compare_finds);
    for (size_t i = 0; i < finds.nr && status == OBD_OK; i++)
        status = load_blob(cache, finds.all[i].path);
    free(finds.all);
    return status;
}
