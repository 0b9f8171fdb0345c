"""A cluster whose nodes have networks of their own, so that cables can be cut.

Each node lives in a network namespace behind a virtual cable to a bridge; the test and its clients
are at the bridge. A cut takes the node's cable off the bridge: packets vanish, nobody is told, both
ends believe in their connections. It needs root or user namespaces, and all of it ends with the
test's process.
"""

import ctypes
import os
import subprocess

from tests.lib.cluster import HANG, Cluster, Node, expect
from tests.lib.lectern_client import Client

CLONE_NEWNET, CLONE_NEWUSER = 0x40000000, 0x10000000
CLIENT_PORT, PEER_PORT = 7701, 7702
NET = "10.77.0"
_libc = ctypes.CDLL(None, use_errno=True)


def unshare(flags):
    expect(_libc.unshare(flags) == 0, f"unshare: {os.strerror(ctypes.get_errno())}")


def ip(*words):
    subprocess.run(["ip", *map(str, words)], check=True)


def own_network():
    """This process sees a network of its own from here on: a bridge, and nothing else."""
    uid, gid = os.getuid(), os.getgid()
    unshare(CLONE_NEWNET if uid == 0 else CLONE_NEWNET | CLONE_NEWUSER)
    if uid != 0:
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"),
                           ("gid_map", f"0 {gid} 1")):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as f:
                f.write(text)
    ip("link", "set", "lo", "up")
    ip("link", "add", "bridge", "type", "bridge")
    ip("addr", "add", f"{NET}.100/24", "dev", "bridge")
    ip("link", "set", "bridge", "up")


def new_namespace():
    """A descriptor of a new, empty network namespace; this process stays in its own."""
    here = os.open("/proc/self/ns/net", os.O_RDONLY)
    try:
        unshare(CLONE_NEWNET)
        there = os.open("/proc/self/ns/net", os.O_RDONLY)
        expect(_libc.setns(here, CLONE_NEWNET) == 0, "setns")
        return there
    finally:
        os.close(here)


class CableNode(Node):
    """A node at NET.number, in the namespace NET_FD."""

    def __init__(self, number, directory, log, build):
        super().__init__(number, directory, log, CLIENT_PORT, PEER_PORT, build)
        self.host = f"{NET}.{number}"
        self.cable = f"cable{number}"
        namespace = new_namespace()
        self.namespace = f"/proc/{os.getpid()}/fd/{namespace}"
        inside = ["nsenter", f"--net={self.namespace}", "ip"]
        ip("link", "add", self.cable, "type", "veth", "peer", "name", "inside")
        ip("link", "set", "inside", "netns", self.namespace)
        for words in (["link", "set", "lo", "up"], ["link", "set", "inside", "up"],
                      ["addr", "add", f"{self.host}/24", "dev", "inside"]):
            subprocess.run([*inside, *words], check=True)
        ip("link", "set", self.cable, "up")
        self.mend()

    @property
    def address(self):
        return f"{self.host}:{self.port}"

    def command(self, cluster, settings):
        found = [x.replace(f"127.0.0.1:{self.peer_port}", f"{self.host}:{self.peer_port}")
                 for x in super().command(cluster, settings)]
        return ["nsenter", f"--net={self.namespace}", *found]

    def client(self, **options):
        options.setdefault("socket_timeout", 30.0 * HANG)
        return Client(self.host, self.port, **options)

    def cut(self):
        ip("link", "set", self.cable, "nomaster")

    def mend(self):
        ip("link", "set", self.cable, "master", "bridge")


class CableCluster(Cluster):
    """Nodes with cables; otherwise a Cluster."""

    def __init__(self, n=3, **settings):
        super().__init__(n, start=False, **settings)
        own_network()
        self.nodes = [CableNode(x.id, x.dir, x.log, x.build) for x in self.nodes]
        self.members = ",".join(f"{x.id}={x.host}:{x.peer_port}" for x in self.nodes)
        try:
            self.start()
        except BaseException:
            self.show_logs()
            self.remove()
            raise
