# SPDX-License-Identifier: Apache-2.0
"""One TCP transfer: stream.py serve PORT (prints "ready"), stream.py up|down ADDRESS PORT SECONDS. Who receives prints what arrived."""
import json
import socket
import sys
import time

SETTLE = 0.5 # of a transfer, not counted


def receive(s):
    got, began, last = 0, None, None
    while True:
        n = len(s.recv(65536))
        now = time.monotonic()
        if n == 0:
            break
        if began is None:
            began = now
        if now - began >= SETTLE:
            got += n if last is not None else 0
            last = last if last is not None else now
            end = now
    took = end - last if last is not None else 0
    print(json.dumps({"mbit": got * 8 / took / 1e6 if took > 0 else 0}), flush=True)


def send(s, seconds):
    data, end = bytes(16384), time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            s.sendall(data)
        s.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def serve(port):
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("", port))
        listener.listen()
        print("ready", flush=True)
        while True:
            s, _ = listener.accept()
            with s:
                s.settimeout(20)
                s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 131072)
                try:
                    mode = s.recv(1)
                    if mode == b"u":
                        receive(s)
                    elif mode:
                        send(s, mode[0])
                except OSError as e:
                    print(json.dumps({"error": str(e)}), flush=True)


def transfer(way, address, port, seconds):
    with socket.create_connection((address, port), 10) as s:
        s.settimeout(20)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 131072)
        if way == "up":
            s.sendall(b"u")
            send(s, seconds)
            s.recv(1) # the other side has read all of it
        else:
            s.sendall(bytes([seconds]))
            receive(s)


if sys.argv[1] == "serve":
    serve(int(sys.argv[2]))
else:
    transfer(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
