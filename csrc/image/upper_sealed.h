/* upper_sealed: is a data file a sealed layer?
 *
 * Sealing appends an index and a trailer to the data file (spec/lsmt.md section
 * 7.1).  Such a file is a lower and must never be appended to.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_IMAGE_UPPER_SEALED_H
#define OBD_IMAGE_UPPER_SEALED_H

#include "base/file.h"

/* *is_sealed: the file ends in a trailer that describes this very file. */
enum obd_status upper_has_trailer(struct file *data, bool *is_sealed);

#endif
