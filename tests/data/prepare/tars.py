# SPDX-License-Identifier: Apache-2.0
"""Made tar archives."""

import io
import tarfile


def pack(path, members, mode="w:gz"):
    """A tar archive of (name, bytes) and ready-made TarInfo members; returns its path."""
    with tarfile.open(path, mode) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))
    return path
