"""One extraction a store: a lock that ends with its holder, however that ends.

It is the system's own (flock), on a small file in the folder of the unfinished store. The system
drops it when the last process that holds it is gone, so a crash leaves nothing to clean up, and
neither clocks nor process numbers decide anything. What the file says is for people alone.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import weakref
from pathlib import Path
from uuid import uuid4

from cache.errors import StoreLockedError

WITHOUT_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EBADF}
"""What a file system answers that has no locks, or none for files that are open to be read: the
work goes on without one."""

_LONGEST = 4096  # bytes of a lock file that are looked at

_held: weakref.WeakSet[Lock] = weakref.WeakSet()


class Lock:
    """A hold on a file; let go of by `release`, or by the end of the process.

    Args:
        file: the file to lock; it must exist.
        store: the store that messages name.
        invitation: what the holder's `share` returned, to hold the file beside it.

    Raises:
        StoreLockedError: another holds it, or invites others than us.
        OSError: the file cannot be opened, or is a symbolic link.
    """

    def __init__(self, file: Path, store: Path, invitation: str | None = None) -> None:
        self._store = store
        # What holders say replaces the content, which must not be that of a file elsewhere.
        self._descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        self._works = True
        _held.add(self)
        self._finalizer = weakref.finalize(self, _close, self._descriptor)
        try:
            self._take(shared=invitation is not None)
            if invitation is None:
                self._note({"pid": os.getpid(), "host": socket.gethostname()})
            elif self._said().get("invitation") != invitation:
                raise StoreLockedError(self._refusal())
        except BaseException:
            self.release()
            raise

    def share(self) -> str:
        """Let others in that show what this returns; whoever else comes is kept out as before."""
        invitation = uuid4().hex
        self._note(self._said() | {"invitation": invitation})
        self._take(shared=True)
        return invitation

    def alone(self) -> bool:
        """Tell whether all the others that were let in are known to be gone."""
        if not self._works:
            return False
        try:
            self._take(shared=False)
        except StoreLockedError:
            self._take(shared=True)  # the failed attempt may have lost what was held
            return False
        self._take(shared=True)
        return True

    def covers(self, file: Path) -> bool:
        """Tell whether the locked file still goes by this name."""
        try:
            there = file.stat()
        except OSError:
            return False
        return os.path.samestat(there, os.fstat(self._descriptor))

    def release(self) -> None:
        """Let go; a second time nothing happens."""
        self._finalizer()

    def _take(self, *, shared: bool) -> None:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.flock(self._descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreLockedError(self._refusal()) from None
        except OSError as error:
            if error.errno not in WITHOUT_LOCKS:
                raise
            self._works = False

    def _said(self) -> dict[str, object]:
        try:
            said = json.loads(os.pread(self._descriptor, _LONGEST, 0))
        except (ValueError, RecursionError):
            return {}
        return said if isinstance(said, dict) else {}

    def _note(self, said: dict[str, object]) -> None:
        text = json.dumps(said).encode()
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, text, 0)

    def _refusal(self) -> str:
        said = self._said()
        pid, host = said.get("pid"), said.get("host")
        by = (
            f" by process {pid} on {host}" if isinstance(pid, int) and isinstance(host, str) else ""
        )
        return (
            f"{self._store} is being written{by:.200}: wait until it is finished, or stop that "
            "process first."
        )


def _close(descriptor: int) -> None:
    os.close(descriptor)


def _forget_in_child() -> None:
    """Close a forked child's copies: a reading process must not outlive its parent's lock."""
    for lock in list(_held):
        lock.release()


os.register_at_fork(after_in_child=_forget_in_child)
