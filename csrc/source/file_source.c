/* file_source: a local file as a source.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/file.h"
#include "source/source.h"

struct file_source {
    struct source source; /* first */
    struct file *file;
};

static enum obd_status file_source_read(struct source *source, const struct read_context *context,
                                        struct iov_cursor *cursor, size_t length, uint64_t offset)
{
    struct file *file = ((struct file_source *)source)->file;
    if (context->nowait)
        return file_read_iov_nowait(file, cursor, length, offset);
    return file_read_iov(file, cursor, length, offset);
}

static void file_source_destroy(struct source *source)
{
    struct file_source *self = (struct file_source *)source;
    file_close(self->file);
    free(self);
}

static const struct source_ops file_source_ops = {
    .kind = "file", .read = file_source_read, .destroy = file_source_destroy};

static enum obd_status check_type(struct file *file)
{
    struct stat st;
    if (fstat(file_fd(file), &st) == 0 && (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode)))
        return OBD_OK;
    return status_set(OBD_E_INVALID, "%s is neither a regular file nor a block device", file_path(file));
}

/* Takes file, also when this fails. */
static enum obd_status make_source(struct file *file, uint64_t size, struct source **out)
{
    struct file_source *self = malloc(sizeof *self);
    enum obd_status status = self != NULL ? source_init(&self->source, &file_source_ops, size, file_path(file))
                                          : status_set(OBD_E_NO_MEMORY, "no memory to open %s", file_path(file));
    if (status != OBD_OK) {
        free(self);
        file_close(file);
        return status;
    }
    self->file = file;
    *out = &self->source;
    return OBD_OK;
}

enum obd_status source_open_file(const char *path, struct source **out)
{
    struct file *file;
    uint64_t size;
    enum obd_status status = file_open(path, O_RDONLY | O_NONBLOCK, 0, &file); /* a FIFO would wait for a writer */
    if (status != OBD_OK)
        return status;
    status = check_type(file);
    if (status == OBD_OK)
        status = file_size(file, &size);
    if (status != OBD_OK) {
        file_close(file);
        return status;
    }
    return make_source(file, size, out);
}
