// One device of a user: a session, what it knows of the inbox, and its card on the page.

import { $, label, part, say, stamp } from './dom.js';
import { announce, announceArrival } from './announce.js';
import { receivingCode, requestCode } from './code.js';
import { record } from './deeds.js';
import { happened } from './happenings.js';
import { Inbox } from './inbox.js';
import { List } from './list.js';
import { Session } from './session.js';
import { Tally } from './tally.js';
import { TRANSPORTS } from './words.js';
import { WireLog } from './wire.js';

const NEVER = 'A browser takes a WebSocket in as fast as it comes. Choose SSE or long poll to stop reading.';
const NOT_READING = 'Not reading. What comes fills the browser’s and the network’s buffers, then waits with the server.';

/** A browser opens at most six HTTP/1.1 connections to one server; two stay free for sending and marking. */
const MOST_HELD = 4;
const TOO_MANY = 'A browser keeps six connections to one server. Choose WebSocket here, or unplug another device.';

const ERRORS = {
  transient_dropped: 'The server dropped transient notifications: this device took too little.',
  unavailable: 'The server could not store what was read. It is told again when the device is back.',
};

const PHASES = {
  unplugged: () => 'Unplugged', connecting: () => 'Connecting', connected: () => 'Connected', stopped: () => 'Stopped',
  waiting: ({ ms }) => `Again in ${Math.max(1, Math.round(ms / 1000))} s`,
};

/** Devices whose connection the browser counts. */
const held = new Set();

export class Device {
  inbox = new Inbox();
  #unsent = new Set();
  #tally = null;
  #nextTally = 'pending';
  #list;
  #wire;

