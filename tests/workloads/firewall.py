#!/usr/bin/env python3
"""The packet filters of this network namespace: `list` prints one line for each table, `add NAME` makes one.

By netlink (linux/netfilter/nf_tables.h), because images have no tool for it.
"""

import socket
import struct
import sys

NETFILTER, INET = 12, 1
NEWTABLE, GETTABLE = 10 << 8, 10 << 8 | 1
BATCH_BEGIN, BATCH_END = 0x10, 0x11
REQUEST, ACK, DUMP, CREATE = 1, 4, 0x300, 0x400
ERROR, DONE, NAME = 2, 3, 1


def message(kind, flags, number, family=0, resource=0, attributes=b""):
    body = struct.pack("=BBH", family, 0, socket.htons(resource)) + attributes
    return struct.pack("=IHHII", 16 + len(body), kind, REQUEST | flags, number, 0) + body


def attribute(kind, value):
    padded = value + bytes(-len(value) % 4)
    return struct.pack("=HH", 4 + len(value), kind) + padded


def answers(connection):
    while True:
        data = connection.recv(1 << 16)
        while data:
            length, kind = struct.unpack_from("=IH", data)
            if kind == DONE:
                return
            if kind == ERROR:
                if (error := -struct.unpack_from("=i", data, 16)[0]) != 0:
                    sys.exit(f"the kernel answers with error {error}")
                return
            yield data[16:length]
            data = data[(length + 3) & ~3 :]


connection = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETFILTER)
if sys.argv[1] == "add":
    table = attribute(NAME, sys.argv[2].encode() + b"\0")
    connection.send(
        message(BATCH_BEGIN, 0, 1, resource=10)
        + message(NEWTABLE, ACK | CREATE, 2, INET, attributes=table)
        + message(BATCH_END, 0, 3, resource=10)
    )
    list(answers(connection))
else:
    connection.send(message(GETTABLE, DUMP, 1))
    for answer in answers(connection):
        length, kind = struct.unpack_from("=HH", answer, 4)
        print("nftables", answer[8 : 4 + length].rstrip(b"\0").decode())
    for legacy in ("/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"):
        try:
            for name in open(legacy):
                print(legacy, name.strip())
        except FileNotFoundError:
            pass
