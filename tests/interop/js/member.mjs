// A member in another language: js-libp2p below, docs/wire.md above, nothing of Tapestry's code.
//
//   node member.mjs ADDRESS NETWORK_HEX PARAMETERS GENESIS_FILE
//
// Follows the member at ADDRESS: verifies its stream, builds its copy from difference payloads and
// compares the root of every entry. Publishes a stream of its own: genesis, profile, differences,
// until standard input ends. Says what it sees as JSON lines.

import './shim.mjs'
import { readFileSync } from 'node:fs'
import { createLibp2p } from 'libp2p'
import { tcp } from '@libp2p/tcp'
import { noise } from '@chainsafe/libp2p-noise'
import { yamux } from '@chainsafe/libp2p-yamux'
import { generateKeyPair } from '@libp2p/crypto/keys'
import { multiaddr } from '@multiformats/multiaddr'
import { pack, unpack } from './canonical.mjs'
import {
  add, bytesOf, decode2bit, encode2bit, headerHash, hex, merkle, openHeader, rootOf, same, sha256, signHeader
} from './streams.mjs'

const [address, networkHex, parameters, genesisFile] = process.argv.slice(2)
const network = new Uint8Array(Buffer.from(networkHex, 'hex'))
const d = Number(parameters)
const genesis = new Float32Array(new Uint8Array(readFileSync(genesisFile)).buffer)
const empty = new Uint8Array(0)
const tell = (what, more = {}) => process.stdout.write(JSON.stringify({ what, ...more }) + '\n')

// ---- frames over streams

const PROTOCOL = name => `/tapestry/1/${name}`

function framed (bytes) {
  const out = new Uint8Array(4 + bytes.length)
  new DataView(out.buffer).setUint32(0, bytes.length)
  out.set(bytes, 4)
  return out
}

async function * chunks (stream) {
  for await (const part of stream) yield part.subarray ? part.subarray() : part
}

class Reader {
  constructor (stream) {
    this.parts = chunks(stream)
    this.held = empty
  }

  async exactly (length) {
    while (this.held.length < length) {
      const { value, done } = await this.parts.next()
      if (done) throw new Error('the stream ended')
      const joined = new Uint8Array(this.held.length + value.length)
      joined.set(this.held)
      joined.set(value, this.held.length)
      this.held = joined
    }
    const piece = this.held.slice(0, length)
    this.held = this.held.slice(length)
    return piece
  }

  async frame () {
    const head = await this.exactly(4)
    return await this.exactly(new DataView(head.buffer, head.byteOffset).getUint32(0))
  }
}

// ---- our own stream

const key = await generateKeyPair('Ed25519')
const author = key.publicKey.raw
const own = { copy: genesis.slice(), headers: [], signed: [], payload: null, chunks: new Map() }

async function publish (kind, payload, more = {}) {
  const last = own.headers.at(-1)
  const names = payload ? [sha256(payload)] : []
  if (payload) own.chunks.set(hex(names[0]), payload)
  const header = {
    network, author, incarnation: new Uint8Array(16).fill(7), seq: own.headers.length,
    prev: last ? headerHash(last) : new Uint8Array(32), kind, codec: '', chunks: names,
    payload_bytes: payload ? payload.length : 0, root: rootOf(bytesOf(own.copy)), round: 0, tokens: 0,
    cites: empty, ...more
  }
  own.headers.push(header)
  own.signed.push(await signHeader(header, message => key.sign(message)))
  return own.signed.at(-1)
}

async function publishDifference (number) {
  const payload = encode2bit(d, 0x3c00 + number, i => (i + number) & 3)
  add(own.copy, decode2bit(payload, d))
  return await publish('difference', payload, { codec: '2bit', round: number })
}

// ---- the member that we follow

const theirs = { key: null, headers: new Map(), copy: null, at: -1 }

async function follow () {
  for (;;) {
    const header = theirs.headers.get(theirs.at + 1)
    if (!header) return
    if (header.kind === 'genesis') theirs.copy = genesis.slice()
    else if (!same(header.prev, headerHash(theirs.headers.get(theirs.at)))) throw new Error('prev')
    if (header.kind === 'difference') {
      const payload = await fetchChunk(header.chunks[0], header.payload_bytes)
      add(theirs.copy, decode2bit(payload, d))
    }
    if (header.root.length && !same(header.root, rootOf(bytesOf(theirs.copy)))) {
      throw new Error(`the root of entry ${header.seq} does not fit`)
    }
    theirs.at = header.seq
    tell('followed', { seq: header.seq, kind: header.kind, root: hex(header.root) })
  }
}

let following = Promise.resolve()

function takeHeads (heads) {
  for (const bytes of heads) {
    const header = openHeader(bytes)
    if (same(header.author, theirs.key)) theirs.headers.set(header.seq, header)
  }
  const highest = Math.max(-1, ...theirs.headers.keys())
  for (let seq = theirs.at + 1; seq < highest; seq++) {
    if (!theirs.headers.has(seq)) {
      say('sync', { t: 'want', author: theirs.key, first: seq, last: highest })
      break
    }
  }
  following = following.then(follow)
}

// ---- talk

const node = await createLibp2p({
  privateKey: key,
  addresses: { listen: [] },
  transports: [tcp()],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()]
})
const senders = {}
let connection

