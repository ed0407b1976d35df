// Stands between a browser and a node, notes what goes through, and can cut it, or hand it on in single bytes.

import net from 'node:net';

/** Between two bytes that are handed on one by one: long enough for the browser to take the first alone. */
const BYTE_MS = 1;

export class Tap {
  /** Per request without a body: its head, what came back, when it began, and when its connection ended. */
  requests = [];
  /** Whether answers are handed on byte by byte. */
  inBytes = false;
  #pairs = new Set();
  #server;

  static async before(port) {
    const tap = new Tap();
    tap.#server = net.createServer(client => tap.#join(client, port));
    await new Promise((resolve, reject) => tap.#server.once('error', reject).listen(0, '127.0.0.1', resolve));
    tap.url = `http://127.0.0.1:${tap.#server.address().port}`;
    return tap;
  }

  #join(client, port) {
    const server = net.connect(port, '127.0.0.1');
    let noted;
    const ended = () => { if (noted) noted.ended ??= performance.now(); };
    const pair = Object.assign([client, server], { ended });
    this.#pairs.add(pair);
    const part = () => {
      ended();
      pair.forEach(socket => socket.destroy());
      this.#pairs.delete(pair);
    };
    client.setNoDelay(true).on('error', part).on('close', part);
    // What has come before the end is handed on before it.
    let handing = Promise.resolve();
    server.on('error', part).on('close', () => { ended(); handing.then(() => client.end()); });
    client.on('data', bytes => {
      // A browser asks one thing after the other, and writes a head at once.
      noted = { head: bytes.toString('latin1'), answer: Buffer.alloc(0), began: performance.now(), ended: undefined };
      this.requests.push(noted);
      server.write(bytes);
    });
    server.on('data', bytes => {
      noted.answer = Buffer.concat([noted.answer, bytes]);
      handing = handing.then(() => this.#hand(client, bytes));
    });
  }

  async #hand(client, bytes) {
    if (!this.inBytes) {
      client.write(bytes);
      return;
    }
    for (const byte of bytes) {
      client.write(Uint8Array.of(byte));
      await new Promise(resolve => setTimeout(resolve, BYTE_MS));
    }
  }

  /** The requests for an event stream. */
  streams() {
    return this.requests.filter(request => request.head.startsWith('GET /v1/inbox/stream'));
  }

  /** Resets every connection that is open now; how many there were. */
  cut() {
    const open = [...this.#pairs];
    open.forEach(pair => {
      // Before the browser can know of it.
      pair.ended();
      pair.forEach(socket => socket.resetAndDestroy());
    });
    return open.length;
  }

  close() {
    this.cut();
    return new Promise(resolve => this.#server.close(resolve));
  }
}

/** The value of a request's header. */
export function header(head, name) {
  const line = head.split('\r\n').find(candidate => candidate.toLowerCase().startsWith(`${name}:`));
  return line?.slice(name.length + 1).trim();
}
