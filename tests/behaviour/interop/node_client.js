'use strict';
/* Node's clients before weir: http2 of its core, and undici.
 *
 *     node node_client.js h2|undici CA_FILE ORIGIN
 *
 * ORIGIN is http://host:port or https://host:port, with a server behind it that does as
 * node_server.js. Exit status 0 when everything came as it should; else the first fault on stderr.
 */
const assert = require('assert');
const crypto = require('crypto');
const fs = require('fs');
const http2 = require('http2');

const [kind, caFile, origin] = process.argv.slice(2);
const ca = fs.readFileSync(caFile);
const body = crypto.randomBytes(5 << 20);

/* Each gives open(method, path, trailers): a request with write, end, and promises of what comes:
 * status, whole() and piece(). */

async function overHttp2() {
  const session = http2.connect(origin, {ca});
  await new Promise((resolve, reject) => {
    session.once('remoteSettings', resolve);
    session.once('error', reject);
  });
  assert.strictEqual(session.alpnProtocol, origin.startsWith('https') ? 'h2' : 'h2c');

  function open(method, path, trailers) {
    const stream = session.request({':method': method, ':path': path, te: 'trailers'},
      {endStream: method === 'GET', waitForTrailers: Boolean(trailers)});
    stream.on('wantTrailers', () => stream.sendTrailers(trailers));
    const seen = {trailers: {}};
    stream.on('trailers', (fields) => { seen.trailers = fields; });
    const head = new Promise((resolve, reject) => {
      stream.once('response', resolve);
      stream.once('error', reject);
    });
    const incoming = stream[Symbol.asyncIterator]();
    return {
      write: (piece) => stream.write(piece),
      end: (piece) => stream.end(piece),
      status: async () => (await head)[':status'],
      piece: async () => (await incoming.next()).value,
      trailers: () => seen.trailers,
    };
  }
  return {open, close: () => new Promise((resolve) => session.close(resolve))};
}

async function overUndici() {
  const {Pool} = require('undici');
  const pool = new Pool(origin, {connections: 100, pipelining: 1, connect: {ca}});
  const {PassThrough} = require('stream');

  function open(method, path) {
    const outgoing = method === 'GET' ? null : new PassThrough();
    const asked = pool.request({method, path, body: outgoing});
    let incoming;
    return {
      write: (piece) => outgoing.write(piece),
      end: (piece) => outgoing && outgoing.end(piece),
      status: async () => (await asked).statusCode,
      piece: async () => {
        incoming ??= (await asked).body[Symbol.asyncIterator]();
        return (await incoming.next()).value;
      },
      trailers: async () => (await asked).trailers,
    };
  }
  return {open, close: () => pool.close()};
}

async function whole(request) {
  assert.strictEqual(await request.status(), 200);
  const pieces = [];
  for (let piece; (piece = await request.piece()) !== undefined;) pieces.push(piece);
  return Buffer.concat(pieces);
}

async function run() {
  const client = await (kind === 'h2' ? overHttp2() : overUndici());

  const hello = client.open('GET', '/hello');
  assert.strictEqual(String(await whole(hello)), 'hello');

  const long = client.open('POST', '/echo');
  long.end(body);
  assert.ok((await whole(long)).equals(body), '5 MB came back as they went');

  const trailed = client.open('POST', '/echo', {'x-sum': '5'});
  trailed.end('hello');
  assert.strictEqual(String(await whole(trailed)), 'hello');
  assert.strictEqual((await trailed.trailers())['x-echo'], kind === 'h2' ? '5' : 'none');

  await Promise.all(Array.from({length: 100}, async (_, number) => {
    const one = client.open('POST', '/echo');
    one.end(`${number} `.repeat(1000));
    assert.strictEqual(String(await whole(one)), `${number} `.repeat(1000));
  }));

  /* Each piece goes when the one before has come back. */
  const talk = client.open('POST', '/echo');
  for (let number = 0; number < 20; number++) {
    talk.write(`piece ${number}`);
    if (number === 0) assert.strictEqual(await talk.status(), 200);
    assert.strictEqual(String(await talk.piece()), `piece ${number}`);
  }
  talk.end();
  assert.strictEqual(await talk.piece(), undefined);

  await client.close();
}

run().then(() => process.exit(0), (fault) => {
  console.error(fault);
  process.exit(1);
});
