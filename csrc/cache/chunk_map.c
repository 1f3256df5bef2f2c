/* chunk_map: the map in memory and its file.
 *
 * A chunk's state is one word: present, trusted, and above these the generation,
 * which counts how often the chunk was cleared.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _GNU_SOURCE
#include "cache/chunk_map.h"

#include <assert.h>
#include <endian.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "codec/crc32c.h"

#define VERSION        1u
#define RECORD_PRESENT 1u

#define PRESENT         1u
#define TRUSTED         2u
#define READABLE        (PRESENT | TRUSTED)
#define GENERATION_STEP 4u

static const char magic[8] = {'O', 'B', 'D', 'C', 'H', 'N', 'K', 1};

struct header {
    char magic[8];
    uint32_t version;
    uint32_t chunk_size;
    uint64_t blob_size;
    uint8_t digest[32];
    uint32_t crc;
} __attribute__((packed));

struct record {
    uint32_t flags;
    uint32_t crc;
    uint8_t sha256[32];
};

_Static_assert(sizeof(struct header) == 60, "as chunk_map.h says");
_Static_assert(sizeof(struct record) == CHUNK_MAP_RECORD_SIZE, "as chunk_map.h says");

struct chunk_map {
    struct chunk_map_shape shape;
    uint64_t nr_chunks;
    uint64_t nr_present;
    struct file *file; /* NULL: not open */
    atomic_uint *states;
    uint32_t *crcs;
    char path[];
};

/* ---- shape -------------------------------------------------------------------- */

const char *chunk_map_path(const struct chunk_map *map)
{
    return map->path;
}

const struct chunk_map_shape *chunk_map_shape(const struct chunk_map *map)
{
    return &map->shape;
}

uint64_t chunk_map_nr_chunks(const struct chunk_map *map)
{
    return map->nr_chunks;
}

uint64_t chunk_map_nr_present(const struct chunk_map *map)
{
    return map->nr_present;
}

static uint64_t file_size_for(uint64_t nr_chunks)
{
    return CHUNK_MAP_HEADER_SIZE + nr_chunks * CHUNK_MAP_RECORD_SIZE;
}

uint64_t chunk_map_file_size(const struct chunk_map *map)
{
    return file_size_for(map->nr_chunks);
}

uint32_t chunk_map_chunk_bytes(const struct chunk_map *map, uint64_t chunk)
{
    assert(chunk < map->nr_chunks);
    return (uint32_t)min_u64(map->shape.chunk_size, map->shape.blob_size - chunk * map->shape.chunk_size);
}

/* ---- a chunk ------------------------------------------------------------------- */

static unsigned state_of(const struct chunk_map *map, uint64_t chunk)
{
    assert(chunk < map->nr_chunks);
    return atomic_load_explicit(&map->states[chunk], memory_order_acquire);
}

bool chunk_map_is_present(const struct chunk_map *map, uint64_t chunk)
{
    return (state_of(map, chunk) & PRESENT) != 0;
}

bool chunk_map_is_trusted(const struct chunk_map *map, uint64_t chunk)
{
    return (state_of(map, chunk) & READABLE) == READABLE;
}

/* Generations only grow, so their sum is the same only when each of them is. */
bool chunk_map_stamp(const struct chunk_map *map, uint64_t first, uint64_t last, uint64_t *stamp)
{
    uint64_t sum = 0;
    for (uint64_t chunk = first; chunk <= last; chunk++) {
        unsigned state = state_of(map, chunk);
        if ((state & READABLE) != READABLE)
            return false;
        sum += state / GENERATION_STEP;
    }
    *stamp = sum;
    return true;
}

uint32_t chunk_map_generation(const struct chunk_map *map, uint64_t chunk)
{
    return state_of(map, chunk) / GENERATION_STEP;
}

uint32_t chunk_map_crc(const struct chunk_map *map, uint64_t chunk)
{
    assert(chunk < map->nr_chunks);
    return map->crcs[chunk];
}

