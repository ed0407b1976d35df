// Runs a private `postrider serve` or `postrider demo`. What it makes lies in its own folder; it is ended by its process id.

import { spawn } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

export const SECRET = 'an-end-to-end-secret-of-enough-bytes';
export const KEY = 'key-of-the-back-end-with-all-scopes';

const READY_MS = 60_000;
const END_MS = 30_000;

const running = new Set();
// The suite's own end is the nodes' end, however it comes.
process.on('exit', () => running.forEach(child => child.kill('SIGKILL')));
for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => process.exit(1));

export class Node {
  #child;
  #exit;

  /** `command`: serve or demo. A node keeps its folder and its address from start to start. */
  static async start(command = 'serve', settings = {}) {
    const node = new Node();
    node.command = command;
    node.folder = await mkdtemp(join(tmpdir(), 'postrider-e2e-'));
    // Below the ports that the kernel gives to clients, so that it is still free for a second start.
    node.port = await freePort();
    node.settings = settings;
    await node.start();
    return node;
  }

  async start() {
    const environment = {
      ...process.env, POSTRIDER_HTTP__LISTEN: `127.0.0.1:${this.port}`, POSTRIDER_OPS__LISTEN: '127.0.0.1:0',
      // A demo that is killed leaves its data behind: here it goes with the folder.
      TMPDIR: this.folder,
    };
    const config = join(this.folder, 'node.yaml');
    // JSON is YAML.
    await writeFile(config, JSON.stringify({
      data_dir: join(this.folder, 'data'),
      auth: {
        jwt: { hmac_secret: SECRET, leeway: '0s' },
        api_keys: [{ name: 'all', key: KEY, scopes: ['publish', 'broadcast', 'manage', 'read'] }],
      },
      drain: { timeout: '10s', spread: '1s' },
      ...this.settings,
    }));
    const given = this.command === 'serve' ? ['--config', config] : ['--listen', `127.0.0.1:${this.port}`];
    this.#child = spawn(binary(), [this.command, ...given, '--log-format', 'json'], {
      cwd: this.folder, env: environment, stdio: ['ignore', 'pipe', 'pipe'],
    });
    running.add(this.#child);
    this.#child.stderr.pipe(createWriteStream(join(this.folder, 'log'), { flags: 'a' }));
    this.#exit = new Promise((resolve, reject) => {
      this.#child.once('error', reject);
      this.#child.once('exit', (code, signal) => resolve(signal ?? code));
    });
    this.#exit.catch(() => {}).finally(() => running.delete(this.#child));
    await limited(this.#ready(), READY_MS, 'ready line').catch(async error => {
      this.#child.kill('SIGKILL');
      throw new Error(`${error.message}; log: ${await this.log()}`);
    });
  }

  async #ready() {
    const wanted = this.command === 'demo' ? 'demo' : 'ready';
    const lines = createInterface({ input: this.#child.stdout });
    const ended = this.#exit.then(status => { throw new Error(`the node ended with ${status} before it was ready`); });
    const said = (async () => {
      for await (const line of lines) {
        const event = JSON.parse(line);
        if (event.event === 'ready') Object.assign(this, { http: event.http, url: `http://${event.http}` });
        if (event.event === 'demo') this.demo = event;
        if (event.event === wanted) return;
      }
      // Standard output may close before the exit is known.
      await ended;
    })();
    await Promise.race([said, ended]);
    // Nothing more is read, nothing may block.
    lines.close();
    this.#child.stdout.resume();
  }

  /** Drains; the exit status. */
  stop() {
    this.#child.kill('SIGTERM');
    return limited(this.#exit, END_MS, 'end after SIGTERM');
  }

  kill() {
    this.#child.kill('SIGKILL');
    return this.#exit;
  }

  async remove() {
    if (running.has(this.#child)) await this.kill();
    await rm(this.folder, { recursive: true, force: true });
  }

  async log() {
    const text = await readFile(join(this.folder, 'log'), 'utf8').catch(() => '');
    return text.split('\n').slice(-15).join('\n');
  }

  async publish(notification) {
    const answer = await fetch(`${this.url}/v1/notifications`, {
      method: 'POST', headers: { Authorization: `Bearer ${KEY}`, 'Content-Type': 'application/json' }, body: JSON.stringify(notification),
    });
    const text = await answer.text();
    if (answer.status !== 202) throw new Error(`publish: ${answer.status} ${text}`);
    return JSON.parse(text).id;
  }

  async ticket(user) {
    const answer = await fetch(`${this.url}/v1/tickets`, { method: 'POST', headers: { Authorization: `Bearer ${token(user)}` } });
    const text = await answer.text();
    if (answer.status !== 201) throw new Error(`ticket: ${answer.status} ${text}`);
    return JSON.parse(text).ticket;
  }
}

/** Stands between a browser and a node, and can cut what goes through. */
export class Cutter {
  #pairs = new Set();
  #server;

  static async before(port) {
    const cutter = new Cutter();
    cutter.#server = net.createServer(client => cutter.#join(client, port));
    await new Promise((resolve, reject) => cutter.#server.once('error', reject).listen(0, '127.0.0.1', resolve));
    cutter.url = `http://127.0.0.1:${cutter.#server.address().port}`;
    return cutter;
  }

  #join(client, port) {
    const server = net.connect(port, '127.0.0.1');
    const pair = [client, server];
    this.#pairs.add(pair);
    const part = () => { pair.forEach(socket => socket.destroy()); this.#pairs.delete(pair); };
    pair.forEach(socket => socket.on('error', part).on('close', part));
    client.pipe(server).pipe(client);
  }

  /** Resets every connection that is open now; how many there were. */
  cut() {
    const open = [...this.#pairs];
    open.forEach(([client, server]) => { client.resetAndDestroy(); server.resetAndDestroy(); });
    return open.length;
  }

  close() {
    this.cut();
    return new Promise(resolve => this.#server.close(resolve));
  }
}

export function token(user, seconds = 3600) {
  const now = Math.floor(Date.now() / 1000);
  const part = value => Buffer.from(JSON.stringify(value)).toString('base64url');
  const signed = `${part({ alg: 'HS256', typ: 'JWT' })}.${part({ sub: user, iat: now, exp: now + seconds })}`;
  return `${signed}.${createHmac('sha256', SECRET).update(signed).digest('base64url')}`;
}

export function limited(promise, ms, what) {
  let timer;
  const late = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error(`no ${what} within ${ms} ms`)), ms); });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

function binary() {
  const path = process.env.POSTRIDER_BIN;
  if (!path) throw new Error('POSTRIDER_BIN must name the binary: run `cargo xtask test --only …`');
  return path;
}

async function freePort() {
  for (let tries = 0; tries < 200; tries += 1) {
    const port = 4000 + Math.floor(Math.random() * 5900);
    const free = await new Promise(resolve => {
      const probe = net.createServer().once('error', () => resolve(false));
      probe.listen(port, '127.0.0.1', () => probe.close(() => resolve(true)));
    });
    if (free) return port;
  }
  throw new Error('no free port between 4000 and 9900');
}