function say (channel, message) {
  senders[channel].send(framed(pack(message)))
}

async function fetchRaw (request) {
  const stream = await connection.newStream(PROTOCOL('fetch'))
  const reader = new Reader(stream)
  stream.send(framed(pack(request)))
  const answer = unpack(await reader.frame())
  const length = new DataView((await reader.exactly(4)).buffer).getUint32(0)
  if (answer.status !== 'ok' || answer.length !== length) throw new Error(`fetch: ${answer.status}`)
  const body = await reader.exactly(length)
  await stream.close()
  return body
}

async function fetchChunk (hash, length) {
  const chunk = await fetchRaw({ t: 'chunk', hash, offset: 0, length })
  if (!same(sha256(chunk), hash)) throw new Error('not the chunk')
  return chunk
}

async function fetchKeyframe (seq, root) {
  const leaves = await fetchRaw({ t: 'leaves', author: theirs.key, seq, root })
  const list = []
  for (let at = 0; at < leaves.length; at += 32) list.push(leaves.slice(at, at + 32))
  if (!same(merkle(list), root)) throw new Error('not the leaves')
  const length = Math.min(4 * d, 262144)
  const frame = await fetchRaw({ t: 'frame', author: theirs.key, seq, root, index: 0, offset: 0, length })
  if (!same(sha256(Uint8Array.of(0), frame), list[0])) throw new Error('not the frame')
  return frame
}

function rows () {
  const last = own.headers.at(-1)
  return [[author, 2, last.seq + 1, last.seq + 1, headerHash(last).slice(0, 8)]]
}

function sayHello () {
  const heads = [own.signed.at(-1)]
  say('hello', { ask: 1, digest: rows(), heads, network, wire: 1 })
}

async function listen (channel, stream) {
  const reader = new Reader(stream)
  for (;;) {
    const frame = await reader.frame()
    if (channel === 'ping') stream.send(framed(frame))
    else if (channel === 'fetch') serve(stream, unpack(frame))
    else take(channel, unpack(frame))
  }
}

function serve (stream, request) {
  const chunk = request.t === 'chunk' ? own.chunks.get(hex(request.hash)) : undefined
  const body = chunk ? chunk.slice(request.offset, request.offset + request.length) : empty
  const status = body.length ? 'ok' : 'missing'
  stream.send(framed(pack({ length: body.length, status, total: chunk ? chunk.length : 0 })))
  const tail = new Uint8Array(4 + body.length)
  new DataView(tail.buffer).setUint32(0, body.length)
  tail.set(body, 4)
  stream.send(tail)
  tell('served', { t: request.t, status })
}

function take (channel, message) {
  if (channel === 'hello') {
    if (!same(message.network, network)) throw new Error('another network')
    tell('hello', { heads: message.heads.length })
    takeHeads(message.heads)
  } else if (message.t === 'heads') takeHeads(message.heads)
  else if (message.t === 'want' && same(message.author, author)) {
    say('sync', { t: 'heads', heads: own.signed.slice(message.first, message.last + 1).slice(-16) })
  } else if (message.t === 'members') tell('members', { count: message.members.length })
}

for (const channel of ['hello', 'sync', 'fetch', 'ping']) {
  await node.handle(PROTOCOL(channel), stream => {
    listen(channel, stream).catch(error => tell('ended', { channel, error: error.message }))
  })
}

await publish('genesis', null)
const profile = pack({ addresses: ['/ip4/127.0.0.1/tcp/1'], languages: ['epo'], name: 'JavaScript' })
await publish('profile', profile)
connection = await node.dial(multiaddr(address))
theirs.key = connection.remotePeer.publicKey.raw
for (const channel of ['hello', 'sync']) senders[channel] = await connection.newStream(PROTOCOL(channel))
sayHello()
say('sync', { t: 'members', members: [[own.signed[1], profile]] })
say('sync', { t: 'heads', heads: own.signed })
const manifest = await fetchRaw({ t: 'manifest', network, })
tell('manifest', { text: new TextDecoder().decode(manifest) })
tell('ready', { author: hex(author) })

process.stdin.setEncoding('utf8')
let line = ''
process.stdin.on('data', async text => {
  line += text
  while (line.includes('\n')) {
    const [word, ...rest] = line.slice(0, line.indexOf('\n')).split(' ')
    line = line.slice(line.indexOf('\n') + 1)
    try {
      await obey(word, rest)
    } catch (error) {
      tell('error', { error: error.message })
    }
  }
})
process.stdin.on('end', () => process.exit(0))
process.on('unhandledRejection', error => {
  tell('error', { error: String(error?.message ?? error) })
  process.exit(1)
})

async function obey (word, rest) {
  if (word === 'publish') {
    const signed = await publishDifference(Number(rest[0]))
    say('sync', { t: 'heads', heads: [signed] })
    tell('published', { seq: own.headers.length - 1, root: hex(own.headers.at(-1).root) })
  } else if (word === 'keyframe') {
    await following
    const header = theirs.headers.get(theirs.at)
    const frame = await fetchKeyframe(header.seq, header.root)
    tell('keyframe', { equal: same(frame, bytesOf(theirs.copy).subarray(0, frame.length)) })
  }
}
