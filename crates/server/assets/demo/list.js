// A device's list of notifications, newest first: by when each was published, since what a device catches up on comes
// feed by feed. Changes are gathered and drawn once per frame, and only the newest are drawn at all, so that a burst of
// thousands costs what a screenful costs.

import { element, label, part, soon, stamp } from './dom.js';
import { clock, dataText, duration } from './words.js';

const SHOWN = 25;
/** A difference of clocks, or an old notification: nobody wants to read how long that took. */
const MOST_WAIT_MS = 600_000;

export class List {
  #root;
  #acts;
  #rest;
  #fresh = [];
  #nodes = new Map();
  #isWaiting = false;

  /** `acts`: what the buttons of an item do, read(item) and select(item, button). */
  constructor(root, acts) {
    this.#root = root;
    this.#acts = acts;
    this.#rest = element('li', { className: 'rest', hidden: true }, 'Older ones are not shown.');
    root.append(this.#rest);
  }

  add(item) {
    this.#fresh.splice(this.#fresh.findLastIndex(other => !isNewer(other, item)) + 1, 0, item);
    if (this.#fresh.length > SHOWN) this.#fresh.shift();
    if (this.#isWaiting) return;
    this.#isWaiting = true;
    soon(() => this.#draw());
  }

  /** Shows an item's state, where it is shown. */
  update(item) {
    const shown = this.#nodes.get(item.entry.id);
    if (shown) dress(shown.node, item);
  }

  #draw() {
    this.#isWaiting = false;
    const items = this.#fresh.splice(0).filter(item => !this.#nodes.has(item.entry.id));
    let next = this.#root.firstElementChild;
    for (const item of items.reverse()) {
      while (next !== this.#rest && isNewer(this.#nodes.get(next.dataset.id).item, item)) next = next.nextElementSibling;
      next.before(this.#newNode(item));
    }
    while (this.#nodes.size > SHOWN) this.#remove(this.#rest.previousElementSibling);
  }

  #remove(node) {
    // The focus stays in the list rather than falling off the page.
    this.#rest.hidden = false;
    if (node.contains(document.activeElement)) this.#root.focus({ preventScroll: true });
    this.#nodes.delete(node.dataset.id);
    node.remove();
  }

  #newNode(item) {
    const node = stamp('item');
    const { entry } = item;
    const title = entry.subject ?? 'No subject';
    const [select, read] = [part(node, 'select'), part(node, 'read')];
    node.dataset.id = entry.id;
    select.textContent = title;
    label(select, `Timeline of ${title}`);
    label(read, `Read ${title}`);
    select.onclick = () => this.#acts.select(item, select);
    read.onclick = () => this.#acts.read(item);
    const time = node.querySelector('time');
    Object.assign(time, { textContent: clock(entry.time), dateTime: entry.time });
    part(node, 'data').textContent = dataText(entry.data);
    part(node, 'data').dataset.kind = typeof entry.data === 'string' ? 'text' : 'json';
    this.#nodes.set(entry.id, { node, item });
    dress(node, item);
    return node;
  }
}

/** Whether it was published after the other. */
function isNewer(item, other) {
  return Date.parse(item.entry.time) > Date.parse(other.entry.time);
}

function dress(node, item) {
  node.dataset.state = item.state;
  const isNew = item.state === 'new';
  const read = part(node, 'read');
  // The focus goes on to the next one to read, rather than off the page with the button.
  if (!isNew && read === document.activeElement) (nextToRead(node) ?? part(node, 'select')).focus();
  read.hidden = !isNew;
  part(node, 'chip').textContent = isNew ? '' : item.note;
  part(node, 'extra').replaceChildren(...extra(item));
}

function nextToRead(node) {
  for (let next = node.nextElementSibling; next; next = next.nextElementSibling) {
    if (next.dataset.state === 'new') return part(next, 'read');
  }
  return undefined;
}

function extra({ entry, late, copies, waitedMs }) {
  const waited = waitedMs >= 0 && waitedMs < MOST_WAIT_MS && duration(waitedMs);
  const facts = [
    !late && waited && `in ${waited}`,
    entry.topic && `topic ${entry.topic}`,
    copies > 1 && `came ${copies} times`,
  ].filter(Boolean).map(fact => ` · ${fact}`);
  if (late) facts.push(' ', element('strong', { className: 'late' }, late), waited ? ` waited ${waited}` : '');
  return facts;
}