void chunk_map_vouch(struct chunk_map *map, uint64_t chunk)
{
    assert(chunk_map_is_present(map, chunk));
    atomic_fetch_or(&map->states[chunk], TRUSTED);
}

static enum obd_status write_record(struct chunk_map *map, uint64_t chunk, uint32_t flags, uint32_t crc)
{
    struct record record = {.flags = htole32(flags), .crc = htole32(crc)};
    if (map->file == NULL)
        return status_set(OBD_E_READ_ONLY, "%s is not open for writing", map->path);
    return file_write(map->file, &record, sizeof record, file_size_for(chunk));
}

enum obd_status chunk_map_set(struct chunk_map *map, uint64_t chunk, uint32_t crc)
{
    assert(!chunk_map_is_present(map, chunk));
    enum obd_status status = write_record(map, chunk, RECORD_PRESENT, crc);
    if (status != OBD_OK)
        return status;
    map->crcs[chunk] = crc;
    map->nr_present++;
    atomic_fetch_or(&map->states[chunk], READABLE);
    return OBD_OK;
}

void chunk_map_clear(struct chunk_map *map, uint64_t chunk)
{
    unsigned state = state_of(map, chunk);
    assert(state & PRESENT);
    /* Readers must see this before they can see a punched byte. */
    atomic_store(&map->states[chunk], (state & ~READABLE) + GENERATION_STEP);
    map->nr_present--;
    write_record(map, chunk, 0, 0);
}

/* ---- memory ---------------------------------------------------------------------- */

void chunk_map_free(struct chunk_map *map)
{
    if (map == NULL)
        return;
    file_close(map->file);
    free(map->states);
    free(map->crcs);
    free(map);
}

enum obd_status chunk_map_new(const char *path, const struct chunk_map_shape *shape, struct chunk_map **out)
{
    assert(is_power_of_two(shape->chunk_size) && shape->blob_size > 0);
    size_t path_size = strlen(path) + 1;
    struct chunk_map *map = calloc(1, sizeof *map + path_size);
    if (map == NULL)
        return status_set(OBD_E_NO_MEMORY, "no memory for %s", path);
    memcpy(map->path, path, path_size);
    map->shape = *shape;
    map->nr_chunks = (shape->blob_size - 1) / shape->chunk_size + 1;
    map->states = calloc(map->nr_chunks, sizeof *map->states);
    map->crcs = calloc(map->nr_chunks, sizeof *map->crcs);
    if (map->states == NULL || map->crcs == NULL) {
        chunk_map_free(map);
        return status_set(OBD_E_NO_MEMORY, "no memory for the %llu chunks of %s",
                          (unsigned long long)((shape->blob_size - 1) / shape->chunk_size + 1), path);
    }
    *out = map;
    return OBD_OK;
}

/* ---- loading ----------------------------------------------------------------------- */

static uint32_t header_crc(const struct header *header)
{
    return crc32c_raw(header, offsetof(struct header, crc), 0);
}

static enum obd_status check_header(const char *path, const struct header *header)
{
    if (memcmp(header->magic, magic, sizeof magic) != 0 || le32toh(header->crc) != header_crc(header))
        return status_set(OBD_E_CORRUPT, "%s does not begin as a chunk map", path);
    if (le32toh(header->version) != VERSION)
        return status_set(OBD_E_UNSUPPORTED, "%s is a chunk map of version %u; this is version %u", path,
                          le32toh(header->version), VERSION);
    uint32_t chunk_size = le32toh(header->chunk_size);
    if (!is_power_of_two(chunk_size) || chunk_size < CHUNK_MIN_SIZE || chunk_size > CHUNK_MAX_SIZE ||
        header->blob_size == 0)
        return status_set(OBD_E_CORRUPT, "%s: a blob of %llu bytes in chunks of %u makes no sense", path,
                          (unsigned long long)le64toh(header->blob_size), chunk_size);
    return OBD_OK;
}

