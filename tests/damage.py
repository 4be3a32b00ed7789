"""What tests/fuzz.py does to files: damage at random, by bytes and by what they mean."""

import io
import json
import os
import random
import zipfile
from contextlib import suppress
from pathlib import Path

from PIL import Image, ImageOps

SIZE = (128, 96)  # of the pictures that are drawn


def damage_exif(chance: random.Random, path: Path) -> str:
    """Puts a photo in its place whose EXIF block says "turn me" and has wrong bytes."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x011A] = chance.choice([6, 3, 8]), "maker", 72.0
    block = bytearray(exif.tobytes())
    for at in chance.choices(range(6, len(block)), k=chance.randint(1, 4)):
        block[at] = chance.randrange(256)
    Image.new("RGB", SIZE).save(path, exif=bytes(block))
    return f"EXIF with {block.hex()} in {path}"


def spoilt(chance: random.Random, content: object) -> tuple[object, str]:
    """What JSON holds, with something else in the place of one value, or without it; and what has been done."""
    content = {"": content}
    inside, key = content, ""
    while isinstance(inside[key], (dict, list)) and inside[key] and chance.random() < 0.8:
        inside = inside[key]
        key = chance.choice(sorted(inside)) if isinstance(inside, dict) else chance.randrange(len(inside))
    new = chance.choice([None, -1, 0, 10**7, 10**25, 0.5, float("nan"), "x", "", "\udcff", [], [1], {}, True, "gone"])
    said = f"{key!r} becomes {new!r}, was {str(inside[key])[:80]}"
    if new == "gone" and inside is not content:
        del inside[key]
    else:
        inside[key] = new
    return content[""], said


def damage_json(chance: random.Random, path: Path) -> str:
    """Puts something else in the place of one value of a JSON file, or of one line of several, or takes it away."""
    lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    number = chance.randrange(len(lines))
    content, said = spoilt(chance, json.loads(lines[number]))
    lines[number] = json.dumps(content)
    path.write_text("".join(f"{line}\n" for line in lines))
    return f"in line {number} of {path}, {said}"


def damage_header(chance: random.Random, path: Path) -> str:
    """The same for the header of a safetensors file, or for what a training state says of itself in there."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    about = header.get("__metadata__", {})
    if "info" in about and chance.random() < 0.6:
        info, said = spoilt(chance, json.loads(about["info"]))
        about["info"] = json.dumps(info)
    else:
        header, said = spoilt(chance, header)
    encoded = json.dumps(header).encode()
    path.write_bytes(len(encoded).to_bytes(8, "little") + encoded + data)
    return f"in the header of {path}, {said}"


