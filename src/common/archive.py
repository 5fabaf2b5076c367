"""What an archive of unknown origin may hold: plain files and folders that stay inside its folder."""

from pathlib import PurePosixPath

from .errors import UserError


def check_member(archive: str, name: str, *, is_plain: bool) -> PurePosixPath:
    """The path of a member, checked.

    Args:
        archive: the archive's name, for the message.
        name: the member's, as the archive has it.
        is_plain: whether it is a plain file or a folder: no link and no device.

    Raises:
        UserError: it is neither, or its path leaves the archive.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not is_plain:
        raise UserError(
            f"{archive} has the member {name!r}, a link, a device or a path that leaves it; take the archive "
            "from its official address, or pack it again from plain files"
        )
    return path
