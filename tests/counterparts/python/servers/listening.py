"""Binds a free loopback port, says which, and serves an ASGI application on it."""

import socket

import uvicorn


def bind():
    """A listening socket, and the origin it is reached at."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(64)
    return listener, f"http://127.0.0.1:{listener.getsockname()[1]}"


def serve(application, path="/mcp", listener=None):
    if listener is None:
        listener, _ = bind()
    print(f"LISTENING http://127.0.0.1:{listener.getsockname()[1]}{path}", flush=True)
    uvicorn.Server(uvicorn.Config(application, log_level="warning")).run(sockets=[listener])
