'use strict';
/* Node's servers of every version, behind weir:
 *
 *     node node_server.js CERTIFICATE_WITH_KEY h1=PORT h2=PORT h1s=PORT h2s=PORT
 *
 * Each echoes: what comes of a body goes back at once, a trailer x-sum comes back as x-echo, and
 * /hello says hello. Prints "ready" when all listen; ends with its stdin.
 */
const fs = require('fs');
const http = require('http');
const http2 = require('http2');
const https = require('https');

const pem = fs.readFileSync(process.argv[2]);
const tls = {cert: pem, key: pem};

function answer(request, response) {
  if (request.url === '/hello') {
    response.end('hello');
    return;
  }
  response.setHeader('Trailer', 'x-echo');
  response.writeHead(200);
  response.flushHeaders();
  request.on('data', (piece) => response.write(piece));
  request.on('end', () => {
    response.addTrailers({'x-echo': request.trailers['x-sum'] ?? 'none'});
    response.end();
  });
  request.on('error', () => response.destroy());
}

const make = {
  h1: () => http.createServer(answer),
  h2: () => http2.createServer(answer),
  h1s: () => https.createServer(tls, answer),
  h2s: () => http2.createSecureServer(tls, answer),
};

const pairs = process.argv.slice(3).map((word) => word.split('='));
let waiting = pairs.length;
for (const [version, port] of pairs) {
  make[version]().listen(Number(port), '127.0.0.1', () => {
    if (--waiting === 0) console.log('ready');
  });
}
process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
