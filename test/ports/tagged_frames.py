# Writes to a link, by a packet socket with a vnet header, a frame with one VLAN tag, one with two tags, and a TCP
# superframe of 20 000 bytes with two tags: python3 tagged_frames.py LINK
import socket
import struct
import sys

SOL_PACKET, PACKET_VNET_HDR = 263, 15
TAG, TAG_OUTER = struct.pack('!HH', 0x8100, 7), struct.pack('!HH', 0x88A8, 70)
MACS = bytes.fromhex('02000000000b02000000000a')


def ipv4(payload, protocol):
    header = struct.pack('!BBHHHBBH4s4s', 0x45, 0, 20 + len(payload), 1, 0x4000, 64, protocol, 0,
                         socket.inet_aton('10.77.0.1'), socket.inet_aton('10.77.0.2'))
    total = sum(struct.unpack('!10H', header))
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return header[:10] + struct.pack('!H', ~total & 0xFFFF) + header[12:] + payload


def pseudo_sum(length, protocol):
    data = socket.inet_aton('10.77.0.1') + socket.inet_aton('10.77.0.2') + struct.pack('!BBH', 0, protocol, length)
    total = sum(struct.unpack('!6H', data))
    return (total & 0xFFFF) + (total >> 16)


def tcp(payload):
    return struct.pack('!HHIIBBHHH', 1000, 2000, 1, 1, 0x50, 0x10, 1000, pseudo_sum(20 + len(payload), 6), 0) + payload


udp = ipv4(struct.pack('!HHHH', 1, 2, 12, 0) + b'data', 17)
plain = struct.pack('<BBHHHH', 0, 0, 0, 0, 0, 0)
link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
link.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
link.bind((sys.argv[1], 0))
link.send(plain + MACS + TAG + b'\x08\x00' + udp)
link.send(plain + MACS + TAG_OUTER + TAG + b'\x08\x00' + udp)
head = MACS + TAG_OUTER + TAG + b'\x08\x00'
start = len(head) + 20
gso = struct.pack('<BBHHHH', 1, 1, start + 20, 1448, start, 16)
link.send(gso + head + ipv4(tcp(b'x' * 20000), 6))
