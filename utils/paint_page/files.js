// What is written: masks as PNG of 16 bits of grey whose values are the classes, and a picture with its mask as a ZIP. And how files are saved.

const CRC = new Uint32Array(256).map((_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});

function crc32(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = CRC[(crc ^ byte) & 0xff] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

function joined(parts) {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

// ------------------------------------------------------------------------------------------------------------------ PNG

/** Classes, one a pixel, as the bytes of a PNG as the competition's masks are: grey, 16 bits; each row as it is (filter 0). */
export async function png(map, width, height) {
  const row = 1 + 2 * width; // its filter, and two bytes a pixel, of which the first is 0
  const rows = new Uint8Array(height * row);
  for (let i = 0; i < map.length; i++) rows[Math.floor(i / width) * row + 2 * (i % width) + 2] = map[i];
  const stream = new Blob([rows]).stream().pipeThrough(new CompressionStream("deflate"));
  const packed = new Uint8Array(await new Response(stream).arrayBuffer());
  const header = joined([big(width), big(height), [16, 0, 0, 0, 0]]);
  const signature = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
  return joined([signature, chunk("IHDR", header), chunk("IDAT", packed), chunk("IEND", [])]);
}

function chunk(kind, content) {
  const body = joined([new TextEncoder().encode(kind), content]);
  return joined([big(content.length), body, big(crc32(body))]);
}

function big(number) {
  return [number >>> 24, (number >>> 16) & 255, (number >>> 8) & 255, number & 255];
}

// ------------------------------------------------------------------------------------------------------------------ ZIP

/** Files by name as the bytes of a ZIP, not compressed: pictures are already. */
export function zip(files) {
  const [parts, directory] = [[], []];
  let at = 0;
  for (const [name, content] of Object.entries(files)) {
    const called = new TextEncoder().encode(name);
    const facts = joined([
      little(20, 2), little(0x0800, 2), little(0, 2), little(0, 2), little(0x21, 2), // version, UTF-8 names, stored, 1980-01-01
      little(crc32(content), 4), little(content.length, 4), little(content.length, 4), little(called.length, 2), little(0, 2),
    ]);
    directory.push(joined([little(0x02014b50, 4), little(20, 2), facts, new Uint8Array(10), little(at, 4), called]));
    parts.push(joined([little(0x04034b50, 4), facts, called, content]));
    at += parts.at(-1).length;
  }
  const listing = joined(directory);
  const count = little(directory.length, 2);
  const end = joined([little(0x06054b50, 4), new Uint8Array(4), count, count, little(listing.length, 4), little(at, 4), little(0, 2)]);
  return joined([...parts, listing, end]);
}

function little(number, bytes) {
  return Array.from({ length: bytes }, (_, i) => (number >>> (8 * i)) & 255);
}

// ---------------------------------------------------------------------------------------------------------------- files

/** Saves bytes under a name, where the browser saves what it downloads. */
export function save(bytes, name, type) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([bytes], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

export function toBase64(bytes) {
  let text = "";
  for (let i = 0; i < bytes.length; i += 0x8000) text += String.fromCharCode(...bytes.subarray(i, i + 0x8000));
  return btoa(text);
}

export function fromBase64(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}
