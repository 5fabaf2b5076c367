# SPDX-License-Identifier: Apache-2.0
"""Folders as people have them, of empty files."""

import os

from src.data import folders as module


def save(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def unreadable(monkeypatch, folder):
    """Also for root, who may read everything."""
    real = os.scandir

    def scandir(path):
        if isinstance(path, (str, os.PathLike)) and os.path.realpath(path) == os.path.realpath(folder):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return real(path)

    monkeypatch.setattr(module.os, "scandir", scandir)
