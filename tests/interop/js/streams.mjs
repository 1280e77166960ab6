// Entries, copies and the 2-bit codec, from docs/wire.md sections 2 to 4 alone.

import { createHash, createPublicKey, verify } from 'node:crypto'
import { pack, unpack } from './canonical.mjs'

const NAMES = ['network', 'author', 'incarnation', 'seq', 'prev', 'kind', 'codec', 'chunks',
  'payload_bytes', 'root', 'round', 'tokens', 'cites']
export const FRAME_BYTES = 262144
const LEVELS = [0.4528, 1.5104]

export function sha256 (...parts) {
  const hash = createHash('sha256')
  for (const part of parts) hash.update(part)
  return new Uint8Array(hash.digest())
}

export const hex = bytes => Buffer.from(bytes).toString('hex')
export const same = (a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)) === 0

const encoded = header => pack(NAMES.map(name => header[name]))
export const headerHash = header => sha256('tapestry/1/header/hash\0', encoded(header))
const signedMessage = header => sha256('tapestry/1/header/sign\0', header.network, encoded(header))

export async function signHeader (header, sign) {
  return pack([encoded(header), await sign(signedMessage(header))])
}

// The header of a signed header's bytes. Throws if its author did not sign it.
export function openHeader (bytes) {
  const [inner, signature] = unpack(bytes)
  const items = unpack(inner)
  if (items.length !== NAMES.length) throw new Error('not a header')
  const header = Object.fromEntries(NAMES.map((name, i) => [name, items[i]]))
  const key = createPublicKey({
    key: { kty: 'OKP', crv: 'Ed25519', x: Buffer.from(header.author).toString('base64url') },
    format: 'jwk'
  })
  if (!verify(null, signedMessage(header), key, signature)) throw new Error('not signed')
  return header
}

// Merkle root of a copy's bytes.
export function rootOf (bytes) {
  let level = []
  for (let at = 0; at < bytes.length; at += FRAME_BYTES) {
    level.push(sha256(Uint8Array.of(0), bytes.subarray(at, at + FRAME_BYTES)))
  }
  return merkle(level)
}

export function merkle (level) {
  while (level.length > 1) {
    const next = []
    for (let i = 0; i < level.length; i += 2) {
      next.push(i + 1 < level.length ? sha256(Uint8Array.of(1), level[i], level[i + 1]) : level[i])
    }
    level = next
  }
  return level[0]
}

const bfloat16 = bits => new Float32Array(Uint32Array.of(bits << 16).buffer)[0]

// The d values of a 2-bit payload: elementwise float32, one product each.
export function decode2bit (payload, d) {
  const blocks = Math.ceil(d / 256)
  if (payload.length !== 2 * blocks + Math.ceil(d / 4)) throw new Error('wrong payload length')
  const levels = LEVELS.map(Math.fround)
  const values = new Float32Array(d)
  for (let i = 0; i < d; i++) {
    const at = 2 * (i >> 8)
    const scale = bfloat16(payload[at] | payload[at + 1] << 8)
    const code = payload[2 * blocks + (i >> 2)] >> (2 * (i & 3)) & 3
    const value = Math.fround(levels[code & 1] * scale)
    values[i] = code & 2 ? -value : value
  }
  return values
}

// A payload that moves every parameter by a pattern of its own, with one scale for all blocks.
export function encode2bit (d, scaleBits, code) {
  const blocks = Math.ceil(d / 256)
  const payload = new Uint8Array(2 * blocks + Math.ceil(d / 4))
  for (let b = 0; b < blocks; b++) payload.set([scaleBits & 255, scaleBits >> 8], 2 * b)
  for (let i = 0; i < d; i++) payload[2 * blocks + (i >> 2)] |= code(i) << (2 * (i & 3))
  return payload
}

export function add (copy, values) {
  for (let i = 0; i < copy.length; i++) copy[i] = Math.fround(copy[i] + values[i])
}

export const bytesOf = copy => new Uint8Array(copy.buffer, copy.byteOffset, copy.byteLength)
