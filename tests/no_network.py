"""An environment whose every interpreter is refused what is not on this machine."""

NO_NETWORK = """
import socket
connect = socket.socket.connect
def refuse(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
        raise OSError(101, "Network is unreachable")
    return connect(self, address)
socket.socket.connect = refuse
"""
"""Beside the packages, as `sitecustomize.py`: every interpreter of the environment loads it before anything else."""
