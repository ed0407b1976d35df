// What a device missed, counted while it catches up. No page, no clock.

import { TRANSPORTS, plural } from './words.js';

export class Tally {
  found = 0;
  read = 0;
  withdrawn = 0;
  gap = 0;

  /** `after`: what it catches up from: pending (it is new), unplugged, cut off, not reading. `since`: when it began. */
  constructor(after, since) {
    Object.assign(this, { after, since });
  }

  count(what) {
    this[what] += 1;
  }

  /** What to call a notification that was sent then; undefined if it is not late. */
  wordFor(sentAt) {
    if (sentAt > this.since) return undefined;
    return { 'not reading': 'read late', pending: 'was waiting' }[this.after] ?? 'missed';
  }

  text(transport) {
    const { found, read, withdrawn, gap } = this;
    const parts = [
      gap && 'The server reported a gap: not all after this cursor is held any more.',
      found ? this.#foundText() : this.#nothingText(transport),
      read && `${read} read elsewhere meanwhile.`,
      withdrawn && `${withdrawn} withdrawn meanwhile.`,
    ];
    return parts.filter(Boolean).join(' ');
  }

  #foundText() {
    const what = plural(this.found, 'notification');
    if (this.after === 'pending') return `Began with ${what} that waited.`;
    if (this.after === 'not reading') return `Caught up on ${what}.`;
    return `Resumed by the cursor: ${what} missed, now here.`;
  }

  #nothingText(transport) {
    return this.after === 'pending' ? `Connected by ${TRANSPORTS[transport]}.` : 'Back. Nothing was missed.';
  }
}
