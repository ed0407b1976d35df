// The last lines that went over a device's connection, drawn only while somebody looks.

import { element, soon } from './dom.js';
import { clock } from './words.js';

const MOST_LINES = 60;
const MOST_TEXT = 1500;

export class WireLog {
  #root;
  #lines = [];
  #isWaiting = false;

  constructor(root) {
    this.#root = root;
    root.closest('details').addEventListener('toggle', () => this.#drawSoon());
  }

  add(direction, text) {
    const cut = text.length > MOST_TEXT ? `… (${text.length} characters)` : '';
    this.#lines.unshift(`${clock(Date.now())} ${direction} ${text.slice(0, MOST_TEXT)}${cut}`);
    this.#lines.length = Math.min(this.#lines.length, MOST_LINES);
    this.#drawSoon();
  }

  #drawSoon() {
    if (this.#isWaiting || !this.#root.closest('details').open) return;
    this.#isWaiting = true;
    soon(() => {
      this.#isWaiting = false;
      this.#root.replaceChildren(...this.#lines.map(line => element('li', {}, line)));
    });
  }
}
