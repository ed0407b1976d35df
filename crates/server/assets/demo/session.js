// One device's session: connects over a transport, comes back when the connection ends, resumes by its cursor.
//
// Always holds: at most one connection; the cursor is the newest the server gave, whatever the transport, so that
// changing the transport is only another way to resume. Knows nothing of the page: it tells by the functions in `on`:
//   phase(phase, detail)   unplugged | connecting | connected | waiting (detail: ms, why) | stopped (detail: why)
//   frame(frame)           what the server said, in its WebSocket form, whatever the transport
//   catchingUp(), caughtUp()   around what was missed
//   wire(direction, text)  the same as it was written, for the curious

import { longPoll } from './long_poll.js';
import { sse } from './sse.js';
import { websocket } from './websocket.js';
import { Problem, request } from './api.js';

const TRANSPORTS = { websocket, sse, long_poll: longPoll };
const FIRST_RETRY_MS = 500;
const MOST_RETRY_MS = 10_000;
const LEAST_RETRY_MS = 200;
/** Streams have no mark for "that was all you missed"; so long a silence stands for it. */
const QUIET_MS = 600;

/** Doubles with every failure; the jitter keeps many clients from coming back at the same instant. */
export const backOff = (failures, random = Math.random()) =>
  Math.min(MOST_RETRY_MS, FIRST_RETRY_MS * 2 ** failures) * (0.5 + random / 2);

export class Session {
  phase = 'unplugged';
  cursor;
  id = '';
  #link = null;
  #failures = 0;
  #retryTimer = 0;
  #quietTimer = 0;
  #isCatchingUp = false;
  #mayRead = Promise.resolve();
  #readOn = null;

  constructor({ token, transport, on }) {
    Object.assign(this, { token, transport, on });
  }

  get isPlugged() {
    return ['connecting', 'connected', 'waiting'].includes(this.phase);
  }

  get isReading() {
    return this.#readOn === null;
  }

  connect() {
    this.#failures = 0;
    this.#open();
  }

  disconnect() {
    this.#drop();
    this.#enter('unplugged');
  }

  /** What the connection brings is left where it is: in the browser, the network, at last with the server. */
  stopReading() {
    if (this.isReading) this.#mayRead = new Promise(resolve => { this.#readOn = resolve; });
  }

  readOn() {
    if (this.isReading) return;
    if (this.phase === 'connected') this.#beginCatchUp();
    this.#readOn();
    this.#readOn = null;
  }

  /** Marks as read: in the session where the transport can, else by a request. Throws a Problem. */
  async read(ids) {
    if (this.#link?.send) return this.#link.send({ type: 'read', ids });
    const body = JSON.stringify({ ids });
    this.on.wire('→', `POST /v1/inbox/read ${body}`);
    await request({ method: 'POST', path: '/v1/inbox/read', token: this.token, body });
  }

  #open() {
    this.#drop();
    const link = this.#newLink();
    this.#link = link;
    this.id = '';
    this.#enter('connecting');
    TRANSPORTS[this.transport](link)
      .catch(error => this.#judge(error))
      .then(outcome => { if (this.#link === link) this.#ended(outcome); });
  }

  /** What a transport is given. All but the signal goes dead with the connection. */
  #newLink() {
    const controller = new AbortController();
    const { signal } = controller;
    const whileOpen = act => (...facts) => { if (!signal.aborted) act(...facts); };
    const session = this;
    return {
      signal,
      token: this.token,
      abort: () => controller.abort(),
      /** A cursor that the server gave is also the client's word that all up to it has come. */
      get query() { return { cursor: session.cursor, state: 1 }; },
      get isCatchingUp() { return session.#isCatchingUp; },
      mayRead: () => this.#mayRead,
      opened: whileOpen(() => this.#opened()),
      frame: whileOpen(frame => this.#take(frame)),
      caughtUp: whileOpen(() => this.#endCatchUp()),
      wire: whileOpen((direction, text) => this.on.wire(direction, text)),
      send: null,
    };
  }

  #drop() {
    clearTimeout(this.#retryTimer);
    clearTimeout(this.#quietTimer);
    this.#isCatchingUp = false;
    const link = this.#link;
    this.#link = null;
    link?.abort();
  }

  #opened() {
    this.#failures = 0;
    this.#beginCatchUp();
    this.#enter('connected');
  }

  #take(frame) {
    if (frame.type === 'hello') this.id = frame.session;
    if (frame.type === 'cursor') this.cursor = frame.cursor;
    if (this.#isCatchingUp) this.#waitForQuiet();
    this.on.frame(frame);
  }

  #beginCatchUp() {
    this.#isCatchingUp = true;
    this.on.catchingUp();
    this.#waitForQuiet();
  }

  #waitForQuiet() {
    clearTimeout(this.#quietTimer);
    // An empty answer tells a poll; and a stream that is not read tells nothing.
    if (this.transport !== 'long_poll') this.#quietTimer = setTimeout(() => this.#endCatchUp(), QUIET_MS);
  }

  #endCatchUp() {
    clearTimeout(this.#quietTimer);
    if (!this.#isCatchingUp) return;
    this.#isCatchingUp = false;
    this.on.caughtUp();
  }

  /** What follows from an error: try again, or stop. */
  #judge(error) {
    if (!(error instanceof Problem)) return { why: 'The connection broke.' };
    if (error.code === 'invalid_cursor' && this.cursor) {
      this.cursor = undefined;
      return { retryMs: 0, why: 'The server did not take the cursor; beginning with what is pending.' };
    }
    const why = error.message;
    return error.isPassing ? { retryMs: error.retryMs, why, isUnreachable: error.status === 0 } : { stop: why, status: error.status };
  }

  #ended({ stop, status, retryMs, why = 'The server ended the connection.', isUnreachable = false }) {
    this.#drop();
    if (stop) return this.#enter('stopped', { why: stop, status });
    const ms = Math.max(LEAST_RETRY_MS, retryMs ?? backOff(this.#failures));
    this.#failures += 1;
    this.#enter('waiting', { ms, why, isUnreachable });
    this.#retryTimer = setTimeout(() => this.#open(), ms);
  }

  #enter(phase, detail = {}) {
    this.phase = phase;
    this.on.phase(phase, detail);
  }
}
