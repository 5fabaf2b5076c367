# SPDX-License-Identifier: Apache-2.0
"""Downloading a file: resumed where the server allows it, checked by its MD5, whole or absent."""

import http.client
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tqdm import tqdm

from ...common.errors import UserError
from ...common.files import checksum, writing

BLOCK_BYTES = 1 << 20


def download(url: str, path: str | os.PathLike, *, md5: str | None, mend: str, timeout: float = 30.0) -> None:
    """Downloads `url` to `path`; what has come so far waits in `path`.part for the next call.

    Args:
        url: the address.
        path: the file to write.
        md5: the expected MD5 in lower-case hexadecimal; None takes whatever comes.
        mend: what the user can do instead; it ends the messages.
        timeout: seconds without a byte before giving up.

    Raises:
        UserError: no connection, a refusal, a connection that broke, a full disk, or another MD5.
    """
    path = Path(path)
    part = path.with_name(path.name + ".part")
    resumed = _fetch(url, part, mend, timeout)
    found = checksum(part, kind="md5")
    if resumed and md5 not in (None, found):
        # The part may have been of something else: once more, from the beginning.
        part.unlink()
        _fetch(url, part, mend, timeout)
        found = checksum(part, kind="md5")
    if md5 not in (None, found):
        part.unlink()
        raise UserError(f"{url} has the MD5 {found}, expected {md5}; try again later, or {mend}")
    part.replace(path)


def _fetch(url: str, part: Path, mend: str, timeout: float) -> bool:
    """Brings `part` to its full length. Returns whether it went on from an earlier part."""
    have = part.stat().st_size if part.exists() else 0
    try:
        with _request(url, have, timeout) as answer:
            resumed = answer.status == 206
            if resumed and _first_byte(answer) != have:
                raise http.client.HTTPException("the server sent another part than was asked for")
            _save(answer, part, have if resumed else 0)
            return resumed
    except HTTPError as error:
        raise UserError(f"{url} answered {error.code} {error.reason}; try again later, or {mend}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise UserError(
            f"cannot download {url} ({reason}); check the network and run it again, or {mend}"
        ) from error


def _request(url: str, have: int, timeout: float) -> http.client.HTTPResponse:
    """Asks for the bytes from `have` on. A server may answer with the whole (status 200) all the same."""
    whole = Request(url, headers={"User-Agent": "python-urllib"})
    if have:
        rest = Request(url, headers={**whole.headers, "Range": f"bytes={have}-"})
        try:
            return urlopen(rest, timeout=timeout)
        except HTTPError as error:
            if error.code != 416:  # 416: nothing lies beyond `have`, so it is no part of this file
                raise
    return urlopen(whole, timeout=timeout)


def _first_byte(answer: http.client.HTTPResponse) -> int | None:
    """Where the answer begins in the file, from `Content-Range: bytes FIRST-LAST/TOTAL`."""
    first = answer.headers.get("Content-Range", "").removeprefix("bytes ").split("-")[0]
    return int(first) if first.isdigit() else None


def _save(answer: http.client.HTTPResponse, part: Path, start: int) -> None:
    """Writes the answer, which begins at byte `start`, and checks that all of it came."""
    length = answer.headers.get("Content-Length")
    total = start + int(length) if length else None
    end = start
    with (
        writing(part),
        part.open("ab" if start else "wb") as file,
        tqdm(desc=part.stem, initial=start, total=total, unit="B", unit_scale=True, disable=None) as bar,
    ):
        for block in _blocks(answer):
            file.write(block)
            end += len(block)
            bar.update(len(block))
    if total is not None and end < total:
        raise http.client.HTTPException(f"the connection ended after {end:,} of {total:,} bytes")


def _blocks(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    """The body in blocks; failures of the network become HTTPException: an OSError is then the disk's."""
    try:
        while block := answer.read(BLOCK_BYTES):
            yield block
    except OSError as error:
        raise http.client.HTTPException(str(error)) from error
