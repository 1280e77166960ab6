// Canonical msgpack of docs/wire.md, section 1: integers, bytes, text, arrays, maps; one spelling.

const text = new TextEncoder()
const utf8 = new TextDecoder('utf-8', { fatal: true })

export function pack (value) {
  const out = []
  write(out, value)
  return Uint8Array.from(out)
}

function head (out, length, fixed, fixedMax, codes) {
  if (length <= fixedMax) out.push(fixed | length)
  else if (length < 256 && codes[0]) out.push(codes[0], length)
  else if (length < 65536) out.push(codes[1], length >> 8, length & 255)
  else out.push(codes[2], (length >>> 24) & 255, (length >> 16) & 255, (length >> 8) & 255, length & 255)
}

function write (out, value) {
  if (typeof value === 'number' || typeof value === 'bigint') integer(out, BigInt(value))
  else if (typeof value === 'string') {
    const bytes = text.encode(value)
    head(out, bytes.length, 0xa0, 31, [0xd9, 0xda, 0xdb])
    for (const byte of bytes) out.push(byte)
  } else if (value instanceof Uint8Array) {
    head(out, value.length, 0, -1, [0xc4, 0xc5, 0xc6])
    for (const byte of value) out.push(byte)
  } else if (Array.isArray(value)) {
    head(out, value.length, 0x90, 15, [0, 0xdc, 0xdd])
    for (const item of value) write(out, item)
  } else {
    const keys = Object.keys(value).sort()
    head(out, keys.length, 0x80, 15, [0, 0xde, 0xdf])
    for (const key of keys) {
      write(out, key)
      write(out, value[key])
    }
  }
}

function integer (out, value) {
  if (value < 128n) out.push(Number(value))
  else if (value < 256n) out.push(0xcc, Number(value))
  else {
    const [code, bytes] = value < 65536n ? [0xcd, 2] : value < 1n << 32n ? [0xce, 4] : [0xcf, 8]
    out.push(code)
    for (let i = bytes - 1; i >= 0; i--) out.push(Number((value >> BigInt(8 * i)) & 255n))
  }
}

// The value of canonical bytes; throws for any other spelling. Integers come as numbers.
export function unpack (bytes) {
  const reader = { bytes, at: 0 }
  const value = read(reader)
  if (reader.at !== bytes.length) throw new Error('bytes after the value')
  const again = pack(value)
  if (again.length !== bytes.length || again.some((b, i) => b !== bytes[i])) {
    throw new Error('not canonical')
  }
  return value
}

function number (reader, length) {
  let value = 0n
  for (let i = 0; i < length; i++) value = (value << 8n) | BigInt(reader.bytes[reader.at++])
  return value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : value
}

function take (reader, length) {
  if (reader.at + length > reader.bytes.length) throw new Error('the value ends too soon')
  const piece = reader.bytes.slice(reader.at, reader.at + length)
  reader.at += length
  return piece
}

function read (reader) {
  const code = take(reader, 1)[0]
  if (code < 0x80) return code
  if (code < 0x90) return map(reader, code & 15)
  if (code < 0xa0) return array(reader, code & 15)
  if (code < 0xc0) return utf8.decode(take(reader, code & 31))
  switch (code) {
    case 0xc4: case 0xc5: case 0xc6: return take(reader, number(reader, 1 << (code - 0xc4)))
    case 0xcc: case 0xcd: case 0xce: case 0xcf: return number(reader, 1 << (code - 0xcc))
    case 0xd9: case 0xda: case 0xdb: return utf8.decode(take(reader, number(reader, 1 << (code - 0xd9))))
    case 0xdc: case 0xdd: return array(reader, number(reader, code === 0xdc ? 2 : 4))
    case 0xde: case 0xdf: return map(reader, number(reader, code === 0xde ? 2 : 4))
    default: throw new Error(`type ${code} is not admitted`)
  }
}

function array (reader, length) {
  const items = []
  for (let i = 0; i < length; i++) items.push(read(reader))
  return items
}

function map (reader, length) {
  const found = {}
  for (let i = 0; i < length; i++) found[read(reader)] = read(reader)
  return found
}