/* Before memory is taken for as many records as the header claims. */
static enum obd_status check_length(struct file *file, const struct chunk_map_shape *shape)
{
    uint64_t size, expected = file_size_for((shape->blob_size - 1) / shape->chunk_size + 1);
    enum obd_status status = file_size(file, &size);
    if (status == OBD_OK && size != expected)
        return status_set(OBD_E_CORRUPT, "%s has %llu bytes, but its header says %llu", file_path(file),
                          (unsigned long long)size, (unsigned long long)expected);
    return status;
}

static enum obd_status load_header(struct file *file, struct chunk_map_shape *shape)
{
    struct header header;
    enum obd_status status = file_read(file, &header, sizeof header, 0);
    if (status == OBD_OK)
        status = check_header(file_path(file), &header);
    if (status != OBD_OK)
        return status;
    shape->blob_size = le64toh(header.blob_size);
    shape->chunk_size = le32toh(header.chunk_size);
    memcpy(shape->digest, header.digest, sizeof shape->digest);
    return check_length(file, shape);
}

static void take_records(struct chunk_map *map, const struct record *records)
{
    for (uint64_t chunk = 0; chunk < map->nr_chunks; chunk++) {
        if ((le32toh(records[chunk].flags) & RECORD_PRESENT) == 0)
            continue;
        atomic_init(&map->states[chunk], PRESENT);
        map->crcs[chunk] = le32toh(records[chunk].crc);
        map->nr_present++;
    }
}

static enum obd_status load_records(struct file *file, struct chunk_map *map)
{
    struct record *records = malloc(map->nr_chunks * sizeof *records);
    if (records == NULL)
        return status_set(OBD_E_NO_MEMORY, "no memory to load %s", map->path);
    enum obd_status status = file_read(file, records, map->nr_chunks * sizeof *records, CHUNK_MAP_HEADER_SIZE);
    if (status == OBD_OK)
        take_records(map, records);
    free(records);
    return status;
}

enum obd_status chunk_map_load(const char *path, struct chunk_map **out)
{
    struct file *file;
    struct chunk_map_shape shape;
    struct chunk_map *map = NULL;
    enum obd_status status = file_open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0, &file);
    if (status != OBD_OK)
        return status;
    status = load_header(file, &shape);
    if (status == OBD_OK)
        status = chunk_map_new(path, &shape, &map);
    if (status == OBD_OK)
        status = load_records(file, map);
    file_close(file);
    if (status == OBD_OK)
        *out = map;
    else
        chunk_map_free(map);
    return status;
}

/* ---- the file ------------------------------------------------------------------------ */

/* The header comes last: a file that was left half made is no map. */
static enum obd_status write_new(struct file *file, const struct chunk_map *map)
{
    struct header header = {.version = htole32(VERSION),
                            .chunk_size = htole32(map->shape.chunk_size),
                            .blob_size = htole64(map->shape.blob_size)};
    memcpy(header.magic, magic, sizeof magic);
    memcpy(header.digest, map->shape.digest, sizeof header.digest);
    header.crc = htole32(header_crc(&header));
    enum obd_status status = file_truncate(file, chunk_map_file_size(map));
    return status == OBD_OK ? file_write(file, &header, sizeof header, 0) : status;
}

enum obd_status chunk_map_create_file(struct chunk_map *map)
{
    struct file *file;
    assert(map->file == NULL && map->nr_present == 0);
    enum obd_status status = file_open(map->path, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW, 0600, &file);
    if (status != OBD_OK)
        return status;
    status = write_new(file, map);
    if (status == OBD_OK)
        map->file = file;
    else
        file_close(file);
    return status;
}

enum obd_status chunk_map_open_file(struct chunk_map *map)
{
    return map->file != NULL ? OBD_OK : file_open(map->path, O_RDWR | O_NOFOLLOW, 0, &map->file);
}

void chunk_map_close_file(struct chunk_map *map)
{
    file_close(map->file);
    map->file = NULL;
}