def mirror(path: Path) -> str:
    """Puts its mirror image in the place of a JPEG, with as many bytes and of the same time: its content alone says that it is another."""
    before, picture = path.stat(), ImageOps.mirror(Image.open(path))
    for quality in (90, 75, 50, 25, 5):
        mirrored = io.BytesIO()
        picture.save(mirrored, "JPEG", quality=quality)
        if mirrored.tell() <= before.st_size:
            break
    path.write_bytes(mirrored.getvalue().ljust(before.st_size, b"\0"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    return f"{path} is mirrored"


def damage(chance: random.Random, path: Path, renamed: bool = False) -> str:
    """Does something to a file, at random, and says what."""
    content = bytearray(path.read_bytes())
    if path.suffix == ".jpg" and chance.random() < 0.4:
        return damage_exif(chance, path)
    by_meaning = {".json": damage_json, ".jsonl": damage_json, ".safetensors": damage_header}.get(path.suffix)
    if by_meaning and chance.random() < 0.6:
        with suppress(ValueError, AttributeError, IndexError):  # it has been damaged before
            return by_meaning(chance, path)
    how = chance.choice(
        [
            "flip",
            "flip",
            "flips",
            "cut",
            "empty",
            "zeros",
            "junk",
            "text",
            "insert",
            *(["name", "gone", "folder", "link"] if renamed else []),
        ]
    )
    at = chance.randrange(len(content)) if content else 0
    if how in ("flip", "flips"):
        for place in [at] if how == "flip" else chance.choices(range(len(content) or 1), k=chance.randint(2, 40)):
            if content:
                content[place] ^= 1 << chance.randrange(8)
    elif how == "cut":
        del content[at:]
    elif how == "empty":
        content.clear()
    elif how == "zeros":
        content[at:] = bytes(len(content) - at)
    elif how == "junk":
        content[at : at + 64] = chance.randbytes(64)
    elif how == "insert":
        content[at:at] = chance.randbytes(chance.randint(1, 40))
    elif how == "text":
        old, new = chance.choice(
            [(rb'"', rb""), (b"1", b"-1"), (b"2", b"null"), (b"0", b"1e999"), (b"{", b"["), (b"3", b'"three"'), (b"1", b"10000000")]
        )
        where = [i for i in range(len(content)) if content[i : i + len(old)] == old][:400]
        if where:
            at = chance.choice(where)
            content[at : at + len(old)] = new
        how = f"text {old!r} to {new!r}"
    said = f"{how} at {at} of {path}"
    path.unlink()
    if how == "name":
        path = path.with_name(
            chance.choice(["\udcff\udce4" + path.suffix, "x" * 251 + path.suffix[:4], "a\nb" + path.suffix, path.stem, "-" + path.name])
        )
    elif how == "folder":
        path.mkdir()
    elif how == "link":
        path.symlink_to(path)
    if how not in ("gone", "folder", "link"):
        path.write_bytes(content)
    return said


# ------------------------------------------------------------------------------------------------------------------- bombs


def bomb(chance: random.Random, path: Path) -> str:
    """Puts weights in the place of a file that take far more memory than it has bytes, where what they say of themselves is believed."""
    size, kind = 2 ** chance.randint(28, 32), chance.choice([inflating, repeated, overlapping, marks])
    kind(chance, path, size)
    return f"{kind.__name__}: {path} has {path.stat().st_size} bytes and stands for some {size}"


def inflating(chance: random.Random, path: Path, size: int) -> None:
    """A file of torch.save that is compressed, with one storage of zeros."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("archive/data.pkl", pickled(1, size // 4, 1, size // 4))
        with archive.open("archive/data/0", "w", force_zip64=True) as file:
            for _ in range(size >> 20):
                file.write(bytes(1 << 20))


def repeated(chance: random.Random, path: Path, size: int) -> None:
    """One of torch.save with many tensors that say the same few numbers over and over, by strides of 0."""
    numbers, length = chance.randint(1, 1000), 2 ** chance.randint(14, 24)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled(size // 4 // length, length, 0, numbers))
        archive.writestr("archive/data/0", bytes(4 * numbers))


def pickled(count: int, length: int, stride: int, stored: int) -> bytes:
    """The pickle of a state dict with so many vectors of float32, which look into one storage."""
    storage = f"(Vstorage\nctorch\nFloatStorage\nV0\nVcpu\nI{stored}\ntQ"
    vector = f"ctorch._utils\n_rebuild_tensor_v2\n({storage}I0\n(I{length}\nt(I{stride}\ntI00\nccollections\nOrderedDict\n(tRtR"
    return ("(" + "".join(f"Vweight{i}\n{vector}" for i in range(count)) + "d.").encode()


def overlapping(chance: random.Random, path: Path, size: int) -> None:
    """A safetensors file of which many entries are the same bytes."""
    length = 2 ** chance.randint(16, 24)
    entry = {"dtype": "F32", "shape": [length // 4], "data_offsets": [0, length]}
    header = json.dumps({f"weight{i}": entry for i in range(size // length)}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(length))


def marks(chance: random.Random, path: Path, size: int) -> None:
    """A pickle that begins a list in a list in a list, each of which takes 64 bytes and more."""
    path.write_bytes(b"\x80\x02" + b"(" * (size // 64))
