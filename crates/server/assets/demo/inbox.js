// What one device knows of its user's inbox: each notification once, by its id, and what became of it. No page, no network.

/** So many are remembered; the oldest are forgotten first. */
const MOST = 2000;

export class Inbox {
  unread = 0;
  /** Notifications that came, each counted once. */
  received = 0;
  #items = new Map();
  /** Marks that came before what they are about. */
  #early = new Map();

  get(id) {
    return this.#items.get(id);
  }

  /** Delivery is at least once: a second copy carries the same id, and only counts. */
  arrive(entry, facts = {}) {
    const known = this.#items.get(entry.id);
    if (known) {
      known.copies += 1;
      return { item: known, isNew: false };
    }
    const item = { entry, state: 'new', note: 'new', copies: 1, ...facts };
    this.#items.set(entry.id, item);
    this.received += 1;
    this.unread += 1;
    const early = this.#early.get(entry.id);
    if (early) this.mark(entry.id, early.state, early.note);
    this.#forget();
    return { item, isNew: true };
  }

  /** The item, if this changed it. What is read or withdrawn stays so. */
  mark(id, state, note) {
    const item = this.#items.get(id);
    if (!item) {
      this.#early.set(id, { state, note });
      trim(this.#early);
    }
    if (item?.state !== 'new') return undefined;
    this.unread -= 1;
    return Object.assign(item, { state, note });
  }

  #forget() {
    trim(this.#items, gone => { if (gone.state === 'new') this.unread -= 1; });
  }
}

function trim(map, onGone = () => {}) {
  while (map.size > MOST) {
    const [id, value] = map.entries().next().value;
    map.delete(id);
    onGone(value);
  }
}
