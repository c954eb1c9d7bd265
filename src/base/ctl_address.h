/* SPDX-License-Identifier: Apache-2.0 */
/** \file Shared by the control socket's two ends only. */
#pragma once

#include <sys/un.h>

#include "base/ctl.h"

/** \return 0, -EINVAL (empty) or -ENAMETOOLONG. */
int ctl_address(const char *path, struct sockaddr_un *sa);