  /** `kind`: Laptop, Phone, Tablet. `onState`: the user's state map came. `onRemove`: the card is gone. */
  constructor({ user, kind, transport, token, onState, onRemove }) {
    Object.assign(this, { user, kind, onState, onRemove, name: `${user}’s ${kind.toLowerCase()}`, root: stamp('device') });
    this.#list = new List(part(this.root, 'inbox'), {
      read: item => this.read(item.entry.id),
      select: (item, from) => happened('select', { id: item.entry.id, subject: item.entry.subject, from }),
    });
    this.#wire = new WireLog(part(this.root, 'wire'));
    this.session = new Session({ token, transport, on: this.#ears() });
    this.#dress();
    this.#wireButtons();
  }

  get transport() {
    return this.session.transport;
  }

  plugIn() {
    const isHeld = this.transport !== 'websocket';
    if (isHeld && !held.has(this) && held.size >= MOST_HELD) return this.#refuse();
    held[isHeld ? 'add' : 'delete'](this);
    record(`Plug in ${this.name}, by ${TRANSPORTS[this.transport]}`, receivingCode(this.transport, this.user, this.session.cursor));
    return this.session.connect();
  }

  #refuse() {
    this.session.disconnect();
    this.#notice(TOO_MANY, 'bad');
  }

  unplug() {
    this.#readAgain();
    this.#nextTally = 'unplugged';
    this.session.disconnect();
    this.#notice('Unplugged. What is sent now waits in the inbox.');
  }

  stopReading() {
    if (this.transport === 'websocket') return this.#notice(NEVER, 'warn');
    this.session.stopReading();
    this.#showButtons();
    return this.#notice(NOT_READING, 'warn');
  }

  readOn() {
    if (this.session.isReading) return;
    this.#nextTally = 'not reading';
    this.session.readOn();
    this.#showButtons();
  }

  useTransport(transport) {
    this.#readAgain();
    this.session.transport = transport;
    part(this.root, 'transport').value = transport;
    this.#showButtons();
    if (this.session.phase === 'unplugged') this.#notice(`It will go on by ${TRANSPORTS[transport]}, from the same cursor.`);
    else this.plugIn();
  }

  /** At once on this device; the server is told now, or when the session is back. */
  read(id) {
    if (!this.#mark(id, 'read', 'read')) return;
    const body = JSON.stringify({ ids: [id] });
    record(`Read on ${this.name}`, requestCode({ method: 'POST', path: '/v1/inbox/read', who: this.user, body }));
    this.#unsent.add(id);
    this.#tellReads();
  }

  remove() {
    this.session.disconnect();
    this.root.remove();
    this.onRemove(this);
  }

  /* What the session tells */

  #ears() {
    const handlers = {
      notification: frame => this.#arrive(frame),
      read: ({ ids }) => ids.forEach(id => this.#mark(id, 'read', 'read elsewhere')),
      withdrawn: ({ id, reason }) => this.#mark(id, 'withdrawn', reason ?? 'withdrawn'),
      gap: () => this.#tally?.count('gap'),
      state: ({ state }) => this.onState(state),
      cursor: () => this.#showPlace(),
      error: ({ code }) => this.#notice(ERRORS[code] ?? `The server says: ${code}.`, 'warn'),
    };
    return {
      phase: (phase, detail) => this.#enter(phase, detail),
      frame: frame => handlers[frame.type]?.(frame),
      catchingUp: () => this.#beginTally(),
      caughtUp: () => this.#endTally(),
      wire: (direction, text) => this.#wire.add(direction, text),
    };
  }

  #enter(phase, detail) {
    if (!this.session.isPlugged) held.delete(this);
    const status = part(this.root, 'status');
    status.textContent = PHASES[phase](detail);
    status.dataset.phase = phase;
    part(this.root, 'plug').textContent = this.session.isPlugged ? 'Unplug' : 'Plug in';
    if (phase === 'waiting') {
      this.#nextTally = 'cut off';
      this.#notice(detail.why, 'warn');
    }
    if (phase === 'stopped') this.#notice(detail.why, 'bad');
    if (phase === 'connected') this.#tellReads();
    happened('phase', { device: this, phase, detail });
  }

  #arrive(entry) {
    const now = Date.now();
    const sentAt = Date.parse(entry.time);
    const late = this.#tally?.wordFor(sentAt);
    const { item, isNew } = this.inbox.arrive(entry, { late, waitedMs: now - sentAt });
    if (!isNew) return this.#list.update(item);
    this.#tally?.count('found');
    this.#list.add(item);
    this.#showCount();
    announceArrival(this.name, entry);
    happened('arrived', { device: this, item });
  }

  #mark(id, state, note) {
    const item = this.inbox.mark(id, state, note);
    if (!item) return false;
    if (note !== 'read') this.#tally?.count(state);
    this.#list.update(item);
    this.#showCount();
    happened('settled', { device: this, item });
    return true;
  }

  async #tellReads() {
    if (this.session.phase !== 'connected' || !this.#unsent.size) return;
    const ids = [...this.#unsent];
    this.#unsent.clear();
    try {
      await this.session.read(ids);
    } catch (error) {
      ids.forEach(id => this.#unsent.add(id));
      this.#notice(`The server does not know yet what was read. ${error.message}`, 'warn');
    }
  }

  /* What was missed */

  #beginTally() {
    this.#tally = new Tally(this.#nextTally, Date.now());
    this.#nextTally = 'cut off';
  }

  #endTally() {
    const tally = this.#tally;
    this.#tally = null;
    this.#notice(tally.text(this.transport), tally.gap ? 'warn' : 'ok');
    happened('caughtUp', { device: this, tally });
  }

  #readAgain() {
    this.session.readOn();
    this.#showButtons();
  }

  /* The card */

  #dress() {
    const { root, kind, name, user } = this;
    const title = $('h3', root);
    title.textContent = kind;
    title.id = `device-${user}-${kind}`;
    root.dataset.device = `${user}-${kind.toLowerCase()}`;
    root.setAttribute('aria-labelledby', `user-${user} ${title.id}`);
    $('use', root).setAttribute('href', `#icon-${kind.toLowerCase()}`);
    label(part(root, 'inbox'), `Inbox of ${name}`);
    label(part(root, 'wire'), `What goes over the wire of ${name}, newest first`);
    label(part(root, 'remove'), `Remove ${name}`);
    label(part(root, 'transport'), `Transport of ${name}`);
    part(root, 'transport').value = this.transport;
    part(root, 'empty').textContent = 'Nothing yet.';
    this.#showButtons();
    this.#showCount();
    this.#showPlace();
  }

  #wireButtons() {
    const on = (name, act) => { part(this.root, name).onclick = act; };
    on('plug', () => (this.session.isPlugged ? this.unplug() : this.plugIn()));
    on('pause', () => (this.session.isReading ? this.stopReading() : this.readOn()));
    on('remove', () => this.remove());
    part(this.root, 'transport').onchange = event => this.useTransport(event.target.value);
  }

  #showButtons() {
    const pause = part(this.root, 'pause');
    pause.textContent = this.session.isReading ? 'Stop reading' : 'Read on';
    pause.dataset.dim = String(this.transport === 'websocket');
    this.root.dataset.reading = String(this.session.isReading);
  }

  #showCount() {
    const { unread } = this.inbox;
    const badge = part(this.root, 'unread');
    badge.textContent = unread.toLocaleString('en');
    badge.dataset.count = unread;
    label(badge, `${unread} unread`);
    part(this.root, 'empty').hidden = this.inbox.received > 0;
  }

  #showPlace() {
    const { cursor, id } = this.session;
    part(this.root, 'place').textContent = `cursor ${cursor ?? 'none yet'}${id ? ` · session ${id}` : ''}`;
  }

  #notice(text, tone) {
    say(part(this.root, 'notice'), text, tone);
    if (tone) announce(`${this.name}: ${text}`);
  }
}
