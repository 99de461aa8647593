"""Fields of protobuf's wire format: tag, bytes -> [field] -> what stands in a message."""


def field(tag: int, data: bytes) -> bytes:
    """A field of bytes, text or a message; ``tag`` is below 128."""
    return bytes((tag,)) + varint(len(data)) + data


def varint(value: int) -> bytes:
    """A number that is not negative."""
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    found.append(value)
    return bytes(found)
