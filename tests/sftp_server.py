"""A real SFTP server in a thread on loopback: asyncssh's, which is none of paramiko's code."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncssh

USER, PASSWORD = "painter", "s3cr3t-of-the-tests"


class SftpServer:
    """What the server shows, and what became of it.

    Attributes:
        root: the folder that it shows as ``/``.
        url: of that, with the user and without the password.
        num_logins: connections so far.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = ""
        self.num_logins = 0
        self._connections: list[asyncssh.SSHServerConnection] = []

    async def _listen(self) -> asyncssh.SSHAcceptor:
        outer, root = self, str(self.root).encode()

        class Login(asyncssh.SSHServer):
            def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
                outer._connections.append(conn)

            def password_auth_supported(self) -> bool:
                return True

            def validate_password(self, username: str, password: str) -> bool:
                is_right = (username, password) == (USER, PASSWORD)
                outer.num_logins += is_right
                return is_right

        return await asyncssh.listen(
            "127.0.0.1",
            0,
            server_factory=Login,
            server_host_keys=[asyncssh.generate_private_key("ssh-ed25519")],
            sftp_factory=lambda channel: asyncssh.SFTPServer(channel, chroot=root),
        )

    def drop(self) -> None:
        """Break all connections off."""

        def abort() -> None:
            for connection in self._connections:
                connection.abort()

        self._loop.call_soon_threadsafe(abort)

    def run(self, ready: threading.Event) -> None:
        """Serve until ``stop``."""
        asyncio.run(self._serve(ready))

    async def _serve(self, ready: threading.Event) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        async with await self._listen() as acceptor:
            self.url = f"sftp://{USER}@127.0.0.1:{acceptor.get_port()}"
            ready.set()
            await self._ended.wait()
            for (
                connection
            ) in self._connections:  # from Python 3.12 on the end of the block awaits them
                connection.abort()
                await connection.wait_closed()

    def stop(self) -> None:
        """End it."""
        self._loop.call_soon_threadsafe(self._ended.set)


@contextmanager
def serve_sftp(root: Path) -> Iterator[SftpServer]:
    """Serve a folder over SFTP; stops with the block."""
    server, ready = SftpServer(root), threading.Event()
    thread = threading.Thread(target=server.run, args=[ready])
    thread.start()
    try:
        assert ready.wait(30)
        yield server
    finally:
        server.stop()
        thread.join()
