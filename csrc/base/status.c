/* status: the sentence each thread keeps about its last failure.
 *
 * A new sentence is made in a buffer on the stack and then copied, because the
 * old one may be among its arguments.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _GNU_SOURCE /* strerror_r that returns the text */
#include "base/status.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static _Thread_local char sentence[STATUS_TEXT_SIZE];

/* Appends to a text of STATUS_TEXT_SIZE bytes what there is room for. */
static void append(char *text, const char *more)
{
    size_t used = strlen(text);
    size_t length = strnlen(more, STATUS_TEXT_SIZE - 1 - used);
    memcpy(text + used, more, length);
    text[used + length] = '\0';
}

static void format_text(char *text, const char *format, va_list arguments) __attribute__((format(printf, 2, 0)));

static void format_text(char *text, const char *format, va_list arguments)
{
    if (vsnprintf(text, STATUS_TEXT_SIZE, format, arguments) < 0)
        text[0] = '\0';
}

enum obd_status status_set(enum obd_status status, const char *format, ...)
{
    char text[STATUS_TEXT_SIZE];
    va_list arguments;
    va_start(arguments, format);
    format_text(text, format, arguments);
    va_end(arguments);
    memcpy(sentence, text, sizeof sentence);
    return status;
}

static enum obd_status status_of_errno(int error)
{
    switch (error) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return OBD_E_NO_SPACE;
    case ENOMEM:
        return OBD_E_NO_MEMORY;
    case ENOENT:
        return OBD_E_NOT_FOUND;
    case EROFS:
        return OBD_E_READ_ONLY;
    default:
        return OBD_E_IO;
    }
}

enum obd_status status_set_errno(int error, const char *format, ...)
{
    char text[STATUS_TEXT_SIZE];
    char reason[128];
    va_list arguments;
    va_start(arguments, format);
    format_text(text, format, arguments);
    va_end(arguments);
    append(text, ": ");
    append(text, strerror_r(error, reason, sizeof reason));
    memcpy(sentence, text, sizeof sentence);
    return status_of_errno(error);
}

enum obd_status status_prefix(enum obd_status status, const char *format, ...)
{
    char text[STATUS_TEXT_SIZE];
    va_list arguments;
    va_start(arguments, format);
    format_text(text, format, arguments);
    va_end(arguments);
    append(text, ": ");
    append(text, sentence);
    memcpy(sentence, text, sizeof sentence);
    return status;
}

const char *status_text(void)
{
    return sentence;
}
